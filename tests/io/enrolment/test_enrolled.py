"""The device's directory: prepared, installed whole, repaired after a cut, and what is damaged is told."""

import errno
import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from dicomward.enrolment.profile import profile_of, verify_public_key
from dicomward.io.ca.directory import CaDirectory
from dicomward.io.ca.sign import make_device_certificate, new_serial
from dicomward.io.enrolment.client import ClientError, DeviceKey
from dicomward.io.enrolment.enrolled import DeviceDirectory, Enrolled, fingerprint_of, make_key
from tests.io.ca_helpers import NOW, grant, make_ca, spki

STATE = Enrolled(server="https://x", device="ct3", key_kind="ecdsa")


@pytest.fixture
def ca(tmp_path: Path) -> CaDirectory:
    return make_ca(tmp_path / "ca")


@pytest.fixture
def device(tmp_path: Path) -> DeviceDirectory:
    return DeviceDirectory(tmp_path / "device")


def certificate(ca: CaDirectory, key: DeviceKey) -> x509.Certificate:
    authority = ca.open()
    profile = profile_of(
        grant("ct3"),
        verify_public_key(spki(key)),
        NOW,
        ca_not_before=authority.certificate.not_valid_before_utc,
        ca_not_after=authority.certificate.not_valid_after_utc,
        backdated=timedelta(hours=1),
    )
    return make_device_certificate(authority, profile, key.public_key(), new_serial())


def installed(ca: CaDirectory, device: DeviceDirectory) -> x509.Certificate:
    made = certificate(ca, device.prepare("ecdsa"))
    device.install(made, [ca.root, ca.open().certificate], STATE)
    return made


def test_a_key_is_kept_until_its_certificate_has_come(ca: CaDirectory, device: DeviceDirectory) -> None:
    key = device.prepare("ecdsa")
    assert device.prepare("rsa").public_key() == key.public_key()
    assert (device.path / "key.pem.next").stat().st_mode & 0o777 == 0o600
    assert device.path.stat().st_mode & 0o777 == 0o700
    made = certificate(ca, key)
    device.install(made, [ca.root, ca.open().certificate], STATE)
    assert sorted(path.name for path in device.path.iterdir()) == ["ca.pem", "cert.pem", "enrol.json", "key.pem"]
    assert fingerprint_of(device.current()) == fingerprint_of(made)
    assert [each.subject for each in device.anchors()] == [ca.root.subject]
    # The chain goes with the certificate.
    assert device.certificate.read_bytes().count(b"BEGIN") == 2
    assert device.state() == STATE


def test_the_pair_before_stays(ca: CaDirectory, device: DeviceDirectory) -> None:
    first = installed(ca, device)
    second = installed(ca, device)
    assert fingerprint_of(device.current()) == fingerprint_of(second)
    old = x509.load_pem_x509_certificate((device.path / "cert.pem.old").read_bytes())
    key = serialization.load_pem_private_key((device.path / "key.pem.old").read_bytes(), None)
    assert (old, key.public_key()) == (first, first.public_key())
    third = installed(ca, device)
    assert fingerprint_of(device.current()) == fingerprint_of(third)


def test_certificate_for_another_key_changes_nothing(ca: CaDirectory, device: DeviceDirectory) -> None:
    first = installed(ca, device)
    device.prepare("ecdsa")
    with pytest.raises(ClientError, match="for another key; nothing was changed"):
        device.install(certificate(ca, make_key("ecdsa")), [ca.root], STATE)
    assert fingerprint_of(device.current()) == fingerprint_of(first)


def test_installation_that_was_cut_off_is_finished(
    ca: CaDirectory, device: DeviceDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not device.repair()
    installed(ca, device)
    assert not device.repair()
    replace, target = os.replace, device.certificate

    def cut(source: Path, destination: Path) -> None:
        if destination == target:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, destination)

    following = certificate(ca, device.prepare("ecdsa"))
    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(ClientError, match=r"No space left on device.*make room, and repeat"):
        device.install(following, [ca.root, ca.open().certificate], STATE)
    monkeypatch.setattr(os, "replace", replace)
    assert device.repair()
    assert fingerprint_of(device.current()) == fingerprint_of(following)
    # A certificate that is left from another try is not taken.
    (device.path / "cert.pem.new").write_bytes(certificate(ca, make_key("ecdsa")).public_bytes(Encoding.PEM))
    assert not device.repair()


def test_what_was_refused_leaves_nothing(device: DeviceDirectory) -> None:
    device.prepare("ecdsa")
    device.discard()
    assert not device.path.exists()
    device.discard()
    device.path.mkdir()
    (device.path / "mine").touch()
    device.prepare("ecdsa")
    device.discard()
    assert [path.name for path in device.path.iterdir()] == ["mine"]


def test_state_is_replaced(ca: CaDirectory, device: DeviceDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(ca, device)
    other = Enrolled(server="https://y", device="ct3", key_kind="ecdsa", gateway="10.0.0.1:2762")
    device.store(other)
    assert device.state() == other
    device.path.rename(device.path.with_name("moved"))
    with pytest.raises(ClientError, match="can't be written"):
        device.store(other)


def test_damage_is_told(ca: CaDirectory, device: DeviceDirectory) -> None:
    with pytest.raises(ClientError, match="holds no enrolled device; enrol first"):
        device.state()
    with pytest.raises(ClientError):
        device.current()
    device.path.mkdir()
    for text in ("no json", "[]", '{"what": 1}'):
        (device.path / "enrol.json").write_text(text)
        with pytest.raises(ClientError, match="enrol anew"):
            device.state()
    foreign = ed25519.Ed25519PrivateKey.generate()
    for data, why in (
        (b"no key", "is no private key"),
        (foreign.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "is neither an ECDSA nor an RSA"),
    ):
        (device.path / "key.pem.next").write_bytes(data)
        with pytest.raises(ClientError, match=why):
            device.prepare("ecdsa")
    with pytest.raises(ClientError, match=r"can't be written.*check the directory and its disk"):
        DeviceDirectory(device.path / "enrol.json" / "below").prepare("ecdsa")


def test_kinds_of_keys() -> None:
    assert make_key("ecdsa").curve.name == "secp256r1"  # type: ignore[union-attr]
    assert isinstance(make_key("rsa"), rsa.RSAPrivateKey)
