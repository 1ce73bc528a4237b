"""From the numbers of all slices to the counts of one server.

A record of the research is the record of a patient (personal) or of an examination (medical). Each patient is one
personal record, however many examinations there are, if any personal attribute had a value; each study is one medical
record if any medical attribute had one. So the two are disjoint, and their sum is the number of records.
"""

from enum import StrEnum

from dicomward.assess.count_tally import Patients, SliceNumbers
from dicomward.assess.observation import Count, Counts


class Shortfall(StrEnum):
    """Why a count says less than there is. All but DATED_ONLY make it a lower bound."""

    CAPPED = "the server caps its answers, and a single day reached the cap"
    DATES_IGNORED = "the server does not look at dates, so it could not be asked in slices"
    REFUSED = "the server ended a query with a failure"
    BROKE_OFF = "the server broke off"
    LIMIT = "a limit of ours was reached"
    STOPPED = "it was stopped"
    SLOWED = "the server slowed down to half its speed, and was left alone"
    UNREADABLE = "some answers could not be read"
    PATIENTS = "patients of slices from before a break are not told apart"
    DATED_ONLY = "studies without a date were not asked for"


def counts_of(
    numbers: SliceNumbers, patients: Patients, shortfalls: frozenset[Shortfall], *, open_to_tampering: bool | None
) -> Counts:
    """Return the counts; `open_to_tampering`: storage contexts were accepted too, None where that is not known."""
    short = shortfalls - {Shortfall.DATED_ONLY}
    studies_short = bool(short - {Shortfall.PATIENTS})
    patients_short = bool(short) or patients.is_full
    personal = Count(value=len(patients), is_lower_bound=patients_short)
    medical = Count(value=numbers.medical, is_lower_bound=studies_short)
    records = Count(value=personal.value + medical.value, is_lower_bound=patients_short)
    return Counts(
        patients=personal,
        studies=Count(value=numbers.studies, is_lower_bound=studies_short),
        records=records,
        personal=personal,
        medical=medical,
        open_to_tampering=None if open_to_tampering is None else records if open_to_tampering else Count(value=0),
        attributes=tuple(numbers.attributes.items()),
        countries=tuple(sorted(patients.by_country.items())),
        problem="; ".join(sorted(shortfalls)),
    )
