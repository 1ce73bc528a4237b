"""Certificates and CRLs, signed (RFC 5280): the CA's own, and those of devices by their profile."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicomward.enrolment.profile import CertificateProfile
from dicomward.enrolment.revocations import Revocation
from dicomward.io.ca.terms import CaKey

_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_SERIAL_BITS: Final = 128
_BACKDATED: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate of a CA and its key."""

    certificate: x509.Certificate
    key: CaKey


def new_serial() -> int:
    """Return 128 random bits: positive, and at most 20 octets (RFC 5280 §4.1.2.2)."""
    return secrets.randbits(_SERIAL_BITS) | (1 << (_SERIAL_BITS - 1))


def make_root(name: str, key: CaKey, now: datetime, *, days: int) -> x509.Certificate:
    """Make a root certificate that signs issuing CAs and nothing else."""
    subject = _name(name)
    builder = _ca_builder(subject, subject, key.public_key(), now, now + timedelta(days=days), path_length=1)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    ).sign(key, hashes.SHA256())


def make_issuing(root: Authority, name: str, public_key: _PublicKey, now: datetime, *, days: int) -> x509.Certificate:
    """Make the certificate of an issuing CA, that never outlives its root."""
    end = min(now + timedelta(days=days), root.certificate.not_valid_after_utc)
    builder = _ca_builder(_name(name), root.certificate.subject, public_key, now, end, path_length=0)
    return builder.add_extension(_issuer_key_id(root.certificate), critical=False).sign(root.key, hashes.SHA256())


def make_device_certificate(
    authority: Authority, profile: CertificateProfile, public_key: _PublicKey, serial: int, *, crl_url: str = ""
) -> x509.Certificate:
    """Sign a device's certificate as its profile says."""
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in profile.uris]
    names += [x509.DNSName(name) for name in profile.dns_names]
    names += [x509.IPAddress(ip_address(text)) for text in profile.ip_addresses]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if profile.server_auth:
        usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
    builder = (
        _builder(_name(profile.common_name), authority.certificate.subject, public_key, serial)
        .not_valid_before(profile.not_before.astimezone(UTC))
        .not_valid_after(profile.not_after.astimezone(UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(key_encipherment=profile.key_encipherment), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_issuer_key_id(authority.certificate), critical=False)
    )
    if crl_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def make_crl(
    authority: Authority, revocations: Iterable[Revocation], now: datetime, *, life: timedelta
) -> x509.CertificateRevocationList:
    """Sign a CRL. Its number is the time in microseconds, so it grows without being kept anywhere."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now.astimezone(UTC))
        .next_update((now + life).astimezone(UTC))
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1_000_000)), critical=False)
        .add_extension(_issuer_key_id(authority.certificate), critical=False)
    )
    for each in revocations:
        revoked = (
            x509.RevokedCertificateBuilder()
            .serial_number(each.serial)
            .revocation_date(min(each.revoked_at, now).astimezone(UTC))
            .add_extension(x509.CRLReason(x509.ReasonFlags(each.reason)), critical=False)
        )
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(authority.key, hashes.SHA256())


def der_of(certificate: x509.Certificate) -> bytes:
    """Return DER."""
    return certificate.public_bytes(serialization.Encoding.DER)


def pem_of(*certificates: x509.Certificate) -> bytes:
    """Return PEM, one after the other."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the DER form, in lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: x509.Name, issuer: x509.Name, public_key: _PublicKey, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key).serial_number(serial)
    )


def _ca_builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: _PublicKey,
    now: datetime,
    end: datetime,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        _builder(subject, issuer, public_key, new_serial())
        .not_valid_before((now - _BACKDATED).astimezone(UTC))
        .not_valid_after(end.astimezone(UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs: bool = False, key_encipherment: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
