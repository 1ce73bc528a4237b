"""What one run knows about one server, as frozen values, and the same as JSON.

Rules of this file: no patient's value has a place here, only counts and names of attributes. What did not run, or
could not tell, is INCONCLUSIVE or NOT_RUN with its reason, never PASS. The JSON names are those of the fields: the
store, the report and `--json` share them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

from dicomward.assess.isolation import Verdict

OBSERVATION_VERSION: Final = 1


class ObservationError(ValueError):
    """It is no observation that this version can read."""


class Protocol(StrEnum):
    """What a port speaks."""

    DIMSE = "dimse"
    DIMSE_TLS = "dimse-tls"
    HTTP = "http"
    HTTPS = "https"
    UNKNOWN = "unknown"


class Reach(StrEnum):
    """What a port did when it was called.

    ANSWERED: it spoke DICOM or HTTP, also to say no; CERTIFICATE_WANTED: TLS that asks who calls; OTHER: open, but
    neither; HOSTILE: what it sent broke a bound or the protocol; HALTED: it slowed down, and was left alone;
    NOT_TRIED: nothing was sent, `problem` says why.
    """

    ANSWERED = "answered"
    CERTIFICATE_WANTED = "certificate-wanted"
    OTHER = "other"
    HOSTILE = "hostile"
    REFUSED = "refused"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    HALTED = "halted"
    NOT_TRIED = "not-tried"


class Confidence(StrEnum):
    """How sure the guess of a product is."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"


class Control(StrEnum):
    """What is judged; docs/assessment.md says what PASS and FAIL of each mean."""

    TLS_OFFERED = "tls-offered"
    TLS_REQUIRED = "tls-required"
    TLS_VERSION = "tls-version"
    CERTIFICATE_EXPIRY = "certificate-expiry"
    CERTIFICATE_NAME = "certificate-name"
    CERTIFICATE_KEY = "certificate-key"
    CERTIFICATE_CHAIN = "certificate-chain"
    CLIENT_CERTIFICATE = "client-certificate"
    CALLING_AE_TITLE = "calling-ae-title"
    CALLED_AE_TITLE = "called-ae-title"
    FACTORY_AE_TITLE = "factory-ae-title"
    USER_IDENTITY = "user-identity"
    ECHO = "echo"
    FIND = "find"
    GET = "get"
    MOVE = "move"
    STORE = "store"
    WORKLIST = "worklist"
    STORAGE_CONTEXTS = "storage-contexts"
    RATE_LIMIT = "rate-limit"
    DICOMWEB_TOKEN = "dicomweb-token"  # noqa: S105  (the name of a control)
    WEB_ADMINISTRATION = "web-administration"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlResult:
    """The verdict on one control; `why` is for people and always set unless PASS or FAIL speak for themselves."""

    control: Control
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductGuess:
    """Which product a server seems to be. Both identifiers are what the peer says of itself."""

    vendor: str = ""
    product: str = ""
    version: str = ""
    confidence: Confidence = Confidence.NONE
    evidence: tuple[str, ...] = ()
    implementation_class_uid: str = ""
    implementation_version_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vulnerability:
    """A known weakness of the guessed product and version, matched and never tried.

    `is_verified`: the range of versions that have it was compared with its source.
    """

    id: str
    title: str
    source: str = ""
    confidence: Confidence = Confidence.LOW
    is_verified: bool = False

    @property
    def in_words(self) -> str:
        """Return its name for a report, which says so where it is not certain."""
        return self.id if self.is_verified else f"{self.id} (versions not verified)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSeen:
    """What TLS on a port showed; times in ISO 8601, UTC."""

    version: str = ""
    cipher: str = ""
    subject: str = ""
    issuer: str = ""
    not_before: str = ""
    not_after: str = ""
    key: str = ""
    names: tuple[str, ...] = ()
    certificate_sha256: str = ""
    obsolete_versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many; a server that caps its answers, or was left early, gives a lower bound."""

    value: int
    is_lower_bound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What would leak, as numbers. `personal` and `medical` are disjoint (docs/assessment-classes.md).

    `attributes` holds the keyword of each attribute that came with a value, and in how many records; `countries` the
    ISO code of the patients' countries, and how many patients; `open_to_tampering` the records that anyone may write
    beside.
    """

    patients: Count | None = None
    studies: Count | None = None
    records: Count | None = None
    personal: Count | None = None
    medical: Count | None = None
    open_to_tampering: Count | None = None
    attributes: tuple[tuple[str, int], ...] = ()
    countries: tuple[tuple[str, int], ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A finding of the catalogue (assess/findings.py) on this server; `evidence` says what was seen."""

    id: str
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerObservation:
    """One server: an address and a port. `host` is the name it was found under, "" if none.

    `country` is an ISO 3166 code, and `country_source` "site" (the operator's list) or "registration" (of the address).
    `called_ae_title`: the one under which it let itself be called, "" if any or none. `storage_contexts`: how many of
    the offered storage SOP classes it accepted. `slowest_ms`: of its answers. `probes`: how many were sent.
    """

    address: str
    port: int
    protocol: Protocol = Protocol.UNKNOWN
    reach: Reach = Reach.NOT_TRIED
    host: str = ""
    site: str = ""
    country: str = ""
    country_source: str = ""
    called_ae_title: str = ""
    product: ProductGuess = ProductGuess()
    vulnerabilities: tuple[Vulnerability, ...] = ()
    tls: TlsSeen | None = None
    controls: tuple[ControlResult, ...] = ()
    storage_contexts: int = 0
    counts: Counts | None = None
    findings: tuple[Finding, ...] = ()
    started_at: str = ""
    ended_at: str = ""
    probes: int = 0
    slowest_ms: int = 0
    problem: str = ""

    def verdict_of(self, control: Control) -> Verdict:
        """Return the verdict on a control; one that isn't there has not run."""
        return next((each.verdict for each in self.controls if each.control is control), Verdict.NOT_RUN)


# --- JSON ------------------------------------------------------------------------------------------------------------


def observation_to_json(observation: ServerObservation) -> dict[str, Any]:
    """Return the observation as JSON values, with `version`."""
    return {"version": OBSERVATION_VERSION, **_to_json(observation)}


def _to_json(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_to_json(each) for each in value]
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: _to_json(getattr(value, item.name)) for item in fields(value)}
    return value


def observation_from_json(value: object) -> ServerObservation:
    """Read what `observation_to_json` has written; members that are not known are skipped. Raises ObservationError."""
    if not isinstance(value, Mapping) or value.get("version") != OBSERVATION_VERSION:
        raise ObservationError(f"it is no observation of version {OBSERVATION_VERSION}")
    try:
        return ServerObservation(
            **_known(
                ServerObservation,
                value,
                protocol=Protocol,
                reach=Reach,
                product=_product,
                vulnerabilities=_each(_vulnerability),
                tls=_optional(lambda each: TlsSeen(**_known(TlsSeen, each, names=tuple, obsolete_versions=tuple))),
                controls=_each(_control),
                counts=_optional(counts_from_json),
                findings=_each(lambda each: Finding(**_known(Finding, each))),
            )
        )
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ObservationError(f"it is no observation: {error}") from error


def counts_to_json(counts: Counts) -> dict[str, Any]:
    """Return counts as JSON values."""
    result: dict[str, Any] = _to_json(counts)
    return result


def counts_from_json(value: Mapping[str, Any]) -> Counts:
    """Read what `counts_to_json` has written. Raises TypeError, ValueError, AttributeError."""
    count = _optional(lambda each: Count(**_known(Count, each)))
    names = ("patients", "studies", "records", "personal", "medical", "open_to_tampering")
    return Counts(
        **_known(
            Counts,
            value,
            attributes=_pairs,
            countries=_pairs,
            **dict.fromkeys(names, count),
        )
    )


def _known(kind: type, value: Mapping[str, Any], **readers: Any) -> dict[str, Any]:
    names = {item.name for item in fields(kind)}
    return {name: readers[name](each) if name in readers else each for name, each in value.items() if name in names}


def _optional(read: Any) -> Any:
    return lambda value: None if value is None else read(value)


def _each(read: Any) -> Any:
    return lambda values: tuple(read(each) for each in values)


def _pairs(values: Sequence[Sequence[Any]]) -> tuple[tuple[str, int], ...]:
    return tuple((str(name), int(number)) for name, number in values)


def _product(value: Mapping[str, Any]) -> ProductGuess:
    return ProductGuess(**_known(ProductGuess, value, confidence=Confidence, evidence=tuple))


def _vulnerability(value: Mapping[str, Any]) -> Vulnerability:
    return Vulnerability(**_known(Vulnerability, value, confidence=Confidence))


def _control(value: Mapping[str, Any]) -> ControlResult:
    return ControlResult(**_known(ControlResult, value, control=Control, verdict=Verdict))
