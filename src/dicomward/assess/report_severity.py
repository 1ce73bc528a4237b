"""The score and the rating of the CVSS 4.0 vectors that the catalogue of findings uses.

Rules of this file: a table, because scoring CVSS 4.0 needs one of 270 rows for a handful of vectors; the tests compare
every score with an independent implementation, and fail when the catalogue has a vector that is not here.
"""

from dataclasses import dataclass
from typing import Final

_BASE: Final = "CVSS:4.0/AV:N/AC:L/{}/SC:N/SI:N/SA:N"

SCORES: Final[dict[str, float]] = {
    _BASE.format(metrics): score
    for metrics, score in (
        ("AT:N/PR:N/UI:N/VC:H/VI:H/VA:H", 9.3),
        ("AT:P/PR:N/UI:N/VC:H/VI:H/VA:N", 9.1),
        ("AT:N/PR:N/UI:N/VC:N/VI:H/VA:L", 8.8),
        ("AT:N/PR:N/UI:N/VC:H/VI:N/VA:N", 8.7),
        ("AT:N/PR:N/UI:N/VC:L/VI:L/VA:N", 6.9),
        ("AT:N/PR:N/UI:N/VC:L/VI:N/VA:N", 6.9),
        ("AT:N/PR:N/UI:N/VC:N/VI:N/VA:L", 6.9),
        ("AT:P/PR:N/UI:N/VC:L/VI:L/VA:N", 6.3),
        ("AT:P/PR:N/UI:N/VC:L/VI:L/VA:L", 6.3),
    )
}
# The lowest score of each rating (CVSS 4.0 specification, section 6).
_RATINGS: Final = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"), (0.0, "none"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Severity:
    """A vector with its score, 0.0 to 10.0, and its rating."""

    vector: str
    score: float
    rating: str


def severity_of(vector: str) -> Severity:
    """Return the severity of a vector of the catalogue. Raises KeyError for any other."""
    score = SCORES[vector]
    return Severity(vector=vector, score=score, rating=next(name for least, name in _RATINGS if score >= least))
