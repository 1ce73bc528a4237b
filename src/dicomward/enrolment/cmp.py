"""The CMP server without its I/O: a request (DER) in, an answer (DER) out. RFC 9810, as RFC 9483 profiles it.

Who protects with the secret of an invitation enrols; who signs with a device's certificate renews or revokes it. Where
there is a queue, the requests of strangers wait for approval: unprotected, or signed with another certificate.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from dicomward.enrolment import der
from dicomward.enrolment.answers import RETRY_SECONDS, answer_for
from dicomward.enrolment.cmp_answers import failure_for
from dicomward.enrolment.cmp_body import (
    answer_general,
    decode_asked,
    decode_confirmation,
    decode_poll,
    decode_revocation,
    encode_confirmed,
    encode_error,
    encode_issued,
    encode_poll,
    encode_revoked,
    encode_waiting,
    names,
)
from dicomward.enrolment.cmp_message import (
    VERSION,
    CmpHeader,
    CmpMessage,
    Kind,
    decode_header,
    decode_message,
    encode_message,
    encode_protected,
)
from dicomward.enrolment.cmp_protection import (
    ECDSA_SHA256,
    SALT_BYTES,
    Mac,
    decode_mac,
    is_mac_right,
    verify_signed,
)
from dicomward.enrolment.cmp_transactions import Owner, Pending, Polling
from dicomward.enrolment.grant import Grant, Issued
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import CertificationRequest, verify_request
from dicomward.vocab.reason import ReasonCode

NONCE_BYTES: Final = 16
_MOST_NAME_CHARACTERS: Final = 64
_ANSWERS: Final = {
    Kind.IR: (Kind.IP, "ir"),
    Kind.CR: (Kind.CP, "cr"),
    Kind.P10CR: (Kind.CP, "p10cr"),
    Kind.KUR: (Kind.KUP, "kur"),
    Kind.RR: (Kind.RP, "rr"),
    Kind.GENM: (Kind.GENP, "genm"),
    Kind.CERTCONF: (Kind.PKICONF, "certConf"),
    Kind.POLLREQ: (Kind.POLLREP, "pollReq"),
}
# What may wait for approval.
_FIRST: Final = frozenset({Kind.IR, Kind.CR, Kind.P10CR})
_EMPTY_NAME: Final = der.encode(0xA4, der.encode(der.SEQUENCE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signs answers: its certificate (DER), its chain, and a function that signs with ECDSA and SHA-256."""

    certificate: bytes
    chain: tuple[bytes, ...]
    anchors: tuple[bytes, ...]
    sign: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """An open invitation: what was granted, and its secret."""

    id: str
    grant: Grant
    secret: str


class Ports(Protocol):
    """What is decided and done elsewhere. All but `has_queue`, `signer` and `random` raise EnrolmentRefusedError."""

    @property
    def has_queue(self) -> bool:
        """Say if the requests of strangers may wait for approval."""
        ...

    def ask(self, request: CertificationRequest, address: str, now: datetime) -> Issued | str:
        """Issue what was approved; else let it wait, and return what to tell."""
        ...

    def invited(self, reference: str, address: str, now: datetime) -> Invited:
        """Return the open invitation of a reference."""
        ...

    def wrong_guess(self, invitation: str, address: str, now: datetime) -> None:
        """Count a message whose MAC was wrong."""
        ...

    def enrol(self, invitation: str, request: CertificationRequest, address: str, now: datetime) -> Issued:
        """Issue for an invitation, which is spent."""
        ...

    def renewable(self, certificate: bytes) -> Grant:
        """Return what the holder of a certificate may have again."""
        ...

    def renew(self, request: CertificationRequest, certificate: bytes, now: datetime) -> Issued:
        """Issue the next certificate to the holder of one."""
        ...

    def revoke(self, certificate: bytes, now: datetime, *, detail: str) -> None:
        """Revoke a certificate for its holder."""
        ...

    def begin(self, transaction: bytes, now: datetime, *, is_stranger: bool = False) -> None:
        """Note a transaction; refuse one that was seen before."""
        ...

    def wait(self, transaction: bytes, pending: Pending | Polling, now: datetime) -> None:
        """Let a certificate wait for its confirmation, or a request for its approval."""
        ...

    def polling(self, transaction: bytes, now: datetime) -> Polling:
        """Return the request that waits."""
        ...

    def pending(self, transaction: bytes, now: datetime) -> Pending:
        """Return the certificate that waits."""
        ...

    def close(self, transaction: bytes, now: datetime) -> None:
        """Let nothing wait any more."""
        ...

    def signer(self) -> Signer:
        """Return who signs answers."""
        ...

    def random(self, count: int) -> bytes:
        """Return random bytes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The bytes for the device; where something was refused, the story: what was asked for, by whom, and why not."""

    body: bytes
    action: str
    device: str | None = None
    refusal: EnrolmentRefusedError | None = None


@dataclass(slots=True)
class _Turn:
    """What one request has shown so far; its answer is protected with the same MAC once that was right."""

    header: CmpHeader | None = None
    action: str = "cmp"
    device: str | None = None
    owner: Owner | None = None
    mac: Mac | None = None
    is_implicit: bool = False


def handle(data: bytes, address: str, now: datetime, ports: Ports) -> Answer:
    """Answer a request. A refusal is an answer, too."""
    turn = _Turn(header=decode_header(data))
    try:
        kind, body, nonce = _answered(data, address, now, ports, turn)
        refusal = None
    except EnrolmentRefusedError as error:
        kind, nonce, refusal = Kind.ERROR, ports.random(NONCE_BYTES), error
        body = encode_error(failure_for(error.reason), answer_for(error.reason)[1])
    return Answer(
        body=_protected(turn, kind, body, nonce, now, ports),
        action=turn.action,
        device=turn.device,
        refusal=refusal,
    )


def _answered(data: bytes, address: str, now: datetime, ports: Ports, turn: _Turn) -> tuple[Kind, bytes, bytes]:
    message = decode_message(data)
    if message.kind not in _ANSWERS:
        raise EnrolmentRefusedError(ReasonCode.CMP_NOT_OFFERED, f"a body of the kind {message.kind.name}")
    answer, turn.action = _ANSWERS[message.kind]
    nonce = ports.random(NONCE_BYTES)
    match message.kind:
        case Kind.CERTCONF:
            _confirm(message, now, ports, turn)
            return answer, encode_confirmed(), nonce
        case Kind.POLLREQ:
            return _poll(message, nonce, address, now, ports, turn)
    stranger = _stranger(message, ports)
    if stranger is not None:
        return _ask(message, stranger, nonce, address, now, ports, turn)
    if _is_bare(message):
        raise EnrolmentRefusedError(ReasonCode.CMP_PROTECTION_WRONG, "the message is not protected")
    invited = _prove(message, address, now, ports, turn)
    ports.begin(message.header.transaction_id, now)
    match message.kind:
        case Kind.GENM:
            signer = ports.signer()
            return answer, answer_general(message.body, (*signer.chain, *signer.anchors)), nonce
        case Kind.RR:
            _revoke(message, now, ports, turn)
            return answer, encode_revoked(), nonce
    asked = decode_asked(message.kind, message.body)
    if invited is not None:
        if message.kind is Kind.KUR:
            raise _needs_signature(message)
        verify_request(asked.request, invited.grant)
        issued = ports.enrol(invited.id, asked.request, address, now)
    else:
        presented = _presented(turn)
        verify_request(asked.request, ports.renewable(presented))
        issued = ports.renew(asked.request, presented, now)
    turn.is_implicit = message.header.is_implicit
    _wait_for_confirmation(message.header.transaction_id, issued, nonce, now, ports, turn)
    # RFC 9483 §4.1.1: whom to trust is told to who has proved a secret, and so can believe it.
    anchors = ports.signer().anchors if invited is not None else ()
    return answer, encode_issued(asked.number, issued.certificate, anchors), nonce


def _prove(message: CmpMessage, address: str, now: datetime, ports: Ports, turn: _Turn) -> Invited | None:
    """Verify the protection; return the invitation if it is a MAC."""
    mac = decode_mac(message.header.algorithm)
    if mac is None:
        certificate = verify_signed(message)
        turn.device = ports.renewable(certificate).device
        turn.owner = Owner(device=turn.device, certificate=certificate)
        return None
    reference = message.header.sender_key_id.decode("utf-8", "replace")
    if not reference.isprintable():
        raise EnrolmentRefusedError(
            ReasonCode.INVITATION_UNKNOWN, f"nobody is invited as {reference[:_MOST_NAME_CHARACTERS]!r}"
        )
    turn.device = reference[:_MOST_NAME_CHARACTERS] or None
    invited = ports.invited(reference, address, now)
    turn.device = invited.grant.device
    if not is_mac_right(message, mac, invited.secret):
        ports.wrong_guess(invited.id, address, now)
        raise EnrolmentRefusedError(ReasonCode.CODE_WRONG, f"{turn.device}: the MAC is of another secret")
    turn.owner, turn.mac = Owner(device=turn.device, secret=invited.secret), mac
    return invited


def _is_bare(message: CmpMessage) -> bool:
    return not message.header.algorithm or not message.protection


def _stranger(message: CmpMessage, ports: Ports) -> Owner | None:
    """Return who has neither a secret nor a certificate of a device, and may wait for approval. It proves its key."""
    if not ports.has_queue or message.kind not in _FIRST:
        return None
    if not message.header.algorithm and not message.protection:
        return Owner(device="")
    if _is_bare(message) or decode_mac(message.header.algorithm) is not None:
        return None
    certificate = verify_signed(message)
    try:
        ports.renewable(certificate)
    except EnrolmentRefusedError as error:
        if error.reason is not ReasonCode.NOT_A_DEVICE_CERTIFICATE:
            raise
        return Owner(device="", certificate=certificate)
    return None


def _ask(
    message: CmpMessage, owner: Owner, nonce: bytes, address: str, now: datetime, ports: Ports, turn: _Turn
) -> tuple[Kind, bytes, bytes]:
    """Let the request of a stranger wait, or issue what was approved for its key."""
    transaction = message.header.transaction_id
    ports.begin(transaction, now, is_stranger=True)
    asked = decode_asked(message.kind, message.body)
    turn.owner, turn.is_implicit = owner, message.header.is_implicit
    polling = Polling(
        owner=owner,
        kind=message.kind,
        number=asked.number,
        request=asked.request,
        nonce=nonce,
        is_implicit=turn.is_implicit,
    )
    found = ports.ask(asked.request, address, now)
    answer = _ANSWERS[message.kind][0]
    if isinstance(found, str):
        ports.wait(transaction, polling, now)
        return answer, encode_waiting(asked.number, found), nonce
    return _approved(transaction, polling, found, nonce, now, ports, turn)


def _poll(
    message: CmpMessage, nonce: bytes, address: str, now: datetime, ports: Ports, turn: _Turn
) -> tuple[Kind, bytes, bytes]:
    """Answer who asks again: with the certificate, or when to ask next (RFC 9483 §4.4)."""
    transaction = message.header.transaction_id
    polling = ports.polling(transaction, now)
    _verify_same(message, polling.owner, polling.nonce, turn)
    if decode_poll(message.body) != polling.number:
        raise EnrolmentRefusedError(ReasonCode.CMP_CERTIFICATE_WRONG, "it asks for another request")
    found = ports.ask(polling.request, address, now)
    if isinstance(found, str):
        ports.wait(transaction, replace(polling, nonce=nonce), now)
        return Kind.POLLREP, encode_poll(polling.number, RETRY_SECONDS, found), nonce
    turn.is_implicit = polling.is_implicit
    return _approved(transaction, polling, found, nonce, now, ports, turn)


def _approved(
    transaction: bytes, polling: Polling, issued: Issued, nonce: bytes, now: datetime, ports: Ports, turn: _Turn
) -> tuple[Kind, bytes, bytes]:
    turn.device = issued.device
    turn.owner = replace(polling.owner, device=issued.device)
    ports.close(transaction, now)
    _wait_for_confirmation(transaction, issued, nonce, now, ports, turn)
    return _ANSWERS[polling.kind][0], encode_issued(polling.number, issued.certificate, ()), nonce


def _wait_for_confirmation(
    transaction: bytes, issued: Issued, nonce: bytes, now: datetime, ports: Ports, turn: _Turn
) -> None:
    if turn.owner is not None and not turn.is_implicit:
        ports.wait(transaction, Pending(owner=turn.owner, certificate=issued.certificate, nonce=nonce), now)


def _presented(turn: _Turn) -> bytes:
    return turn.owner.certificate if turn.owner is not None else b""


def _needs_signature(message: CmpMessage) -> EnrolmentRefusedError:
    return EnrolmentRefusedError(
        ReasonCode.CMP_SIGNATURE_NEEDED, f"{message.kind.name.lower()} under a MAC: only the certificate's holder may"
    )


def _revoke(message: CmpMessage, now: datetime, ports: Ports, turn: _Turn) -> None:
    presented = _presented(turn)
    if not presented:
        raise _needs_signature(message)
    if not names(decode_revocation(message.body), presented):
        raise EnrolmentRefusedError(
            ReasonCode.CMP_CERTIFICATE_WRONG, "a certificate is revoked by a message that it signs, and by no other"
        )
    ports.revoke(presented, now, detail="its holder has asked for it (CMP rr)")


def _confirm(message: CmpMessage, now: datetime, ports: Ports, turn: _Turn) -> None:
    """Take the confirmation of who has asked; a certificate that isn't accepted is revoked."""
    transaction = message.header.transaction_id
    pending = ports.pending(transaction, now)
    turn.device = pending.owner.device
    _verify_same(message, pending.owner, pending.nonce, turn)
    told = decode_confirmation(message.body)
    if told is None or not told.is_accepted:
        ports.revoke(pending.certificate, now, detail="the device has not accepted it (CMP certConf)")
    elif told.certificate_hash != _hash_of(pending.certificate):
        raise EnrolmentRefusedError(ReasonCode.CMP_CERTIFICATE_WRONG, "another certificate is confirmed")
    ports.close(transaction, now)


def _verify_same(message: CmpMessage, owner: Owner, nonce: bytes, turn: _Turn) -> None:
    """Check that a transaction goes on with who has begun it, as an answer to what was told.

    A stranger without a certificate is known by the nonce, which only its TLS connection has shown.
    """
    mac = None
    if _is_bare(message):
        is_same = not owner.secret and not owner.certificate and not message.header.algorithm
    else:
        mac = decode_mac(message.header.algorithm)
        if mac is None:
            is_same = verify_signed(message) == owner.certificate
        else:
            is_same = bool(owner.secret) and is_mac_right(message, mac, owner.secret)
    if not is_same:
        raise EnrolmentRefusedError(ReasonCode.CMP_PROTECTION_WRONG, "it goes on with somebody who has not begun it")
    turn.owner, turn.mac = owner, mac
    if message.header.recipient_nonce != nonce:
        raise EnrolmentRefusedError(ReasonCode.CMP_NONCE_WRONG, "it answers another message")


def _hash_of(certificate: bytes) -> bytes:
    """RFC 9810 §5.3.18: with the hash of the certificate's own signature; ours is always signed with one."""
    algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm or hashes.SHA256()
    return hashlib.new(algorithm.name, certificate).digest()


def _protected(turn: _Turn, kind: Kind, body: bytes, nonce: bytes, now: datetime, ports: Ports) -> bytes:
    signer = ports.signer()
    certificate = x509.load_der_x509_certificate(signer.certificate)
    asked = turn.header
    header = CmpHeader(
        version=VERSION,
        sender=der.encode(0xA4, certificate.subject.public_bytes()),
        recipient=asked.sender if asked is not None else _EMPTY_NAME,
        transaction_id=asked.transaction_id if asked is not None else b"",
        sender_nonce=nonce,
        recipient_nonce=asked.sender_nonce if asked is not None else b"",
        is_implicit=turn.is_implicit,
    )
    if turn.mac is not None and turn.owner is not None:
        salt = ports.random(SALT_BYTES)
        header = replace(
            header,
            algorithm=turn.mac.algorithm(salt),
            sender_key_id=asked.sender_key_id if asked is not None else b"",
        )
        protected, parts = encode_protected(header, kind, body, now)
        return encode_message(parts, turn.mac.compute(salt, turn.owner.secret, protected), signer.chain)
    own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    header = replace(header, algorithm=ECDSA_SHA256, sender_key_id=own)
    protected, parts = encode_protected(header, kind, body, now)
    return encode_message(parts, signer.sign(protected), (signer.certificate, *signer.chain))
