"""The agent as a storage SCP: takes a device's objects into the spool, and answers when they are durable.

One thread for each association; a data set goes to the disk in pieces as it comes.
"""

import logging
import socket
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
from dicomward.edge.contexts import Pair, answer_contexts, unknown_pairs
from dicomward.edge.queue import Waiting
from dicomward.identity.identify import IdentityError, identify_legacy_device
from dicomward.identity.registry import RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.io.edge.learned import Learned
from dicomward.io.edge.link import LinkDown
from dicomward.io.edge.spool import Incoming, Spool, SpoolFull
from dicomward.io.edge.spool_seal import Description
from dicomward.relay.negotiation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, clamp_maximum_length
from dicomward.relay.refusals import reject_for
from dicomward.vocab.association import AbortReason, AbortSource
from dicomward.vocab.dimse import RESPONSE_BIT, Operation, Status
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_READ_BYTES: Final = 256 * 1024
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
        idle_seconds: float,
    ) -> None:
        self.name = name
        self.registry = registry
        self.zone = zone
        self.spool = spool
        self.learned = learned
        self.accepted = accepted
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

    def run(self) -> None:
        """Read until the end. Raises OSError, _Over."""
        buffer = memoryview(bytearray(HEADROOM + _READ_BYTES))
        while True:
            count = self._connection.recv_into(buffer[HEADROOM:])
            if not count:
                raise _Over("the connection was closed")
            for event in self._association.receive(buffer, HEADROOM, HEADROOM + count):
                self._handle(event)

    def give_up(self) -> None:
        """Forget an object that has not arrived as a whole."""
        if self._object is not None:
            self._object.abandon()

    def _handle(self, event: Event) -> None:
        match event:
            case AssociationRequested(request=request):
                self._answer(request)
            case CommandReceived(context_id=context_id, command=command):
                self._begin(context_id, command)
            case DataRun():
                self._go_on(event)
            case ReleaseRequested():
                self._connection.sendall(self._association.send(AReleaseRp()))
                raise _Over("released")
            case ProtocolBroken(error=error, abort=abort):
                self._connection.sendall(abort)
                raise _Over(f"the device broke the protocol: {error}")
            case PeerAborted():
                raise _Over("aborted by the device")
            case _:
                self._abort("unexpected PDU")

    def _abort(self, why: str) -> None:
        self._connection.sendall(self._association.abort(AbortSource.SERVICE_PROVIDER, AbortReason.UNEXPECTED_PDU))
        raise _Over(why)

    def _reject(self, reject: AAssociateRj, why: str) -> None:
        _log.warning("%s: association from %s rejected: %s", self._scp.name, self._address, why)
        self._connection.sendall(self._association.send(reject))
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
        answer = answer_contexts(request, scp.learned.known(self._titles))
        self._pairs = dict(answer.accepted)
        if not self._pairs:
            self._reject(reject_for(ReasonCode.UPSTREAM_UNREACHABLE), "no context is known to be accepted upstream")
        asked = request.user_information
        self._maximum = clamp_maximum_length(asked.maximum_length, Limits().max_pdu_bytes)
        window = None
        if asked.async_operations_window is not None:
            window = AsyncOperationsWindow(maximum_invoked=1, maximum_performed=1)
        accept = AAssociateAc(
            called_ae_title=request.called_ae_title,
            calling_ae_title=request.calling_ae_title,
            presentation_contexts=answer.contexts,
            user_information=UserInformation(
                maximum_length=Limits().max_pdu_bytes,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                async_operations_window=window,
            ),
        )
        self._association.announce_maximum_length(Limits().max_pdu_bytes)
        self._connection.sendall(self._association.send(accept))

    def _begin(self, context_id: int, command: CommandSet) -> None:
        pair = self._pairs.get(context_id)
        if pair is None or self._object is not None or not command.is_request:
            self._abort("a message that nobody may send here")
            return
        if command.command_field == Operation.C_ECHO:
            self._respond(context_id, command, Status.SUCCESS)
            return
        if command.command_field != Operation.C_STORE or not command.has_data_set:
            self._abort(f"command {command.command_field:04X}H on a storage context")
            return
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

    def _go_on(self, run: DataRun) -> None:
        if self._object is None:
            self._abort("a data set without a command")
            return
        for fragment, _last in fragments_of(run.view):
            self._object.write(fragment)
        if run.last:
            received, self._object = self._object, None
            status = received.finish()
            self._respond(received.context_id, received.command, status)

    def _respond(self, context_id: int, command: CommandSet, status: int) -> None:
        response = CommandSet(
            command_field=command.command_field | RESPONSE_BIT,
            message_id_being_responded_to=command.message_id,
            affected_sop_class_uid=command.affected_sop_class_uid,
            affected_sop_instance_uid=command.affected_sop_instance_uid,
            status=status,
        )
        self._connection.sendall(encode_p_data(context_id, encode_command_set(response), self._maximum, command=True))


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
