"""What goes out on one association, charged to the budgets of those who get it.

Matches of a C-FIND count for the device that asks. An instance of a C-GET counts for the device that asks; one of a
C-MOVE for the device that receives it and, where that is another one, for the device that asks as well: nobody can
have a destination pay for it. The clinical floor (worklist, what is stored) never comes here.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from dicomward.audit.event import SecurityAlert
from dicomward.limits.budgets import Charge, Holder, Outcome
from dicomward.relay.correlations import PendingMove
from dicomward.relay.effects import Effect, KeepCharges, Record
from dicomward.relay.identifiers import (
    PATIENT_BIRTH_DATE,
    PATIENT_ID,
    PATIENT_NAME,
    STUDY_INSTANCE_UID,
    uid_value,
)
from dicomward.relay.inputs import Instant
from dicomward.relay.messages import Exchange, Lift, Transfer
from dicomward.relay.observe import observe
from dicomward.relay.pace import Pace
from dicomward.relay.records import Records
from dicomward.relay.rights import ArchiveRights, Rights
from dicomward.relay.world import World
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Role
from dicomward.vocab.reason import ReasonCode

# A retrieval that lists more studies is judged by the first ones, and by each instance as it comes.
_MOST_NAMED = 64


class Meter:
    """Charges what one association takes out. It holds the bytes that are paid for and not used yet."""

    def __init__(self, world: World, rights: Rights, pace: Pace, records: Records, *, archive: str) -> None:
        self._world = world
        self._rights = rights
        self._pace = pace
        self._records = records
        self._target = archive
        self._from_archive = isinstance(rights, ArchiveRights)
        # Who has paid for how many bytes, and in which minute.
        self._credits: dict[tuple[Holder, ...], tuple[int, int]] = {}
        self._alarmed: set[tuple[object, str]] = set()

    # -- before an operation ----------------------------------------------------------------------------------------

    def judge_request(self, exchange: Exchange, values: Mapping[int, bytes | None], now: Instant) -> ReasonCode | None:
        """Return why a query or retrieval has no chance, so that the archive isn't asked at all."""
        reason = self._judge_request(exchange, values)
        return None if reason is None or self._is_lifted(exchange, reason, now) else reason

    def _judge_request(self, exchange: Exchange, values: Mapping[int, bytes | None]) -> ReasonCode | None:
        if exchange.operation is Operation.C_FIND:
            return self._world.budgets.check(self._requester(), Charge(matches=1, bytes=1))
        holders = self._requester()
        if exchange.operation is Operation.C_MOVE:
            holders = self._holders(self._receiver_of_move(exchange.command.move_destination or ""), holders)
        reason: ReasonCode | None = None
        for charge in self._named(values):
            reason = self._world.budgets.check(holders, charge)
            if reason is None:
                return None
        return reason

    def _named(self, values: Mapping[int, bytes | None]) -> Iterable[Charge]:
        """Return what each study, or else the patient, that an identifier names would cost at least."""
        studies = [uid for uid in uid_value(values.get(STUDY_INSTANCE_UID)).split("\\") if uid]
        for uid in islice(studies, _MOST_NAMED):
            yield Charge(studies=(self._study(uid.encode("latin-1")),), bytes=1)
        if not studies:
            patient = _stripped(values.get(PATIENT_ID))
            yield Charge(patients=(self._patient(patient),) if patient else (), bytes=1)

    # -- while it runs ----------------------------------------------------------------------------------------------

    def match(
        self, transfer: Transfer, values: Mapping[int, bytes | None], count: int, now: Instant, out: list[Effect]
    ) -> ReasonCode | None:
        """Charge a match of `count` bytes; return why it can't go out."""
        patients, studies = self._subjects(values, transfer.exchange, stand_in="")
        charge = Charge(patients=patients, studies=studies, matches=1, bytes=count)
        return self._charge(transfer, self._requester(), charge, values, now, out)

    def instance(
        self, transfer: Transfer, values: Mapping[int, bytes | None], now: Instant, out: list[Effect]
    ) -> ReasonCode | None:
        """Charge an instance of a C-GET or C-MOVE by its head; return why it can't go out."""
        exchange = transfer.exchange
        patients, studies = self._subjects(values, exchange, stand_in=exchange.command.sop_instance_uid or "")
        holders = self._receivers(exchange)
        charge = Charge(patients=patients, studies=studies, bytes=exchange.bytes)
        refused = self._charge(transfer, holders, charge, values, now, out)
        if refused is None:
            transfer.payers = holders
        return refused

    def _charge(
        self,
        transfer: Transfer,
        holders: tuple[Holder, ...],
        charge: Charge,
        values: Mapping[int, bytes | None],
        now: Instant,
        out: list[Effect],
    ) -> ReasonCode | None:
        exchange = transfer.exchange
        outcome = self._world.budgets.charge(holders, charge)
        if outcome.refused is not None and self._is_lifted(exchange, outcome.refused, now):
            # Counted all the same: what went out under a bypass must not be there to be had again.
            outcome = self._world.budgets.charge(holders, charge, forced=True)
        if outcome.refused is None:
            self._charged(transfer, outcome, now, out)
            self._look_for_canary(exchange, values, out)
        return outcome.refused

    def spend(self, transfer: Transfer, count: int, now: Instant, out: list[Effect]) -> None:
        """Count further bytes of an instance. It isn't cut off in the middle: the next one is refused."""
        credit, minute = self._credits.get(transfer.payers, (0, 0))
        if credit < count:
            outcome = self._world.budgets.lease(transfer.payers, count - credit)
            self._charged(transfer, outcome, now, out)
            credit, minute = credit + outcome.granted_bytes, outcome.minute
        self._credits[transfer.payers] = (credit - count, minute)

    def end(self) -> None:
        """Give back what has been paid for and not used."""
        for holders, (credit, minute) in self._credits.items():
            if credit:
                self._world.budgets.refund(holders, credit, minute)
        self._credits.clear()

    def _charged(self, transfer: Transfer, outcome: Outcome, now: Instant, out: list[Effect]) -> None:
        # First of all: nothing that this input sends may be sent before it is known what it has cost.
        if not out or not isinstance(out[0], KeepCharges):
            out.insert(0, KeepCharges())
        if outcome.over is not None and not self._is_lifted(transfer.exchange, outcome.over, now):
            self._pace.delay(transfer.leg, outcome.delay_seconds, out)

    def _is_lifted(self, exchange: Exchange, reason: ReasonCode, now: Instant) -> bool:
        """Say if something lets pass what a budget refuses; the operation is marked with it."""
        lift = self._rights.lift(reason, now)
        if lift is None and self._from_archive:
            lift = self._lift_of_others(exchange, reason, now)
        if lift is None:
            return False
        exchange.add_lift(lift)
        return True

    def _lift_of_others(self, exchange: Exchange, reason: ReasonCode, now: Instant) -> Lift | None:
        """Return what lifts it for who receives an instance of a C-MOVE, or for who has asked for it."""
        for holder in self._receivers(exchange):
            device = self._world.registry.device_by_name(holder.device)
            found = self._world.bypasses.find(holder.device, device.site if device else "", now.monotonic)
            if found is not None:
                return Lift(found.rule_id, reason)
            if (lift := observe(device, reason, now.local)) is not None:
                return lift
        return None

    # -- who and what -----------------------------------------------------------------------------------------------

    def _requester(self) -> tuple[Holder, ...]:
        principal = self._rights.principal
        return (Holder(principal.device, principal.role),)

    def _receivers(self, exchange: Exchange) -> tuple[Holder, ...]:
        if not self._from_archive:
            return self._requester()
        askers = [self._holder(each.device) for each in exchange.suboperation_of if isinstance(each, PendingMove)]
        return self._holders(self._holder(self._target), askers)

    def _receiver_of_move(self, destination: str) -> Holder:
        route = self._world.registry.route(destination)
        return self._holder(route.name if route is not None else "")

    @staticmethod
    def _holders(first: Holder, others: Sequence[Holder]) -> tuple[Holder, ...]:
        return tuple(dict.fromkeys((first, *others)))

    def _holder(self, name: str) -> Holder:
        device = self._world.registry.device_by_name(name)
        return Holder(name, device.role if device is not None else Role.ARCHIVE.value)

    def _subjects(
        self, values: Mapping[int, bytes | None], exchange: Exchange, *, stand_in: str
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the patient and the study as hashes. What isn't stated counts by the next best that tells them apart.

        So an answer without a patient ID counts too often rather than never.
        """
        study = _stripped(values.get(STUDY_INSTANCE_UID)) or exchange.asked.study or stand_in.encode("latin-1")
        patient = _stripped(values.get(PATIENT_ID)) or exchange.asked.patient
        if not patient and (name := _stripped(values.get(PATIENT_NAME))):
            patient = b"\0".join((name, _stripped(values.get(PATIENT_BIRTH_DATE))))
        patient = patient or study
        return (self._patient(patient),) if patient else (), (self._study(study),) if study else ()

    def _patient(self, patient: bytes) -> int:
        return self._world.budgets.patient(self._source, patient)

    def _study(self, study: bytes) -> int:
        return self._world.budgets.study(self._source, study)

    @property
    def _source(self) -> str:
        """The archive that it comes from: patients of two archives are never the same."""
        return self._rights.principal.device if self._from_archive else self._target

    # -- canaries ---------------------------------------------------------------------------------------------------

    def _look_for_canary(self, exchange: Exchange, values: Mapping[int, bytes | None], out: list[Effect]) -> None:
        """Raise an alarm for a canary, once for each operation; the answer goes on, so that nobody is warned."""
        name = self._world.settings.canaries.found(values)
        if name is None:
            return
        asked = next(iter(exchange.suboperation_of), exchange)
        operation = asked.move_id if isinstance(asked, PendingMove) else (asked.message_id, asked.started)
        if (operation, name) in self._alarmed:
            return
        self._alarmed.add((operation, name))
        facts = self._records.facts(exchange)
        out.append(
            Record(
                SecurityAlert(
                    association=facts["association"],
                    device=facts["device"],
                    role=facts["role"],
                    site=facts["site"],
                    calling_ae_title=facts["calling_ae_title"],
                    called_ae_title=facts["called_ae_title"],
                    archive=facts["archive"],
                    address=facts["address"],
                    rule_ids=facts["rule_ids"],
                    policy_revision=facts["policy_revision"],
                    reason=ReasonCode.CANARY,
                    detail=f"canary {name!r} went out in a {exchange.operation.label}{_asked_by(exchange)}",
                )
            )
        )


def _asked_by(exchange: Exchange) -> str:
    devices = {each.device for each in exchange.suboperation_of if isinstance(each, PendingMove)}
    return f" that {', '.join(sorted(devices))} asked for" if devices else ""


def _stripped(value: bytes | None) -> bytes:
    return (value or b"").strip(b"\0 ")
