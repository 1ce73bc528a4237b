"""The report of a run as values: what HTML, PDF, JSON and CSV show, each in its own way.

Rules of this file: numbers, names of controls and what a server says of itself; nothing of a patient can be here,
because nothing of a patient is in an observation. A shared report has no addresses and no evidence unless they are
asked for.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dicomward.assess.findings import CATALOGUE, CatalogueEntry
from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, Count, Counts, Protocol, Reach, ServerObservation
from dicomward.assess.report_counts import (
    COUNT_NAMES,
    ShownCount,
    counted,
    is_leaking,
    show,
    total,
    total_counts,
)
from dicomward.assess.report_map import World
from dicomward.assess.report_severity import Severity, severity_of

_REACHED: Final = (Reach.ANSWERED, Reach.CERTIFICATE_WANTED, Reach.HOSTILE, Reach.HALTED)
_WEB_CONTROLS: Final = (Control.DICOMWEB_TOKEN, Control.WEB_ADMINISTRATION)
_DOORS: Final = (Control.CALLING_AE_TITLE, Control.CLIENT_CERTIFICATE, Control.DICOMWEB_TOKEN)
_OPERATIONS: Final = (Control.FIND, Control.WORKLIST, Control.GET, Control.MOVE, Control.STORE, *_WEB_CONTROLS)
_LEAK: Final = "DWA-RECORDS-EXPOSED"
_WITHHELD: Final = "left out of a shared report"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known of the run itself; `hosts` were to be looked at, `hosts_done` of them were, `excluded` never."""

    owner: str = ""
    authorisation: str = ""
    contact: str = ""
    scope_sha256: str = ""
    started_at: str = ""
    ended_at: str = ""
    hosts: int = 0
    hosts_done: int = 0
    excluded: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a report is made: `shared` hides small counts and evidence, and addresses unless `addresses`."""

    shared: bool = False
    addresses: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeRow:
    """A row of the management table."""

    type: str
    count: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRow:
    """A country or a site; `code` is "" for a site."""

    code: str
    name: str
    servers: int
    leaking: int
    patients: ShownCount
    records: ShownCount
    open_to_tampering: ShownCount


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAt:
    """A server that has a finding."""

    server: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingRow:
    """A kind of finding, and where it was found."""

    entry: CatalogueEntry
    severity: Severity
    found_at: tuple[FoundAt, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRow:
    """A server as the report names it, with its counts by the names of COUNT_NAMES."""

    name: str
    observation: ServerObservation
    product: str
    guarded: str
    counts: Mapping[str, ShownCount]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a report shows. `counts` are the totals; `map_values` by country, of records or of servers."""

    run: RunFacts
    options: Options
    summary: str
    types: tuple[TypeRow, ...]
    counts: Mapping[str, ShownCount]
    servers_reached: int
    servers_leaking: int
    servers_guarded: int
    countries: tuple[PlaceRow, ...]
    sites: tuple[PlaceRow, ...]
    patient_countries: tuple[tuple[str, str, ShownCount], ...]
    findings: tuple[FindingRow, ...]
    servers: tuple[ServerRow, ...]
    not_answered: int
    map_values: Mapping[str, int]
    map_is_of_records: bool


def is_server(observation: ServerObservation) -> bool:
    """Return whether it is a server of DICOM that was reached: not a port that is shut, nor any other web server."""
    if observation.reach not in _REACHED:
        return False
    if observation.protocol in (Protocol.HTTP, Protocol.HTTPS):
        judged = {observation.verdict_of(each) for each in _WEB_CONTROLS}
        return bool(observation.findings) or judged != {Verdict.NOT_RUN}
    return observation.protocol is not Protocol.UNKNOWN or observation.reach is Reach.HOSTILE


def is_guarded(observation: ServerObservation) -> bool:
    """Return whether strangers are effectively kept out: a door refused them, and no operation is open."""
    closed = any(observation.verdict_of(each) is Verdict.PASS for each in _DOORS)
    return closed and all(observation.verdict_of(each) is not Verdict.FAIL for each in _OPERATIONS)


def server_names(observations: Sequence[ServerObservation], *, addresses: bool) -> dict[tuple[str, int], str]:
    """Return how a report calls each server: by host or address and port, or by a number."""
    names = {}
    for number, each in enumerate(observations, 1):
        host = f"{each.host} ({each.address})" if each.host and each.host != each.address else each.address
        names[each.address, each.port] = f"{host} port {each.port}" if addresses else f"server {number}"
    return names


def product_in_words(observation: ServerObservation) -> str:
    """Return the guess of the product, and how sure it is."""
    guess = observation.product
    vendor = "" if guess.product.lower().startswith(guess.vendor.lower()) else guess.vendor
    name = " ".join(part for part in (vendor, guess.product, guess.version) if part)
    return f"{name} ({guess.confidence.value} confidence)" if name else "not known"


def build_report(run: RunFacts, observations: Sequence[ServerObservation], world: World, options: Options) -> Report:
    """Return the report of a run."""
    servers = sorted(filter(is_server, observations), key=lambda each: (each.address, each.port))
    names = server_names(servers, addresses=options.addresses)
    with_counts = counted(servers)
    counts = total_counts([each for _, each in with_counts])
    by_country = _places(servers, with_counts, lambda each: each.country, world, options)
    rounded = options.shared and any(
        row.records.value is None and row.records.text.startswith("<") for row in by_country
    )
    shown = {name: show(getattr(counts, name), shared=options.shared, rounded=rounded) for name in COUNT_NAMES}
    records_by_country = {
        code: value.value
        for code, value in _records_by_country(with_counts).items()
        if code and value is not None and value.value
    }
    is_of_records = bool(records_by_country)
    servers_by_country = {row.code: row.servers for row in by_country if row.code}
    leaking = [each for each in servers if is_leaking(each)]
    guarded = [each for each in servers if is_guarded(each)]
    patient_countries = _patient_countries(with_counts, world, options)
    return Report(
        run=run,
        options=options,
        summary=_summary(servers, leaking, shown),
        types=_types(servers, leaking, guarded, by_country, shown, patient_countries),
        counts=shown,
        servers_reached=len(servers),
        servers_leaking=len(leaking),
        servers_guarded=len(guarded),
        countries=by_country,
        sites=_places([each for each in servers if each.site], with_counts, lambda each: each.site, None, options),
        patient_countries=patient_countries,
        findings=_findings(servers, names, options),
        servers=tuple(_server(each, names, options) for each in servers),
        not_answered=len(observations) - len(servers),
        map_values=records_by_country if is_of_records else servers_by_country,
        map_is_of_records=is_of_records,
    )


def _records_by_country(with_counts: Sequence[tuple[ServerObservation, Counts]]) -> dict[str, Count | None]:
    parts: dict[str, list[Count | None]] = defaultdict(list)
    for server, its_counts in with_counts:
        parts[server.country].append(its_counts.records)
    return {code: total(counts) for code, counts in parts.items()}


def _places(
    servers: Sequence[ServerObservation],
    with_counts: Sequence[tuple[ServerObservation, Counts]],
    key: Callable[[ServerObservation], str],
    world: World | None,
    options: Options,
) -> tuple[PlaceRow, ...]:
    """Return a row for each country (with the world, which names it) or site, the most records first."""
    members: dict[str, list[ServerObservation]] = defaultdict(list)
    for each in servers:
        members[key(each)].append(each)
    counts_of: dict[str, list[Counts]] = defaultdict(list)
    for server, its_counts in with_counts:
        counts_of[key(server)].append(its_counts)
    rows = []
    for place, its_servers in members.items():
        counts = total_counts(counts_of[place])
        row = PlaceRow(
            code=place if world is not None else "",
            name=place if world is None else world.name_of(place),
            servers=len(its_servers),
            leaking=sum(map(is_leaking, its_servers)),
            patients=show(counts.patients, shared=options.shared),
            records=show(counts.records, shared=options.shared),
            open_to_tampering=show(counts.open_to_tampering, shared=options.shared),
        )
        rows.append((-(counts.records.value if counts.records else 0), -row.servers, row.name, row))
    return tuple(row for *_, row in sorted(rows, key=lambda each: each[:3]))


def _patient_countries(
    with_counts: Sequence[tuple[ServerObservation, Counts]], world: World, options: Options
) -> tuple[tuple[str, str, ShownCount], ...]:
    sums: dict[str, int] = defaultdict(int)
    for _, its_counts in with_counts:
        for code, number in its_counts.countries:
            sums[code] += number
    ordered = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        (code, world.name_of(code), show(Count(value=number), shared=options.shared)) for code, number in ordered
    )


def _findings(
    servers: Sequence[ServerObservation], names: Mapping[tuple[str, int], str], options: Options
) -> tuple[FindingRow, ...]:
    """Return the kinds of findings that there are: records that leak, then the worst and the most frequent first."""
    found: dict[str, list[FoundAt]] = defaultdict(list)
    for each in servers:
        for finding in each.findings:
            evidence = _WITHHELD if options.shared else finding.evidence
            found[finding.id].append(FoundAt(server=names[each.address, each.port], evidence=evidence))
    rows = [
        FindingRow(entry=entry, severity=severity_of(entry.cvss), found_at=tuple(found[entry.id]))
        for entry in CATALOGUE.values()
        if entry.id in found
    ]
    return tuple(sorted(rows, key=lambda row: (row.entry.id != _LEAK, -row.severity.score, -len(row.found_at))))


def _server(each: ServerObservation, names: Mapping[tuple[str, int], str], options: Options) -> ServerRow:
    counts = each.counts if each.counts is not None else Counts()
    return ServerRow(
        name=names[each.address, each.port],
        observation=each,
        product=product_in_words(each),
        guarded="yes" if is_guarded(each) else "no" if each.findings else "not certain",
        counts={name: show(getattr(counts, name), shared=options.shared) for name in COUNT_NAMES},
    )


def _summary(
    servers: Sequence[ServerObservation], leaking: Sequence[ServerObservation], shown: Mapping[str, ShownCount]
) -> str:
    """Return the answer in two sentences, for who reads nothing else."""
    if not servers:
        return "No DICOM server answered. That says nothing about servers that were switched off or out of reach."
    reached = f"{len(servers):,} DICOM {'server' if len(servers) == 1 else 'servers'} can be reached"
    if not leaking:
        return f"{reached}. None of them was seen giving patients' records to strangers."
    records = shown["records"]
    what = f"{records.text} patients' records" if records.value != 0 and records.text != "not counted" else "records"
    verb = "gives" if len(leaking) == 1 else "give"
    return f"{reached}. {len(leaking):,} of them {verb} {what} to anyone who asks."


def _types(
    servers: Sequence[ServerObservation],
    leaking: Sequence[ServerObservation],
    guarded: Sequence[ServerObservation],
    countries: Sequence[PlaceRow],
    shown: Mapping[str, ShownCount],
    patient_countries: Sequence[tuple[str, str, ShownCount]],
) -> tuple[TypeRow, ...]:
    share = f" ({100 * len(guarded) / len(servers):.1f} %)" if servers else ""
    rows = [
        (
            "Servers that can be reached",
            f"{len(servers):,}",
            "They answered in DICOM, DICOMweb or an archive's own web.",
        ),
        (
            "Countries that host them",
            f"{sum(1 for row in countries if row.code):,}",
            "By the operator's list of sites, else by where the address is registered.",
        ),
        ("Servers that leak", f"{len(leaking):,}", "They give records to anyone who reaches the port."),
        ("Records exposed", shown["records"].text, "What the open queries answered, counted and never kept."),
        (
            "of these personal",
            shown["personal"].text,
            "Name, address, birth date, sex, patient ID, phone or national number.",
        ),
        (
            "of these medical",
            shown["medical"].text,
            "Examination, its dates, diagnosis or physician, beside who the patient is.",
        ),
        ("Patients", shown["patients"].text, "Different patients, for each server."),
        ("Studies", shown["studies"].text, "Examinations with images."),
        (
            "Records open to tampering",
            shown["open_to_tampering"].text,
            "Their server accepts images from anyone, so that records can be added or changed.",
        ),
        (
            "Servers with effective authorisation",
            f"{len(guarded):,}{share}",
            "They refused a stranger, and no operation was found open.",
        ),
    ]
    if patient_countries:
        rows.append(
            ("Countries of patients", f"{len(patient_countries):,}", "Countries that patients' records name as theirs.")
        )
    return tuple(TypeRow(type=kind, count=count, description=text) for kind, count, text in rows)
