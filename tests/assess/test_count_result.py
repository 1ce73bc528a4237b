"""Personal and medical records are disjoint and add up; every shortfall but one makes a lower bound."""

import pytest

from dicomward.assess.count_result import Shortfall, counts_of
from dicomward.assess.count_tally import Patients, Tally
from dicomward.assess.observation import Count
from tests.assess.identifiers import identifier


def tally() -> tuple[Tally, Patients]:
    patients = Patients(b"k" * 16, lambda value: "DE")
    counter = Tally(patients)
    for number in range(6):
        data = identifier(t00080020=b"20200101", t00100020=b"%02d" % (number % 2), t00102150=b"DE")
        counter.add(data, 0, len(data))
    data = identifier(t00100020=b"07")
    counter.add(data, 0, len(data))
    return counter, patients


def test_patients_are_personal_and_examinations_medical_records() -> None:
    counter, patients = tally()
    counts = counts_of(counter.numbers, patients, frozenset({Shortfall.DATED_ONLY}), open_to_tampering=True)
    assert counts.personal == counts.patients == Count(value=3)
    assert (counts.studies, counts.medical) == (Count(value=7), Count(value=6))
    assert counts.records == counts.open_to_tampering == Count(value=9)
    assert dict(counts.attributes)["PatientID"] == 7
    assert counts.countries == (("DE", 2),)
    assert "without a date" in counts.problem


@pytest.mark.parametrize("shortfall", [each for each in Shortfall if each is not Shortfall.DATED_ONLY])
def test_shortfalls_make_lower_bounds(shortfall: Shortfall) -> None:
    counter, patients = tally()
    counts = counts_of(counter.numbers, patients, frozenset({shortfall}), open_to_tampering=False)
    assert counts.records == Count(value=9, is_lower_bound=True)
    assert counts.studies == Count(value=7, is_lower_bound=shortfall is not Shortfall.PATIENTS)
    assert counts.open_to_tampering == Count(value=0)
