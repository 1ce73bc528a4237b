"""Networks that devices may call from, and a set of them that answers "is this address inside?" in constant time."""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

ANY: Final = "any"

_IPV4_MAPPED: Final = IPv6Network("::ffff:0:0/96")
# The usual form, read without ipaddress: a start with 5,000 devices has some 10,000 of them.
_IPV4_CIDR: Final = re.compile(
    r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})/([1-9]|[12][0-9]|3[0-2])\Z",
    re.ASCII,
)

Address = IPv4Address | IPv6Address


class NetworkError(ValueError):
    """The text is not a network that a device can be bound to; the message says why and what to write."""


class Network(NamedTuple):
    """A named network: `number` is the address without its `host_bits` lowest bits."""

    version: int
    host_bits: int
    number: int


# Devices share networks, and a snapshot reads each twice: to check it, and to index it.
@lru_cache(maxsize=16_384)
def parse_network(text: str) -> Network | None:
    """Read one network: CIDR text, a single address, or the word `any` (returned as None). Raises NetworkError.

    Every address must be asked for by that word: a prefix of length 0 is refused, so that nobody opens a device to the
    world by a slip of one digit.
    """
    match = _IPV4_CIDR.match(text)
    if match is not None:
        a, b, c, d, length = map(int, match.groups())
        number, host_bits = (a << 24) | (b << 16) | (c << 8) | d, 32 - length
        if (a | b | c | d) <= 0xFF and not number & ((1 << host_bits) - 1):
            return Network(4, host_bits, number >> host_bits)
    return None if text == ANY else _parse_unusual_network(text)


def _parse_unusual_network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise NetworkError(f"{text!r} is not a network ({error}); {_how_to_write(text)}") from error
    if network.prefixlen == 0:
        raise NetworkError(f'{text!r} is every address; if that is what you want, write "any"')
    if isinstance(network, IPv6Network) and network.overlaps(_IPV4_MAPPED):
        raise NetworkError(f"{text!r} covers IPv4 addresses written as IPv6; write the IPv4 network instead")
    host_bits = network.max_prefixlen - network.prefixlen
    return Network(network.version, host_bits, int(network.network_address) >> host_bits)


def _how_to_write(text: str) -> str:
    """Return what to write instead: the network of an address with a prefix, where it is one."""
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        return 'write it as "10.1.2.0/24", several one by one, or "any"'
    return f'write "{meant}" for the network, or "{text.partition("/")[0]}" for this address alone'


# A peer's address is asked for several times in each association.
@lru_cache(maxsize=1_024)
def parse_address(text: str) -> Address | None:
    """Read a peer's address as the socket gives it, or None where it is none.

    An IPv4 address that a dual-stack listener shows as IPv6 (`::ffff:10.1.2.3`, RFC 4291 §2.5.5.2) is the IPv4 address;
    a zone (`%eth0`) is dropped.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def shown_address(text: str) -> str:
    """Return a peer's address as records have it: an IPv4 address is one, also where a dual-stack listener took it."""
    address = parse_address(text) if text.startswith("::ffff:") else None
    return text if address is None else str(address)


class NetworkSet:
    """An immutable set of networks. An empty set holds no address: only the word `any` means every address."""

    __slots__ = ("_numbers", "any")

    def __init__(self, texts: Iterable[str]) -> None:
        """Build from the texts that `parse_network` reads. Raises NetworkError."""
        # (version, host bits) -> numbers: a look-up costs one set look-up for each prefix length in use, however many
        # networks there are.
        self._numbers: dict[tuple[int, int], set[int]] = {}
        self.any = False
        for text in texts:
            network = parse_network(text)
            if network is None:
                self.any = True
            else:
                self._numbers.setdefault(network[:2], set()).add(network.number)

    def names(self, text: str) -> bool:
        """Say if the address is in one of the networks that are named; `any` names none."""
        address = parse_address(text)
        if address is None:
            return False
        version, number = address.version, int(address)
        return any(v == version and number >> bits in numbers for (v, bits), numbers in self._numbers.items())

    def allows(self, text: str) -> bool:
        """Say if the address may be used: it is in a named network, or it is an address at all and `any` was typed."""
        if self.any:
            return parse_address(text) is not None
        return self.names(text)
