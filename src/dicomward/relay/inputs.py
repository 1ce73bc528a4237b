"""Everything that can happen to a relay. Results of effects carry the effect's id."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum

from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.person import Verdict
from dicomward.vocab.reason import ReasonCode


class Leg(IntEnum):
    """The two connections of a relay, named by what the peer is in the association."""

    REQUESTOR = 0
    ACCEPTOR = 1

    @property
    def other(self) -> "Leg":
        """The leg opposite."""
        return Leg.ACCEPTOR if self is Leg.REQUESTOR else Leg.REQUESTOR


class Listener(StrEnum):
    """What kind of listener the requestor called."""

    DEVICE = "device"
    ARCHIVE = "archive"
    LEGACY = "legacy zone"


class Timer(StrEnum):
    """The timers of a relay; the executor fires them with TimerFired."""

    REQUEST = "request"
    PERSON = "person"
    PERSON_EXPIRY = "person-expiry"
    UPSTREAM = "upstream"
    IDLE = "idle"
    RELEASE = "release"
    REJECTION = "rejection"
    BYTES_FROM_REQUESTOR = "bytes-from-requestor"
    BYTES_FROM_ACCEPTOR = "bytes-from-acceptor"
    BUDGET_FROM_REQUESTOR = "budget-from-requestor"
    BUDGET_FROM_ACCEPTOR = "budget-from-acceptor"


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment: `monotonic` seconds for arithmetic, `local` wall time of the site (aware) for rules."""

    monotonic: float
    local: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What is known of the requestor's connection before it has said anything in DICOM.

    `listener_name` tells listeners of one kind apart; that of a legacy zone is the zone's name.
    """

    association: str
    listener: Listener
    address: str
    certificate: PeerCertificate | None
    listener_name: str = ""


@dataclass(frozen=True, slots=True)
class Connected:
    """The requestor's connection stands, with TLS after its handshake; the first input of every relay."""


@dataclass(frozen=True, slots=True)
class Received:
    """Plain bytes `buffer[start:end]` from a leg; `dicom.framing.HEADROOM` bytes before `start` are free."""

    leg: Leg
    buffer: memoryview
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The connection of a leg is gone; `detail` for the log."""

    leg: Leg
    detail: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """A durable audit record is on its way no more: written (to a first or second sink), or not."""

    effect_id: int
    written: bool


@dataclass(frozen=True, slots=True)
class UpstreamOpened:
    """The transport to the acceptor stands: connected and, with TLS, authenticated and pinned."""

    effect_id: int


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """The transport to the acceptor could not be made."""

    effect_id: int
    reason: ReasonCode
    detail: str


@dataclass(frozen=True, slots=True)
class Correlated:
    """A pending move or commitment is registered (`granted`), or could not be."""

    effect_id: int
    granted: bool


@dataclass(frozen=True, slots=True)
class PersonVerified:
    """A verifier has judged a person."""

    effect_id: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer that the relay started has run out."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Ended:
    """Somebody above ends this association now: a suspended device, a gateway that stops."""

    reason: ReasonCode


Input = (
    Connected
    | Received
    | PeerClosed
    | Recorded
    | PersonVerified
    | UpstreamOpened
    | UpstreamFailed
    | Correlated
    | TimerFired
    | Ended
)
