"""Reading the files of an audit log: no lock is taken, so a gateway that writes isn't held up."""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomward.audit.chain import MAX_CHECKPOINT_BYTES, MAX_RECORD_BYTES, Record, decode_record
from dicomward.audit.encode_json import RecordError
from dicomward.audit.search import Query, search_lines

CHECKPOINTS_NAME: Final = "checkpoints.jsonl"
KEY_NAME: Final = "checkpoint.key"
_SEGMENT_NAME: Final = re.compile(r"audit-([0-9]{12})\.jsonl\Z")
_FIRST_LOOK_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """One segment: its path, and the number of its first record, which its name tells."""

    path: Path
    first_seq: int


def segment_path(directory: Path, first_seq: int) -> Path:
    """Return where the segment that begins with this record is."""
    return directory / f"audit-{first_seq:012d}.jsonl"


def list_segments(directory: Path) -> list[SegmentFile]:
    """Return the segments, oldest first. Raises OSError."""
    found = [(match, path) for path in directory.iterdir() if (match := _SEGMENT_NAME.match(path.name))]
    return sorted((SegmentFile(path, int(match[1])) for match, path in found), key=lambda each: each.first_seq)


def read_lines(path: Path, *, max_bytes: int = MAX_RECORD_BYTES, end: int | None = None) -> Iterator[bytes]:
    """Yield the lines with their line feeds, from the first `end` bytes if it is given. Raises OSError.

    A last line without its line feed is the end, even if more is written meanwhile. A line longer than any record comes
    in pieces, which aren't records either.
    """
    with path.open("rb") as file:
        left = end
        while True:
            line = file.readline(max_bytes + 1 if left is None else min(max_bytes + 1, left))
            if not line:
                return
            yield line
            if left is not None:
                left -= len(line)
            if not line.endswith(b"\n") and len(line) <= max_bytes:
                return


def read_checkpoint_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that the checkpoints file has at this moment; none if there is no such file. Raises OSError."""
    try:
        end = path.stat().st_size
    except FileNotFoundError:
        return iter(())
    return read_lines(path, max_bytes=MAX_CHECKPOINT_BYTES, end=end)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a segment: its last whole record (None: it has none), and what comes after it.

    `good_bytes` end with that record; `bad_bytes` follow, which are `bad_lines` lines or pieces of a line.
    """

    record: Record | None
    good_bytes: int
    bad_bytes: int
    bad_lines: int


def find_tail(path: Path) -> Tail:
    """Look from the end of a segment for its last whole record. Raises OSError.

    It reads no more than it needs: 64 KiB where the end is in order.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        look = _FIRST_LOOK_BYTES
        while True:
            start = max(0, size - look)
            file.seek(start)
            block = file.read(size - start)
            tail = _tail_of(block, start)
            if tail is not None:
                return tail
            if start == 0:
                return Tail(None, 0, size, block.count(b"\n") + (not block.endswith(b"\n") and size > 0))
            look *= 8


def _tail_of(block: bytes, start: int) -> Tail | None:
    """Find the last whole record in the bytes of a segment from `start` to its end."""
    end = block.rfind(b"\n") + 1
    while end > 0:
        begin = block.rfind(b"\n", 0, end - 1) + 1
        if begin == 0 and start > 0:
            return None
        try:
            record = decode_record(block[begin : end - 1])
        except RecordError:
            end = begin
            continue
        bad = block[end:]
        return Tail(record, start + end, len(bad), bad.count(b"\n") + (not bad.endswith(b"\n") and len(bad) > 0))
    return None


def find_records(directory: Path, query: Query, limit: int | None) -> Iterator[Record | str]:
    """Yield the matching records, oldest first, and for each damaged line a text that says where and what.

    With a limit only the newest are yielded; then segments are read from the newest back, no more than it takes, and
    the damage comes first. Raises OSError.
    """
    segments = list_segments(directory)
    if limit is None:
        for segment in segments:
            yield from _find_in(segment, query)
        return
    found: list[Record] = []
    for segment in reversed(segments):
        here: deque[Record] = deque(maxlen=limit - len(found))
        for each in _find_in(segment, query):
            if isinstance(each, Record):
                here.append(each)
            else:
                yield each
        found[:0] = here
        if len(found) == limit:
            break
    yield from found


def _find_in(segment: SegmentFile, query: Query) -> Iterator[Record | str]:
    """Search one segment."""
    for each in search_lines(query, read_lines(segment.path)):
        yield each if isinstance(each, Record) else f"{segment.path.name}:{each.line}: {each.detail}"


class Follower:
    """Reads what is appended to the log from now on, across segments."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._segment: SegmentFile | None = None
        self._offset = 0
        for segment in list_segments(directory)[-1:]:
            self._segment = segment
            self._offset = find_tail(segment.path).good_bytes

    def read(self) -> Iterator[bytes]:
        """Yield the whole lines that came since the last call. Raises OSError."""
        for segment in list_segments(self._directory):
            if self._segment is not None and segment.first_seq < self._segment.first_seq:
                continue
            if self._segment is None or segment.first_seq > self._segment.first_seq:
                self._segment, self._offset = segment, 0
            with segment.path.open("rb") as file:
                file.seek(self._offset)
                while (line := file.readline(MAX_RECORD_BYTES + 1)).endswith(b"\n"):
                    self._offset += len(line)
                    yield line
