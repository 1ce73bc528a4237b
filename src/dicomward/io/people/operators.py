"""Operators and approvals on disk, who runs a command, and the audit records about both. docs/operators.md."""

import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from dicomward.audit.event import AuditAccessed, AuditEvent
from dicomward.identity.approvals import (
    Approval,
    ApprovalError,
    Approvals,
    ApprovalStatus,
    decode_approvals,
    encode_approvals,
    request_approval,
)
from dicomward.identity.operators import (
    Caller,
    Operator,
    OperatorError,
    Operators,
    Permission,
    parse_operators,
    render_operators,
)
from dicomward.io.private_file import file_lock, replace_file
from dicomward.io.system import calls
from dicomward.settings import Settings

APPROVALS_NAME: Final = "approvals.json"
_ANSWER_SECONDS: Final = 5.0
_LOGIN_USER_UNSET: Final = 0xFFFF_FFFF


def unix_caller(directory: Path, environment: Mapping[str, str]) -> Caller:
    """Return who runs this command.

    Who has logged in (the kernel's login user) stays that through sudo and su. $SUDO_USER is sudo's word only for root
    and for the user that the gateway's directory belongs to; for everybody else it is whatever they have typed.
    """
    uid = calls.user_id()
    login = _login_uid()
    if login is not None and login != 0:
        return Caller(unix_user=_name_of(login), is_root=False)
    sudo = environment.get("SUDO_USER")
    if sudo and sudo != "root" and uid in (0, _owner_of(directory)):
        return Caller(unix_user=sudo, is_root=False)
    return Caller(unix_user=_name_of(uid), is_root=uid == 0)


def _login_uid() -> int | None:
    try:
        uid = int(Path("/proc/self/loginuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if uid == _LOGIN_USER_UNSET else uid


def _owner_of(directory: Path) -> int:
    try:
        return directory.stat().st_uid
    except OSError:
        return -1


def _name_of(uid: int) -> str:
    try:
        return calls.user_name(uid)
    except KeyError:
        return f"uid-{uid}"


def read_operators(settings: Settings) -> Operators | None:
    """Return the operators; None where there is no file: then whoever may write the directory is one.

    Raises OperatorError.
    """
    path = settings.operators.file
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if settings.operators.second_person:
            raise OperatorError(
                f"operators.second_person is set, but {path} is missing; bring it back, or take the setting out"
            ) from error
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} can't be read: {error}") from error
    return parse_operators(text, source=str(path))


def change_operators(settings: Settings, operators: Operators) -> None:
    """Replace the file. Raises OSError."""
    replace_file(settings.operators.file, render_operators(operators))


def read_approvals(settings: Settings) -> Approvals:
    """Return the requests for a second person. Raises ApprovalError, OSError."""
    try:
        return decode_approvals(_approvals_path(settings).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Approvals()
    except UnicodeDecodeError as error:
        raise ApprovalError(f"{_approvals_path(settings)} is not text; move it away to begin anew") from error


def _approvals_path(settings: Settings) -> Path:
    return settings.gateway.state_directory / APPROVALS_NAME


def take_approval(
    settings: Settings, operator: Operator, permission: Permission, *, command: str, digest: str, now: datetime
) -> Approval:
    """Use up the approval for this command; without one, note the request. Look at the `status` of what comes back.

    `used`: go on. `pending`: it waits, and was perhaps requested only now (`requested_at` is `now`).
    Raises ApprovalError, FileBusyError, OSError.
    """
    path = _approvals_path(settings)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file_lock(path):
        approvals = read_approvals(settings)
        found = approvals.find(digest=digest, requested_by=operator.name, now=now)
        if found is None:
            found = request_approval(
                approval_id=secrets.token_hex(4),
                permission=permission,
                command=command,
                digest=digest,
                operator=operator,
                now=now,
                hours=settings.operators.approval_hours,
            )
            approvals = approvals.with_request(found)
        elif found.status is ApprovalStatus.APPROVED:
            approvals = approvals.use(found)
        replace_file(path, encode_approvals(approvals))
        return approvals.named(found.id)


def decide_approval(
    settings: Settings, approval_id: str, operator: Operator, *, approve: bool, now: datetime
) -> Approval:
    """Approve or reject a request. Raises ApprovalError, FileBusyError, OSError."""
    path = _approvals_path(settings)
    if not path.exists():
        raise ApprovalError(f"there is no request {approval_id!r}, nor any other")
    with file_lock(path):
        approvals = read_approvals(settings).decide(approval_id, operator, approve=approve, now=now)
        replace_file(path, encode_approvals(approvals))
        return approvals.named(approval_id)


def record_event(settings: Settings, event: AuditEvent) -> str | None:
    """Write an audit record of a command, through the running gateway if one runs; return what went wrong, or None.

    The gateway takes only the events that `io.gateway.commands.RECORDABLE` lists.
    """
    from dicomward.audit.encode_json import event_members
    from dicomward.io.audit.log import AuditLogBusyError, AuditLogError, append_offline
    from dicomward.io.control import ControlError, call

    try:
        append_offline(settings.audit.directory, event)
    except AuditLogBusyError:
        try:
            do = "audit-accessed" if isinstance(event, AuditAccessed) else "record"
            request: dict[str, object] = {"do": do, "code": event.code, "audit": event_members(event)}
            answer = call(settings.gateway.state_directory, request, _ANSWER_SECONDS)
        except ControlError as error:
            return str(error)
        if answer is None:
            return "no gateway answered"
        return None if answer.get("ok") is True else str(answer.get("error"))
    except (AuditLogError, OSError) as error:
        return str(error)
    return None
