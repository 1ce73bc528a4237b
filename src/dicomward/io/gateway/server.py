"""The listening sockets and the sessions that come from them."""

import errno
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable

from dicomward.audit.event import ConnectionFailed, DegradedEntered, DegradedLeft
from dicomward.dicom.proxy_protocol import ProxySource
from dicomward.identity.network import shown_address
from dicomward.io.gateway.engine import READ, Engine
from dicomward.io.gateway.gate import Gate
from dicomward.io.gateway.listeners import NamedListener
from dicomward.io.gateway.proxy_preamble import ProxyPreamble
from dicomward.io.gateway.session import Session
from dicomward.io.listening import bind_and_listen
from dicomward.relay.inputs import Listener
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_ACCEPTS_IN_A_ROW = 16
# While nothing can be accepted, those who wait stay in the kernel's queue, and asking for them at once would spin.
_PAUSE_SECONDS = 0.1
_CALM_SECONDS = 10.0
_COMPONENT = "new connections"


def open_listener(host: str, port: int) -> socket.socket:
    """Bind and listen, without blocking. Raises OSError."""
    listener = bind_and_listen(host, port, _BACKLOG)
    listener.setblocking(False)
    return listener


class Acceptor:
    """One listening socket; a Channel of the engine."""

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        listener: NamedListener,
        listening: socket.socket,
        deadline: Callable[[str], float],
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._listener = listener
        self._socket = listening
        self._deadline = deadline
        self._lock = threading.Lock()
        self._closed = False
        self._failed_at: float | None = None
        self._announcing: set[ProxyPreamble] = set()

    def start(self) -> None:
        """Begin to accept."""
        self._engine.watch(self._socket.fileno(), self, READ)

    def stop(self) -> None:
        """Accept nobody any more."""
        with self._lock:
            self._closed = True
            self._engine.forget(self._socket.fileno())
            self._socket.close()

    def ready(self, readable: bool, writable: bool) -> None:
        """Accept who waits."""
        with self._lock:
            if self._closed:
                return
            if self._accept():
                self._engine.arm(self._socket.fileno(), READ)
            else:
                self._engine.timers.after(_PAUSE_SECONDS, self.failed)

    def failed(self) -> None:
        """Go on: a listener is never given up."""
        with self._lock:
            if not self._closed:
                self._engine.arm(self._socket.fileno(), READ)

    def _accept(self) -> bool:
        """Accept some; False if it is of no use to try again now."""
        for _ in range(_ACCEPTS_IN_A_ROW):
            try:
                connection, peer = self._socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                self._not_accepted(error)
                return False
            if self._failed_at is not None and time.monotonic() - self._failed_at > _CALM_SECONDS:
                self._failed_at = None
                self._gate.record(DegradedLeft(component=_COMPONENT))
            self._accepted(connection, shown_address(str(peer[0])))
        return True

    def _not_accepted(self, error: OSError) -> None:
        """Say once what is wrong: most likely every file descriptor is in use. Who is connected goes on."""
        if self._failed_at is None:
            detail = f"new connections can't be accepted: {error.strerror or error}; see `ulimit -n` (LimitNOFILE)"
            _log.error("%s", detail)
            self._gate.record(DegradedEntered(component=_COMPONENT, state="waiting", detail=detail))
        self._failed_at = time.monotonic()

    def _accepted(self, connection: socket.socket, address: str) -> None:
        """Ask a load balancer first whom it speaks for; who isn't a named one speaks for itself."""
        if not self._gate.balancers.allows(address):
            self.admit(connection, address)
            return

        def announced(connection: socket.socket, source: ProxySource) -> None:
            self.admit(connection, shown_address(source.address or address))
            self._announcing.discard(preamble)

        def refused(problem: str | None) -> None:
            self._announcing.discard(preamble)
            if problem is not None:
                event = ConnectionFailed(
                    address=address, reason=ReasonCode.PROXY_HEADER, detail=f"load balancer: {problem}"
                )
                self._gate.record(event)

        preamble = ProxyPreamble(self._engine, connection, announced=announced, refused=refused)
        self._announcing.add(preamble)
        try:
            preamble.start(self._deadline(address))
        except OSError:
            _log.exception("a connection from %s could not be served; it is closed", address)
            self._announcing.discard(preamble)
            connection.close()

    @property
    def is_announcing(self) -> bool:
        """Say if connections of load balancers are open of which nobody knows yet who is behind them."""
        return bool(self._announcing)

    def admit(self, connection: socket.socket, address: str) -> None:
        """Begin a session with who has called."""
        if self._listener.kind is Listener.ARCHIVE and not self._gate.registry.is_registered_address(address):
            # Without TLS the network is all that an archive is known by, so nobody else is even read.
            self._gate.record(ConnectionFailed(address=address, reason=ReasonCode.ARCHIVE_UNKNOWN))
            connection.close()
            return
        zone = self._gate.legacy_zone(self._listener.name)
        if self._listener.kind is Listener.LEGACY and (zone is None or not zone.allows(address)):
            detail = f"not in the networks of the legacy zone {self._listener.name!r}"
            event = ConnectionFailed(address=address, reason=ReasonCode.NETWORK_NOT_ALLOWED, detail=detail)
            self._gate.record(event)
            connection.close()
            return
        session: Session | None = None
        try:
            session = Session(self._engine, self._gate, self._listener, connection, address, secrets.token_hex(8))
            evicted = self._gate.session_began(session)
            session.start(self._deadline(address))
        except Exception:  # noqa: BLE001  whatever it is, it ends this connection and not the listener
            _log.exception("a connection from %s could not be served; it is closed", address)
            connection.close() if session is None else session.failed()
            return
        if evicted is not None:
            evicted.end(ReasonCode.ADDRESS_DELAY)
