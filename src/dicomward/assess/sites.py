"""The operator's list of sites: which network lies in which country and belongs to which site.

A line is a network (or one address), a country (ISO code or English name) and, if wanted, a site's name, with commas
between them; `#` starts a comment. The longest network that holds an address counts. What is not listed has the
country of its registration, which is where the owner of the address is registered and not always where the server is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dicomward.assess.countries import country_code


class SiteListError(ValueError):
    """A line of the list can't be used; it says which and why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is: `source` is "site", "registration" or "" (not known)."""

    country: str = ""
    site: str = ""
    source: str = ""


class Sites:
    """The list, looked up by the longest network."""

    def __init__(self, rows: list[tuple[IPv4Network | IPv6Network, Place]]) -> None:
        self._by_length: dict[tuple[int, int], dict[int, Place]] = {}
        for network, place in rows:
            by_number = self._by_length.setdefault((network.version, network.prefixlen), {})
            by_number[int(network.network_address)] = place
        self._lengths = sorted(self._by_length, reverse=True)

    def __len__(self) -> int:
        return sum(len(each) for each in self._by_length.values())

    def find(self, address: IPv4Address | IPv6Address) -> Place | None:
        """Return the place of an address, None if no network holds it."""
        number, bits = int(address), address.max_prefixlen
        for version, length in self._lengths:
            if version == address.version:
                place = self._by_length[version, length].get(number >> (bits - length) << (bits - length))
                if place is not None:
                    return place
        return None


def read_sites(text: str) -> Sites:
    """Read a list. Raises SiteListError."""
    rows: list[tuple[IPv4Network | IPv6Network, Place]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = [word.strip() for word in line.partition("#")[0].split(",", 2)]
        if words == [""]:
            continue
        if len(words) < 2:
            raise SiteListError(f"line {number}: a network, a country and a site are wanted, with commas between them")
        try:
            network = ip_network(words[0])
        except ValueError as error:
            raise SiteListError(f"line {number}: {error}") from None
        code = country_code(words[1])
        if not code:
            raise SiteListError(f"line {number}: {words[1]!r} is no country: an ISO code or an English name is wanted")
        rows.append((network, Place(code, words[2] if len(words) > 2 else "", "site")))
    return Sites(rows)


def place_of(address: str, sites: Sites | None, registered: Callable[[str], str | None]) -> Place:
    """Return where an address is; `registered` gives the country of its registration. Raises ValueError."""
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    listed = None if sites is None else sites.find(parsed)
    if listed is not None:
        return listed
    code = registered(str(parsed))
    return Place(code, "", "registration") if code else Place()
