"""From a manifest and a seed to the servers of a fleet: every total is met exactly, whatever the seed."""

import json
import tomllib
from dataclasses import asdict, dataclass, fields
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random
from typing import Final

from dicomward.assess.countries import COUNTRIES
from fleet.controls import (
    KNOWN_AE_TITLE,
    TLS_PORT,
    UNKNOWN_AE_TITLE,
    ControlsError,
    truth_of_controls,
    with_controls,
    write_certificate,
)

PORTS: Final = (11112, 4242, 10104, 11113)
CERTIFICATE: Final = "simulator.pem"
_FEWEST_RECORDS: Final = 8
# Not privileged. Only a server in TLS beside one in plaintext shares its address: one association a host.
_FIRST_ADDRESS: Final = int(IPv4Address("127.64.0.10"))

# Implementation class UID and version name as the products send them, and which product that is.
PRODUCTS: Final = (
    ("1.2.276.0.7230010.3.0.3.6.7", "OFFIS_DCMTK_367", "DCMTK 3.6.7"),
    ("1.2.276.0.7230010.3.0.3.6.0", "OFFIS_DCMTK_360", "DCMTK 3.6.0"),
    ("1.2.40.0.13.1.3", "dcm4che-5.29.1", "dcm4che 5.29.1"),
    ("1.2.40.0.13.1.1", "dcm4che-2.0", "dcm4che 2.0"),
    ("1.2.826.0.1.3680043.9.3811.2.0.2", "PYNETDICOM_202", "pynetdicom 2.0.2"),
    ("1.3.6.1.4.1.30071.8", "fo-dicom 4.0.8", "fo-dicom 4.0.8"),
    ("1.2.826.0.1.3680043.2.60.0.1", "SOMEPACS", ""),
)
# The assessment is told of these networks, and finds the servers in them.
SCOPE: Final = """\
owner = "the simulated internet"
authorisation = "it is ours, and simulated"
contact = "nobody"
valid_from = 2000-01-01
valid_until = 2999-12-31
dimse_ports = {ports}
web_ports = []
sites = "sites.csv"
called_ae_titles = ["{title}"]

[[network]]
cidr = "{network}"
counting = true

[pace]
hosts_at_once = 256
connections_per_second = 100000
# Both ends share two cores: what takes long is the machine's fault, not the server's.
slow_floor = 30
answer_timeout = 60
host_seconds = 600
# The largest archive is asked again from its beginning after a break: its patients count exactly.
reread_matches = 100000000
"""


class ManifestError(ValueError):
    """A manifest that can't be met; it says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a fleet has to add up to.

    Of those that refuse strangers `client_certificate` do so in TLS. `tls_only` speak nothing but TLS, which anybody
    may; `tls_beside` do so on another port of a server in plaintext. `called_known` leak to those who call them by a
    title that the scope names, `called_unknown` have one that nobody knows.
    """

    servers: int
    countries: int
    leaking: int
    authorised: int
    personal_records: int
    medical_records: int
    tampering_records: int
    client_certificate: int
    tls_only: int
    tls_beside: int
    called_known: int
    called_unknown: int
    country_records: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One simulated server.

    `kind`: leaking; guarded (rejects unknown callers); failing (a query ends in a failure); empty; no-query (the query
    context is refused). `cap`: most answers of one query, 0 for all. `days`: how many days its studies are spread over.
    `abroad`: the country of every 20th patient, "" for none. `tls`: "" for plaintext, "any", or "certificate" where a
    client's is wanted. `called_ae_title`: the only one that it answers to, "" for all.
    """

    address: str
    port: int
    country: str
    kind: str
    product: int
    storage: bool
    patients: int = 0
    studies: int = 0
    days: int = 1
    cap: int = 0
    abroad: str = ""
    tls: str = ""
    called_ae_title: str = ""


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises ManifestError."""
    value = tomllib.loads(path.read_text("utf-8"))
    known = {item.name for item in fields(Manifest)}
    if set(value) != known:
        raise ManifestError(f"{path.name}: not known or missing: {', '.join(sorted(known ^ set(value)))}")
    return Manifest(**value)


def split_exactly(total: int, weights: list[float], least: int = 0) -> list[int]:
    """Split a total by weights into whole numbers of at least `least` that add up to it. Raises ManifestError."""
    spare = total - least * len(weights)
    if spare < 0 or (not weights and total):
        raise ManifestError(f"{total} can't be split into {len(weights)} parts of at least {least}")
    if not weights:
        return []
    whole = sum(weights)
    shares = [spare * weight / whole for weight in weights]
    parts = [int(share) for share in shares]
    order = sorted(range(len(weights)), key=lambda place: parts[place] - shares[place])
    for place in order[: spare - sum(parts)]:
        parts[place] += 1
    return [part + least for part in parts]


def generate(manifest: Manifest, seed: int) -> list[Server]:
    """Make the fleet. Raises ManifestError if the manifest can't be met."""
    random = Random(seed)
    named = list(manifest.country_records)
    others = [code for code, _, _ in COUNTRIES if code not in named]
    random.shuffle(others)
    codes = named + others[: manifest.countries - len(named)]
    if len(codes) != manifest.countries or manifest.servers < 4 * len(named) + len(codes) + 1:
        raise ManifestError("too many countries, or too few servers for them")
    homes = _homes(manifest, codes, random)
    leaks = _leaking(manifest, homes, named, random)
    records = _records(manifest, homes, leaks, random)
    places = sorted(leaks)
    patients = dict(
        zip(
            places,
            split_exactly(
                manifest.personal_records, [records[each] * random.uniform(0.9, 1.1) for each in places], least=1
            ),
            strict=True,
        )
    )
    guarded = set(
        random.sample([place for place in range(manifest.servers) if place not in leaks], manifest.authorised)
    )
    servers: list[Server] = []
    for place, country in enumerate(homes):
        base: dict[str, object] = {
            "address": str(IPv4Address(_FIRST_ADDRESS + place * 7)),
            "port": random.choice(PORTS),
            "country": country,
            "product": random.randrange(len(PRODUCTS)),
        }
        if place in leaks:
            servers.append(_leak(base, records[place], patients[place], leaks[place], codes, random))
        else:
            kind = (
                "guarded" if place in guarded else random.choice(("failing", "empty", "empty", "no-query", "no-query"))
            )
            servers.append(Server(**base, kind=kind, storage=random.random() < 0.7))  # type: ignore[arg-type]
    if truth_of(servers).personal != manifest.personal_records:
        raise ManifestError("more patients than examinations: there is no such archive")
    try:
        # A dice of its own: the guards change nothing of what a seed has always meant.
        return with_controls(servers, manifest, Random(f"controls {seed}"))
    except ControlsError as error:
        raise ManifestError(str(error)) from error


def _homes(manifest: Manifest, codes: list[str], random: Random) -> list[str]:
    weights = [random.paretovariate(1.1) for _ in codes]
    least = [4 if code in manifest.country_records else 1 for code in codes]
    extra = split_exactly(manifest.servers - sum(least), weights)
    homes = [code for code, low, more in zip(codes, least, extra, strict=True) for _ in range(low + more)]
    random.shuffle(homes)
    return homes


def _leaking(manifest: Manifest, homes: list[str], named: list[str], random: Random) -> dict[int, bool]:
    """Choose the leaking servers; the value says if storage is open too. Named countries and all others have both."""
    leaks: dict[int, bool] = {}
    for code in named:
        its = [place for place, country in enumerate(homes) if country == code]
        leaks.update(zip(random.sample(its, 4), (True, True, False, False), strict=True))
    elsewhere = [place for place, country in enumerate(homes) if country not in named]
    leaks.update(zip(random.sample(elsewhere, 2), (True, False), strict=True))
    if manifest.leaking < len(leaks):
        raise ManifestError("too few leaking servers: four for each named country and two more are needed")
    rest = [place for place in range(len(homes)) if place not in leaks]
    for place in random.sample(rest, manifest.leaking - len(leaks)):
        leaks[place] = random.random() < 0.66
    return leaks


def _records(manifest: Manifest, homes: list[str], leaks: dict[int, bool], random: Random) -> dict[int, int]:
    """Give each leaking server its records: by country, and those open to tampering, exactly."""
    total = manifest.personal_records + manifest.medical_records
    weight = {place: random.paretovariate(1.3) for place in leaks}
    others = [place for place in leaks if homes[place] not in manifest.country_records]
    by_group: dict[tuple[str, bool], int] = {}
    # The named countries have the share of the whole; what rounding leaves goes to the others.
    share = manifest.tampering_records / total
    for code, number in manifest.country_records.items():
        by_group[code, True] = round(number * share)
        by_group[code, False] = number - by_group[code, True]
    open_rest = manifest.tampering_records - sum(n for (_, is_open), n in by_group.items() if is_open)
    rest = total - sum(by_group.values())
    by_group["", True], by_group["", False] = open_rest, rest - open_rest
    records: dict[int, int] = {}
    for (code, is_open), number in by_group.items():
        its = [
            place
            for place in (others if not code else leaks)
            if leaks[place] is is_open and (not code or homes[place] == code)
        ]
        parts = split_exactly(number, [weight[place] for place in its], least=_FEWEST_RECORDS)
        records.update(zip(its, parts, strict=True))
    return records


def _leak(
    base: dict[str, object], records: int, patients: int, storage: bool, codes: list[str], random: Random
) -> Server:
    patients = min(patients, records // 2)
    studies = records - patients
    days = random.randint(400, 8000)
    most_a_day = -(-studies // days)
    caps = [cap for cap in (100, 200, 500) if 2 * most_a_day < cap < studies]
    return Server(
        **base,  # type: ignore[arg-type]
        kind="leaking",
        storage=storage,
        patients=patients,
        studies=studies,
        days=days,
        cap=random.choice(caps) if caps and random.random() < 0.05 else 0,
        abroad=random.choice(codes) if random.random() < 0.2 else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the assessment has to find."""

    servers: int
    countries: int
    leaking: int
    authorised: int
    records: int
    personal: int
    medical: int
    tampering: int
    by_country: dict[str, int]
    products: dict[str, int]
    controls: dict[str, dict[str, int]]


def truth_of(servers: list[Server]) -> Truth:
    """Add up what the servers hold."""
    leaking = [each for each in servers if each.kind == "leaking"]
    by_country: dict[str, int] = {}
    products: dict[str, int] = {}
    for each in servers:
        # Who rejects an association says nothing of itself.
        is_rejected = each.kind == "guarded" or each.called_ae_title == UNKNOWN_AE_TITLE
        name = "" if is_rejected else PRODUCTS[each.product][2]
        products[name] = products.get(name, 0) + 1
    for each in leaking:
        by_country[each.country] = by_country.get(each.country, 0) + each.patients + each.studies
    return Truth(
        servers=len(servers),
        countries=len({each.country for each in servers}),
        leaking=len(leaking),
        authorised=sum(each.kind == "guarded" for each in servers),
        records=sum(each.patients + each.studies for each in leaking),
        personal=sum(each.patients for each in leaking),
        medical=sum(each.studies for each in leaking),
        tampering=sum(each.patients + each.studies for each in leaking if each.storage),
        by_country=dict(sorted(by_country.items())),
        products=dict(sorted(products.items())),
        controls=truth_of_controls(servers),
    )


def write_fleet(directory: Path, servers: list[Server]) -> None:
    """Write what the simulator reads, and apart from it what the assessment may know: the network, and the sites."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "simulator.json").write_text(json.dumps([asdict(each) for each in servers]))
    (directory / "sites.csv").write_text(
        "# Loopback addresses have no country: this file stands for the registration of real ones.\n"
        + "".join(
            f"{address},{country}\n" for address, country in {each.address: each.country for each in servers}.items()
        )
    )
    if any(each.tls for each in servers):
        write_certificate(directory / CERTIFICATE)
    addresses = [IPv4Address(each.address) for each in servers]
    network = IPv4Network((min(addresses), 32))
    while max(addresses) not in network:
        network = network.supernet()
    (directory / "scope.toml").write_text(SCOPE.format(ports=[*PORTS, TLS_PORT], network=network, title=KNOWN_AE_TITLE))


def read_fleet(directory: Path) -> list[Server]:
    """Read what `write_fleet` has written."""
    return [Server(**each) for each in json.loads((directory / "simulator.json").read_text())]
