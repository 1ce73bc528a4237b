"""Stable reason codes: why something was allowed, denied, rejected, aborted or delayed.

Append only: scripts, alarms and audit searches of our users depend on every one of them. docs/reason-codes.md lists them.
"""

from enum import StrEnum


class ReasonCode(StrEnum):
    """One reason; the value is what audit, `explain` and the logs show."""

    # policy
    ALLOWED = "allowed"
    DENIED_BY_RULE = "denied-by-rule"
    NO_MATCHING_RULE = "no-matching-rule"
    RULE_ERROR = "rule-error"
    NO_PERMITTED_CONTEXT = "no-permitted-context"
    CLINICAL_FLOOR_ONLY = "clinical-floor-only"
    # transport and identity
    NOT_TLS = "not-tls"
    TLS_FAILED = "tls-failed"
    NO_CERTIFICATE = "no-certificate"
    CERTIFICATE_UNKNOWN = "certificate-unknown"
    CERTIFICATE_REVOKED = "certificate-revoked"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_NOT_YET_VALID = "certificate-not-yet-valid"
    CERTIFICATE_JUST_EXPIRED = "certificate-just-expired"
    DEVICE_SUSPENDED = "device-suspended"
    DEVICE_REVOKED = "device-revoked"
    CALLING_AE_TITLE_NOT_BOUND = "calling-ae-title-not-bound"
    NETWORK_NOT_ALLOWED = "network-not-allowed"
    USER_IDENTITY_NOT_CONFIGURED = "user-identity-not-configured"
    ARCHIVE_UNKNOWN = "archive-unknown"
    # routing
    CALLED_AE_TITLE_UNKNOWN = "called-ae-title-unknown"
    MOVE_DESTINATION_UNKNOWN = "move-destination-unknown"
    NO_PENDING_MOVE = "no-pending-move"
    AMBIGUOUS_MOVE = "ambiguous-move"
    NO_PENDING_COMMITMENT = "no-pending-commitment"
    UPSTREAM_UNREACHABLE = "upstream-unreachable"
    UPSTREAM_REJECTED = "upstream-rejected"
    UPSTREAM_ABORTED = "upstream-aborted"
    UPSTREAM_NOT_TRUSTED = "upstream-not-trusted"
    PEER_ABORTED = "peer-aborted"
    PEER_CLOSED = "peer-closed"
    # limits
    DEVICE_ASSOCIATIONS = "device-associations"
    NETWORK_ASSOCIATIONS = "network-associations"
    ARCHIVE_ASSOCIATIONS = "archive-associations"
    ASSOCIATION_RATE = "association-rate"
    OPERATION_RATE = "operation-rate"
    QUERY_RATE = "query-rate"
    MATCHES_PER_QUERY = "matches-per-query"
    BYTE_RATE = "byte-rate"
    CERTIFICATE_BACK_OFF = "certificate-back-off"
    ADDRESS_DELAY = "address-delay"
    # validation
    MALFORMED_PDU = "malformed-pdu"
    UNEXPECTED_PDU = "unexpected-pdu"
    LIMIT_EXCEEDED = "limit-exceeded"
    MALFORMED_COMMAND = "malformed-command"
    UNEXPECTED_COMMAND = "unexpected-command"
    DUPLICATE_MESSAGE_ID = "duplicate-message-id"
    INSTANCE_UID_MISMATCH = "instance-uid-mismatch"
    SOP_CLASS_MISMATCH = "sop-class-mismatch"
    IDENTIFIER_UNREADABLE = "identifier-unreadable"
    DATA_SET_UNREADABLE = "data-set-unreadable"
    # ours
    DEADLINE = "deadline"
    IDLE = "idle"
    DRAINING = "draining"
    AUDIT_UNAVAILABLE = "audit-unavailable"
    INTERNAL_ERROR = "internal-error"
