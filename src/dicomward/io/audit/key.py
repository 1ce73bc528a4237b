"""The Ed25519 key that signs checkpoints: made at the first open, kept beside the log; cryptography comes when used."""

import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.audit.chain import Checkpoint
from dicomward.audit.pruned import Pruned
from dicomward.audit.verify import SignatureError
from dicomward.io.audit.files import AuditFiles
from dicomward.io.system import calls

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class AuditKeyError(Exception):
    """The key can't be used; the message says why and what to do."""


class CheckpointKey:
    """The private key in a PEM file of mode 0600, and its public half in `.pub` beside it."""

    def __init__(self, path: Path, files: AuditFiles) -> None:
        self._path = path
        self._files = files
        self._key: Ed25519PrivateKey | None = None
        self._key_id = ""

    @property
    def is_exposed(self) -> bool:
        """Say if others than the owner can read the private key."""
        try:
            return calls.others_may_use(self._path.stat())
        except OSError:
            return False

    def sign(self, *, seq: int, hash_: str, time: str) -> Checkpoint:
        """Return the signed checkpoint; makes the key if there is none. Raises AuditKeyError, OSError."""
        key = self._key or self._load()
        checkpoint = Checkpoint(seq=seq, hash=hash_, time=time, key=self._key_id)
        signature = key.sign(checkpoint.message).hex()
        return Checkpoint(seq=seq, hash=hash_, time=time, key=self._key_id, signature=signature)

    def sign_pruned(self, *, seq: int, hash_: str, time: str) -> Pruned:
        """Return a signed statement that the log was pruned up to a record. Raises AuditKeyError, OSError."""
        key = self._key or self._load()
        statement = Pruned(seq=seq, hash=hash_, time=time, key=self._key_id)
        return replace(statement, signature=key.sign(statement.message).hex())

    def _load(self) -> "Ed25519PrivateKey":
        """Read the key, or make it. Raises AuditKeyError, OSError."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            pem = self._path.read_bytes()
        except FileNotFoundError:
            pem = self._make()
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise AuditKeyError(
                f"{self._path} isn't a private key in PEM: put the right file back, or move this one away "
                "(then a new key is made, and verify names the change)"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise AuditKeyError(f"{self._path} holds a key of another kind: an Ed25519 key is needed")
        self._write_public(key.public_key())
        self._key = key
        self._key_id = key_id(key.public_key())
        return key

    def _make(self) -> bytes:
        """Make a new key and return its PEM; the file is whole or it isn't there."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._write_whole(self._path, pem, 0o600)
        return pem

    def _write_public(self, key: "Ed25519PublicKey") -> None:
        """Put the public key beside the private one, for those who verify without being allowed to sign."""
        from cryptography.hazmat.primitives import serialization

        path = public_key_path(self._path)
        if not path.exists():
            pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            self._write_whole(path, pem, 0o644)

    def _write_whole(self, path: Path, data: bytes, mode: int) -> None:
        """Write a file under another name, and give it its name when it is on the disk."""
        temporary = path.with_name(path.name + ".new")
        descriptor = self._files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            self._files.write(descriptor, data)
            self._files.sync(descriptor)
        finally:
            self._files.close(descriptor)
        calls.replace(temporary, path)
        self._files.sync_directory(path.parent)


def public_key_path(private: Path) -> Path:
    """Return where the public half of the key is."""
    return private.with_suffix(".pub")


def key_id(key: "Ed25519PublicKey") -> str:
    """Return the SHA-256 in hex of the raw public key: the name of the key in checkpoints."""
    return sha256(key.public_bytes_raw()).hexdigest()


class CheckpointVerifier:
    """Checks signatures with a public key in PEM. Raises AuditKeyError, OSError."""

    def __init__(self, path: Path) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise AuditKeyError(f"{path} isn't a public key in PEM: name the checkpoint.pub of this log") from error
        if not isinstance(key, Ed25519PublicKey):
            raise AuditKeyError(f"{path} holds a key of another kind: name the checkpoint.pub of this log")
        self._key = key
        self.key_id = key_id(key)

    def verify(self, checkpoint: Checkpoint | Pruned) -> None:
        """Check the signature of a checkpoint or a statement of pruning. Raises SignatureError."""
        from cryptography.exceptions import InvalidSignature

        if checkpoint.key != self.key_id:
            raise SignatureError(f"it was signed with another key ({checkpoint.key[:16]}), not with this log's")
        try:
            self._key.verify(bytes.fromhex(checkpoint.signature), checkpoint.message)
        except InvalidSignature as error:
            raise SignatureError("its signature is wrong: it was changed, or made without the key") from error
