"""One association as the executor sees it: two wires, one relay, one lock. Does what the relay wants done.

Rules of this file: no decision about rights; everything that the relay asks for is done in order, under the lock.
"""

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import assert_never

from dicomward.audit.event import ConnectionFailed
from dicomward.dicom.framing import HEADROOM
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.registry import Archive, Device
from dicomward.io.engine import READ, WRITE, Engine
from dicomward.io.gate import Gate, Refused
from dicomward.io.tls import reason_of
from dicomward.io.wire import Scratch, Wire, WireClosed
from dicomward.relay.effects import (
    Close,
    Effect,
    Finished,
    OpenUpstream,
    Pause,
    Record,
    RecordDurably,
    RegisterCommitment,
    RegisterMove,
    Resume,
    Send,
    StartTimer,
    StopTimer,
)
from dicomward.relay.inputs import (
    Caller,
    Connected,
    Correlated,
    Ended,
    Input,
    Instant,
    Leg,
    Listener,
    PeerClosed,
    Received,
    Recorded,
    Timer,
    TimerFired,
    UpstreamFailed,
    UpstreamOpened,
)
from dicomward.relay.relay import Relay
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

# So many reads in a row before others get their turn.
_READS_IN_A_ROW = 8
# A peer that has its last PDU gets so long to close; then we do.
_LINGER_SECONDS = 5.0
_TLS_HANDSHAKE = 0x16

_scratch = Scratch()


class _Clock:
    """The clocks, read for each input. The wall clock is for rules, which count in minutes, so it may be a bit old."""

    _WALL_SECONDS = 0.2

    def __init__(self) -> None:
        self._read = 0.0
        self._local = datetime.now().astimezone()

    def now(self) -> Instant:
        """Return this moment."""
        monotonic = time.monotonic()
        if monotonic - self._read > self._WALL_SECONDS:
            self._local = datetime.now().astimezone()
            self._read = monotonic
        return Instant(monotonic, self._local)


_clock = _Clock()


class _Side:
    """One wire of a session, and what the engine was last asked to watch it for. A Channel of the engine."""

    __slots__ = ("armed", "descriptor", "handshaking", "leg", "opening", "paused", "session", "wire")

    def __init__(self, session: "Session", leg: Leg, wire: Wire) -> None:
        self.session = session
        self.leg = leg
        self.wire = wire
        self.descriptor = wire.socket.fileno()
        self.armed = -1
        self.paused = False
        self.handshaking = wire.tls is not None
        self.opening = False

    def ready(self, readable: bool, writable: bool) -> None:
        """Handle an event of the engine."""
        self.session.ready(self, readable, writable)


class Session:
    """The connections of one association. Every method that touches them holds the lock."""

    def __init__(
        self, engine: Engine, gate: Gate, listener: Listener, connection: socket.socket, address: str, identifier: str
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._listener = listener
        self.address = address
        self.association = identifier
        self.lock = threading.RLock()
        self.relay: Relay | None = None
        self.is_over = False
        self._timers: dict[Timer, int] = {}
        self._sides: dict[Leg, _Side] = {}
        self._open_effect = 0
        self._target: Archive | Device | None = None
        self._context = gate.listener_context(listener)
        wire = Wire(connection, self._context.context if self._context else None, server_side=True)
        self._requestor = _Side(self, Leg.REQUESTOR, wire)
        self._sides[Leg.REQUESTOR] = self._requestor
        self._first_byte_seen = wire.tls is None

    def start(self, deadline_seconds: float) -> None:
        """Begin to watch the requestor's connection."""
        with self.lock:
            self._start_timer(Timer.REQUEST, deadline_seconds)
            side = self._requestor
            side.armed = READ
            self._engine.watch(side.descriptor, side, READ)
            if side.wire.tls is None:
                self._identified(None)

    def end(self, reason: ReasonCode) -> bool:
        """End the association now; True if there was one."""
        with self.lock:
            if self.is_over:
                return False
            if self.relay is None:
                self._drop(reason, "ended before it began", hold=False)
                return False
            self._handle(Ended(reason))
            return True

    def feed(self, happened: Input) -> None:
        """Give the relay a result or a timer."""
        with self.lock:
            if not self.is_over or isinstance(happened, Recorded):
                self._handle(happened)

    # -- events of the engine ---------------------------------------------------------------------------------------

    def ready(self, side: _Side, readable: bool, writable: bool) -> None:
        """Handle an event on one of the wires."""
        with self.lock:
            if side.leg not in self._sides or self._sides[side.leg] is not side:
                return
            side.armed = 0
            try:
                if side.opening:
                    self._connected(side)
                elif side.handshaking:
                    self._handshake(side, first=False)
                else:
                    if writable and side.wire.is_blocked:
                        side.wire.flush()
                    if readable:
                        self._read(side)
                if side.leg in self._sides and side.wire.closing and not side.wire.is_blocked:
                    side.wire.end()
            except WireClosed as error:
                self._closed(side, str(error))
            except ssl.SSLError as error:
                self._closed(side, f"TLS: {error.reason or error}")
            except OSError as error:
                self._closed(side, error.strerror or str(error))
            self._rearm()

    def _read(self, side: _Side) -> None:
        for _ in range(_READS_IN_A_ROW):
            if not self._may_read(side):
                return
            end = side.wire.read(_scratch)
            if end < 0:
                return
            self._deliver(side, end)
            # A read that did not fill the buffer has emptied the socket; asking it again would cost a call for nothing.
            if side.leg not in self._sides or not side.wire.may_have_more:
                return

    def _deliver(self, side: _Side, end: int) -> None:
        if side.wire.closing or end <= HEADROOM:
            return
        if self.relay is not None:
            self._handle(Received(side.leg, _scratch.plain, HEADROOM, end))

    def _may_read(self, side: _Side) -> bool:
        """Back-pressure is not reading: from a paused leg, or while the other leg can't take more."""
        if side.wire.closing:
            return True
        other = self._sides.get(side.leg.other)
        return not side.paused and not (other is not None and other.wire.is_blocked and not other.wire.closing)

    def _rearm(self) -> None:
        for side in self._sides.values():
            if side.opening:
                wanted = WRITE
            else:
                wanted = READ if self._may_read(side) else 0
                if side.wire.is_blocked:
                    wanted |= WRITE
            if wanted != side.armed:
                side.armed = wanted
                self._engine.arm(side.descriptor, wanted)

    # -- handshake --------------------------------------------------------------------------------------------------

    def _handshake(self, side: _Side, *, first: bool) -> None:
        if side.leg is Leg.REQUESTOR and not self._first_byte_seen and not self._judge_first_byte(side):
            return
        try:
            done = side.wire.handshake(_scratch, first=first)
        except ssl.SSLError as error:
            if side.leg is Leg.ACCEPTOR:
                self._upstream_failed(f"TLS handshake: {error.reason or error}", ReasonCode.UPSTREAM_NOT_TRUSTED)
                return
            reason, detail = reason_of(error)
            self._drop(reason, detail, hold=True)
            return
        side.wire.flush()
        if not done:
            return
        side.handshaking = False
        tls = side.wire.tls
        if tls is None:
            return
        if side.leg is Leg.ACCEPTOR:
            certificate = self._gate.upstream_certificates.read(tls)
            try:
                if self._target is not None:  # INVARIANT: set before anything is dialled
                    self._gate.judge_upstream(self._target, certificate)
            except Refused as refused:
                self._upstream_failed(refused.detail, refused.reason)
                return
            self._handle(UpstreamOpened(self._open_effect))
        else:
            self._identified(self._context.certificates.read(tls) if self._context else None)
        if side.leg in self._sides:
            end = side.wire.pending(_scratch)
            self._deliver(side, end)

    def _judge_first_byte(self, side: _Side) -> bool:
        """Tell plaintext from TLS by its first byte, so that the log can say so."""
        try:
            first = side.wire.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        if not first:
            raise WireClosed("connection closed")
        self._first_byte_seen = True
        if first[0] == _TLS_HANDSHAKE:
            return True
        kind = "a plaintext DICOM association" if first[0] == 1 else "no TLS"
        self._drop(ReasonCode.NOT_TLS, f"{kind}: first byte {first[0]:02X}H", hold=True)
        return False

    def _identified(self, certificate: PeerCertificate | None) -> None:
        """Make the relay: from here on it answers for the association."""
        if certificate is not None:
            self._gate.key_proved(self)
        self.relay = Relay(
            self._gate,
            Caller(
                association=self.association,
                listener=self._listener,
                address=self.address,
                certificate=certificate,
            ),
        )
        self._handle(Connected())

    def _drop(self, reason: ReasonCode, detail: str, *, hold: bool) -> None:
        """End a connection that has not proved who it is; a stranger's answer may be held back for a while."""
        self._gate.record(ConnectionFailed(address=self.address, reason=reason, detail=detail))
        seconds = self._gate.stranger_failed(self) if hold else 0.0
        self._stop_timer(Timer.REQUEST)
        side = self._requestor
        side.paused = True
        self._engine.forget(side.descriptor)
        side.armed = -1
        self._sides.pop(Leg.REQUESTOR, None)
        if seconds > 0:
            self._engine.timers.after(seconds, lambda: self._let_go(side))
        else:
            self._let_go(side)

    def _let_go(self, side: _Side) -> None:
        """Send the alert, if there is one, and close."""
        with self.lock:
            try:
                side.wire.flush()
                side.wire.socket.shutdown(socket.SHUT_WR)
            except (OSError, WireClosed):
                pass
            side.wire.socket.close()
            self._over()

    # -- the relay --------------------------------------------------------------------------------------------------

    def _handle(self, happened: Input) -> None:
        relay = self.relay
        if relay is None:
            return
        try:
            effects = relay.handle(happened, _clock.now())
        except Exception:
            # A defect of ours ends this association, with everybody's data safe, and nothing else.
            _log.exception("association %s ended by an internal error", self.association)
            self._gate.defect(self)
            effects = relay.fail(_clock.now())
        self._execute(effects)

    def _execute(self, effects: list[Effect]) -> None:
        writes: dict[Leg, list[bytes | memoryview]] = {}
        later: list[Effect] = []
        for effect in effects:
            match effect:
                case Send(leg=leg, data=data):
                    writes.setdefault(leg, []).append(data)
                case Record(event=event):
                    self._gate.record(event)
                case _:
                    later.append(effect)
        for leg, buffers in writes.items():
            self._write(leg, buffers)
        for effect in later:
            self._do(effect)

    def _write(self, leg: Leg, buffers: list[bytes | memoryview]) -> None:
        side = self._sides.get(leg)
        if side is None or side.wire.closing:
            return
        try:
            side.wire.write(buffers)
        except WireClosed as error:
            # The read side will see the end; telling the relay now would be inside its own effects.
            detail = str(error)
            self._engine.post(lambda: self._closed_later(side, detail))

    def _do(self, effect: Effect) -> None:
        match effect:
            case Pause(leg=leg) | Resume(leg=leg):
                if leg in self._sides:
                    self._sides[leg].paused = isinstance(effect, Pause)
                    self._engine.post(self._rearm_locked)
            case Close(leg=leg):
                self._close(leg)
            case OpenUpstream(effect_id=effect_id, target=target):
                self._open_effect, self._target = effect_id, target
                self._gate.resolve(target, self._dial, self._resolve_failed)
            case RecordDurably(effect_id=effect_id, event=event):
                self._gate.record_durably(
                    event, lambda written: self._engine.post(lambda: self.feed_and_rearm(Recorded(effect_id, written)))
                )
            case RegisterMove(effect_id=effect_id, move=move):
                self._gate.register_move(move, self._answer_correlation(effect_id))
            case RegisterCommitment(effect_id=effect_id, commitment=commitment):
                self._gate.register_commitment(commitment, self._answer_correlation(effect_id))
            case StartTimer(timer=timer, seconds=seconds):
                self._start_timer(timer, seconds)
            case StopTimer(timer=timer):
                self._stop_timer(timer)
            case Finished():
                self._finished()
            case Send() | Record():
                pass
            case _:
                assert_never(effect)

    def _answer_correlation(self, effect_id: int) -> Callable[[bool], None]:
        return lambda granted: self._engine.post(lambda: self.feed_and_rearm(Correlated(effect_id, granted)))

    def feed_and_rearm(self, happened: Input) -> None:
        """Give the relay a result from another thread."""
        with self.lock:
            self.feed(happened)
            self._rearm()

    def _rearm_locked(self) -> None:
        with self.lock:
            self._rearm()

    # -- upstream ---------------------------------------------------------------------------------------------------

    def _dial(self, family: int, address: tuple[object, ...]) -> None:
        with self.lock:
            if self.is_over or self._target is None:
                return
            try:
                context = self._gate.upstream_context(self._target)
                connection = socket.socket(family, socket.SOCK_STREAM)
                wire = Wire(connection, context, server_side=False)
                side = _Side(self, Leg.ACCEPTOR, wire)
                side.opening = True
                self._sides[Leg.ACCEPTOR] = side
                try:
                    connection.connect(address)
                except BlockingIOError:
                    pass
                side.armed = WRITE
                self._engine.watch(side.descriptor, side, WRITE)
            except Refused as refused:
                self._upstream_failed(refused.detail, refused.reason)
            except OSError as error:
                self._upstream_failed(error.strerror or str(error), ReasonCode.UPSTREAM_UNREACHABLE)
            self._rearm()

    def _resolve_failed(self, detail: str) -> None:
        with self.lock:
            self._upstream_failed(detail, ReasonCode.UPSTREAM_UNREACHABLE)
            self._rearm()

    def _connected(self, side: _Side) -> None:
        code = side.wire.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._upstream_failed(os.strerror(code), ReasonCode.UPSTREAM_UNREACHABLE)
            return
        side.opening = False
        if side.handshaking:
            self._handshake(side, first=True)
        else:
            self._handle(UpstreamOpened(self._open_effect))

    def _upstream_failed(self, detail: str, reason: ReasonCode) -> None:
        self._forget(Leg.ACCEPTOR)
        self._handle(UpstreamFailed(self._open_effect, reason, detail))

    # -- ends -------------------------------------------------------------------------------------------------------

    def _closed(self, side: _Side, detail: str) -> None:
        """Note that a connection is gone, and tell the relay if it did not expect it."""
        expected = side.wire.closing
        if side.opening or (side.handshaking and side.leg is Leg.ACCEPTOR):
            self._upstream_failed(detail, ReasonCode.UPSTREAM_UNREACHABLE)
            return
        if side.handshaking and side.leg is Leg.REQUESTOR:
            self._drop(ReasonCode.TLS_FAILED, f"handshake: {detail}", hold=False)
            return
        self._forget(side.leg)
        if not expected:
            self._handle(PeerClosed(side.leg, detail))
        self._maybe_over()

    def _closed_later(self, side: _Side, detail: str) -> None:
        with self.lock:
            if self._sides.get(side.leg) is side:
                self._closed(side, detail)
                self._rearm()

    def _close(self, leg: Leg) -> None:
        """Close a wire when what waits has been written; the peer gets a while to close first."""
        side = self._sides.get(leg)
        if side is None or side.wire.closing:
            return
        if side.opening or side.handshaking:
            self._forget(leg)
            return
        side.wire.closing = True
        if not side.wire.is_blocked:
            side.wire.end()
        self._engine.timers.after(_LINGER_SECONDS, lambda: self._linger_over(side))

    def _linger_over(self, side: _Side) -> None:
        with self.lock:
            if self._sides.get(side.leg) is side:
                self._forget(side.leg)
                self._maybe_over()

    def _forget(self, leg: Leg) -> None:
        side = self._sides.pop(leg, None)
        if side is not None:
            self._engine.forget(side.descriptor)
            side.wire.socket.close()

    def _finished(self) -> None:
        for timer in list(self._timers):
            self._stop_timer(timer)
        self._gate.relay_finished(self)
        self._maybe_over()

    def _maybe_over(self) -> None:
        if not self._sides:
            self._over()

    def _over(self) -> None:
        if not self.is_over:
            self.is_over = True
            for timer in list(self._timers):
                self._stop_timer(timer)
            self._gate.session_over(self)

    # -- timers -----------------------------------------------------------------------------------------------------

    def _start_timer(self, timer: Timer, seconds: float) -> None:
        self._stop_timer(timer)
        self._timers[timer] = self._engine.timers.after(seconds, lambda: self._timer_fired(timer))

    def _stop_timer(self, timer: Timer) -> None:
        number = self._timers.pop(timer, None)
        if number is not None:
            self._engine.timers.cancel(number)

    def _timer_fired(self, timer: Timer) -> None:
        with self.lock:
            self._timers.pop(timer, None)
            if self.is_over:
                return
            if self.relay is None:
                self._drop(ReasonCode.DEADLINE, "no TLS handshake before the deadline", hold=False)
            else:
                self._handle(TimerFired(timer))
            self._rearm()

    # -- the registry has changed -----------------------------------------------------------------------------------

    def no_longer_allowed(self) -> ReasonCode | None:
        """Return why the registry, as it is now, doesn't allow this association any more; None if it does."""
        with self.lock:
            return self.relay.no_longer_allowed() if self.relay is not None else None
