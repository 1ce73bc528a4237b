"""The PDUs that open and close an association, and their items: PS3.8 §9.3, PS3.7 Annex D.3.3.

P-DATA-TF is not here: it is the hot path, and framing walks it in place.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeAlias

from dicomward.vocab.uid import APPLICATION_CONTEXT


class PduType(IntEnum):
    """First byte of a PDU (PS3.8 §9.3.1)."""

    A_ASSOCIATE_RQ = 1
    A_ASSOCIATE_AC = 2
    A_ASSOCIATE_RJ = 3
    P_DATA_TF = 4
    A_RELEASE_RQ = 5
    A_RELEASE_RP = 6
    A_ABORT = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentationContextRq:
    """An offered presentation context (PS3.8 §9.3.2.2). `context_id` is odd, 1 to 255."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentationContextAc:
    """The answer to one presentation context (PS3.8 §9.3.3.2).

    `transfer_syntax` has a meaning only where `result` is 0 (acceptance); otherwise it may be empty.
    """

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncOperationsWindow:
    """Asynchronous operations window (PS3.7 §D.3.3.3); 0 means unlimited."""

    maximum_invoked: int
    maximum_performed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSelection:
    """SCP/SCU role selection of one SOP class (PS3.7 §D.3.3.4)."""

    sop_class_uid: str
    scu_role: bool
    scp_role: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendedNegotiation:
    """SOP class extended negotiation (PS3.7 §D.3.3.5); `information` belongs to the service class."""

    sop_class_uid: str
    information: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonExtendedNegotiation:
    """SOP class common extended negotiation (PS3.7 §D.3.3.6); in A-ASSOCIATE-RQ only."""

    sop_class_uid: str
    service_class_uid: str
    related_sop_class_uids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIdentity:
    """User identity of A-ASSOCIATE-RQ (PS3.7 §D.3.3.7). Both fields are secrets, so `repr` hides them."""

    type: int
    positive_response_requested: bool
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownItem:
    """A user information sub-item that no standard that we know defines."""

    item_type: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInformation:
    """User information (PS3.8 §9.3.2.3, PS3.7 §D.3.3).

    `maximum_length` is in bytes of the P-DATA variable field; 0 means that the peer states no maximum.
    `implementation_class_uid` is empty where the peer left it out.
    """

    maximum_length: int = 0
    implementation_class_uid: str = ""
    implementation_version_name: str | None = None
    async_operations_window: AsyncOperationsWindow | None = None
    role_selections: tuple[RoleSelection, ...] = ()
    extended_negotiations: tuple[ExtendedNegotiation, ...] = ()
    common_extended_negotiations: tuple[CommonExtendedNegotiation, ...] = ()
    user_identity: UserIdentity | None = None
    user_identity_response: bytes | None = field(default=None, repr=False)
    unknown_items: tuple[UnknownItem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AAssociateRq:
    """A-ASSOCIATE-RQ (PS3.8 §9.3.2). `protocol_version` is the raw field: only bit 0 has a meaning."""

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextRq, ...]
    user_information: UserInformation
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    deviations: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AAssociateAc:
    """A-ASSOCIATE-AC (PS3.8 §9.3.3).

    The AE titles are an echo of the request that a receiver must not test; a field that holds none reads as empty.
    """

    called_ae_title: str
    calling_ae_title: str
    presentation_contexts: tuple[PresentationContextAc, ...]
    user_information: UserInformation
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    deviations: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AAssociateRj:
    """A-ASSOCIATE-RJ (PS3.8 §9.3.4); unknown codes stay as they came."""

    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class AReleaseRq:
    """A-RELEASE-RQ (PS3.8 §9.3.6)."""


@dataclass(frozen=True, slots=True)
class AReleaseRp:
    """A-RELEASE-RP (PS3.8 §9.3.7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AAbort:
    """A-ABORT (PS3.8 §9.3.8); unknown codes stay as they came."""

    source: int
    reason: int


ControlPdu: TypeAlias = AAssociateRq | AAssociateAc | AAssociateRj | AReleaseRq | AReleaseRp | AAbort
