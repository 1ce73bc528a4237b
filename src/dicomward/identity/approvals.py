"""The second person: what one operator asks for, another one approves or rejects, and the first one then does.

An approval is for exactly one command (`digest` covers its arguments and the content of the files that it reads), for
the operator who asked, once, and for a limited time. Time is an argument. docs/operators.md.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from dicomward.identity.operators import Operator, Permission

APPROVALS_VERSION: Final = 1
# What is over is in the audit log; the file keeps so many of them for `approval list --all`.
MOST_OVER: Final = 200
MOST_PENDING: Final = 100


class ApprovalStatus(StrEnum):
    """Where a request stands. What has run out of time is `expired`, whatever it was."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    USED = "used"
    EXPIRED = "expired"


class ApprovalError(ValueError):
    """A request can't be approved or rejected, or the file can't be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One request for a second person."""

    id: str
    permission: Permission
    command: str
    digest: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    status: ApprovalStatus = ApprovalStatus.PENDING
    decided_by: str = ""

    def status_at(self, now: datetime) -> ApprovalStatus:
        """Return the status at a time."""
        is_open = self.status in (ApprovalStatus.PENDING, ApprovalStatus.APPROVED)
        return ApprovalStatus.EXPIRED if is_open and now >= self.expires_at else self.status


@dataclass(frozen=True, slots=True)
class Approvals:
    """All requests, oldest first."""

    entries: tuple[Approval, ...] = ()

    def find(self, *, digest: str, requested_by: str, now: datetime) -> Approval | None:
        """Return the open request of an operator for exactly this command: an approved one first."""
        found = [
            each
            for each in self.entries
            if each.digest == digest
            and each.requested_by == requested_by
            and each.status_at(now) in (ApprovalStatus.APPROVED, ApprovalStatus.PENDING)
        ]
        found.sort(key=lambda each: each.status is not ApprovalStatus.APPROVED)
        return found[0] if found else None

    def with_request(self, approval: Approval) -> "Approvals":
        """Return them with a new request; old ones that are over are let go. Raises ApprovalError."""
        now = approval.requested_at
        over = [each for each in self.entries if not _is_open(each, now)]
        pending = [each for each in self.entries if _is_open(each, now)]
        if len(pending) >= MOST_PENDING:
            raise ApprovalError(
                f"{len(pending)} requests are open already; decide some first, see: dicomward approval list"
            )
        kept = set(over[-MOST_OVER:])
        return Approvals((*(each for each in self.entries if each in kept or each in pending), approval))

    def decide(self, approval_id: str, operator: Operator, *, approve: bool, now: datetime) -> "Approvals":
        """Return them after a decision of `operator`. Raises ApprovalError."""
        approval = self.named(approval_id)
        status = approval.status_at(now)
        if status is not ApprovalStatus.PENDING:
            raise ApprovalError(f"request {approval_id} is {status} already; the command has to be typed again")
        if approve and operator.name == approval.requested_by:
            raise ApprovalError("the second person is another one: you have asked for this yourself")
        if not operator.may(approval.permission) and operator.name != approval.requested_by:
            raise ApprovalError(f"{operator.name} may not do this ({approval.permission}), and so not approve it")
        new = ApprovalStatus.APPROVED if approve else ApprovalStatus.REJECTED
        return self._replaced(replace(approval, status=new, decided_by=operator.name))

    def use(self, approval: Approval) -> "Approvals":
        """Return them after an approval was used."""
        return self._replaced(replace(approval, status=ApprovalStatus.USED))

    def named(self, approval_id: str) -> Approval:
        """Return a request. Raises ApprovalError."""
        for each in self.entries:
            if each.id == approval_id:
                return each
        raise ApprovalError(f"there is no request {approval_id!r}; see: dicomward approval list")

    def _replaced(self, approval: Approval) -> "Approvals":
        return Approvals(tuple(approval if each.id == approval.id else each for each in self.entries))


def _is_open(approval: Approval, now: datetime) -> bool:
    return approval.status_at(now) in (ApprovalStatus.PENDING, ApprovalStatus.APPROVED)


def request_approval(
    *,
    approval_id: str,
    permission: Permission,
    command: str,
    digest: str,
    operator: Operator,
    now: datetime,
    hours: float,
) -> Approval:
    """Return a new request."""
    return Approval(
        id=approval_id,
        permission=permission,
        command=command,
        digest=digest,
        requested_by=operator.name,
        requested_at=now,
        expires_at=now + timedelta(hours=hours),
    )


def approval_to_json(approval: Approval, status: ApprovalStatus) -> dict[str, str]:
    """Return what people and scripts may see."""
    return {
        "id": approval.id,
        "permission": approval.permission.value,
        "command": approval.command,
        "digest": approval.digest,
        "requested_by": approval.requested_by,
        "requested_at": approval.requested_at.isoformat(),
        "expires_at": approval.expires_at.isoformat(),
        "status": status.value,
        "decided_by": approval.decided_by,
    }


def encode_approvals(approvals: Approvals) -> str:
    """Return the text of the file."""
    entries: Iterable[dict[str, str]] = (approval_to_json(each, each.status) for each in approvals.entries)
    return json.dumps({"version": APPROVALS_VERSION, "approvals": list(entries)}, indent=1) + "\n"


def decode_approvals(text: str) -> Approvals:
    """Read the file. Raises ApprovalError."""
    try:
        document = json.loads(text)
        if document["version"] != APPROVALS_VERSION:
            raise ValueError(f"version {document['version']!r}")
        return Approvals(tuple(_decode_approval(each) for each in document["approvals"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ApprovalError(f"the file of approvals can't be read ({error!r}); move it away to begin anew") from error


def _decode_approval(members: dict[str, str]) -> Approval:
    requested_at, expires_at = (datetime.fromisoformat(members[key]) for key in ("requested_at", "expires_at"))
    if requested_at.tzinfo is None or expires_at.tzinfo is None:
        raise ValueError("a time without time zone")
    return Approval(
        id=str(members["id"]),
        permission=Permission(members["permission"]),
        command=str(members["command"]),
        digest=str(members["digest"]),
        requested_by=str(members["requested_by"]),
        requested_at=requested_at,
        expires_at=expires_at,
        status=ApprovalStatus(members["status"]),
        decided_by=str(members["decided_by"]),
    )
