"""What the commands `device` and `archive` share: making a change, reading the registry, saying what happened."""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from dicomward.cli.common import RefusedError, nearest, require

if TYPE_CHECKING:
    from dicomward.identity.registry import Archive, Device, RegistrySnapshot
    from dicomward.io.registry.change import Applied
    from dicomward.io.registry.store import RegistryChange, RegistryStore
    from dicomward.settings import Settings

_Result = TypeVar("_Result")


class StoredError(RefusedError):
    """The change is stored, but perhaps not in force: what was made for it must stay."""


def make_change(settings: "Settings", change: "Callable[[RegistryStore], RegistrySnapshot]") -> "Applied":
    """Make a change and return when it is in force. Raises RefusedError, StoredError."""
    from dicomward.identity.registry import RegistryError
    from dicomward.io.registry.change import NotInForceError, apply_change
    from dicomward.io.registry.store import RegistryStoreError, UnknownNameError

    try:
        return apply_change(settings, change)
    except NotInForceError as error:
        raise StoredError(str(error)) from error
    except UnknownNameError as error:
        raise RefusedError(f"{error}; {nearest(error.name, error.known)}") from error
    except (RegistryError, RegistryStoreError) as error:
        raise RefusedError(str(error)) from error


def require_view(args: argparse.Namespace, settings: "Settings") -> str:
    """Return the operator's name, if it may look. Raises RefusedError."""
    from dicomward.identity.operators import Permission

    return require(args, Permission.VIEW, settings=settings)


def read_registry(settings: "Settings") -> "RegistrySnapshot":
    """Return the registry as the database has it. Raises RefusedError."""
    return _read(settings, lambda store: store.read())


def read_history(settings: "Settings", name: str) -> "tuple[RegistryChange, ...]":
    """Return the changes of a device or archive. Raises RefusedError."""
    return _read(settings, lambda store: store.changes_of(name))


def _read(settings: "Settings", read: "Callable[[RegistryStore], _Result]") -> _Result:
    from dicomward.identity.registry import RegistryError
    from dicomward.io.registry.store import RegistryStore, RegistryStoreError

    try:
        with RegistryStore.open(settings.registry.url) as store:
            return read(store)
    except (RegistryError, RegistryStoreError) as error:
        raise RefusedError(str(error)) from error


def unknown_name(kind: str, name: str, known: Sequence[str]) -> RefusedError:
    """Return the error for a name that isn't registered."""
    return RefusedError(f"there is no {kind} {name!r}; {nearest(name, known)}")


def principal_to_json(principal: "Device | Archive") -> dict[str, object]:
    """Return a device or archive as the snapshot file has it."""
    from dicomward.identity.registry import Device, RegistrySnapshot
    from dicomward.identity.registry_json import encode_snapshot

    if isinstance(principal, Device):
        snapshot = RegistrySnapshot(devices=(principal,), archives=(), revision=0)
        kind = "devices"
    else:
        snapshot = RegistrySnapshot(devices=(), archives=(principal,), revision=0)
        kind = "archives"
    value: dict[str, object] = json.loads(encode_snapshot(snapshot))[kind][0]
    return value


def change_to_json(change: "RegistryChange") -> dict[str, object]:
    """Return an entry of the history."""
    return {
        "revision": change.revision,
        "at": change.at.isoformat(),
        "operator": change.operator,
        "action": change.action,
        "detail": change.detail,
    }


def applied_to_json(applied: "Applied") -> dict[str, object]:
    """Return what making a change did."""
    return {
        "revision": applied.snapshot.revision,
        "gateway_runs": applied.gateway_runs,
        "aborted_associations": applied.aborted,
    }


def describe_applied(applied: "Applied") -> str:
    """Say what making a change did."""
    revision = f"registry revision {applied.snapshot.revision}"
    if not applied.gateway_runs:
        return f"{revision}; no gateway runs here, the next start uses it"
    return f"{revision}; in force, {applied.aborted} open associations aborted"


def describe_history(history: "Sequence[RegistryChange]") -> list[str]:
    """Return one line for each change, with local times."""
    return [
        f"  {change.at.astimezone():%Y-%m-%d %H:%M:%S%z} {change.operator}: {change.action}"
        + (f" ({change.detail})" if change.detail else "")
        for change in history
    ]
