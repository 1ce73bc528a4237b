"""Medians, ratios of interleaved pairs with their 95 % interval, and growth: arithmetic only."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

RESAMPLES = 10_000
# A fixed seed: the interval of the same samples is the same interval on every machine.
SEED = 20_261_122


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Median of the ratios of pairs, with the bounds of its 95 % interval (percentile bootstrap over pairs)."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{_short(self.median)} [{_short(self.low)}, {_short(self.high)}]"


def _short(value: float) -> str:
    """Three significant digits, as people compare ratios."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ratio_of_pairs(ours: Sequence[float], rival: Sequence[float]) -> Ratio:
    """Return the median of ours / rival; both in the order in which the pairs were run.

    Raises ValueError when a pair lacks its half or there is none.
    """
    if len(ours) != len(rival) or not ours:
        raise ValueError(f"{len(ours)} of ours and {len(rival)} of the rival do not make pairs")
    ratios = [mine / theirs for mine, theirs in zip(ours, rival, strict=True)]
    low, high = bootstrap_interval(ratios)
    return Ratio(median=median(ratios), low=low, high=high, pairs=len(ratios))


def bootstrap_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the median of `values`."""
    chance = random.Random(SEED)
    medians = sorted(median(chance.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = (1 - confidence) / 2
    return medians[int(tail * RESAMPLES)], medians[min(RESAMPLES - 1, math.ceil((1 - tail) * RESAMPLES) - 1)]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; `share` from 0 to 1. Raises ValueError when there are no values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a cost grows with the work.

    `exponent` is the slope of log(cost) over log(size): 0 = does not grow, 1 = doubles when the work doubles.
    `worst_doubling` is the largest factor between neighbours, scaled to one doubling of the work.
    """

    exponent: float
    worst_doubling: float

    def __str__(self) -> str:
        return f"slope {self.exponent:.2f}, worst doubling x{self.worst_doubling:.2f}"


def growth(sizes: Sequence[float], costs: Sequence[float]) -> Growth:
    """Fit the growth of `costs` over ascending `sizes`. Raises ValueError with fewer than two points."""
    if len(sizes) != len(costs) or len(sizes) < 2:
        raise ValueError("growth needs two points or more")
    x = [math.log(size) for size in sizes]
    y = [math.log(max(cost, 1e-12)) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    steps = [
        math.exp((y[i + 1] - y[i]) * math.log(2) / (x[i + 1] - x[i])) for i in range(len(x) - 1) if x[i + 1] > x[i]
    ]
    return Growth(exponent=slope, worst_doubling=max(steps))
