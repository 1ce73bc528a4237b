"""A certificate of ours is tried before it is put in force."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dicomward.io.ca.local import KeyKind, LocalCa
from dicomward.io.installation.certificate_check import check_certificate
from dicomward.io.tls import CertificateFiles, TlsConfigurationError
from tests.directory_helpers import copy_directory, now


def issue(directory: Path, kind: KeyKind, *, born: datetime, days: int = 30) -> CertificateFiles:
    authority = LocalCa.load(copy_directory(directory).directory / "ca")
    issued = authority.issue_gateway(kind, ("127.0.0.1",), born, days=days)
    files = CertificateFiles(directory / "new.cert.pem", directory / "new.key.pem")
    files.certificate.write_bytes(issued.certificate_pem)
    files.key.write_bytes(issued.key_pem)
    return files


@pytest.mark.parametrize("kind", list(KeyKind))
def test_good_one_says_when_it_ends(tmp_path: Path, kind: KeyKind) -> None:
    end = check_certificate(issue(tmp_path / "gateway", kind, born=now()), now())
    assert timedelta(days=29) < end - now() <= timedelta(days=30)


def test_one_that_has_ended_is_refused_with_its_date(tmp_path: Path) -> None:
    files = issue(tmp_path / "gateway", KeyKind.ECDSA, born=datetime(2020, 1, 1, tzinfo=UTC), days=2)
    with pytest.raises(TlsConfigurationError, match=r"new\.cert\.pem ended at 2020-01-0\d .*Name one that is valid"):
        check_certificate(files, now())


def test_one_that_is_not_valid_yet_is_refused(tmp_path: Path) -> None:
    files = issue(tmp_path / "gateway", KeyKind.ECDSA, born=now())
    with pytest.raises(TlsConfigurationError, match="is valid only from"):
        check_certificate(files, datetime(2020, 1, 1, tzinfo=UTC))


def test_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    files = issue(tmp_path / "gateway", KeyKind.ECDSA, born=now())
    other = issue(tmp_path / "other", KeyKind.ECDSA, born=now())
    with pytest.raises(TlsConfigurationError, match="can't be used"):
        check_certificate(CertificateFiles(files.certificate, other.key), now())


def test_one_that_is_made_for_clients_only_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client only")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now() - timedelta(days=1))
        .not_valid_after(now() + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = CertificateFiles(tmp_path / "client.cert.pem", tmp_path / "client.key.pem")
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(TlsConfigurationError, match="can't serve a TLS handshake"):
        check_certificate(files, now())
