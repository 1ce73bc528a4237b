"""A token bucket as arithmetic: `rate` tokens a second flow in, at most `burst` are kept; it starts full.

In any span of t seconds at most rate × t + burst tokens are taken. `now` is monotonic seconds; a time before the last
one seen (threads that read the clock before they got the lock) counts as the last one, and refills nothing.
"""


class TokenBucket:
    """One bucket. Not thread-safe: its owner holds the lock."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        """Make a full bucket. Raises ValueError for a rate or burst that would never or always let pass."""
        _check(rate, burst)
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._at = now

    def change(self, *, rate: float, burst: float, now: float) -> None:
        """Go on with another rate and burst from `now` on: what was taken stays taken. Raises ValueError."""
        _check(rate, burst)
        self._refill(now)
        self.rate = rate
        self.burst = burst
        self._tokens = min(self._tokens, float(burst))

    def has(self, count: float, now: float) -> bool:
        """Say if `count` tokens are there at `now`; takes none."""
        self._refill(now)
        return self._tokens >= count

    def try_take(self, count: float, now: float) -> bool:
        """Take `count` tokens if they are there."""
        self._refill(now)
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def spend(self, count: float, now: float) -> float:
        """Take `count` tokens, into debt if need be; return the seconds until the debt is paid, 0.0 if there is none.

        Whoever waits that long before the next `spend` keeps to rate × t + burst + count.
        """
        # Written out, without _refill and min: this runs for every read.
        tokens = self._tokens
        elapsed = now - self._at
        if elapsed > 0.0:
            self._at = now
            tokens += elapsed * self.rate
            if tokens > self.burst:  # noqa: PLR1730
                tokens = self.burst
        self._tokens = tokens = tokens - count
        return 0.0 if tokens >= 0.0 else -tokens / self.rate

    def _refill(self, now: float) -> None:
        elapsed = now - self._at
        if elapsed > 0.0:
            self._at = now
            self._tokens = min(self.burst, self._tokens + elapsed * self.rate)


def _check(rate: float, burst: float) -> None:
    if not 0 < rate < float("inf") or not 0 < burst < float("inf"):
        raise ValueError(f"a bucket needs a rate and a burst above 0, not {rate} and {burst}")
