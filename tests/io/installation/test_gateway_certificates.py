"""Renewal of the gateway's certificates: same files, same names, same kinds; all or none."""

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicomward.io.ca.local import LocalCa, LocalCaError, load_certificates
from dicomward.io.installation import gateway_certificates
from dicomward.io.installation.check import check_configuration
from dicomward.io.installation.gateway_certificates import renew_gateway_certificates
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory, now

NOW = now()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def files(settings: Settings) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (settings.directory / "tls").iterdir()}


def test_new_certificates_replace_the_old_ones(settings: Settings) -> None:
    before = files(settings)
    later = NOW + timedelta(days=380)
    assert check_configuration(settings, later) != ()
    renewed = renew_gateway_certificates(settings, later)
    assert [one.pair for one in renewed] == list(settings.tls.certificates)
    assert {one.hosts for one in renewed} == {("localhost", "127.0.0.1", "::1")}
    after = files(settings)
    assert after.keys() == before.keys()
    assert all(after[path] != before[path] for path in before)
    assert check_configuration(settings, later) == ()
    keys = [load_certificates(pair.certificate)[0].public_key() for pair in settings.tls.certificates]
    assert isinstance(keys[0], ec.EllipticCurvePublicKey)
    assert isinstance(keys[1], rsa.RSAPublicKey)
    for pair in settings.tls.certificates:
        assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600


def test_names_can_be_added(settings: Settings) -> None:
    renewed = renew_gateway_certificates(settings, NOW, more_hosts=["dicom.example", "127.0.0.1"], days=30)
    certificate = load_certificates(settings.tls.certificates[0].certificate)[0]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "dicom.example"]
    assert renewed[0].hosts == ("localhost", "127.0.0.1", "::1", "dicom.example")
    assert renewed[0].not_after == certificate.not_valid_after_utc


def test_certificate_of_somebody_else_is_left_alone_and_so_are_all(settings: Settings) -> None:
    settings.tls.certificates[1].certificate.write_bytes(LocalCa.make("other", NOW).certificate_pem)
    before = files(settings)
    with pytest.raises(LocalCaError, match="is not of the local CA; renew it where it was issued"):
        renew_gateway_certificates(settings, NOW)
    assert files(settings) == before


def test_repeating_repairs_what_an_interruption_left(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = gateway_certificates._replace

    def stop_at_certificates(path: Path, data: bytes, mode: int) -> None:
        if "cert" in path.name:
            raise OSError(28, "No space left on device")
        real(path, data, mode)

    monkeypatch.setattr(gateway_certificates, "_replace", stop_at_certificates)
    with pytest.raises(OSError, match="No space left"):
        renew_gateway_certificates(settings, NOW)
    monkeypatch.undo()
    assert any("is not the key of this certificate" in str(each) for each in check_configuration(settings, NOW))
    (settings.directory / "tls" / ".gateway-rsa.key.pem.new").write_text("left over")
    renew_gateway_certificates(settings, NOW)
    assert check_configuration(settings, NOW) == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_keeps_its_owner(settings: Settings) -> None:
    key = settings.tls.certificates[0].key
    os.chown(key, 12345, 23456)
    renew_gateway_certificates(settings, NOW)
    assert (key.stat().st_uid, key.stat().st_gid) == (12345, 23456)


def test_ordinary_user_does_not_try_to_give_files_away(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    def refuse(*_arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    assert len(renew_gateway_certificates(settings, NOW)) == 2
