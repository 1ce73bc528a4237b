"""What a device is told when nothing is issued: a status and a sentence without anything internal."""

from http import HTTPStatus
from typing import Final

from dicomward.vocab.reason import ReasonCode

RETRY_SECONDS: Final = 30
_UNKNOWN: Final = (
    HTTPStatus.UNAUTHORIZED,
    "the name or the code is wrong, or the invitation is over; compare them, or ask for a new one",
)
_BAD: Final = HTTPStatus.BAD_REQUEST
_NOT_NOW: Final = (HTTPStatus.FORBIDDEN, "this device may have nothing now; ask who runs the gateway")
_ANSWERS: Final[dict[ReasonCode, tuple[HTTPStatus, str]]] = {
    ReasonCode.CODE_WRONG: _UNKNOWN,
    ReasonCode.CODE_DEAD: _UNKNOWN,
    ReasonCode.INVITATION_UNKNOWN: _UNKNOWN,
    ReasonCode.CREDENTIALS_MISSING: (HTTPStatus.UNAUTHORIZED, "send the device's name and its code"),
    ReasonCode.CODE_USED: (HTTPStatus.FORBIDDEN, "the code was used before; ask for a new invitation"),
    ReasonCode.CODE_REVOKED: (HTTPStatus.FORBIDDEN, "the invitation was revoked; ask for a new one"),
    ReasonCode.CODE_EXPIRED: (HTTPStatus.FORBIDDEN, "the invitation is over; ask for a new one"),
    ReasonCode.NETWORK_NOT_ALLOWED: (HTTPStatus.FORBIDDEN, "not from this network"),
    ReasonCode.CERTIFICATE_UNKNOWN: _NOT_NOW,
    ReasonCode.CERTIFICATE_REVOKED: _NOT_NOW,
    ReasonCode.CERTIFICATE_EXPIRED: _NOT_NOW,
    ReasonCode.CERTIFICATE_NOT_YET_VALID: _NOT_NOW,
    ReasonCode.DEVICE_REVOKED: _NOT_NOW,
    ReasonCode.DEVICE_SUSPENDED: _NOT_NOW,
    ReasonCode.APPROVAL_REJECTED: (HTTPStatus.FORBIDDEN, "the request was rejected"),
    ReasonCode.REGISTRATION_REFUSED: (HTTPStatus.FORBIDDEN, "the device can't be registered; ask who has invited it"),
    ReasonCode.NOT_A_DEVICE_CERTIFICATE: (
        HTTPStatus.FORBIDDEN,
        "this certificate can't be renewed; ask for an invitation",
    ),
    ReasonCode.RENEWAL_TOO_LATE: (HTTPStatus.FORBIDDEN, "the certificate ended too long ago; ask for an invitation"),
    ReasonCode.RENEWAL_OF_SPENT_GENERATION: (HTTPStatus.FORBIDDEN, "the renewal is held; a person has to look at it"),
    ReasonCode.RENEWAL_HELD: (HTTPStatus.FORBIDDEN, "the renewal is held; a person has to look at it"),
    ReasonCode.RENEWAL_REJECTED: (HTTPStatus.FORBIDDEN, "the renewal was rejected; ask for an invitation"),
    ReasonCode.KEY_UNREADABLE: (_BAD, "the public key can't be read"),
    ReasonCode.KEY_TOO_WEAK: (
        _BAD,
        "the key is too weak, or of a kind that is not taken: ECDSA P-256, or RSA of 2048 bits",
    ),
    ReasonCode.KEY_KIND_NOT_GRANTED: (_BAD, "a key of the other kind was granted: ask who has invited the device"),
    ReasonCode.KEY_IN_USE: (_BAD, "the key is in use; make a new one"),
    ReasonCode.REQUEST_UNREADABLE: (_BAD, "the body is no certification request (PKCS#10)"),
    ReasonCode.REQUEST_SIGNATURE_WRONG: (_BAD, "the request is not signed with its own key"),
    ReasonCode.SUBJECT_NOT_GRANTED: (
        _BAD,
        "the subject is not the invited one; leave it empty, or name the device as CN",
    ),
    ReasonCode.NAME_NOT_GRANTED: (_BAD, "the request has names that were not granted; leave the SAN out"),
    ReasonCode.KEY_ENCRYPTION_NOT_POSSIBLE: (_BAD, "the key can't be encrypted like this; it is sent over TLS alone"),
    ReasonCode.CMP_UNREADABLE: (_BAD, "the body is no CMP message, or not one that is taken"),
    ReasonCode.CMP_VERSION: (_BAD, "use version 2 of CMP"),
    ReasonCode.CMP_NOT_OFFERED: (_BAD, "this kind of CMP message is not taken"),
    ReasonCode.CMP_ALGORITHM: (
        _BAD,
        "this algorithm is not taken: PBM or PBMAC1 with 100 to 100000 iterations, or ECDSA or RSA with SHA-2",
    ),
    ReasonCode.CMP_PROTECTION_WRONG: (_BAD, "the protection of the message is missing or wrong"),
    ReasonCode.CMP_SIGNATURE_NEEDED: (_BAD, "sign this message with the device's certificate"),
    ReasonCode.CMP_REPLAYED: (_BAD, "the transaction was seen before; begin a new one"),
    ReasonCode.CMP_NONCE_WRONG: (_BAD, "the message answers another one"),
    ReasonCode.CMP_CERTIFICATE_WRONG: (_BAD, "this is not the certificate that the message is about"),
    ReasonCode.ENROLMENT_FAILURES: (HTTPStatus.TOO_MANY_REQUESTS, "too many failures; try again later"),
}
_UNAVAILABLE: Final = (HTTPStatus.SERVICE_UNAVAILABLE, "nothing can be issued now; try again later")


def answer_for(reason: ReasonCode) -> tuple[HTTPStatus, str]:
    """Return the status and the sentence for a refusal; what isn't the device's fault is 503."""
    return _ANSWERS.get(reason, _UNAVAILABLE)
