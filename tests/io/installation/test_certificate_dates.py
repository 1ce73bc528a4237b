"""Dates of certificate files, compared with those that the library of the CA reads."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from dicomward.io.installation.certificate_dates import _content, _skip, ends_of
from tests.directory_helpers import copy_directory, now


def certificate(end: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "x" * 40), x509.NameAttribute(NameOID.LOCALITY_NAME, "y")]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(end - timedelta(days=1))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("year", [1999, 2026, 2049, 2050, 2112])
def test_end_is_the_one_that_was_written(tmp_path: Path, year: int) -> None:
    """Until 2049 it is UTCTime, with two digits for the year; after it GeneralizedTime."""
    end = now().replace(year=year, day=3, microsecond=0)
    path = tmp_path / "cert.pem"
    path.write_bytes(certificate(end))
    assert ends_of(path) == (end,)


def test_every_certificate_of_a_file_is_read(tmp_path: Path) -> None:
    ends = [now().replace(microsecond=0) + timedelta(days=days) for days in (1, 2, 3)]
    path = tmp_path / "chain.pem"
    path.write_bytes(b"some words\n" + b"".join(map(certificate, ends)))
    assert ends_of(path) == tuple(ends)


def test_own_certificates_are_read(tmp_path: Path) -> None:
    settings = copy_directory(tmp_path / "gateway")
    for path in (*(pair.certificate for pair in settings.tls.certificates), settings.tls.client_ca):
        (wanted,) = x509.load_pem_x509_certificates(path.read_bytes())
        assert ends_of(path) == (wanted.not_valid_after_utc,)


def test_file_without_a_certificate_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.pem"
    path.write_text("nothing")
    with pytest.raises(ValueError, match="holds no certificate"):
        ends_of(path)


def test_what_breaks_off_anywhere_is_a_value_error(tmp_path: Path) -> None:
    import ssl

    der = ssl.PEM_cert_to_DER_cert(certificate(now()).decode())
    path = tmp_path / "cut.pem"
    for length in range(0, 120):
        path.write_text(ssl.DER_cert_to_PEM_cert(der[:length] if length else b"\0"))
        with pytest.raises(ValueError, match=r"."):
            ends_of(path)


@pytest.mark.parametrize("times", [b"\x30\x04\x04\x00\x04\x00", b"\x30\x02\x04\x00"])
def test_validity_that_holds_no_time_is_a_value_error(tmp_path: Path, times: bytes) -> None:
    import ssl

    def sequence(content: bytes) -> bytes:
        return bytes([0x30, len(content)]) + content

    der = sequence(sequence(b"\x02\x01\x01" + b"\x30\x00" + b"\x30\x00" + times))
    path = tmp_path / "odd.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(der))
    with pytest.raises(ValueError, match=r"is no time|is not a certificate|breaks off"):
        ends_of(path)


def test_pieces_that_are_missing_are_said() -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        _content(b"\x31\x00", 0x30)
    with pytest.raises(ValueError, match="breaks off"):
        _content(b"\x30\x82\xff\xff", 0x30)
    with pytest.raises(ValueError, match="breaks off"):
        _skip(b"")
