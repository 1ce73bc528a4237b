from dataclasses import FrozenInstanceError

import pytest

from dicomward.vocab.principal import Assurance, Principal, Role


def test_a_principal_is_a_value_with_nothing_granted_by_default() -> None:
    principal = Principal(
        device="ct1",
        calling_ae_title="CT1",
        role=Role.MODALITY,
        site="main",
        assurance=Assurance.TLS_DEVICE,
        address="127.0.0.1",
    )
    assert (principal.certificate_sha256, principal.floor_only) == ("", None)
    with pytest.raises(FrozenInstanceError):
        principal.role = "archive"  # type: ignore[misc]


def test_levels_of_assurance_are_ordered_and_named() -> None:
    assert sorted(Assurance) == [Assurance.NETWORK_PIN, Assurance.TLS_DEVICE, Assurance.DEVICE_AND_PERSON]
    assert [level.label for level in Assurance] == ["network-pin", "tls-device", "device-and-person"]


def test_the_roles_with_ready_policies() -> None:
    assert {role.value for role in Role} == {
        "modality",
        "uploader",
        "workstation",
        "archive",
        "teleradiology",
        "research",
    }
