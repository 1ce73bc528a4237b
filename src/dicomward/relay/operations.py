"""DIMSE on an established association: PS3.7 §9-10. Each request is judged, recorded, forwarded in turn and answered.

Rules of this room: messages leave a leg whole and in order (`Outlet`); a request that is not forwarded is answered only
after its data set has been read to the end; a result that was cut short, filtered or denied never ends in Success.
"""

from collections.abc import Callable

from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.errors import LimitExceeded, RemoteProtocolError
from dicomward.dicom.framing import DataRun
from dicomward.dicom.limits import Limits
from dicomward.dicom.nesting import NestingGauge
from dicomward.relay.correlations import PendingCommitment, PendingMove
from dicomward.relay.effects import (
    Effect,
    RegisterCommitment,
    RegisterMove,
)
from dicomward.relay.heads import RETRIEVALS, HeadJudge, Verdict
from dicomward.relay.inputs import Instant, Leg, Timer
from dicomward.relay.messages import Exchange, Mode, Refusal, Side, Transfer
from dicomward.relay.meter import Meter
from dicomward.relay.negotiation import Context, Negotiated
from dicomward.relay.pace import Pace
from dicomward.relay.records import Records
from dicomward.relay.refusals import comment_for, status_for
from dicomward.relay.responses import Responses
from dicomward.relay.rights import Grant, Rights
from dicomward.relay.subjects import IDENTIFIED, SubjectTap
from dicomward.relay.world import World
from dicomward.vocab.association import AbortReason
from dicomward.vocab.dimse import RESPONSE_BIT, Operation, Status
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import Service, has_clinical_floor, is_clinical_floor, service_of

_TOO_MUCH_HELD = Refusal(ReasonCode.OPERATION_RATE, detail="too much data while another operation runs")


class Operations:
    """The messages of one established association, in both directions."""

    def __init__(
        self,
        world: World,
        rights: Rights,
        negotiated: Negotiated,
        *,
        association: str,
        archive: str,
        called_ae_title: str,
        network: str,
        limits: Limits,
        next_effect_id: Callable[[], int],
        count_deviation: Callable[[str], None],
    ) -> None:
        self._world = world
        self._rights = rights
        self._contexts = negotiated.contexts
        self._association = association
        self._archive = archive
        self._called_ae_title = called_ae_title
        self._network = network
        self._limits = limits
        self._next_effect_id = next_effect_id
        self._count_deviation = count_deviation
        self._records = Records(
            world,
            rights.principal,
            negotiated.contexts,
            association=association,
            archive=archive,
            called_ae_title=called_ae_title,
        )
        self._waiting: dict[int, Transfer] = {}
        self._sides = {
            Leg.REQUESTOR: Side(
                Leg.REQUESTOR, negotiated.maximum_length_towards_requestor, negotiated.window_towards_requestor
            ),
            Leg.ACCEPTOR: Side(
                Leg.ACCEPTOR, negotiated.maximum_length_towards_acceptor, negotiated.window_towards_acceptor
            ),
        }
        self._pace = Pace(world, rights, self._sides, network=network)
        self._meter = Meter(world, rights, self._pace, self._records, archive=archive)
        self._heads = HeadJudge(world, rights, negotiated.contexts, count_deviation, self._meter)
        self._responses = Responses(
            world, rights, negotiated.contexts, self._sides, self._records, self._meter, archive=archive
        )
        self.operations = 0
        self.bytes = 0

    # -- inputs -----------------------------------------------------------------------------------------------------

    @property
    def is_quiet(self) -> bool:
        """Say if nothing is under way, so that a release or an idle timer may end the association."""
        return all(
            not side.outstanding and side.transfer is None and not side.outlet.is_busy for side in self._sides.values()
        )

    @property
    def is_reading(self) -> bool:
        """Say if something is under way that isn't of the clinical floor: a query, a retrieval, its sub-operations."""
        return any(
            exchange.suboperation_of
            or not is_clinical_floor(exchange.operation, self._contexts[exchange.context_id].abstract_syntax)
            for side in self._sides.values()
            for exchange in side.outstanding.values()
        )

    def may_release(self, leg: Leg) -> bool:
        """Say if a release from this leg leaves nothing of its own half sent or waiting to be sent."""
        side = self._sides[leg]
        waiting = any(transfer.leg is leg for transfer in self._waiting.values())
        return not (side.held or side.transfer or waiting)

    def command_received(self, leg: Leg, context_id: int, command: CommandSet, now: Instant, out: list[Effect]) -> None:
        """Handle a command set. Raises RemoteProtocolError where it can't belong to this association."""
        context = self._contexts.get(context_id)
        if context is None:
            raise RemoteProtocolError(
                AbortReason.INVALID_PARAMETER_VALUE,
                "PS3.8 §9.3.5.1",
                f"presentation context {context_id} isn't accepted",
            )
        for deviation in command.deviations:
            self._count_deviation(deviation)
        if command.is_cancel:
            self._cancel(leg, context_id, command, now, out)
        elif command.is_request:
            self._request(leg, context, command, now, out)
        else:
            finished = self._responses.received(leg, context_id, command, now, out)
            if finished is not None:
                self._finish(finished, now, out)

    def run_received(self, leg: Leg, run: DataRun, now: Instant, out: list[Effect]) -> None:
        """Handle fragments of the data set of the last command from this leg."""
        side = self._sides[leg]
        transfer = side.transfer
        if transfer is None:
            raise RemoteProtocolError(AbortReason.UNEXPECTED_PDU, "PS3.7 §6.3.1", "data set without a command")
        if transfer.gauge is not None and transfer.mode is not Mode.DISCARD:
            transfer.gauge.look(run)
        transfer.exchange.bytes += run.payload_bytes
        self.bytes += run.payload_bytes
        if transfer.tap is not None and transfer.tap.look(run):
            transfer.exchange.subject, transfer.tap = transfer.tap.subject, None
        if transfer.payers and transfer.mode is not Mode.DISCARD:
            self._meter.spend(transfer, run.payload_bytes, now, out)
        match transfer.mode:
            case Mode.FORWARD:
                self._sides[leg.other].outlet.stream(run, out)
            case Mode.HEAD:
                self._head_received(transfer, run, now, out)
            case Mode.INSPECT:
                self._responses.inspect(transfer, run, now, out)
            case Mode.HOLD:
                transfer.keep(run)
                self._bound_held(leg, transfer, now, out)
            # What is left is DISCARD: dropped.
        self._pace.spend(leg, transfer, run.payload_bytes, now, out)
        if run.last:
            side.transfer = None
            transfer.complete = True
            self._data_set_ended(leg, transfer, now, out)

    def correlated(self, effect_id: int, granted: bool, now: Instant, out: list[Effect]) -> None:
        """Go on with the request whose move or commitment has been registered, or refuse it."""
        transfer = self._waiting.pop(effect_id, None)
        if transfer is None:
            return
        if granted:
            self._take_turn(transfer, now, out)
        else:
            self._refuse(transfer, Refusal(ReasonCode.INTERNAL_ERROR, detail="it could not be registered"), now, out)

    def pause_over(self, timer: Timer, out: list[Effect]) -> None:
        """Read again after a pause for the byte rate or a budget."""
        self._pace.timer_fired(timer, out)

    def forget_moves(self, out: list[Effect]) -> None:
        """Let go of what other associations may wait for."""
        for side in self._sides.values():
            for exchange in side.outstanding.values():
                if exchange.move is not None:
                    self._forget_move(exchange.move, out)

    def _forget_move(self, move: PendingMove, out: list[Effect]) -> None:
        """Forget a move, also one that came in the same bytes as its end: registered after that, it would stay."""
        out[:] = [each for each in out if not (isinstance(each, RegisterMove) and each.move is move)]
        self._world.correlations.finish_move(move.move_id)

    def end(self, now: Instant, reason: ReasonCode, out: list[Effect]) -> None:
        """Close the books: the association is over, and what is under way has no result."""
        self.forget_moves(out)
        self._meter.end()
        for side in self._sides.values():
            for exchange in side.outstanding.values():
                if exchange.forwarded:
                    out += self._records.matched(exchange)
                    out.append(self._records.unfinished(exchange, reason, now.monotonic))
            side.outstanding.clear()
            side.held.clear()
        self._waiting.clear()

    # -- requests ---------------------------------------------------------------------------------------------------

    def _request(self, leg: Leg, context: Context, command: CommandSet, now: Instant, out: list[Effect]) -> None:
        side = self._sides[leg]
        window = self._limits.max_operations_window
        if len(side.outstanding) >= window:
            raise LimitExceeded(AbortReason.NOT_SPECIFIED, "PS3.7 §D.3.3.3", f"more than {window} operations under way")
        operation = command.operation
        exchange = Exchange(
            invoker=leg,
            context_id=context.context_id,
            command=command,
            operation=operation,
            started=now.monotonic,
        )
        transfer = Transfer(
            leg=leg,
            context_id=context.context_id,
            command=command,
            mode=Mode.HOLD,
            exchange=exchange,
            complete=not command.has_data_set,
        )
        if command.has_data_set:
            side.transfer = transfer
            if operation in IDENTIFIED and self._world.settings.identify_patients:
                transfer.tap = SubjectTap(context.transfer_syntax, self._limits.max_head_bytes)
            if most := self._world.settings.most_nested_sequences:
                transfer.gauge = NestingGauge(context.transfer_syntax, most)
        outcome = self._judge(leg, context, command, exchange, now)
        if isinstance(outcome, Refusal):
            # A refused request never enters the books: its message ID may be one that is under way.
            self._refuse(transfer, outcome, now, out)
            return
        side.outstanding[exchange.message_id] = exchange
        exchange.rule_ids = outcome.rule_ids
        for lift in outcome.lifts:
            exchange.add_lift(lift)
        transfer.stop_after = self._heads.wanted(exchange, context)
        if not transfer.stop_after:
            self._register(transfer, now, out)
        elif command.has_data_set:
            transfer.mode = Mode.HEAD
        else:
            # Only messages of storage commitment may come so, and without their data set nothing says whose they are.
            self._refuse(transfer, Refusal(ReasonCode.DATA_SET_UNREADABLE, detail="no data set"), now, out)

    def _judge(
        self, leg: Leg, context: Context, command: CommandSet, exchange: Exchange, now: Instant
    ) -> Grant | Refusal:
        """Judge a request by its command set: form, then policy, then rates."""
        getting = self._open_gets(leg.other) if command.operation is Operation.C_STORE else ()
        exchange.suboperation_of = getting
        if exchange.message_id in self._sides[leg].outstanding:
            return Refusal(ReasonCode.DUPLICATE_MESSAGE_ID, detail="a request with this message ID is under way")
        if not _fits_context(context, command) and not (
            leg is Leg.REQUESTOR and self._lift(exchange, ReasonCode.SOP_CLASS_MISMATCH, now)
        ):
            return Refusal(
                ReasonCode.SOP_CLASS_MISMATCH,
                detail=f"SOP class {command.sop_class_uid} on a context of {context.abstract_syntax}",
            )
        self._note_roles(leg, context, command.operation)
        if getting and service_of(context.abstract_syntax) in (Service.STORAGE, Service.OTHER):
            return Grant(getting[0].rule_ids, lifts=getting[0].lifts)
        outcome = self._rights.judge_operation(leg, context, command, now)
        if isinstance(outcome, Refusal):
            exchange.suboperation_of = exchange.suboperation_of or outcome.moves
            return outcome
        if outcome.move is not None:
            exchange.suboperation_of = (outcome.move,)
        if leg is not Leg.REQUESTOR:
            return outcome
        principal = self._rights.principal
        reason = self._world.limits.take_operation(
            device=principal.device,
            role=principal.role,
            network=self._network,
            operation=command.operation,
            sop_class_uid=context.abstract_syntax,
            now=now.monotonic,
        )
        if reason is not None and not self._lift(exchange, reason, now):
            return Refusal(reason, outcome.rule_ids)
        if command.operation is Operation.C_FIND:
            exchange.matches_allowed = self._world.limits.matches_allowed(
                principal.role, has_clinical_floor(context.abstract_syntax), principal.device
            )
        return outcome

    def _lift(self, exchange: Exchange, reason: ReasonCode, now: Instant) -> bool:
        """Say if something lifts what would be refused, and mark the operation with it."""
        lift = self._rights.lift(reason, now)
        if lift is None:
            return False
        exchange.add_lift(lift)
        return True

    def _note_roles(self, leg: Leg, context: Context, operation: Operation) -> None:
        invoker_is_scu = operation is not Operation.N_EVENT_REPORT
        requestor_role = context.requestor_is_scu if invoker_is_scu else context.requestor_is_scp
        acceptor_role = context.requestor_is_scp if invoker_is_scu else context.requestor_is_scu
        if not (requestor_role if leg is Leg.REQUESTOR else acceptor_role):
            self._count_deviation("role-not-negotiated")

    def _open_gets(self, leg: Leg) -> tuple[Exchange, ...]:
        """Return the C-GETs that a sub-operation may belong to; it doesn't say to which (PS3.4 §C.4.3)."""
        return tuple(
            exchange
            for exchange in self._sides[leg].outstanding.values()
            if exchange.operation is Operation.C_GET and exchange.forwarded
        )

    def _head_received(self, transfer: Transfer, run: DataRun, now: Instant, out: list[Effect]) -> None:
        """Handle fragments of a head; once it is judged they go on like all that follow."""
        verdict = self._heads.look(transfer, run, now, out)
        if (
            isinstance(verdict, Refusal)
            and transfer.leg is Leg.REQUESTOR
            and self._lift(transfer.exchange, verdict.reason, now)
        ):
            transfer.head = bytearray()
            verdict = Verdict.PERMITTED
        if isinstance(verdict, Refusal):
            self._refuse(transfer, verdict, now, out)
        elif verdict is Verdict.PERMITTED:
            transfer.mode = Mode.HOLD
            self._register(transfer, now, out)
        if transfer.mode is Mode.FORWARD:
            self._sides[transfer.leg.other].outlet.stream(run, out)
        elif transfer.mode is not Mode.DISCARD:
            transfer.keep(run)
        if transfer.mode is Mode.HOLD:
            self._bound_held(transfer.leg, transfer, now, out)

    def _register(self, transfer: Transfer, now: Instant, out: list[Effect]) -> None:
        """Register what spans associations; the request waits for it."""
        exchange = transfer.exchange
        principal = self._rights.principal
        if exchange.operation is Operation.C_MOVE:
            effect_id = self._next_effect_id()
            exchange.move = PendingMove(
                move_id=f"{self._association}-{effect_id}",
                archive=self._archive,
                destination_ae_title=exchange.command.move_destination or "",
                originator_ae_title=principal.calling_ae_title,
                message_id=exchange.message_id,
                device=principal.device,
                called_ae_title=self._called_ae_title,
                association=self._association,
                bypasses=tuple(dict.fromkeys(lift.rule_id for lift in exchange.lifts)),
            )
            self._waiting[effect_id] = transfer
            out.append(RegisterMove(effect_id, exchange.move))
        elif exchange.transaction_uid and exchange.operation is Operation.N_ACTION:
            effect_id = self._next_effect_id()
            self._waiting[effect_id] = transfer
            out.append(
                RegisterCommitment(
                    effect_id,
                    PendingCommitment(
                        transaction_uid=exchange.transaction_uid,
                        archive=self._archive,
                        device=principal.device,
                        device_ae_title=principal.calling_ae_title,
                        called_ae_title=self._called_ae_title,
                    ),
                )
            )
        else:
            self._take_turn(transfer, now, out)

    # -- turns ------------------------------------------------------------------------------------------------------

    def _take_turn(self, transfer: Transfer, now: Instant, out: list[Effect]) -> None:
        """Forward a request if the other leg can take it now, else keep it in line."""
        side = self._sides[transfer.leg]
        side.held.append(transfer)
        self._forward_held(transfer.leg, now, out)

    def _forward_held(self, leg: Leg, now: Instant, out: list[Effect]) -> None:
        side, other = self._sides[leg], self._sides[leg.other]
        while side.held and not other.outlet.is_busy:
            under_way = sum(exchange.forwarded for exchange in side.outstanding.values())
            if under_way >= other.window:
                return
            transfer = side.held.popleft()
            exchange = transfer.exchange
            exchange.forwarded = True
            self.operations += 1
            out.append(self._records.allowed(exchange))
            if exchange.lifts:
                out += self._records.observed(exchange)
            transfer.mode = Mode.FORWARD
            other.outlet.begin(transfer, exchange.command, out)
            self._pace.resume(leg, "held", out)
            self._unblock_answers(leg.other, now, out)

    def _unblock_answers(self, leg: Leg, now: Instant, out: list[Effect]) -> None:
        """Read a leg again that has just been asked something: its answer comes behind what we have stopped to read."""
        side = self._sides[leg]
        if "held" not in side.pauses:
            return
        if side.transfer is not None and side.transfer.mode is Mode.HOLD:
            self._refuse(side.transfer, _TOO_MUCH_HELD, now, out)
        self._pace.resume(leg, "held", out)

    def _bound_held(self, leg: Leg, transfer: Transfer, now: Instant, out: list[Effect]) -> None:
        """Bound what is kept for the requests that wait: stop reading, unless that would wait for itself."""
        waiting = (*self._sides[leg].held, *(each for each in self._waiting.values() if each.leg is leg))
        if sum(len(each.kept) for each in waiting) <= self._limits.max_held_bytes:
            return
        if any(exchange.forwarded for exchange in self._sides[leg.other].outstanding.values()):
            # The other leg waits for an answer that comes behind this data set, so it can't be left unread.
            self._refuse(transfer, _TOO_MUCH_HELD, now, out)
        else:
            self._pace.pause(leg, "held", out)

    def _forget(self, transfer: Transfer, out: list[Effect]) -> None:
        """Take a request out of the books."""
        side = self._sides[transfer.leg]
        exchange = transfer.exchange
        if transfer in side.held:
            side.held.remove(transfer)
        for effect_id, waiting in list(self._waiting.items()):
            if waiting is transfer:
                del self._waiting[effect_id]
        if side.outstanding.get(exchange.message_id) is exchange:
            del side.outstanding[exchange.message_id]
            if exchange.move is not None:
                self._forget_move(exchange.move, out)
        self._pace.resume(transfer.leg, "held", out)

    # -- refusals ---------------------------------------------------------------------------------------------------

    def _refuse(self, transfer: Transfer, refusal: Refusal, now: Instant, out: list[Effect]) -> None:
        """Don't forward a request; answer it when its data set has ended."""
        exchange = transfer.exchange
        self._forget(transfer, out)
        transfer.drop()
        transfer.mode = Mode.DISCARD
        transfer.refusal = refusal
        exchange.rule_ids = refusal.rule_ids
        exchange.lifts = ()
        status = status_for(exchange.operation, refusal.reason)
        out.append(self._records.denied(exchange, refusal, status))
        for parent in exchange.suboperation_of:
            if isinstance(parent, Exchange):
                parent.refused_suboperations += 1
            else:
                self._world.correlations.note_refused(parent.move_id)
        if self._sides[transfer.leg].transfer is not transfer:
            self._answer_refusal(exchange, refusal, out)

    def _answer_refusal(self, exchange: Exchange, refusal: Refusal, out: list[Effect]) -> None:
        self._respond(exchange, status_for(exchange.operation, refusal.reason), refusal.reason, out)

    def _respond(self, exchange: Exchange, status: int, reason: ReasonCode | None, out: list[Effect]) -> None:
        """Answer a request ourselves."""
        command = exchange.command
        response = CommandSet(
            command_field=command.command_field | RESPONSE_BIT,
            message_id_being_responded_to=exchange.message_id,
            affected_sop_class_uid=command.sop_class_uid,
            affected_sop_instance_uid=command.sop_instance_uid,
            event_type_id=command.event_type_id,
            action_type_id=command.action_type_id,
            has_data_set=False,
            status=status,
            error_comment=comment_for(reason) if reason else None,
        )
        outlet = self._sides[exchange.invoker].outlet
        outlet.message(exchange.context_id, response, out)
        if outlet.queued_bytes > self._limits.max_held_bytes:
            self._pace.pause(exchange.invoker, "answers", out)

    # -- ends -------------------------------------------------------------------------------------------------------

    def _finish(self, exchange: Exchange, now: Instant, out: list[Effect]) -> None:
        """Take a finished exchange out of the books; the next in line may go."""
        outstanding = self._sides[exchange.invoker].outstanding
        if outstanding.get(exchange.message_id) is exchange:
            del outstanding[exchange.message_id]
        self._forward_held(exchange.invoker, now, out)

    def _data_set_ended(self, leg: Leg, transfer: Transfer, now: Instant, out: list[Effect]) -> None:
        if transfer.mode is Mode.DISCARD:
            if transfer.refusal is not None:
                self._answer_refusal(transfer.exchange, transfer.refusal, out)
            return
        if transfer.mode is not Mode.FORWARD:
            return
        self._sides[leg.other].outlet.finish(out)
        self._pace.resume(leg.other, "answers", out)
        if transfer.ends_exchange:
            self._finish(transfer.exchange, now, out)
        self._forward_held(leg, now, out)

    # -- cancel -----------------------------------------------------------------------------------------------------

    def _cancel(self, leg: Leg, context_id: int, command: CommandSet, now: Instant, out: list[Effect]) -> None:
        """Pass a C-CANCEL on, if what it cancels is under way; a late one is normal (PS3.7 §9.3.2.3): no answer."""
        exchange = self._sides[leg].outstanding.get(command.message_id_being_responded_to or 0)
        if exchange is None or exchange.context_id != context_id or exchange.operation not in RETRIEVALS:
            return
        if exchange.forwarded:
            if exchange.cut is None:
                self._responses.cancel_upstream(leg.other, exchange, out)
            return
        for transfer in [*self._sides[leg].held, *self._waiting.values()]:
            if transfer.exchange is exchange:
                self._forget(transfer, out)
                self._respond(exchange, Status.CANCEL, None, out)
                return


def _fits_context(context: Context, command: CommandSet) -> bool:
    """Say if a command's SOP class may travel in the context (PS3.7 §9.1, PS3.4 §H.2, §CC.2)."""
    stated = command.sop_class_uid
    if stated is None or stated == context.abstract_syntax:
        return True
    if command.operation < Operation.N_EVENT_REPORT:
        return False
    # Print management negotiates a meta SOP class; unified procedure step answers for its sister classes.
    return service_of(stated) is service_of(context.abstract_syntax)
