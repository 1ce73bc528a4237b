from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from dicomward.dicom.limits import Limits

NAMES = [item.name for item in fields(Limits)]


def test_defaults_are_those_that_the_docs_give() -> None:
    limits = Limits()
    assert {name: getattr(limits, name) for name in NAMES} == {
        "max_association_pdu_bytes": 131_072,
        "max_presentation_contexts": 128,
        "max_transfer_syntaxes": 64,
        "max_user_items": 512,
        "max_pdu_bytes": 131_072,
        "max_pdu_tolerance_bytes": 12,
        "max_command_set_bytes": 65_536,
        "max_identifier_bytes": 1_048_576,
        "max_head_bytes": 65_536,
        "max_response_identifier_bytes": 65_536,
        "max_operations_window": 16,
        "max_held_bytes": 1_048_576,
    }


def test_every_limit_has_a_reason() -> None:
    assert all(len(item.metadata["reason"]) > 20 for item in fields(Limits))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, 2**63, None, True, 1.5, "1"])
def test_trap_zero_is_not_no_maximum(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"the limit {name} is .* cannot be switched off"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", NAMES)
def test_limits_reach_from_one_to_their_ceiling(name: str) -> None:
    ceiling = next(item.metadata["ceiling"] for item in fields(Limits) if item.name == name)
    for value in (1, ceiling):
        assert getattr(Limits(**{name: value}), name) == value


def test_limits_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Limits().max_pdu_bytes = 1  # type: ignore[misc]
