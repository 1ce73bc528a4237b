"""The bodies of CMP messages (RFC 9810 §5.3) and the requests inside them (CRMF, RFC 4211), read and written."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from dicomward.enrolment import der
from dicomward.enrolment.cmp_message import Kind, encode_info, unreadable
from dicomward.enrolment.cmp_protection import is_signature_right
from dicomward.enrolment.der import DerError, Item
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import CertificationRequest, decode_request
from dicomward.vocab.reason import ReasonCode

_CA_CERTIFICATES: Final = der.encode_oid("1.3.6.1.5.5.7.4.17")
_EXTENSION_REQUEST: Final = der.encode_oid("1.2.840.113549.1.9.14")
# RFC 9483 §4.1.4: a PKCS#10 request has no number.
_NO_NUMBER: Final = -1
_REJECTED: Final = 2
_WAITING: Final = 3
# CertTemplate: implicit tags, but names are choices and so explicit.
_SERIAL, _ISSUER, _SUBJECT, _PUBLIC_KEY, _EXTENSIONS = 0x81, 0xA3, 0xA5, 0xA6, 0xA9
_SIGNATURE_PROOF: Final = 0xA1


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a certificate whose key was proved, and its number."""

    number: int
    request: CertificationRequest


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What a device says of its new certificate."""

    certificate_hash: bytes
    is_accepted: bool


@dataclass(frozen=True, slots=True)
class Named:
    """The certificate that is to be revoked: its issuer (DER) and its serial."""

    issuer: bytes
    serial: int


def decode_asked(kind: Kind, body: bytes) -> Asked:
    """Read the one request of an ir, cr, kur or p10cr, and verify its proof. Raises EnrolmentRefusedError."""
    if kind is Kind.P10CR:
        return Asked(_NO_NUMBER, decode_request(body))
    try:
        messages = der.only(body, der.SEQUENCE).reader()
        message = messages.take(der.SEQUENCE).reader()
        messages.end()
        asked = message.take(der.SEQUENCE)
        inner = asked.reader()
        number, template = der.decode_integer(inner.take(der.INTEGER)), _template(inner.take(der.SEQUENCE))
        key = der.encode(der.SEQUENCE, template[_PUBLIC_KEY])
        request = decode_request(_as_pkcs10(template, key), is_proved=True)
        _verify_proof(asked, message.optional(_SIGNATURE_PROOF), key)
    except KeyError as error:
        raise unreadable("the template has no public key") from error
    except DerError as error:
        raise unreadable(error) from error
    return Asked(number, request)


def _template(item: Item) -> dict[int, bytes]:
    return {each.tag: each.content for each in item.reader().items()}


def _as_pkcs10(template: dict[int, bytes], key: bytes) -> bytes:
    """Return a template as PKCS#10, unsigned: one reader, and one set of rules, for both."""
    wishes = b""
    if _EXTENSIONS in template:
        extensions = der.encode(der.SEQUENCE, template[_EXTENSIONS])
        wishes = der.encode(der.SEQUENCE, _EXTENSION_REQUEST, der.encode(der.SET, extensions))
    subject = template.get(_SUBJECT, der.encode(der.SEQUENCE))
    info = der.encode(der.SEQUENCE, der.encode_integer(0), subject, key, der.encode(0xA0, wishes))
    unsigned = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.3.2"))
    return der.encode(der.SEQUENCE, info, unsigned, der.encode(der.BIT_STRING, b"\0"))


def _verify_proof(asked: Item, proof: Item | None, key: bytes) -> None:
    """RFC 4211 §4.1: the request is signed with the key that it asks for. Raises EnrolmentRefusedError, DerError."""
    if proof is None:
        raise EnrolmentRefusedError(ReasonCode.REQUEST_SIGNATURE_WRONG, "no proof of the key by a signature")
    reader = proof.reader()
    algorithm, signature = reader.take(der.SEQUENCE), der.decode_bits(reader.take(der.BIT_STRING))
    # It was loaded before, when its strength was looked at.
    public_key = serialization.load_der_public_key(key)
    if not is_signature_right(public_key, algorithm.encoded, signature, asked.encoded):
        raise EnrolmentRefusedError(ReasonCode.REQUEST_SIGNATURE_WRONG, "the proof of the key is wrong")


def decode_confirmation(body: bytes) -> Confirmation | None:
    """Read a certConf: None says that no certificate is accepted. Raises EnrolmentRefusedError."""
    try:
        statuses = der.only(body, der.SEQUENCE).reader()
        first = statuses.optional(der.SEQUENCE)
        statuses.end()
        if first is None:
            return None
        reader = first.reader()
        certificate_hash = reader.take(der.OCTETS).content
        reader.take(der.INTEGER)
        status = reader.optional(der.SEQUENCE)
        is_accepted = status is None or der.decode_integer(status.reader().take(der.INTEGER)) != _REJECTED
    except DerError as error:
        raise unreadable(error) from error
    return Confirmation(certificate_hash, is_accepted)


def decode_revocation(body: bytes) -> Named:
    """Read an rr for one certificate. Raises EnrolmentRefusedError."""
    try:
        wishes = der.only(body, der.SEQUENCE).reader()
        template = _template(wishes.take(der.SEQUENCE).reader().take(der.SEQUENCE))
        wishes.end()
        return Named(template[_ISSUER], int.from_bytes(template[_SERIAL], "big", signed=True))
    except KeyError as error:
        raise unreadable("a revocation has to name the issuer and the serial") from error
    except DerError as error:
        raise unreadable(error) from error


def names(named: Named, certificate: bytes) -> bool:
    """Say if this is the certificate (DER) that is named. Raises EnrolmentRefusedError."""
    try:
        found = x509.load_der_x509_certificate(certificate)
        return found.serial_number == named.serial and found.issuer.public_bytes() == named.issuer
    except (ValueError, UnsupportedAlgorithm) as error:
        raise unreadable(error) from error


def encode_issued(number: int, certificate: bytes, anchors: Iterable[bytes]) -> bytes:
    """Return the body of an ip, cp or kup with one certificate."""
    trusted = b"".join(anchors)
    ca_certificates = der.encode(0xA1, der.encode(der.SEQUENCE, trusted)) if trusted else b""
    pair = der.encode(der.SEQUENCE, der.encode(0xA0, certificate))
    response = der.encode(der.SEQUENCE, der.encode_integer(number), _status(0), pair)
    return der.encode(der.SEQUENCE, ca_certificates, der.encode(der.SEQUENCE, response))


def encode_waiting(number: int, text: str) -> bytes:
    """Return the body of an ip or cp without a certificate: the request waits (RFC 9483 §4.4)."""
    response = der.encode(der.SEQUENCE, der.encode_integer(number), _status(_WAITING, text))
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, response))


def decode_poll(body: bytes) -> int:
    """Return the number of the one request that a pollReq asks for. Raises EnrolmentRefusedError."""
    try:
        asked = der.only(body, der.SEQUENCE).reader()
        number = der.decode_integer(asked.take(der.SEQUENCE).reader().take(der.INTEGER))
        asked.end()
    except DerError as error:
        raise unreadable(error) from error
    return number


def encode_poll(number: int, seconds: int, text: str) -> bytes:
    """Return the body of a pollRep: ask again after so many seconds."""
    said = der.encode(der.SEQUENCE, der.encode(der.UTF8, text.encode("utf-8")))
    one = der.encode(der.SEQUENCE, der.encode_integer(number), der.encode_integer(seconds), said)
    return der.encode(der.SEQUENCE, one)


def encode_revoked() -> bytes:
    """Return the body of an rp: done."""
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, _status(0)))


def encode_confirmed() -> bytes:
    """Return the body of a pkiconf."""
    return der.encode(der.NULL)


def answer_general(body: bytes, chain: Iterable[bytes]) -> bytes:
    """Return the body of a genp: the CA's certificates if the genm asks for them. Raises EnrolmentRefusedError."""
    try:
        asked = [each.reader().take(der.OID).encoded for each in der.only(body, der.SEQUENCE).reader().items()]
    except DerError as error:
        raise unreadable(error) from error
    told = encode_info(_CA_CERTIFICATES, der.encode(der.SEQUENCE, *chain)) if _CA_CERTIFICATES in asked else b""
    return der.encode(der.SEQUENCE, told)


def encode_error(failure: int, text: str) -> bytes:
    """Return the body of an error: PKIFailureInfo's bit and a sentence."""
    return der.encode(der.SEQUENCE, _status(_REJECTED, text, failure))


def _status(status: int, text: str = "", failure: int | None = None) -> bytes:
    parts = [der.encode_integer(status)]
    if text:
        parts.append(der.encode(der.SEQUENCE, der.encode(der.UTF8, text.encode("utf-8"))))
    if failure is not None:
        bits = bytearray(failure // 8 + 1)
        bits[-1] = 0x80 >> failure % 8
        parts.append(der.encode(der.BIT_STRING, bytes([7 - failure % 8]), bytes(bits)))
    return der.encode(der.SEQUENCE, *parts)
