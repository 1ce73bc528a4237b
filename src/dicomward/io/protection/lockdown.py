"""The lockdown on disk, and its way into a running gateway. docs/standard-audit.md tells operators about it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomward.audit.event import LockdownChanged
from dicomward.identity.lockdown import Lockdown, LockdownError, LockedSite, decode_lockdown, encode_lockdown
from dicomward.io.audit.log import AuditLogBusyError, AuditLogError, append_offline
from dicomward.io.control import ControlError, call
from dicomward.io.private_file import file_lock, replace_file
from dicomward.settings import Settings

LOCKDOWN_NAME: Final = "lockdown.json"
LOCK: Final = "lock"
LIFT: Final = "lift"
_ANSWER_SECONDS: Final = 5.0


class LockdownNotInForceError(Exception):
    """The change is stored, but the gateway may not know of it; the message says what to do."""


def read_lockdown(state_directory: Path) -> Lockdown:
    """Return what is locked. Raises LockdownError for a file that can't be read: then everything must be."""
    path = state_directory / LOCKDOWN_NAME
    try:
        return decode_lockdown(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Lockdown()
    except (OSError, UnicodeDecodeError, LockdownError) as error:
        raise LockdownError(
            f"{path} can't be used: {error}. "
            "Until it is repaired or moved away, only the clinical floor is left everywhere"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class LockdownApplied:
    """A change that is in force: did it change anything, does a gateway run, how many associations it ended."""

    changed: bool
    gateway_runs: bool
    aborted: int


def change_lockdown(
    settings: Settings, site: str, operator: str, *, reason: str, now: str, lift: bool
) -> LockdownApplied:
    """Lock a site, or lift its lockdown; in force and on record when this returns.

    Raises LockdownError, LockdownNotInForceError, FileBusyError, OSError.
    """
    directory = settings.gateway.state_directory
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / LOCKDOWN_NAME
    with file_lock(path):
        before = read_lockdown(directory)
        locked = LockedSite(since=now, operator=operator, reason=reason)
        after = before.without(site) if lift else before.with_site(site, locked)
        replace_file(path, encode_lockdown(after))
    told = _tell_gateway(settings, site, operator, reason, lift=lift)
    if told is None:
        _record(settings, site, operator, reason, lift=lift)
    return LockdownApplied(changed=after.sites != before.sites, gateway_runs=told is not None, aborted=told or 0)


def _tell_gateway(settings: Settings, site: str, operator: str, reason: str, *, lift: bool) -> int | None:
    """Put it in force in the running gateway; return how many associations it ended, None if none runs."""
    audit: dict[str, object] = {"operator": operator, "action": LIFT if lift else LOCK, "site": site, "detail": reason}
    try:
        answer = call(settings.gateway.state_directory, {"do": "lockdown-changed", "audit": audit}, _ANSWER_SECONDS)
    except ControlError as error:
        raise LockdownNotInForceError(_not_in_force(str(error))) from error
    if answer is None:
        return None
    if answer.get("ok") is not True:
        raise LockdownNotInForceError(_not_in_force(f"the gateway answered: {answer.get('error') or answer}"))
    aborted = answer.get("aborted")
    return aborted if isinstance(aborted, int) else 0


def _record(settings: Settings, site: str, operator: str, reason: str, *, lift: bool) -> None:
    event = LockdownChanged(operator=operator, action=LIFT if lift else LOCK, site=site, detail=reason or None)
    try:
        append_offline(settings.audit.directory, event)
    except AuditLogBusyError as error:
        raise LockdownNotInForceError(_not_in_force("a gateway is starting or stopping just now")) from error
    except (AuditLogError, OSError) as error:
        raise LockdownNotInForceError(
            f"the change is stored, and the next start uses it, but it is not in the audit log: {error}"
        ) from error


def _not_in_force(why: str) -> str:
    return (
        f"the change is stored, but it may not be in force: {why}. "
        "Repeat the command; if that fails too, restart the gateway"
    )


def lockdown_or_everything(state_directory: Path) -> tuple[Lockdown, str | None]:
    """Return what is locked and, where that can't be known, everything together with the reason."""
    try:
        return read_lockdown(state_directory), None
    except LockdownError as error:
        return Lockdown(everywhere=True), str(error)
