"""A change of the registry from end to end: database, snapshot file, running gateway or audit log.

The database notes each change together with the change itself; what the audit log doesn't have yet is delivered by the
next command. So a crash between two steps loses nothing, and repeating a command is always safe.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from dicomward.audit.event import RegistryChanged
from dicomward.identity.registry import RegistrySnapshot
from dicomward.io.audit.log import AuditLogBusyError, AuditLogError, append_offline
from dicomward.io.control import ControlError, call
from dicomward.io.registry.store import RegistryChange, RegistryStore, snapshot_lock, write_snapshot
from dicomward.settings import Settings

# "At once" is a second; a gateway that needs five is in trouble, and the operator must know.
ANSWER_SECONDS: Final = 5.0
# Enrolments come in crowds; a message to the gateway has 64 KiB, and the audit log cuts longer details anyway.
MOST_TOLD: Final = 32
_MOST_DETAIL: Final = 1024


class NotInForceError(Exception):
    """The change is stored, but somebody may not know of it yet; the message says who and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A change that is in force. `aborted` associations were ended for it by the running gateway, if one runs."""

    snapshot: RegistrySnapshot
    gateway_runs: bool
    aborted: int


def apply_change(
    settings: Settings, change: Callable[[RegistryStore], RegistrySnapshot], *, create: bool = False
) -> Applied:
    """Make one change and return when it is in force.

    Raises RegistryError (refused, nothing changed), RegistryStoreError, NotInForceError, OSError.
    """
    with (
        snapshot_lock(settings.registry.snapshot),
        RegistryStore.open(settings.registry.url, create=create) as store,
    ):
        return put_in_force(settings, store, change(store))


def put_in_force(settings: Settings, store: RegistryStore, snapshot: RegistrySnapshot) -> Applied:
    """Write what was stored to the snapshot file, let the running gateway use it, and record it.

    The caller holds the lock of the snapshot file. Raises RegistryStoreError, NotInForceError, OSError.
    """
    path = settings.registry.snapshot
    try:
        write_snapshot(path, snapshot)
    except OSError as error:
        raise NotInForceError(
            f"the change is stored (revision {snapshot.revision}), but it is not in force: "
            f"{path} can't be written ({error.strerror}). Repair that, then repeat the command"
        ) from error
    gateway_runs, aborted = False, 0
    waiting = store.unaudited_changes()
    for first in range(0, len(waiting), MOST_TOLD):
        several = waiting[first : first + MOST_TOLD]
        told = _tell_gateway(settings, several)
        if told is None:
            _record(settings, several)
        else:
            gateway_runs, aborted = True, aborted + told
        store.mark_audited(*(each.revision for each in several))
    return Applied(snapshot=snapshot, gateway_runs=gateway_runs, aborted=aborted)


def _tell_gateway(settings: Settings, changes: Sequence[RegistryChange]) -> int | None:
    """Let the running gateway use and record changes; return how many associations it ended, None if none runs."""
    *earlier, last = (
        {
            "operator": each.operator,
            "action": each.action,
            "device": each.device,
            "archive": each.archive,
            "detail": each.detail[:_MOST_DETAIL] or None,
            "registry_revision": each.revision,
        }
        for each in changes
    )
    request: dict[str, object] = {"do": "registry-changed", "audit": last}
    if earlier:
        request["earlier"] = earlier
    change = changes[-1]
    try:
        answer = call(settings.gateway.state_directory, request, ANSWER_SECONDS)
    except ControlError as error:
        raise NotInForceError(_not_in_force(change, str(error))) from error
    if answer is None:
        return None
    if answer.get("ok") is not True:
        raise NotInForceError(_not_in_force(change, f"the gateway answered: {answer.get('error') or answer}"))
    aborted = answer.get("aborted")
    return aborted if isinstance(aborted, int) else 0


def _record(settings: Settings, changes: Sequence[RegistryChange]) -> None:
    """Write the audit records of changes while no gateway runs."""
    events = [
        RegistryChanged(
            operator=each.operator,
            action=each.action,
            device=each.device,
            archive=each.archive,
            detail=each.detail or None,
            registry_revision=each.revision,
        )
        for each in changes
    ]
    change = changes[-1]
    try:
        append_offline(settings.audit.directory, *events)
    except AuditLogBusyError as error:
        raise NotInForceError(_not_in_force(change, "a gateway is starting or stopping just now")) from error
    except (AuditLogError, OSError) as error:
        raise NotInForceError(
            f"the change is stored (revision {change.revision}), and the next start uses it, "
            f"but it is not in the audit log: {error}. Repair that, then repeat the command"
        ) from error


def _not_in_force(change: RegistryChange, why: str) -> str:
    return (
        f"the change is stored (revision {change.revision}), but it may not be in force: {why}. "
        "Repeat the command; if that fails too, restart the gateway"
    )
