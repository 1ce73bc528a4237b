"""How a device stands with its certificate, and when it asks again."""

from datetime import UTC, datetime, timedelta

import pytest

from dicomward.enrolment.answers import answer_for
from dicomward.enrolment.upkeep import (
    LOOK_SECONDS,
    Standing,
    is_no,
    judge_first,
    judge_upkeep,
    look_seconds,
    retry_seconds,
)
from dicomward.vocab.reason import ReasonCode

START = datetime(2027, 3, 1, tzinfo=UTC)
END = START + timedelta(days=90)


@pytest.mark.parametrize(
    ("status", "with_code", "standing"),
    [
        (None, True, Standing.ENROLLING),
        (503, True, Standing.ENROLLING),
        (429, False, Standing.ENROLLING),
        (202, False, Standing.WAITS_FOR_APPROVAL),
        (401, True, Standing.CODE_REFUSED),
        (403, True, Standing.CODE_REFUSED),
        (403, False, Standing.REJECTED),
    ],
)
def test_answer_to_the_first_request(status: int | None, with_code: bool, standing: Standing) -> None:
    assert judge_first(status, with_code=with_code) is standing


@pytest.mark.parametrize(
    ("status", "text", "days", "standing"),
    [
        (403, answer_for(ReasonCode.RENEWAL_HELD)[1], 70, Standing.RENEWAL_HELD),
        (403, answer_for(ReasonCode.RENEWAL_OF_SPENT_GENERATION)[1], 70, Standing.RENEWAL_HELD),
        (403, answer_for(ReasonCode.RENEWAL_REJECTED)[1], 70, Standing.RENEWAL_HELD),
        (403, answer_for(ReasonCode.DEVICE_REVOKED)[1], 10, Standing.REFUSED),
        (400, "", 91, Standing.REFUSED),
        (None, "", 70, Standing.RENEWAL_FAILS),
        (503, "", 89, Standing.RENEWAL_FAILS),
        (None, "", 90, Standing.ENDED),
    ],
)
def test_refusal_of_a_renewal(status: int | None, text: str, days: int, standing: Standing) -> None:
    assert judge_upkeep(status, text, END, START + timedelta(days=days)) is standing


def test_who_needs_a_person() -> None:
    fine = {each for each in Standing if not each.needs_attention}
    waits = {Standing.WAITS_FOR_APPROVAL, Standing.WAITS_FOR_CONFIRMATION}
    assert fine == {Standing.ENROLLING, Standing.VALID} | waits


def test_same_request_would_be_refused_again() -> None:
    assert [status for status in (None, 202, 400, 401, 403, 429, 503) if is_no(status)] == [400, 401, 403]


def test_pauses_grow_and_a_refusal_is_asked_again_seldom() -> None:
    pauses = [retry_seconds(Standing.ENROLLING, failures, 1.0) for failures in range(12)]
    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert pauses[-1] == 300.0
    assert retry_seconds(Standing.RENEWAL_FAILS, 0, 0.0) == 1.0
    for standing in (Standing.REFUSED, Standing.RENEWAL_HELD, Standing.CODE_REFUSED):
        assert [retry_seconds(standing, 3, draw) for draw in (0.0, 1.0)] == [450.0, 750.0]


def test_certificate_is_looked_at_each_hour_and_when_it_is_to_be_renewed() -> None:
    assert look_seconds(START, END, 0.5, START) == LOOK_SECONDS
    assert look_seconds(START, END, 0.5, START + timedelta(days=60, seconds=-90)) == 90.0
    assert look_seconds(START, END, 0.5, END) == 1.0
