"""The files of the audit log as their only writer sees them: segments, checkpoints, lock and reserve.

Rules of this room: no threads, no retries, no events. Every method either does its work or raises OSError, and after
an OSError the file ends where it ended before, or the next `open` cuts it there.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomward.audit.chain import GENESIS, Checkpoint, Head, decode_checkpoint, encode_checkpoint
from dicomward.audit.encode_json import RecordError
from dicomward.audit.opening import Opened, Torn
from dicomward.io.audit.files import AuditFiles
from dicomward.io.audit.key import CheckpointKey
from dicomward.io.audit.read import (
    CHECKPOINTS_NAME,
    KEY_NAME,
    SegmentFile,
    Tail,
    find_tail,
    list_segments,
    segment_path,
)
from dicomward.io.system import calls

SEGMENT_BYTES: Final = 64 * 1024 * 1024
RESERVE_BYTES: Final = 4 * 1024 * 1024
_LAST_CHECKPOINTS_BYTES: Final = 4096


@dataclass(slots=True)
class _Output:
    """An open file that is appended to; `size` is where its whole lines end, `durable` how much is on the disk."""

    path: Path
    descriptor: int
    size: int
    durable: int


class AuditStore:
    """The single writer of one directory; one thread at a time."""

    def __init__(
        self,
        directory: Path,
        *,
        files: AuditFiles | None = None,
        key_path: Path | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.directory = directory
        self.head = GENESIS
        self.durable_head = GENESIS
        self.signed_seq = -1
        self._files = files or AuditFiles()
        self._key = CheckpointKey(key_path or directory / KEY_NAME, self._files)
        self._segment_bytes = segment_bytes
        self._reserve_bytes = reserve_bytes
        self._lock: int | None = None
        self._segment: _Output | None = None
        self._checkpoints: _Output | None = None
        # What a failed write left behind, where it could not be cut off at once: path and size before it.
        self._remains: dict[Path, int] = {}

    @property
    def is_open(self) -> bool:
        """Say if the log is open for writing."""
        return self._segment is not None

    # --- opening ---

    def open(self) -> Opened:
        """Take the lock, repair the end of the log and get ready to append. Raises OSError, AuditLogBusyError."""
        try:
            return self._open()
        except OSError:
            self.abandon()
            raise

    def _open(self) -> Opened:
        self._files.make_directory(self.directory)
        self._lock = self._files.open(self.directory / "lock", os.O_RDWR | os.O_CREAT)
        self._files.lock(self._lock)
        self._cut_remains()
        head, path, torn = self._find_head()
        vanished = 0
        if head.seq < self.durable_head.seq:
            # What this process made durable is gone from the disk: the chain goes on, so that verify sees the gap.
            vanished = self.durable_head.seq - head.seq
            head, path = self.durable_head, None
        self._segment = self._append_to(path or segment_path(self.directory, head.seq + 1))
        self._checkpoints = self._append_to(self.directory / CHECKPOINTS_NAME)
        checkpoint = self._last_checkpoint(self._checkpoints)
        self._files.sync_directory(self.directory)
        self.head = self.durable_head = head
        self.signed_seq = checkpoint.seq if checkpoint else -1
        return Opened(
            head=head,
            checkpoint=checkpoint,
            torn=torn,
            vanished=vanished,
            is_new=head.seq == 0 and self._checkpoints.size == 0,
            key_is_exposed=self._key.is_exposed,
        )

    def _append_to(self, path: Path) -> _Output:
        """Open a file to append to."""
        descriptor = self._files.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        size = os.fstat(descriptor).st_size
        return _Output(path, descriptor, size, size)

    def _cut_remains(self) -> None:
        """Cut off what a failed write left; its records went to the second sink."""
        for path, size in list(self._remains.items()):
            if path.exists():
                descriptor = self._files.open(path, os.O_RDWR)
                try:
                    if os.fstat(descriptor).st_size > size:
                        self._files.truncate(descriptor, size)
                    self._files.sync(descriptor)
                finally:
                    self._files.close(descriptor)
            del self._remains[path]

    def _find_head(self) -> tuple[Head, Path | None, Torn | None]:
        """Find the last whole record and its segment; cut what comes after it into files of their own."""
        torn: Torn | None = None
        for segment in reversed(list_segments(self.directory)):
            tail = find_tail(segment.path)
            if tail.bad_bytes:
                torn = self._cut_torn(segment, tail, torn)
            if tail.record is not None:
                return tail.record.head, segment.path, torn
            self._files.unlink(segment.path)
        return GENESIS, None, torn

    def _cut_torn(self, segment: SegmentFile, tail: Tail, before: Torn | None) -> Torn:
        """Move what comes after the last whole record into a `.torn` file, and cut it off when that is on the disk.

        Returns the sum with what was torn before.
        """
        number = 1
        while (path := segment.path.with_name(f"{segment.path.name}.torn-{number}")).exists():
            number += 1
        with segment.path.open("rb") as file:
            file.seek(tail.good_bytes)
            bad = file.read(tail.bad_bytes)
        copy = self._files.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            self._files.write(copy, bad)
            self._files.sync(copy)
        finally:
            self._files.close(copy)
        self._files.sync_directory(self.directory)
        source = self._files.open(segment.path, os.O_RDWR)
        try:
            self._files.truncate(source, tail.good_bytes)
            self._files.sync(source)
        finally:
            self._files.close(source)
        if before is not None:
            return Torn(f"{path.name}, {before.names}", before.bytes + tail.bad_bytes, before.lines + tail.bad_lines)
        return Torn(path.name, tail.bad_bytes, tail.bad_lines)

    def _last_checkpoint(self, checkpoints: _Output) -> Checkpoint | None:
        """Return the newest checkpoint, and cut a torn line after it: it is evidence, not a record."""
        start = max(0, checkpoints.size - _LAST_CHECKPOINTS_BYTES)
        block = calls.read_at(checkpoints.descriptor, _LAST_CHECKPOINTS_BYTES, start)
        whole = block.rfind(b"\n") + 1
        if whole < len(block):
            checkpoints.size = checkpoints.durable = start + whole
            self._files.truncate(checkpoints.descriptor, checkpoints.size)
        for line in reversed(block[:whole].splitlines()):
            try:
                return decode_checkpoint(line)
            except RecordError:
                continue
        return None

    # --- appending ---

    def needs_rotation(self, count: int) -> bool:
        """Say if `count` more bytes belong into a new segment."""
        segment = self._output
        return segment.size > 0 and segment.size + count > self._segment_bytes

    def write(self, lines: bytes, head: Head) -> None:
        """Append whole lines, the last of which is the record of `head`. Not durable before `sync`. Raises OSError."""
        segment = self._output
        self._append(segment, lines)
        self.head = head

    def sync(self) -> None:
        """Return when everything written is on the disk. Raises OSError: then `abandon` must follow.

        Where the log was moved away or removed, nobody would find what is written: that is an error as well.
        """
        segment = self._output
        self._files.sync(segment.descriptor)
        for output in (segment, self._checkpoints):
            if output is not None and self._files.identify(output.path) != self._files.identify(output.descriptor):
                raise OSError(f"{output.path} was replaced by another file")
        segment.durable = segment.size
        self.durable_head = self.head

    def rotate(self) -> None:
        """Begin a new segment; everything written must be durable. Raises OSError."""
        old = self._output
        path = segment_path(self.directory, self.head.seq + 1)
        self._segment = self._append_to(path)
        self._files.close(old.descriptor)
        self._files.sync_directory(self.directory)

    def checkpoint(self, time: str) -> Checkpoint:
        """Sign the newest durable record and write that down. Raises OSError, AuditKeyError."""
        checkpoints = self._checkpoints
        if checkpoints is None:
            raise OSError("the audit log isn't open")
        head = self.durable_head
        signed = self._key.sign(seq=head.seq, hash_=head.hash, time=time)
        self._append(checkpoints, encode_checkpoint(signed))
        self._files.sync(checkpoints.descriptor)
        checkpoints.durable = checkpoints.size
        self.signed_seq = head.seq
        return signed

    @property
    def _output(self) -> _Output:
        """The open segment. Raises OSError if there is none."""
        if self._segment is None:
            raise OSError("the audit log isn't open")
        return self._segment

    def _append(self, output: _Output, data: bytes) -> None:
        """Append to a file; what a failure leaves half written is cut off again."""
        try:
            self._files.write(output.descriptor, data)
        except OSError:
            if not self._cut(output, output.size):
                # Nothing may be written after half a record.
                self.abandon()
            raise
        output.size += len(data)

    def _cut(self, output: _Output, size: int) -> bool:
        """Cut a file to `size` now; or note that it must be cut before it is written again, and return False."""
        try:
            self._files.truncate(output.descriptor, size)
        except OSError:
            self._remains[output.path] = min(size, self._remains.get(output.path, size))
            return False
        return True

    # --- the reserve ---

    @property
    def _reserve_path(self) -> Path:
        return self.directory / "reserve"

    def renew_reserve(self) -> bool:
        """Take the space of the reserve, if it isn't taken; say if it is there."""
        try:
            descriptor = self._files.open(self._reserve_path, os.O_RDWR | os.O_CREAT)
            try:
                if os.fstat(descriptor).st_size < self._reserve_bytes:
                    self._files.preallocate(descriptor, self._reserve_bytes)
            finally:
                self._files.close(descriptor)
        except OSError:
            self.release_reserve()
            return False
        return True

    def release_reserve(self) -> bool:
        """Give the reserve's space back to the disk; say if there was any."""
        try:
            had_space = self._reserve_path.stat().st_size >= self._reserve_bytes
            self._files.unlink(self._reserve_path)
        except OSError:
            return False
        return had_space

    # --- closing ---

    def abandon(self) -> None:
        """After a failure: cut off what isn't durable, as far as that goes, close everything, give the lock back."""
        for output in (self._segment, self._checkpoints):
            if output is not None and output.size > output.durable:
                self._cut(output, output.durable)
        self._close_all()

    def close(self) -> None:
        """Close everything and give the lock back; what isn't durable yet stays as it is."""
        self._close_all()

    def _close_all(self) -> None:
        descriptors = [each.descriptor for each in (self._segment, self._checkpoints) if each is not None]
        self._segment = self._checkpoints = None
        if self._lock is not None:
            descriptors.append(self._lock)
            self._lock = None
        for descriptor in descriptors:
            try:
                self._files.close(descriptor)
            except OSError:
                # The descriptor is gone either way, and the data was synced or given up before.
                continue
