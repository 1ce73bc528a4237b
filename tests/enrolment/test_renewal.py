"""Generations: who may renew, what is a lost answer, what is a copy."""

from datetime import UTC, datetime, timedelta

import pytest

from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.renewal import (
    RENEWAL_GRACE,
    Generation,
    Presented,
    Renewal,
    RenewalState,
    Verdict,
    judge_renewal,
)
from dicomward.vocab.reason import ReasonCode

NOW = datetime(2027, 3, 1, tzinfo=UTC)
END = NOW + timedelta(days=30)
FIRST = Generation(number=1, parent=None, key_sha256="a")
SECOND = Generation(number=2, parent=1, key_sha256="b")


def judge(
    *history: Generation,
    presented: int = 1,
    key: str = "new",
    state: RenewalState = RenewalState.OPEN,
    now: datetime = NOW,
    is_active: bool = True,
) -> Renewal:
    asked = Presented(generation=presented, not_after=END, is_active=is_active)
    return judge_renewal(state, history, asked, key, now)


def refused(*history: Generation, **how: object) -> ReasonCode:
    with pytest.raises(EnrolmentRefusedError) as caught:
        judge(*history, **how)  # type: ignore[arg-type]
    return caught.value.reason


def test_the_last_generation_is_renewed() -> None:
    assert judge(FIRST).verdict is Verdict.ISSUE
    assert judge(FIRST, SECOND, presented=2).verdict is Verdict.ISSUE


def test_a_lost_answer_is_repeated_whatever_the_state_is() -> None:
    for state in RenewalState:
        assert judge(FIRST, SECOND, key="b", state=state) == Renewal(verdict=Verdict.REPEAT, repeated=2)


def test_the_same_key_again_and_again_is_renewed() -> None:
    same = Generation(number=2, parent=1, key_sha256="a")
    assert judge(FIRST, same, presented=2, key="a").verdict is Verdict.ISSUE


def test_a_spent_generation_with_another_key_holds_the_device() -> None:
    assert judge(FIRST, SECOND).verdict is Verdict.HOLD


def test_after_a_release_the_other_copy_is_found_again() -> None:
    third = Generation(number=3, parent=1, key_sha256="c")
    assert judge(FIRST, SECOND, state=RenewalState.RELEASED).verdict is Verdict.ISSUE
    assert judge(FIRST, SECOND, third, presented=2, key="d").verdict is Verdict.HOLD
    assert judge(FIRST, SECOND, third, presented=3, key="d").verdict is Verdict.ISSUE


def test_a_newer_invitation_ends_the_older_generations_without_alarm() -> None:
    invited = Generation(number=2, parent=None, key_sha256="b")
    assert refused(FIRST, invited) is ReasonCode.RENEWAL_SUPERSEDED


def test_held_and_rejected_devices_are_refused() -> None:
    assert refused(FIRST, SECOND, presented=2, state=RenewalState.HELD) is ReasonCode.RENEWAL_HELD
    assert refused(FIRST, state=RenewalState.REJECTED) is ReasonCode.RENEWAL_REJECTED


def test_an_expired_certificate_is_renewed_within_the_grace() -> None:
    assert judge(FIRST, now=END + RENEWAL_GRACE).verdict is Verdict.ISSUE
    assert refused(FIRST, now=END + RENEWAL_GRACE + timedelta(seconds=1)) is ReasonCode.RENEWAL_TOO_LATE


def test_a_revoked_certificate_is_refused() -> None:
    assert refused(FIRST, is_active=False) is ReasonCode.NOT_A_DEVICE_CERTIFICATE
