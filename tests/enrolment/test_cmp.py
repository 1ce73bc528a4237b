"""The CMP server in memory: who may have what, each refusal with its bit, confirmations, nonces and replays."""

import hashlib
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from dicomward.enrolment import der
from dicomward.enrolment.answers import answer_for
from dicomward.enrolment.cmp import Answer, handle
from dicomward.enrolment.cmp_answers import failure_for
from dicomward.enrolment.cmp_body import encode_error
from dicomward.enrolment.cmp_message import CmpMessage, Kind, decode_message
from dicomward.enrolment.cmp_protection import decode_pbm, is_mac_right, verify_signed
from tests.enrolment.cmp_client import (
    NOW,
    PBM,
    SECRET,
    MemoryPorts,
    certificate,
    crmf,
    template,
    with_mac,
    with_signature,
)

KEY = ec.generate_private_key(ec.SECP256R1())
NEXT = ec.generate_private_key(ec.SECP256R1())
OWN = certificate(KEY)
EMPTY = der.encode(der.SEQUENCE)
ISSUER = x509.load_der_x509_certificate(OWN).issuer.public_bytes()


def revocation(serial: int) -> bytes:
    wish = der.encode(0x81, bytes([serial])) + der.encode(0xA3, ISSUER)
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, wish)))


def confirmation(certificate_hash: bytes, *statuses: int) -> bytes:
    said = [der.encode(der.SEQUENCE, der.encode_integer(each)) for each in statuses]
    one = der.encode(der.SEQUENCE, der.encode(der.OCTETS, certificate_hash), der.encode_integer(0), *said)
    return der.encode(der.SEQUENCE, one)


def ask(ports: MemoryPorts, data: bytes) -> Answer:
    return handle(data, "192.0.2.1", NOW, ports)


def refused(ports: MemoryPorts, data: bytes) -> tuple[str, str | None]:
    answer = ask(ports, data)
    assert answer.refusal is not None
    reason = answer.refusal.reason
    assert encode_error(failure_for(reason), answer_for(reason)[1]) in answer.body
    return str(reason), answer.device


def read(answer: Answer) -> CmpMessage:
    assert answer.refusal is None, answer.refusal
    return decode_message(answer.body)


@pytest.mark.parametrize(("kind", "told"), [(Kind.IR, Kind.IP), (Kind.CR, Kind.CP)])
def test_secret_enrols_and_the_answer_has_the_same_protection(kind: Kind, told: Kind) -> None:
    ports = MemoryPorts()
    message = read(ask(ports, with_mac(kind, crmf(KEY), is_implicit=True)))
    assert (message.kind, message.header.is_implicit) == (told, True)
    assert message.header.recipient_nonce == message.header.transaction_id == bytes(16)
    pbm = decode_pbm(message.header.algorithm)
    assert pbm is not None
    assert pbm.salt != PBM.salt
    assert is_mac_right(message, pbm, SECRET)
    assert ports.done == ["enrol ID"]
    # Nothing waits: it was confirmed implicitly.
    assert refused(ports, with_mac(Kind.CERTCONF, EMPTY))[0] == "cmp-certificate-wrong"


def test_certificate_is_confirmed_once_by_who_has_asked() -> None:
    ports = MemoryPorts()
    answer = read(ask(ports, with_mac(Kind.IR, crmf(KEY))))
    nonce = answer.header.sender_nonce
    issued = ports.transactions.pending(bytes(16), NOW).certificate
    digest = hashlib.sha256(issued).digest()
    good = confirmation(digest)
    assert refused(ports, with_mac(Kind.CERTCONF, good)) == ("cmp-nonce-wrong", "CT")
    for bad in (
        with_mac(Kind.CERTCONF, good, "WRONG", recipient_nonce=nonce),
        with_signature(Kind.CERTCONF, good, KEY, OWN, recipient_nonce=nonce),
    ):
        assert refused(ports, bad) == ("cmp-protection-wrong", "CT")
    bad = with_mac(Kind.CERTCONF, confirmation(b"other"), recipient_nonce=nonce)
    assert refused(ports, bad)[0] == "cmp-certificate-wrong"
    message = read(ask(ports, with_mac(Kind.CERTCONF, good, recipient_nonce=nonce)))
    assert (message.kind, message.body) == (Kind.PKICONF, b"\x05\x00")
    again = with_mac(Kind.CERTCONF, good, recipient_nonce=nonce)
    assert refused(ports, again)[0] == "cmp-certificate-wrong"
    assert ports.done == ["enrol ID"]


@pytest.mark.parametrize("body", [EMPTY, confirmation(b"any", 2)])
def test_certificate_that_is_not_accepted_is_revoked(body: bytes) -> None:
    ports = MemoryPorts(bound=OWN)
    answer = read(ask(ports, with_signature(Kind.KUR, crmf(NEXT), KEY, OWN)))
    confirm = with_signature(Kind.CERTCONF, body, KEY, OWN, recipient_nonce=answer.header.sender_nonce)
    assert read(ask(ports, confirm)).kind is Kind.PKICONF
    assert ports.done == ["renew", "revoke"]


def test_mac_can_not_confirm_what_was_signed() -> None:
    ports = MemoryPorts(bound=OWN)
    answer = read(ask(ports, with_signature(Kind.KUR, crmf(NEXT), KEY, OWN)))
    nonce = answer.header.sender_nonce
    assert refused(ports, with_mac(Kind.CERTCONF, EMPTY, "", recipient_nonce=nonce))[0] == "cmp-protection-wrong"


def test_signature_renews_and_the_answer_is_signed() -> None:
    ports = MemoryPorts(bound=OWN)
    message = read(ask(ports, with_signature(Kind.KUR, crmf(NEXT), KEY, OWN, is_implicit=True)))
    assert message.kind is Kind.KUP
    verify_signed(message)
    assert ports.done == ["renew"]
    # caPubs are for those who have proved a secret.
    assert der.only(message.body, der.SEQUENCE).reader().next_tag() == der.SEQUENCE


def test_holder_revokes_its_certificate_and_no_other() -> None:
    ports = MemoryPorts(bound=OWN)
    assert refused(ports, with_signature(Kind.RR, revocation(9), KEY, OWN)) == ("cmp-certificate-wrong", "CT")
    own = with_signature(Kind.RR, revocation(1), KEY, OWN, transaction_id=bytes(17))
    assert read(ask(ports, own)).kind is Kind.RP
    assert ports.done == ["revoke"]


@pytest.mark.parametrize(("kind", "body"), [(Kind.KUR, crmf(KEY)), (Kind.RR, revocation(1))])
def test_secret_neither_renews_nor_revokes(kind: Kind, body: bytes) -> None:
    ports = MemoryPorts()
    assert refused(ports, with_mac(kind, body)) == ("cmp-signature-needed", "CT")
    assert ports.done == []


def test_general_message_is_answered() -> None:
    asked = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, der.encode_oid("1.3.6.1.5.5.7.4.17")))
    message = read(ask(MemoryPorts(), with_mac(Kind.GENM, asked)))
    assert message.kind is Kind.GENP
    assert len(message.body) > 500


def test_transaction_is_good_once() -> None:
    ports = MemoryPorts()
    data = with_mac(Kind.GENM, EMPTY)
    read(ask(ports, data))
    assert refused(ports, data) == ("cmp-replayed", "CT")


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"", ("cmp-unreadable", None)),
        (with_mac(Kind.IR, crmf(KEY))[:-5], ("cmp-unreadable", None)),
        (with_mac(Kind.IR, crmf(KEY), version=1), ("cmp-version", None)),
        (with_mac(Kind.PKICONF, EMPTY), ("cmp-not-offered", None)),
        (with_signature(Kind.IR, crmf(KEY), KEY, OWN, algorithm=b""), ("cmp-protection-wrong", None)),
        (with_mac(Kind.IR, crmf(KEY), sender_key_id=b"MR"), ("invitation-unknown", "MR")),
        (with_mac(Kind.IR, crmf(KEY), sender_key_id=b""), ("invitation-unknown", None)),
        (with_mac(Kind.IR, crmf(KEY), sender_key_id=b"CT\0"), ("invitation-unknown", None)),
        (with_mac(Kind.IR, crmf(KEY), pbm=replace(PBM, iterations=1)), ("cmp-algorithm", None)),
        (with_mac(Kind.IR, crmf(KEY, template(KEY, "OTHER"))), ("subject-not-granted", "CT")),
        (with_mac(Kind.IR, crmf(KEY, signer=NEXT)), ("request-signature-wrong", "CT")),
        (with_signature(Kind.KUR, crmf(NEXT), KEY, OWN), ("not-a-device-certificate", None)),
    ],
)
def test_refusals_issue_nothing(data: bytes, refusal: tuple[str, str | None]) -> None:
    ports = MemoryPorts()
    assert refused(ports, data) == refusal
    assert ports.done == []


def test_wrong_mac_is_counted() -> None:
    ports = MemoryPorts()
    assert refused(ports, with_mac(Kind.IR, crmf(KEY), "WRONG")) == ("code-wrong", "CT")
    assert ports.done == ["wrong ID"]
