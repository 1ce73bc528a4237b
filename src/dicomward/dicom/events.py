"""What an Association has understood: past participles, one for each thing that can have happened.

Fragments of a data set come as `framing.DataRun`, which is an event as it stands.
"""

from dataclasses import dataclass

from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.errors import RemoteProtocolError
from dicomward.dicom.framing import DataRun
from dicomward.dicom.pdu import AAssociateAc, AAssociateRj, AAssociateRq


@dataclass(frozen=True, slots=True)
class AssociationRequested:
    """A-ASSOCIATE indication (acceptor's side)."""

    request: AAssociateRq


@dataclass(frozen=True, slots=True)
class AssociationAccepted:
    """A-ASSOCIATE confirmation, accepted (requestor's side)."""

    accept: AAssociateAc


@dataclass(frozen=True, slots=True)
class AssociationRejected:
    """A-ASSOCIATE confirmation, rejected (requestor's side)."""

    reject: AAssociateRj


@dataclass(frozen=True, slots=True)
class CommandReceived:
    """A whole command set on a presentation context."""

    context_id: int
    command: CommandSet


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """A-RELEASE indication."""


@dataclass(frozen=True, slots=True)
class ReleaseConfirmed:
    """A-RELEASE confirmation."""


@dataclass(frozen=True, slots=True)
class PeerAborted:
    """A-ABORT or A-P-ABORT indication."""

    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class ProtocolBroken:
    """The peer broke the protocol; the association is over for us.

    `abort` holds the A-ABORT PDU to send, b"" where the state table sends none.
    """

    error: RemoteProtocolError
    abort: bytes


Event = (
    AssociationRequested
    | AssociationAccepted
    | AssociationRejected
    | CommandReceived
    | DataRun
    | ReleaseRequested
    | ReleaseConfirmed
    | PeerAborted
    | ProtocolBroken
)
