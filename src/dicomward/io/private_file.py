"""Files that only the gateway's user may read: replaced whole, changed under a lock."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dicomward.io.system import calls

LOCK_WAIT_SECONDS: Final = 15.0
_LOCK_POLL_SECONDS: Final = 0.05


class FileBusyError(Exception):
    """Another command holds the lock; the message says for how long."""


@contextmanager
def file_lock(path: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock beside a file. Raises FileBusyError if another command holds it for longer, OSError."""
    lock_path = path.with_name(path.name + ".lock")
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | calls.FILE_FLAGS, 0o600)
    try:
        calls.give_to_owner_of(descriptor, path.parent)
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                calls.lock_file(descriptor)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise FileBusyError(
                        f"another command has held {lock_path} for {wait_seconds:g} s; wait for it to end, then repeat"
                    ) from error
                time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def replace_file(path: Path, text: str) -> None:
    """Replace a text file, as `replace_bytes` does. Raises OSError."""
    replace_bytes(path, text.encode("utf-8"))


def replace_bytes(path: Path, data: bytes) -> None:
    """Replace a file: a reader sees the old one or the new one, whole, also after a power cut. Raises OSError."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | calls.FILE_FLAGS, 0o600)
    with open(descriptor, "wb") as file:
        calls.give_to_owner_of(descriptor, path.parent)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    calls.replace(temporary, path)
    calls.sync_directory(path.parent)


def make_private_directory(path: Path) -> None:
    """Make a directory for the owner of the one above it. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    calls.give_to_owner_of(path, path.parent)
    calls.sync_directory(path.parent)
