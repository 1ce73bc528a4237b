"""The operator's list goes before the registration, the longest network before a shorter one."""

from ipaddress import ip_address

import pytest

from dicomward.assess.sites import Place, SiteListError, place_of, read_sites

LIST = """
# our networks
10.0.0.0/8, Germany
10.1.0.0/16, AT, Vienna, Main Hospital
2001:db8::/32,ZA
192.0.2.7,in   # one address
"""


def registered(address: str) -> str | None:
    return {"8.8.8.8": "US"}.get(address)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("10.2.3.4", Place("DE", "", "site")),
        ("10.1.3.4", Place("AT", "Vienna, Main Hospital", "site")),
        ("::ffff:10.1.3.4", Place("AT", "Vienna, Main Hospital", "site")),
        ("2001:db8::1", Place("ZA", "", "site")),
        ("192.0.2.7", Place("IN", "", "site")),
        ("192.0.2.8", Place()),
        ("8.8.8.8", Place("US", "", "registration")),
        ("::ffff:8.8.8.8", Place("US", "", "registration")),
        ("fe80::1%eth0", Place()),
    ],
)
def test_place_of_an_address(address: str, place: Place) -> None:
    assert place_of(address, read_sites(LIST), registered) == place


def test_without_a_list_the_registration_counts() -> None:
    assert place_of("8.8.8.8", None, registered) == Place("US", "", "registration")


def test_list_knows_its_length_and_other_versions() -> None:
    sites = read_sites(LIST)
    assert len(sites) == 4
    assert read_sites("10.0.0.0/8,DE").find(ip_address("::1")) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [("10.0.0.0/8", "line 1: a network"), ("10.0.0.1/8,DE", "host bits"), ("10.0.0.0/8,Atlantis", "'Atlantis' is no")],
)
def test_bad_lines_are_named(line: str, words: str) -> None:
    with pytest.raises(SiteListError, match=words):
        read_sites(line)
