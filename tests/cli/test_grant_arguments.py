"""What is granted by arguments: everything for a new device, nothing else than it has for a registered one."""

import argparse
from datetime import timedelta
from pathlib import Path

import pytest

from dicomward.cli.common import RefusedError, UsageError
from dicomward.cli.grant_arguments import describe_grant, grant_from, several
from dicomward.identity.registry import Endpoint
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory
from tests.identity.examples import device


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def arguments(*typed: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    describe_grant(parser)
    return parser.parse_args(typed)


NEW = ("--aet", "CT3", "--role", "modality")


def test_new_device_gets_what_was_typed(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--aet", "CT3B", "--site", "north", "--network", "10.0.0.0/8", "--address", "10.1.2.3:104", "--plain")
    grant = grant_from("ct3", arguments(*NEW, *more, "--key", "rsa", "--days", "30"), settings, None)
    assert (grant.ae_titles, grant.role, grant.site) == (("CT3", "CT3B"), "modality", "north")
    assert (grant.networks, grant.address, grant.plain) == (
        ("10.0.0.0/8",),
        Endpoint(host="10.1.2.3", port=104),
        True,
    )
    assert (grant.key_kinds, grant.life, grant.revoke_others) == (("rsa",), timedelta(days=30), False)
    plain = grant_from("ct3", arguments(*NEW), settings, None, revoke_others=True)
    assert (plain.networks, plain.key_kinds, plain.revoke_others) == ((), ("ecdsa", "rsa"), True)
    assert plain.life == timedelta(days=settings.enrolment.life_days)
    assert capsys.readouterr().err == ""
    grant_from("ct3", arguments(*NEW, "--network", "any"), settings, None)
    assert "from every address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        (("--role", "modality"), "its --aet AET and --role ROLE are needed"),
        (("--aet", "CT3"), "its --aet AET and --role ROLE are needed"),
        ((*NEW, "--plain"), "add --address HOST:PORT"),
        ((*NEW, "--days", "0"), "a life of 0 days"),
        ((*NEW, "--days", "3651"), "a life of 3651 days"),
        ((*NEW, "--network", "10.0.0.1/8"), "10.0.0.1/8"),
        (("--aet", "A" * 17, "--role", "modality"), "A" * 17),
        (("--aet", "CT3", "--role", "modalty"), "did you mean 'modality'"),
    ],
)
def test_what_can_not_be_granted_is_wrong_use(settings: Settings, typed: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        grant_from("ct3", arguments(*typed), settings, None)


def test_registered_device_keeps_what_it_has(settings: Settings) -> None:
    known = device("CT1")
    grant = grant_from(known.name, arguments(), settings, known)
    assert (grant.ae_titles, grant.role, grant.networks) == (known.ae_titles, known.role, known.networks)
    same = ("--role", known.role, *(part for title in known.ae_titles for part in ("--aet", title)))
    assert grant_from(known.name, arguments(*same), settings, known) == grant


@pytest.mark.parametrize(
    ("typed", "what"),
    [
        (("--aet", "OTHER"), "AE titles"),
        (("--role", "viewer"), "role"),
        (("--site", "elsewhere"), "site"),
        (("--network", "192.0.2.0/24"), "networks"),
    ],
)
def test_other_words_about_a_registered_device_are_refused(
    settings: Settings, typed: tuple[str, ...], what: str
) -> None:
    known = device("CT1")
    with pytest.raises(RefusedError, match=f"registered with the {what}"):
        grant_from(known.name, arguments(*typed), settings, known)


def test_several_values_in_one_field() -> None:
    assert several(" A; B|C,D ;;") == ["A", "B", "C", "D"]
    assert several("") == []
