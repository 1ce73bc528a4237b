"""How often an address may fail: strangers can neither guess at speed nor fill the audit log with their failures."""

from collections import OrderedDict
from typing import Final

from dicomward.limits.bucket import TokenBucket

FAILURES_A_MINUTE: Final = 20
MOST_ADDRESSES: Final = 4096


class FailureBook:
    """Failures by address. Not thread-safe: its owner holds the lock. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def is_blocked(self, address: str, now: float) -> bool:
        """Say if the address has failed too often to be heard."""
        bucket = self._buckets.get(address)
        return bucket is not None and not bucket.has(1, now)

    def note(self, address: str, now: float) -> bool:
        """Count a failure; say if it was the one that made the address be blocked."""
        bucket = self._buckets.get(address)
        if bucket is None:
            if len(self._buckets) >= MOST_ADDRESSES:
                self._buckets.popitem(last=False)
            bucket = TokenBucket(rate=FAILURES_A_MINUTE / 60, burst=FAILURES_A_MINUTE, now=now)
        self._buckets[address] = bucket
        self._buckets.move_to_end(address)
        bucket.try_take(1, now)
        return not bucket.has(1, now)
