"""Certificates for the tests: strangers' authorities, and direct mutual TLS without the gateway."""

import datetime
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a peer needs for mutual TLS: paths to PEM files."""

    key: Path
    certificate: Path
    authority: Path

    def client_context(
        self, *, maximum: ssl.TLSVersion | None = None, minimum: ssl.TLSVersion | None = None
    ) -> ssl.SSLContext:
        """Return a context that shows this certificate and trusts this authority, server names checked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority)
        context.load_cert_chain(self.certificate, self.key)
        if minimum is not None:
            context.minimum_version = minimum
        if maximum is not None:
            context.maximum_version = maximum
        return context

    def server_context(self) -> ssl.SSLContext:
        """Return a context that demands a certificate of this authority from clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(self.authority)
        context.load_cert_chain(self.certificate, self.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def dcmtk(self) -> list[str]:
        """Return DCMTK's options."""
        return ["+tls", str(self.key), str(self.certificate), "+cf", str(self.authority)]


def anonymous_context(authority: Path) -> ssl.SSLContext:
    """Return a client context with no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority)
    return context


def _write_key(key: PrivateKey, path: Path) -> None:
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(0o600)


def make_key(kind: str) -> PrivateKey:
    """Return a new key: `rsa` (2048 bits) or `ecdsa` (P-256)."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


class Authority:
    """A certificate authority of the tests' own."""

    def __init__(self, name: str, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = make_key("ecdsa")
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = directory / "ca.pem"
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=True,
                    crl_sign=True,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: PrivateKey, life: datetime.timedelta = datetime.timedelta(days=2)
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)  # noqa: TID251  a real peer has a real clock
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + life)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def issue(
        self, name: str, *, key: str = "ecdsa", life: datetime.timedelta = datetime.timedelta(days=2)
    ) -> Credentials:
        """Issue a certificate for both TLS roles, valid for localhost and 127.0.0.1, from an hour ago on."""
        private = make_key(key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, private, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        folder = self._directory / name
        folder.mkdir()
        _write_key(private, folder / "key.pem")
        (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return Credentials(key=folder / "key.pem", certificate=folder / "cert.pem", authority=self.path)
