"""The arithmetic of the benchmark: what a ratio, an interval and a slope are."""

import pytest
from bench.estimates import bootstrap_interval, growth, percentile, ratio_of_pairs


def test_ratio_is_the_median_of_the_pairs_not_of_the_sides() -> None:
    # The second round was slow for everybody: pairs see it, medians of the sides would not.
    found = ratio_of_pairs([200.0, 20.0, 220.0], [100.0, 10.0, 100.0])
    assert found.median == 2.0
    assert found.pairs == 3


def test_interval_holds_the_median_and_grows_with_the_spread() -> None:
    narrow = bootstrap_interval([1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0])
    wide = bootstrap_interval([1.0, 1.5, 0.5, 1.0, 1.4, 0.6, 1.0])
    assert narrow[0] <= 1.0 <= narrow[1]
    assert wide[1] - wide[0] > narrow[1] - narrow[0]


def test_the_same_samples_have_the_same_interval() -> None:
    values = [1.1, 0.9, 1.05, 1.2, 0.95]
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_equal_samples_have_no_spread() -> None:
    found = ratio_of_pairs([3.0] * 5, [2.0] * 5)
    assert (found.low, found.median, found.high) == (1.5, 1.5, 1.5)
    assert str(found) == "1.50 [1.50, 1.50]"


@pytest.mark.parametrize(("ours", "rival"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0])])
def test_half_a_pair_is_refused(ours: list[float], rival: list[float]) -> None:
    with pytest.raises(ValueError, match="do not make pairs"):
        ratio_of_pairs(ours, rival)


def test_percentile_is_the_nearest_rank() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 0.99) == 99.0
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.0) == 1.0
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_growth_of_known_functions() -> None:
    sizes = [50.0, 100.0, 200.0, 400.0]
    flat = growth(sizes, [5.0] * 4)
    linear = growth(sizes, [size * 3 for size in sizes])
    square = growth(sizes, [size**2 for size in sizes])
    assert flat.exponent == pytest.approx(0.0)
    assert flat.worst_doubling == pytest.approx(1.0)
    assert linear.exponent == pytest.approx(1.0)
    assert linear.worst_doubling == pytest.approx(2.0)
    assert square.exponent == pytest.approx(2.0)
    assert square.worst_doubling == pytest.approx(4.0)


def test_worst_doubling_is_scaled_to_one_doubling() -> None:
    # From 1 to 8 the work doubled three times.
    assert growth([1.0, 8.0], [1.0, 8.0]).worst_doubling == pytest.approx(2.0)


def test_growth_needs_two_points() -> None:
    with pytest.raises(ValueError, match="two points"):
        growth([1.0], [1.0])
