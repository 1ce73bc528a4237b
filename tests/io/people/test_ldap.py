"""A directory as a source, against a real slapd: over TLS only, with names that can't break out, and in time."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomward.identity.person import Person, PersonClaim, PersonRefused, PersonUnavailable
from dicomward.io.people import ldap as module
from dicomward.io.people.ldap import LdapSettings, LdapSource
from dicomward.vocab.association import UserIdentityType
from tests.real.processes import LOOPBACK, free_port
from tests.real.slapd import BASE, PEOPLE, Slapd, slapd

pytestmark = pytest.mark.real

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
ANNA = Person(name="anna", groups=frozenset({"readers"}), until=NOW + timedelta(hours=12))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    with slapd(tmp_path_factory.mktemp("slapd")) as running:
        yield running


@pytest.fixture
def by_dn(directory: Slapd) -> LdapSettings:
    return LdapSettings(
        host=LOOPBACK,
        port=directory.tls_port,
        is_ldaps=True,
        ca=directory.ca,
        person_dn=f"uid={{username}},{PEOPLE}",
        search_base="",
        search_filter="",
        bind_dn="",
        bind_passcode_file=None,
        group_attribute="memberOf",
        seconds=5.0,
    )


@pytest.fixture
def by_search(by_dn: LdapSettings, tmp_path: Path) -> LdapSettings:
    own = tmp_path / "own.txt"
    own.write_text("its own passcode\n", encoding="utf-8")
    return replace(
        by_dn,
        person_dn="",
        search_base=BASE,
        search_filter="(uid={username})",
        bind_dn=f"cn=gateway,{BASE}",
        bind_passcode_file=own,
    )


def verify(settings: LdapSettings, name: str = "anna", secret: bytes = b"correct horse") -> object:
    claim = PersonClaim(
        type=UserIdentityType.USERNAME_AND_PASSCODE, name=name, secret=secret, device="ws1", address=LOOPBACK
    )
    return LdapSource(settings, timedelta(hours=12)).verify(claim, NOW)


def test_a_person_is_verified_by_dn_and_by_search(by_dn: LdapSettings, by_search: LdapSettings) -> None:
    for settings in (by_dn, by_search, replace(by_search, bind_dn="")):
        assert verify(settings) == ANNA
        assert isinstance(verify(settings, secret=b"wrong"), PersonRefused)
        assert isinstance(verify(settings, name="nobody"), PersonRefused)
    assert verify(by_dn, secret=b"correct horse ") == ANNA


def test_groups_may_be_left_out(by_dn: LdapSettings) -> None:
    assert verify(replace(by_dn, group_attribute="")) == replace(ANNA, groups=frozenset())
    assert verify(replace(by_dn, group_attribute="cn")) == replace(ANNA, groups=frozenset({"Anna"}))


def test_start_tls_comes_before_everything(by_dn: LdapSettings, directory: Slapd) -> None:
    assert verify(replace(by_dn, port=directory.port, is_ldaps=False)) == ANNA


@pytest.mark.parametrize(
    "name", ["*", "ann*", "anna)(uid=*", f"bert,{PEOPLE}", "anna,ou=people", "anna+cn=Anna", 'an"na', "#0461", "\\2a"]
)
def test_names_can_not_break_out(by_dn: LdapSettings, by_search: LdapSettings, name: str) -> None:
    for settings in (by_dn, by_search):
        assert isinstance(verify(settings, name=name), PersonRefused)


@pytest.mark.parametrize("secret", [b"", b"\0", b" ", b"\xff"])
def test_no_passcode_is_no_anonymous_bind(by_dn: LdapSettings, secret: bytes) -> None:
    assert isinstance(verify(by_dn, secret=secret), PersonRefused)


def test_two_entries_for_one_name_are_nobody(by_search: LdapSettings) -> None:
    assert isinstance(verify(by_search, name="twin", secret=b"another one"), PersonRefused)
    assert isinstance(verify(by_search, name="twice", secret=b"another one"), Person)


def test_nobody_can_tell_when_the_directory_is_not_the_right_one(by_dn: LdapSettings, tmp_path: Path) -> None:
    from dicomward.io.ca.local import LocalCa

    other = tmp_path / "other.pem"
    other.write_bytes(LocalCa.make("Another CA", NOW).certificate_pem)
    assert isinstance(verify(replace(by_dn, ca=other)), PersonUnavailable)
    # The certificate names 127.0.0.1 and localhost, and no other address.
    assert isinstance(verify(replace(by_dn, host="127.0.0.2")), PersonUnavailable)


def test_nobody_can_tell_when_our_own_account_is_wrong(by_search: LdapSettings, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("wrong", encoding="utf-8")
    verdict = verify(by_search)
    assert isinstance(verdict, PersonUnavailable)
    assert "own account" in verdict.detail
    own.unlink()
    assert isinstance(verify(by_search), PersonUnavailable)
    assert isinstance(verify(replace(by_search, bind_passcode_file=None)), PersonUnavailable)


def test_a_directory_that_is_away_is_not_asked_again_at_once(
    by_dn: LdapSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = LdapSource(replace(by_dn, port=free_port()), timedelta(hours=1))
    claim = PersonClaim(
        type=UserIdentityType.USERNAME_AND_PASSCODE, name="anna", secret=b"x", device="ws1", address=LOOPBACK
    )
    first = source.verify(claim, NOW)
    assert isinstance(first, PersonUnavailable)
    monkeypatch.setattr(source, "_name_of", lambda _name: pytest.fail("asked again"))
    assert source.verify(claim, NOW) == first


def test_a_directory_that_says_nothing_is_given_up_in_time(by_dn: LdapSettings) -> None:
    with socket.socket() as silent:
        silent.bind((LOOPBACK, 0))
        silent.listen()
        port = silent.getsockname()[1]
        for is_ldaps in (True, False):
            verdict = verify(replace(by_dn, port=port, is_ldaps=is_ldaps, seconds=0.5))
            assert isinstance(verdict, PersonUnavailable)


def test_what_is_no_dn_is_a_group_as_it_stands() -> None:
    assert module._group_name("cn=readers,dc=x") == "readers"
    assert module._group_name("readers") == "readers"
