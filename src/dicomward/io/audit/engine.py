"""What the audit log does with records, step by step: write, sync, sign, divert, recover. No thread of its own.

Rules of this room: one caller at a time for each method; `run` is the only one that may block on the log's disk. Time
is read from the clock that the caller gives.
"""

import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from threading import Lock
from typing import Final, NamedTuple, Protocol, TypeVar

from dicomward.audit.chain import Checkpoint, seal
from dicomward.audit.encode_json import MemberValue, RecordError, event_members, format_time
from dicomward.audit.event import AuditEvent, AuditRecordsLost, DegradedEntered, DegradedLeft
from dicomward.audit.opening import opening_events
from dicomward.io.audit.files import AuditLogBusyError
from dicomward.io.audit.key import AuditKeyError
from dicomward.io.audit.second import Diversion, Diverted
from dicomward.io.audit.store import AuditStore
from dicomward.vocab.reason import ReasonCode

COMPONENT: Final = "audit log"
SECOND_SINK: Final = "second sink of the audit log"
# What can fail while the log goes on.
IMPAIRED: Final = {
    ReasonCode.AUDIT_DISK_FULL: "reserve of the audit log",
    ReasonCode.AUDIT_KEY_UNUSABLE: "key of the audit log",
}
_MAX_NOTES: Final = 256  # of the log's own that wait for a place; those above are counted
_QUICK_BYTES: Final = 512 * 1024  # more than a batch has, so that `write` never begins a new segment
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_Result = TypeVar("_Result")
_Line = tuple[str, dict[str, MemberValue]]  # time and members of a record that isn't sealed yet


class Clock(Protocol):
    """Where time comes from."""

    def time_ns(self) -> int:
        """Return the time of day: nanoseconds since 1970, UTC."""

    def monotonic(self) -> float:
        """Return seconds that only grow."""


class SystemClock:
    """The machine's clocks."""

    def time_ns(self) -> int:
        """Return the time of day: nanoseconds since 1970, UTC."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()


class Level(IntEnum):
    """When a record counts as done."""

    QUEUED = 0
    WRITTEN = 1
    DURABLE = 2


class Entry(NamedTuple):
    """One event as it was appended: when, what, how sure it must be, whom to tell."""

    time_ns: int
    event: AuditEvent
    level: Level
    done: Callable[[bool], None] | None


class Prepared(NamedTuple):
    """One record ready to be sealed. `is_whole` is False for what stands in for an event that can't be encoded."""

    line: _Line
    level: Level
    done: Callable[[bool], None] | None
    is_whole: bool


class AuditState(StrEnum):
    """How well records can be kept."""

    OK = "ok"
    DEGRADED = "degraded"
    NO_SINK = "no-sink"


@dataclass(frozen=True, slots=True)
class AuditHealth:
    """The state and, where it isn't ok, why."""

    state: AuditState
    reason: ReasonCode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """When the log writes, syncs, signs and tries again."""

    sync_seconds: float = 0.04  # with the 30 ms before it is written, this leaves 30 of the promised 100 ms to the disk
    sync_records: int = 4096  # the most that one failed sync hands to the second sink
    checkpoint_seconds: float = 1.0
    checkpoint_records: int = 10_000
    retry_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above zero: the promises of the audit log can't be switched off")


class AuditEngine:
    """Keeps records in the store, or in the second sink while the store fails."""

    def __init__(
        self,
        store: AuditStore,
        diversion: Diversion | None,
        *,
        clock: Clock,
        limits: EngineLimits,
        on_checkpoint: Callable[[Checkpoint], None] | None = None,
    ) -> None:
        self._store = store
        self._diversion = diversion
        self._clock = clock
        self._limits = limits
        self._on_checkpoint = on_checkpoint
        self._needs_genesis = False
        # Records of our own that must reach the log itself; kept until they are durable there.
        self._notes: list[_Line] = []
        self._lost = 0
        self._lost_lock = Lock()
        # Written to the store since the last sync; and what a failure left over for the second sink.
        self._unsynced: list[_Line] = []
        self._leftover: list[_Line] = []
        # Why the store is given up (None: it works) and since when; what works only with alarms.
        self._failure: ReasonCode | None = None
        self._failed_at = ""
        self._entered: list[_Line] = []
        self._impairments: dict[ReasonCode, str] = {}
        self._sync_at = self._checkpoint_at = self._reopen_at = self._reserve_at = 0.0
        self.last_error: Exception | None = None

    # --- what the shell asks ---

    @property
    def health(self) -> AuditHealth:
        """How well records can be kept now."""
        if self._failure is not None:
            works = self._diversion is not None and self._diversion.works
            return AuditHealth(AuditState.DEGRADED if works else AuditState.NO_SINK, self._failure)
        for reason in self._impairments:
            return AuditHealth(AuditState.DEGRADED, reason)
        return AuditHealth(AuditState.OK)

    @property
    def durable_seq(self) -> int:
        """The number of the newest record that is on the disk."""
        return self._store.durable_head.seq

    @property
    def signed_seq(self) -> int:
        """The number of the newest record that is signed; -1 before the first checkpoint."""
        return self._store.signed_seq

    @property
    def due(self) -> float | None:
        """The monotonic time when `run` has something to do without new records, or None."""
        if self._failure is not None:
            return self._reopen_at
        moments: list[float] = []
        if self._notes or self._lost or self._needs_genesis:
            moments.append(0.0)
        if self._unsynced:
            moments.append(self._sync_at)
        if self._store.durable_head.seq != self._store.signed_seq:
            moments.append(self._checkpoint_at)
        if ReasonCode.AUDIT_DISK_FULL in self._impairments:
            moments.append(self._reserve_at)
        return min(moments, default=None)

    @property
    def unsettled(self) -> list[_Line]:
        """What was written but isn't known to be durable: what the second sink should get in a stall."""
        return list(self._unsynced)

    @property
    def is_ready(self) -> bool:
        """Say if a batch can be written by `write`: nothing of the log's own has to come before it."""
        if not self._store.is_open or self._notes or self._lost or self._leftover or self._needs_genesis:
            return False
        return not self._store.needs_rotation(_QUICK_BYTES)

    def count_lost(self, count: int) -> None:
        """Remember records that found no place: their number is written as soon as the log can be."""
        with self._lost_lock:
            self._lost += count

    def note(self, event: AuditEvent) -> None:
        """Write an event of the log's own with the next records; one that already waits isn't doubled."""
        members = event_members(event)
        if any(members == waiting for _, waiting in self._notes):
            return
        if len(self._notes) >= _MAX_NOTES:
            self.count_lost(1)
            return
        self._notes.append((self._now(), members))

    def prepare(self, entries: Sequence[Entry]) -> list[Prepared]:
        """Encode events. One that can't be encoded is a fault of ours: a record says so, and its caller gets False."""
        prepared: list[Prepared] = []
        for entry in entries:
            try:
                line, is_whole = (format_time(entry.time_ns), event_members(entry.event)), True
            except RecordError as error:
                lost = AuditRecordsLost(count=1, reason=ReasonCode.INTERNAL_ERROR, detail=str(error))
                line, is_whole = (format_time(entry.time_ns), event_members(lost)), False
            prepared.append(Prepared(line, entry.level, entry.done, is_whole))
        return prepared

    # --- the store ---

    def open(self) -> None:
        """Open the store for the first time. Raises AuditLogBusyError; every other failure is a state."""
        try:
            opened = self._with_reserve(self._store.open)
        except AuditLogBusyError:
            raise
        except OSError as error:
            self._give_up(error)
            return
        self._needs_genesis = opened.is_new
        self._checkpoint_at = self._clock.monotonic() + self._limits.checkpoint_seconds
        for event in opening_events(opened, is_reopened=False):
            self.note(event)
        self._renew_reserve()

    def run(self, batch: Sequence[Prepared], *, closing: bool = False) -> bool:
        """Write the batch and do what is due. Return False if the store can't be written: then `settle` diverts."""
        now = self._clock.monotonic()
        try:
            if not self._store.is_open:
                if now < self._reopen_at and not closing:
                    return False
                self._reopen()
            self._write(batch, now, closing)
        except OSError as error:
            self._give_up(error)
            return False
        if ReasonCode.AUDIT_DISK_FULL in self._impairments and now >= self._reserve_at:
            self._renew_reserve()
        try:
            self._checkpoint_if_due(now, closing)
        except OSError as error:
            # The batch is kept all the same: it is durable, or among what `divert` and the next `run` take up.
            self._give_up(error)
        return True

    def write(self, batch: Sequence[Prepared]) -> bool:
        """Write the batch and nothing else, as `run` does; it is synced when that is due. For a log that `is_ready`."""
        now = self._clock.monotonic()
        lines = [each.line for each in batch]
        try:
            self._append(lines, now)
        except OSError as error:
            self._give_up(error)
            return False
        self._note_unsynced(lines, now)
        return True

    def settle(self, batch: Sequence[Prepared], *, is_written: bool) -> bool:
        """After `run`: hand to the second sink what the store didn't take. Say if the batch is kept somewhere."""
        return True if is_written else self.divert([each.line for each in batch])

    def divert(self, lines: Sequence[_Line]) -> bool:
        """Write records to the second sink, after what an earlier failure left over; say if it took them."""
        leftover, entered = len(self._leftover), len(self._entered)
        diversion = self._diversion
        worked = diversion is not None and diversion.works
        if diversion is not None and diversion.write([*self._entered, *self._leftover, *lines]):
            del self._entered[:entered], self._leftover[:leftover]
            if not worked:
                self.note(DegradedLeft(component=SECOND_SINK, state=AuditState.DEGRADED))
            return True
        self.count_lost(len(lines))
        if worked:
            self.note(DegradedEntered(component=SECOND_SINK, state=AuditState.NO_SINK))
        if not self._entered:
            # Something must be tried again even when nothing else comes, or nobody would see that the sink works again.
            self._entered.append(self._line(DegradedEntered(component=COMPONENT, state=AuditState.NO_SINK)))
        return False

    def note_stall(self, since_ns: int) -> None:
        """After a stall in which records were diverted: tell in the log when it was and how many they were."""
        if self._diversion is None:
            return
        diverted = self._diversion.diverted
        since = format_time(since_ns)
        reason = ReasonCode.AUDIT_STALLED
        self.note(DegradedEntered(component=COMPONENT, state=AuditState.DEGRADED, reason=reason, first=since))
        self.note(self._left(reason, since, diverted))
        self._diversion.forget(diverted)

    def close(self) -> None:
        """Close the store and the second sink."""
        self._store.close()
        if self._diversion is not None:
            self._diversion.close()

    # --- writing ---

    def _write(self, batch: Sequence[Prepared], now: float, closing: bool) -> None:
        """Write notes and batch, sync and sign as far as it is due. Raises OSError."""
        if self._needs_genesis:
            # The first checkpoint stands before the first record: a log without any was tampered with.
            self._checkpoint(now)
            self._needs_genesis = False
        notes, lost, leftover = len(self._notes), self._lost, len(self._leftover)
        diverted = self._diversion.diverted if self._diversion else Diverted(0, "")
        own = [*self._own_lines(lost, diverted), *self._leftover]
        lines = [each.line for each in batch]
        self._append([*own, *lines], now)
        if not (own or closing or self._must_sync(batch, now)):
            self._note_unsynced(lines, now)
            return
        self._sync(now)
        # What a failure adds from here on is newer than what was just made durable.
        del self._notes[:notes], self._leftover[:leftover]
        self.count_lost(-lost)
        if self._failure is not None:
            self._failure = None
            self._entered.clear()
            if self._diversion is not None:
                self._diversion.forget(diverted)
            self._renew_reserve()

    def _note_unsynced(self, lines: list[_Line], now: float) -> None:
        if lines and not self._unsynced:
            self._sync_at = now + self._limits.sync_seconds
        self._unsynced += lines

    def _own_lines(self, lost: int, diverted: Diverted) -> list[_Line]:
        """Return the records of the log's own that are written before the batch."""
        own = list(self._notes)
        if lost:
            reason = self._failure or ReasonCode.AUDIT_QUEUE_FULL
            own.insert(0, self._line(AuditRecordsLost(count=lost, reason=reason)))
        if self._failure is not None:
            own.append(self._line(self._left(self._failure, self._failed_at, diverted)))
        return own

    def _left(self, reason: ReasonCode, since: str, diverted: Diverted) -> DegradedLeft:
        """Return the record of the log's recovery."""
        return DegradedLeft(
            component=COMPONENT,
            state=AuditState.DEGRADED if self._impairments else AuditState.OK,
            reason=reason,
            first=since,
            count=diverted.count,
            sink_sha256=diverted.sha256 if diverted.count else None,
        )

    def _append(self, records: Sequence[_Line], now: float) -> None:
        """Seal the records and append them to the store. Raises OSError."""
        if not records:
            return
        head = self._store.head
        sealed: list[bytes] = []
        for moment, members in records:
            head, line = seal(head, moment, members)
            sealed.append(line)
        data, last = b"".join(sealed), head
        if self._store.needs_rotation(len(data)):
            # A checkpoint at each border lets older segments be moved away without the rest becoming unprovable.
            self._sync(now)
            self._checkpoint(now)
            self._with_reserve(self._store.rotate)
        self._with_reserve(lambda: self._store.write(data, last))

    def _must_sync(self, batch: Sequence[Prepared], now: float) -> bool:
        """Say if what was written must be made durable now."""
        if any(each.level is Level.DURABLE for each in batch):
            return True
        if len(self._unsynced) + len(batch) >= self._limits.sync_records:
            return True
        return bool(self._unsynced) and now >= self._sync_at

    def _sync(self, now: float) -> None:
        """Make durable what was written. Raises OSError."""
        was_signed = self._store.durable_head.seq == self._store.signed_seq
        self._store.sync()
        self._unsynced.clear()
        if was_signed:
            self._checkpoint_at = now + self._limits.checkpoint_seconds

    def _checkpoint_if_due(self, now: float, closing: bool) -> None:
        """Sign the head, if something changed and it is time. Raises OSError."""
        unsigned = self._store.durable_head.seq - self._store.signed_seq
        if unsigned and (closing or now >= self._checkpoint_at or unsigned >= self._limits.checkpoint_records):
            self._checkpoint(now)

    def _checkpoint(self, now: float) -> None:
        """Sign the head now; a key that can't be used is an alarm, not an end. Raises OSError."""
        try:
            checkpoint = self._with_reserve(lambda: self._store.checkpoint(self._now()))
        except AuditKeyError as error:
            self._checkpoint_at = now + self._limits.retry_seconds
            self._impair(ReasonCode.AUDIT_KEY_UNUSABLE, error)
            return
        self._repaired(ReasonCode.AUDIT_KEY_UNUSABLE)
        if self._on_checkpoint is not None:
            self._on_checkpoint(checkpoint)

    # --- failing and recovering ---

    def _with_reserve(self, action: Callable[[], _Result]) -> _Result:
        """Do it; on a full disk free the reserve and do it once more. Raises OSError."""
        try:
            return action()
        except OSError as error:
            if error.errno not in _NO_SPACE or not self._store.release_reserve():
                raise
            self._impair(ReasonCode.AUDIT_DISK_FULL, error)
            return action()

    def _renew_reserve(self) -> None:
        """Take the reserve's space, if the disk has it."""
        self._reserve_at = self._clock.monotonic() + self._limits.retry_seconds
        if self._store.renew_reserve():
            self._repaired(ReasonCode.AUDIT_DISK_FULL)
        else:
            self._impair(ReasonCode.AUDIT_DISK_FULL, OSError(errno.ENOSPC, "no space for the reserve file"))

    def _impair(self, reason: ReasonCode, error: Exception) -> None:
        """Go on, but with an alarm."""
        if reason not in self._impairments:
            self.last_error = error
            self._impairments[reason] = self._now()
            component, state = IMPAIRED[reason], AuditState.DEGRADED
            self.note(DegradedEntered(component=component, state=state, reason=reason, detail=str(error)))

    def _repaired(self, reason: ReasonCode) -> None:
        """End the alarm, if there is one."""
        since = self._impairments.pop(reason, None)
        if since is not None:
            self.note(DegradedLeft(component=IMPAIRED[reason], state=AuditState.OK, reason=reason, first=since))

    def _give_up(self, error: OSError) -> None:
        """Give the store up after a failure; it is tried again after a while."""
        self.last_error = error
        self._store.abandon()
        self._leftover += self._unsynced
        self._unsynced.clear()
        self._reopen_at = self._clock.monotonic() + self._limits.retry_seconds
        is_new = self._failure is None
        self._failure = ReasonCode.AUDIT_DISK_FULL if error.errno in _NO_SPACE else ReasonCode.AUDIT_WRITE_FAILED
        if is_new:
            self._failed_at = self._now()
            entered = DegradedEntered(
                component=COMPONENT, state=AuditState.DEGRADED, reason=self._failure, detail=str(error)
            )
            self.note(entered)
            self._entered.append(self._line(entered))

    def _reopen(self) -> None:
        """Open the store again after a failure. Raises OSError."""
        opened = self._with_reserve(self._store.open)
        self._needs_genesis = opened.is_new
        for event in opening_events(opened, is_reopened=True):
            self.note(event)

    def _line(self, event: AuditEvent) -> _Line:
        return self._now(), event_members(event)

    def _now(self) -> str:
        return format_time(self._clock.time_ns())
