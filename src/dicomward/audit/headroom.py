"""How many hours the disk of the log still has: free bytes over the speed at which the log grows."""

from collections import deque
from dataclasses import dataclass
from typing import Final

THRESHOLD_HOURS: Final = (168, 72, 24, 4)
"""Alarms: a week is for ordering a disk, three days for a weekend, a day for a person, four hours for a night."""

_WINDOW_SECONDS: Final = 6 * 3600.0
_LEAST_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Headroom:
    """`hours` is None while nothing can be said: too early, or the log doesn't grow."""

    free_bytes: int
    bytes_per_hour: float
    hours: float | None

    @property
    def threshold(self) -> int | None:
        """The lowest alarm that is due, in hours; None for none."""
        if self.hours is None:
            return None
        return min((each for each in THRESHOLD_HOURS if self.hours < each), default=None)


class HeadroomMeter:
    """Keeps the size of the log over the last hours. What is pruned counts as written all the same."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()
        self._written = 0
        self._size: int | None = None

    def measure(self, *, now: float, log_bytes: int, free_bytes: int) -> Headroom:
        """Take a sample (`now` in monotonic seconds) and return how it stands."""
        if self._size is not None:
            self._written += max(0, log_bytes - self._size)
        self._size = log_bytes
        self._samples.append((now, self._written))
        while now - self._samples[0][0] > _WINDOW_SECONDS:
            self._samples.popleft()
        began, written_then = self._samples[0]
        seconds = now - began
        rate = 0.0 if seconds <= 0 else (self._written - written_then) / seconds * 3600
        hours = free_bytes / rate if seconds >= _LEAST_SECONDS and rate > 0 else None
        return Headroom(free_bytes=free_bytes, bytes_per_hour=rate, hours=hours)
