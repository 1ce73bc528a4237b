"""The reverse connections of one device: the agent opens them, the gateway opens associations to the device over them.

Each is TLS with the device's own certificate, in which the agent is the client and verifies the gateway's name and
chain. What comes first on it is the gateway's A-ASSOCIATE-RQ; from then on a session of the reverse gate has it. No
thread belongs to a connection that waits.
"""

import logging
import os
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from dicomward.dicom.framing import HEADROOM
from dicomward.edge.spares import WELCOME_SECONDS, Spares
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.registry import Archive, Endpoint
from dicomward.io.edge.gate import judge_pin
from dicomward.io.edge.reverse_gate import ReverseGate
from dicomward.io.gateway.engine import READ, WRITE, Engine
from dicomward.io.gateway.gate import Address, Refused
from dicomward.io.gateway.listeners import NamedListener
from dicomward.io.gateway.reverse import keep_parked
from dicomward.io.gateway.session import Session
from dicomward.io.gateway.wire import SCRATCH, Wire, WireClosed
from dicomward.io.tls import REVERSE_ALPN, PeerCertificates, reason_of
from dicomward.relay.inputs import Listener
from dicomward.settings import ListenAddress
from dicomward.settings.edge import Upstream

_log = logging.getLogger(__name__)

_REQUEST_SECONDS: Final = 30.0
# RFC 7301 §3.2: what a peer answers that knows ALPN, and not ours.
_NO_PROTOCOL: Final = "NO_APPLICATION_PROTOCOL"


class ReverseLine:
    """Keeps reverse connections of one device open."""

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        listen: ListenAddress,
        wanted: int,
        upstream: Upstream,
        context: ssl.SSLContext,
        gate: ReverseGate,
        draw: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._name = name
        self._upstream = upstream
        self._context = context
        self._gate = gate
        self._spares = Spares(wanted, draw)
        self._listener = NamedListener(name=name, kind=Listener.ARCHIVE, address=listen, tls=False)
        endpoint = Endpoint(host=upstream.address.host, port=upstream.address.port)
        self._target = Archive(name="gateway", ae_title="GATEWAY", endpoint=endpoint)
        self._certificates = PeerCertificates(None)
        self._lock = threading.RLock()
        self._calls: set[_Call] = set()
        self._timer: int | None = None
        self._is_stopped = False
        self._told = ""

    def start(self) -> None:
        """Begin."""
        self.fill()

    def stop(self) -> None:
        """Close what waits; what the gateway uses is for the gate to end."""
        with self._lock:
            self._is_stopped = True
            if self._timer is not None:
                self._engine.timers.cancel(self._timer)
            calls, self._calls = self._calls, set()
        # A call's own lock comes before ours.
        for call in calls:
            call.close()

    def status(self) -> dict[str, object]:
        """Return how many are parked and were used, and what is wrong."""
        with self._lock:
            spares = self._spares
            return {"parked": spares.parked, "used": spares.used, "problem": spares.problem or "ok"}

    def fill(self) -> None:
        """Open what is missing, now or when its time has come."""
        with self._lock:
            if self._is_stopped:
                return
            now = time.monotonic()
            for _ in range(self._spares.missing(now)):
                self._spares.opening()
                call = _Call(self, self._engine, self._upstream, self._context)
                self._calls.add(call)
                self._gate.resolve(self._target, call.found, call.not_found)
            if self._timer is not None:
                self._engine.timers.cancel(self._timer)
                self._timer = None
            left = self._spares.seconds_left(time.monotonic())
            if left is not None:
                self._timer = self._engine.timers.after(left, self.fill)

    # -- what becomes of a call -------------------------------------------------------------------------------------

    def parked(self, call: "_Call", tls: ssl.SSLObject) -> None:
        """Note that a connection stands. Raises Refused for a peer that is not who it should be, ssl.SSLError."""
        certificate = self._certificates.read(tls)
        judge_pin(self._upstream, certificate.sha256 if certificate else "none")
        with self._lock:
            if tls.selected_alpn_protocol() != REVERSE_ALPN:
                self._not_offered(call)
                return
            self._spares.opened()
            _log.info("%s: a reverse connection stands", self._name)
            call.certificate = certificate
            self._engine.timers.after(WELCOME_SECONDS, partial(self._lasted, call))

    def failed(self, call: "_Call", why: str) -> None:
        """Note that a connection could not be made."""
        with self._lock:
            if not self._gone(call):
                return
            if _NO_PROTOCOL in why:
                self._calls.add(call)
                self._not_offered(call)
                return
            self._spares.failed(time.monotonic(), why)
            self._say(why)
        self.fill()

    def lost(self, call: "_Call", seconds: float, why: str) -> None:
        """Note that a connection has ended before the gateway has used it."""
        with self._lock:
            if not self._gone(call):
                return
            self._spares.lost(time.monotonic(), seconds, why)
            self._say(self._spares.problem)
        self.fill()

    def used(self, call: "_Call", wire: Wire, address: str, end: int) -> None:
        """Hand over to a session: the gateway has begun an association."""
        with self._lock:
            if not self._gone(call):
                wire.socket.close()
                return
            self._spares.took()
            self._told = ""
        if call.certificate is not None:
            self._gate.trust(call.certificate.sha256)
        session = Session(self._engine, self._gate, self._listener, wire, address, secrets.token_hex(8))
        self._gate.session_began(session)
        session.adopt(_REQUEST_SECONDS, call.certificate, end)
        self.fill()

    def _not_offered(self, call: "_Call") -> None:
        self._gone(call)
        call.close()
        if self._spares.not_offered(time.monotonic()):
            _log.warning("%s: %s, so nobody there can call the device", self._name, self._spares.problem)
        self._engine.post(self.fill)

    def _lasted(self, call: "_Call") -> None:
        with self._lock:
            if call not in self._calls:
                return
            self._spares.lasted()
            self._told = ""
        self.fill()

    def _gone(self, call: "_Call") -> bool:
        if call not in self._calls:
            return False
        self._calls.discard(call)
        return True

    def _say(self, problem: str) -> None:
        """Log a problem when it is new."""
        if problem and problem != self._told:
            _log.warning("%s: reverse connection: %s", self._name, problem)
        self._told = problem


class _Call:
    """One connection until a session has it. A Channel of the engine."""

    def __init__(self, line: ReverseLine, engine: Engine, upstream: Upstream, context: ssl.SSLContext) -> None:
        self._line = line
        self._engine = engine
        self._upstream = upstream
        self._context = context
        self._lock = threading.RLock()
        self._addresses: list[Address] = []
        self._wire: Wire | None = None
        self._is_connected = False
        self._parked_at: float | None = None
        self._timer: int | None = None
        self._is_closed = False
        self._address = ""
        self.certificate: PeerCertificate | None = None

    def found(self, addresses: Sequence[Address]) -> None:
        """Dial the first of them that answers."""
        with self._lock:
            self._addresses = list(addresses)
            self._timer = self._engine.timers.after(self._upstream.seconds, self._late)
            self._dial()

    def not_found(self, detail: str) -> None:
        """There is nobody to dial."""
        self._fail(f"{self._upstream.address}: {detail}")

    def _dial(self) -> None:
        if self._is_closed:
            return
        family, address = self._addresses.pop(0)
        self._address = str(address[0])
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._wire = Wire(connection, self._context, server_side=False)
            keep_parked(connection)
            try:
                connection.connect(address)
            except BlockingIOError:
                pass
            self._engine.watch(connection.fileno(), self, WRITE)
        except OSError as error:
            self._wire = None
            connection.close()
            self._not_connected(error.strerror or str(error))

    def _not_connected(self, why: str) -> None:
        self._let_go()
        if self._addresses:
            self._dial()
        else:
            self._fail(f"{self._upstream.address}: {why}")

    def _late(self) -> None:
        with self._lock:
            if self._parked_at is None:
                self._fail(f"{self._upstream.address}: no TLS connection within {self._upstream.seconds:g} s")

    def ready(self, readable: bool, writable: bool) -> None:
        """Go on with what the engine has told."""
        with self._lock:
            wire = self._wire
            if wire is None or self._is_closed:
                return
            try:
                if not self._is_connected:
                    self._connected(wire)
                elif self._parked_at is None:
                    self._handshake(wire, first=False)
                else:
                    self._said(wire, readable)
            except Refused as refused:
                self._fail(refused.detail)
            except ssl.SSLError as error:
                self._fail(f"TLS with {self._upstream.address}: {reason_of(error)[1]}")
            except (WireClosed, OSError) as error:
                self._fail(f"{self._upstream.address}: {error}")

    def failed(self) -> None:
        """Give up: an event was not handled."""
        self._fail("an event could not be handled")

    def _connected(self, wire: Wire) -> None:
        code = wire.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._not_connected(os.strerror(code))
        elif wire.is_connected:
            self._is_connected = True
            self._handshake(wire, first=True)

    def _handshake(self, wire: Wire, *, first: bool) -> None:
        done = wire.handshake(SCRATCH, first=first)
        wire.flush()
        if done and wire.tls is not None:
            self._stop_timer()
            self._line.parked(self, wire.tls)
            self._parked_at = time.monotonic()
            # What came with the end of the handshake is here already: TLS 1.3 tickets, or the gateway's request.
            self._read_on(wire, wire.pending(SCRATCH))
        else:
            self._arm(wire)

    def _said(self, wire: Wire, readable: bool) -> None:
        if wire.is_blocked:
            wire.flush()
        self._read_on(wire, wire.read(SCRATCH) if readable else -1)

    def _read_on(self, wire: Wire, end: int) -> None:
        if self._is_closed:
            return
        if end <= HEADROOM:
            self._arm(wire)
            return
        # The session watches the socket from here on.
        self._engine.forget(wire.socket.fileno())
        self._wire, self._is_closed = None, True
        self._line.used(self, wire, self._address, end)

    def _arm(self, wire: Wire) -> None:
        self._engine.arm(wire.socket.fileno(), READ | WRITE if wire.is_blocked else READ)

    def _fail(self, why: str) -> None:
        with self._lock:
            if self._is_closed:
                return
            self.close()
        if self._parked_at is None:
            self._line.failed(self, why)
        else:
            self._line.lost(self, time.monotonic() - self._parked_at, why)

    def close(self) -> None:
        """Close the connection, whatever its state."""
        with self._lock:
            self._is_closed = True
            self._stop_timer()
            self._let_go()

    def _let_go(self) -> None:
        if self._wire is not None:
            self._engine.forget(self._wire.socket.fileno())
            self._wire.socket.close()
            self._wire = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._engine.timers.cancel(self._timer)
            self._timer = None
