"""What a server tells of the request that it would like (RFC 7030 §4.5.2, RFC 9908): the key, the subject, the SAN."""

from collections.abc import Sequence
from typing import Final

from cryptography import x509

from dicomward.enrolment.der import (
    BIT_STRING,
    INTEGER,
    NULL,
    OCTETS,
    SEQUENCE,
    SET,
    UTF8,
    encode,
    encode_integer,
    encode_oid,
)
from dicomward.enrolment.grant import Grant
from dicomward.enrolment.request import granted_names

_EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"
_REQUEST_TEMPLATE: Final = "1.2.840.113549.1.9.16.2.61"
_SUBJECT_ALTERNATIVE_NAME: Final = "2.5.29.17"
_COMMON_NAME: Final = "2.5.4.3"
_EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"
_P256: Final = "1.2.840.10045.3.1.7"
_RSA_ENCRYPTION: Final = "1.2.840.113549.1.1.1"
_ECDSA_SHA256: Final = "1.2.840.10045.4.3.2"
_RSA_SHA256: Final = "1.2.840.113549.1.1.11"
_LEAST_RSA_BITS: Final = 2048
_RSA_EXPONENT: Final = 65537
# IMPLICIT [0] and [1] of CertificationRequestInfoTemplate.
_KEY_TEMPLATE: Final = 0xA0
_ATTRIBUTES: Final = 0xA1


def encode_csr_attributes(grant: Grant | None, key_kinds: Sequence[str]) -> bytes:
    """Return the CSR attributes (DER): the key, and for a known device the names that it has to ask for.

    Said twice, as RFC 9908 §3.4 allows: one by one for the clients of RFC 7030, and as a template of the whole request
    for newer ones, which read nothing else then.
    """
    is_ecdsa = "ecdsa" in key_kinds
    if is_ecdsa:
        parts = [_attribute(_EC_PUBLIC_KEY, encode_oid(_P256)), encode_oid(_ECDSA_SHA256)]
    else:
        parts = [
            _attribute(_RSA_ENCRYPTION, encode(INTEGER, _LEAST_RSA_BITS.to_bytes(2, "big"))),
            encode_oid(_RSA_SHA256),
        ]
    # RFC 9908 §3.2: an extensionRequest attribute with the values of the extension, which the device copies.
    names = [] if grant is None else [_attribute(_EXTENSION_REQUEST, encode(SEQUENCE, _alternative_name(grant)))]
    template = encode(
        SEQUENCE,
        encode_integer(0),
        b"" if grant is None else _subject(grant.device),
        encode(_KEY_TEMPLATE, _ec_key() if is_ecdsa else _rsa_key()),
        encode(_ATTRIBUTES, *names),
    )
    return encode(SEQUENCE, *parts, *names, _attribute(_REQUEST_TEMPLATE, template))


def _alternative_name(grant: Grant) -> bytes:
    names = [name.removeprefix("URI:") for name in granted_names(grant) if name.startswith("URI:")]
    value = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names]).public_bytes()
    return encode(SEQUENCE, encode_oid(_SUBJECT_ALTERNATIVE_NAME), encode(OCTETS, value))


def _subject(name: str) -> bytes:
    common_name = encode(SEQUENCE, encode_oid(_COMMON_NAME), encode(UTF8, name.encode("utf-8")))
    return encode(SEQUENCE, encode(SET, common_name))


def _ec_key() -> bytes:
    return encode(SEQUENCE, encode_oid(_EC_PUBLIC_KEY), encode_oid(_P256))


def _rsa_key() -> bytes:
    """Return the template of an RSA key: its length is told by a modulus that is none (RFC 9908 §3.4)."""
    placeholder = encode(SEQUENCE, encode_integer((1 << _LEAST_RSA_BITS) - 1), encode_integer(_RSA_EXPONENT))
    return encode(SEQUENCE, encode_oid(_RSA_ENCRYPTION), encode(NULL)) + encode(BIT_STRING, b"\0", placeholder)


def _attribute(kind: str, value: bytes) -> bytes:
    return encode(SEQUENCE, encode_oid(kind), encode(SET, value))
