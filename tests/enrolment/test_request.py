"""Certification requests: each reason for which one is refused, and what is granted anyhow."""

import datetime
from dataclasses import replace
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from dicomward.enrolment.grant import Grant
from dicomward.enrolment.profile import KeyKind
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import MOST_REQUEST_BYTES, decode_request, granted_names, verify_request
from dicomward.identity.registry import Endpoint
from dicomward.vocab.reason import ReasonCode

KEY = ec.generate_private_key(ec.SECP256R1())
GRANT = Grant(
    device="CT-1",
    ae_titles=("CT1", "CT1 B"),
    role="modality",
    networks=("any",),
    address=Endpoint(host="10.1.2.3", port=104),
    life=datetime.timedelta(days=90),
)
Name = x509.GeneralName


def made(
    *names: Name,
    subject: str = "CN=CT-1",
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey = KEY,
    ca: bool | None = None,
    attribute: str | None = None,
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name.from_rfc4514_string(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if attribute is not None:
        builder = builder.add_attribute(x509.ObjectIdentifier(attribute), b"\x00")
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def refusal(der: bytes, grant: Grant = GRANT) -> ReasonCode:
    with pytest.raises(EnrolmentRefusedError) as caught:
        verify_request(decode_request(der), grant)
    return caught.value.reason


def test_request_is_read() -> None:
    request = decode_request(made(x509.DNSName("CT.local"), x509.RFC822Name("a@b"), subject="CN=CT-1,O=x"))
    assert request.key_kind is KeyKind.ECDSA
    assert len(request.key_sha256) == 64
    assert request.common_names == ("CT-1",)
    assert request.other_subject == ("O=x",)
    assert request.names == ("DNS:ct.local", "RFC822Name:?")
    assert not request.wants_ca
    assert not request.wants_shared_secret
    assert request.decrypt_key is None
    assert decode_request(made(attribute="1.2.840.113549.1.9.16.2.37")).wants_shared_secret
    assert decode_request(made(attribute="1.2.840.113549.1.9.16.2.54")).decrypt_key == b"\x00"


@pytest.mark.parametrize("subject", ["", "CN=CT-1", "CN=CT1", "CN=CT-1,CN=CT1 B"])
def test_subject_of_the_invitation_or_none_is_fine(subject: str) -> None:
    verify_request(decode_request(made(subject=subject, ca=False)), GRANT)


def test_names_of_the_invitation_may_be_repeated() -> None:
    uris = ("urn:dicomward:device:CT-1", "urn:dicom:ae:CT1", "urn:dicom:ae:CT1%20B")
    names = [*map(x509.UniformResourceIdentifier, uris), x509.IPAddress(ip_address("10.1.2.3"))]
    verify_request(decode_request(made(*names)), GRANT)
    plain = replace(GRANT, address=None)
    assert granted_names(plain) == tuple(f"URI:{uri}" for uri in uris)
    host = replace(GRANT, address=Endpoint(host="CT.local", port=104))
    verify_request(decode_request(made(x509.DNSName("ct.local"))), host)


@pytest.mark.parametrize("subject", ["CN=CT-2", "CN=CT-1,O=Hospital", "O=Hospital"])
def test_other_subject_is_refused(subject: str) -> None:
    assert refusal(made(subject=subject)) is ReasonCode.SUBJECT_NOT_GRANTED


@pytest.mark.parametrize(
    "name",
    [
        x509.UniformResourceIdentifier("urn:dicom:ae:OTHER"),
        x509.DNSName("pacs.local"),
        x509.IPAddress(ip_address("10.9.9.9")),
        x509.RFC822Name("a@b"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    ],
)
def test_other_name_is_refused(name: Name) -> None:
    assert refusal(made(name)) is ReasonCode.NAME_NOT_GRANTED


def test_request_for_a_ca_is_refused() -> None:
    assert refusal(made(ca=True)) is ReasonCode.NAME_NOT_GRANTED


def test_key_of_another_kind_than_granted_is_refused() -> None:
    assert refusal(made(), replace(GRANT, key_kinds=("rsa",))) is ReasonCode.KEY_KIND_NOT_GRANTED


def test_weak_and_strange_keys_are_refused() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    for key in (weak, ec.generate_private_key(ec.SECP192R1()), ed25519.Ed25519PrivateKey.generate()):
        assert refusal(made(key=key)) is ReasonCode.KEY_TOO_WEAK


def test_signature_of_another_key_is_refused() -> None:
    der = bytearray(made())
    der[-1] ^= 1
    assert refusal(bytes(der)) is ReasonCode.REQUEST_SIGNATURE_WRONG


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"garbage", made()[:-5], made() + b"x", b"x" * (MOST_REQUEST_BYTES + 1)]
)
def test_garbage_is_refused(data: bytes) -> None:
    assert refusal(data) is ReasonCode.REQUEST_UNREADABLE


@given(st.integers(0, len(made()) - 1), st.integers(0, 255))
def test_any_flipped_byte_is_a_refusal_or_another_request(at: int, value: int) -> None:
    der = bytearray(made(x509.UniformResourceIdentifier("urn:dicom:ae:CT1")))
    der[at % len(der)] = value
    try:
        verify_request(decode_request(bytes(der)), GRANT)
    except EnrolmentRefusedError as error:
        assert error.reason in set(ReasonCode)  # noqa: PT017  any reason will do, another exception will not
