"""Hours of headroom: free bytes over growth, told in thresholds."""

from dicomward.audit.headroom import THRESHOLD_HOURS, Headroom, HeadroomMeter

HOUR = 3600.0


def test_nothing_is_said_too_early_or_of_a_log_that_does_not_grow() -> None:
    meter = HeadroomMeter()
    assert meter.measure(now=0, log_bytes=100, free_bytes=1000).hours is None
    assert meter.measure(now=60, log_bytes=200, free_bytes=1000).hours is None
    still = HeadroomMeter()
    still.measure(now=0, log_bytes=100, free_bytes=1000)
    assert still.measure(now=HOUR, log_bytes=100, free_bytes=1000).hours is None


def test_hours_are_free_bytes_over_bytes_an_hour() -> None:
    meter = HeadroomMeter()
    meter.measure(now=0, log_bytes=0, free_bytes=0)
    measured = meter.measure(now=HOUR, log_bytes=100, free_bytes=1000)
    assert (measured.bytes_per_hour, measured.hours) == (100, 10)


def test_only_the_last_hours_count_and_pruning_is_no_shrinking() -> None:
    meter = HeadroomMeter()
    meter.measure(now=0, log_bytes=0, free_bytes=0)
    meter.measure(now=HOUR, log_bytes=10_000, free_bytes=0)
    meter.measure(now=6 * HOUR, log_bytes=100, free_bytes=0)
    measured = meter.measure(now=7 * HOUR, log_bytes=700, free_bytes=1000)
    assert (measured.bytes_per_hour, measured.hours) == (100, 10)


def test_the_lowest_threshold_that_is_due() -> None:
    assert [Headroom(1, 1.0, hours).threshold for hours in (None, 500.0, 100.0, 30.0, 5.0, 1.0)] == [
        None,
        None,
        168,
        72,
        24,
        4,
    ]
    assert sorted(THRESHOLD_HOURS, reverse=True) == list(THRESHOLD_HOURS)
