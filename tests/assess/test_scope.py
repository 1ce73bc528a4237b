"""A scope names who, when and where; what it does not name is outside, and what nobody knows is an error."""

from datetime import date
from hashlib import sha256
from ipaddress import ip_address, ip_network

import pytest

from dicomward.assess.scope import Pace, Scope, ScopeError, is_public, parse_scope, unmapped

HEAD = """
[scope]
owner = "Clinic"
authorisation = "A-17"
contact = "it@clinic.example"
valid_from = 2026-11-01
valid_until = 2026-12-31
"""
NETWORK = '[[network]]\ncidr = "10.0.0.0/29"\n'


def scope_of(text: str) -> Scope:
    return parse_scope(text.encode())


def problems_of(text: str) -> str:
    with pytest.raises(ScopeError) as caught:
        parse_scope(text.encode(), "s.toml")
    return str(caught.value)


def test_full_scope_is_read() -> None:
    text = (
        HEAD
        + """
calling_ae_title = "TESTER"
called_ae_titles = ["PACS"]
factory_titles = true
dimse_ports = [104, 104]
web_ports = []
dicomweb_roots = ["dicom-web"]
ca_file = "ca.pem"
targets = ["list.txt"]
[[network]]
cidr = "10.0.0.0/24"
site = "Main"
country = "DE"
counting = true
[[network]]
cidr = "10.0.0.8/29"
fragile = true
called_ae_titles = "OTHER"
[[network]]
address = "203.0.113.9"
public = true
counting = true
proof = "pacs.clinic.example"
[[do_not_probe]]
networks = ["10.0.0.4", "10.0.0.16/30"]
reason = "pumps"
[pace]
hosts_at_once = 4
connect_timeout = 0.5
"""
    )
    scope = scope_of(text)
    assert scope.sha256 == sha256(text.encode()).hexdigest()
    assert (scope.owner, scope.authorisation, scope.contact) == ("Clinic", "A-17", "it@clinic.example")
    assert scope.dimse_ports == (104,)
    assert scope.web_ports == ()
    assert scope.dicomweb_roots == ("/dicom-web",)
    assert scope.calling_ae_title == "TESTER"
    assert scope.pace == Pace(hosts_at_once=4, connect_timeout=0.5)
    assert scope.networks[1].called_ae_titles == ("OTHER",)
    narrowest = scope.network_of(ip_address("10.0.0.9"))
    assert narrowest is not None
    assert narrowest.fragile
    assert scope.why_not(ip_address("10.0.0.4")) == "do_not_probe 10.0.0.4/32: pumps"
    assert scope.why_not(ip_address("10.0.1.1")) == "outside the scope"
    assert scope.why_not(ip_address("::ffff:10.0.0.1")) == ""
    assert scope.why_not(ip_address("203.0.113.9")) == ""
    addresses = [str(each) for each, _ in scope.addresses()]
    assert len(addresses) == len(set(addresses)) == 255
    assert {str(each) for each, why in scope.addresses() if why} == {
        "10.0.0.4",
        *(f"10.0.0.{n}" for n in range(16, 20)),
    }


def test_days_are_whole() -> None:
    scope = scope_of(HEAD + NETWORK)
    assert scope.is_valid_on(date(2026, 11, 1))
    assert scope.is_valid_on(date(2026, 12, 31))
    assert not scope.is_valid_on(date(2027, 1, 1))
    assert not scope.is_valid_on(date(2026, 10, 31))


def test_short_spellings() -> None:
    scope = scope_of(
        'owner = "C"\nauthorization = "A"\ncontact = "c"\n'
        'valid_from = "2026-01-01"\nvalid_until = 2026-02-01T10:00:00\n'
        'networks = ["192.168.1.1", "fd00::/126"]\n'
    )
    assert scope.valid_until == date(2026, 2, 1)
    assert [str(each) for each, _ in scope.addresses()] == [
        "192.168.1.1",
        "fd00::",
        *(f"fd00::{n}" for n in (1, 2, 3)),
    ]
    assert scope.count() == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\xff", "no TOML"),
        ("scope = 1\n" + NETWORK, "[scope] must be a table"),
        (NETWORK, "[scope] needs owner"),
        (HEAD, "no network"),
        (HEAD + 'onwer = "x"\n' + NETWORK, "did you mean 'owner'?"),
        (HEAD + "zzz = 1\n" + NETWORK, "the known ones are"),
        (HEAD.replace("2026-12-31", "2026-10-01") + NETWORK, "is before valid_from"),
        (HEAD.replace("2026-12-31", '"soon"') + NETWORK, "needs valid_until: a date"),
        (HEAD.replace("2026-12-31", "5") + NETWORK, "needs valid_until: a date"),
        (HEAD + 'factory_titles = "yes"\n' + NETWORK, "true or false"),
        (HEAD + "called_ae_titles = [1]\n" + NETWORK, "list of texts"),
        (HEAD + 'called_ae_titles = ["TOO LONG FOR A TITLE"]\n' + NETWORK, "at most 16"),
        (HEAD + "dimse_ports = [0]\n" + NETWORK, "list of at most"),
        (HEAD + '[[network]]\nsite = "x"\n', "needs cidr"),
        (HEAD + '[[network]]\ncidr = "10.0.0.1/24"\n', "host bits set; the network is 10.0.0.0/24"),
        (HEAD + '[[network]]\ncidr = "8.8.8.0/24"\npublic = true\n', "of its own"),
        (HEAD + '[[network]]\naddress = "8.8.8.8"\n', "public = true"),
        (HEAD + '[[network]]\naddress = "8.8.8.8"\npublic = true\ncounting = true\n', "needs proof"),
        (HEAD + NETWORK + '[[do_not_probe]]\ncidr = "10.0.0.1"\n', "needs a reason"),
        (HEAD + NETWORK + "[pace]\nhosts_at_once = 0\n", "a number from 1 to 4096"),
        (HEAD + NETWORK + "[pace]\nhosts_at_once = true\n", "a number from 1 to 4096"),
        (HEAD + "[networks]\ncidr = 5\n", "no address and no network"),
        ("network = 5\n" + HEAD, "must be written as [[network]]"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    assert said in problems_of(text)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ScopeError, match="no TOML"):
        parse_scope(b"\xff\xfe")


def test_every_problem_is_said_at_once() -> None:
    assert problems_of(NETWORK.replace("cidr", "cdir")).count("\n") >= 5


@pytest.mark.parametrize(
    ("network", "public"),
    [
        ("10.0.0.0/8", False),
        ("10.0.0.0/7", True),
        ("203.0.113.0/24", True),
        ("100.64.0.1/32", True),
        ("fd00::/64", False),
        ("2001:db8::1/128", True),
        ("127.0.0.1/32", False),
    ],
)
def test_public_is_what_is_not_surely_private(network: str, public: bool) -> None:
    assert is_public(ip_network(network)) is public


def test_mapped_addresses_are_ipv4() -> None:
    assert unmapped(ip_address("::ffff:10.0.0.1")) == ip_address("10.0.0.1")
    assert unmapped(ip_address("fd00::1")) == ip_address("fd00::1")


def test_country_of_a_network_is_a_code_or_a_name() -> None:
    (network,) = scope_of(f'{HEAD}{NETWORK}country = "south africa"\n').networks
    assert network.country == "ZA"
    assert "'Atlantis' is no country" in problems_of(f'{HEAD}{NETWORK}country = "Atlantis"\n')


@pytest.mark.parametrize("key", ["sites", "site_list"])
def test_list_of_sites_is_named(key: str) -> None:
    assert scope_of(f'{HEAD}{key} = "sites.csv"\n{NETWORK}').sites == "sites.csv"


def test_studies_that_are_asked_for_again_are_a_part_of_the_pace() -> None:
    assert scope_of(f"{HEAD}{NETWORK}[pace]\nreread_matches = 5\n").pace.reread_matches == 5


def test_fragile_network_of_an_address() -> None:
    scope = scope_of(f'{HEAD}{NETWORK}[[network]]\ncidr = "10.0.1.0/29"\nfragile = true\n')
    assert [scope.fragile_network_of(each) for each in ("10.0.0.1", "10.0.1.1", "10.9.9.9")] == ["", "10.0.1.0/29", ""]


def test_address_at_the_end_of_a_wider_network_is_one_where_it_is_named() -> None:
    wide = '[[network]]\ncidr = "10.0.0.0/29"\n'
    ends = '[[network]]\naddress = "10.0.0.7"\n[[network]]\naddress = "10.0.0.0"\n[[network]]\naddress = "10.0.0.6"\n'
    for text in (wide + ends, ends + wide):
        found = [str(address) for address, why in scope_of(HEAD + text).addresses() if not why]
        assert sorted(found) == [f"10.0.0.{n}" for n in range(8)]
