"""Judging a request by the head of its data set: the third decision point. PS3.7 §9.1.1 (UIDs), PS3.4 §C.4, §J.3.

Only what a rule needs is read: the UIDs of an instance, the identifier of a query, the transaction of a storage
commitment. What comes behind the head is never judged or changed.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto

from dicomward.dicom.deviation import Deviation
from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.framing import DataRun, fragments_of
from dicomward.dicom.head import Head, HeadUnreadable, scan_head
from dicomward.relay.effects import Effect
from dicomward.relay.identifiers import (
    END_OF_DATA_SET,
    PATIENT_ID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    TRANSACTION_UID,
    is_narrowing,
    query_facts,
    single_value,
    uid_value,
)
from dicomward.relay.inputs import Instant, Leg
from dicomward.relay.messages import Asked, Exchange, Refusal, Transfer
from dicomward.relay.meter import Meter
from dicomward.relay.negotiation import Context
from dicomward.relay.rights import ArchiveRights, Rights
from dicomward.relay.subjects import subject_of
from dicomward.relay.world import World
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import Service, is_clinical_floor, service_of

RETRIEVALS = (Operation.C_FIND, Operation.C_GET, Operation.C_MOVE)
# Nearly every head ends within so many bytes.
_FIRST_BYTES = 2048


class Verdict(Enum):
    """What a look at a head has shown; a refusal comes as `Refusal`."""

    MORE_NEEDED = auto()
    PERMITTED = auto()


class HeadJudge:
    """Judges heads of requests of one association."""

    def __init__(
        self,
        world: World,
        rights: Rights,
        contexts: Mapping[int, Context],
        count_deviation: Callable[[str], None],
        meter: Meter,
    ) -> None:
        self._meter = meter
        self._limits = world.settings.limits
        self._identify_patients = world.settings.identify_patients
        self._rights = rights
        self._contexts = contexts
        self._count_deviation = count_deviation

    def wanted(self, exchange: Exchange, context: Context) -> int:
        """Return the tag after which enough of the data set is known; 0 where nothing of it is needed."""
        if exchange.operation is Operation.C_STORE:
            # What goes out of an archive counts for somebody; what comes in does not.
            return STUDY_INSTANCE_UID if exchange.suboperation_of else SOP_INSTANCE_UID
        if exchange.operation in RETRIEVALS:
            return END_OF_DATA_SET
        if service_of(context.abstract_syntax) is Service.STORAGE_COMMITMENT and exchange.operation in (
            Operation.N_ACTION,
            Operation.N_EVENT_REPORT,
        ):
            return TRANSACTION_UID
        return 0

    def look(self, transfer: Transfer, run: DataRun, now: Instant, out: list[Effect]) -> Verdict | Refusal:
        """Look at the next fragments of a head; `transfer.head` collects what is needed of them."""
        whole = transfer.stop_after == END_OF_DATA_SET
        if not whole and not transfer.head:
            head = self._first_bytes(transfer, run)
            if head is not None and head.finished:
                return self._judge(transfer, head, now, out)
        bound = self._limits.max_identifier_bytes if whole else self._limits.max_head_bytes
        for fragment, _last in fragments_of(run.view):
            transfer.head += fragment[: bound + 1 - len(transfer.head)]
        full = len(transfer.head) > bound
        # Headers count as well: a peer that sends single bytes makes us keep twelve more for each.
        if whole and (full or len(transfer.kept) > bound + self._limits.max_held_bytes):
            return Refusal(ReasonCode.LIMIT_EXCEEDED, detail=f"identifier of more than {bound} bytes")
        if not run.last and not full and (whole or len(transfer.head) < transfer.next_scan):
            return Verdict.MORE_NEEDED
        # Scanning a long head again only when it has doubled keeps the cost linear for a peer that sends single bytes.
        transfer.next_scan = 2 * len(transfer.head) if len(transfer.head) > _FIRST_BYTES else 0
        reason = ReasonCode.IDENTIFIER_UNREADABLE if whole else ReasonCode.DATA_SET_UNREADABLE
        try:
            head = self._scan(transfer, transfer.head, complete=run.last and not full)
        except HeadUnreadable as error:
            return Refusal(reason, detail=str(error))
        if head.finished or (full and transfer.stop_after == STUDY_INSTANCE_UID and SOP_INSTANCE_UID in head.values):
            return self._judge(transfer, head, now, out)
        if full:
            return Refusal(reason, detail=f"{_name(transfer.stop_after)} is not within the first {bound} bytes")
        return Verdict.MORE_NEEDED

    def _first_bytes(self, transfer: Transfer, run: DataRun) -> Head | None:
        """Scan the head where it stands, if all that matters is in the first fragment: then no image is copied."""
        fragment, _last = next(fragments_of(run.view))
        try:
            return self._scan(transfer, fragment[: min(_FIRST_BYTES, self._limits.max_head_bytes)], complete=False)
        except HeadUnreadable:
            return None

    def _scan(self, transfer: Transfer, data: bytearray | memoryview, *, complete: bool) -> Head:
        transfer_syntax = self._contexts[transfer.context_id].transfer_syntax
        return scan_head(data, transfer_syntax, stop_after=transfer.stop_after, complete=complete)

    def _judge(self, transfer: Transfer, head: Head, now: Instant, out: list[Effect]) -> Verdict | Refusal:
        for deviation in head.deviations:
            self._count_deviation(deviation)
        exchange = transfer.exchange
        if exchange.operation in RETRIEVALS and self._identify_patients:
            exchange.subject, exchange.identifier = subject_of(head.values), transfer.head
        transfer.head = bytearray()
        if transfer.stop_after in (SOP_INSTANCE_UID, STUDY_INSTANCE_UID):
            refusal = self._judge_instance(exchange.command, head)
            if refusal is None and exchange.suboperation_of:
                reason = self._meter.instance(transfer, head.values, now, out)
                refusal = None if reason is None else Refusal(reason)
        elif transfer.stop_after == TRANSACTION_UID:
            refusal = self._judge_transaction(exchange, head, now)
        else:
            refusal = self._judge_identifier(exchange, head, now)
        return refusal or Verdict.PERMITTED

    def _judge_instance(self, command: CommandSet, head: Head) -> Refusal | None:
        """Compare the UIDs of command and data set: where both have one, they are equal (docs/relay.md)."""
        for tag, stated, reason in (
            (SOP_CLASS_UID, command.sop_class_uid, ReasonCode.SOP_CLASS_MISMATCH),
            (SOP_INSTANCE_UID, command.sop_instance_uid, ReasonCode.INSTANCE_UID_MISMATCH),
        ):
            value = head.values.get(tag, b"")
            found = uid_value(value)
            if value is not None and not found:
                if Deviation.DATA_SET_ORDER in head.deviations:
                    # Out of order, it may still come, and would not have been compared.
                    return Refusal(ReasonCode.DATA_SET_UNREADABLE, detail=f"out of order, and no {_name(tag)} so far")
                self._count_deviation("data-set-without-instance-uid")
            elif found != stated:
                return Refusal(reason, detail=f"{_name(tag)} differs from the command")
        return None

    def _judge_transaction(self, exchange: Exchange, head: Head, now: Instant) -> Refusal | None:
        transaction_uid = uid_value(head.values.get(TRANSACTION_UID))
        if not transaction_uid:
            return Refusal(ReasonCode.DATA_SET_UNREADABLE, detail="no Transaction UID (0008,1195)")
        exchange.transaction_uid = transaction_uid
        # A device that reports to another device is for the policy alone.
        from_archive = exchange.invoker is Leg.ACCEPTOR or isinstance(self._rights, ArchiveRights)
        if exchange.operation is Operation.N_EVENT_REPORT and from_archive:
            context = self._contexts[exchange.context_id]
            outcome = self._rights.judge_report(transaction_uid, context, exchange.command, now)
            if isinstance(outcome, Refusal):
                return outcome
        return None

    def _judge_identifier(self, exchange: Exchange, head: Head, now: Instant) -> Refusal | None:
        exchange.query_level, keys = query_facts(head.values)
        context = self._contexts[exchange.context_id]
        outcome = self._rights.judge_identifier(context, exchange.command, exchange.query_level, keys, now)
        if isinstance(outcome, Refusal):
            return outcome
        exchange.rule_ids = outcome.rule_ids
        for lift in outcome.lifts:
            exchange.add_lift(lift)
        if is_clinical_floor(exchange.operation, context.abstract_syntax):
            return None
        asked = sorted(tag for tag in outcome.strip & head.values.keys() if is_narrowing(head.values[tag]))
        if asked and self._rights.lift(ReasonCode.STRIPPED_KEY, now) is None:
            # What is kept from somebody must not be guessed by asking for it, letter by letter.
            names = ", ".join(_name(tag) for tag in asked)
            return Refusal(
                ReasonCode.STRIPPED_KEY, outcome.rule_ids, f"the query narrows by {names}, which is stripped"
            )
        exchange.strip = outcome.strip
        exchange.asked = Asked(
            frozenset(head.values),
            patient=single_value(head.values.get(PATIENT_ID)),
            study=single_value(head.values.get(STUDY_INSTANCE_UID)),
        )
        reason = self._meter.judge_request(exchange, head.values, now)
        return None if reason is None else Refusal(reason, outcome.rule_ids)


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
