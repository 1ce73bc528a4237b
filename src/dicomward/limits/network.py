"""Which addresses count together: one network for devices, one source for strangers.

A network is the peer's /24 (IPv4) or /64 (IPv6), not the CIDR that the registry binds the device to: every address has
exactly one, also where "any" was typed; networks never overlap, so nobody is counted twice or apart from the neighbour;
and registering a device with a wider or narrower CIDR can't raise what its network may use. Pure: text in, text out.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

IPV4_PREFIX = 24
IPV6_PREFIX = 64

UNKNOWN = "unknown"


# The same few addresses call again and again; a crowd of strangers only makes this forget.
@lru_cache(maxsize=1_024)
def network_of(address: str) -> str:
    """Return the network that an address counts in: `10.1.2.0/24` or `2001:db8::/64`; `unknown` if it is no address."""
    parsed = _parse(address)
    if parsed is None:
        return UNKNOWN
    if isinstance(parsed, IPv4Address):
        return f"{IPv4Address(int(parsed) >> 8 << 8)}/{IPV4_PREFIX}"
    return f"{IPv6Address(int(parsed) >> 64 << 64)}/{IPV6_PREFIX}"


@lru_cache(maxsize=1_024)
def source_of(address: str) -> str:
    """Return what a stranger is remembered by: its IPv4 address, or its IPv6 /64, since one host has 2^64 of those."""
    parsed = _parse(address)
    return str(parsed) if isinstance(parsed, IPv4Address) else network_of(address)


def parse_limit_network(text: str) -> str:
    """Return the network as `network_of` writes it. Raises ValueError for one of another size."""
    network = ip_network(text)
    if network.prefixlen != (IPV4_PREFIX if network.version == 4 else IPV6_PREFIX):
        raise ValueError(f"{text!r} is not a /{IPV4_PREFIX} of IPv4 or a /{IPV6_PREFIX} of IPv6")
    return str(network)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address as the socket gives it; a zone is dropped, IPv4 shown as IPv6 is IPv4 (RFC 4291 §2.5.5.2)."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
