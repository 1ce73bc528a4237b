"""What a device that looks after its own certificate does next: how it stands, and when it asks again."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from dicomward.enrolment.answers import answer_for
from dicomward.enrolment.schedule import renewal_time
from dicomward.vocab.reason import ReasonCode

# How often it looks if it is still welcome, and if the CAs are still the same.
LOOK_SECONDS: Final = 3600.0
# A new code that can't be used now, while the old certificate is good.
REPLACE_SECONDS: Final = 60.0
_FIRST_SECONDS: Final = 2.0
_MOST_SECONDS: Final = 300.0
# Who was refused waits for a person; asking often would only fill that person's log.
_REFUSED_SECONDS: Final = 600.0

_WAITS: Final = 202
_NO: Final = (400, 401, 403)
_HELD: Final = tuple(
    answer_for(reason)[1]
    for reason in (ReasonCode.RENEWAL_OF_SPENT_GENERATION, ReasonCode.RENEWAL_HELD, ReasonCode.RENEWAL_REJECTED)
)


class Standing(StrEnum):
    """How a device stands with its certificate; the values are what `dicomward edge status` shows."""

    NO_CODE = "no-code"
    ENROLLING = "enrolling"
    WAITS_FOR_APPROVAL = "waits-for-approval"
    CODE_REFUSED = "code-refused"
    REJECTED = "rejected"
    STARTING = "starting"
    WAITS_FOR_CONFIRMATION = "waits-for-confirmation"
    VALID = "valid"
    RENEWAL_FAILS = "renewal-fails"
    RENEWAL_HELD = "renewal-held"
    REFUSED = "refused"
    ENDED = "ended"

    @property
    def needs_attention(self) -> bool:
        """Say if a person has to do something, or soon will."""
        return self not in _FINE


_FINE: Final = (Standing.ENROLLING, Standing.WAITS_FOR_APPROVAL, Standing.WAITS_FOR_CONFIRMATION, Standing.VALID)


def is_no(status: int | None) -> bool:
    """Say if the same request would be refused again."""
    return status in _NO


def judge_first(status: int | None, *, with_code: bool) -> Standing:
    """Say what an answer to the first request means; `status` is HTTP's, None if there was no answer."""
    if status == _WAITS:
        return Standing.WAITS_FOR_APPROVAL
    if is_no(status):
        return Standing.CODE_REFUSED if with_code else Standing.REJECTED
    return Standing.ENROLLING


def judge_upkeep(status: int | None, text: str, not_after: datetime, now: datetime) -> Standing:
    """Say what a refusal, or none (`status` is None: no answer), means for a certificate that ends then."""
    if is_no(status) and text in _HELD:
        return Standing.RENEWAL_HELD
    if is_no(status):
        return Standing.REFUSED
    return Standing.ENDED if now >= not_after else Standing.RENEWAL_FAILS


def retry_seconds(standing: Standing, failures: int, draw: float) -> float:
    """Return in how many seconds to ask again after so many failures in a row; `draw` is from 0 to 1."""
    if standing in (Standing.REFUSED, Standing.RENEWAL_HELD, Standing.CODE_REFUSED):
        return _REFUSED_SECONDS * (0.75 + draw / 2)
    return min(_FIRST_SECONDS * 2.0 ** min(failures, 10), _MOST_SECONDS) * (0.5 + draw / 2)


def look_seconds(not_before: datetime, not_after: datetime, draw: float, now: datetime) -> float:
    """Return in how many seconds a certificate that needs nothing now is to be looked at again."""
    left = (renewal_time(not_before, not_after, draw) - now) / timedelta(seconds=1)
    return min(max(left, 1.0), LOOK_SECONDS)
