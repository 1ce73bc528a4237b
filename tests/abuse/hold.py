"""What a case of abuse works with: connections to a target that stay open until the case is over."""

import contextlib
import socket
import ssl
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.real import raw_peer as raw
from tests.real.clients import Route
from tests.real.processes import LOOPBACK
from tests.real.recording_archive import STUDY_FIND, VERIFICATION, WORKLIST
from tests.real.samples import sample

CT = sample("CT_small.dcm")
CONTEXTS: raw.Contexts = {
    1: (VERIFICATION, [raw.IMPLICIT]),
    3: (CT.sop_class_uid, [CT.transfer_syntax_uid]),
    5: (STUDY_FIND, [raw.IMPLICIT]),
    7: (WORKLIST, [raw.IMPLICIT]),
}
# The longest that a case waits for anything: an attacker doesn't wait for its victim.
PATIENCE = 0.15


@dataclass(frozen=True, slots=True)
class Held:
    """One connection of a case. Whatever the other end does to it is no error of the case."""

    socket: socket.socket

    def send(self, *data: bytes) -> bool:
        """Send; False if the other end has had enough or doesn't read."""
        try:
            # Also with nothing to send: fails where there is no connection.
            self.socket.getpeername()
            self.socket.sendall(b"".join(data))
        except OSError:
            return False
        return True

    def receive(self, size: int = 65536) -> bytes:
        """Return what comes within the patience of an attacker, or nothing."""
        with contextlib.suppress(OSError):
            return self.socket.recv(size)
        return b""

    def pdu(self) -> int:
        """Read one whole PDU; return its type, 0 if none came."""
        data = b""
        while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
            wanted = 6 - len(data) if len(data) < 6 else 6 + int.from_bytes(data[2:6], "big") - len(data)
            if not (chunk := self.receive(wanted)):
                return 0
            data += chunk
        return data[0]

    def reset(self) -> None:
        """End it with a TCP reset."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.socket.close()

    def half_close(self) -> None:
        """Say that nothing more comes, and go on reading."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)


class Hold:
    """The connections of one case to one target."""

    def __init__(self, route: Route, stack: ExitStack, context: ssl.SSLContext | None = None) -> None:
        self.route = route
        self._stack = stack
        self.context = context
        # Set while a case that needs time is held open; a thread of the case ends when it is called.
        self.over: list[Callable[[], None]] = []

    def plain(self, *, receive_buffer: int = 0) -> Held:
        """Open a TCP connection, no more."""
        connected = socket.socket()
        self._stack.callback(connected.close)
        if receive_buffer:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connected.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            connected.connect((LOOPBACK, self.route.port))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Held(connected)

    def directory(self) -> Path:
        """Return an empty directory that lives as long as the case."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory()))

    def open(self, context: ssl.SSLContext | None = None, *, receive_buffer: int = 0, name: str = "localhost") -> Held:
        """Open a connection on which DICOM can be spoken: over TLS where the target has it."""
        held = self.plain(receive_buffer=receive_buffer)
        chosen = context or self.context
        if chosen is None:
            return held
        try:
            secure = chosen.wrap_socket(held.socket, server_hostname=name)
        except (OSError, ssl.SSLError):
            return held
        self._stack.callback(secure.close)
        return Held(secure)

    def associated(self, contexts: raw.Contexts = CONTEXTS, *, receive_buffer: int = 0) -> Held:
        """Open an association."""
        held = self.open(receive_buffer=receive_buffer)
        held.send(raw.request_on(self.route, contexts))
        held.pdu()
        return held


Case = Callable[[Hold], None]
