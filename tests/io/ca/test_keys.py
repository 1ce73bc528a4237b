"""Keys in files: private, of a kind that signs, with the right passphrase."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from dicomward.io.ca.keys import key_pem, load_key, load_key_file, make_key
from dicomward.io.ca.terms import CaError


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def test_kinds_and_round_trip(tmp_path: Path) -> None:
    assert isinstance(make_key("ecdsa"), ec.EllipticCurvePrivateKey)
    assert isinstance(make_key("rsa"), rsa.RSAPrivateKey)
    key = make_key("ecdsa")
    write(tmp_path / "k.pem", key_pem(key, None))
    assert load_key("k.pem", tmp_path).public_key() == key.public_key()
    write(tmp_path / "e.pem", key_pem(key, b"secret words"))
    assert load_key_file(tmp_path / "e.pem", b"secret words").public_key() == key.public_key()


@pytest.mark.parametrize(("passphrase", "message"), [(None, "needs its passphrase"), (b"wrong", "passphrase is wrong")])
def test_the_passphrase_must_fit(tmp_path: Path, passphrase: bytes | None, message: str) -> None:
    path = write(tmp_path / "e.pem", key_pem(make_key("ecdsa"), b"secret words"))
    with pytest.raises(CaError, match=message):
        load_key_file(path, passphrase)


def test_a_passphrase_that_nobody_asked_for_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "k.pem", key_pem(make_key("ecdsa"), None))
    with pytest.raises(CaError, match="has no passphrase"):
        load_key_file(path, b"x")


def test_keys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "k.pem", key_pem(make_key("ecdsa"), None))
    path.chmod(0o640)
    with pytest.raises(CaError, match="others than its owner"):
        load_key_file(path)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaError, match="can't be read"):
        load_key_file(tmp_path / "missing")
    with pytest.raises(CaError, match="it is no key in PEM"):
        load_key_file(write(tmp_path / "g.pem", b"garbage"))
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(CaError, match="neither RSA nor ECDSA"):
        load_key_file(write(tmp_path / "o.pem", other))
