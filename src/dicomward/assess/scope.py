"""The scope of an assessment: who has authorised it, until when, and which addresses may be touched how.

Rules of this file: what the scope does not name is outside; a key that nobody knows is an error, because it may have
been meant as a restriction. Public is every address that is not private, loopback or link-local: documentation and
shared ranges count as public too. A public address needs a network line of its own.
"""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from difflib import get_close_matches
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from dicomward.assess.countries import country_code
from dicomward.vocab.ae_title import AeTitleError, parse_ae_title

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DIMSE_PORTS: Final = (104, 11112, 2762, 4242, 2761)
WEB_PORTS: Final = (80, 443, 8042, 8080, 8443)
DICOMWEB_ROOTS: Final = ("/dicom-web", "/dicomweb", "/rs", "/dcm4chee-arc/aets/DCM4CHEE/rs")
MOST_PORTS: Final = 64
MOST_ADDRESSES: Final = 16_777_216
DEFAULT_CALLING_AE_TITLE: Final = "DW-ASSESS"

_PRIVATE: Final = tuple(
    ip_network(each)
    for each in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)


class ScopeError(ValueError):
    """The scope can't be used; `problems` holds every reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeNetwork:
    """A network that may be assessed. `fragile`: one host at a time, with pauses. `proof`: the name that proves it."""

    network: Network
    site: str = ""
    country: str = ""
    fragile: bool = False
    counting: bool = False
    public: bool = False
    proof: str = ""
    called_ae_titles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DoNotProbe:
    """Addresses that are never touched, and why."""

    network: Network
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How gently. Times in seconds; `reread_matches`: studies of a server that are asked for again after a break."""

    hosts_at_once: int = 32
    connections_per_second: float = 200.0
    connect_timeout: float = 2.0
    answer_timeout: float = 10.0
    host_seconds: float = 120.0
    fragile_pause: float = 1.0
    rate_probe: int = 8
    slow_floor: float = 0.25
    reread_matches: int = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The whole scope. `sha256` is that of the file's bytes: what is confirmed."""

    sha256: str
    owner: str
    authorisation: str
    contact: str
    valid_from: date
    valid_until: date
    networks: tuple[ScopeNetwork, ...]
    do_not_probe: tuple[DoNotProbe, ...] = ()
    calling_ae_title: str = DEFAULT_CALLING_AE_TITLE
    called_ae_titles: tuple[str, ...] = ()
    factory_titles: bool = False
    dimse_ports: tuple[int, ...] = DIMSE_PORTS
    web_ports: tuple[int, ...] = WEB_PORTS
    dicomweb_roots: tuple[str, ...] = DICOMWEB_ROOTS
    ca_file: str = ""
    targets: tuple[str, ...] = ()
    sites: str = ""
    pace: Pace = field(default_factory=Pace)

    def is_valid_on(self, day: date) -> bool:
        """Say if the authorisation covers a day; the first and the last day are covered."""
        return self.valid_from <= day <= self.valid_until

    def why_not(self, address: Address) -> str:
        """Return why an address may not be touched, "" if it may."""
        address = unmapped(address)
        for each in self.do_not_probe:
            if address in each.network:
                return f"do_not_probe {each.network}: {each.reason}"
        if self.network_of(address) is None:
            return "outside the scope"
        return ""

    def network_of(self, address: Address) -> ScopeNetwork | None:
        """Return the narrowest network of the scope that holds the address."""
        address = unmapped(address)
        found = [each for each in self.networks if address in each.network]
        return max(found, key=lambda each: each.network.prefixlen, default=None)

    def fragile_network_of(self, address: str) -> str:
        """Return the fragile network that holds an address, "" if none does."""
        found = self.network_of(ip_address(address))
        return str(found.network) if found is not None and found.fragile else ""

    def addresses(self) -> Iterator[tuple[Address, str]]:
        """Yield each address of the networks once, and why it may not be touched ("" if it may)."""
        for place, each in enumerate(self.networks):
            others = [other.network for other in self.networks[:place] if other.network.overlaps(each.network)]
            for address in _hosts(each.network):
                if not any(_has_host(other, address) for other in others):
                    yield address, self.why_not(address)

    def count(self) -> int:
        """Return how many addresses the networks have, those in two of them counted twice."""
        return sum(_size(each.network) for each in self.networks)


def unmapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv4-mapped IPv6 address stands for; any other as it is."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def is_public(network: Network) -> bool:
    """Say if any address of a network may be somebody's on the internet."""
    return not any(network.version == each.version and network.subnet_of(each) for each in _PRIVATE)  # type: ignore[arg-type]


def _hosts(network: Network) -> Iterator[Address]:
    # The first and the last address of an IPv4 network are its own name and its broadcast address.
    return iter(network.hosts()) if network.version == 4 else iter(network)


def _has_host(network: Network, address: Address) -> bool:
    """Say if an address is one of `_hosts(network)`."""
    ends = (network.network_address, network.broadcast_address)
    return address in network and (network.version == 6 or network.prefixlen > 30 or address not in ends)


def _without_host_bits(value: object) -> str:
    """Return which network is meant where an address of it was written, "" if none can be."""
    try:
        return f"; the network is {ip_network(str(value), strict=False)}"
    except ValueError:
        return ""


def _size(network: Network) -> int:
    return network.num_addresses if network.version == 6 or network.prefixlen > 30 else network.num_addresses - 2


# --- reading ---------------------------------------------------------------------------------------------------------

_ROOT: Final = ("scope", "network", "networks", "do_not_probe", "pace")
_SCOPE: Final = (
    "owner", "authorisation", "contact", "valid_from", "valid_until", "calling_ae_title", "called_ae_titles",
    "factory_titles", "dimse_ports", "web_ports", "dicomweb_roots", "ca_file", "targets", "sites",
)  # fmt: skip
_NETWORK: Final = (
    "cidr", "network", "address", "site", "country", "fragile", "counting", "public", "proof", "called_ae_titles",
    "reason", "name",
)  # fmt: skip
_NO_PROBE: Final = ("cidr", "network", "networks", "address", "reason")
_SPELLINGS: Final = {
    "authorization": "authorisation", "authorisation_reference": "authorisation",
    "authorization_reference": "authorisation", "ae_title": "calling_ae_title", "site_list": "sites",
}  # fmt: skip


def parse_scope(data: bytes, name: str = "the scope") -> Scope:
    """Read a scope file. Raises ScopeError with every problem."""
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScopeError([f"{name} is no TOML in UTF-8: {error}"]) from error
    reader = _Reader(name)
    scope = reader.scope(table, sha256(data).hexdigest())
    if reader.problems or scope is None:
        raise ScopeError(reader.problems)
    return scope


class _Reader:
    """Reads the tables, and collects what is wrong with them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.problems: list[str] = []

    def problem(self, text: str) -> None:
        self.problems.append(f"{self._name}: {text}")

    def scope(self, root: Mapping[str, Any], digest: str) -> Scope | None:
        head = {_SPELLINGS.get(key, key): value for key, value in self._table(root.get("scope", {}), "[scope]").items()}
        # What stands above the first table is taken for [scope], so that a short file needs no heading.
        head |= {_SPELLINGS.get(k, k): v for k, v in root.items() if _SPELLINGS.get(k, k) in _SCOPE and k not in _ROOT}
        self._known({_SPELLINGS.get(k, k): v for k, v in root.items()}, (*_ROOT, *_SCOPE), "the file")
        self._known(head, _SCOPE, "[scope]")
        texts: dict[str, Any] = {name: self._text(head, name) for name in ("owner", "authorisation", "contact")}
        begin, end = self._day(head, "valid_from"), self._day(head, "valid_until")
        if begin and end and end < begin:
            self.problem(f"valid_until {end} is before valid_from {begin}")
        entries = [*self._tables(root, "network"), *self._tables(root, "networks")]
        networks = tuple(each for entry in entries for each in self._network(entry))
        if not entries:
            self.problem('no network: write at least one [[network]] with cidr = "10.0.0.0/24"')
        exceptions = tuple(each for entry in self._tables(root, "do_not_probe") for each in self._exception(entry))
        pace = self._pace(root.get("pace", {}))
        calling = self._titles(head, "calling_ae_title", (DEFAULT_CALLING_AE_TITLE,))
        settings: dict[str, Any] = {
            "calling_ae_title": calling[0] if calling else DEFAULT_CALLING_AE_TITLE,
            "called_ae_titles": self._titles(head, "called_ae_titles", ()),
            "factory_titles": self._flag(head, "factory_titles", "[scope]"),
            "dimse_ports": self._ports(head, "dimse_ports", DIMSE_PORTS),
            "web_ports": self._ports(head, "web_ports", WEB_PORTS),
            "dicomweb_roots": tuple(
                each if each.startswith("/") else f"/{each}"
                for each in self._strings(head, "dicomweb_roots", DICOMWEB_ROOTS)
            ),
            "ca_file": str(head.get("ca_file", "")),
            "sites": str(head.get("sites", "")),
            "targets": self._strings(head, "targets", ()),
        }
        if self.problems or begin is None or end is None:
            return None
        return Scope(
            sha256=digest, valid_from=begin, valid_until=end, networks=networks, do_not_probe=exceptions, pace=pace,
            **texts, **settings,
        )  # fmt: skip

    def _known(self, table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
        names = tuple(known)
        for key in table:
            if key not in names:
                close = get_close_matches(key, names, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"the known ones are {', '.join(names)}"
                self.problem(f"unknown key {key!r} in {where}; {hint}")

    def _table(self, value: object, where: str) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        self.problem(f"{where} must be a table")
        return {}

    def _tables(self, root: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
        value = root.get(name, [])
        if isinstance(value, Mapping):
            value = [value]
        if not isinstance(value, list):
            self.problem(f"{name} must be written as [[{name}]]")
            return []
        key = "cidr"
        return [each if isinstance(each, Mapping) else {key: each} for each in value]

    def _text(self, table: Mapping[str, Any], name: str) -> str:
        value = table.get(name)
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            self.problem(f"[scope] needs {name}: a line of text that says who stands for this assessment")
            return ""
        return value.strip()

    def _day(self, table: Mapping[str, Any], name: str) -> date | None:
        value = table.get(name)
        if isinstance(value, str):
            try:
                value = date.fromisoformat(value)
            except ValueError:
                value = None
        if isinstance(value, datetime):
            value = value.date()
        if not isinstance(value, date):
            self.problem(f"[scope] needs {name}: a date as 2026-12-31")
            return None
        return value

    def _flag(self, table: Mapping[str, Any], name: str, where: str) -> bool:
        value = table.get(name, False)
        if not isinstance(value, bool):
            self.problem(f"{where}: {name} must be true or false")
            return False
        return value

    def _strings(self, table: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = table.get(name, list(default))
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(each, str) and each.isprintable() for each in value):
            self.problem(f"{name} must be a list of texts")
            return default
        return tuple(value)

    def _titles(self, table: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        titles = []
        for each in self._strings(table, name, default):
            try:
                titles.append(parse_ae_title(each))
            except AeTitleError as error:
                self.problem(f"{name}: {error}")
        return tuple(titles)

    def _ports(self, table: Mapping[str, Any], name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        value = table.get(name, list(default))
        if (
            not isinstance(value, list)
            or len(value) > MOST_PORTS
            or not all(type(each) is int and 1 <= each <= 0xFFFF for each in value)
        ):
            self.problem(f"[scope]: {name} must be a list of at most {MOST_PORTS} ports from 1 to 65535")
            return default
        return tuple(dict.fromkeys(value))

    def _addresses(self, entry: Mapping[str, Any], where: str) -> list[Network]:
        values: list[object] = []
        for key in ("cidr", "network", "networks", "address"):
            each = entry.get(key, [])
            values += each if isinstance(each, list) else [each]
        networks = []
        for value in values:
            try:
                networks.append(ip_network(str(value)))
            except ValueError as error:
                self.problem(f"{where}: {value!r} is no address and no network: {error}{_without_host_bits(value)}")
        if not values:
            self.problem(f'{where} needs cidr = "10.0.0.0/24" or address = "10.0.0.1"')
        return networks

    def _network(self, entry: Mapping[str, Any]) -> Iterator[ScopeNetwork]:
        where = f"[[network]] {entry.get('cidr') or entry.get('network') or entry.get('address') or ''}".rstrip()
        self._known(entry, _NETWORK, where)
        flags: dict[str, Any] = {name: self._flag(entry, name, where) for name in ("fragile", "counting", "public")}
        texts: dict[str, Any] = {"proof": str(entry.get("proof", "")), "country": self._country(entry, where)}
        site = str(entry.get("site", entry.get("name", "")))
        titles = self._titles(entry, "called_ae_titles", ())
        networks = self._addresses(entry, where)
        for network in networks:
            if is_public(network):
                if not flags["public"] or network.num_addresses != 1 or len(networks) != 1:
                    self.problem(
                        f"{where}: {network} is public; write each public address as a [[network]] of its own, with "
                        'address = "…" and public = true'
                    )
                if flags["counting"] and not texts["proof"]:
                    self.problem(
                        f'{where}: counting on a public address needs proof = "NAME", the host name of {network} whose '
                        "owner has published the TXT record (docs/assessment.md)"
                    )
            yield ScopeNetwork(network=network, site=site, called_ae_titles=titles, **flags, **texts)

    def _country(self, entry: Mapping[str, Any], where: str) -> str:
        text = str(entry.get("country", ""))
        code = country_code(text)
        if text and not code:
            self.problem(f"{where}: {text!r} is no country: an ISO code (DE) or an English name is wanted")
        return code

    def _exception(self, entry: Mapping[str, Any]) -> Iterator[DoNotProbe]:
        self._known(entry, _NO_PROBE, "[[do_not_probe]]")
        reason = entry.get("reason")
        if not isinstance(reason, str) or not reason.strip():
            self.problem("[[do_not_probe]] needs a reason, for those who read the report")
            reason = ""
        for network in self._addresses(entry, "[[do_not_probe]]"):
            yield DoNotProbe(network=network, reason=reason)

    def _pace(self, value: object) -> Pace:
        table = self._table(value, "[pace]")
        self._known(table, _PACE, "[pace]")
        numbers: dict[str, Any] = {}
        for name, (read, low, high) in _PACE.items():
            if name not in table:
                continue
            number = table[name]
            if isinstance(number, bool) or not isinstance(number, int | float) or not low <= number <= high:
                self.problem(f"[pace]: {name} must be a number from {low} to {high}")
            else:
                numbers[name] = read(number)
        return Pace(**numbers)


_PACE: Final[dict[str, tuple[Callable[[Any], Any], float, float]]] = {
    "hosts_at_once": (int, 1, 4096),
    "connections_per_second": (float, 0.1, 100_000),
    "connect_timeout": (float, 0.05, 60),
    "answer_timeout": (float, 0.1, 300),
    "host_seconds": (float, 1, 3600),
    "fragile_pause": (float, 0, 60),
    "rate_probe": (int, 0, 50),
    "slow_floor": (float, 0.01, 60),
    "reread_matches": (int, 1, 1_000_000_000),
}
if set(_PACE) != {item.name for item in fields(Pace)}:
    raise TypeError("every number of Pace has its bounds")
