"""Everything that a relay can want done. The executor does them in order; ids bring results back as inputs."""

from dataclasses import dataclass

from dicomward.audit.event import AuditEvent
from dicomward.identity.person import PersonClaim
from dicomward.identity.registry import Archive, Device
from dicomward.relay.correlations import PendingCommitment, PendingMove
from dicomward.relay.inputs import Leg, Timer


@dataclass(frozen=True, slots=True)
class Send:
    """Write to a leg. A memoryview is valid only until the effects of this input are done: copy what stays."""

    leg: Leg
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Close:
    """Close a leg when everything has been written; `at_once` where its peer has said its last word."""

    leg: Leg
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop reading from a leg."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class Resume:
    """Read from a leg again."""

    leg: Leg


@dataclass(frozen=True, slots=True)
class OpenUpstream:
    """Connect to the acceptor: answer with UpstreamOpened or UpstreamFailed."""

    effect_id: int
    target: Archive | Device


@dataclass(frozen=True, slots=True)
class Record:
    """Write an audit record; durable within 100 ms."""

    event: AuditEvent


@dataclass(frozen=True, slots=True)
class RecordDurably:
    """Write an audit record and answer with Recorded when it is durable."""

    effect_id: int
    event: AuditEvent


@dataclass(frozen=True, slots=True)
class VerifyPerson:
    """Have a person verified: answer with PersonVerified."""

    effect_id: int
    claim: PersonClaim


@dataclass(frozen=True, slots=True)
class KeepCharges:
    """Do nothing else of this input before what it has charged to budgets is kept. It comes first, if at all."""


@dataclass(frozen=True, slots=True)
class RegisterMove:
    """Register a pending move, when its turn comes; answer with Correlated."""

    effect_id: int
    move: PendingMove


@dataclass(frozen=True, slots=True)
class RegisterCommitment:
    """Register a pending storage commitment, durably; answer with Correlated."""

    effect_id: int
    commitment: PendingCommitment


@dataclass(frozen=True, slots=True)
class StartTimer:
    """(Re)start a timer."""

    timer: Timer
    seconds: float


@dataclass(frozen=True, slots=True)
class StopTimer:
    """Stop a timer."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Finished:
    """The relay is over; the executor forgets it once its legs are closed."""


Effect = (
    Send
    | Close
    | Pause
    | Resume
    | OpenUpstream
    | Record
    | RecordDurably
    | VerifyPerson
    | KeepCharges
    | RegisterMove
    | RegisterCommitment
    | StartTimer
    | StopTimer
    | Finished
)
