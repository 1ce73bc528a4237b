"""Checking a log: the chain of its records, and its checkpoints against it.

What it proves: no record before the newest checkpoint was changed, added or taken out since, by anybody who doesn't
have the key. What it can't prove: docs/audit.md says it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from dicomward.audit.chain import (
    GENESIS,
    ChainError,
    Checkpoint,
    Head,
    Record,
    decode_checkpoint,
    decode_record,
    follow,
)
from dicomward.audit.encode_json import RecordError


class SignatureError(ValueError):
    """The signature of a checkpoint isn't good; the message says why."""


class Problem(StrEnum):
    """What is wrong with a log."""

    BAD_RECORD = "bad-record"
    BROKEN_CHAIN = "broken-chain"
    REWRITTEN = "rewritten"
    CUT_TAIL = "cut-tail"
    MISSING_START = "missing-start"
    NO_CHECKPOINT = "no-checkpoint"
    BAD_CHECKPOINT = "bad-checkpoint"
    BAD_SIGNATURE = "bad-signature"
    WITHDRAWN = "withdrawn"
    NO_HEADS = "no-heads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong: the record that it is about (None: a checkpoint line), and where it stands."""

    problem: Problem
    seq: int | None
    place: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One file of the log: its name, and its lines with their line feeds, oldest first."""

    name: str
    lines: Iterable[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found. The log is good if `findings` is empty; the first finding names the first bad record.

    `signed` is the newest record that a good checkpoint covers (0: none); those up to `last` follow it in the chain but
    are signed by the next checkpoint only. `incomplete_bytes` is a record that is being written, or was torn by a
    crash, at the very end.
    """

    records: int
    first: int
    last: int
    head_hash: str
    checkpoints: int
    signed: int
    incomplete_bytes: int
    findings: tuple[Finding, ...]

    @property
    def is_good(self) -> bool:
        """Say if nothing is wrong."""
        return not self.findings


class _Stop(Exception):
    """A way out, not an error: carries the finding that ends the check, since nothing after it is proven."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.detail)
        self.finding: Final = finding


class _Check:
    """The state of one check, record by record beside the checkpoints."""

    def __init__(
        self,
        checkpoints: Iterator[Checkpoint],
        verify_signature: Callable[[Checkpoint], None],
        archived: bool,
        pruned: Head | None,
    ) -> None:
        self._checkpoints = checkpoints
        self._verify_signature = verify_signature
        self._archived = archived
        self._pruned = pruned
        self._next: Checkpoint | None = None
        self.head = GENESIS
        self.records = 0
        self.first = 0
        self.checked = 0
        self.signed = 0
        self.incomplete_bytes = 0

    def start(self) -> None:
        """Check what stands before the first record."""
        self._next = next(self._checkpoints, None)
        if self._next is None:
            detail = "there is no checkpoint: its file was emptied or removed, or this log was never opened in order"
            raise _Stop(Finding(problem=Problem.NO_CHECKPOINT, seq=None, place="checkpoints", detail=detail))
        self._compare(GENESIS, place="checkpoints")

    def line(self, line: bytes, place: str) -> None:
        """Check one line of the log."""
        if self.incomplete_bytes:
            seq = self.head.seq + 1
            detail = f"record {seq} breaks off, and more follows it"
            raise _Stop(Finding(problem=Problem.BAD_RECORD, seq=seq, place=place, detail=detail))
        if not line.endswith(b"\n"):
            self.incomplete_bytes = len(line)
            return
        try:
            record = decode_record(line[:-1])
        except RecordError as error:
            seq = self.head.seq + 1
            raise _Stop(
                Finding(problem=Problem.BAD_RECORD, seq=seq, place=place, detail=f"record {seq}: {error}")
            ) from error
        if not self.records and record.seq > 1:
            self._skip_archived(record, place)
        try:
            self.head = follow(self.head, record)
        except ChainError as error:
            finding = Finding(problem=Problem.BROKEN_CHAIN, seq=self.head.seq + 1, place=place, detail=str(error))
            raise _Stop(finding) from error
        self.records += 1
        self.first = self.first or record.seq
        self._compare(self.head, place)

    def end(self) -> None:
        """Check that no checkpoint speaks of more records than there are."""
        if self._next is not None:
            seq = self.head.seq + 1
            detail = (
                f"the log ends at record {self.head.seq}, but a checkpoint of {self._next.time} is for record "
                f"{self._next.seq}: the end of the log was cut off"
            )
            self._check_signature(self._next)
            self._advance(self._next)
            raise _Stop(Finding(problem=Problem.CUT_TAIL, seq=seq, place="checkpoints", detail=detail))

    def _skip_archived(self, record: Record, place: str) -> None:
        """Begin in the middle, where a checkpoint vouches for what came before and the caller said that it is away."""
        before = Head(record.seq - 1, record.prev)
        finding = Finding(
            problem=Problem.MISSING_START,
            seq=1,
            place=place,
            detail=f"records 1 to {before.seq} are missing: put their segments back, or say that they were archived",
        )
        if not self._archived and self._pruned != before:
            raise _Stop(finding)
        self.head = before
        while self._next is not None and self._next.seq < before.seq:
            self._check_signature(self._next)
            self._advance(self._next)
        if self._next is None or self._next.seq != before.seq:
            detail = f"records 1 to {before.seq} are missing, and no checkpoint vouches for where this log begins"
            raise _Stop(Finding(problem=Problem.MISSING_START, seq=1, place=place, detail=detail))
        self._compare(before, place)

    def _compare(self, head: Head, place: str) -> None:
        """Compare every checkpoint for this record with it."""
        while self._next is not None and self._next.seq == head.seq:
            checkpoint = self._next
            self._check_signature(checkpoint)
            if checkpoint.hash != head.hash:
                detail = (
                    f"record {head.seq} isn't the one that the checkpoint of {checkpoint.time} was made for: "
                    f"the log was rewritten somewhere between record {self.signed + 1} and here"
                )
                raise _Stop(Finding(problem=Problem.REWRITTEN, seq=self.signed + 1, place=place, detail=detail))
            self.signed = head.seq
            self._advance(checkpoint)

    def _check_signature(self, checkpoint: Checkpoint) -> None:
        """Check the signature of the next checkpoint."""
        self.checked += 1
        try:
            self._verify_signature(checkpoint)
        except SignatureError as error:
            detail = f"the checkpoint of {checkpoint.time} for record {checkpoint.seq}: {error}"
            finding = Finding(problem=Problem.BAD_SIGNATURE, seq=checkpoint.seq, place="checkpoints", detail=detail)
            raise _Stop(finding) from error

    def _advance(self, checkpoint: Checkpoint) -> None:
        """Go on to the checkpoint after this one; it can't be about less."""
        self._next = next(self._checkpoints, None)
        if self._next is not None and self._next.seq < checkpoint.seq:
            detail = (
                f"a checkpoint for record {self._next.seq} comes after one for record {checkpoint.seq}: "
                "the log was cut off there and written anew"
            )
            seq = self._next.seq + 1
            raise _Stop(Finding(problem=Problem.REWRITTEN, seq=seq, place="checkpoints", detail=detail))


def verify_log(
    segments: Iterable[Segment],
    checkpoint_lines: Iterable[bytes],
    *,
    verify_signature: Callable[[Checkpoint], None],
    archived: bool = False,
    pruned: Head | None = None,
) -> Report:
    """Check a log and return what was found; it stops at the first finding, since nothing after it is proven.

    Take the checkpoint lines before the segments are opened: then every one of them is about records that are there,
    even while a gateway writes. `verify_signature` raises SignatureError; `archived` says that older segments
    were moved away on purpose; `pruned` is the last record of those that a signed statement says were pruned.
    """
    findings: tuple[Finding, ...] = ()
    check = _Check(_checkpoints(checkpoint_lines), verify_signature, archived, pruned)
    try:
        check.start()
        for segment in segments:
            for number, line in enumerate(segment.lines, start=1):
                check.line(line, f"{segment.name}:{number}")
        check.end()
    except _Stop as stop:
        findings = (stop.finding,)
    return Report(
        records=check.records,
        first=check.first,
        last=check.head.seq,
        head_hash=check.head.hash,
        checkpoints=check.checked,
        signed=check.signed,
        incomplete_bytes=check.incomplete_bytes,
        findings=findings,
    )


def find_withdrawn(kept_lines: Iterable[bytes], lines: Iterable[bytes], *, pruned: int = 0) -> Finding | None:
    """Compare checkpoints with a copy that was kept elsewhere: each of the copy must still be there, in its place.

    That notices what the log's own files can't tell: records cut off together with their checkpoints. Checkpoints of
    records before `pruned` may be gone.
    """
    here = (line for line in lines if not _is_before(line, pruned))
    for number, kept in enumerate(kept_lines, start=1):
        if not kept.endswith(b"\n"):
            return None
        if _is_before(kept, pruned):
            continue
        if next(here, None) != kept:
            detail = f"checkpoint {number} of the copy isn't in this log any more: the log was cut off or written anew"
            return Finding(problem=Problem.WITHDRAWN, seq=None, place=f"checkpoints:{number}", detail=detail)
    return None


def _is_before(line: bytes, seq: int) -> bool:
    """Say if a checkpoint line is about an older record; one that can't be read isn't."""
    if not seq:
        return False
    try:
        return decode_checkpoint(line.rstrip(b"\n")).seq < seq
    except RecordError:
        return False


def _checkpoints(lines: Iterable[bytes]) -> Iterator[Checkpoint]:
    """Decode the checkpoint lines; the last one may be in the middle of being written."""
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            return
        try:
            yield decode_checkpoint(line[:-1])
        except RecordError as error:
            place = f"checkpoints:{number}"
            finding = Finding(problem=Problem.BAD_CHECKPOINT, seq=None, place=place, detail=str(error))
            raise _Stop(finding) from error
