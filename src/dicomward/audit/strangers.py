"""Coalescing of failed connections, so that strangers can't fill the disk with records of their own failures.

Rules of this room: arithmetic on arguments. The first failure of an address for a reason and a detail is written at
once; those that follow within a window are counted and become one record at its end. Details above a number count as
one. A quota bounds the records a minute, a table the addresses; what is above either goes into one record of totals a
window. Nothing is lost uncounted.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass

from dicomward.audit.encode_json import format_time
from dicomward.audit.event import AuditEvent, ConnectionFailed, StrangersCoalesced
from dicomward.vocab.reason import ReasonCode

_Key = tuple[str | None, ReasonCode, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoalescingLimits:
    """How much strangers may write; with these numbers at most 66 records a minute, about 38 MB a day."""

    window_seconds: float = 10.0  # a person who watches sees what goes on within this time
    records_per_minute: int = 60  # one a second: more tells a reader nothing new
    max_keys: int = 1024  # addresses, reasons and details in the table: about 400 KB of memory
    details: int = 8  # of an address and a reason: TLS fails in a handful of ways, first bytes differ in 256

    def __post_init__(self) -> None:
        if self.window_seconds <= 0 or self.records_per_minute < 1 or self.max_keys < 1 or self.details < 1:
            raise ValueError("the limits of coalescing can't be switched off: each must be above zero")


@dataclass(slots=True)
class _Tally:
    """What was counted of one address, reason and detail since its last record; no detail: further ones, or none."""

    window_end: float
    address: str | None
    reason: ReasonCode
    detail: str | None = None
    count: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def add(self, count: int, first_ns: int, last_ns: int) -> None:
        self.first_ns = min(self.first_ns, first_ns) if self.count else first_ns
        self.last_ns = max(self.last_ns, last_ns)
        self.count += count


class Coalescer:
    """Decides which failures become records. `now` is monotonic seconds, `time_ns` the time of day; not thread-safe."""

    def __init__(self, limits: CoalescingLimits) -> None:
        self._limits = limits
        # Every window is equally long and a renewed one moves to the end, so the first entry is always the next due.
        self._tallies: OrderedDict[_Key, _Tally] = OrderedDict()
        self._details: Counter[tuple[str | None, ReasonCode]] = Counter()
        self._overflow: dict[ReasonCode, _Tally] = {}
        self._overflow_due: float | None = None
        self._tokens = float(limits.records_per_minute)
        self._refilled_at: float | None = None

    def offer(self, event: ConnectionFailed, *, now: float, time_ns: int) -> bool:
        """Take one failure. Return True if it is to be written as it is; otherwise it is counted."""
        pair = (event.address, event.reason)
        key: _Key = (*pair, event.detail)
        if key not in self._tallies and self._details[pair] >= self._limits.details:
            key = (*pair, None)
        tally = self._tallies.get(key)
        if tally is not None:
            tally.add(1, time_ns, time_ns)
            return False
        if len(self._tallies) >= self._limits.max_keys:
            self._overflow_tally(event.reason, now).add(1, time_ns, time_ns)
            return False
        tally = _Tally(now + self._limits.window_seconds, *key)
        self._tallies[key] = tally
        self._details[pair] += 1
        if self._take_token(now):
            return True
        tally.add(1, time_ns, time_ns)
        return False

    @property
    def due(self) -> float | None:
        """When `flush` has something to do next, or None."""
        first = next(iter(self._tallies.values()), None)
        moments = [each for each in (first.window_end if first else None, self._overflow_due) if each is not None]
        return min(moments, default=None)

    def flush(self, now: float) -> list[AuditEvent]:
        """Return the records of the windows that are over."""
        events: list[AuditEvent] = []
        while self._tallies:
            key, tally = next(iter(self._tallies.items()))
            if tally.window_end > now:
                break
            if tally.count == 0:
                self._forget(key)
                continue
            if self._take_token(now):
                events.append(_coalesced(tally))
            else:
                self._overflow_tally(tally.reason, now).add(tally.count, tally.first_ns, tally.last_ns)
            self._tallies[key] = _Tally(now + self._limits.window_seconds, *key)
            self._tallies.move_to_end(key)
        if self._overflow_due is not None and self._overflow_due <= now:
            events.append(self._totals())
        return events

    def drain(self) -> list[AuditEvent]:
        """Return the records of everything that was counted, whether its window is over or not; forget all."""
        events: list[AuditEvent] = [_coalesced(each) for each in self._tallies.values() if each.count]
        self._tallies.clear()
        self._details.clear()
        if self._overflow:
            events.append(self._totals())
        return events

    def _forget(self, key: _Key) -> None:
        del self._tallies[key]
        address, reason, _detail = key
        self._details[address, reason] -= 1
        if not self._details[address, reason]:
            del self._details[address, reason]

    def _overflow_tally(self, reason: ReasonCode, now: float) -> _Tally:
        """Return the total of a reason; the first one of a window sets when the totals are due."""
        if self._overflow_due is None:
            self._overflow_due = now + self._limits.window_seconds
        return self._overflow.setdefault(reason, _Tally(self._overflow_due, None, reason))

    def _totals(self) -> StrangersCoalesced:
        """Return one record for all that was above the quota or the table; it has a place of its own in the quota."""
        totals = sorted(self._overflow.values(), key=lambda each: (-each.count, each.reason))
        self._overflow = {}
        self._overflow_due = None
        return StrangersCoalesced(
            count=sum(each.count for each in totals),
            first=format_time(min(each.first_ns for each in totals)),
            last=format_time(max(each.last_ns for each in totals)),
            detail=", ".join(f"{each.reason}: {each.count}" for each in totals),
        )

    def _take_token(self, now: float) -> bool:
        """Take one place of the quota of records a minute, if there is one."""
        most = float(self._limits.records_per_minute)
        if self._refilled_at is not None:
            self._tokens = min(most, self._tokens + max(0.0, now - self._refilled_at) * most / 60.0)
        self._refilled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def _coalesced(tally: _Tally) -> StrangersCoalesced:
    """Return the record of one address, reason and detail."""
    return StrangersCoalesced(
        address=tally.address,
        reason=tally.reason,
        count=tally.count,
        first=format_time(tally.first_ns),
        last=format_time(tally.last_ns),
        detail=tally.detail,
    )
