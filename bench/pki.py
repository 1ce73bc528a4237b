"""A small ECDSA P-256 certificate authority for the rivals; ours comes from `dicomward init` and has the same shape."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """PEM files that a TLS client shows and trusts."""

    key: Path
    certificate: Path
    ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """PEM files of the rivals: `server_bundle` is certificate and key in one file, as haproxy wants it."""

    ca: Path
    server_certificate: Path
    server_key: Path
    server_bundle: Path
    client: Credentials


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(common_name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(time.time(), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_pki(directory: Path) -> Pki:
    """Write a CA, a server and a client certificate into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = (
        _builder("bench ca", "bench ca", ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    ca_pem = ca.public_bytes(serialization.Encoding.PEM)
    (directory / "ca.pem").write_bytes(ca_pem)
    for role, purpose in PURPOSES.items():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(f"bench {role}", "bench ca", key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]),
                critical=False,
            )
            .sign(ca_key, hashes.SHA256())
        )
        certificate_pem, key_pem = certificate.public_bytes(serialization.Encoding.PEM), _pem(key)
        (directory / f"{role}.pem").write_bytes(certificate_pem)
        (directory / f"{role}.key").write_bytes(key_pem)
        (directory / f"{role}-bundle.pem").write_bytes(certificate_pem + key_pem)
    return Pki(
        ca=directory / "ca.pem",
        server_certificate=directory / "server.pem",
        server_key=directory / "server.key",
        server_bundle=directory / "server-bundle.pem",
        client=Credentials(key=directory / "client.key", certificate=directory / "client.pem", ca=directory / "ca.pem"),
    )
