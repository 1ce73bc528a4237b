"""EST on the wire: what old and new clients send, and what they get, checked with OpenSSL too."""

import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from dicomward.enrolment.est import (
    decode_body,
    decode_certificates,
    encode_body,
    encode_certificates,
    encode_key_and_certificate,
)
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.io.ca.local import LocalCa
from dicomward.vocab.reason import ReasonCode

DER = b"\x30\x82\x01\x05" + bytes(range(256)) + b"tail."
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


def test_key_and_certificate_in_two_parts() -> None:
    kind, body = encode_key_and_certificate(b"key", ROOT, "zz")
    assert kind == "multipart/mixed; boundary=zz"
    parts = body.split(b"--zz")
    assert parts[1].endswith(b"\r\n\r\n" + base64.b64encode(b"key") + b"\r\n")
    assert b"application/pkcs7-mime; smime-type=certs-only" in parts[2]
    assert parts[3] == b"--\r\n"
