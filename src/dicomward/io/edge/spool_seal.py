"""One object of the spool, encrypted at rest: AES-256-GCM in pieces, a key of its own for each file.

    "DWSPOOL1" salt(16) { length(4) ciphertext(length) }*
    "DWSPOOL2" ephemeral X25519 public key(32) { length(4) ciphertext(length) }*

Key 1: HKDF-SHA256 of the spool's key with the salt. Key 2: HKDF-SHA256 of the X25519 secret that the ephemeral key and
the device's spool key share, with both public keys as the salt; who writes needs the public key only. Nonce: the number
of the piece, and 1 in its last byte for the last one, so pieces can be neither swapped nor cut off. The first piece is
the description (JSON), the others the data set.
"""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dicomward.io.system import calls

KEY_BYTES: Final = 32
PIECE_BYTES: Final = 64 * 1024
_MAGIC_BYTES: Final = 8
_SHARED: Final = b"DWSPOOL1"
_PUBLIC: Final = b"DWSPOOL2"
_SALT_BYTES: Final = 16
_TAG_BYTES: Final = 16
_LENGTH: Final = struct.Struct(">I")


class SealError(Exception):
    """The file is damaged, or was written with another key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the C-STORE said, and for whom it was."""

    calling_ae_title: str
    called_ae_title: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _cipher(key: bytes, salt: bytes, info: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(key))


class SpoolKey(Protocol):
    """What files are written and read with."""

    token_key: bytes
    """Stands studies in file names for what they are, so that nobody can read or guess them."""

    def for_new_file(self) -> tuple[bytes, AESGCM]:
        """Return how a file begins, and what it is encrypted with."""

    def for_file(self, file: BinaryIO) -> AESGCM:
        """Read how a file begins; return what it is decrypted with. Raises SealError, OSError."""


class SharedKey:
    """One key that writes and reads."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.token_key = key

    def for_new_file(self) -> tuple[bytes, AESGCM]:
        """See SpoolKey."""
        salt = os.urandom(_SALT_BYTES)
        return _SHARED + salt, _cipher(self._key, salt, b"dicomward spool 1")

    def for_file(self, file: BinaryIO) -> AESGCM:
        """See SpoolKey."""
        return _cipher(self._key, _read_head(file, _SHARED, _SALT_BYTES), b"dicomward spool 1")


class PairKey:
    """A public key that writes, and a private one that reads, which may come later."""

    def __init__(self, public: X25519PublicKey) -> None:
        self.public = public
        self.private: X25519PrivateKey | None = None
        # Only the order of what waits hangs on it: after a restart a study counts as another one.
        self.token_key = os.urandom(KEY_BYTES)

    def for_new_file(self) -> tuple[bytes, AESGCM]:
        """See SpoolKey."""
        ephemeral = X25519PrivateKey.generate()
        beginning = ephemeral.public_key().public_bytes_raw()
        return _PUBLIC + beginning, self._between(ephemeral.exchange(self.public), beginning)

    def for_file(self, file: BinaryIO) -> AESGCM:
        """See SpoolKey."""
        beginning = _read_head(file, _PUBLIC, KEY_BYTES)
        if self.private is None:
            raise SealError("the key that reads it is not here")
        try:
            secret = self.private.exchange(X25519PublicKey.from_public_bytes(beginning))
        except ValueError as error:
            raise SealError("it is damaged") from error
        return self._between(secret, beginning)

    def _between(self, secret: bytes, ephemeral: bytes) -> AESGCM:
        return _cipher(secret, ephemeral + self.public.public_bytes_raw(), b"dicomward spool 2")


def _read_head(file: BinaryIO, magic: bytes, count: int) -> bytes:
    found = file.read(_MAGIC_BYTES)
    if found in (_SHARED, _PUBLIC) and found != magic:
        raise SealError("it was written with another kind of key")
    rest = file.read(count)
    if found != magic or len(rest) != count:
        raise SealError("it is no file of a spool")
    return rest


class Sealer:
    """Writes one file; `finish` writes the last piece, and the caller makes it durable."""

    def __init__(self, file: BinaryIO, key: SpoolKey, description: Description) -> None:
        beginning, self._cipher = key.for_new_file()
        self._file = file
        self._number = 0
        self._waiting = bytearray()
        file.write(beginning)
        self._piece(json.dumps(asdict(description)).encode(), last=False)

    def write(self, data: bytes | memoryview) -> None:
        """Write some of the data set. Raises OSError."""
        self._waiting += data
        while len(self._waiting) > PIECE_BYTES:
            self._piece(bytes(self._waiting[:PIECE_BYTES]), last=False)
            del self._waiting[:PIECE_BYTES]

    def finish(self) -> None:
        """Write what is left. Raises OSError."""
        self._piece(bytes(self._waiting), last=True)

    def _piece(self, plain: bytes, *, last: bool) -> None:
        sealed = self._cipher.encrypt(_nonce(self._number, last=last), plain, None)
        self._file.write(_LENGTH.pack(len(sealed)) + sealed)
        self._number += 1


class Unsealer:
    """Reads one file: the description at once, the data set in pieces."""

    def __init__(self, path: Path, key: SpoolKey) -> None:
        """Raise SealError, OSError."""
        self._file = calls.open_to_read(path)
        self._number = 0
        try:
            self._cipher = key.for_file(self._file)
            plain, last = self._next()
            if last:
                raise SealError("it holds no data set")
            self.description = Description(**json.loads(plain))
        except BaseException:
            self._file.close()
            raise

    def pieces(self) -> Iterator[tuple[bytes, bool]]:
        """Yield the data set in pieces, each with whether it is the last. Raises SealError, OSError."""
        last = False
        while not last:
            plain, last = self._next()
            yield plain, last

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next(self) -> tuple[bytes, bool]:
        length = self._file.read(_LENGTH.size)
        size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else 0
        if not _TAG_BYTES <= size <= PIECE_BYTES + _TAG_BYTES:
            raise SealError("it is cut off or damaged")
        sealed = self._file.read(size)
        # What nobody can know before it is read: whether a piece is the last one. Most are not.
        for last in (False, True):
            try:
                plain = self._cipher.decrypt(_nonce(self._number, last=last), sealed, None)
            except (InvalidTag, ValueError):
                continue
            self._number += 1
            return plain, last
        raise SealError("it is damaged, or was written with another key")
