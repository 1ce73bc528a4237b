"""What the tests of the audit log share: a clock that stands still, files that fail, a sink in memory."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomward.audit.chain import Record, decode_record
from dicomward.audit.event import GatewayStarted
from dicomward.audit.verify import Report
from dicomward.io.audit.files import AuditFiles
from dicomward.io.audit.read import list_segments, read_lines
from dicomward.io.audit.verify import verify_directory


class FakeClock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time_ns(self) -> int:
        return 1_769_900_000_000_000_000 + int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now


class FailingFiles(AuditFiles):
    """The real files; a call named in `failures` raises, as often as its number says (-1: always)."""

    def __init__(self) -> None:
        self.failures: dict[str, int] = {}
        self.number = errno.EIO
        self.calls: list[str] = []
        # The name of a file that only its calls fail for; empty: every file.
        self.only = ""
        self._names: dict[int, str] = {}

    def fail(self, call: str, *, times: int = -1, number: int = errno.EIO, only: str = "") -> None:
        self.failures[call] = times
        self.number = number
        self.only = only

    def work(self) -> None:
        self.failures.clear()

    def _called(self, call: str, name: str) -> None:
        self.calls.append(call)
        left = self.failures.get(call, 0)
        if left and self.only in name:
            self.failures[call] = left - 1
            raise OSError(self.number, os.strerror(self.number))

    def make_directory(self, path: Path) -> None:
        self._called("make_directory", path.name)
        super().make_directory(path)

    def open(self, path: Path, flags: int, mode: int = 0o600) -> int:
        self._called("open", path.name)
        descriptor = super().open(path, flags, mode)
        self._names[descriptor] = path.name
        return descriptor

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._called("close", self._names.get(descriptor, ""))

    def write(self, descriptor: int, data: bytes) -> None:
        if self.failures.get("write") and self.only in self._names[descriptor]:
            # As a full disk does it: half of it is written.
            super().write(descriptor, data[: len(data) // 2])
        self._called("write", self._names[descriptor])
        super().write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._called("sync", self._names[descriptor])
        super().sync(descriptor)

    def sync_directory(self, path: Path) -> None:
        self._called("sync_directory", path.name)
        super().sync_directory(path)

    def truncate(self, descriptor: int, size: int) -> None:
        self._called("truncate", self._names[descriptor])
        super().truncate(descriptor, size)

    def preallocate(self, descriptor: int, size: int) -> None:
        self._called("preallocate", self._names[descriptor])
        super().preallocate(descriptor, size)

    def unlink(self, path: Path) -> None:
        self._called("unlink", path.name)
        super().unlink(path)


class MemorySink:
    """A second sink that can fail."""

    is_protected = True

    def __init__(self) -> None:
        self.data = b""
        self.fails = False
        self.is_closed = False

    def write(self, lines: bytes) -> None:
        if self.fails:
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        self.data += lines

    def close(self) -> None:
        self.is_closed = True


def event(detail: object = "") -> GatewayStarted:
    return GatewayStarted(detail=str(detail))


def lines_of(directory: Path) -> list[bytes]:
    return [line for segment in list_segments(directory) for line in read_lines(segment.path)]


def records_of(directory: Path) -> list[Record]:
    return [decode_record(line[:-1]) for line in lines_of(directory)]


def story_of(directory: Path) -> list[str]:
    """The records in short: code, and reason or detail or component."""
    return [short(dict(record.members)) for record in records_of(directory)]


def short(members: dict[str, object]) -> str:
    tells = members.get("reason") or members.get("detail") or members.get("component") or ""
    reserve = " (reserve)" if "reserve" in str(members.get("component")) else ""
    return f"{members['code']} {tells}{reserve}".strip()


def verified(directory: Path, *, archived: bool = False) -> Report:
    return verify_directory(directory, archived=archived).report


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)
