"""Certification requests (PKCS#10, RFC 2986): read, and held against what was granted. Nothing in them is believed."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from dicomward.enrolment.grant import Grant
from dicomward.enrolment.profile import KeyKind, uris_of, verify_key_granted, verify_public_key
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.vocab.reason import ReasonCode

MOST_REQUEST_BYTES: Final = 16 * 1024
# RFC 7030 §4.4.1: who asks for a key from the server that is encrypted, under a secret that both know, or for a key.
_DECRYPT_KEY: Final = "1.2.840.113549.1.9.16.2.37"
_ASYMMETRIC_DECRYPT_KEY: Final = "1.2.840.113549.1.9.16.2.54"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificationRequest:
    """A request whose signature is right and whose key is strong. `names` are its SAN as texts, `TYPE:VALUE`.

    A key that the server makes shall be encrypted: `decrypt_key` identifies the key of the device for which, and
    `wants_shared_secret` under a secret that both would have to know.
    """

    public_key: bytes
    key_kind: KeyKind
    key_sha256: str
    common_names: tuple[str, ...]
    other_subject: tuple[str, ...]
    names: tuple[str, ...]
    wants_ca: bool
    wants_shared_secret: bool
    decrypt_key: bytes | None


def decode_request(der: bytes, *, is_proved: bool = False) -> CertificationRequest:
    """Read a request (DER) and verify its signature and its key. Raises EnrolmentRefusedError.

    `is_proved`: the signature is none, since the possession of the key was proved in another way.
    """
    if len(der) > MOST_REQUEST_BYTES:
        raise EnrolmentRefusedError(ReasonCode.REQUEST_UNREADABLE, f"{len(der)} bytes are no PKCS#10 request")
    try:
        request = x509.load_der_x509_csr(der)
        public_key = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        is_signed = is_proved or request.is_signature_valid
        subject = list(request.subject)
        extensions = list(request.extensions)
        wished = {each.oid.dotted_string: each.value for each in request.attributes}
        names, wants_ca = _wishes(extensions)
    except (x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise EnrolmentRefusedError(ReasonCode.REQUEST_UNREADABLE, f"no PKCS#10 request: {error}") from error
    except (x509.UnsupportedGeneralNameType, KeyError) as error:
        raise EnrolmentRefusedError(ReasonCode.NAME_NOT_GRANTED, f"a name that can't be read: {error}") from error
    # The key first: a signature by a weak key proves nothing.
    key_kind = verify_public_key(public_key)
    if not is_signed:
        raise EnrolmentRefusedError(
            ReasonCode.REQUEST_SIGNATURE_WRONG, "the request is not signed with the key that it names"
        )
    return CertificationRequest(
        public_key=public_key,
        key_kind=key_kind,
        key_sha256=hashlib.sha256(public_key).hexdigest(),
        common_names=tuple(str(each.value) for each in subject if each.oid == NameOID.COMMON_NAME),
        other_subject=tuple(each.rfc4514_string() for each in subject if each.oid != NameOID.COMMON_NAME),
        names=names,
        wants_ca=wants_ca,
        wants_shared_secret=_DECRYPT_KEY in wished,
        decrypt_key=wished.get(_ASYMMETRIC_DECRYPT_KEY),
    )


def _wishes(extensions: Iterable[x509.Extension[x509.ExtensionType]]) -> tuple[tuple[str, ...], bool]:
    """Return the names that the request would like, and if it would like to be a CA."""
    names: list[str] = []
    wants_ca = False
    for extension in extensions:
        match extension.value:
            case x509.SubjectAlternativeName() as alternative:
                names += [_name_of(each) for each in alternative]
            case x509.BasicConstraints(ca=True):
                wants_ca = True
    return tuple(names), wants_ca


def _name_of(name: x509.GeneralName) -> str:
    match name:
        case x509.UniformResourceIdentifier(value=value):
            return f"URI:{value}"
        case x509.DNSName(value=value):
            return f"DNS:{value.lower()}"
        case x509.IPAddress(value=address):
            return f"IP:{address}"
    return f"{type(name).__name__}:?"


def granted_names(grant: Grant) -> tuple[str, ...]:
    """Return the names that a request may repeat: those of the profile."""
    names = [f"URI:{uri}" for uri in uris_of(grant)]
    if grant.address is not None and not grant.plain:
        names += [f"DNS:{grant.address.host.lower()}", f"IP:{grant.address.host}"]
    return tuple(names)


def verify_request(request: CertificationRequest, grant: Grant) -> None:
    """Hold a request against the grant: it may leave names out, and name nothing else. Raises EnrolmentRefusedError."""
    verify_key_granted(request.key_kind, grant)
    strange = [name for name in request.common_names if name not in (grant.device, *grant.ae_titles)]
    if strange or request.other_subject:
        asked = ", ".join([f"CN={name}" for name in strange] + list(request.other_subject))
        raise EnrolmentRefusedError(
            ReasonCode.SUBJECT_NOT_GRANTED, f"the subject has {asked[:200]}; granted is CN={grant.device}, or none"
        )
    allowed = granted_names(grant)
    outside = [name for name in request.names if name not in allowed]
    if outside:
        raise EnrolmentRefusedError(
            ReasonCode.NAME_NOT_GRANTED, f"the SAN has {', '.join(outside)[:200]}; granted are {', '.join(allowed)}"
        )
    if request.wants_ca:
        raise EnrolmentRefusedError(ReasonCode.NAME_NOT_GRANTED, "the request would like to be a CA")
