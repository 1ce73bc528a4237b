"""Counts of a report: added up over servers, and written so that a shared report singles nobody out.

Rules of this file: a count that isn't there is never a zero; what is below five in a shared report is "<5", and
totals beside such a number are rounded, so that it can't be had by subtraction.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dicomward.assess.observation import Count, Counts, Protocol, ServerObservation

SMALL: Final = 5
_ROUNDED_TO: Final = 10

COUNT_NAMES: Final = ("patients", "studies", "records", "personal", "medical", "open_to_tampering")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCount:
    """A count as a report has it: `text` for people; `value` is None where it is not known or not told."""

    value: int | None
    is_lower_bound: bool
    text: str


NOT_COUNTED: Final = ShownCount(value=None, is_lower_bound=False, text="not counted")


def total(counts: Iterable[Count | None]) -> Count | None:
    """Return the sum; None if nothing was counted; a lower bound if any part is one."""
    known = [each for each in counts if each is not None]
    if not known:
        return None
    return Count(value=sum(each.value for each in known), is_lower_bound=any(each.is_lower_bound for each in known))


def total_counts(all_counts: Sequence[Counts]) -> Counts:
    """Return the sums of every kind of count."""
    return Counts(
        patients=total(each.patients for each in all_counts),
        studies=total(each.studies for each in all_counts),
        records=total(each.records for each in all_counts),
        personal=total(each.personal for each in all_counts),
        medical=total(each.medical for each in all_counts),
        open_to_tampering=total(each.open_to_tampering for each in all_counts),
    )


def is_small(count: Count | None) -> bool:
    """Return whether a shared report hides the number."""
    return count is not None and 0 < count.value < SMALL


def show(count: Count | None, *, shared: bool, rounded: bool = False) -> ShownCount:
    """Return a count as the report has it; `rounded` for a total with a hidden number among its parts."""
    if count is None:
        return NOT_COUNTED
    if shared and is_small(count):
        return ShownCount(value=None, is_lower_bound=count.is_lower_bound, text=f"<{SMALL}")
    if shared and rounded and count.value:
        value = max(count.value // _ROUNDED_TO, 1) * _ROUNDED_TO
        return ShownCount(value=None, is_lower_bound=count.is_lower_bound, text=f"about {value:,}")
    prefix = "at least " if count.is_lower_bound else ""
    return ShownCount(value=count.value, is_lower_bound=count.is_lower_bound, text=f"{prefix}{count.value:,}")


def is_leaking(observation: ServerObservation) -> bool:
    """Return whether the server gives records away to anyone."""
    counts = observation.counts
    if any(each.id == "DWA-RECORDS-EXPOSED" for each in observation.findings):
        return True
    return counts is not None and any(
        each is not None and each.value > 0 for each in (counts.records, counts.studies, counts.patients)
    )


def counted(observations: Iterable[ServerObservation]) -> list[tuple[ServerObservation, Counts]]:
    """Return the servers whose counts are added up, with them: one archive behind two doors of a host is counted once.

    The doors are the same archive's if they are of different protocols and count the same.
    """
    kept: list[tuple[ServerObservation, Counts]] = []
    doors: dict[tuple[object, ...], set[Protocol]] = {}
    for each in observations:
        if each.counts is None:
            continue
        key = (each.address, *(getattr(each.counts, name) for name in COUNT_NAMES))
        protocols = doors.setdefault(key, set())
        is_another_door = bool(protocols) and each.protocol not in protocols
        protocols.add(each.protocol)
        if not is_another_door:
            kept.append((each, each.counts))
    return kept
