"""An association of the agent's own, upstream: blocking, one thread, as many C-STOREs in flight as were agreed on."""

import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from dicomward.dicom.association import Association
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.events import (
    AssociationAccepted,
    AssociationRejected,
    CommandReceived,
    Event,
    PeerAborted,
    ProtocolBroken,
    ReleaseConfirmed,
)
from dicomward.dicom.framing import HEADROOM, encode_p_data
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAssociateRq,
    AReleaseRq,
    AsyncOperationsWindow,
    PresentationContextRq,
    UserInformation,
)
from dicomward.edge.contexts import Pair
from dicomward.io.edge.gate import judge_pin
from dicomward.io.edge.spool_seal import Description
from dicomward.io.gateway.gate import Refused
from dicomward.io.system import calls
from dicomward.io.tls import reason_of
from dicomward.relay.negotiation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, clamp_maximum_length
from dicomward.settings.edge import Upstream
from dicomward.vocab.association import PresentationResult
from dicomward.vocab.dimse import Operation

_READ_BYTES: Final = 64 * 1024
_MESSAGE_IDS: Final = 65_535
# An archive that writes an object of 2 GiB to a slow disk answers after minutes.
_ANSWER_SECONDS: Final = 900.0
_RELEASE_SECONDS: Final = 5.0
_KEEP_ALIVE_SECONDS: Final = 10
_DEAD_MILLISECONDS: Final = 60_000
_MOST_PDU_BYTES: Final = 131_072


class LinkDown(Exception):
    """The line, or who is at its end, doesn't answer; nothing is known of what was in flight."""


class LinkRejected(LinkDown):
    """The association was rejected."""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to the C-STORE of that message ID."""

    message_id: int
    status: int


class Link:
    """One association."""

    def __init__(
        self,
        upstream: Upstream,
        context: ssl.SSLContext,
        *,
        calling_ae_title: str,
        called_ae_title: str,
        proposed: tuple[PresentationContextRq, ...],
    ) -> None:
        """Connect, authenticate, associate. Raises LinkDown."""
        self.titles = (calling_ae_title, called_ae_title)
        self._seconds = upstream.seconds
        self._events: deque[Event] = deque()
        self._buffer = memoryview(bytearray(HEADROOM + _READ_BYTES))
        self._association = Association(is_requestor=True, limits=Limits())
        self._message_id = 0
        self.in_flight = 0
        self._connection = self._connect(upstream, context)
        try:
            judge_pin(upstream, sha256(self._connection.getpeercert(binary_form=True) or b"").hexdigest())
            self._associate(proposed, upstream.window)
            # From here on an archive may take its time; that the line is dead, TCP itself says.
            self._seconds = max(upstream.seconds, _ANSWER_SECONDS)
            self._connection.settimeout(self._seconds)
        except Refused as refused:
            self._connection.close()
            raise LinkDown(refused.detail) from refused
        except OSError as error:
            self._connection.close()
            raise LinkDown(str(error)) from error
        except LinkDown:
            self._connection.close()
            raise

    @staticmethod
    def _connect(upstream: Upstream, context: ssl.SSLContext) -> ssl.SSLSocket:
        host, port = upstream.address.host, upstream.address.port
        try:
            plain = socket.create_connection((host, port), upstream.seconds)
        except OSError as error:
            raise LinkDown(f"{upstream.address}: {error.strerror or error}") from error
        try:
            _tune(plain)
            return context.wrap_socket(plain, server_hostname=upstream.name)
        except (OSError, ValueError) as error:
            plain.close()
            detail = reason_of(error)[1] if isinstance(error, ssl.SSLError) else str(error)
            raise LinkDown(f"TLS with {upstream.address}: {detail}") from error

    def _associate(self, proposed: tuple[PresentationContextRq, ...], window: int) -> None:
        calling, called = self.titles
        request = AAssociateRq(
            called_ae_title=called,
            calling_ae_title=calling,
            presentation_contexts=proposed,
            user_information=UserInformation(
                maximum_length=_MOST_PDU_BYTES,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                async_operations_window=AsyncOperationsWindow(maximum_invoked=window, maximum_performed=1),
            ),
        )
        self._connection.sendall(self._association.send(request))
        match self._next():
            case AssociationAccepted(accept=accept):
                pass
            case AssociationRejected(reject=reject):
                raise LinkRejected(f"rejected: {reject.result}/{reject.source}/{reject.reason}")
            case event:
                raise LinkDown(f"unexpected answer: {type(event).__name__}")
        results = {each.context_id: each for each in accept.presentation_contexts}
        self.contexts: dict[Pair, int] = {}
        self.refused: set[Pair] = set()
        for each in proposed:
            pair = (each.abstract_syntax, each.transfer_syntaxes[0])
            answer = results.get(each.context_id)
            if answer is not None and answer.result == PresentationResult.ACCEPTANCE:
                self.contexts[pair] = each.context_id
            else:
                self.refused.add(pair)
        self._maximum = clamp_maximum_length(accept.user_information.maximum_length, _MOST_PDU_BYTES)
        agreed = accept.user_information.async_operations_window
        # PS3.7 §D.3.3.3: without an answer it is one; 0 is "no maximum".
        invoked = 1 if agreed is None else agreed.maximum_invoked
        self.window = window if invoked == 0 else min(window, invoked)

    @property
    def has_room(self) -> bool:
        """Say if one more operation may be invoked now."""
        return self.in_flight < self.window

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % _MESSAGE_IDS + 1
        return self._message_id

    def store(self, description: Description, pieces: Iterator[tuple[bytes, bool]]) -> int:
        """Send a C-STORE-RQ with its data set; return its message ID. Raises LinkDown, and what `pieces` raises."""
        context_id = self.contexts[description.sop_class_uid, description.transfer_syntax_uid]
        command = CommandSet(
            command_field=Operation.C_STORE,
            has_data_set=True,
            message_id=self._next_message_id(),
            affected_sop_class_uid=description.sop_class_uid,
            affected_sop_instance_uid=description.sop_instance_uid,
            priority=0,
        )
        try:
            self._send(encode_p_data(context_id, encode_command_set(command), self._maximum, command=True))
            for piece, last in pieces:
                self._send(_data_pdus(context_id, piece, self._maximum, last=last))
        except OSError as error:
            raise LinkDown(str(error)) from error
        self.in_flight += 1
        return self._message_id

    def responses(self, *, wait: bool) -> Iterator[Response]:
        """Yield what has come; with `wait` at least one. Raises LinkDown."""
        if not wait and not self._events:
            try:
                self._connection.settimeout(0.0)
                self._receive()
            except (ssl.SSLWantReadError, BlockingIOError):
                return
            except OSError as error:
                raise LinkDown(str(error)) from error
            finally:
                self._connection.settimeout(self._seconds)
        while self._events or wait:
            wait = False
            event = self._next()
            if not isinstance(event, CommandReceived) or event.command.message_id_being_responded_to is None:
                raise LinkDown(f"unexpected {type(event).__name__}")
            self.in_flight -= 1
            yield Response(event.command.message_id_being_responded_to, event.command.status or 0)

    def release(self) -> None:
        """End the association in order; whatever goes wrong, it is over."""
        self._seconds = _RELEASE_SECONDS
        try:
            self._connection.settimeout(self._seconds)
            self._connection.sendall(self._association.send(AReleaseRq()))
            while not isinstance(self._next(), ReleaseConfirmed):
                pass
        except (OSError, LinkDown):
            pass
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def _next(self) -> Event:
        deadline = time.monotonic() + self._seconds
        while not self._events:
            if time.monotonic() > deadline:
                raise LinkDown("no answer")
            try:
                self._receive()
            except OSError as error:
                raise LinkDown(str(error)) from error
        event = self._events.popleft()
        match event:
            case PeerAborted(source=source, reason=reason):
                raise LinkDown(f"aborted: {source}/{reason}")
            case ProtocolBroken(error=broken):
                raise LinkDown(f"the peer broke the protocol: {broken}")
        return event

    def _receive(self) -> None:
        count = self._connection.recv_into(self._buffer[HEADROOM:])
        if not count:
            raise LinkDown("the connection was closed")
        calls.acknowledge_at_once(self._connection)
        self._events.extend(self._association.receive(self._buffer, HEADROOM, HEADROOM + count))


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    calls.keep_alive(connection, idle_seconds=_KEEP_ALIVE_SECONDS)
    calls.give_up_after(connection, _DEAD_MILLISECONDS)
    calls.fill_long_lines(connection)


def _data_pdus(context_id: int, data: bytes, maximum: int, *, last: bool) -> bytes:
    """Return P-DATA-TF PDUs of a part of a data set (PS3.8 §9.3.5)."""
    if last:
        return encode_p_data(context_id, data, maximum, command=False)
    size = maximum - 6
    out = bytearray()
    for at in range(0, len(data), size):
        part = data[at : at + size]
        out += (0x0400).to_bytes(2, "big") + (len(part) + 6).to_bytes(4, "big")
        out += (len(part) + 2).to_bytes(4, "big") + bytes((context_id, 0)) + part
    return bytes(out)
