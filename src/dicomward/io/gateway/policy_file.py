"""The policy in force: read from its file, and on record when it is another one than the last time."""

import logging
from pathlib import Path

from dicomward.audit.event import PolicyChanged
from dicomward.policy.load import PolicyError, load_policy
from dicomward.policy.model import Policy, Problem

_log = logging.getLogger(__name__)
_REVISION_FILE = "policy.revision"


def read_policy(path: Path) -> Policy:
    """Read and check the policy. Raises OSError, PolicyError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PolicyError((Problem(str(path), "it is not UTF-8 text", "save it as UTF-8"),)) from error
    return load_policy(text, source=str(path))


def note_policy(policy: Policy, state_directory: Path, operator: str) -> PolicyChanged | None:
    """Return the record of a policy that is another one than at the last start; None for the same. Raises OSError."""
    before = recorded_revision(state_directory) or "none"
    if before == policy.revision:
        return None
    return PolicyChanged(
        operator=operator, action="gateway started", policy_revision=policy.revision, detail=f"before it: {before}"
    )


def recorded_revision(state_directory: Path) -> str | None:
    """Return the revision of the policy whose change is on record; None before the first start. Raises OSError."""
    remembered = state_directory / _REVISION_FILE
    return remembered.read_text(encoding="ascii", errors="replace").strip() if remembered.exists() else None


def remember_policy(policy: Policy, state_directory: Path) -> None:
    """Remember that the change to this policy is on record.

    Where the disk is full it isn't: the next start then records the same change once more, which harms nobody.
    """
    remembered = state_directory / _REVISION_FILE
    fresh = remembered.with_suffix(".new")
    try:
        fresh.write_text(policy.revision + "\n", encoding="ascii")
        fresh.replace(remembered)
    except OSError as error:
        _log.error("%s can't be written: %s; the next start records the policy anew", remembered, error)
