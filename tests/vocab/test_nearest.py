"""Hints after typing errors."""

import pytest

from dicomward.vocab.nearest import nearest_name


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("modalty", "modality"),
        ("MODALITY", "modality"),
        ("ct1", "CT1"),
        ("mod", "modality"),
        ("m", None),
        ("nothing-like-it", None),
        ("", None),
    ],
)
def test_the_nearest_name_is_found_whatever_its_case(name: str, nearest: str | None) -> None:
    assert nearest_name(name, ["modality", "CT1", "MR1"]) == nearest


def test_of_names_that_differ_in_case_only_the_first_is_taken() -> None:
    assert nearest_name("ct", ["CT", "Ct"]) == "CT"
    assert nearest_name("ct", []) is None
