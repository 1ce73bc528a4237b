"""Reading the log from any record on, while it grows: each line with its number."""

from collections.abc import Iterator
from pathlib import Path

from dicomward.audit.chain import MAX_CHECKPOINT_BYTES, MAX_RECORD_BYTES
from dicomward.io.audit.read import CHECKPOINTS_NAME, SegmentFile, find_tail, list_segments


def last_seq(directory: Path) -> int:
    """Return the number of the newest record; 0 where there is none. Raises OSError."""
    for segment in reversed(list_segments(directory)):
        tail = find_tail(segment.path)
        if tail.record is not None:
            return tail.record.seq
    return 0


def last_checkpoint_line(directory: Path) -> bytes | None:
    """Return the newest whole line of the checkpoints, without its line feed. Raises OSError."""
    try:
        with (directory / CHECKPOINTS_NAME).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 2 * MAX_CHECKPOINT_BYTES))
            block = file.read()
    except FileNotFoundError:
        return None
    lines = block[: block.rfind(b"\n") + 1].splitlines()
    return lines[-1] if lines else None


class LogTail:
    """Yields (number, line) of the records after `after`; what is pruned meanwhile is passed over."""

    def __init__(self, directory: Path, *, after: int) -> None:
        self._directory = directory
        self._segment: SegmentFile | None = None
        self._offset = 0
        self.seq = after

    def read(self, most: int) -> Iterator[tuple[int, bytes]]:
        """Yield at most so many records that are there now; lines without their line feed. Raises OSError."""
        left = most
        for segment in self._ahead():
            if self._segment is None or segment.first_seq != self._segment.first_seq:
                self._segment, self._offset = segment, self._offset_in(segment)
            with segment.path.open("rb") as file:
                file.seek(self._offset)
                while left and (line := file.readline(MAX_RECORD_BYTES + 1)).endswith(b"\n"):
                    self._offset += len(line)
                    self.seq += 1
                    left -= 1
                    yield self.seq, line[:-1]
            if not left:
                return

    def _ahead(self) -> list[SegmentFile]:
        """Return the segments that hold what comes next, and those after it."""
        segments = list_segments(self._directory)
        here = [number for number, each in enumerate(segments) if each.first_seq <= self.seq + 1]
        return segments[here[-1] if here else 0 :]

    def _offset_in(self, segment: SegmentFile) -> int:
        """Return where the next record is; records before this segment that are gone are passed over."""
        if segment.first_seq > self.seq:
            self.seq = segment.first_seq - 1
            return 0
        offset = 0
        with segment.path.open("rb") as file:
            for _ in range(self.seq - segment.first_seq + 1):
                line = file.readline(MAX_RECORD_BYTES + 1)
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
        return offset
