"""Checking an audit directory; no lock is taken, so a gateway may write meanwhile."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dicomward.audit.chain import Checkpoint, Head, decode_record
from dicomward.audit.encode_json import RecordError
from dicomward.audit.heads import HeadsReport, compare_heads, find_heads
from dicomward.audit.pruned import Pruned, decode_pruned
from dicomward.audit.verify import Report, Segment, SignatureError, find_withdrawn, verify_log
from dicomward.io.audit.key import CheckpointVerifier, public_key_path
from dicomward.io.audit.read import (
    CHECKPOINTS_NAME,
    KEY_NAME,
    SegmentFile,
    list_segments,
    read_checkpoint_lines,
    read_lines,
)

PRUNED_NAME = "pruned.jsonl"


@dataclass(frozen=True, slots=True)
class Verified:
    """The report on a directory, how many segments it has, and the key that its checkpoints were checked with.

    `pruned` is the statement that vouches for where the log begins; `heads` the comparison with heads kept elsewhere.
    """

    report: Report
    segments: int
    key_id: str
    pruned: Pruned | None = None
    heads: HeadsReport | None = None


def verify_directory(
    directory: Path,
    *,
    archived: bool = False,
    public_key: Path | None = None,
    against: Path | None = None,
    heads: Path | None = None,
) -> Verified:
    """Check the log in a directory.

    `public_key` is a copy of checkpoint.pub, `against` one of checkpoints.jsonl, `heads` a file with the signed heads
    that have left this machine; `archived` says that older segments were moved away on purpose.
    Raises OSError, AuditKeyError.
    """
    # Heads and checkpoints first, then the names of the segments: what they speak of is on the disk by now.
    kept_heads = None if heads is None else list(find_heads(read_lines(heads)))
    checkpoints = read_checkpoint_lines(directory / CHECKPOINTS_NAME)
    key_path = public_key or public_key_path(directory / KEY_NAME)
    verifier = CheckpointVerifier(key_path) if public_key or key_path.exists() else None

    def verify_signature(checkpoint: Checkpoint | Pruned) -> None:
        if verifier is None:
            raise SignatureError(f"there is no public key at {key_path} to check it with")
        verifier.verify(checkpoint)

    # The statement of pruning is made before anything is removed, so it is read after the segments are listed.
    files = list_segments(directory)
    pruned = newest_pruned(directory, verify_signature)
    withdrawn = None
    if against is not None:
        withdrawn = find_withdrawn(
            read_lines(against),
            read_checkpoint_lines(directory / CHECKPOINTS_NAME),
            pruned=pruned.seq if pruned else 0,
        )
    report = verify_log(
        (Segment(name=each.path.name, lines=read_lines(each.path)) for each in files),
        checkpoints,
        verify_signature=verify_signature,
        archived=archived,
        pruned=Head(pruned.seq, pruned.hash) if pruned else None,
    )
    if withdrawn is not None:
        report = replace(report, findings=(*report.findings, withdrawn))
    compared = None
    if kept_heads is not None:
        compared = compare_heads(
            kept_heads,
            _heads_of(files),
            before_first=_before_first(files),
            verify_signature=verify_signature,
        )
        report = replace(report, findings=(*report.findings, *compared.findings))
    return Verified(
        report=report,
        segments=len(files),
        key_id=verifier.key_id if verifier else "",
        pruned=pruned if pruned and report.first == pruned.seq + 1 else None,
        heads=compared,
    )


def newest_pruned(directory: Path, verify_signature: Callable[[Pruned], None]) -> Pruned | None:
    """Return the newest statement of pruning whose signature is good. Raises OSError."""
    try:
        lines = list(read_lines(directory / PRUNED_NAME))
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            statement = decode_pruned(line.rstrip(b"\n"))
            verify_signature(statement)
        except (RecordError, SignatureError):
            continue
        return statement
    return None


def _heads_of(files: list[SegmentFile]) -> Iterator[tuple[int, str]]:
    """Yield number and hash of each record, as far as the records can be read."""
    for segment in files:
        for line in read_lines(segment.path):
            try:
                record = decode_record(line.rstrip(b"\n"))
            except RecordError:
                return
            yield record.seq, record.hash


def _before_first(files: list[SegmentFile]) -> tuple[int, str] | None:
    """Return number and hash of the record before the first one, if that isn't the beginning."""
    for line in read_lines(files[0].path) if files else ():
        try:
            record = decode_record(line.rstrip(b"\n"))
        except RecordError:
            return None
        return (record.seq - 1, record.prev) if record.seq > 1 else None
    return None
