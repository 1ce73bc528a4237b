"""The system calls of the audit log in one place, so that a test can make each of them fail."""

import os
import time
from pathlib import Path

from dicomward.io.system import calls

_STEP_SECONDS = 0.02


class AuditLogBusyError(OSError):
    """Another process writes this audit log."""


def wait_for_writer(directory: Path, seconds: float) -> bool:
    """Wait until nobody writes the log in this directory; False if somebody still does after so long. Raises OSError.

    For a gateway that takes over from one that is draining: it must not read anything before the other has ended.
    """
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR | calls.FILE_FLAGS)
    except FileNotFoundError:
        return True
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                calls.lock_file(descriptor)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_STEP_SECONDS)
            else:
                return True
    finally:
        os.close(descriptor)


class AuditFiles:
    """The real calls. Each raises OSError and nothing else."""

    def make_directory(self, path: Path) -> None:
        """Make a directory that only its owner can enter, if there is none."""
        try:
            path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            return
        calls.give_to_owner_of(path, path.parent)

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        """Open a file; one that is made belongs to the owner of its directory, also when root makes it."""
        is_new = bool(flags & os.O_CREAT) and not path.exists()
        descriptor = os.open(path, flags | calls.FILE_FLAGS, mode)
        if is_new:
            calls.give_to_owner_of(path, path.parent)
        return descriptor

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of the data."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        """Return when the file's data is on the disk."""
        calls.sync_data(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Return when the names in the directory are on the disk."""
        calls.sync_directory(path)

    def identify(self, file: Path | int) -> tuple[int, int]:
        """Return what tells an open file, or the one that has a path now, from every other one."""
        found = os.stat(file)
        return found.st_dev, found.st_ino

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file to its first `size` bytes."""
        os.ftruncate(descriptor, size)

    def preallocate(self, descriptor: int, size: int) -> None:
        """Take `size` bytes of the disk for the file."""
        calls.allocate(descriptor, size)

    def unlink(self, path: Path) -> None:
        """Remove a file, if it is there."""
        calls.unlink(path)

    def lock(self, descriptor: int) -> None:
        """Take the only writer's lock, without waiting. Raises AuditLogBusyError."""
        try:
            calls.lock_file(descriptor)
        except BlockingIOError as error:
            raise AuditLogBusyError(error.errno, "another process writes this audit log") from error
