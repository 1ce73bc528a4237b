"""May the holder of a certificate have the next one: generations, and what a copied credential looks like.

Each certificate of a device has a generation, one higher than the last, and only the last may be renewed: a renewal
spends the one that was presented. If that comes a second time with another key, two hold the same credential: the
device is *held*, both keep what they have until it ends, and a person decides. With the same key it is the device that
has lost the answer.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never

from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.vocab.reason import ReasonCode

# As long as an expired certificate keeps the clinical floor, its device can renew it by itself.
RENEWAL_GRACE: Final = timedelta(days=14)


class RenewalState(StrEnum):
    """What the renewal of a device is. RELEASED: the next one counts from any of its certificates, once."""

    OPEN = "open"
    HELD = "held"
    RELEASED = "released"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One issued certificate of a device; `parent` is the generation that it renewed, None after an invitation."""

    number: int
    parent: int | None
    key_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """The certificate that asks for its successor: `is_active` unless it, or its device, was revoked or suspended."""

    generation: int
    not_after: datetime
    is_active: bool


class Verdict(StrEnum):
    """What to do: issue the next generation, give `repeat` once more, or hold the device."""

    ISSUE = "issue"
    REPEAT = "repeat"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The answer; `repeated` is the generation to give once more."""

    verdict: Verdict
    repeated: int | None = None


def judge_renewal(
    state: RenewalState,
    history: tuple[Generation, ...],
    presented: Presented,
    key_sha256: str,
    now: datetime,
    *,
    grace: timedelta = RENEWAL_GRACE,
) -> Renewal:
    """Judge a renewal with the key of that SHA-256 (of its SubjectPublicKeyInfo).

    `history`: all generations of the device, oldest first. What is refused changes nothing: EnrolmentRefusedError.
    """
    if not presented.is_active:
        raise EnrolmentRefusedError(
            ReasonCode.NOT_A_DEVICE_CERTIFICATE, "the certificate, or its device, is revoked or suspended"
        )
    if now > presented.not_after + grace:
        raise EnrolmentRefusedError(
            ReasonCode.RENEWAL_TOO_LATE, f"it ended at {presented.not_after.isoformat(timespec='seconds')}"
        )
    lost = next(
        (each for each in history if each.parent == presented.generation and each.key_sha256 == key_sha256), None
    )
    if lost is not None:
        return Renewal(verdict=Verdict.REPEAT, repeated=lost.number)
    match state:
        case RenewalState.HELD:
            raise EnrolmentRefusedError(ReasonCode.RENEWAL_HELD, "the renewal of this device is held")
        case RenewalState.REJECTED:
            raise EnrolmentRefusedError(ReasonCode.RENEWAL_REJECTED, "an operator has rejected its renewal")
        case RenewalState.RELEASED:
            return Renewal(verdict=Verdict.ISSUE)
        case RenewalState.OPEN:
            return Renewal(verdict=_judge_generation(history, presented.generation))
        case _:
            assert_never(state)


def _judge_generation(history: tuple[Generation, ...], presented: int) -> Verdict:
    later = [each for each in history if each.number > presented]
    if not later:
        return Verdict.ISSUE
    if later[0].parent is None and all(each.parent != presented for each in later):
        # Nothing was copied: an operator has given the device something newer.
        raise EnrolmentRefusedError(
            ReasonCode.RENEWAL_SUPERSEDED,
            f"generation {presented} ended with the invitation of generation {later[0].number}",
        )
    return Verdict.HOLD
