"""What the acceptor of a request answers: matched to its request, counted, cut and kept honest. PS3.7 §9-10."""

from collections.abc import Mapping
from dataclasses import replace

from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.errors import RemoteProtocolError
from dicomward.dicom.framing import DataRun, encode_p_data, fragments_of
from dicomward.dicom.head import HeadUnreadable, scan_head
from dicomward.dicom.strip import Stripped, strip_elements
from dicomward.policy.strip import REQUIRED_KEY_TAGS
from dicomward.relay.effects import Effect
from dicomward.relay.identifiers import END_OF_DATA_SET
from dicomward.relay.inputs import Instant, Leg
from dicomward.relay.messages import Exchange, Mode, Refusal, Side, Transfer
from dicomward.relay.meter import Meter
from dicomward.relay.negotiation import Context
from dicomward.relay.records import Records
from dicomward.relay.refusals import comment_for, status_for
from dicomward.relay.rights import ArchiveRights, Rights
from dicomward.relay.subjects import subject_of
from dicomward.relay.world import World
from dicomward.vocab.association import AbortReason
from dicomward.vocab.dimse import C_CANCEL_RQ, RESPONSE_BIT, Operation, Status, is_pending
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import is_clinical_floor

# A match that is encoded anew; cut again where the invoker can't take so much.
_PDU_BYTES = 16_384
# A list in an audit record has room for so many.
_MATCHED_IN_A_RECORD = 32


class Responses:
    """The responses of one association, in both directions."""

    def __init__(
        self,
        world: World,
        rights: Rights,
        contexts: Mapping[int, Context],
        sides: Mapping[Leg, Side],
        records: Records,
        meter: Meter,
        *,
        archive: str,
    ) -> None:
        self._world = world
        self._rights = rights
        self._contexts = contexts
        self._meter = meter
        self._sides = sides
        self._records = records
        self._archive = archive

    def received(
        self, leg: Leg, context_id: int, command: CommandSet, now: Instant, out: list[Effect]
    ) -> Exchange | None:
        """Handle a response; return the exchange that it finishes, if it does so at once.

        Raises RemoteProtocolError where nobody has asked for it.
        """
        invoker = self._sides[leg.other]
        exchange = invoker.outstanding.get(command.message_id_being_responded_to or 0)
        if (
            exchange is None
            or not exchange.forwarded
            or exchange.context_id != context_id
            or command.command_field != exchange.command.command_field | RESPONSE_BIT
        ):
            raise RemoteProtocolError(
                AbortReason.UNEXPECTED_PARAMETER,
                "PS3.7 §9.3, §10.3",
                f"response {command.command_field:04X}H to message {command.message_id_being_responded_to}, "
                "which isn't under way",
            )
        status = command.status or 0
        transfer = Transfer(
            leg=leg,
            context_id=context_id,
            command=command,
            mode=Mode.FORWARD,
            exchange=exchange,
            complete=not command.has_data_set,
        )
        if command.has_data_set:
            self._sides[leg].transfer = transfer
        if is_pending(status):
            self._pending(leg, exchange, transfer, now, out)
            return None
        if command.has_data_set and self._is_counted(exchange):
            # PS3.7 §9.1.2.1.5: matches come with Pending. Behind any other status nothing would count or strip one.
            exchange.matches += 1
            self._withhold(transfer, ReasonCode.RESPONSE_UNREADABLE, "a match in a final response", out)
            command = replace(command, has_data_set=False)
        command = self._honest(exchange, command)
        transfer.ends_exchange = True
        if command.has_data_set:
            # A command that we have changed keeps its data set: the failed UIDs are for the invoker to read.
            invoker.outlet.begin(transfer, command, out)
        else:
            invoker.outlet.message(context_id, command, out)
        self._completed(exchange, command, now, out)
        return None if command.has_data_set else exchange

    def _pending(self, leg: Leg, exchange: Exchange, transfer: Transfer, now: Instant, out: list[Effect]) -> None:
        is_match = exchange.operation is Operation.C_FIND and transfer.command.has_data_set
        if is_match and exchange.matches >= exchange.matches_allowed and not self._lift_matches(exchange, now):
            self._cut(leg, exchange, ReasonCode.MATCHES_PER_QUERY, out)
        if exchange.cut is not None:
            transfer.mode = Mode.DISCARD
            return
        if is_match:
            exchange.matches += 1
            if self._is_counted(exchange):
                transfer.mode = Mode.INSPECT
                return
        outlet = self._sides[leg.other].outlet
        if transfer.command.has_data_set:
            outlet.begin(transfer, transfer.command, out)
        else:
            outlet.message(transfer.context_id, transfer.command, out)

    def _is_counted(self, exchange: Exchange) -> bool:
        """Say if the matches of an operation count for somebody, and may be stripped: queries, not worklists."""
        return exchange.operation is Operation.C_FIND and not is_clinical_floor(
            Operation.C_FIND, self._contexts[exchange.context_id].abstract_syntax
        )

    def _lift_matches(self, exchange: Exchange, now: Instant) -> bool:
        """Say if a query may go on beyond its matches; once cut it stays cut."""
        if exchange.cut is not None:
            return False
        lift = self._rights.lift(ReasonCode.MATCHES_PER_QUERY, now)
        if lift is not None:
            exchange.add_lift(lift)
        return lift is not None

    def inspect(self, transfer: Transfer, run: DataRun, now: Instant, out: list[Effect]) -> None:
        """Collect a match, at most `max_response_identifier_bytes`; once it is whole it is judged, and sent or dropped.

        A match that is too long or can't be read is held back alone; the final response is then no Success.
        """
        limits = self._world.settings.limits
        bound = limits.max_response_identifier_bytes
        transfer.keep(run)
        for fragment, _last in fragments_of(run.view):
            transfer.head += fragment[: bound + 1 - len(transfer.head)]
        if len(transfer.head) > bound or len(transfer.kept) > bound + limits.max_held_bytes:
            self._withhold(transfer, ReasonCode.RESPONSE_TOO_LONG, f"a match of more than {bound} bytes", out)
        elif run.last:
            transfer.complete = True
            self._judge_match(transfer, now, out)

    def _judge_match(self, transfer: Transfer, now: Instant, out: list[Effect]) -> None:
        exchange, data = transfer.exchange, bytes(transfer.head)
        transfer_syntax = self._contexts[transfer.context_id].transfer_syntax
        stripped: Stripped | None = None
        try:
            values = scan_head(data, transfer_syntax, stop_after=END_OF_DATA_SET, complete=True).values
            if exchange.strip:
                emptied = exchange.strip & REQUIRED_KEY_TAGS
                stripped = strip_elements(data, transfer_syntax, removed=exchange.strip - emptied, emptied=emptied)
        except HeadUnreadable as error:
            self._withhold(transfer, ReasonCode.RESPONSE_UNREADABLE, error.detail, out)
            return
        reason = self._meter.match(transfer, values, len(data), now, out)
        if reason is not None:
            exchange.matches -= 1
            transfer.drop()
            transfer.mode = Mode.DISCARD
            self._cut(transfer.leg, exchange, reason, out)
            return
        self._note_match(exchange, values, out)
        command = transfer.command
        if stripped is not None and stripped.tags:
            pdus = encode_p_data(transfer.context_id, stripped.data, _PDU_BYTES, command=False)
            transfer.kept, transfer.largest_pdu = bytearray(pdus), _PDU_BYTES
            if stripped.tags & exchange.asked.tags and command.status == Status.PENDING:
                # PS3.4 §C.4.1.1.4: optional keys were not supported for existence in this match.
                command = replace(command, status=Status.PENDING_WITH_WARNING)
        transfer.mode = Mode.FORWARD
        self._sides[transfer.leg.other].outlet.begin(transfer, command, out)

    def _note_match(self, exchange: Exchange, values: Mapping[int, bytes | None], out: list[Effect]) -> None:
        """Remember whose data goes out, and record it once there is enough for a record."""
        if not self._world.settings.identify_patients:
            return
        subject = subject_of(values)
        if subject.patient_id or subject.study_instance_uid:
            exchange.matched[subject] = None
        if len(exchange.matched) >= _MATCHED_IN_A_RECORD:
            out += self._records.matched(exchange)

    def _withhold(self, transfer: Transfer, reason: ReasonCode, detail: str, out: list[Effect]) -> None:
        """Hold one match back, and go on with the others."""
        exchange = transfer.exchange
        exchange.matches -= 1
        transfer.drop()
        transfer.mode = Mode.DISCARD
        if exchange.withheld is None:
            exchange.withheld = reason
            refusal = Refusal(reason, exchange.rule_ids, detail)
            out.append(self._records.denied(exchange, refusal, status_for(Operation.C_FIND, reason)))

    def _cut(self, leg: Leg, exchange: Exchange, reason: ReasonCode, out: list[Effect]) -> None:
        """End a query before the archive does."""
        if exchange.cut is None:
            exchange.cut = reason
            self.cancel_upstream(leg, exchange, out)

    def cancel_upstream(self, leg: Leg, exchange: Exchange, out: list[Effect]) -> None:
        """Ask the leg that answers to stop."""
        cancel = CommandSet(
            command_field=C_CANCEL_RQ, message_id_being_responded_to=exchange.message_id, has_data_set=False
        )
        self._sides[leg].outlet.message(exchange.context_id, cancel, out)

    def _honest(self, exchange: Exchange, command: CommandSet) -> CommandSet:
        """Return the final response, never Success where something was cut or refused by us."""
        if exchange.cut is not None and command.status in (Status.SUCCESS, Status.CANCEL):
            return replace(
                command,
                status=status_for(exchange.operation, exchange.cut),
                error_comment=comment_for(exchange.cut),
            )
        if exchange.withheld is not None and command.status == Status.SUCCESS:
            return replace(
                command,
                status=status_for(exchange.operation, exchange.withheld),
                error_comment=comment_for(exchange.withheld),
            )
        refused = exchange.refused_suboperations
        if exchange.move is not None:
            refused += self._world.correlations.finish_move(exchange.move.move_id)
            exchange.move = None
        if refused and command.status == Status.SUCCESS:
            return replace(command, status=Status.SUBOPERATIONS_COMPLETE_WITH_FAILURES)
        return command

    def _completed(self, exchange: Exchange, command: CommandSet, now: Instant, out: list[Effect]) -> None:
        if exchange.lifts:
            out += self._records.observed(exchange)
        out += self._records.matched(exchange)
        out.append(self._records.completed(exchange, command, now.monotonic))
        if (
            exchange.transaction_uid
            and exchange.operation is Operation.N_EVENT_REPORT
            and command.status == Status.SUCCESS
        ):
            archive = self._rights.principal.device if isinstance(self._rights, ArchiveRights) else self._archive
            self._world.correlations.finish_commitment(exchange.transaction_uid, archive)
