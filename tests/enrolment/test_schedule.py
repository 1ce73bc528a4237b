"""When a certificate is renewed."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from dicomward.enrolment.schedule import JITTER, describe_left, draw_of, is_due, renewal_time

START = datetime(2027, 3, 1, tzinfo=UTC)
END = START + timedelta(days=90)


def test_two_thirds_of_the_life_give_or_take() -> None:
    assert renewal_time(START, END, 0.5) == START + timedelta(days=60)
    assert renewal_time(START, END, 0) == START + timedelta(days=60) - timedelta(days=90) * JITTER
    assert not is_due(START, END, 0.5, START + timedelta(days=59))
    assert is_due(START, END, 0.5, START + timedelta(days=60))


@given(st.binary(min_size=4, max_size=32))
def test_draw_is_a_number_from_0_to_1(fingerprint: bytes) -> None:
    assert 0 <= draw_of(fingerprint) <= 1
    assert draw_of(fingerprint) == draw_of(fingerprint)


def test_what_is_left_in_words() -> None:
    assert describe_left(END, END - timedelta(days=3)) == "good for 3 days"
    assert describe_left(END, END - timedelta(hours=3)) == "good for 3 hours"
    assert describe_left(END, END + timedelta(days=3)) == "ended 3 days ago"
