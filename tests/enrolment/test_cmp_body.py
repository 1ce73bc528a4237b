"""Bodies of CMP messages: requests with their proof, confirmations, revocations, and what is answered."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from dicomward.enrolment import der
from dicomward.enrolment.cmp_body import (
    Confirmation,
    Named,
    answer_general,
    decode_asked,
    decode_confirmation,
    decode_revocation,
    encode_confirmed,
    encode_error,
    encode_issued,
    encode_revoked,
    names,
)
from dicomward.enrolment.cmp_message import Kind
from dicomward.enrolment.refusal import EnrolmentRefusedError
from tests.enrolment.cmp_client import certificate, crmf, spki, template

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
NAMED = Named(x509.load_der_x509_certificate(certificate(KEY)).issuer.public_bytes(), 1)


def seq(*parts: bytes) -> bytes:
    return der.encode(der.SEQUENCE, *parts)


@pytest.mark.parametrize("key", [KEY, rsa.generate_private_key(65537, 2048)])
def test_request_with_its_proof(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    asked = decode_asked(Kind.IR, crmf(key, number=5))
    assert asked.number == 5
    assert asked.request.public_key == spki(key)
    assert asked.request.common_names == ("CT",)
    assert asked.request.names == ()


def test_names_of_a_template_are_read() -> None:
    san = x509.SubjectAlternativeName([x509.DNSName("pacs")]).public_bytes()
    extension = seq(der.encode_oid("2.5.29.17"), der.encode(der.OCTETS, san))
    assert decode_asked(Kind.CR, crmf(KEY, template(KEY, "", extension))).request.names == ("DNS:pacs",)


def test_template_without_a_subject_is_read() -> None:
    key_only = template(KEY)[-len(spki(KEY)) :]
    assert decode_asked(Kind.IR, crmf(KEY, key_only)).request.common_names == ()


def test_pkcs10_has_no_number() -> None:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(KEY, hashes.SHA256())
    asked = decode_asked(Kind.P10CR, request.public_bytes(Encoding.DER))
    assert (asked.number, asked.request.public_key) == (-1, spki(KEY))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "cmp-unreadable"),
        (seq(), "cmp-unreadable"),
        (crmf(KEY)[:-1], "cmp-unreadable"),
        (seq(der.only(crmf(KEY), der.SEQUENCE).content * 2), "cmp-unreadable"),
        (crmf(KEY, b""), "cmp-unreadable"),
        (crmf(KEY, der.encode(0xA6, b"x")), "request-unreadable"),
        (crmf(ec.generate_private_key(ec.SECP192R1())), "key-too-weak"),
        (crmf(KEY, signer=OTHER), "request-signature-wrong"),
        (seq(seq(seq(der.encode_integer(0), seq(template(KEY))))), "request-signature-wrong"),
        (seq(seq(seq(der.encode_integer(0), seq(template(KEY))), b"\x80\x00")), "request-signature-wrong"),
        (seq(seq(seq(der.encode_integer(0), seq(template(KEY))), der.encode(0xA1))), "cmp-unreadable"),
    ],
    # Keys are new in each process, and tests must have the same names in all of them.
    ids=[
        "nothing",
        "no request",
        "cut",
        "two requests",
        "no template",
        "unknown field",
        "weak key",
        "foreign signer",
        "no proof",
        "central key",
        "unreadable proof",
    ],
)
def test_bad_requests(body: bytes, reason: str) -> None:
    with pytest.raises(EnrolmentRefusedError) as caught:
        decode_asked(Kind.IR, body)
    assert caught.value.reason == reason


def test_confirmations() -> None:
    said = der.encode(der.OCTETS, b"h") + der.encode_integer(0)
    assert decode_confirmation(seq()) is None
    assert decode_confirmation(seq(seq(said))) == Confirmation(b"h", True)
    assert decode_confirmation(seq(seq(said, seq(der.encode_integer(0))))) == Confirmation(b"h", True)
    assert decode_confirmation(seq(seq(said, seq(der.encode_integer(2))))) == Confirmation(b"h", False)
    for bad in (b"", seq(seq(said)) + b"x", seq(seq(said), seq(said)), seq(seq())):
        with pytest.raises(EnrolmentRefusedError, match="cmp-unreadable"):
            decode_confirmation(bad)


def test_revocations() -> None:
    wish = der.encode(0x81, b"\x01") + der.encode(0xA3, NAMED.issuer)
    named = decode_revocation(seq(seq(seq(wish))))
    assert named == NAMED
    assert names(named, certificate(KEY))
    assert not names(named, certificate(KEY, serial=2))
    assert not names(named, certificate(KEY, "OTHER"))
    for bad in (b"", seq(), seq(seq(seq())), seq(seq(seq(wish)), seq(seq(wish)))):
        with pytest.raises(EnrolmentRefusedError, match="cmp-unreadable"):
            decode_revocation(bad)
    with pytest.raises(EnrolmentRefusedError, match="cmp-unreadable"):
        names(named, b"x")


def test_general_messages() -> None:
    ca_certificates = der.encode_oid("1.3.6.1.5.5.7.4.17")
    assert answer_general(seq(seq(ca_certificates)), [b"\x05\x00"]) == seq(seq(ca_certificates, seq(b"\x05\x00")))
    assert answer_general(seq(seq(der.encode_oid("1.2.3"))), [b"\x05\x00"]) == seq()
    for bad in (b"", seq(seq())):
        with pytest.raises(EnrolmentRefusedError, match="cmp-unreadable"):
            answer_general(bad, [])


def test_answers() -> None:
    assert encode_confirmed() == b"\x05\x00"
    assert encode_revoked() == bytes.fromhex("30073005 3003020100")
    assert encode_issued(0, b"\x05\x00", [])[2:4] == b"\x30\x10"
    assert encode_issued(0, b"\x05\x00", [b"\x05\x00"])[2:8] == bytes.fromhex("a10430020500")
    # rejection, a text, and bit 9 (badPOP): two bytes, six of whose bits are unused.
    assert encode_error(9, "x") == bytes.fromhex("300f 300d 020102 30030c0178 0303060040")
