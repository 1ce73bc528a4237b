"""Which addresses count together."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.limits.network import UNKNOWN, network_of, parse_limit_network, source_of


@pytest.mark.parametrize(
    ("address", "network", "source"),
    [
        ("10.1.2.3", "10.1.2.0/24", "10.1.2.3"),
        ("10.1.2.255", "10.1.2.0/24", "10.1.2.255"),
        ("::ffff:10.1.2.3", "10.1.2.0/24", "10.1.2.3"),
        ("2001:db8::1", "2001:db8::/64", "2001:db8::/64"),
        ("2001:db8::ffff:1:2:3", "2001:db8::/64", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/64"),
        ("::1", "::/64", "::/64"),
        ("", UNKNOWN, UNKNOWN),
        ("/run/socket", UNKNOWN, UNKNOWN),
        ("10.1.2", UNKNOWN, UNKNOWN),
    ],
)
def test_network_of_a_device_and_source_of_a_stranger(address: str, network: str, source: str) -> None:
    assert network_of(address) == network
    assert source_of(address) == source


@given(st.ip_addresses())
def test_every_address_is_in_its_network(address: IPv4Address | IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    network = network_of(str(address))
    assert (mapped or address) in ip_network(network)
    assert parse_limit_network(network) == network
    assert network_of(network.partition("/")[0]) == network


@pytest.mark.parametrize(
    ("text", "network"), [("10.1.2.0/24", "10.1.2.0/24"), ("2001:0db8::/64", "2001:db8::/64"), ("::/64", "::/64")]
)
def test_limit_network_is_written_as_the_book_counts_it(text: str, network: str) -> None:
    assert parse_limit_network(text) == network


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.1.2.3", "10.1.2.3/24", "2001:db8::/48", "any", "", "10.1.2.0"])
def test_limit_network_of_another_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"10\.|2001|any|''"):
        parse_limit_network(text)
