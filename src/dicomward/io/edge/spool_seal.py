"""One object of the spool, encrypted at rest: AES-256-GCM in pieces, a key of its own for each file.

    "DWSPOOL1" salt(16) { length(4) ciphertext(length) }*

Key: HKDF-SHA256 of the spool's key with the salt. Nonce: the number of the piece, and 1 in its last byte for the last
one, so pieces can be neither swapped nor cut off. The first piece is the description (JSON), the others the data set.
"""

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES: Final = 32
PIECE_BYTES: Final = 64 * 1024
_MAGIC: Final = b"DWSPOOL1"
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


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=b"dicomward spool 1").derive(key))


class Sealer:
    """Writes one file; `finish` writes the last piece, and the caller makes it durable."""

    def __init__(self, file: BinaryIO, key: bytes, description: Description) -> None:
        salt = os.urandom(_SALT_BYTES)
        self._file = file
        self._cipher = _cipher(key, salt)
        self._number = 0
        self._waiting = bytearray()
        file.write(_MAGIC + salt)
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

    def __init__(self, path: Path, key: bytes) -> None:
        """Raise SealError, OSError."""
        self._file = path.open("rb")
        self._number = 0
        try:
            head = self._file.read(len(_MAGIC) + _SALT_BYTES)
            if not head.startswith(_MAGIC) or len(head) != len(_MAGIC) + _SALT_BYTES:
                raise SealError("it is no file of a spool")
            self._cipher = _cipher(key, head[len(_MAGIC) :])
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
