"""The certificate profile as data: what stands in a device's certificate, and which keys may. docs/enrolment.md.

RFC 5280 on top of PS3.15 §B.12 (RSA of 2048 bits, EC of 256, SHA-256, at least). DICOM has no profile of its own. The
names come from the grant, never from the request.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicomward.enrolment.grant import Grant
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.vocab.reason import ReasonCode

DEFAULT_LIFE: Final = timedelta(days=90)
MIN_LIFE: Final = timedelta(days=1)
MAX_LIFE: Final = timedelta(days=3650)
# A device whose clock is slow by less than this can use its certificate at once.
BACKDATED: Final = timedelta(hours=1)
MIN_RSA_BITS: Final = 2048
# A verification costs the square of the bits; nobody needs more.
MAX_RSA_BITS: Final = 8192
_RSA_EXPONENT_BITS: Final = 64
_CURVES: Final = frozenset({"secp256r1", "secp384r1", "secp521r1"})


class KeyKind(StrEnum):
    """The kinds of device keys: ECDSA by default, RSA for old devices."""

    ECDSA = "ecdsa"
    RSA = "rsa"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateProfile:
    """What stands in one certificate. Times are aware; `key_encipherment` is for RSA keys, which old TLS 1.2 wraps to.

    Always: digitalSignature, CA false, clientAuth. `server_auth`: the device listens, too.
    """

    common_name: str
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    key_encipherment: bool
    server_auth: bool
    not_before: datetime
    not_after: datetime


def device_uri(name: str) -> str:
    """Return the URI that names a device in a certificate."""
    return f"urn:dicomward:device:{quote(name, safe='')}"


def ae_title_uri(ae_title: str) -> str:
    """Return the URI that names an AE title in a certificate (our own convention: DICOM defines none)."""
    return f"urn:dicom:ae:{quote(ae_title, safe='')}"


def uris_of(grant: Grant) -> tuple[str, ...]:
    """Return the URIs of the SAN: the device, then its AE titles. A request may repeat them, and nothing else."""
    return (device_uri(grant.device), *map(ae_title_uri, grant.ae_titles))


def profile_of(
    grant: Grant,
    kind: KeyKind,
    now: datetime,
    *,
    ca_not_before: datetime,
    ca_not_after: datetime,
    backdated: timedelta = BACKDATED,
) -> CertificateProfile:
    """Return the profile of a certificate that is issued now (aware).

    It begins a little earlier, for slow clocks, and never outlives its CA. Raises EnrolmentRefusedError.
    """
    if not ca_not_before <= now < ca_not_after:
        raise EnrolmentRefusedError(
            ReasonCode.CA_NOT_VALID,
            f"the issuing CA is valid from {ca_not_before:%Y-%m-%d %H:%M} to {ca_not_after:%Y-%m-%d %H:%M} UTC; "
            "make a new one: dicomward ca rollover",
        )
    host = grant.address.host if grant.address is not None and not grant.plain else None
    address = _as_address(host) if host is not None else None
    return CertificateProfile(
        common_name=grant.device,
        uris=uris_of(grant),
        dns_names=() if host is None or address is not None else (host,),
        ip_addresses=() if address is None else (address,),
        key_encipherment=kind is KeyKind.RSA,
        server_auth=host is not None,
        not_before=max(now - backdated, ca_not_before),
        not_after=min(now + grant.life, ca_not_after),
    )


def _as_address(host: str) -> str | None:
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        return None


def verify_public_key(spki: bytes) -> KeyKind:
    """Return the kind of a public key (SubjectPublicKeyInfo, DER). Raises EnrolmentRefusedError."""
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EnrolmentRefusedError(ReasonCode.KEY_UNREADABLE, f"the public key can't be read: {error}") from error
    match key:
        case rsa.RSAPublicKey():
            exponent = key.public_numbers().e
            if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
                raise EnrolmentRefusedError(
                    ReasonCode.KEY_TOO_WEAK, f"RSA of {key.key_size} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are taken"
                )
            if exponent < 65537 or exponent.bit_length() > _RSA_EXPONENT_BITS:
                raise EnrolmentRefusedError(
                    ReasonCode.KEY_TOO_WEAK, f"RSA with the exponent {exponent:#x}; make the key with 65537"
                )
            return KeyKind.RSA
        case ec.EllipticCurvePublicKey():
            if key.curve.name not in _CURVES:
                raise EnrolmentRefusedError(
                    ReasonCode.KEY_TOO_WEAK, f"the curve {key.curve.name}; P-256, P-384 and P-521 are taken"
                )
            return KeyKind.ECDSA
    raise EnrolmentRefusedError(
        ReasonCode.KEY_TOO_WEAK, f"a key of the kind {type(key).__name__}; DICOM TLS peers know RSA and ECDSA only"
    )


def verify_key_granted(kind: KeyKind, grant: Grant) -> None:
    """Raise EnrolmentRefusedError if the grant is not for this kind of key."""
    if kind.value not in grant.key_kinds:
        raise EnrolmentRefusedError(
            ReasonCode.KEY_KIND_NOT_GRANTED, f"{grant.device}: a key of the kind {kind}; granted {grant.key_kinds}"
        )
