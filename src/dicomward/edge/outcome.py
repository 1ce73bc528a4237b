"""What the archive's answer to a C-STORE means for the object that waits in the spool (PS3.4 §B.2.3, PS3.7 §C)."""

from enum import Enum
from typing import Final


class Outcome(Enum):
    """What becomes of the object."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REFUSED = "refused"


# PS3.7 §C.5.1: the archive has this instance already.
_DUPLICATE_INSTANCE: Final = 0x0111
# Processing failure, resource limitation: tomorrow it may go.
_PASSING: Final = (0x0110, 0x0213)


def judge_status(status: int) -> Outcome:
    """Say what a status means; what nobody knows is refused, so that a person looks at it. Nothing is ever dropped."""
    if status in (0x0000, _DUPLICATE_INSTANCE, 0x0001) or status >> 12 == 0xB or status in (0x0107, 0x0116):
        return Outcome.DELIVERED
    if status >> 8 == 0xA7 or status in _PASSING:
        return Outcome.RETRY
    return Outcome.REFUSED


def retry_seconds(attempts: int) -> float:
    """Return how long an object, or a line that is down, is left alone after so many failures in a row."""
    return float(min(0.5 * 2 ** min(attempts, 10), 30.0))
