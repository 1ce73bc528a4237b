"""The codes of PS3.8 §9.3.3.2, §9.3.4 and §9.3.8 and PS3.7 §D.3.3.7, against an independent table."""

from enum import IntEnum

import pytest

from dicomward.vocab import association as codes

TABLE: dict[type[IntEnum], dict[str, int]] = {
    codes.RejectResult: {"PERMANENT": 1, "TRANSIENT": 2},
    codes.RejectSource: {"SERVICE_USER": 1, "SERVICE_PROVIDER_ACSE": 2, "SERVICE_PROVIDER_PRESENTATION": 3},
    codes.ServiceUserReject: {
        "NO_REASON": 1,
        "APPLICATION_CONTEXT_NOT_SUPPORTED": 2,
        "CALLING_AE_TITLE_NOT_RECOGNISED": 3,
        "CALLED_AE_TITLE_NOT_RECOGNISED": 7,
    },
    codes.AcseReject: {"NO_REASON": 1, "PROTOCOL_VERSION_NOT_SUPPORTED": 2},
    codes.PresentationReject: {"TEMPORARY_CONGESTION": 1, "LOCAL_LIMIT_EXCEEDED": 2},
    codes.AbortSource: {"SERVICE_USER": 0, "SERVICE_PROVIDER": 2},
    codes.AbortReason: {
        "NOT_SPECIFIED": 0,
        "UNRECOGNISED_PDU": 1,
        "UNEXPECTED_PDU": 2,
        "UNRECOGNISED_PARAMETER": 4,
        "UNEXPECTED_PARAMETER": 5,
        "INVALID_PARAMETER_VALUE": 6,
    },
    codes.PresentationResult: {
        "ACCEPTANCE": 0,
        "USER_REJECTION": 1,
        "NO_REASON": 2,
        "ABSTRACT_SYNTAX_NOT_SUPPORTED": 3,
        "TRANSFER_SYNTAXES_NOT_SUPPORTED": 4,
    },
    codes.UserIdentityType: {"USERNAME": 1, "USERNAME_AND_PASSCODE": 2, "KERBEROS": 3, "SAML": 4, "JWT": 5},
}


@pytest.mark.parametrize("enum", list(TABLE), ids=lambda enum: enum.__name__)
def test_codes(enum: type[IntEnum]) -> None:
    assert {member.name: member.value for member in enum} == TABLE[enum]
