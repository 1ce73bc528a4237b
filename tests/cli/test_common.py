"""What all commands share: times as people write them."""

from datetime import UTC, datetime, timedelta

import pytest

from dicomward.cli.common import UsageError, parse_when

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("30s", timedelta(seconds=30)),
        ("90 min", timedelta(minutes=90)),
        ("2h", timedelta(hours=2)),
        ("2H", timedelta(hours=2)),
        (" 2 hours ", timedelta(hours=2)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("1 day 6 hr", timedelta(days=1, hours=6)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_spans_as_people_write_them(text: str, span: timedelta) -> None:
    assert parse_when(text, NOON) == NOON + span
    assert parse_when(text, NOON, ahead=False) == NOON - span


def test_days_and_times() -> None:
    assert parse_when("2027-03-31T18:00+00:00", NOON) == datetime(2027, 3, 31, 18, tzinfo=UTC)
    start = parse_when("2027-03-31", NOON, ahead=False)
    assert parse_when("2027-03-31", NOON) == start + timedelta(days=1)


@pytest.mark.parametrize("text", ["", "soon", "2", "h", "2x", "2h 3", "1 month", "999999w", "-2h", "2027-13-01"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time: write 2027-03-31"):
        parse_when(text, NOON)
