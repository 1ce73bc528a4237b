"""Scores and ratings, compared with an independent implementation of CVSS 4.0."""

import pytest
from cvss import CVSS4

from dicomward.assess.findings import CATALOGUE
from dicomward.assess.report_severity import SCORES, severity_of


@pytest.mark.parametrize("id_", CATALOGUE)
def test_score_and_rating_are_those_of_the_cvss_package(id_: str) -> None:
    severity = severity_of(CATALOGUE[id_].cvss)
    expected = CVSS4(CATALOGUE[id_].cvss)
    assert (severity.score, severity.rating) == (float(expected.base_score), expected.severity.lower())
    assert severity.vector == CATALOGUE[id_].cvss


def test_no_score_is_left_over() -> None:
    assert set(SCORES) == {each.cvss for each in CATALOGUE.values()}


def test_other_vectors_are_refused() -> None:
    with pytest.raises(KeyError):
        severity_of("CVSS:4.0/AV:P/AC:H/AT:P/PR:H/UI:A/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N")
