"""How far a destination has the log: two slots of one small file, written in turn, each with its hash.

The file takes its space when it is made and is only overwritten: it can be written when the disk is full, and a write
that a crash tears leaves the other slot.
"""

import os
from hashlib import sha256
from pathlib import Path
from typing import Final

from dicomward.audit.encode_json import RecordError, decode_canonical, encode_canonical
from dicomward.settings.syslog import SyslogDestination

_SLOT_BYTES: Final = 512
_DIGEST_BYTES: Final = 64


def cursor_path(directory: Path, destination: SyslogDestination) -> Path:
    """Return where the cursor of a destination is kept."""
    return directory / f"syslog-{sha256(destination.name.encode()).hexdigest()[:12]}.cursor"


def read_cursor(path: Path) -> int | None:
    """Return the number of the newest record that the destination has; None if there is no cursor. Raises OSError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    found = [_read_slot(data[at : at + _SLOT_BYTES]) for at in (0, _SLOT_BYTES)]
    return max((seq for seq in found if seq is not None), default=None)


def _read_slot(slot: bytes) -> int | None:
    body = slot[_DIGEST_BYTES:].rstrip(b" ")
    if sha256(body).hexdigest().encode() != slot[:_DIGEST_BYTES]:
        return None
    try:
        seq = decode_canonical(body).get("delivered")
    except RecordError:
        return None
    return seq if isinstance(seq, int) else None


class Cursor:
    """The cursor of one destination; one thread at a time."""

    def __init__(self, path: Path, destination_name: str, *, start: int) -> None:
        """Open the cursor, or make it to stand at `start`. Raises OSError."""
        self._name = destination_name
        found = read_cursor(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._slot = 0
        os.posix_fallocate(self._descriptor, 0, 2 * _SLOT_BYTES)
        self.seq = start if found is None else found
        self.save(self.seq)

    def save(self, seq: int) -> None:
        """Note that the destination has everything up to a record; durable when this returns. Raises OSError."""
        body = encode_canonical({"delivered": seq, "to": self._name[:256]})
        slot = (sha256(body).hexdigest().encode() + body).ljust(_SLOT_BYTES)
        os.pwrite(self._descriptor, slot, self._slot * _SLOT_BYTES)
        os.fdatasync(self._descriptor)
        self._slot = 1 - self._slot
        self.seq = seq

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
