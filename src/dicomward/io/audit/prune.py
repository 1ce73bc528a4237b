"""Removing the oldest segments of a log for good, so that the rest still proves itself.

Order: the record in the chain, then the signed statement beside it, both on the disk; only then files go. A crash in
between leaves more than was wanted, never less than what is said.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomward.audit.chain import Record, decode_checkpoint
from dicomward.audit.encode_json import RecordError
from dicomward.audit.event import AuditPruned
from dicomward.audit.pruned import encode_pruned
from dicomward.io.audit.cursor import cursor_path, read_cursor
from dicomward.io.audit.files import AuditFiles
from dicomward.io.audit.key import CheckpointKey
from dicomward.io.audit.read import (
    CHECKPOINTS_NAME,
    KEY_NAME,
    SegmentFile,
    find_tail,
    list_segments,
    read_checkpoint_lines,
)
from dicomward.io.audit.verify import PRUNED_NAME
from dicomward.settings.syslog import SyslogDestination

RETENTION: Final = "retention"
COMMAND: Final = "command"
LOCK_NAME: Final = "lock"  # the one that the log's only writer holds


class PruneError(Exception):
    """Nothing was removed; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """What would go: the segments, the last record in them, how many records. `held` is what a receiver still needs."""

    segments: tuple[SegmentFile, ...]
    last: Record | None
    records: int
    bytes: int
    held: str = ""


def plan_prune(directory: Path, *, before: str, destinations: tuple[SyslogDestination, ...]) -> PrunePlan:
    """Find the segments whose newest record is older than a time. Raises OSError.

    The newest segment always stays; so does what a syslog receiver hasn't got yet.
    """
    delivered: dict[str, int] = {}
    for each in destinations:
        found = read_cursor(cursor_path(directory, each))
        if found is not None:
            delivered[each.name] = found
    chosen: list[SegmentFile] = []
    last: Record | None = None
    held = ""
    for segment in list_segments(directory)[:-1]:
        record = find_tail(segment.path).record
        if record is None or record.time >= before:
            break
        behind = [name for name, seq in delivered.items() if seq < record.seq]
        if behind:
            held = behind[0]
            break
        chosen.append(segment)
        last = record
    return PrunePlan(
        segments=tuple(chosen),
        last=last,
        records=last.seq - chosen[0].first_seq + 1 if last is not None else 0,
        bytes=sum(segment.path.stat().st_size for segment in chosen),
        held=held,
    )


def prune(
    directory: Path,
    plan: PrunePlan,
    *,
    now: str,
    operator: str | None,
    action: str,
    record: Callable[[AuditPruned], bool],
    key_path: Path | None = None,
) -> None:
    """Do what was planned; `record` writes the event durably and says if it could. Raises PruneError, OSError."""
    if plan.last is None:
        return
    event = AuditPruned(
        operator=operator,
        action=action,
        count=plan.records,
        last=plan.last.time,
        detail=f"records up to {plan.last.seq}, whose hash is {plan.last.hash}",
    )
    if not record(event):
        raise PruneError("nothing was removed: the record of it could not be written; see `dicomward audit verify`")
    files = AuditFiles()
    statement = CheckpointKey(key_path or directory / KEY_NAME, files).sign_pruned(
        seq=plan.last.seq, hash_=plan.last.hash, time=now
    )
    descriptor = files.open(directory / PRUNED_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        files.write(descriptor, encode_pruned(statement))
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    files.sync_directory(directory)
    for segment in plan.segments:
        for torn in directory.glob(f"{segment.path.name}.torn-*"):
            files.unlink(torn)
        files.unlink(segment.path)
    files.sync_directory(directory)


def trim_checkpoints(directory: Path) -> int:
    """Drop the checkpoints of pruned records; return how many.

    The one for the record before the first one stays: it vouches for where the log begins.
    Raises OSError, and AuditLogBusyError while somebody has the log open.
    """
    files = AuditFiles()
    if not (directory / CHECKPOINTS_NAME).exists():
        return 0
    lock = files.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    try:
        files.lock(lock)
        return _trim(directory, files)
    finally:
        files.close(lock)


def _trim(directory: Path, files: AuditFiles) -> int:
    segments = list_segments(directory)
    if not segments or segments[0].first_seq == 1:
        return 0
    border = segments[0].first_seq - 1
    path = directory / CHECKPOINTS_NAME
    lines = list(read_checkpoint_lines(path))
    kept = [line for line in lines if not _is_before(line, border)]
    if len(kept) == len(lines):
        return 0
    temporary = path.with_name(f"{path.name}.new")
    descriptor = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        files.write(descriptor, b"".join(kept))
        files.sync(descriptor)
    finally:
        files.close(descriptor)
    temporary.rename(path)
    files.sync_directory(directory)
    return len(lines) - len(kept)


def _is_before(line: bytes, border: int) -> bool:
    try:
        return decode_checkpoint(line.rstrip(b"\n")).seq < border
    except RecordError:
        return False
