"""Which bit of PKIFailureInfo (RFC 9810 §5.2.3) a device is told for which refusal."""

from typing import Final

from dicomward.vocab.reason import ReasonCode

BAD_ALG: Final = 0
BAD_MESSAGE_CHECK: Final = 1
BAD_REQUEST: Final = 2
BAD_CERT_ID: Final = 4
BAD_DATA_FORMAT: Final = 5
BAD_POP: Final = 9
WRONG_INTEGRITY: Final = 12
BAD_RECIPIENT_NONCE: Final = 13
BAD_CERT_TEMPLATE: Final = 19
SIGNER_NOT_TRUSTED: Final = 20
TRANSACTION_ID_IN_USE: Final = 21
UNSUPPORTED_VERSION: Final = 22
NOT_AUTHORIZED: Final = 23
SYSTEM_UNAVAILABLE: Final = 24

_FAILURES: Final[dict[ReasonCode, int]] = {
    ReasonCode.CMP_UNREADABLE: BAD_DATA_FORMAT,
    ReasonCode.CMP_VERSION: UNSUPPORTED_VERSION,
    ReasonCode.CMP_NOT_OFFERED: BAD_REQUEST,
    ReasonCode.CMP_ALGORITHM: BAD_ALG,
    ReasonCode.CMP_PROTECTION_WRONG: BAD_MESSAGE_CHECK,
    ReasonCode.CMP_SIGNATURE_NEEDED: WRONG_INTEGRITY,
    ReasonCode.CMP_REPLAYED: TRANSACTION_ID_IN_USE,
    ReasonCode.CMP_NONCE_WRONG: BAD_RECIPIENT_NONCE,
    ReasonCode.CMP_CERTIFICATE_WRONG: BAD_CERT_ID,
    # Not to be told apart: who guesses learns nothing.
    ReasonCode.CODE_WRONG: BAD_MESSAGE_CHECK,
    ReasonCode.CODE_DEAD: BAD_MESSAGE_CHECK,
    ReasonCode.INVITATION_UNKNOWN: BAD_MESSAGE_CHECK,
    ReasonCode.NOT_A_DEVICE_CERTIFICATE: SIGNER_NOT_TRUSTED,
    ReasonCode.REQUEST_UNREADABLE: BAD_DATA_FORMAT,
    ReasonCode.REQUEST_SIGNATURE_WRONG: BAD_POP,
    ReasonCode.SUBJECT_NOT_GRANTED: BAD_CERT_TEMPLATE,
    ReasonCode.NAME_NOT_GRANTED: BAD_CERT_TEMPLATE,
    ReasonCode.KEY_UNREADABLE: BAD_CERT_TEMPLATE,
    ReasonCode.KEY_TOO_WEAK: BAD_CERT_TEMPLATE,
    ReasonCode.KEY_KIND_NOT_GRANTED: BAD_CERT_TEMPLATE,
    ReasonCode.KEY_IN_USE: BAD_CERT_TEMPLATE,
    ReasonCode.CA_UNAVAILABLE: SYSTEM_UNAVAILABLE,
    ReasonCode.CA_NOT_VALID: SYSTEM_UNAVAILABLE,
}


def failure_for(reason: ReasonCode) -> int:
    """Return the bit for a refusal; what the device may not have is notAuthorized."""
    return _FAILURES.get(reason, NOT_AUTHORIZED)
