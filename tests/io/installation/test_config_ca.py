"""What check-config says about the CA; the time travels."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dicomward.io.ca.crl import renew_crls
from dicomward.io.installation.check import Severity, check_configuration
from dicomward.io.installation.config_ca import find_ca_warnings
from dicomward.io.registry.store import RegistryStore
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory, now
from tests.io.ca_helpers import NOW, make_ca

DAY = timedelta(days=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def problems(settings: Settings, moment: datetime = NOW) -> list[str]:
    return [what for _where, what, _hint in find_ca_warnings(settings, moment)]


def test_without_a_ca_there_is_nothing_to_say(settings: Settings) -> None:
    assert problems(settings) == []


def test_keys_that_are_at_hand_are_told(settings: Settings, tmp_path: Path) -> None:
    make_ca(settings.enrolment.ca)
    assert problems(settings) == [
        "the root's key is on this machine",
        "the user of the gateway can read the issuing key",
    ]
    found = check_configuration(settings, now())
    assert {each.severity for each in found if str(settings.enrolment.ca) in each.location} == {Severity.WARNING}


def test_a_well_kept_ca_is_quiet(settings: Settings, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    ca = make_ca(settings.enrolment.ca, root_key=tmp_path / "stick.pem")
    os.chown(ca.path / "issuing-1.key.pem", 65534, 65534)
    assert problems(settings) == []


def test_ends_are_told_in_time(settings: Settings, tmp_path: Path) -> None:
    ca = make_ca(settings.enrolment.ca, root_key=tmp_path / "stick.pem")
    with RegistryStore.open(settings.registry.url) as store:
        renew_crls(store, ca, NOW, life=7 * DAY)
    assert "the CRL of issuing-1 was current until 2027-03-08 12:00 UTC" in problems(settings, NOW + 8 * DAY)
    assert not any("ends at" in each for each in problems(settings, NOW + 1640 * DAY))
    assert "issuing-1 ends at 2032-02-29" in problems(settings, NOW + 1650 * DAY)


def test_a_damaged_ca_is_told(settings: Settings) -> None:
    ca = make_ca(settings.enrolment.ca)
    (ca.path / "ca.json").write_text("{")
    (problem,) = problems(settings)
    assert "is damaged" in problem


def test_a_key_in_a_token_is_nobodys_file(settings: Settings, tmp_path: Path) -> None:
    ca = make_ca(settings.enrolment.ca, root_key=tmp_path / "stick.pem")
    state = (ca.path / "ca.json").read_text()
    (ca.path / "ca.json").write_text(state.replace("issuing-1.key.pem", "pkcs11:token=x;object=y?module-path=z"))
    assert problems(settings) == []
