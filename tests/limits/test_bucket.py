"""The token bucket: never more than rate × t + burst, whatever the clock and the caller do."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.limits.bucket import TokenBucket

_RATES = st.floats(0.01, 1e6)
_BURSTS = st.integers(1, 1_000_000)
# Steps of a clock that mostly goes on, and now and then is read too early by another thread.
_STEPS = st.lists(st.tuples(st.floats(-1.0, 30.0), st.integers(1, 1000)), max_size=60)


def test_starts_full_and_refills_at_its_rate() -> None:
    bucket = TokenBucket(rate=2, burst=4, now=100.0)
    assert [bucket.try_take(1, 100.0) for _ in range(5)] == [True, True, True, True, False]
    assert not bucket.try_take(1, 100.25)
    assert bucket.try_take(1, 100.5)
    assert not bucket.has(1, 100.5)
    assert bucket.has(4, 102.5)
    assert not bucket.has(5, 1000.0)


def test_asking_takes_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, now=0.0)
    assert all(bucket.has(1, 0.0) for _ in range(3))
    assert bucket.try_take(1, 0.0)


def test_clock_that_goes_back_refills_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, now=100.0)
    assert bucket.try_take(1, 100.0)
    assert not bucket.try_take(1, 50.0)
    assert not bucket.has(1, 100.5)
    assert bucket.spend(0.0, 40.0) == 0.0
    assert not bucket.has(1, 100.6)
    assert bucket.has(1, 101.0)


def test_spending_says_how_long_the_debt_lasts() -> None:
    bucket = TokenBucket(rate=10, burst=10, now=0.0)
    assert bucket.spend(10, 0.0) == 0.0
    assert bucket.spend(5, 0.0) == pytest.approx(0.5)
    assert bucket.spend(5, 0.5) == pytest.approx(0.5)
    assert bucket.spend(10, 100.0) == 0.0


@pytest.mark.parametrize(
    ("rate", "burst"), [(0, 1), (1, 0), (-1, 1), (1, -1), (math.inf, 1), (1, math.inf), (math.nan, 1)]
)
def test_trap_bucket_that_never_or_always_lets_pass_cannot_be_made(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        TokenBucket(rate=rate, burst=burst, now=0.0)


@given(_RATES, _BURSTS, _STEPS)
def test_never_more_than_rate_times_t_plus_burst(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    bucket = TokenBucket(rate=rate, burst=burst, now=0.0)
    now = latest = taken = 0.0
    for step, count in steps:
        now += step
        latest = max(latest, now)
        if bucket.try_take(count, now):
            taken += count
        assert taken <= (rate * latest + burst) * (1 + 1e-9)


@given(_RATES, _BURSTS, _STEPS)
def test_whoever_waits_out_the_debt_keeps_to_the_rate(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    bucket = TokenBucket(rate=rate, burst=burst, now=0.0)
    now = spent = 0.0
    for step, count in steps:
        now += max(0.0, step)
        # What was spent before this read has been paid for by the time that has gone by.
        assert spent <= (rate * now + burst) * (1 + 1e-6) + 1e-6
        spent += count
        pause = bucket.spend(count, now)
        assert pause >= 0.0
        now += pause


@given(_RATES, _BURSTS, _STEPS)
def test_spending_and_taking_count_alike(rate: float, burst: int, steps: list[tuple[float, int]]) -> None:
    taking = TokenBucket(rate=rate, burst=burst, now=0.0)
    spending = TokenBucket(rate=rate, burst=burst, now=0.0)
    now = 0.0
    for step, count in steps:
        now += step
        if taking.try_take(count, now):
            assert spending.spend(count, now) == 0.0


@given(_RATES, _BURSTS)
def test_everything_comes_back_with_time(rate: float, burst: int) -> None:
    bucket = TokenBucket(rate=rate, burst=burst, now=0.0)
    assert bucket.try_take(burst, 0.0)
    assert not bucket.try_take(burst, 0.0)
    assert bucket.try_take(burst, 2 * burst / rate)


def test_change_of_the_rate_gives_nothing_back() -> None:
    bucket = TokenBucket(rate=1, burst=10, now=0.0)
    assert bucket.try_take(10, 0.0)
    bucket.change(rate=5, burst=20, now=1.0)
    assert bucket.has(1, 1.0)
    assert not bucket.has(2, 1.0)
    assert bucket.has(6, 2.0)


def test_smaller_burst_takes_away_what_is_above_it() -> None:
    bucket = TokenBucket(rate=1, burst=10, now=0.0)
    bucket.change(rate=1, burst=3, now=0.0)
    assert bucket.has(3, 0.0)
    assert not bucket.has(4, 100.0)


def test_change_to_no_limit_is_refused() -> None:
    bucket = TokenBucket(rate=1, burst=10, now=0.0)
    with pytest.raises(ValueError, match="above 0"):
        bucket.change(rate=0, burst=10, now=0.0)
    assert bucket.has(10, 0.0)
