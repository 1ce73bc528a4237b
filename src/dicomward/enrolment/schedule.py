"""When a certificate is renewed: at two thirds of its life, each device a little earlier or later than the others."""

from datetime import datetime, timedelta
from typing import Final

# Of the whole life, around two thirds: a fleet that was enrolled in one afternoon isn't renewed in one minute.
JITTER: Final = 0.05


def renewal_time(not_before: datetime, not_after: datetime, draw: float) -> datetime:
    """Return when to renew; `draw` is a number from 0 to 1 that stays the same for one certificate."""
    life = not_after - not_before
    return not_before + life * (2 / 3) + life * (JITTER * (2 * draw - 1))


def is_due(not_before: datetime, not_after: datetime, draw: float, now: datetime) -> bool:
    """Say if it is time."""
    return now >= renewal_time(not_before, not_after, draw)


def draw_of(fingerprint: bytes) -> float:
    """Return the number of a certificate, from its fingerprint: the same at every look, another for each."""
    return int.from_bytes(fingerprint[:4], "big") / 0xFFFF_FFFF


def describe_left(not_after: datetime, now: datetime) -> str:
    """Say how long a certificate is still good."""
    left = not_after - now
    if left < timedelta(0):
        return f"ended {-left.days} days ago"
    return f"good for {left.days} days" if left.days else f"good for {left.seconds // 3600} hours"
