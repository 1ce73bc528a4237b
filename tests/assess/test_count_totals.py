"""The figures of the research from observations."""

from dicomward.assess.count_totals import totals_of
from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, ControlResult, Count, Counts, Reach, ServerObservation


def counts(personal: int, medical: int, *, is_lower_bound: bool = False, tampering: int = 0) -> Counts:
    return Counts(
        records=Count(value=personal + medical, is_lower_bound=is_lower_bound),
        personal=Count(value=personal),
        medical=Count(value=medical),
        open_to_tampering=Count(value=tampering),
    )


def test_figures_add_up() -> None:
    guarded = (ControlResult(control=Control.CALLING_AE_TITLE, verdict=Verdict.PASS),)
    totals = totals_of(
        [
            ServerObservation(
                address="a", port=1, reach=Reach.ANSWERED, country="IN", counts=counts(2, 5, tampering=7)
            ),
            ServerObservation(address="b", port=1, reach=Reach.ANSWERED, country="IN", counts=counts(1, 1)),
            ServerObservation(address="c", port=1, reach=Reach.ANSWERED, country="", counts=counts(0, 0)),
            ServerObservation(address="d", port=1, reach=Reach.ANSWERED, country="US", controls=guarded),
            ServerObservation(address="e", port=1, reach=Reach.REFUSED, country="FR"),
            ServerObservation(
                address="f", port=1, reach=Reach.ANSWERED, country="US", counts=counts(1, 0, is_lower_bound=True)
            ),
        ]
    )
    assert (totals.servers, totals.countries, totals.leaking, totals.authorised) == (5, 2, 3, 1)
    assert (totals.records, totals.personal, totals.medical, totals.tampering) == (10, 4, 6, 7)
    assert totals.by_country == {"IN": 9, "US": 1}
    assert totals.lower_bounds == 1


def test_counts_without_a_part_count_what_is_there() -> None:
    only = Counts(records=Count(value=3))
    totals = totals_of([ServerObservation(address="a", port=1, reach=Reach.ANSWERED, counts=only)])
    assert (totals.records, totals.personal, totals.leaking) == (3, 0, 1)
