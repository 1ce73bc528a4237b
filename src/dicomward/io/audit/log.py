"""The audit log of a running gateway: events go in from any thread, one thread of its own writes them.

`append` and `append_durable` only put the event into a bounded queue; encoding, hashing, writing and syncing happen in
the writer's thread, for all that wait at once (group commit). `write_now` writes in the caller's thread, with what
waits before it, where nobody else is writing: a change of threads for each operation costs more than the write. A
watcher takes over for the second sink when the log's disk doesn't answer. docs/audit.md states what is promised.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from dicomward.audit.chain import Checkpoint
from dicomward.audit.event import AuditEvent, ConnectionFailed
from dicomward.audit.strangers import Coalescer, CoalescingLimits
from dicomward.io.audit.engine import (
    AuditEngine,
    AuditHealth,
    AuditState,
    Clock,
    EngineLimits,
    Entry,
    Level,
    Prepared,
    SystemClock,
)
from dicomward.io.audit.files import AuditFiles, AuditLogBusyError
from dicomward.io.audit.second import Diversion, Diverts, SecondSink, StderrSink
from dicomward.io.audit.store import RESERVE_BYTES, SEGMENT_BYTES, AuditStore
from dicomward.vocab.reason import ReasonCode

__all__ = [
    "AuditHealth",
    "AuditLog",
    "AuditLogBusyError",
    "AuditLogError",
    "AuditLogLimits",
    "AuditState",
    "append_offline",
]

_Value = TypeVar("_Value")
_logger: Final = logging.getLogger(__name__)


class AuditLogError(Exception):
    """The audit log can't be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLogLimits:
    """The numbers of the audit log; docs/audit.md lists them. None can be switched off."""

    queue_records: int = 65_536  # about 60 MB of events, and 3 s of the most that one machine writes
    batch_records: int = 512  # bounds how long a durable record waits for the encoding of others: about 10 ms
    write_delay_seconds: float = 0.03  # ordinary records wait for company: each wake-up costs the byte path time
    stall_seconds: float = 2.0  # a disk that hasn't answered by then is treated as failed
    segment_bytes: int = SEGMENT_BYTES
    reserve_bytes: int = RESERVE_BYTES
    engine: EngineLimits = field(default_factory=EngineLimits)
    strangers: CoalescingLimits = field(default_factory=CoalescingLimits)

    def __post_init__(self) -> None:
        for name in ("queue_records", "batch_records", "stall_seconds", "segment_bytes", "reserve_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above zero: the limits of the audit log can't be switched off")


@dataclass(slots=True)
class _Flight:
    """One call to the disk that may hang: what it carries, since when, and who answers for it."""

    batch: Sequence[Prepared]
    started: float
    started_ns: int
    is_taken: bool = False  # by the watcher
    is_kept: bool = False  # in the second sink, where the watcher took over
    is_over: bool = False  # the disk has answered
    is_released: bool = False  # the watcher is through


class AuditLog:
    """The only writer of one audit directory.

    `listener` hears each change of health, `on_checkpoint` each signed checkpoint, `on_diverted` what goes to the
    second sink. They are called in a thread of the log, as is `done` of a record: they must be quick and must not call
    back into the log.
    """

    def __init__(
        self,
        directory: Path,
        *,
        key_path: Path | None = None,
        second_sink: SecondSink | None = None,
        listener: Callable[[AuditHealth], None] | None = None,
        on_checkpoint: Callable[[Checkpoint], None] | None = None,
        on_diverted: Callable[[Diverts], None] | None = None,
        limits: AuditLogLimits | None = None,
        clock: Clock | None = None,
        files: AuditFiles | None = None,
    ) -> None:
        self._limits = limits or AuditLogLimits()
        self._clock = clock or SystemClock()
        self._listener = listener
        self._on_checkpoint = on_checkpoint
        store = AuditStore(
            directory,
            files=files,
            key_path=key_path,
            segment_bytes=self._limits.segment_bytes,
            reserve_bytes=self._limits.reserve_bytes,
        )
        self._engine = AuditEngine(
            store,
            Diversion(second_sink or StderrSink(), on_diverted),
            clock=self._clock,
            limits=self._limits.engine,
            on_checkpoint=self._signed,
        )
        # Guards everything below; the writer and the watcher wait on it.
        self._wake = threading.Condition()
        self._queue: deque[Entry] = deque()
        self._waiting_since = 0.0
        # Someone has taken records out of the queue and not written them yet: whoever writes next comes after.
        self._is_writing = False
        self._wakes_at = 0.0  # when the writer looks again by itself
        self._is_urgent = False
        self._is_closing = False
        self._is_over = False
        self._overflowed = 0
        self._flight: _Flight | None = None
        # Devices that name themselves have a quota apart, so that strangers can't hide their failures.
        self._strangers = Coalescer(self._limits.strangers)
        self._known = Coalescer(self._limits.strangers)
        self._health = AuditHealth(AuditState.OK)
        self._is_broken = False
        self._writer = threading.Thread(target=self._write_until_closed, name="audit-writer", daemon=True)
        self._watcher = threading.Thread(target=self._watch_until_closed, name="audit-watcher", daemon=True)
        self._stop_watching = threading.Event()

    # --- for the gateway ---

    def start(self) -> None:
        """Open the log, repair its end if a crash tore it, and start writing.

        Raises AuditLogBusyError if another process writes this log. A log that can't be written is no error: the state
        is degraded from the start, and `health` says why.
        """
        self._engine.open()
        self._publish()
        self._writer.start()
        self._watcher.start()

    @property
    def health(self) -> AuditHealth:
        """How well records can be kept now."""
        return self._health

    @property
    def waiting(self) -> int:
        """How many records wait to be written."""
        return len(self._queue)

    @property
    def capacity(self) -> int:
        """How many records may wait."""
        return self._limits.queue_records

    @property
    def durable_seq(self) -> int:
        """The number of the newest record that is on the disk."""
        return self._engine.durable_seq

    @property
    def signed_seq(self) -> int:
        """The number of the newest record that a checkpoint signs; -1 before the first."""
        return self._engine.signed_seq

    @property
    def degraded(self) -> ReasonCode | None:
        """Why the log is degraded or has no sink, or None if all is well."""
        return self._health.reason

    def append(self, event: AuditEvent) -> bool:
        """Take an event; it is durable within 100 ms. Return False if the queue is full: then it is counted as lost."""
        if isinstance(event, ConnectionFailed):
            return self._append_stranger(event)
        return self._put(Entry(self._clock.time_ns(), event, Level.QUEUED, None))

    def append_written(self, event: AuditEvent, done: Callable[[bool], None]) -> None:
        """Take an event and call `done(True)` when the operating system has it: it outlives a crash of this process.

        It is durable within 100 ms like any other. `done(False)`: it is kept nowhere.
        """
        if not self._put(Entry(self._clock.time_ns(), event, Level.WRITTEN, done)):
            done(False)

    def write_now(self, event: AuditEvent) -> bool | None:
        """Write an event, and what waits before it, in the caller's thread.

        Return True when the operating system has it, False when it is kept nowhere, and None, with nothing done, where
        it can't be written at once: then `append_written` is the way.
        """
        entry = Entry(self._clock.time_ns(), event, Level.WRITTEN, None)
        with self._wake:
            if self._is_writing or self._is_urgent or self._is_closing or self._is_broken:
                return None
            if len(self._queue) >= self._limits.batch_records or not self._engine.is_ready:
                return None
            entries = [*self._queue, entry]
            self._queue.clear()
            self._is_writing = True
        try:
            return self._write_in_caller(entries)
        except Exception:
            _logger.exception("the audit log stopped because of an error of its own")
            self._break()
            return False

    def _write_in_caller(self, entries: Sequence[Entry]) -> bool:
        """Write a batch outside the writer's thread; it is marked as being written."""
        batch = self._engine.prepare(entries)
        self._flight = flight = _Flight(batch, self._clock.monotonic(), self._clock.time_ns())
        is_kept = self._engine.write(batch)
        with self._wake:
            self._land(flight)
            if is_kept and not flight.is_taken:
                self._is_writing = False
                if self._wakes_at > flight.started + self._limits.engine.sync_seconds:
                    self._wake.notify_all()  # it doesn't know yet that there is something to sync
                return batch[-1].is_whole
        return self._finish(flight, is_written=is_kept) and batch[-1].is_whole

    def append_durable(self, event: AuditEvent, done: Callable[[bool], None]) -> None:
        """Take an event and call `done(True)` when it is on the disk, or in the second sink while the log is degraded.

        `done(False)`: it is kept nowhere, so what it records must not take effect. If the queue is full or the log is
        closed, `done(False)` is called before this returns.
        """
        if not self._put(Entry(self._clock.time_ns(), event, Level.DURABLE, done)):
            done(False)

    def close(self, timeout: float = 5.0) -> bool:
        """Write and sign everything and stop. Return False if the disk didn't answer within `timeout` seconds."""
        with self._wake:
            self._is_closing = True
            self._wake.notify_all()
        if self._writer.ident is not None:
            self._writer.join(timeout)
        self._stop_watching.set()
        if self._writer.is_alive():
            return False
        if self._watcher.ident is not None:
            self._watcher.join(timeout)
        self._engine.close()
        return True

    # --- the queue ---

    def _put(self, entry: Entry) -> bool:
        """Put an entry into the queue; return False if there is no room."""
        with self._wake:
            if self._is_closing or self._is_broken or len(self._queue) >= self._limits.queue_records:
                self._overflowed += 1
                return False
            is_first = not self._queue
            if is_first:
                self._waiting_since = self._clock.monotonic()
            self._queue.append(entry)
            if entry.level is not Level.QUEUED:
                self._is_urgent = True
                self._wake.notify_all()
            elif is_first:
                if self._wakes_at > self._waiting_since + self._limits.engine.sync_seconds:
                    self._wake.notify_all()  # else it comes soon by itself, and a wake-up costs the byte path time
            elif len(self._queue) == self._limits.batch_records:
                self._wake.notify_all()
            return True

    def _append_stranger(self, event: ConnectionFailed) -> bool:
        """Count a failed connection, and put it into the queue if it is to be written as it is."""
        coalescer = self._strangers if event.device is None else self._known
        time_ns = self._clock.time_ns()
        with self._wake:
            was_idle = coalescer.due is None
            is_new = coalescer.offer(event, now=self._clock.monotonic(), time_ns=time_ns)
            if was_idle:
                self._wake.notify_all()  # the writer must plan for the end of the window
        return self._put(Entry(time_ns, event, Level.QUEUED, None)) if is_new else True

    def _take(self) -> list[Entry]:
        """Wait until there is something to do, and take what is to be written next."""
        limits = self._limits
        with self._wake:
            while self._is_writing or not self._is_closing:
                if self._is_broken:
                    return []
                if self._is_urgent and self._queue and not self._is_writing:
                    break
                now = self._clock.monotonic()
                due = None if self._is_writing else self._due()
                wait = None if due is None else due - now
                if self._queue and not self._is_writing:
                    if len(self._queue) >= limits.batch_records:
                        break
                    linger = self._waiting_since + limits.write_delay_seconds - now
                    wait = linger if wait is None else min(wait, linger)
                if wait is not None and wait <= 0:
                    break
                self._wakes_at = math.inf if wait is None else now + wait
                self._wake.wait(wait)
            self._wakes_at = 0.0
            self._is_writing = True
            entries = self._drain()
            self._engine.count_lost(self._overflowed)
            self._overflowed = 0
            return entries

    def _due(self) -> float | None:
        """Return when there is something to do without new events."""
        moments = (self._engine.due, self._strangers.due, self._known.due, 0.0 if self._overflowed else None)
        return min((each for each in moments if each is not None), default=None)

    def _drain(self) -> list[Entry]:
        """Take the next batch from the queue, and the records of strangers whose window is over. Call it locked."""
        count = min(len(self._queue), self._limits.batch_records)
        entries = [self._queue.popleft() for _ in range(count)]
        self._is_urgent = self._is_urgent and bool(self._queue)
        is_last = self._is_closing and not self._queue
        for coalescer in (self._strangers, self._known):
            events = coalescer.drain() if is_last else coalescer.flush(self._clock.monotonic())
            entries += [Entry(self._clock.time_ns(), each, Level.QUEUED, None) for each in events]
        return entries

    # --- the writer's thread ---

    def _write_until_closed(self) -> None:
        """Write batch after batch."""
        try:
            while not (self._is_over or self._is_broken):
                self._step()
        except Exception:
            # A fault of ours must not look like a log that works: nothing is taken any more, and the gateway hears it.
            _logger.exception("the audit log stopped because of an error of its own")
            self._break()

    def _step(self) -> None:
        """Take a batch, write it, answer for it."""
        entries = self._take()
        batch = self._engine.prepare(entries)
        with self._wake:
            is_last = self._is_closing and not self._queue
            flight = _Flight(batch, self._clock.monotonic(), self._clock.time_ns())
            self._flight = flight
        is_written = self._engine.run(batch, closing=is_last)
        with self._wake:
            self._land(flight)
        self._finish(flight, is_written=is_written)
        with self._wake:
            self._is_over = is_last and not self._queue and not self._engine_has_notes(is_written)

    def _land(self, flight: _Flight) -> None:
        """Say that the disk has answered, and wait until the watcher, if it has taken over, is through. Call locked."""
        flight.is_over = True
        if flight.is_taken:
            self._wake.notify_all()
            self._wake.wait_for(lambda: flight.is_released)
        self._flight = None

    def _finish(self, flight: _Flight, *, is_written: bool) -> bool:
        """Let the next one write, and answer for a batch that has landed; say if it is kept somewhere."""
        if flight.is_taken:
            self._engine.note_stall(flight.started_ns)
            self._engine.settle((), is_written=is_written)
            is_kept = flight.is_kept
        else:
            is_kept = self._engine.settle(flight.batch, is_written=is_written)
        with self._wake:
            self._is_writing = False
            self._wake.notify_all()
        if not flight.is_taken:
            self._publish()
            self._answer(flight.batch, is_kept)
        self._publish()
        return is_kept

    def _engine_has_notes(self, is_written: bool) -> bool:
        """Say if the log has something of its own left to write, and can write it."""
        return is_written and self._engine.due == 0.0

    def _answer(self, batch: Sequence[Prepared], is_kept: bool) -> None:
        """Tell those who wait."""
        for each in batch:
            _tell(each.done, is_kept and each.is_whole)

    def _signed(self, checkpoint: Checkpoint) -> None:
        _tell(self._on_checkpoint, checkpoint)

    def _publish(self, health: AuditHealth | None = None) -> None:
        """Tell the listener, if the health has changed."""
        now = health or self._engine.health
        if now != self._health:
            self._health = now
            _tell(self._listener, now)

    def _break(self) -> None:
        """Stop for good: nobody who waits is left without an answer."""
        with self._wake:
            self._is_broken = True
            waiting = list(self._queue)
            self._queue.clear()
            flight, self._flight = self._flight, None
            if flight is not None:
                flight.is_over = True
            self._wake.notify_all()
        self._publish(AuditHealth(AuditState.NO_SINK, ReasonCode.INTERNAL_ERROR))
        if flight is not None and not flight.is_taken:
            self._answer(flight.batch, False)
        for each in waiting:
            _tell(each.done, False)

    # --- the watcher's thread ---

    def _watch_until_closed(self) -> None:
        """Look after the disk."""
        while not self._stop_watching.wait(self._limits.stall_seconds / 2):
            self.watch()

    def watch(self) -> None:
        """If the disk hasn't answered for too long, hand everything to the second sink until it does."""
        with self._wake:
            flight = self._flight
            if (
                flight is None
                or flight.is_over
                or self._clock.monotonic() - flight.started < self._limits.stall_seconds
            ):
                return
            flight.is_taken = True
        batch, lines = flight.batch, self._engine.unsettled
        while True:
            is_kept = self._engine.divert([*lines, *(each.line for each in batch)])
            if batch is flight.batch:
                flight.is_kept = is_kept
            state = AuditState.DEGRADED if is_kept else AuditState.NO_SINK
            self._publish(AuditHealth(state, ReasonCode.AUDIT_STALLED))
            self._answer(batch, is_kept)
            entries = self._take_over(flight)
            if entries is None:
                return
            batch, lines = self._engine.prepare(entries), []

    def _take_over(self, flight: _Flight) -> list[Entry] | None:
        """Wait for more events while the disk hangs. Return None, and let the writer go on, when it has answered."""
        with self._wake:
            self._wake.wait_for(lambda: flight.is_over or self._queue)
            if not flight.is_over:
                return self._drain()
            flight.is_released = True
            self._wake.notify_all()
            return None


def _tell(callback: Callable[[_Value], None] | None, value: _Value) -> None:
    """Call somebody else's function, if there is one: its fault must not stop the log."""
    if callback is None:
        return
    try:
        callback(value)
    except Exception:
        _logger.exception("a callback of the audit log failed")


def append_offline(
    directory: Path,
    *events: AuditEvent,
    key_path: Path | None = None,
    clock: Clock | None = None,
    files: AuditFiles | None = None,
) -> None:
    """Append events while no gateway runs: durable, and signed, when this returns.

    Raises AuditLogBusyError if a gateway (or another command) writes the log now, AuditLogError if it can't be written.
    """
    store = AuditStore(directory, files=files, key_path=key_path)
    time = clock or SystemClock()
    engine = AuditEngine(store, None, clock=time, limits=EngineLimits())
    try:
        engine.open()
        batch = engine.prepare([Entry(time.time_ns(), event, Level.DURABLE, None) for event in events])
        for each in batch:
            if not each.is_whole:
                raise AuditLogError(f"the audit record can't be written: {each.line[1]['detail']}")
        if not engine.run(batch, closing=True):
            raise AuditLogError(
                f"the audit record could not be written to {directory} ({engine.last_error}): "
                "make the directory writable, with free space, and try again"
            )
        engine.run((), closing=True)
    finally:
        engine.close()
