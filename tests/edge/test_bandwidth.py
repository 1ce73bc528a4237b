"""The line is shared by the time of the day."""

from dicomward.edge.bandwidth import Pace, rate_at

DAY, NIGHT = (420, 1140, 1000), (1320, 360, 5000)


def test_least_rate_of_the_hour_counts() -> None:
    assert rate_at([DAY, NIGHT], 419) is None
    assert rate_at([DAY, NIGHT], 420) == 1000
    assert rate_at([DAY, (600, 660, 500)], 630) == 500
    assert [rate_at([NIGHT], minute) for minute in (1319, 1320, 0, 359, 360)] == [None, 5000, 5000, 5000, None]
    assert rate_at([(0, 0, 7)], 100) == 7


def test_senders_wait_for_each_other() -> None:
    pace = Pace()
    assert pace.wait_seconds(1000, 1000, 100.0) == 0.0
    assert pace.wait_seconds(500, 1000, 100.0) == 1.0
    assert pace.wait_seconds(500, 1000, 101.0) == 0.5
    assert pace.wait_seconds(500, None, 101.0) == 0.0
    assert pace.wait_seconds(500, 1000, 101.5) == 0.0
