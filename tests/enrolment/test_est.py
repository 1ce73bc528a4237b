"""EST on the wire: what old and new clients send, and what they get, checked with OpenSSL too."""

import base64
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dicomward.enrolment.est import (
    decode_body,
    decode_certificates,
    encode_body,
    encode_certificates,
    encode_csr_attributes,
    encode_key_and_certificate,
)
from dicomward.enrolment.grant import Grant
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.io.ca.local import LocalCa
from dicomward.vocab.reason import ReasonCode

DER = b"\x30\x82\x01\x05" + bytes(range(256)) + b"tail."
GRANT = Grant(device="CT-1", ae_titles=("CT1",), role="modality", networks=("any",), life=timedelta(days=90))
ROOT = LocalCa.make("Test", datetime(2027, 3, 1, tzinfo=UTC)).certificate.public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "body",
    [
        base64.b64encode(DER),
        base64.encodebytes(DER),
        base64.encodebytes(DER).replace(b"\n", b"\r\n"),
        b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(DER) + b"-----END CERTIFICATE REQUEST-----\n",
        DER,
    ],
)
def test_every_spelling_of_a_body_is_read(body: bytes) -> None:
    assert decode_body(body) == DER


@pytest.mark.parametrize("body", [b"", b"  \n", b"not base64!", b"abc", b"\xff\xfe"])
def test_other_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(EnrolmentRefusedError) as caught:
        decode_body(body)
    assert caught.value.reason is ReasonCode.REQUEST_UNREADABLE


def test_body_is_one_line() -> None:
    assert b"\n" not in encode_body(bytes(5000))


def test_certificates_there_and_back() -> None:
    assert decode_certificates(encode_certificates([ROOT])) == [ROOT]
    with pytest.raises(EnrolmentRefusedError):
        decode_certificates(encode_body(ROOT))


def attributes(grant: Grant | None, *kinds: str) -> str:
    der = base64.b64decode(encode_csr_attributes(grant, kinds))
    done = subprocess.run(["openssl", "asn1parse", "-inform", "DER"], input=der, capture_output=True, check=True)
    return done.stdout.decode()


def test_attributes_dictate_key_and_names() -> None:
    text = attributes(GRANT, "ecdsa", "rsa")
    for part in ("id-ecPublicKey", "prime256v1", "ecdsa-with-SHA256", "Extension Request", "Subject Alternative Name"):
        assert part in text
    value = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(uri) for uri in ("urn:dicomward:device:CT-1", "urn:dicom:ae:CT1")]
    ).public_bytes()
    assert value.hex().upper() in text


def test_attributes_without_a_device_name_the_key_only() -> None:
    text = attributes(None, "rsa")
    assert "rsaEncryption" in text
    assert ":0800" in text
    assert "Extension" not in text


def test_long_attributes_have_long_lengths() -> None:
    many = Grant(
        device="CT-1", ae_titles=tuple(f"CT{n}" for n in range(30)), role="m", networks=("any",), life=timedelta(days=1)
    )
    assert "urn" not in attributes(many, "ecdsa").lower().partition("hex dump")[0]


def test_key_and_certificate_in_two_parts() -> None:
    kind, body = encode_key_and_certificate(b"key", ROOT, "zz")
    assert kind == "multipart/mixed; boundary=zz"
    parts = body.split(b"--zz")
    assert parts[1].endswith(b"\r\n\r\n" + base64.b64encode(b"key") + b"\r\n")
    assert b"application/pkcs7-mime; smime-type=certs-only" in parts[2]
    assert parts[3] == b"--\r\n"
