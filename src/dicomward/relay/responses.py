"""What the acceptor of a request answers: matched to its request, counted, cut and kept honest. PS3.7 §9-10."""

from collections.abc import Mapping
from dataclasses import replace

from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.errors import RemoteProtocolError
from dicomward.relay.effects import Effect
from dicomward.relay.inputs import Instant, Leg
from dicomward.relay.messages import Exchange, Mode, Side, Transfer
from dicomward.relay.records import Records
from dicomward.relay.refusals import comment_for, status_for
from dicomward.relay.rights import ArchiveRights, Rights
from dicomward.relay.world import World
from dicomward.vocab.association import AbortReason
from dicomward.vocab.dimse import C_CANCEL_RQ, RESPONSE_BIT, Operation, Status, is_pending
from dicomward.vocab.reason import ReasonCode


class Responses:
    """The responses of one association, in both directions."""

    def __init__(
        self, world: World, rights: Rights, sides: Mapping[Leg, Side], records: Records, *, archive: str
    ) -> None:
        self._world = world
        self._rights = rights
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
        if exchange.operation is Operation.C_FIND and transfer.command.has_data_set:
            if exchange.matches < exchange.matches_allowed or self._lift_matches(exchange, now):
                exchange.matches += 1
            elif exchange.cut is None:
                exchange.cut = ReasonCode.MATCHES_PER_QUERY
                self.cancel_upstream(leg, exchange, out)
        if exchange.cut is not None:
            transfer.mode = Mode.DISCARD
            return
        outlet = self._sides[leg.other].outlet
        if transfer.command.has_data_set:
            outlet.begin(transfer, transfer.command, out)
        else:
            outlet.message(transfer.context_id, transfer.command, out)

    def _lift_matches(self, exchange: Exchange, now: Instant) -> bool:
        """Say if a query may go on beyond its matches; once cut it stays cut."""
        if exchange.cut is not None:
            return False
        lift = self._rights.lift(ReasonCode.MATCHES_PER_QUERY, now)
        if lift is not None:
            exchange.add_lift(lift)
        return lift is not None

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
        out.append(self._records.completed(exchange, command, now.monotonic))
        if (
            exchange.transaction_uid
            and exchange.operation is Operation.N_EVENT_REPORT
            and command.status == Status.SUCCESS
        ):
            archive = self._rights.principal.device if isinstance(self._rights, ArchiveRights) else self._archive
            self._world.correlations.finish_commitment(exchange.transaction_uid, archive)
