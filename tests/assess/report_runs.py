"""Runs for the tests of reports: invented servers in documentation networks, counted by hand here."""

from dataclasses import replace
from pathlib import Path

from dicomward.assess.findings import findings_of
from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import (
    Confidence,
    Control,
    ControlResult,
    Count,
    Counts,
    ProductGuess,
    Protocol,
    Reach,
    ServerObservation,
    Vulnerability,
)
from dicomward.assess.report_model import RunFacts
from dicomward.io.assess.store import AssessStore, TargetRow

OPEN = (
    Control.TLS_OFFERED,
    Control.TLS_REQUIRED,
    Control.CALLING_AE_TITLE,
    Control.CALLED_AE_TITLE,
    Control.USER_IDENTITY,
    Control.ECHO,
    Control.FIND,
    Control.GET,
    Control.MOVE,
    Control.STORE,
    Control.STORAGE_CONTEXTS,
    Control.RATE_LIMIT,
)
ORTHANC = ProductGuess(vendor="Orthanc", product="Orthanc", version="1.12.4", confidence=Confidence.HIGH)
OFFIS = ProductGuess(vendor="OFFIS", product="DCMTK dcmqrscp", version="3.6.7", confidence=Confidence.MEDIUM)
FACTS = RunFacts(
    owner="Regional Hospitals North",
    authorisation="RN-2026/117",
    contact="security@hospital.example",
    scope_sha256="ab" * 32,
    started_at="2026-11-24T20:00:00+00:00",
    ended_at="2026-11-24T22:10:00+00:00",
    hosts=512,
    hosts_done=512,
    excluded=3,
)


def with_findings(observation: ServerObservation) -> ServerObservation:
    return replace(observation, findings=findings_of(observation))


def controls(verdict: Verdict, which: tuple[Control, ...] = OPEN, why: str = "") -> tuple[ControlResult, ...]:
    return tuple(ControlResult(control=each, verdict=verdict, why=why or f"{each} was seen") for each in which)


def counts(
    records: int, *, personal: int, patients: int, lower: bool = False, countries: tuple[tuple[str, int], ...] = ()
) -> Counts:
    def count(value: int) -> Count:
        return Count(value=value, is_lower_bound=lower)

    return Counts(
        patients=count(patients),
        studies=count(records),
        records=count(records),
        personal=count(personal),
        medical=count(records - personal),
        open_to_tampering=count(records),
        attributes=(("PatientName", records), ("PatientBirthDate", personal)),
        countries=countries,
    )


def leaking(address: str, country: str, its_counts: Counts | None, **changes: object) -> ServerObservation:
    observation = ServerObservation(
        address=address,
        port=104,
        protocol=Protocol.DIMSE,
        reach=Reach.ANSWERED,
        country=country,
        country_source="registration",
        product=ORTHANC,
        controls=controls(Verdict.FAIL),
        counts=its_counts,
    )
    return with_findings(replace(observation, **changes))  # type: ignore[arg-type]


GUARDED = with_findings(
    ServerObservation(
        address="198.51.100.9",
        port=2762,
        protocol=Protocol.DIMSE_TLS,
        reach=Reach.CERTIFICATE_WANTED,
        country="DE",
        country_source="site",
        site="Harbour clinic",
        controls=(
            *controls(Verdict.PASS, (Control.TLS_OFFERED, Control.TLS_REQUIRED, Control.CLIENT_CERTIFICATE)),
            *controls(Verdict.PASS, (Control.FIND, Control.GET, Control.MOVE, Control.STORE, Control.ECHO)),
            *controls(Verdict.FAIL, (Control.CERTIFICATE_EXPIRY,), "it ended on 2026-10-01"),
        ),
    )
)
WEB = with_findings(
    ServerObservation(
        address="198.51.100.20",
        port=8042,
        protocol=Protocol.HTTP,
        reach=Reach.ANSWERED,
        host="pacs.north.example",
        country="DE",
        country_source="site",
        site="Harbour clinic",
        product=ORTHANC,
        controls=controls(Verdict.FAIL, (Control.DICOMWEB_TOKEN, Control.WEB_ADMINISTRATION)),
    )
)
SERVERS = (
    leaking(
        "198.51.100.20",
        "DE",
        counts(184_220, personal=51_006, patients=40_117, countries=(("PL", 312), ("NL", 3))),
        host="pacs.north.example",
        site="Harbour clinic",
        country_source="site",
        called_ae_title="ORTHANC",
        vulnerabilities=(
            Vulnerability(id="CVE-2023-33466", title="Files may be overwritten", source="NVD", is_verified=True),
        ),
    ),
    leaking("203.0.113.4", "IN", counts(9_640_000, personal=2_500_000, patients=1_900_000, lower=True), product=OFFIS),
    leaking("203.0.113.7", "US", counts(812, personal=300, patients=290)),
    leaking("203.0.113.8", "ZA", counts(7_300_000, personal=1_000_000, patients=990_000), product=OFFIS),
    leaking("203.0.113.9", "SG", counts(1_204, personal=1_000, patients=640)),
    leaking("203.0.113.10", "FR", counts(3, personal=1, patients=2)),
    leaking("203.0.113.11", "BR", None),
    GUARDED,
    WEB,
    ServerObservation(address="203.0.113.99", port=104, reach=Reach.SILENT),
)


def write_run(directory: Path, servers: tuple[ServerObservation, ...] = SERVERS, facts: RunFacts = FACTS) -> Path:
    """Write a run as the assessment would leave it; return its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with AssessStore(directory, create=True) as store:
        for name in ("owner", "authorisation", "contact", "scope_sha256", "started_at", "ended_at"):
            store.set_value(name, getattr(facts, name))
        store.add_targets(TargetRow(address=address) for address in {each.address for each in servers})
        for address in {each.address for each in servers}:
            store.finish_host(address, [each for each in servers if each.address == address])
        store.exclude("203.0.113.200", "a ventilator")
    return directory
