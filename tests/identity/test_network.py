"""Networks: what may be written, and which address is inside; checked against the standard library."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.identity.network import Network, NetworkError, NetworkSet, parse_address, parse_network, shown_address


def _is_not_mapped(address: IPv4Address | IPv6Address) -> bool:
    return isinstance(address, IPv4Address) or address.ipv4_mapped is None


_ADDRESSES = st.ip_addresses().filter(_is_not_mapped)


@st.composite
def _networks(draw: st.DrawFn) -> IPv4Network | IPv6Network:
    address = draw(_ADDRESSES)
    length = draw(st.integers(1, address.max_prefixlen))
    network = ip_network(f"{address}/{length}", strict=False)
    mapped = isinstance(network, IPv6Network) and network.overlaps(IPv6Network("::ffff:0:0/96"))
    return ip_network("10.0.0.0/8") if mapped else network


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.1.2.0/24", Network(4, 8, 0x0A0102)),
        ("10.1.2.3/32", Network(4, 0, 0x0A010203)),
        ("10.1.2.3", Network(4, 0, 0x0A010203)),
        ("128.0.0.0/1", Network(4, 31, 1)),
        ("10.1.2.0/255.255.255.0", Network(4, 8, 0x0A0102)),
        ("2001:db8::/64", Network(6, 64, 0x20010DB800000000)),
        ("any", None),
    ],
)
def test_parsed_when_named(text: str, network: Network | None) -> None:
    assert parse_network(text) == network


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a network"),
        ("Any", "is not a network"),
        ("*", "is not a network"),
        ("10.1.2.3/24", 'has host bits set.*write "10.1.2.0/24" for the network, or "10.1.2.3" for this address alone'),
        ("fd00::7/64", 'write "fd00::/64" for the network'),
        ("10.1.2.0/24,10.1.3.0/24", "several one by one"),
        ("10.1.2.256/32", "is not a network"),
        ("010.1.2.0/24", "is not a network"),
        ("10.1.2.0/33", "is not a network"),
        ("10.1.2/24", "is not a network"),
        ("10.1.2.0/24 ", "is not a network"),
        ("pacs.example", "is not a network"),
        ("::ffff:10.1.2.0/120", "write the IPv4 network instead"),
        ("::/1", "write the IPv4 network instead"),
    ],
)
def test_refused_with_a_hint(text: str, why: str) -> None:
    with pytest.raises(NetworkError, match=why):
        parse_network(text)


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "0.0.0.0/0.0.0.0"])
def test_trap_every_address_must_be_asked_for_by_the_word_any(text: str) -> None:
    with pytest.raises(NetworkError, match='write "any"'):
        parse_network(text)


def test_trap_empty_set_of_networks_allows_nobody() -> None:
    nobody = NetworkSet(())
    assert not nobody.allows("10.1.2.3")
    assert not nobody.names("10.1.2.3")


def test_any_allows_every_address_but_names_none() -> None:
    everybody = NetworkSet(("any",))
    assert everybody.allows("10.1.2.3")
    assert everybody.allows("2001:db8::1")
    assert not everybody.names("10.1.2.3")


@pytest.mark.parametrize("text", ["", "unknown", "10.1.2", "10.1.2.3:104", "/run/socket"])
def test_trap_what_is_no_address_is_not_allowed_even_by_any(text: str) -> None:
    assert parse_address(text) is None
    assert not NetworkSet(("any", "10.0.0.0/8")).allows(text)
    assert not NetworkSet(("10.0.0.0/8",)).names(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.1.2.3", IPv4Address("10.1.2.3")),
        ("::ffff:10.1.2.3", IPv4Address("10.1.2.3")),
        ("::ffff:a01:203", IPv4Address("10.1.2.3")),
        ("fe80::1%eth0", IPv6Address("fe80::1")),
        ("2001:db8::1", IPv6Address("2001:db8::1")),
        # Other IPv6 forms that hold an IPv4 address are IPv6 hosts of their own: nothing is translated.
        ("::10.1.2.3", IPv6Address("::a01:203")),
        ("64:ff9b::10.1.2.3", IPv6Address("64:ff9b::a01:203")),
    ],
)
def test_ipv4_shown_as_ipv6_is_ipv4(text: str, address: IPv4Address | IPv6Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::ffff:x", "::ffff:x"),
    ],
)
def test_an_address_on_record_is_ipv4_where_it_is_one(text: str, shown: str) -> None:
    assert shown_address(text) == shown


def test_ipv4_mapped_peer_is_inside_its_ipv4_network() -> None:
    assert NetworkSet(("10.1.2.0/24",)).allows("::ffff:10.1.2.3")


@given(_networks())
def test_every_network_of_the_standard_library_is_read_the_same(network: IPv4Network | IPv6Network) -> None:
    parsed = parse_network(str(network))
    bits = network.max_prefixlen - network.prefixlen
    assert parsed == Network(network.version, bits, int(network.network_address) >> bits)


@given(st.lists(_networks(), max_size=8), _ADDRESSES)
def test_address_is_inside_exactly_when_the_standard_library_says_so(
    networks: list[IPv4Network | IPv6Network], address: IPv4Address | IPv6Address
) -> None:
    expected = any(address in network for network in networks)
    assert NetworkSet(map(str, networks)).allows(str(address)) is expected


@given(_networks(), st.integers(0))
def test_each_address_of_a_network_is_inside(network: IPv4Network | IPv6Network, number: int) -> None:
    inside = int(network.network_address) + number % network.num_addresses
    address = IPv4Address(inside) if network.version == 4 else IPv6Address(inside)
    assert NetworkSet((str(network),)).names(str(address))
    assert ip_address(str(address)) in network
