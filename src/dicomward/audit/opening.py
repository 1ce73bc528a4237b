"""How an audit log was found when it was opened, and what must be said about it in the log itself."""

from dataclasses import dataclass

from dicomward.audit.chain import Checkpoint, Head
from dicomward.audit.event import AuditEvent, AuditRecordsLost, SecurityAlert
from dicomward.vocab.reason import ReasonCode


@dataclass(frozen=True, slots=True)
class Torn:
    """What was cut off the end of the log when it was opened: into which files, how much of it."""

    names: str
    bytes: int
    lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """How the log was found: its head, its newest checkpoint, what was torn, if it is new, if its key lies open.

    `vanished` counts records that this process wrote and that are no longer there.
    """

    head: Head
    checkpoint: Checkpoint | None
    torn: Torn | None
    vanished: int
    is_new: bool
    key_is_exposed: bool


def opening_events(opened: Opened, *, is_reopened: bool) -> list[AuditEvent]:
    """Return the records that tell what is missing or wrong, so that nothing is repaired in silence.

    `is_reopened`: the same process had the log open and gave it up after a failure, so the newest records can't have
    a checkpoint yet.
    """
    events: list[AuditEvent] = []
    head = opened.head
    if opened.torn is not None:
        torn = opened.torn
        detail = f"{torn.bytes} bytes after record {head.seq} weren't whole records: they are kept in {torn.names}"
        events.append(AuditRecordsLost(count=torn.lines, reason=ReasonCode.AUDIT_RECORD_TORN, detail=detail))
    if opened.vanished:
        detail = f"{opened.vanished} records up to {head.seq} were on the disk and are gone: files were removed"
        events.append(SecurityAlert(count=opened.vanished, reason=ReasonCode.AUDIT_TAIL_MISSING, detail=detail))
    elif not opened.is_new:
        events.extend(_compare(head, opened.checkpoint, is_reopened))
    if opened.key_is_exposed:
        detail = "others than the owner can read the key that signs checkpoints: set its mode to 0600"
        events.append(SecurityAlert(reason=ReasonCode.AUDIT_KEY_EXPOSED, detail=detail))
    return events


def _compare(head: Head, checkpoint: Checkpoint | None, is_reopened: bool) -> list[AuditEvent]:
    """Compare the newest record with the newest checkpoint."""
    if checkpoint is None:
        detail = f"there are records up to {head.seq} but no checkpoint: its file was emptied or removed"
        return [SecurityAlert(reason=ReasonCode.AUDIT_CHECKPOINT_MISSING, detail=detail)]
    if checkpoint.seq > head.seq:
        missing = checkpoint.seq - head.seq
        detail = f"the log ends at record {head.seq}, but a checkpoint of {checkpoint.time} is for {checkpoint.seq}"
        return [SecurityAlert(count=missing, reason=ReasonCode.AUDIT_TAIL_MISSING, detail=detail)]
    if checkpoint.seq < head.seq:
        if is_reopened:
            return []
        detail = f"the log wasn't closed after record {head.seq}: records of its last 100 ms may be missing"
        return [AuditRecordsLost(reason=ReasonCode.AUDIT_NOT_CLOSED, detail=detail)]
    if checkpoint.hash != head.hash:
        detail = f"record {head.seq} isn't the one that the checkpoint of {checkpoint.time} was made for"
        return [SecurityAlert(reason=ReasonCode.AUDIT_REWRITTEN, detail=detail)]
    return []
