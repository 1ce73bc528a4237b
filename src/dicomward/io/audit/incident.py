"""Reading a log for an incident: the segments that can hold the time in question, and no others."""

from collections.abc import Iterator
from pathlib import Path

from dicomward.audit.chain import decode_checkpoint, decode_record
from dicomward.audit.encode_json import RecordError
from dicomward.audit.incident import IncidentReport, Investigation, NumberedLine
from dicomward.io.audit.read import SegmentFile, find_tail, list_segments, read_lines
from dicomward.io.audit.tail import last_checkpoint_line


def investigate(directory: Path, device: str, *, since: str | None, until: str | None) -> IncidentReport:
    """Return what a device has touched between two times. Raises OSError."""
    investigation = Investigation(device, since=since, until=until)
    segments = list_segments(directory)
    last, incomplete = 0, 0
    for segment in reversed(segments):
        tail = find_tail(segment.path)
        incomplete = incomplete or tail.bad_bytes
        if tail.record is not None:
            last = tail.record.seq
            investigation.newest(tail.record)
            break
    for segment in _within(segments, since, until):
        investigation.read(_numbered(segment))
    return investigation.report(
        signed=_signed(directory),
        last=last,
        torn=sorted(path.name for path in directory.glob("*.torn-*")),
        incomplete_bytes=incomplete,
    )


def _numbered(segment: SegmentFile) -> Iterator[NumberedLine]:
    for number, line in enumerate(read_lines(segment.path)):
        if line.endswith(b"\n"):
            yield NumberedLine(segment.first_seq + number, line[:-1])


def _within(segments: list[SegmentFile], since: str | None, until: str | None) -> list[SegmentFile]:
    """Leave out the segments that end before, and those after the first one that begins later."""
    firsts = [_first_time(segment) for segment in segments]
    kept: list[SegmentFile] = []
    for number, segment in enumerate(segments):
        is_later = until is not None and (firsts[number] or "") >= until
        ends_before = since is not None and number + 1 < len(segments) and (firsts[number + 1] or since) < since
        if not ends_before:
            kept.append(segment)
        if is_later:
            break
    return kept


def _first_time(segment: SegmentFile) -> str | None:
    for line in read_lines(segment.path):
        try:
            return decode_record(line.rstrip(b"\n")).time
        except RecordError:
            return None
    return None


def _signed(directory: Path) -> int:
    """Return the newest record that a checkpoint is for."""
    line = last_checkpoint_line(directory)
    try:
        return decode_checkpoint(line).seq if line is not None else 0
    except RecordError:
        return 0
