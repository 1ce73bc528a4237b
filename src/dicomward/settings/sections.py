"""The sections of the settings, one dataclass each. docs/settings.md lists every setting and is checked against them.

The limits keep their defaults and reasons in `dicomward.limits` and `dicomward.dicom.limits`.
"""
# ruff: noqa: RUF009  (setting is dataclasses.field with our metadata)

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomward.dicom.limits import Limits
from dicomward.identity.operators import SECOND_PERSON_WORDS
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.settings import LimitSettings
from dicomward.settings.canaries import CanarySettings
from dicomward.settings.enrolment import EnrolmentSettings
from dicomward.settings.kinds import (
    BOOLEAN,
    CERTIFICATES,
    DATABASE_URL,
    LISTEN_ADDRESS,
    LISTEN_OR_OFF,
    NETWORKS,
    OFF,
    OPTIONAL_PATH,
    OPTIONAL_TEXT,
    PATH,
    SINK,
    STANDARD_ERROR,
    TEXT,
    CertificatePair,
    ListenAddress,
    choice,
    number,
    setting,
    whole_number,
    words,
)
from dicomward.settings.people import PeopleSettings
from dicomward.settings.syslog import SYSLOG_DESTINATIONS, SyslogDestination
from dicomward.settings.zones import LegacyZoneSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """`[gateway]`: where it listens, how long it waits."""

    listen: ListenAddress = setting(
        LISTEN_ADDRESS, "127.0.0.1:11112", "", "where devices connect (TLS); loopback until you decide otherwise"
    )
    archive_listen: ListenAddress = setting(
        LISTEN_ADDRESS,
        "127.0.0.1:11113",
        "",
        "where archives connect: C-STORE of a C-MOVE, and results of Storage Commitment",
    )
    archive_listen_tls: bool = setting(
        BOOLEAN, False, "", "most archives can't do TLS; without it, use loopback or a link of its own"
    )
    handshake_deadline_unknown_seconds: float = setting(
        number(0.1, 60),
        5,
        "s",
        "TLS handshake and A-ASSOCIATE-RQ together, from an address in no registered network; longer feeds scanners",
        reload=True,
    )
    handshake_deadline_registered_seconds: float = setting(
        number(0.1, 300),
        30,
        "s",
        "the same from a registered network: old scanners take 10 s for an RSA handshake",
        reload=True,
    )
    artim_seconds: float = setting(
        number(0.1, 300),
        30,
        "s",
        "PS3.8 §9.1.5: how long an archive may take to answer an A-ASSOCIATE-RQ, and any peer to answer a release",
        reload=True,
    )
    idle_seconds: float = setting(
        number(1, 86_400),
        600,
        "s",
        "an association with nothing outstanding; a C-MOVE that runs for hours isn't idle; ultrasound pauses minutes",
        reload=True,
    )
    stalled_seconds: float = setting(
        number(60, 604_800),
        14_400,
        "s",
        "an operation is outstanding and nothing at all has moved: a C-MOVE without pending responses takes hours",
        reload=True,
    )
    upstream_connect_seconds: float = setting(
        number(0.1, 120),
        5,
        "s",
        "TCP and TLS to an archive; the device waits meanwhile, most give up after 10 s",
        reload=True,
    )
    drain_seconds: float = setting(
        number(0, 3_600),
        30,
        "s",
        "how long open associations may go on after SIGTERM; a large study takes longer",
        reload=True,
    )
    most_nested_sequences: int = setting(
        whole_number(0, 10_000),
        0,
        "levels",
        "0 = data sets are not looked into; else deeper ones end their association: 64 where the archive ends at them",
        reload=True,
    )
    proxy_protocol_from: tuple[str, ...] = setting(
        NETWORKS,
        [],
        "",
        "load balancers: they must say by PROXY protocol v2 for whom they speak, and are believed; nobody else is",
        reload=True,
    )
    workers: int = setting(
        whole_number(0, 256), 0, "threads", "0 = automatic: one, since a second waits for the first (docs/adr/0002)"
    )
    state_directory: Path = setting(
        PATH, "run", "", "control socket of the running gateway; only its user may enter (mode 0700)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """`[tls]`: our own certificates, and who we believe."""

    certificates: tuple[CertificatePair, ...] = setting(
        CERTIFICATES,
        [
            {"certificate": "tls/gateway-ecdsa.cert.pem", "key": "tls/gateway-ecdsa.key.pem"},
            {"certificate": "tls/gateway-rsa.cert.pem", "key": "tls/gateway-rsa.key.pem"},
        ],
        "",
        "ECDSA for those who can, RSA for old DCMTK, which can do TLS 1.2 with RSA only",
        reload=True,
    )
    client_ca: Path = setting(
        PATH, "ca/ca.cert.pem", "", "the CAs that device certificates chain to (PEM)", reload=True
    )
    minimum_version: str = setting(
        choice("1.2", "1.3"), "1.2", "TLS version", "PS3.15 B.12 wants 1.2; below it nothing is possible", reload=True
    )
    expired_certificate_grace_days: float = setting(
        number(0, 30),
        14,
        "days",
        "a bound certificate that has just expired keeps the clinical floor, so that no examination stops; 0 = none",
        reload=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """`[registry]`: the database, and what is compiled from it."""

    url: str = setting(
        DATABASE_URL,
        "sqlite:///registry.db",
        "",
        "SQLite needs no server; PostgreSQL for several gateways (its password belongs into ~/.pgpass)",
        secret=True,
        reload=True,
    )
    snapshot: Path = setting(
        PATH,
        "registry.json",
        "",
        "what the gateway reads, so that it starts and runs without the database",
        reload=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """`[health]`: asking archives if they are there, so that a replica can stand in. docs/running.md."""

    check: str = setting(
        choice("replicas", "all", "off"),
        "replicas",
        "",
        "who is asked: archives with replicas and these; all, for metrics and alarms; nobody, so no replica stands in",
        reload=True,
    )
    interval_seconds: float = setting(
        number(1, 3_600), 10, "s", "a C-ECHO so often; an archive is down after two failures in a row", reload=True
    )
    timeout_seconds: float = setting(
        number(0.1, 60), 5, "s", "an archive that hangs is not there for a device either", reload=True
    )
    calling_ae_title: str = setting(
        TEXT, "DICOMWARD", "", "what the gateway calls itself; an archive that rejects it is up", reload=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """`[policy]`: the rules."""

    file: Path = setting(PATH, "policy.toml", "", "the rules; docs/policy.md", reload=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """`[audit]`: where records go. `second_sink` is None for standard error."""

    directory: Path = setting(PATH, "audit", "", "the hash-chained log (mode 0700)")
    second_sink: Path | None = setting(
        SINK,
        STANDARD_ERROR,
        "",
        "records go here while the log can't be written: the service manager's journal, or a file on another disk",
    )
    patients: bool = setting(
        BOOLEAN,
        True,
        "",
        "record the patient ID and Study Instance UID of what is stored, queried and retrieved: incident reports "
        "and the standard's messages need them",
    )
    retention_days: float = setting(
        number(0, 36_500), 0, "days", "older segments are pruned by the running gateway, verifiably; 0 = kept for ever"
    )
    heads_file: Path | None = setting(
        OPTIONAL_PATH, "", "", "signed heads are appended here every minute: name a file on another machine"
    )
    source_id: str = setting(TEXT, "dicomward", "", "AuditSourceID of the standard's messages: name this gateway")
    enterprise_site_id: str = setting(OPTIONAL_TEXT, "", "", "AuditEnterpriseSiteID of the standard's messages")
    syslog: tuple[SyslogDestination, ...] = setting(
        SYSLOG_DESTINATIONS, [], "", "RFC 5425 receivers of audit messages: docs/standard-audit.md"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """`[operators]`: who may use the commands, and what needs two of them. docs/operators.md."""

    file: Path = setting(
        PATH, "operators.toml", "", "the operators and their roles; without it, whoever may write the directory is one"
    )
    second_person: tuple[str, ...] = setting(
        words(*SECOND_PERSON_WORDS),
        [],
        "",
        "what a second operator has to approve, for example all, or device-change",
        reload=True,
    )
    approval_hours: float = setting(
        number(0.1, 720),
        24,
        "hours",
        "a request, and its approval, end after so long: the second one may be away",
        reload=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """`[metrics]`: a listener for monitoring. `listen` is None for off."""

    listen: ListenAddress | None = setting(
        LISTEN_OR_OFF,
        OFF,
        "",
        'HTTP: /metrics, /healthz, /readyz; "127.0.0.1:9762" is the usual place; it asks nobody who they are',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingSettings:
    """`[logging]`: the messages on standard error."""

    format: str = setting(choice("text", "json"), "text", "", "text for people, JSON for a log collector")
    level: str = setting(
        choice("debug", "info", "warning", "error"), "info", "", "the least important messages that are written"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole tree. `path` is the file that it came from."""

    path: Path
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    tls: TlsSettings = field(default_factory=TlsSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    health: HealthSettings = field(default_factory=HealthSettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    operators: OperatorSettings = field(default_factory=OperatorSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    people: PeopleSettings = field(default_factory=PeopleSettings)
    enrolment: EnrolmentSettings = field(default_factory=EnrolmentSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    dicom_limits: Limits = field(default_factory=Limits)
    budgets: BudgetSettings = field(default_factory=BudgetSettings)
    canaries: tuple[CanarySettings, ...] = ()
    legacy_zones: tuple[LegacyZoneSettings, ...] = ()

    @property
    def directory(self) -> Path:
        """The directory that relative paths start from."""
        return self.path.parent


SECTIONS: Final[dict[str, type]] = {
    "gateway": GatewaySettings,
    "tls": TlsSettings,
    "registry": RegistrySettings,
    "policy": PolicySettings,
    "health": HealthSettings,
    "audit": AuditSettings,
    "operators": OperatorSettings,
    "metrics": MetricsSettings,
    "logging": LoggingSettings,
    "people": PeopleSettings,
    "enrolment": EnrolmentSettings,
}
