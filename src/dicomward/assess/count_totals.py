"""The figures of the research, from what is known of all servers."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, Reach, ServerObservation


@dataclass(slots=True, kw_only=True)
class Totals:
    """Servers that spoke DICOM, and what they give away. `lower_bounds` counts servers whose counts are lower bounds.

    `authorised` counts those that refused a caller they don't know; `leaking` those that gave at least one record.
    """

    servers: int = 0
    countries: int = 0
    leaking: int = 0
    authorised: int = 0
    records: int = 0
    personal: int = 0
    medical: int = 0
    tampering: int = 0
    lower_bounds: int = 0
    by_country: dict[str, int] = field(default_factory=dict)


def totals_of(observations: Iterable[ServerObservation]) -> Totals:
    """Add up."""
    totals = Totals()
    countries: set[str] = set()
    for each in observations:
        if each.reach is not Reach.ANSWERED:
            continue
        totals.servers += 1
        countries.add(each.country)
        totals.authorised += each.verdict_of(Control.CALLING_AE_TITLE) is Verdict.PASS
        counts = each.counts
        if counts is None or counts.records is None or not counts.records.value:
            continue
        totals.leaking += 1
        totals.records += counts.records.value
        totals.personal += counts.personal.value if counts.personal else 0
        totals.medical += counts.medical.value if counts.medical else 0
        totals.tampering += counts.open_to_tampering.value if counts.open_to_tampering else 0
        totals.lower_bounds += counts.records.is_lower_bound
        totals.by_country[each.country] = totals.by_country.get(each.country, 0) + counts.records.value
    totals.countries = len(countries - {""})
    totals.by_country = dict(sorted(totals.by_country.items()))
    return totals
