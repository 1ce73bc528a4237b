"""One association as the executor sees it: two wires, one relay, one lock. Does what the relay wants done.

Rules of this file: no decision about rights; everything that the relay asks for is done in order, under the lock.
"""

import logging
import os
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import assert_never

from dicomward.audit.event import OperationAllowed
from dicomward.dicom.framing import HEADROOM
from dicomward.identity.certificate import PeerCertificate
from dicomward.io.gateway.engine import READ, WRITE, Engine
from dicomward.io.gateway.gate import Gate, Refused
from dicomward.io.gateway.listeners import NamedListener
from dicomward.io.gateway.session_clock import Clock, SessionTimers
from dicomward.io.gateway.session_side import DISARMED, Side
from dicomward.io.gateway.session_stranger import Stranger
from dicomward.io.gateway.session_upstream import Upstream
from dicomward.io.gateway.wire import SCRATCH, Wire, WireClosed
from dicomward.io.tls import REVERSE_ALPN, reason_of
from dicomward.relay.effects import (
    Close,
    Effect,
    Finished,
    KeepCharges,
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
    VerifyPerson,
)
from dicomward.relay.inputs import (
    Caller,
    Connected,
    Correlated,
    Ended,
    Input,
    Leg,
    PeerClosed,
    PersonVerified,
    Received,
    Recorded,
    Timer,
    TimerFired,
)
from dicomward.relay.relay import Relay
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

# So many reads in a row before others get their turn.
_READS_IN_A_ROW = 8
# A peer that has its last PDU gets so long to close; then we do.
_LINGER_SECONDS = 5.0
# A peer that lets so many of our bytes wait is not listened to any more: our answers to it would have no bound. What
# one read of the other leg brings is far less, so a C-CANCEL in the middle of a slow C-GET is still heard.
_MOST_WAITING_BYTES = 1024 * 1024
_A_ABORT = 7

_clock = Clock()


class Session:
    """The connections of one association. Every method that touches them holds the lock."""

    def __init__(
        self,
        engine: Engine,
        gate: Gate,
        listener: NamedListener,
        connection: socket.socket | Wire,
        address: str,
        identifier: str,
    ) -> None:
        """Take a socket that nobody watches yet, for `start`; or a wire whose handshake is done, for `adopt`."""
        self._engine = engine
        self._gate = gate
        self._listener = listener
        self.address = address
        self.association = identifier
        self.lock = threading.RLock()
        self.relay: Relay | None = None
        self.is_over = False
        self._timers = SessionTimers(engine.timers, lambda: self.guarded(self._timers_fired))
        self._pending: deque[Input] = deque()
        self._is_handling = False
        self._unforwarded: list[Effect] | None = None
        self._sides: dict[Leg, Side] = {}
        self._upstream = Upstream(self, gate)
        self._stranger = Stranger(self, engine, gate, listener, connection)
        self._sides[Leg.REQUESTOR] = Side(self, Leg.REQUESTOR, self._stranger.wire)

    def start(self, deadline_seconds: float) -> None:
        """Begin to watch the requestor's connection. Raises OSError."""
        with self.lock:
            if self.is_over:
                # Ended by somebody else since it was counted: its descriptor may be another's by now.
                return
            self._timers.start(Timer.REQUEST, deadline_seconds)
            side = self._sides[Leg.REQUESTOR]
            side.armed = READ
            self._engine.watch(side.descriptor, side, READ)
            if side.wire.tls is None:
                self._identified(None)

    def adopt(self, deadline_seconds: float, certificate: PeerCertificate | None, end: int) -> None:
        """Begin with a wire whose handshake is done and on which something has come: it is in SCRATCH, up to `end`."""
        self.guarded(lambda: self._adopt(deadline_seconds, certificate, end))

    def _adopt(self, deadline_seconds: float, certificate: PeerCertificate | None, end: int) -> None:
        if self.is_over:
            return
        self._timers.start(Timer.REQUEST, deadline_seconds)
        side = self._sides[Leg.REQUESTOR]
        side.handshaking = False
        self._engine.watch(side.descriptor, side, 0)
        side.armed = 0
        self._identified(certificate)
        self._deliver(side, end)

    def end(self, reason: ReasonCode) -> bool:
        """End the association now; True if there was one."""
        with self.lock:
            if self.is_over:
                return False
            if self.relay is None:
                self.guarded(lambda: self._stranger.drop(reason, "ended before it began", hold=False))
                return False
            self.guarded(lambda: self.handle(Ended(reason)))
            return True

    def failed(self) -> None:
        """Close everything after a defect of ours, and give back what was counted."""
        with self.lock:
            if self.is_over:
                return
            try:
                self._gate.defect(self)
                if self.relay is not None:
                    for effect in self.relay.fail(_clock.now()):
                        match effect:
                            case Send(leg=leg, data=data):
                                self.write(leg, [data])
                            case Record(event=event):
                                self._gate.record(event)
            finally:
                self._unforwarded = None
                self._pending.clear()
                for leg in list(self._sides):
                    self.forget(leg)
                self._stranger.failed()
                self.over()

    def guarded(self, call: Callable[[], None]) -> None:
        """Do something that another thread, or a timer, has asked for."""
        with self.lock:
            try:
                call()
                self._rearm()
            except Exception:  # noqa: BLE001  as with an event: this association ends, and nobody else's
                _log.exception("ended by an internal error", extra={"association": self.association})
                self.failed()

    def _later(self, call: Callable[[], None]) -> None:
        self._engine.post(lambda: self.guarded(call))

    # -- events of the engine ---------------------------------------------------------------------------------------

    def ready(self, side: Side, readable: bool, writable: bool) -> None:
        """Handle an event on one of the wires."""
        with self.lock:
            if side.leg not in self._sides or self._sides[side.leg] is not side:
                return
            # The kernel has disarmed it altogether; armed for nothing, it would still tell of a broken connection.
            asked, side.armed = side.armed, DISARMED
            try:
                if side.opening:
                    self._connected(side)
                elif side.handshaking:
                    self._handshake(side, first=False)
                else:
                    if writable and side.wire.is_blocked:
                        side.wire.flush()
                    if asked & READ or self._may_read(side):
                        if readable:
                            self._read(side)
                    elif readable and side.wire.is_broken:
                        raise WireClosed("connection reset")
                if side.leg in self._sides and side.wire.closing and not side.wire.is_blocked:
                    side.wire.end()
            except WireClosed as error:
                self._closed(side, str(error))
            except ssl.SSLError as error:
                self._closed(side, f"TLS: {error.reason or error}")
            except OSError as error:
                self._closed(side, error.strerror or str(error))
            self._rearm()

    def _read(self, side: Side) -> None:
        for _ in range(_READS_IN_A_ROW):
            if not self._may_read(side):
                return
            end = side.wire.read(SCRATCH)
            if end < 0:
                return
            self._deliver(side, end)
            # A read that did not fill the buffer has emptied the socket; asking it again would cost a call for nothing.
            if side.leg not in self._sides or not side.wire.may_have_more:
                return

    def _deliver(self, side: Side, end: int) -> None:
        if side.wire.closing or end <= HEADROOM:
            return
        if side.leg is Leg.ACCEPTOR and (reverse := self._upstream.reverse) is not None:
            reverse.answered()
        self.handle(Received(side.leg, SCRATCH.plain, HEADROOM, end))

    def _may_read(self, side: Side) -> bool:
        """Back-pressure is not reading: from a paused leg, or while the other leg (or its own) can't take more."""
        if side.wire.closing:
            return True
        if side.wire.waiting_bytes > _MOST_WAITING_BYTES or self._unforwarded is not None:
            return False
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
            if side.wire.ended and wanted & READ:
                # Nothing will come any more, so no event either.
                self._later(partial(self._closed_later, side, "TLS closed"))

    # -- handshake --------------------------------------------------------------------------------------------------

    def _handshake(self, side: Side, *, first: bool) -> None:
        if side.leg is Leg.REQUESTOR and not self._stranger.has_begun_tls():
            return
        try:
            done = side.wire.handshake(SCRATCH, first=first)
        except ssl.SSLError as error:
            if side.leg is Leg.ACCEPTOR:
                self._upstream.failed(f"TLS handshake: {error.reason or error}", ReasonCode.UPSTREAM_NOT_TRUSTED)
                return
            reason, detail = reason_of(error)
            self._stranger.drop(reason, detail, hold=True)
            return
        tls = side.wire.tls
        # A server ends a handshake of TLS 1.3 with a ticket, for which nobody waits: it goes with the first answer.
        is_ticket = done and side.leg is Leg.REQUESTOR and tls is not None and tls.version() == "TLSv1.3"
        side.wire.flush(more=is_ticket)
        if not done:
            return
        side.handshaking = False
        if tls is None:  # INVARIANT: there is no handshake without TLS
            return
        if side.leg is Leg.ACCEPTOR:
            try:
                self._upstream.judge(tls)
            except Refused as refused:
                self._upstream.failed(refused.detail, refused.reason)
                return
            self._upstream.opened()
        else:
            certificate = self._stranger.certificate(tls)
            if tls.selected_alpn_protocol() == REVERSE_ALPN:
                self._stranger.park(certificate)
                return
            self._identified(certificate)
        if side.leg in self._sides:
            end = side.wire.pending(SCRATCH)
            if end <= HEADROOM and side.leg is Leg.REQUESTOR:
                # It sends its request right behind the handshake, so that is most likely here by now.
                self._read(side)
            else:
                self._deliver(side, end)

    def _identified(self, certificate: PeerCertificate | None) -> None:
        """Make the relay: from here on it answers for the association."""
        if certificate is not None:
            self._stranger.key_proved(certificate)
        self.relay = Relay(
            self._gate,
            Caller(
                association=self.association,
                listener=self._listener.kind,
                listener_name=self._listener.name,
                address=self.address,
                certificate=certificate,
            ),
        )
        self.handle(Connected())

    def part_with_requestor(self) -> None:
        """See StrangerOwner."""
        self._timers.stop(Timer.REQUEST)
        side = self._sides.pop(Leg.REQUESTOR, None)
        if side is not None:
            self._engine.forget(side.descriptor)

    # -- the relay --------------------------------------------------------------------------------------------------

    def handle(self, happened: Input) -> None:
        """Give the relay an input, and do what it wants done; what that brings about comes after it, in order."""
        self._pending.append(happened)
        if self._is_handling:
            return
        if isinstance(happened, Ended):
            # What waits for its record has not been forwarded, and now never is.
            self._give_up_unforwarded()
        self._go_on()

    def _go_on(self) -> None:
        """Handle what has happened, until something has to be on record first."""
        self._is_handling = True
        try:
            while self._pending and self._unforwarded is None:
                self._ask_relay(self._pending.popleft())
        except BaseException:
            self._pending.clear()
            raise
        finally:
            self._is_handling = False

    def _ask_relay(self, happened: Input) -> None:
        relay = self.relay
        if relay is None:  # INVARIANT: nothing is handled before the requestor is identified
            return
        moment = _clock.now()
        try:
            effects = relay.handle(happened, moment)
        except Exception:  # noqa: BLE001  a defect ends this association, with everybody's data safe, no other
            _log.exception("ended by an internal error", extra={"association": self.association})
            self._gate.defect(self)
            effects = relay.fail(_clock.now())
        self._execute(effects, moment.monotonic)

    def _execute(self, effects: list[Effect], began: float) -> None:
        """Do what is wanted; an operation is written to the log before anything of it is forwarded."""
        if effects and isinstance(effects[0], KeepCharges):
            self._keep_charges(effects[1:])
            return
        allowed = [e for e in effects if isinstance(e, Record) and isinstance(e.event, OperationAllowed)]
        if not allowed:
            self._do_all(effects)
            return
        self._gate.note_decision(time.monotonic() - began)
        effects = [each for each in effects if each is not allowed[-1]]
        for effect in effects:
            if isinstance(effect, Record):
                self._gate.record(effect.event)
        effects = [each for each in effects if not isinstance(each, Record)]
        is_recorded = self._gate.record_now(allowed[-1].event)
        if is_recorded:
            self._do_all(effects)
            return
        self._unforwarded = waiting = [Send(e.leg, bytes(e.data)) if isinstance(e, Send) else e for e in effects]
        if is_recorded is None:
            self._gate.record_written(
                allowed[-1].event, lambda written: self._later(lambda: self._forward(waiting, is_recorded=written))
            )
        else:
            self._later(lambda: self._forward(waiting, is_recorded=False))

    def _keep_charges(self, effects: list[Effect]) -> None:
        """Let an input that has charged budgets wait until that is kept; what is on record already is recorded now."""
        waiting: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Record) and not isinstance(effect.event, OperationAllowed):
                self._gate.record(effect.event)
            else:
                waiting.append(Send(effect.leg, bytes(effect.data)) if isinstance(effect, Send) else effect)
        self._unforwarded = waiting
        self._gate.keep_charges(lambda: self._later(lambda: self._charges_kept(waiting)))

    def _charges_kept(self, effects: list[Effect]) -> None:
        if self._unforwarded is effects:
            self._unforwarded = None
            self._execute(effects, time.monotonic())
            self._go_on()

    def _forward(self, effects: list[Effect], *, is_recorded: bool) -> None:
        """Forward what has waited for its record; without one, the association ends."""
        if self._unforwarded is not effects:
            return
        if is_recorded:
            self._unforwarded = None
            self._do_all(effects)
        else:
            self._give_up_unforwarded()
            self._pending.appendleft(Ended(ReasonCode.AUDIT_UNAVAILABLE))
        self._go_on()

    def _give_up_unforwarded(self) -> None:
        """Forward nothing of what waits. A relay that is over by then ends as it wanted to, and won't say it again."""
        effects, self._unforwarded = self._unforwarded, None
        if effects is not None and self.relay is not None and self.relay.is_over:
            self._do_all([effect for effect in effects if _belongs_to_end(effect)])

    def _do_all(self, effects: list[Effect]) -> None:
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
            self.write(leg, buffers)
        for effect in later:
            self._do(effect)

    def write(self, leg: Leg, buffers: list[bytes | memoryview]) -> None:
        """Write to a leg, if it is there and not about to be closed."""
        side = self._sides.get(leg)
        if side is None or side.wire.closing:
            return
        if leg is Leg.ACCEPTOR and (reverse := self._upstream.reverse) is not None:
            reverse.wrote(buffers)
        try:
            side.wire.write(buffers)
        except WireClosed as error:
            # Other effects come first, and among them may be the end of this leg.
            detail = str(error)
            self._later(lambda: self._closed_later(side, detail))

    def _do(self, effect: Effect) -> None:
        match effect:
            case Pause(leg=leg) | Resume(leg=leg):
                if leg in self._sides:
                    self._sides[leg].paused = isinstance(effect, Pause)
            case Close(leg=leg, at_once=at_once):
                self._close(leg, at_once=at_once)
            case OpenUpstream(effect_id=effect_id, target=target):
                self._gate.associated(self)
                self._upstream.open(effect_id, target)
            case RecordDurably(effect_id=effect_id, event=event):
                self._gate.record_durably(
                    event, lambda written: self._later(lambda: self.handle(Recorded(effect_id, written)))
                )
            case VerifyPerson(effect_id=effect_id, claim=claim):
                self._gate.verify_person(
                    claim, lambda verdict: self._later(lambda: self.handle(PersonVerified(effect_id, verdict)))
                )
            case RegisterMove() | RegisterCommitment():
                self._register(effect)
            case StartTimer(timer=timer, seconds=seconds):
                self._timers.start(timer, seconds)
            case StopTimer(timer=timer):
                self._timers.stop(timer)
            case Finished():
                self._finished()
            case Send() | Record() | KeepCharges():
                pass
            case _:
                assert_never(effect)

    def _register(self, effect: RegisterMove | RegisterCommitment) -> None:
        def done(granted: bool) -> None:
            self._later(lambda: self.handle(Correlated(effect.effect_id, granted)))

        if isinstance(effect, RegisterMove):
            self._gate.register_move(effect.move, done)
        else:
            self._gate.register_commitment(effect.commitment, done)

    # -- upstream ---------------------------------------------------------------------------------------------------

    def _connected(self, side: Side) -> None:
        code = side.wire.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._upstream.not_connected(os.strerror(code))
            return
        if not side.wire.is_connected:
            # The event was one of a connection that had the same descriptor before.
            return
        side.opening = False
        if side.handshaking:
            self._handshake(side, first=True)
        else:
            self._upstream.opened()

    def add_acceptor(self, wire: Wire, *, opening: bool) -> None:
        """See UpstreamOwner."""
        side = Side(self, Leg.ACCEPTOR, wire)
        side.opening = opening
        side.handshaking = opening and side.handshaking
        self._sides[Leg.ACCEPTOR] = side

    def watch_acceptor(self) -> bool:
        """See UpstreamOwner."""
        side = self._sides[Leg.ACCEPTOR]
        if side.opening and not side.handshaking:
            # A connection to this machine is there at once.
            side.opening = not side.wire.is_connected
        side.armed = WRITE if side.opening else READ
        self._engine.watch(side.descriptor, side, side.armed)
        return not side.opening

    def acceptor_gone(self, detail: str) -> None:
        """See UpstreamOwner."""
        self.handle(PeerClosed(Leg.ACCEPTOR, detail))
        self._maybe_over()

    # -- ends -------------------------------------------------------------------------------------------------------

    def _closed(self, side: Side, detail: str) -> None:
        """Note that a connection is gone, and tell the relay if it did not expect it."""
        if side.opening:
            self._upstream.not_connected(detail)
        elif side.handshaking and side.leg is Leg.ACCEPTOR:
            self._upstream.failed(detail)
        elif side.handshaking:
            self._stranger.drop(ReasonCode.TLS_FAILED, f"handshake: {detail}", hold=False)
        else:
            self.forget(side.leg)
            if not side.wire.closing:
                if side.leg is Leg.ACCEPTOR and self._upstream.is_replaced(detail):
                    return
                self.handle(PeerClosed(side.leg, detail))
            self._maybe_over()

    def _closed_later(self, side: Side, detail: str) -> None:
        if self._sides.get(side.leg) is side:
            self._closed(side, detail)

    def _close(self, leg: Leg, *, at_once: bool = False) -> None:
        """Close a wire when what waits has been written; the peer gets a while to close first, or none."""
        if leg is Leg.ACCEPTOR:
            self._upstream.give_up()
        side = self._sides.get(leg)
        if side is None or side.wire.closing:
            return
        if side.opening or side.handshaking:
            self.forget(leg)
            return
        side.wire.closing = True
        if not side.wire.is_blocked:
            side.wire.end()
            if at_once:
                self.forget(leg)
                return
        side.linger = self._engine.timers.after(_LINGER_SECONDS, lambda: self.guarded(lambda: self._linger_over(side)))

    def _linger_over(self, side: Side) -> None:
        if self._sides.get(side.leg) is side:
            self.forget(side.leg)
            self._maybe_over()

    def _stop_linger(self, side: Side) -> None:
        if side.linger is not None:
            self._engine.timers.cancel(side.linger)
            side.linger = None

    def forget(self, leg: Leg) -> None:
        """Close a wire at once, if there is one."""
        side = self._sides.pop(leg, None)
        if side is not None:
            self._stop_linger(side)
            self._engine.forget(side.descriptor)
            side.wire.socket.close()

    def _finished(self) -> None:
        self._timers.stop_all()
        self._gate.relay_finished(self)
        self._maybe_over()

    def _maybe_over(self) -> None:
        if not self._sides:
            self.over()

    def over(self) -> None:
        """See StrangerOwner."""
        if not self.is_over:
            self.is_over = True
            self._timers.stop_all()
            self._gate.session_over(self)

    # -- timers -----------------------------------------------------------------------------------------------------

    def _timers_fired(self) -> None:
        while (timer := self._timers.take_due()) is not None:
            if self.relay is None:
                self._stranger.drop(ReasonCode.DEADLINE, "no TLS handshake before the deadline", hold=False)
            else:
                self.handle(TimerFired(timer))

    # -- the registry has changed -----------------------------------------------------------------------------------

    def reads_at(self, covers: Callable[[str], bool]) -> bool:
        """Say if a device of a site that is covered, or somebody who sends to one, is reading just now."""
        with self.lock:
            return self.relay is not None and self.relay.reads_at(covers)

    def no_longer_allowed(self) -> ReasonCode | None:
        """Return why the registry, as it is now, doesn't allow this association any more; None if it does."""
        with self.lock:
            if self.relay is None or self.is_over:
                return None
            return self.relay.no_longer_allowed() or self._upstream.no_longer_allowed()


def _belongs_to_end(effect: Effect) -> bool:
    """Say if an effect ends an association, and forwards nothing."""
    match effect:
        case Send(data=data):
            return data[0] == _A_ABORT
        case Close() | Finished() | StopTimer():
            return True
    return False
