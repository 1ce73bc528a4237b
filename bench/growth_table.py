"""A table of how costs grow where the work doubles, and its verdict."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.estimates import growth as fit
from bench.report import Section, say

# A doubling of the work may cost x2.14: a tenth in the exponent is left for noise and for small caches.
MOST_SLOPE = 1.1
LOAD_REPEATS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one size costs: a name, its unit, and the figure for each size."""

    name: str
    unit: str
    figures: Sequence[float]


def section(title: str, what: str, sizes: Sequence[int], costs: Sequence[Cost]) -> Section:
    """Return the table, with a check for each cost: it at most doubles when the work doubles."""
    columns = (what, *(f"{cost.name}, {cost.unit}" for cost in costs))
    table = Section(target="growth", title=title, columns=columns)
    for number, size in enumerate(sizes):
        table.lines.append((f"{size:,}", *(f"{cost.figures[number]:.3g}" for cost in costs)))
    for cost in costs:
        table.samples[cost.name] = list(cost.figures)
        fitted = fit(sizes, cost.figures)
        more_work, more_cost = sizes[-1] / sizes[0], cost.figures[-1] / cost.figures[0]
        table.require(
            f"{cost.name} at most doubles when the work doubles (slope ≤ {MOST_SLOPE})",
            f"work x{more_work:.0f}, cost x{more_cost:.3g}, {fitted}",
            fitted.exponent <= MOST_SLOPE,
        )
    say(f"growth, {title}: done")
    return table


def fastest(work: Callable[[], object]) -> float:
    """Return the CPU seconds of the cheapest of a few calls, without the garbage of what was here before.

    CPU time, since the machine may be busy with other things.
    """
    times = []
    for _ in range(LOAD_REPEATS):
        gc.collect()
        gc.freeze()
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
        gc.unfreeze()
    return min(times)
