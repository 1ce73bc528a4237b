"""Codes and names lead to an ISO code; everything else to none."""

import pytest

from dicomward.assess.countries import COUNTRIES, country_code, country_in


@pytest.mark.parametrize(
    ("text", "code"),
    [("DE", "DE"), ("deu", "DE"), (" South  Africa ", "ZA"), ("usa", "US"), ("Atlantis", ""), ("", ""), ("4711", "")],
)
def test_code_of_a_text(text: str, code: str) -> None:
    assert country_code(text) == code


def test_values_of_dicom() -> None:
    assert country_in(b"FRA ") == "FR"
    assert country_in(b"IN\0") == "IN"
    assert country_in(b"\xff\xfe") == ""
    assert country_in(b"DE" + b" " * 70) == ""


def test_every_country_is_there_once() -> None:
    assert len(COUNTRIES) == 249 == len({code for code, _, _ in COUNTRIES}) == len({long for _, long, _ in COUNTRIES})
