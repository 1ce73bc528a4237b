"""The local CA: makes the root, the gateway's own certificates, and device keys until enrolment exists.

Profile: RFC 5280; DICOM has none of its own (PS3.15 §B.12 asks for RSA of 2048 bits or ECC of 256, SHA-256, at least).
Times are arguments. Private keys are written without a passphrase, mode 0600.
"""

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicomward.enrolment import profile
from dicomward.enrolment.profile import ae_title_uri
from dicomward.identity.registry import CertificateRecord
from dicomward.io.system import calls

CA_CERTIFICATE_NAME: Final = "ca.cert.pem"
CA_KEY_NAME: Final = "ca.key.pem"
CA_DAYS: Final = 3652
# Browsers and Apple's stack refuse server certificates that live longer (CA/Browser Forum SC-31).
LEAF_DAYS: Final = 397
MAX_LEAF_DAYS: Final = 3650
# A device whose clock is a little slow must be able to connect at once.
BACKDATED: Final = timedelta(minutes=5)


# The kinds of leaf keys are those of the profile, under the name that callers of the local CA know.
KeyKind = profile.KeyKind

# What TLS 1.3 can sign with (RFC 8446 §4.2.3); older curves fail in the handshake, where nobody can say why.
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class LocalCaError(Exception):
    """A key or certificate can't be made, read or used; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new key and certificate, PEM; `record` is what the registry keeps. The key never shows in repr."""

    key_pem: bytes
    certificate_pem: bytes
    record: CertificateRecord

    def __repr__(self) -> str:
        return f"Issued({self.record!r})"


class LocalCa:
    """A root key and its certificate."""

    def __init__(self, key: CertificateIssuerPrivateKeyTypes, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    @classmethod
    def make(cls, name: str, now: datetime) -> "LocalCa":
        """Make a new root that lives for ten years."""
        # RSA, because old devices can't verify ECDSA signatures, whatever the key of the leaf is.
        key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = (
            _builder(subject, subject, key.public_key(), now - BACKDATED, now + timedelta(days=CA_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(key_id, critical=False)
            # Python 3.13 verifies strictly (VERIFY_X509_STRICT): every certificate names its issuer's key.
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, directory: Path) -> "LocalCa":
        """Read the root from its directory. Raises LocalCaError."""
        certificate = load_certificates(directory / CA_CERTIFICATE_NAME)[0]
        key = _load_key(directory / CA_KEY_NAME)
        if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
            raise LocalCaError(f"{directory / CA_KEY_NAME} is neither an RSA nor an EC key; put the CA's own key there")
        if key.public_key() != certificate.public_key():
            raise LocalCaError(
                f"{directory / CA_KEY_NAME} is not the key of {CA_CERTIFICATE_NAME}; put the pair back from your backup"
            )
        return cls(key, certificate)

    def save(self, directory: Path) -> None:
        """Write key and certificate into a directory that exists. Raises FileExistsError rather than overwrite."""
        write_new_file(directory / CA_KEY_NAME, _key_pem(self._key), 0o600)
        write_new_file(directory / CA_CERTIFICATE_NAME, self.certificate_pem, 0o644)

    @property
    def certificate_pem(self) -> bytes:
        """The root certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue_gateway(self, kind: KeyKind, hosts: Iterable[str], now: datetime, *, days: int = LEAF_DAYS) -> Issued:
        """Issue a certificate of the gateway itself for host names and IP addresses. Raises LocalCaError."""
        return self._issue("Dicomward gateway", kind, [_host_name(host) for host in hosts], now, days)

    def issue_device(
        self,
        name: str,
        ae_titles: Iterable[str],
        kind: KeyKind,
        now: datetime,
        *,
        host: str | None = None,
        days: int = LEAF_DAYS,
    ) -> Issued:
        """Issue a device's certificate: its AE titles as URIs, and where it listens. Raises LocalCaError."""
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(ae_title_uri(title)) for title in ae_titles]
        if host is not None:
            names.append(_host_name(host))
        return self._issue(name, kind, names, now, days)

    def _issue(
        self, common_name: str, kind: KeyKind, names: list[x509.GeneralName], now: datetime, days: int
    ) -> Issued:
        if not 1 <= days <= MAX_LEAF_DAYS:
            raise LocalCaError(f"a life of {days} days is not possible; choose 1 to {MAX_LEAF_DAYS}")
        end = self.certificate.not_valid_after_utc
        if now >= end:
            raise LocalCaError(
                f"the CA's own certificate ended at {end:%Y-%m-%d}; make a new CA and give it to all devices"
            )
        key = _make_key(kind)
        issuer_key_id = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        # PKIX (RFC 5280 §6.1.3) checks each validity by itself; a leaf that outlives its root only misleads people.
        not_after = min(now + timedelta(days=days), end)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            _builder(subject, self.certificate.subject, key.public_key(), now - BACKDATED, not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(enciphers_keys=kind is KeyKind.RSA), critical=True)
            # A gateway and many devices are both: SCU towards one peer, SCP towards another.
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id), critical=False
            )
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(
            key_pem=_key_pem(key),
            certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
            record=certificate_record(certificate),
        )


def certificate_record(certificate: x509.Certificate) -> CertificateRecord:
    """Return what the registry keeps of a certificate."""
    return CertificateRecord(
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        status="active",
        serial=f"{certificate.serial_number:x}",
    )


def load_certificates(path: Path) -> tuple[x509.Certificate, ...]:
    """Read all certificates of a PEM file, or the one of a DER file; at least one. Raises LocalCaError."""
    data = _read(path)
    try:
        if b"-----BEGIN" in data:
            return tuple(x509.load_pem_x509_certificates(data))
        return (x509.load_der_x509_certificate(data),)
    except ValueError as error:
        raise LocalCaError(f"{path} holds no certificate in PEM or DER ({error}); name the right file") from error


def verify_strength(certificate: x509.Certificate) -> None:
    """Check the key and the signature against PS3.15 §B.12. Raises LocalCaError."""
    key = certificate.public_key()
    match key:
        case rsa.RSAPublicKey():
            strong = key.key_size >= 2048
        case ec.EllipticCurvePublicKey():
            strong = key.key_size >= 256
        case _:
            raise LocalCaError("its key is neither RSA nor EC; issue one of those, so that TLS 1.2 peers can use it")
    if not strong:
        raise LocalCaError(f"its key has {key.key_size} bits; RSA needs 2048 and EC 256 (PS3.15 §B.12)")
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, _CURVES):
        raise LocalCaError(f"its key is on the curve {key.curve.name}, which TLS doesn't agree on; issue one on P-256")
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None or algorithm.digest_size < 32:
        raise LocalCaError("it is not signed with SHA-256 or better (PS3.15 §B.12); have it issued anew")


def verify_for_clients(certificate: x509.Certificate) -> None:
    """Check that TLS takes the certificate from a client. Raises LocalCaError.

    OpenSSL wants clientAuth where there are extended key usages at all; anyExtendedKeyUsage is not enough.
    """
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    except ValueError as error:
        raise LocalCaError(f"its extensions can't be read ({error}); have it issued anew") from error
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise LocalCaError("it is not for clients (EKU clientAuth), so each handshake would fail; have it issued anew")


def is_issued_by(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> bool:
    """Say if one of the authorities signed the certificate itself."""
    return any(_signed(certificate, authority) for authority in authorities)


def verify_key_matches(certificate: x509.Certificate, path: Path) -> None:
    """Check that the file holds the private key of the certificate. Raises LocalCaError."""
    if _load_key(path).public_key() != certificate.public_key():
        raise LocalCaError(f"{path} is not the key of this certificate; name the pair that belongs together")


def write_new_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file that doesn't exist yet, durably, with that mode from its first moment. Raises FileExistsError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | calls.FILE_FLAGS, mode)
    try:
        with open(descriptor, "wb") as file:
            # The umask may have taken bits away, never added any.
            calls.set_mode(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        # RFC 5280 §4.1.2.2: positive, at most 20 octets; 128 random bits can't be guessed or meet twice.
        .serial_number(secrets.randbits(128) | 1)
        .not_valid_before(not_before.astimezone(UTC))
        .not_valid_after(not_after.astimezone(UTC))
    )


def _key_usage(*, signs_certificates: bool = False, enciphers_keys: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=enciphers_keys,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    """Return a DNS name or an IP address as certificates name it. Raises LocalCaError."""
    try:
        return x509.IPAddress(ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise LocalCaError(f"{host!r} can't stand in a certificate; write the name in its ASCII form") from error


def _make_key(kind: KeyKind) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if kind is KeyKind.RSA:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _key_pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> CertificateIssuerPrivateKeyTypes:
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise LocalCaError(
            f"{path} is no private key in PEM without a passphrase ({error}); name the right file"
        ) from error
    return cast(CertificateIssuerPrivateKeyTypes, key)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LocalCaError(f"{path} can't be read ({error.strerror}); check the path and its rights") from error
