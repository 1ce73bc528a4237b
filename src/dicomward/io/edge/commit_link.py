"""An association of the agent's own for Storage Commitment: it asks, and listens for the archive's reports on it."""

import ssl
import time
from dataclasses import dataclass
from typing import Final

from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.events import CommandReceived
from dicomward.dicom.framing import DataRun, encode_p_data, fragments_of
from dicomward.edge.commitment import (
    INSTANCE,
    MOST_REPORT_BYTES,
    REQUEST_ACTION,
    Report,
    ReportUnreadable,
    decode_report,
    encode_request,
)
from dicomward.edge.contexts import Pair, propose
from dicomward.io.edge.link import Link, LinkDown
from dicomward.settings.edge import Upstream
from dicomward.vocab.dimse import RESPONSE_BIT, Operation, Status
from dicomward.vocab.services import STORAGE_COMMITMENT_PUSH_MODEL, VERIFICATION
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN

_PAIR: Final[Pair] = (STORAGE_COMMITMENT_PUSH_MODEL, IMPLICIT_VR_LITTLE_ENDIAN)
# Who offers no commitment would reject an association for that alone, and a rejection can mean anything.
_VERIFICATION: Final[Pair] = (VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)


@dataclass(frozen=True, slots=True)
class Asked:
    """The archive's answer to the request of that message ID: it will look into it, or not."""

    message_id: int
    status: int


@dataclass(frozen=True, slots=True)
class Reported:
    """An N-EVENT-REPORT, which waits for its answer; `report` is None if it can't be read."""

    context_id: int
    command: CommandSet
    report: Report | None


class CommitLink(Link):
    """One association for commitments."""

    def __init__(
        self, upstream: Upstream, context: ssl.SSLContext, *, calling_ae_title: str, called_ae_title: str
    ) -> None:
        """Connect, authenticate, associate. Raises LinkDown."""
        super().__init__(
            upstream,
            context,
            calling_ae_title=calling_ae_title,
            called_ae_title=called_ae_title,
            proposed=propose([_PAIR, _VERIFICATION]),
        )

    @property
    def is_offered(self) -> bool:
        """Say if the archive has accepted it."""
        return _PAIR in self.contexts

    def ask(self, transaction_uid: str, references: list[tuple[str, str]]) -> int:
        """Send a request for SOP classes and instances; return its message ID. Raises LinkDown."""
        message_id = self._next_message_id()
        command = CommandSet(
            command_field=Operation.N_ACTION,
            has_data_set=True,
            message_id=message_id,
            requested_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
            requested_sop_instance_uid=INSTANCE,
            action_type_id=REQUEST_ACTION,
        )
        data = encode_request(transaction_uid, references)
        self._message(self.contexts[_PAIR], command, data)
        return message_id

    def answer(self, reported: Reported, status: int) -> None:
        """Answer a report. Raises LinkDown."""
        command = reported.command
        response = CommandSet(
            command_field=command.command_field | RESPONSE_BIT,
            message_id_being_responded_to=command.message_id,
            affected_sop_class_uid=command.affected_sop_class_uid,
            affected_sop_instance_uid=command.affected_sop_instance_uid,
            event_type_id=command.event_type_id,
            status=status,
        )
        self._message(reported.context_id, response, b"")

    def _message(self, context_id: int, command: CommandSet, data: bytes) -> None:
        parts = encode_p_data(context_id, encode_command_set(command), self._maximum, command=True)
        if command.has_data_set:
            parts += encode_p_data(context_id, data, self._maximum, command=False)
        try:
            self._send(parts)
        except OSError as error:
            raise LinkDown(str(error)) from error

    def listen(self, seconds: float) -> Asked | Reported | None:
        """Return what the archive says next; None if it says nothing for so long. Raises LinkDown."""
        if not self._events and not self._wait(seconds):
            return None
        event = self._next()
        if not isinstance(event, CommandReceived):
            raise LinkDown(f"unexpected {type(event).__name__}")
        command = event.command
        data = self._data_set() if command.has_data_set else b""
        if command.message_id_being_responded_to is not None:
            return Asked(command.message_id_being_responded_to, command.status or 0)
        if command.command_field != Operation.N_EVENT_REPORT:
            raise LinkDown(f"unexpected command {command.command_field:04X}H")
        try:
            return Reported(event.context_id, command, decode_report(data))
        except ReportUnreadable:
            return Reported(event.context_id, command, None)

    def _wait(self, seconds: float) -> bool:
        """Say if something has come within so many seconds. Raises LinkDown."""
        deadline = time.monotonic() + seconds
        try:
            while not self._events:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._connection.settimeout(left)
                try:
                    self._receive()
                except TimeoutError:
                    return False
        except OSError as error:
            raise LinkDown(str(error)) from error
        finally:
            self._connection.settimeout(self._seconds)
        return True

    def _data_set(self) -> bytes:
        data = bytearray()
        while True:
            event = self._next()
            if not isinstance(event, DataRun):
                raise LinkDown(f"unexpected {type(event).__name__}")
            for fragment, _last in fragments_of(event.view):
                data += fragment
            if len(data) > MOST_REPORT_BYTES:
                raise LinkDown("a report that is too long")
            if event.last:
                return bytes(data)


UNKNOWN_TRANSACTION: Final = Status.PROCESSING_FAILURE
"""What a report gets that isn't ours: it may be the device's own, and the archive tells it the device later."""
