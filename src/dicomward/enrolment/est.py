"""EST on the wire: RFC 7030 with its corrections RFC 8951 and RFC 9908, and nothing of HTTP.

Bodies are base64 without a header of PEM; what old clients send instead (PEM, DER, line breaks) is read too.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates, serialize_certificates

from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.vocab.reason import ReasonCode

EST_PATH: Final = "/.well-known/est"
PKCS10: Final = "application/pkcs10"
PKCS7: Final = "application/pkcs7-mime"
PKCS7_CERTS_ONLY: Final = "application/pkcs7-mime; smime-type=certs-only"
PKCS8: Final = "application/pkcs8"
ENCRYPTED_KEY: Final = "application/pkcs7-mime; smime-type=server-generated-key"
CSR_ATTRIBUTES: Final = "application/csrattrs"
# What our own server says beside EST: what it knows about the device that asks.
DEVICE_PATH: Final = "/.well-known/dicomward/device"
# Our own client sends it when an answer was lost: the same code and key may have the same certificate once more.
REPEAT_FIELD: Final = "dicomward-repeat"
# id-kp-cmcRA: RFC 7030 §3.6.1, who may speak for the CA. No certificate of a device has it, so none can pass for us.
CMC_RA: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")
_PEM: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----(.*?)-----END [A-Z0-9 ]+-----", re.DOTALL)
_SPACE: Final = re.compile(rb"[ \t\r\n\f\v]+")


def decode_body(body: bytes) -> bytes:
    """Return the DER of a body, whatever its encoding is called (RFC 8951 §2). Raises EnrolmentRefusedError."""
    if body[:1] == b"\x30" and not body[:2].isalnum():
        return body
    armoured = _PEM.search(body)
    text = _SPACE.sub(b"", armoured[1] if armoured else body)
    try:
        if not text:
            raise ValueError("the body is empty")
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise EnrolmentRefusedError(ReasonCode.REQUEST_UNREADABLE, f"the body is no base64: {error}") from error


def encode_body(der: bytes) -> bytes:
    """Return base64 in one line: strongSwan's `pki` 5.9.8 can't read line breaks."""
    return base64.b64encode(der)


def encode_certificates(certificates: Iterable[bytes]) -> bytes:
    """Return certificates (DER) as the base64 of a degenerate PKCS#7 (RFC 7030 §4.1.3)."""
    loaded = [x509.load_der_x509_certificate(each) for each in certificates]
    return encode_body(serialize_certificates(loaded, Encoding.DER))


def decode_certificates(body: bytes) -> list[bytes]:
    """Read what `encode_certificates` wrote, in any order. Raises EnrolmentRefusedError."""
    der = decode_body(body)
    try:
        return [each.public_bytes(Encoding.DER) for each in load_der_pkcs7_certificates(der)]
    except ValueError as error:
        raise EnrolmentRefusedError(
            ReasonCode.REQUEST_UNREADABLE, f"this is no PKCS#7 of certificates: {error}"
        ) from error


def encode_key_and_certificate(
    key: bytes, certificate: bytes, boundary: str, *, key_type: str = PKCS8
) -> tuple[str, bytes]:
    """Return the content type and the body of serverkeygen's answer: the key, then the certificate.

    The key is PKCS#8 (DER), or with `key_type` ENCRYPTED_KEY a CMS message around it.
    """
    body = bytearray()
    for kind, content in ((key_type, encode_body(key)), (PKCS7_CERTS_ONLY, encode_certificates([certificate]))):
        head = f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        body += head.encode("ascii") + content + b"\r\n"
    return f"multipart/mixed; boundary={boundary}", bytes(body) + f"--{boundary}--\r\n".encode("ascii")
