"""The agent as a storage SCP: takes a device's objects into the spool, and answers when they are durable.

One thread for each association; a data set goes to the disk in pieces as it comes. What else the device asks for on the
same association passes through to the archive.
"""

import logging
import socket
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final

from dicomward.dicom.association import Association
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.events import (
    AssociationRequested,
    CommandReceived,
    Event,
    PeerAborted,
    ProtocolBroken,
    ReleaseRequested,
)
from dicomward.dicom.framing import HEADROOM, DataRun, encode_p_data, fragments_of
from dicomward.dicom.head import HeadUnreadable, scan_head
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAssociateAc,
    AAssociateRj,
    AAssociateRq,
    AReleaseRp,
    AsyncOperationsWindow,
    UserInformation,
)
from dicomward.edge.contexts import Pair, answer_contexts, passed_request, unknown_pairs
from dicomward.edge.queue import Waiting
from dicomward.identity.identify import IdentityError, identify_legacy_device
from dicomward.identity.registry import RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.io.edge.learned import Learned
from dicomward.io.edge.link import LinkDown
from dicomward.io.edge.passage import Passage, PassageClosed
from dicomward.io.edge.spool import Incoming, Spool, SpoolFull
from dicomward.io.edge.spool_seal import Description
from dicomward.io.system import calls
from dicomward.relay.negotiation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, clamp_maximum_length
from dicomward.relay.refusals import reject_for
from dicomward.vocab.association import AbortReason, AbortSource
from dicomward.vocab.dimse import RESPONSE_BIT, Operation, Status
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import STORAGE_COMMITMENT_PUSH_MODEL

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 256 * 1024
# How long the archive may take to accept the other services, before the device hears that there is only storing.
_PASSAGE_SECONDS: Final = 10.0
# Devices wait half a minute or more for an answer.
COMMITMENT_SECONDS: Final = 20.0
_SOP_CLASS, _SOP_INSTANCE, _STUDY = 0x00080016, 0x00080018, 0x0020000D


class StoreScp:
    """Serves the spool associations of one device."""

    def __init__(
        self,
        *,
        name: str,
        registry: RegistrySnapshot,
        zone: LegacyZone,
        spool: Spool,
        learned: Learned,
        accepted: Callable[[Waiting], None],
        delivered: Callable[[float], bool],
        admit: Callable[[socket.socket, str], None],
        idle_seconds: float,
    ) -> None:
        """Tell where what is durable goes, who waits for the archive, and who gives the relay a connection."""
        self.name = name
        self.registry = registry
        self.zone = zone
        self.spool = spool
        self.learned = learned
        self.accepted = accepted
        self.delivered = delivered
        self.admit = admit
        self._idle_seconds = idle_seconds

    def serve(self, connection: socket.socket, address: str) -> None:
        """Serve one association to its end."""
        connection.settimeout(self._idle_seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        served = _Served(self, connection, address)
        try:
            served.run()
        except (OSError, _Over) as error:
            _log.info("%s: association of %s ended: %s", self.name, address, error)
        finally:
            served.give_up()
            connection.close()


class _Over(Exception):
    """The association is over."""


class _Served:
    """One association."""

    def __init__(self, scp: StoreScp, connection: socket.socket, address: str) -> None:
        self._scp = scp
        self._connection = connection
        self._address = address
        self._association = Association(is_requestor=False, limits=Limits())
        self._titles = ("", "")
        self._pairs: dict[int, Pair] = {}
        self._maximum = 0
        self._object: _Object | None = None
        self._passage: Passage | None = None
        self._passed: frozenset[int] = frozenset()
        self._is_passing = False
        # A request that is answered when its data set has come, which nobody wants.
        self._declined: tuple[int, CommandSet, Status] | None = None
        self.writing = threading.RLock()

    def run(self) -> None:
        """Read until the end. Raises OSError, _Over."""
        buffer = memoryview(bytearray(HEADROOM + _READ_BYTES))
        while True:
            count = self._connection.recv_into(buffer[HEADROOM:])
            if not count:
                raise _Over("the connection was closed")
            calls.acknowledge_at_once(self._connection)
            for event in self._association.receive(buffer, HEADROOM, HEADROOM + count):
                self._handle(event)

    def give_up(self) -> None:
        """Forget an object that has not arrived as a whole, and what still passes."""
        if self._object is not None:
            self._object.abandon()
        if self._passage is not None:
            self._passage.abort()

    def send(self, data: bytes) -> None:
        """Send PDUs to the device. Raises OSError."""
        with self.writing:
            self._connection.sendall(data)

    def passage_lost(self) -> None:
        """End the association: what the archive was asked will not be answered."""
        _log.warning("%s: association of %s aborted: the archive has gone", self._scp.name, self._address)
        try:
            self.send(self._association.abort(AbortSource.SERVICE_PROVIDER, AbortReason.NOT_SPECIFIED))
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The device has gone too.
            pass

    def _handle(self, event: Event) -> None:
        match event:
            case AssociationRequested(request=request):
                self._answer(request)
            case CommandReceived(context_id=context_id, command=command):
                self._begin(context_id, command)
            case DataRun():
                self._go_on(event)
            case ReleaseRequested():
                if self._passage is not None:
                    self._passage.release()
                self.send(self._association.send(AReleaseRp()))
                raise _Over("released")
            case ProtocolBroken(error=error, abort=abort):
                self.send(abort)
                raise _Over(f"the device broke the protocol: {error}")
            case PeerAborted():
                raise _Over("aborted by the device")
            case _:
                self._abort("unexpected PDU")

    def _abort(self, why: str) -> None:
        self.send(self._association.abort(AbortSource.SERVICE_PROVIDER, AbortReason.UNEXPECTED_PDU))
        raise _Over(why)

    def _reject(self, reject: AAssociateRj, why: str) -> None:
        _log.warning("%s: association from %s rejected: %s", self._scp.name, self._address, why)
        self.send(self._association.send(reject))
        raise _Over(why)

    def _answer(self, request: AAssociateRq) -> None:
        """Judge the association; ask the archive for what it was never asked."""
        scp = self._scp
        try:
            identify_legacy_device(
                scp.registry,
                scp.zone,
                calling_ae_title=request.calling_ae_title,
                address=self._address,
                has_moved=False,
                now=datetime.now().astimezone(),  # noqa: TID251  io has the clocks
            )
        except IdentityError as error:
            self._reject(reject_for(error.reason), error.detail)
        if scp.registry.route(request.called_ae_title) is None:
            reason = ReasonCode.CALLED_AE_TITLE_UNKNOWN
            self._reject(reject_for(reason), f"nobody is called {request.called_ae_title!r}")
        self._titles = (request.calling_ae_title.strip(" "), request.called_ae_title.strip(" "))
        missing = unknown_pairs(request, scp.learned.known_for_now(self._titles))
        if missing:
            try:
                scp.learned.ask(self._titles, missing)
            except LinkDown as error:
                _log.warning("%s: only what is known is accepted: %s", scp.name, error)
        passed = self._ask_for_the_rest(request)
        others = passed.presentation_contexts if passed is not None else ()
        answers = {each.context_id: each for each in others}
        answer = answer_contexts(request, scp.learned.known(self._titles), answers)
        self._passed = frozenset(answers)
        self._pairs = dict(answer.accepted)
        if not self._pairs:
            self._reject(reject_for(ReasonCode.UPSTREAM_UNREACHABLE), "no context is known to be accepted upstream")
        asked = request.user_information
        self._maximum = clamp_maximum_length(asked.maximum_length, Limits().max_pdu_bytes)
        window = None
        if asked.async_operations_window is not None:
            window = AsyncOperationsWindow(maximum_invoked=1, maximum_performed=1)
        theirs = UserInformation()
        if passed is not None:
            theirs = passed.user_information
            window = theirs.async_operations_window or window
        accept = AAssociateAc(
            called_ae_title=request.called_ae_title,
            calling_ae_title=request.calling_ae_title,
            presentation_contexts=answer.contexts,
            user_information=UserInformation(
                maximum_length=Limits().max_pdu_bytes,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                async_operations_window=window,
                role_selections=theirs.role_selections,
                extended_negotiations=theirs.extended_negotiations,
                user_identity_response=theirs.user_identity_response,
            ),
        )
        self._association.announce_maximum_length(Limits().max_pdu_bytes)
        self.send(self._association.send(accept))

    def _ask_for_the_rest(self, request: AAssociateRq) -> AAssociateAc | None:
        """Let the archive answer what isn't stored; None if there is nothing, or the archive can't be asked."""
        others = passed_request(request)
        if others is None:
            return None
        scp, address = self._scp, self._address
        passage = Passage(lambda connection: scp.admit(connection, address), others, self, seconds=_PASSAGE_SECONDS)
        try:
            accept = passage.open()
        except PassageClosed as error:
            _log.warning("%s: association of %s can only store: %s", scp.name, address, error)
            return None
        self._passage = passage
        return accept

    def _begin(self, context_id: int, command: CommandSet) -> None:
        pair = self._pairs.get(context_id)
        if pair is None or self._object is not None or self._is_passing:
            self._abort("a message that nobody may send here")
            return
        if command.command_field == Operation.C_STORE and command.has_data_set:
            self._receive_object(context_id, command, pair)
        elif self._passage is not None and context_id in self._passed:
            self._pass_on(self._passage, context_id, command)
        elif command.command_field == Operation.C_ECHO:
            self._respond(context_id, command, Status.SUCCESS)
        else:
            self._abort(f"command {command.command_field:04X}H on a storage context")

    def _receive_object(self, context_id: int, command: CommandSet, pair: Pair) -> None:
        if context_id in self._passed:
            # A vendor's own class, or one in both roles: that it is for objects is known from now on.
            self._scp.learned.note_accepted(self._titles, pair)
        description = Description(
            calling_ae_title=self._titles[0],
            called_ae_title=self._titles[1],
            sop_class_uid=command.affected_sop_class_uid or "",
            sop_instance_uid=command.affected_sop_instance_uid or "",
            transfer_syntax_uid=pair[1],
        )
        self._object = _Object(self._scp, context_id, command, description)
        if description.sop_class_uid != pair[0]:
            self._object.refuse(Status.NO_SUCH_SOP_CLASS, "another SOP class than the context's")

    def _pass_on(self, passage: Passage, context_id: int, command: CommandSet) -> None:
        is_commitment = (
            command.command_field == Operation.N_ACTION and command.sop_class_uid == STORAGE_COMMITMENT_PUSH_MODEL
        )
        if is_commitment and not self._scp.delivered(COMMITMENT_SECONDS):
            # Of what waits here the archive would say that it lacks it. The device asks again.
            _log.warning("%s: a commitment request is refused for now: objects still wait", self._scp.name)
            if command.has_data_set:
                self._declined = (context_id, command, Status.RESOURCE_LIMITATION)
            else:
                self._respond(context_id, command, Status.RESOURCE_LIMITATION)
            return
        try:
            passage.command(context_id, command)
        except PassageClosed as error:
            self._abort(f"the archive can't be asked: {error}")
        self._is_passing = command.has_data_set

    def _go_on(self, run: DataRun) -> None:
        if self._is_passing and self._passage is not None:
            self._is_passing = not run.last
            try:
                self._passage.data(run)
            except PassageClosed as error:
                self._abort(f"the archive can't be asked: {error}")
        elif self._declined is not None:
            if run.last:
                context_id, command, status = self._declined
                self._declined = None
                self._respond(context_id, command, status)
        elif self._object is not None:
            self._store(self._object, run)
        else:
            self._abort("a data set without a command")

    def _store(self, received: "_Object", run: DataRun) -> None:
        for fragment, _last in fragments_of(run.view):
            received.write(fragment)
        if run.last:
            self._object = None
            self._respond(received.context_id, received.command, received.finish())

    def _respond(self, context_id: int, command: CommandSet, status: int) -> None:
        response = CommandSet(
            command_field=command.command_field | RESPONSE_BIT,
            message_id_being_responded_to=command.message_id,
            affected_sop_class_uid=command.sop_class_uid,
            affected_sop_instance_uid=command.sop_instance_uid,
            action_type_id=command.action_type_id,
            status=status,
        )
        self.send(encode_p_data(context_id, encode_command_set(response), self._maximum, command=True))


class _Object:
    """One C-STORE on its way into the spool; once refused, the rest of its data set is read and dropped."""

    def __init__(self, scp: StoreScp, context_id: int, command: CommandSet, description: Description) -> None:
        self.context_id = context_id
        self.command = command
        self._scp = scp
        self._description = description
        self._status = Status.SUCCESS
        self._incoming: Incoming | None = None
        self._head: bytearray | None = bytearray()
        self._study = b""
        try:
            self._incoming = scp.spool.receive(scp.name, description)
        except (SpoolFull, OSError) as error:
            self.refuse(Status.REFUSED_OUT_OF_RESOURCES, str(error))

    def refuse(self, status: Status, why: str) -> None:
        """Answer with this status when the data set has ended."""
        if self._status is Status.SUCCESS:
            _log.error("%s: C-STORE refused with %04XH: %s", self._scp.name, status, why)
            self._status = status
        self.abandon()

    def abandon(self) -> None:
        """Keep nothing of it."""
        if self._incoming is not None:
            self._incoming.abandon()
            self._incoming = None

    def write(self, data: memoryview) -> None:
        """Write some of the data set."""
        if self._incoming is None:
            return
        try:
            self._incoming.write(data)
        except OSError as error:
            self.refuse(Status.REFUSED_OUT_OF_RESOURCES, str(error))
            return
        if self._head is not None:
            self._head += data[: Limits().max_head_bytes]
            if len(self._head) >= Limits().max_head_bytes:
                self._read_head(complete=False)

    def finish(self) -> Status:
        """Make it durable; return the status for the device."""
        if self._incoming is not None and self._head is not None:
            self._read_head(complete=True)
        if self._incoming is None:
            return self._status
        try:
            waiting = self._incoming.keep(self._study)
        except (SpoolFull, OSError) as error:
            self.refuse(Status.REFUSED_OUT_OF_RESOURCES, str(error))
            return self._status
        self._incoming = None
        self._scp.accepted(waiting)
        return Status.SUCCESS

    def _read_head(self, *, complete: bool) -> None:
        """Compare the UIDs with the command's: the gateway would refuse it for good, and the device still can act."""
        data, self._head = bytes(self._head or b""), None
        description = self._description
        try:
            head = scan_head(data, description.transfer_syntax_uid, stop_after=_STUDY, complete=complete)
        except HeadUnreadable as error:
            self.refuse(Status.CANNOT_UNDERSTAND, error.detail)
            return
        for tag, stated in ((_SOP_CLASS, description.sop_class_uid), (_SOP_INSTANCE, description.sop_instance_uid)):
            value = (head.values.get(tag) or b"").rstrip(b"\0 ").decode("ascii", "replace")
            if value and value != stated:
                self.refuse(Status.DATA_SET_DOES_NOT_MATCH, f"({tag:08X}) is not what the command says")
                return
        self._study = (head.values.get(_STUDY) or b"").rstrip(b"\0 ")
