"""What counting may cost: every number with its reason. docs/assessment-classes.md lists them."""

from dataclasses import dataclass, field, fields
from typing import Any


def _limit(default: int, reason: str) -> Any:
    return field(default=default, metadata={"reason": reason})


@dataclass(frozen=True, slots=True, kw_only=True)
class CountLimits:
    """The limits of counting one server; each is at least 1. Raises ValueError."""

    connect_seconds: int = _limit(10, "a server that is there answers a connection at once")
    idle_seconds: int = _limit(30, "an archive may search for a while before its first answer")
    slice_seconds: int = _limit(
        600, "a slow drip keeps us no longer than this; a year of a large archive takes minutes"
    )
    server_seconds: int = _limit(14_400, "10 million studies at 1,000 a second take less than three hours")
    unsliced_matches: int = _limit(20_000, "a small archive is counted with one query; more is cut into slices")
    slice_matches: int = _limit(5_000_000, "endless answers end here: no archive makes as many studies in a year")
    server_matches: int = _limit(50_000_000, "more studies than the largest archives hold")
    slices: int = _limit(40_000, "each day of a hundred years; a server whose answers make us split further only plays")
    gauge_seconds: int = _limit(1, "between queries without matches that show if the server slows down")
    reread_matches: int = _limit(
        2_000_000, "after a break the patients' hashes are gone; up to this many studies are asked for again"
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            if getattr(self, item.name) < 1:
                raise ValueError(f"the limit {item.name} must be at least 1")
