"""Result, source and reason codes of the upper layer: PS3.8 §9.3.3.2, §9.3.4, §9.3.8. Unknown codes stay integers."""

from enum import IntEnum


class RejectResult(IntEnum):
    """A-ASSOCIATE-RJ result."""

    PERMANENT = 1
    TRANSIENT = 2


class RejectSource(IntEnum):
    """A-ASSOCIATE-RJ source."""

    SERVICE_USER = 1
    SERVICE_PROVIDER_ACSE = 2
    SERVICE_PROVIDER_PRESENTATION = 3


class ServiceUserReject(IntEnum):
    """Reasons of source 1."""

    NO_REASON = 1
    APPLICATION_CONTEXT_NOT_SUPPORTED = 2
    CALLING_AE_TITLE_NOT_RECOGNISED = 3
    CALLED_AE_TITLE_NOT_RECOGNISED = 7


class AcseReject(IntEnum):
    """Reasons of source 2."""

    NO_REASON = 1
    PROTOCOL_VERSION_NOT_SUPPORTED = 2


class PresentationReject(IntEnum):
    """Reasons of source 3."""

    TEMPORARY_CONGESTION = 1
    LOCAL_LIMIT_EXCEEDED = 2


class AbortSource(IntEnum):
    """A-ABORT source."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """A-ABORT reasons of the service provider; not significant where the source is the service user."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNISED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER_VALUE = 6


class PresentationResult(IntEnum):
    """Result of one presentation context in A-ASSOCIATE-AC."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


class UserIdentityType(IntEnum):
    """Type of a user identity (PS3.7 §D.3.3.7)."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5
