"""Cutting a study query into slices of dates, and finding out if a server caps its answers.

A server that caps says so seldom: it gives its first hundred answers and Success. So a number of answers that looks
like a cap is checked by asking for the two halves of the slice: if they give more, it was one. A single day that is
still capped is a lower bound, and marked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

_FIRST: Final = date(1900, 1, 1)
_YEARS: Final = 25
_AHEAD: Final = 10
_SMALLEST_CAP: Final = 10


@dataclass(frozen=True, slots=True, order=True)
class Slice:
    """The studies of `first` to `last`, both included."""

    first: date
    last: date

    @property
    def name(self) -> str:
        """Return it as the range of DICOM (PS3.4 §C.2.2.2.5), which is also its name in the store."""
        return f"{self.first:%Y%m%d}-{self.last:%Y%m%d}"

    @property
    def is_single_day(self) -> bool:
        """Say if it can't be split."""
        return self.first == self.last

    def halves(self) -> tuple["Slice", "Slice"]:
        """Split it. Raises ValueError for a single day."""
        if self.is_single_day:
            raise ValueError("one day has no halves")
        middle = self.first + timedelta(days=(self.last - self.first).days // 2)
        return Slice(self.first, middle), Slice(middle + timedelta(days=1), self.last)


def slice_named(name: str) -> Slice:
    """Read a slice's name. Raises ValueError."""
    first, _, last = name.partition("-")
    return Slice(_day(first), _day(last))


def _day(text: str) -> date:
    if len(text) != 8 or not text.isdigit():
        raise ValueError("a day has eight digits")
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def plan_slices(today: date) -> Iterator[Slice]:
    """Yield the first slices: what is old, each of the last 25 years, and what lies ahead (wrong clocks)."""
    start = today.year - _YEARS
    yield Slice(_FIRST, date(start, 12, 31))
    for year in range(start + 1, today.year + 1):
        yield Slice(date(year, 1, 1), date(year, 12, 31))
    yield Slice(date(today.year + 1, 1, 1), date(today.year + _AHEAD, 12, 31))


def looks_capped(answers: int, known_cap: int | None) -> bool:
    """Say if a number of answers may be a cap: a known one, a round number, a power of two."""
    if known_cap is not None:
        return answers >= known_cap
    if answers < _SMALLEST_CAP:
        return False
    return answers % 10 == 0 or answers & (answers - 1) == 0
