"""One association at a time with a server that is assessed: open, C-ECHO, C-FIND for nothing, release.

Rules of this file: bounded in bytes and in time, whatever the peer sends or does not send; a deadline covers a whole
answer, not each byte of it. Of a match that should not have come nothing is read: the association is aborted.
"""

import asyncio
import contextlib
import ssl
import time
from typing import Final

from dicomward.assess.plan import OFFERED, associate_rq
from dicomward.assess.seen import AssociationSeen, OperationSeen, Outcome
from dicomward.dicom.association import Association
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.events import (
    AssociationAccepted,
    AssociationRejected,
    CommandReceived,
    Event,
    PeerAborted,
    ProtocolBroken,
)
from dicomward.dicom.framing import HEADROOM, DataRun, encode_p_data
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AReleaseRq
from dicomward.vocab.association import AbortReason, AbortSource
from dicomward.vocab.dimse import Operation, Priority

_READ_BYTES: Final = 16 * 1024
# An acceptance takes a few KiB, a response some hundred bytes.
_MOST_ANSWER_BYTES: Final = 256 * 1024
_RELEASE_SECONDS: Final = 2.0
_LEAST_PDU: Final = 128
_FIRST_BYTES: Final = 8
_ABOUT_CERTIFICATES: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN")


class AssessedPeer:
    """One connection to a DIMSE server. `first` are the first bytes that came, to tell other protocols."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer_timeout: float) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout = answer_timeout
        self._association = Association(is_requestor=True, limits=Limits())
        self._buffer = memoryview(bytearray(HEADROOM + _READ_BYTES))
        self._events: list[Event] = []
        self._contexts: dict[str, int] = {}
        self._message_id = 0
        self._maximum_length = 0
        self._bytes = 0
        self.first = b""
        self.failed = ""
        self.certificate_wanted = False
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Say if the association is established."""
        return self._association.is_established

    async def associate(
        self, calling_ae_title: str, called_ae_title: str, sop_classes: tuple[str, ...] = OFFERED
    ) -> AssociationSeen:
        """Ask for an association, and return what came."""
        request = associate_rq(calling_ae_title, called_ae_title, sop_classes)
        began = time.monotonic()
        outcome, event, detail = await self._ask(self._association.send(request))
        milliseconds = round((time.monotonic() - began) * 1000)
        offered = frozenset(sop_classes)
        match event:
            case AssociationRejected(reject=reject):
                return AssociationSeen(
                    calling_ae_title=calling_ae_title,
                    called_ae_title=called_ae_title,
                    outcome=Outcome.REJECTED,
                    source=reject.source,
                    reason=reject.reason,
                    offered=offered,
                    milliseconds=milliseconds,
                )
            case AssociationAccepted(accept=accept):
                by_id = {each.context_id: each.abstract_syntax for each in request.presentation_contexts}
                self._contexts = {
                    by_id[each.context_id]: each.context_id
                    for each in accept.presentation_contexts
                    if each.result == 0 and each.context_id in by_id
                }
                user = accept.user_information
                self._maximum_length = user.maximum_length
                return AssociationSeen(
                    calling_ae_title=calling_ae_title,
                    called_ae_title=called_ae_title,
                    outcome=Outcome.ACCEPTED,
                    offered=offered,
                    accepted=frozenset(self._contexts),
                    implementation_class_uid=user.implementation_class_uid,
                    implementation_version_name=user.implementation_version_name or "",
                    maximum_length=user.maximum_length,
                    milliseconds=milliseconds,
                )
        return AssociationSeen(
            calling_ae_title=calling_ae_title,
            called_ae_title=called_ae_title,
            outcome=outcome if event is None else Outcome.BROKEN,
            offered=offered,
            milliseconds=milliseconds,
            detail=detail or (f"it answered with {type(event).__name__}" if event is not None else ""),
        )

    async def echo(self, sop_class_uid: str) -> OperationSeen:
        """Send C-ECHO."""
        return await self._operate(Operation.C_ECHO, sop_class_uid, None)

    async def find(self, sop_class_uid: str, identifier: bytes) -> OperationSeen:
        """Send C-FIND with an identifier (Implicit VR Little Endian) that matches nothing.

        The first response decides; after a match the association is aborted, and the match isn't read.
        """
        seen = await self._operate(Operation.C_FIND, sop_class_uid, identifier)
        if seen.outcome is Outcome.ANSWERED and seen.status in (0xFF00, 0xFF01):
            await self.abort()
        return seen

    async def _operate(self, operation: Operation, sop_class_uid: str, identifier: bytes | None) -> OperationSeen:
        self._message_id += 1
        context_id = self._contexts[sop_class_uid]
        command = CommandSet(
            command_field=operation,
            message_id=self._message_id,
            affected_sop_class_uid=sop_class_uid,
            has_data_set=identifier is not None,
            priority=None if identifier is None else int(Priority.MEDIUM),
        )
        size = max(_LEAST_PDU, min(self._maximum_length or _READ_BYTES, _READ_BYTES))
        data = encode_p_data(context_id, encode_command_set(command), size, command=True)
        if identifier is not None:
            data += encode_p_data(context_id, identifier, size, command=False)
        began = time.monotonic()
        outcome, event, detail = await self._ask(data)
        milliseconds = round((time.monotonic() - began) * 1000)
        match event:
            case CommandReceived(command=answer) if answer.message_id_being_responded_to == self._message_id:
                status = answer.status or 0
                return OperationSeen(outcome=Outcome.ANSWERED, status=status, milliseconds=milliseconds)
            case None:
                return OperationSeen(outcome=outcome, milliseconds=milliseconds, detail=detail)
        await self.abort()
        return OperationSeen(
            outcome=Outcome.BROKEN, milliseconds=milliseconds, detail=f"it answered with {type(event).__name__}"
        )

    async def release(self) -> None:
        """Release the association, and close the connection."""
        if self._association.is_established:
            self._timeout = min(self._timeout, _RELEASE_SECONDS)
            await self._ask(self._association.send(AReleaseRq()))
        await self.close()

    async def abort(self) -> None:
        """Send A-ABORT, and close."""
        data = self._association.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED)
        if data:
            with contextlib.suppress(OSError):
                self._writer.write(data)
        await self.close()

    async def close(self) -> None:
        """Close the connection; a peer that does not answer to that is not waited for."""
        self._association.connection_closed()
        if not self._is_closed:
            self._is_closed = True
            await close_writer(self._writer)

    async def _ask(self, data: bytes) -> tuple[Outcome, Event | None, str]:
        """Send, and return the next event; or how the connection, which is over then, ended without one."""
        outcome, event, detail = await self._exchange(data)
        if event is None:
            await self.abort()
        return outcome, event, detail

    async def _exchange(self, data: bytes) -> tuple[Outcome, Event | None, str]:
        self._bytes = 0
        try:
            async with asyncio.timeout(self._timeout):
                self._writer.write(data)
                await self._writer.drain()
                event = await self._next_event()
        except TimeoutError:
            text = "more than it may send in the time" if self._bytes else "no answer"
            return Outcome.SILENT, None, f"{text} within {self._timeout:g} s"
        except ssl.SSLError as error:
            self.failed = error.reason or str(error)
            self.certificate_wanted = is_about_client_certificate(error)
            return Outcome.CLOSED, None, self.failed
        except OSError as error:
            self.failed = error.strerror or type(error).__name__
            return Outcome.CLOSED, None, self.failed
        match event:
            case None:
                return Outcome.CLOSED, None, "the connection was closed"
            case PeerAborted(source=source, reason=reason):
                return Outcome.ABORTED, None, f"aborted (source {source}, reason {reason})"
            case ProtocolBroken(error=broken):
                return Outcome.BROKEN, None, str(broken)
        return Outcome.ANSWERED, event, ""

    async def _next_event(self) -> Event | None:
        while not self._events:
            data = await self._reader.read(_READ_BYTES)
            if not data:
                return None
            self.first = (self.first + data[:_FIRST_BYTES])[:_FIRST_BYTES]
            self._bytes += len(data)
            if self._bytes > _MOST_ANSWER_BYTES:
                raise TimeoutError
            self._buffer[HEADROOM : HEADROOM + len(data)] = data
            for event in self._association.receive(self._buffer, HEADROOM, HEADROOM + len(data)):
                # Of a data set nothing is kept, not even for a moment.
                if not isinstance(event, DataRun):
                    self._events.append(event)
        return self._events.pop(0)


def is_about_client_certificate(error: ssl.SSLError) -> bool:
    """Say if a TLS error means that the server wants to know who calls."""
    reason = (error.reason or str(error)).upper()
    return any(word in reason for word in _ABOUT_CERTIFICATES)


async def close_writer(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once."""
    transport = writer.transport
    writer.close()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(0.2):
            await writer.wait_closed()
            return
    # Debian's Python 3.11.2 raises at a TLS connection of which nothing is left to end.
    with contextlib.suppress(AttributeError):
        transport.abort()
