"""The CMP server in memory: who may have what, each refusal with its bit, confirmations, nonces and replays."""

import hashlib
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from dicomward.enrolment import der
from dicomward.enrolment.answers import RETRY_SECONDS, answer_for
from dicomward.enrolment.cmp import Answer, handle
from dicomward.enrolment.cmp_answers import failure_for
from dicomward.enrolment.cmp_body import encode_error
from dicomward.enrolment.cmp_message import CmpMessage, Kind, decode_message
from dicomward.enrolment.cmp_protection import decode_mac, is_mac_right, verify_signed
from dicomward.enrolment.grant import Grant
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.vocab.reason import ReasonCode
from tests.enrolment.cmp_client import (
    NOW,
    PBM,
    SECRET,
    MemoryPorts,
    bare,
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
    mac = decode_mac(message.header.algorithm)
    assert mac is not None
    assert mac.salt != PBM.salt
    assert is_mac_right(message, mac, SECRET)
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
        (with_mac(Kind.IR, crmf(KEY), mac=replace(PBM, iterations=1)), ("cmp-algorithm", None)),
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


# --- requests that wait for approval ---------------------------------------------------------------------------------


def poll(number: int = 0) -> bytes:
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, der.encode_integer(number)))


def by_stranger(kind: Kind, body: bytes, own: bytes, **changed: object) -> bytes:
    return with_signature(kind, body, KEY, own, **changed) if own else bare(kind, body, **changed)


@pytest.mark.parametrize("own", [b"", OWN], ids=["bare", "signed"])
@pytest.mark.parametrize("is_implicit", [True, False])
def test_request_of_a_stranger_waits_until_it_is_approved(own: bytes, is_implicit: bool) -> None:
    ports = MemoryPorts(has_queue=True)
    message = read(ask(ports, by_stranger(Kind.IR, crmf(NEXT, number=5), own, is_implicit=is_implicit)))
    assert message.kind is Kind.IP
    verify_signed(message)
    # status waiting (3), and no certificate
    assert der.encode_integer(3) in message.body
    assert len(message.body) < 60
    nonce = message.header.sender_nonce
    message = read(ask(ports, by_stranger(Kind.POLLREQ, poll(5), own, recipient_nonce=nonce)))
    assert message.kind is Kind.POLLREP
    reply = der.only(der.only(message.body, der.SEQUENCE).content, der.SEQUENCE).reader()
    assert [der.decode_integer(reader) for reader in (reply.item(), reply.item())] == [5, RETRY_SECONDS]
    ports.is_approved = True
    nonce = message.header.sender_nonce
    message = read(ask(ports, by_stranger(Kind.POLLREQ, poll(5), own, recipient_nonce=nonce)))
    assert (message.kind, message.header.is_implicit) == (Kind.IP, is_implicit)
    assert ports.done == ["ask", "ask", "ask"]
    nonce = message.header.sender_nonce
    confirm = by_stranger(Kind.CERTCONF, EMPTY, own, recipient_nonce=nonce)
    if is_implicit:
        assert refused(ports, confirm)[0] == "cmp-certificate-wrong"
    else:
        assert read(ask(ports, confirm)).kind is Kind.PKICONF
        assert ports.done[-1] == "revoke"


def test_what_was_approved_before_is_issued_at_once() -> None:
    ports = MemoryPorts(has_queue=True, is_approved=True)
    assert read(ask(ports, bare(Kind.CR, crmf(KEY)))).kind is Kind.CP


def test_polling_goes_on_with_who_has_begun() -> None:
    ports = MemoryPorts(has_queue=True)
    nonce = read(ask(ports, with_signature(Kind.IR, crmf(NEXT), KEY, OWN))).header.sender_nonce
    other = certificate(NEXT)
    for bad in (
        bare(Kind.POLLREQ, poll(), recipient_nonce=nonce),
        with_mac(Kind.POLLREQ, poll(), "", recipient_nonce=nonce),
        with_signature(Kind.POLLREQ, poll(), NEXT, other, recipient_nonce=nonce),
    ):
        assert refused(ports, bad)[0] == "cmp-protection-wrong"
    assert refused(ports, with_signature(Kind.POLLREQ, poll(), KEY, OWN))[0] == "cmp-nonce-wrong"
    wrong = with_signature(Kind.POLLREQ, poll(7), KEY, OWN, recipient_nonce=nonce)
    assert refused(ports, wrong)[0] == "cmp-certificate-wrong"
    unknown = bare(Kind.POLLREQ, poll(), transaction_id=bytes(17))
    assert refused(ports, unknown)[0] == "cmp-certificate-wrong"
    garbage = with_signature(Kind.POLLREQ, EMPTY, KEY, OWN, recipient_nonce=nonce)
    assert refused(ports, garbage)[0] == "cmp-unreadable"
    ports = MemoryPorts(has_queue=True)
    nonce = read(ask(ports, bare(Kind.IR, crmf(NEXT)))).header.sender_nonce
    signed = with_signature(Kind.POLLREQ, poll(), KEY, OWN, recipient_nonce=nonce)
    assert refused(ports, signed)[0] == "cmp-protection-wrong"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bare(Kind.RR, revocation(1)), "cmp-protection-wrong"),
        (bare(Kind.GENM, EMPTY), "cmp-protection-wrong"),
        (with_signature(Kind.KUR, crmf(NEXT), KEY, OWN), "not-a-device-certificate"),
        (with_signature(Kind.IR, crmf(NEXT), KEY, OWN, algorithm=b""), "cmp-protection-wrong"),
        (with_signature(Kind.IR, crmf(NEXT), NEXT, OWN), "cmp-protection-wrong"),
        (with_mac(Kind.IR, crmf(KEY), "WRONG"), "code-wrong"),
    ],
)
def test_only_first_requests_wait(data: bytes, reason: str) -> None:
    ports = MemoryPorts(has_queue=True)
    assert refused(ports, data)[0] == reason
    assert "ask" not in ports.done


def test_device_and_invited_do_not_wait() -> None:
    ports = MemoryPorts(has_queue=True, bound=OWN)
    assert read(ask(ports, with_signature(Kind.IR, crmf(NEXT), KEY, OWN))).kind is Kind.IP
    read(ask(ports, with_mac(Kind.IR, crmf(KEY), transaction_id=bytes(17))))
    assert ports.done == ["renew", "enrol ID"]


def test_refusal_of_a_device_is_no_reason_to_wait() -> None:
    class Held(MemoryPorts):
        def renewable(self, certificate: bytes) -> Grant:
            raise EnrolmentRefusedError(ReasonCode.CA_UNAVAILABLE, "no database")

    ports = Held(has_queue=True)
    assert refused(ports, with_signature(Kind.IR, crmf(NEXT), KEY, OWN))[0] == "ca-unavailable"
