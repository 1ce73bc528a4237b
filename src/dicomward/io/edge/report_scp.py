"""An association that brings reports of Storage Commitment: the agent's own are taken, the others go to the device."""

import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from dicomward.dicom.association import Association
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.events import (
    AssociationAccepted,
    AssociationRequested,
    CommandReceived,
    Event,
    ReleaseRequested,
)
from dicomward.dicom.framing import HEADROOM, DataRun, encode_p_data, fragments_of
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAssociateAc,
    AAssociateRq,
    AReleaseRp,
    AReleaseRq,
    PresentationContextAc,
    RoleSelection,
    UserInformation,
)
from dicomward.edge.commitment import MOST_REPORT_BYTES, Report, ReportUnreadable, decode_report
from dicomward.edge.contexts import Pair, propose
from dicomward.relay.negotiation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, clamp_maximum_length
from dicomward.settings import ListenAddress
from dicomward.vocab.association import PresentationResult
from dicomward.vocab.dimse import RESPONSE_BIT, Operation, Status
from dicomward.vocab.services import STORAGE_COMMITMENT_PUSH_MODEL
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN

_log = logging.getLogger(__name__)

_IDLE_SECONDS: Final = 300.0
_ANSWER_SECONDS: Final = 30.0
_READ_BYTES: Final = 64 * 1024
_PAIR: Final[Pair] = (STORAGE_COMMITMENT_PUSH_MODEL, IMPLICIT_VR_LITTLE_ENDIAN)
_ROLE: Final = RoleSelection(sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL, scu_role=False, scp_role=True)


class _Ended(OSError):
    """The association is over, or the peer does what nobody may do here."""


class _Talk:
    """One association on a connection, blocking."""

    def __init__(self, connection: socket.socket, *, is_requestor: bool) -> None:
        self.association = Association(is_requestor=is_requestor, limits=Limits())
        self.maximum = Limits().max_pdu_bytes
        self._connection = connection
        self._events: deque[Event] = deque()
        self._buffer = memoryview(bytearray(HEADROOM + _READ_BYTES))

    def heard(self, data: bytes) -> None:
        """Take what was read before."""
        for at in range(0, len(data), _READ_BYTES):
            part = data[at : at + _READ_BYTES]
            self._buffer[HEADROOM : HEADROOM + len(part)] = part
            self._events.extend(self.association.receive(self._buffer, HEADROOM, HEADROOM + len(part)))

    def next(self) -> Event:
        """Raise OSError."""
        while not self._events:
            count = self._connection.recv_into(self._buffer[HEADROOM:])
            if not count:
                raise _Ended("the connection was closed")
            self._events.extend(self.association.receive(self._buffer, HEADROOM, HEADROOM + count))
        return self._events.popleft()

    def data_set(self) -> bytes:
        """Return the data set of a command. Raises OSError."""
        data = bytearray()
        while True:
            event = self.next()
            if not isinstance(event, DataRun):
                raise _Ended(f"{type(event).__name__} within a data set")
            for fragment, _last in fragments_of(event.view):
                data += fragment
            if len(data) > MOST_REPORT_BYTES:
                raise _Ended("a report that is too long")
            if event.last:
                return bytes(data)

    def message(self, context_id: int, command: CommandSet, data: bytes = b"") -> None:
        """Send a command, with its data set if it has one. Raises OSError."""
        parts = encode_p_data(context_id, encode_command_set(command), self.maximum, command=True)
        if command.has_data_set:
            parts += encode_p_data(context_id, data, self.maximum, command=False)
        self._connection.sendall(parts)


class ReportScp:
    """Serves one association."""

    def __init__(
        self, name: str, connection: socket.socket, device: ListenAddress | None, take: Callable[[Report], bool]
    ) -> None:
        self._name, self._connection, self._device, self._take = name, connection, device, take
        self._talk = _Talk(connection, is_requestor=False)
        self._titles = ("", "")

    def serve(self, request: bytes) -> None:
        """Serve it to its end; `request` was read already. Raises OSError."""
        self._connection.settimeout(_IDLE_SECONDS)
        self._talk.heard(request)
        while True:
            match self._talk.next():
                case AssociationRequested(request=asked):
                    self._accept(asked)
                case CommandReceived(context_id=context_id, command=command):
                    self._answer(context_id, command)
                case ReleaseRequested():
                    self._connection.sendall(self._talk.association.send(AReleaseRp()))
                    return
                case event:
                    raise _Ended(type(event).__name__)

    def _accept(self, request: AAssociateRq) -> None:
        self._titles = (request.calling_ae_title, request.called_ae_title)
        self._talk.maximum = clamp_maximum_length(request.user_information.maximum_length, Limits().max_pdu_bytes)
        contexts = tuple(
            PresentationContextAc(
                context_id=each.context_id,
                result=PresentationResult.ACCEPTANCE
                if IMPLICIT_VR_LITTLE_ENDIAN in each.transfer_syntaxes
                else PresentationResult.TRANSFER_SYNTAXES_NOT_SUPPORTED,
                transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN,
            )
            for each in request.presentation_contexts
        )
        accept = AAssociateAc(
            called_ae_title=request.called_ae_title,
            calling_ae_title=request.calling_ae_title,
            presentation_contexts=contexts,
            user_information=UserInformation(
                maximum_length=Limits().max_pdu_bytes,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                role_selections=request.user_information.role_selections,
            ),
        )
        self._talk.association.announce_maximum_length(Limits().max_pdu_bytes)
        self._connection.sendall(self._talk.association.send(accept))

    def _answer(self, context_id: int, command: CommandSet) -> None:
        data = self._talk.data_set() if command.has_data_set else b""
        match command.command_field:
            case Operation.C_ECHO:
                status = int(Status.SUCCESS)
            case Operation.N_EVENT_REPORT:
                status = self._report(command, data)
            case _:
                raise _Ended(f"command {command.command_field:04X}H")
        response = CommandSet(
            command_field=command.command_field | RESPONSE_BIT,
            message_id_being_responded_to=command.message_id,
            affected_sop_class_uid=command.sop_class_uid,
            affected_sop_instance_uid=command.sop_instance_uid,
            event_type_id=command.event_type_id,
            status=status,
        )
        self._talk.message(context_id, response)

    def _report(self, command: CommandSet, data: bytes) -> int:
        """Return the status of a report: ours, or what the device says to it."""
        try:
            if self._take(decode_report(data)):
                return Status.SUCCESS
        except ReportUnreadable as error:
            _log.warning("%s: a report of Storage Commitment can't be read: %s", self._name, error)
        if self._device is None:
            _log.warning("%s: a report that nobody here has asked for is refused", self._name)
            return Status.PROCESSING_FAILURE
        try:
            return _tell(self._device, self._titles, command, data)
        except OSError as error:
            _log.warning("%s: the device does not take a report of Storage Commitment: %s", self._name, error)
            return Status.PROCESSING_FAILURE


def _tell(device: ListenAddress, titles: tuple[str, str], command: CommandSet, data: bytes) -> int:
    """Give a report to the device, with the archive's titles; return its status. Raises OSError."""
    with socket.create_connection((device.host, device.port), _ANSWER_SECONDS) as connection:
        talk = _Talk(connection, is_requestor=True)
        (context,) = propose([_PAIR])
        request = AAssociateRq(
            called_ae_title=titles[1],
            calling_ae_title=titles[0],
            presentation_contexts=(context,),
            user_information=UserInformation(
                maximum_length=Limits().max_pdu_bytes,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                role_selections=(_ROLE,),
            ),
        )
        connection.sendall(talk.association.send(request))
        answer = talk.next()
        accepted = isinstance(answer, AssociationAccepted) and any(
            each.result == PresentationResult.ACCEPTANCE for each in answer.accept.presentation_contexts
        )
        if not isinstance(answer, AssociationAccepted) or not accepted:
            raise _Ended("it does not accept the association")
        talk.maximum = clamp_maximum_length(answer.accept.user_information.maximum_length, Limits().max_pdu_bytes)
        talk.message(context.context_id, command, data)
        told = talk.next()
        if not isinstance(told, CommandReceived) or told.command.status is None:
            raise _Ended("it gives no answer")
        if told.command.has_data_set:
            talk.data_set()
        connection.sendall(talk.association.send(AReleaseRq()))
        talk.next()
        return told.command.status
