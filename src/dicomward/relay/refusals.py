"""What a peer is told: each of our reasons as the standard's reject code or status (PS3.8 §9.3.4, PS3.7 Annex C).

The peer gets the code and a short comment without names or internals; the audit record has everything.
"""

from typing import Final

from dicomward.dicom.pdu import AAssociateRj
from dicomward.vocab.association import (
    AcseReject,
    PresentationReject,
    RejectResult,
    RejectSource,
    ServiceUserReject,
)
from dicomward.vocab.dimse import Operation, Status
from dicomward.vocab.reason import ReasonCode

_PERMANENT_NO_REASON: Final = AAssociateRj(
    result=RejectResult.PERMANENT, source=RejectSource.SERVICE_USER, reason=ServiceUserReject.NO_REASON
)
_CALLING: Final = AAssociateRj(
    result=RejectResult.PERMANENT,
    source=RejectSource.SERVICE_USER,
    reason=ServiceUserReject.CALLING_AE_TITLE_NOT_RECOGNISED,
)
_CALLED: Final = AAssociateRj(
    result=RejectResult.PERMANENT,
    source=RejectSource.SERVICE_USER,
    reason=ServiceUserReject.CALLED_AE_TITLE_NOT_RECOGNISED,
)
_USER_IDENTITY: Final = AAssociateRj(
    result=RejectResult.PERMANENT, source=RejectSource.SERVICE_PROVIDER_ACSE, reason=AcseReject.NO_REASON
)
_CONGESTION: Final = AAssociateRj(
    result=RejectResult.TRANSIENT,
    source=RejectSource.SERVICE_PROVIDER_PRESENTATION,
    reason=PresentationReject.TEMPORARY_CONGESTION,
)
_LIMIT: Final = AAssociateRj(
    result=RejectResult.TRANSIENT,
    source=RejectSource.SERVICE_PROVIDER_PRESENTATION,
    reason=PresentationReject.LOCAL_LIMIT_EXCEEDED,
)
APPLICATION_CONTEXT_NOT_SUPPORTED: Final = AAssociateRj(
    result=RejectResult.PERMANENT,
    source=RejectSource.SERVICE_USER,
    reason=ServiceUserReject.APPLICATION_CONTEXT_NOT_SUPPORTED,
)
PROTOCOL_VERSION_NOT_SUPPORTED: Final = AAssociateRj(
    result=RejectResult.PERMANENT,
    source=RejectSource.SERVICE_PROVIDER_ACSE,
    reason=AcseReject.PROTOCOL_VERSION_NOT_SUPPORTED,
)

_REJECTS: Final[dict[ReasonCode, AAssociateRj]] = {
    ReasonCode.NO_CERTIFICATE: _CALLING,
    ReasonCode.CERTIFICATE_UNKNOWN: _CALLING,
    ReasonCode.CERTIFICATE_REVOKED: _CALLING,
    ReasonCode.CERTIFICATE_EXPIRED: _CALLING,
    ReasonCode.CERTIFICATE_NOT_YET_VALID: _CALLING,
    ReasonCode.DEVICE_SUSPENDED: _CALLING,
    ReasonCode.DEVICE_REVOKED: _CALLING,
    ReasonCode.CALLING_AE_TITLE_NOT_BOUND: _CALLING,
    ReasonCode.NETWORK_NOT_ALLOWED: _CALLING,
    ReasonCode.ARCHIVE_UNKNOWN: _CALLING,
    ReasonCode.NOT_IN_LEGACY_ZONE: _CALLING,
    ReasonCode.MOVED_TO_TLS: _CALLING,
    ReasonCode.CALLED_AE_TITLE_UNKNOWN: _CALLED,
    ReasonCode.NO_PENDING_MOVE: _CALLED,
    ReasonCode.NO_PENDING_COMMITMENT: _CALLED,
    ReasonCode.USER_IDENTITY_NOT_CONFIGURED: _USER_IDENTITY,
    ReasonCode.USER_IDENTITY_REFUSED: _USER_IDENTITY,
    ReasonCode.USER_IDENTITY_EXPIRED: _USER_IDENTITY,
    ReasonCode.USER_IDENTITY_BACK_OFF: _USER_IDENTITY,
    ReasonCode.DEVICE_ASSOCIATIONS: _LIMIT,
    ReasonCode.NETWORK_ASSOCIATIONS: _LIMIT,
    ReasonCode.ARCHIVE_ASSOCIATIONS: _LIMIT,
    ReasonCode.ASSOCIATION_RATE: _LIMIT,
    ReasonCode.CERTIFICATE_BACK_OFF: _LIMIT,
    ReasonCode.CLINICAL_FLOOR_ONLY: _CONGESTION,
    ReasonCode.SITE_LOCKDOWN: _CONGESTION,
    ReasonCode.UPSTREAM_UNREACHABLE: _CONGESTION,
    ReasonCode.UPSTREAM_NOT_TRUSTED: _CONGESTION,
    ReasonCode.UPSTREAM_ABORTED: _CONGESTION,
    ReasonCode.DRAINING: _CONGESTION,
    ReasonCode.AUDIT_UNAVAILABLE: _CONGESTION,
    ReasonCode.INTERNAL_ERROR: _CONGESTION,
}


def reject_for(reason: ReasonCode) -> AAssociateRj:
    """Return the A-ASSOCIATE-RJ for a reason; permanent, without a reason, where the standard has no better one."""
    return _REJECTS.get(reason, _PERMANENT_NO_REASON)


_RATES: Final = (
    ReasonCode.OPERATION_RATE,
    ReasonCode.QUERY_RATE,
    ReasonCode.MATCHES_PER_QUERY,
    ReasonCode.PATIENT_BUDGET,
    ReasonCode.STUDY_BUDGET,
    ReasonCode.MATCH_BUDGET,
    ReasonCode.BYTE_BUDGET,
    ReasonCode.BUDGETS_UNAVAILABLE,
    ReasonCode.RESPONSE_TOO_LONG,
)
_OUT_OF_RESOURCES: Final[dict[Operation, Status]] = {
    Operation.C_STORE: Status.REFUSED_OUT_OF_RESOURCES,
    Operation.C_FIND: Status.REFUSED_OUT_OF_RESOURCES,
    Operation.C_MOVE: Status.UNABLE_TO_PERFORM_SUBOPERATIONS,
    Operation.C_GET: Status.UNABLE_TO_PERFORM_SUBOPERATIONS,
}
_BAD_DATA: Final[dict[Operation, Status]] = {
    Operation.C_STORE: Status.DATA_SET_DOES_NOT_MATCH,
    Operation.C_FIND: Status.DATA_SET_DOES_NOT_MATCH,
    Operation.C_MOVE: Status.DATA_SET_DOES_NOT_MATCH,
    Operation.C_GET: Status.DATA_SET_DOES_NOT_MATCH,
    Operation.C_ECHO: Status.SOP_CLASS_NOT_SUPPORTED,
}
_MALFORMED: Final = (
    ReasonCode.INSTANCE_UID_MISMATCH,
    ReasonCode.SOP_CLASS_MISMATCH,
    ReasonCode.IDENTIFIER_UNREADABLE,
    ReasonCode.LIMIT_EXCEEDED,
)


def status_for(operation: Operation, reason: ReasonCode) -> Status:
    """Return the status of the response to a request that the gateway refuses."""
    if reason in _RATES:
        return _OUT_OF_RESOURCES.get(operation, Status.RESOURCE_LIMITATION)
    if reason in (ReasonCode.DATA_SET_UNREADABLE, ReasonCode.RESPONSE_UNREADABLE):
        return Status.CANNOT_UNDERSTAND if operation < Operation.N_EVENT_REPORT else Status.PROCESSING_FAILURE
    if reason in _MALFORMED:
        return _BAD_DATA.get(operation, Status.PROCESSING_FAILURE)
    match reason:
        # To somebody who may not send there, a destination is as if it did not exist.
        case ReasonCode.MOVE_DESTINATION_UNKNOWN | ReasonCode.MOVE_DESTINATION_NOT_ALLOWED:
            return Status.MOVE_DESTINATION_UNKNOWN
        case ReasonCode.DUPLICATE_MESSAGE_ID:
            return Status.DUPLICATE_INVOCATION
        case ReasonCode.UNEXPECTED_COMMAND:
            return Status.UNRECOGNISED_OPERATION
    return Status.REFUSED_NOT_AUTHORISED


def comment_for(reason: ReasonCode) -> str:
    """Return the Error Comment (0000,0902): at most 64 characters, the stable reason and nothing else."""
    return f"Dicomward: {reason.value}"
