"""The listening sockets and the sessions that come from them."""

import logging
import secrets
import socket
from collections.abc import Callable

from dicomward.audit.event import ConnectionFailed
from dicomward.io.engine import READ, Engine
from dicomward.io.gate import Gate
from dicomward.io.session import Session
from dicomward.relay.inputs import Listener
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_ACCEPTS_IN_A_ROW = 16


def open_listener(host: str, port: int) -> socket.socket:
    """Bind and listen. Raises OSError."""
    family, kind, protocol, _name, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class Acceptor:
    """One listening socket; a Channel of the engine."""

    def __init__(
        self, engine: Engine, gate: Gate, listener: Listener, listening: socket.socket, deadline: Callable[[str], float]
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._listener = listener
        self._socket = listening
        self._deadline = deadline
        self._closed = False

    def start(self) -> None:
        """Begin to accept."""
        self._engine.watch(self._socket.fileno(), self, READ)

    def stop(self) -> None:
        """Accept nobody any more."""
        self._closed = True
        self._engine.forget(self._socket.fileno())
        self._socket.close()

    def ready(self, readable: bool, writable: bool) -> None:
        """Accept who waits."""
        try:
            for _ in range(_ACCEPTS_IN_A_ROW):
                try:
                    connection, peer = self._socket.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    # Out of file descriptors, or a peer that is gone already: the others are not to wait for it.
                    _log.warning("a connection could not be accepted: %s", error)
                    break
                self._accepted(connection, str(peer[0]))
        finally:
            if not self._closed:
                self._engine.arm(self._socket.fileno(), READ)

    def _accepted(self, connection: socket.socket, address: str) -> None:
        if self._listener is Listener.ARCHIVE and not self._gate.registry.is_registered_address(address):
            # Without TLS the network is all that an archive is known by, so nobody else is even read.
            self._gate.record(ConnectionFailed(address=address, reason=ReasonCode.ARCHIVE_UNKNOWN))
            connection.close()
            return
        try:
            session = Session(self._engine, self._gate, self._listener, connection, address, secrets.token_hex(8))
        except OSError:
            connection.close()
            return
        evicted = self._gate.session_began(session)
        session.start(self._deadline(address))
        if evicted is not None:
            evicted.end(ReasonCode.ADDRESS_DELAY)
