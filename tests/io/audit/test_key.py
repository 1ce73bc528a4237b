"""The key is made once, kept from others, and a wrong signature never passes."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dicomward.audit.chain import Checkpoint
from dicomward.audit.verify import SignatureError
from dicomward.io.audit.files import AuditFiles
from dicomward.io.audit.key import AuditKeyError, CheckpointKey, CheckpointVerifier, public_key_path
from tests.io.audit_helpers import FailingFiles, umask

TIME = "2026-01-31T23:59:59.123456Z"


def key_in(directory: Path) -> CheckpointKey:
    return CheckpointKey(directory / "checkpoint.key", AuditFiles())


def sign(key: CheckpointKey) -> Checkpoint:
    return key.sign(seq=7, hash_="a" * 64, time=TIME)


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_the_key_is_made_at_the_first_signature_and_used_again(tmp_path: Path) -> None:
    with umask(0):
        first = key_in(tmp_path)
        assert list(tmp_path.iterdir()) == []
        checkpoint = sign(first)
    assert (tmp_path / "checkpoint.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "checkpoint.pub").stat().st_mode & 0o777 == 0o644
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoint.key", "checkpoint.pub"]
    assert sign(first) == checkpoint  # Ed25519 is deterministic
    assert sign(key_in(tmp_path)) == checkpoint


def test_a_good_signature_passes_and_every_change_fails(tmp_path: Path) -> None:
    checkpoint = sign(key_in(tmp_path))
    verifier = CheckpointVerifier(tmp_path / "checkpoint.pub")
    assert verifier.key_id == checkpoint.key
    verifier.verify(checkpoint)
    flipped = f"{int(checkpoint.signature[0], 16) ^ 1:x}{checkpoint.signature[1:]}"
    for changed in (
        replace(checkpoint, seq=8),
        replace(checkpoint, hash="b" * 64),
        replace(checkpoint, time=TIME.replace("2026", "2027")),
        replace(checkpoint, signature=flipped),
    ):
        with pytest.raises(SignatureError, match="its signature is wrong"):
            verifier.verify(changed)


def test_the_signature_of_another_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    checkpoint = sign(key_in(tmp_path / "a"))
    sign(key_in(tmp_path / "b"))
    with pytest.raises(SignatureError, match="signed with another key"):
        CheckpointVerifier(tmp_path / "b" / "checkpoint.pub").verify(checkpoint)


def test_a_key_that_others_can_read_is_noticed(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    assert not key.is_exposed
    sign(key)
    assert not key.is_exposed
    (tmp_path / "checkpoint.key").chmod(0o640)
    assert key.is_exposed


@pytest.mark.parametrize(
    "content", [b"", b"not a key", pem(Ed25519PrivateKey.generate())[:-40]], ids=["empty", "no key", "cut short"]
)
def test_a_damaged_key_is_an_error_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.key").write_bytes(content)
    with pytest.raises(AuditKeyError, match="isn't a private key in PEM"):
        sign(key_in(tmp_path))
    assert (tmp_path / "checkpoint.key").read_bytes() == content


def test_a_key_with_a_passphrase_is_an_error(tmp_path: Path) -> None:
    protected = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "checkpoint.key").write_bytes(protected)
    with pytest.raises(AuditKeyError, match="isn't a private key in PEM"):
        sign(key_in(tmp_path))


def test_a_key_of_another_kind_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.key").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(AuditKeyError, match="an Ed25519 key is needed"):
        sign(key_in(tmp_path))


def test_a_public_key_that_is_none_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pub"
    with pytest.raises(FileNotFoundError):
        CheckpointVerifier(path)
    path.write_bytes(b"not a key")
    with pytest.raises(AuditKeyError, match="isn't a public key in PEM"):
        CheckpointVerifier(path)
    path.write_bytes(public_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(AuditKeyError, match="another kind"):
        CheckpointVerifier(path)


@pytest.mark.parametrize("call", ["open", "write", "sync"])
def test_a_key_that_cannot_be_written_leaves_no_half_key(tmp_path: Path, call: str) -> None:
    files = FailingFiles()
    files.fail(call)
    key = CheckpointKey(tmp_path / "checkpoint.key", files)
    with pytest.raises(OSError, match="Input/output error"):
        sign(key)
    assert not (tmp_path / "checkpoint.key").exists()
    files.work()
    sign(key)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoint.key", "checkpoint.pub"]


def test_the_public_half_has_its_own_name(tmp_path: Path) -> None:
    assert public_key_path(tmp_path / "checkpoint.key") == tmp_path / "checkpoint.pub"
