"""Opening a socket that listens, the same for DICOM, enrolment and monitoring; a thread for each who calls."""

import logging
import socket
import threading
from collections.abc import Callable
from typing import Final

from dicomward.io.system import calls

_log = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 0.1


def bind_and_listen(host: str, port: int, backlog: int) -> socket.socket:
    """Return a socket that listens on the first address of a host; "" is every address. Raises OSError."""
    family, kind, protocol, _name, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        calls.prepare_listener(listener)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


class Reception:
    """Accepts connections until it is stopped, and answers each in a thread of its own.

    `enter` says if somebody from this address may come in now, `answer` talks with them and closes, `leave` is told
    when that is over.
    """

    def __init__(
        self,
        listener: socket.socket,
        name: str,
        *,
        enter: Callable[[str], bool],
        answer: Callable[[socket.socket, str], None],
        leave: Callable[[str], None],
    ) -> None:
        self._listener, self._name = listener, name
        self._enter, self._answer, self._leave = enter, answer, leave
        bound = listener.getsockname()
        self.host, self.port = str(bound[0]), int(bound[1])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def start(self) -> None:
        """Start to accept."""
        self._thread.start()

    def stop(self) -> None:
        """Stop to accept; who is in already is answered."""
        self._stopping.set()
        calls.stop_listening(self._listener)
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, peer = self._listener.accept()
            except OSError as error:
                if not self._stopping.is_set():
                    # Out of file descriptors, as a rule.
                    _log.error("%s: a connection can't be accepted: %s", self._name, error)
                    self._stopping.wait(_PAUSE_SECONDS)
                continue
            address = str(peer[0])
            if not self._enter(address):
                connection.close()
                continue
            try:
                threading.Thread(
                    target=self._visit, args=(connection, address), name=f"{self._name}-request", daemon=True
                ).start()
            except RuntimeError:
                # No thread can be had: who asks tries again.
                connection.close()
                self._leave(address)

    def _visit(self, connection: socket.socket, address: str) -> None:
        try:
            self._answer(connection, address)
        finally:
            self._leave(address)


class OpenConnections:
    """The connections that are open now, so that all can be ended; one that is added after that is ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_ended = False

    def add(self, connection: socket.socket) -> None:
        """Take one in."""
        with self._lock:
            self._open.add(connection)
            is_late = self._is_ended
        if is_late:
            shut(connection)

    def discard(self, connection: socket.socket) -> None:
        """Forget one, if it is known: whoever has it now ends it, or it is closed."""
        with self._lock:
            self._open.discard(connection)

    def end(self) -> None:
        """Shut all down; whoever reads from them closes them."""
        with self._lock:
            self._is_ended = True
            for connection in self._open:
                shut(connection)


def shut(connection: socket.socket) -> None:
    """Shut a connection down in both directions, unless it is already."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
