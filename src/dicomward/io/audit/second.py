"""Where audit records go while the log itself can't be written: standard error, or a file elsewhere."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeAlias

from dicomward.audit.encode_json import MASK, MemberValue, encode_canonical
from dicomward.audit.fields import Classification, field_rule
from dicomward.io.system import calls

_WRITE_WAIT_SECONDS = 1.0
_PIECE_BYTES = 4096  # a pipe that is ready takes this much without blocking (PIPE_BUF)


Diverts: TypeAlias = Sequence[tuple[str, dict[str, MemberValue]]]
"""Time and members of records that the log itself can't take."""


class SecondSink(Protocol):
    """Takes whole lines; raises OSError if it can't, and never blocks for long.

    `is_protected` says that only the log's own readers can read what it takes.
    """

    is_protected: bool

    def write(self, lines: bytes) -> None:
        """Write the lines."""

    def close(self) -> None:
        """Give up what is open."""


class StderrSink:
    """JSON lines on standard error, which the service manager's journal keeps: many may read that."""

    is_protected = False

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    def write(self, lines: bytes) -> None:
        """Write the lines. Raises OSError, also where nobody reads the other end for a second."""
        descriptor = sys.__stderr__.fileno() if self._descriptor is None and sys.__stderr__ else self._descriptor
        if descriptor is None:
            raise OSError("there is no standard error")
        view = memoryview(lines)
        while view:
            if not calls.wait_writable(descriptor, _WRITE_WAIT_SECONDS):
                raise TimeoutError("nobody reads standard error")
            view = view[os.write(descriptor, view[:_PIECE_BYTES]) :]

    def close(self) -> None:
        """Leave standard error as it is."""


class FileSink:
    """A file, best on another disk; each write is durable before it returns."""

    is_protected = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def write(self, lines: bytes) -> None:
        """Append all of the lines, or none. Raises OSError; the next call opens the file again."""
        size: int | None = None
        try:
            if self._descriptor is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | calls.FILE_FLAGS
                self._descriptor = os.open(self._path, flags, 0o600)
            size = os.fstat(self._descriptor).st_size
            view = memoryview(lines)
            while view:
                view = view[os.write(self._descriptor, view) :]
            calls.sync_data(self._descriptor)
        except OSError:
            self._cut(size)
            raise

    def _cut(self, size: int | None) -> None:
        """Cut off what a failed write left, as far as that goes, and close the file."""
        try:
            if self._descriptor is not None and size is not None:
                os.ftruncate(self._descriptor, size)
        except OSError:
            pass  # the file can't be changed at all: a reader sees a last line that breaks off
        finally:
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Diverted:
    """What the second sink took over some time: how many records, and the SHA-256 over their lines."""

    count: int
    sha256: str


class Diversion:
    """Writes records to the second sink and keeps count; any thread may call it.

    A line is the canonical JSON of the record with its time and `sink`, its number among the diverted ones. There is no
    chain here: the record of the log's recovery holds the hash over all these lines. `on_diverted` sees them too.
    """

    def __init__(self, sink: SecondSink, on_diverted: Callable[[Diverts], None] | None = None) -> None:
        self._sink = sink
        self._on_diverted = on_diverted
        self._lock = Lock()
        self._count = 0
        self._digest = sha256()
        self.works = True

    def write(self, records: Diverts) -> bool:
        """Write (time, members) pairs; say if the sink took all of them."""
        if not records:
            return self.works
        if self._on_diverted is not None:
            self._on_diverted(records)
        with self._lock:
            numbered = enumerate(records, start=self._count + 1)
            lines = b"".join(
                encode_canonical({**self._shown(members), "time": time, "sink": number}) + b"\n"
                for number, (time, members) in numbered
            )
            try:
                self._sink.write(lines)
            except OSError:
                self.works = False
                return False
            self.works = True
            self._digest.update(lines)
            self._count += len(records)
            return True

    def _shown(self, members: dict[str, MemberValue]) -> dict[str, MemberValue]:
        """Return what the sink may hold: what names a patient is masked where others than the log's readers look."""
        if self._sink.is_protected:
            return members
        return {
            name: MASK if field_rule(name).classification is Classification.PATIENT else value
            for name, value in members.items()
        }

    @property
    def diverted(self) -> Diverted:
        """What was taken since the last `forget`."""
        with self._lock:
            return Diverted(self._count, self._digest.hexdigest())

    def forget(self, reported: Diverted) -> None:
        """Begin anew, if what was reported is still all that there is; else the next report repeats it."""
        with self._lock:
            if self._count == reported.count:
                self._count = 0
                self._digest = sha256()

    def close(self) -> None:
        """Close the sink."""
        with self._lock:
            self._sink.close()
