"""What the probes of one server have seen, as frozen values; judging is done elsewhere (assess/judge.py).

Rules of this file: facts of the protocol only. No value of a data set has a place here.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """How an association request, or an operation on an open association, ended."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    ABORTED = "aborted"
    CLOSED = "closed"
    SILENT = "silent"
    BROKEN = "broken"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationSeen:
    """One association request and its answer; `source` and `reason` are those of a rejection (PS3.8 §9.3.4).

    `accepted` holds the abstract syntaxes of the accepted contexts, `offered` those that were asked for.
    """

    calling_ae_title: str
    called_ae_title: str
    outcome: Outcome
    source: int = 0
    reason: int = 0
    offered: frozenset[str] = frozenset()
    accepted: frozenset[str] = frozenset()
    implementation_class_uid: str = ""
    implementation_version_name: str = ""
    maximum_length: int = 0
    milliseconds: int = 0
    detail: str = ""

    @property
    def is_accepted(self) -> bool:
        """Say if there was an association."""
        return self.outcome is Outcome.ACCEPTED

    @property
    def says_called(self) -> bool:
        """Say if the called AE title was the reason for the rejection."""
        return self.outcome is Outcome.REJECTED and (self.source, self.reason) == (1, 7)

    @property
    def says_calling(self) -> bool:
        """Say if the calling AE title was the reason for the rejection."""
        return self.outcome is Outcome.REJECTED and (self.source, self.reason) == (1, 3)

    @property
    def says_busy(self) -> bool:
        """Say if a limit or congestion was the reason for the rejection."""
        return self.outcome is Outcome.REJECTED and self.source == 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSeen:
    """One request on an open association: ANSWERED with `status`, or how the association ended in its place."""

    outcome: Outcome
    status: int = 0
    milliseconds: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSeen:
    """A polite series of associations, one after the other: how many were tried, accepted, and why it ended early."""

    tried: int
    accepted: int
    ended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSeen:
    """What a server's certificate says. `key_bits` and `curve` of its key; `signature_hash` as "sha256"."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    key_type: str
    key_bits: int
    signature_hash: str
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    common_name: str = ""
    sha256: str = ""
    is_self_signed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """What TLS on the port showed. `chain_problem` is "" where the chain is trusted.

    `trust_is_own`: the scope names a CA. `wants_certificate`: nothing goes on without a client certificate. `obsolete`
    are the versions below 1.2 that it takes.
    """

    version: str = ""
    cipher: str = ""
    certificate: CertificateSeen | None = None
    wants_certificate: bool = False
    obsolete: tuple[str, ...] = ()
    obsolete_was_tried: bool = False
    chain_problem: str | None = None
    trust_is_own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DimseSeen:
    """What was seen of a DIMSE port.

    `hello` calls it by a title that nobody has; `known` by a title that the operator or another system knows, and
    `known_titles` says if there was one. None is what has not run, and `stopped` says why, "" if all has run.
    """

    hello: AssociationSeen | None = None
    known: AssociationSeen | None = None
    factory: tuple[AssociationSeen, ...] = ()
    factory_is_allowed: bool = False
    known_titles: bool = False
    echo: OperationSeen | None = None
    find: OperationSeen | None = None
    worklist: OperationSeen | None = None
    rate: RateSeen | None = None
    stopped: str = ""

    @property
    def best(self) -> AssociationSeen | None:
        """Return the association that got furthest."""
        for each in (self.hello, self.known, *self.factory):
            if each is not None and each.is_accepted:
                return each
        return self.known or self.hello


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAnswer:
    """The status of one GET; 0 where nothing that is HTTP came. `kind`: "orthanc", "admin", "dicomweb", "root"."""

    kind: str
    path: str
    status: int
    media_type: str = ""
    looks_right: bool = False
    redirect: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSeen:
    """What was seen of an HTTP port; `server` is its Server header, product and version what it says of itself."""

    answers: tuple[WebAnswer, ...] = ()
    server: str = ""
    product: str = ""
    version: str = ""
    stopped: str = ""
