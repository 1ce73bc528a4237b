"""How much of the line the agent may use at a time of the day."""

from collections.abc import Iterable

Window = tuple[int, int, int]
"""First minute of the day, the minute after the last one, bytes a second. Over midnight if it isn't greater."""


def rate_at(windows: Iterable[Window], minute: int) -> int | None:
    """Return the bytes a second that are allowed in a minute of the day: the least that applies; None for no bound."""
    return min((rate for begin, end, rate in windows if _holds(begin, end, minute)), default=None)


def _holds(begin: int, end: int, minute: int) -> bool:
    return begin <= minute < end if begin < end else minute >= begin or minute < end


class Pace:
    """Bytes over time, for all who send: whoever is ahead waits. Not thread-safe."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait_seconds(self, count: int, rate: int | None, now: float) -> float:
        """Count bytes that are about to be sent; return for how long to wait before."""
        if rate is None:
            self._free_at = now
            return 0.0
        begin = max(self._free_at, now)
        self._free_at = begin + count / rate
        return begin - now
