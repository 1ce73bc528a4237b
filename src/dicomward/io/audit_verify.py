"""Checking an audit directory; no lock is taken, so a gateway may write meanwhile."""

from dataclasses import dataclass, replace
from pathlib import Path

from dicomward.audit.chain import Checkpoint
from dicomward.audit.verify import Report, Segment, SignatureError, find_withdrawn, verify_log
from dicomward.io.audit_key import CheckpointVerifier, public_key_path
from dicomward.io.audit_read import CHECKPOINTS_NAME, KEY_NAME, list_segments, read_checkpoint_lines, read_lines


@dataclass(frozen=True, slots=True)
class Verified:
    """The report on a directory, how many segments it has, and the key that its checkpoints were checked with."""

    report: Report
    segments: int
    key_id: str


def verify_directory(
    directory: Path, *, archived: bool = False, public_key: Path | None = None, against: Path | None = None
) -> Verified:
    """Check the log in a directory.

    `public_key` is a copy of checkpoint.pub and `against` one of checkpoints.jsonl that were kept elsewhere; `archived`
    says that older segments were moved away on purpose. Raises OSError, AuditKeyError.
    """
    # Checkpoints first, then the names of the segments: what they speak of is on the disk by now.
    checkpoints = read_checkpoint_lines(directory / CHECKPOINTS_NAME)
    withdrawn = None
    if against is not None:
        withdrawn = find_withdrawn(read_lines(against), read_checkpoint_lines(directory / CHECKPOINTS_NAME))
    files = list_segments(directory)
    key_path = public_key or public_key_path(directory / KEY_NAME)
    verifier = CheckpointVerifier(key_path) if public_key or key_path.exists() else None

    def verify_signature(checkpoint: Checkpoint) -> None:
        if verifier is None:
            raise SignatureError(f"there is no public key at {key_path} to check it with")
        verifier.verify(checkpoint)

    segments = (Segment(name=each.path.name, lines=read_lines(each.path)) for each in files)
    report = verify_log(segments, checkpoints, verify_signature=verify_signature, archived=archived)
    if withdrawn is not None:
        report = replace(report, findings=(*report.findings, withdrawn))
    return Verified(report, len(files), verifier.key_id if verifier else "")
