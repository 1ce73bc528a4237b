"""What operators see of budgets, and how they set them back: with a running gateway and without one."""

import sqlite3
from pathlib import Path
from typing import Final

from dicomward.audit.event import BudgetReset
from dicomward.identity.registry import RegistrySnapshot
from dicomward.io.audit.log import AuditLogBusyError, AuditLogError, append_offline
from dicomward.io.control import Answer, ControlError, call
from dicomward.io.protection.budgets import FILE_NAME, BudgetClock, BudgetDatabase, BudgetStore
from dicomward.limits.budgets import BudgetBook, Holder, Usage
from dicomward.settings import Settings
from dicomward.vocab.principal import Role

ANSWER_SECONDS: Final = 5.0


class BudgetViewError(Exception):
    """Budgets can't be shown or reset; the message says why and what to do."""


def holder_of(registry: RegistrySnapshot, name: str) -> Holder:
    """Return a registered device or archive with its role; who is registered no more has none."""
    device = registry.device_by_name(name)
    if device is not None:
        return Holder(name, device.role)
    return Holder(name, Role.ARCHIVE.value if registry.archive_by_name(name) is not None else "")


def show_budgets(store: BudgetStore, registry: RegistrySnapshot, device: str | None) -> Answer:
    """Return what a device, or everybody who has used anything, has used."""
    names = [device] if device is not None else store.devices()
    holders = [holder_of(registry, name) for name in names]
    return {"ok": True, "devices": [_lines(holder, store.usage(holder)) for holder in holders]}


def _lines(holder: Holder, usage: tuple[Usage, ...]) -> dict[str, object]:
    return {
        "device": holder.device,
        "role": holder.role,
        "budgets": [
            {
                "measure": each.measure.value,
                "period": each.span.label,
                "used": each.used,
                "budget": each.budget,
                "level": each.level.name.lower(),
            }
            for each in usage
        ],
    }


def read_budgets(settings: Settings, registry: RegistrySnapshot, device: str | None) -> list[dict[str, object]]:
    """Return what `show_budgets` returns for devices, from the running gateway or from the file."""
    answer = _ask(settings, {"do": "budget-show", "device": device})
    if answer is not None:
        devices = answer.get("devices")
        return devices if isinstance(devices, list) else []
    book, now = BudgetBook(settings.budgets), BudgetClock().now()
    path = settings.gateway.state_directory / FILE_NAME
    if path.exists():
        try:
            database = BudgetDatabase(path)
            try:
                book.load(database.rows(), now)
            finally:
                database.close()
        except (sqlite3.Error, ValueError) as error:
            raise BudgetViewError(_unreadable(path, error)) from error
    holders = [holder_of(registry, name) for name in ([device] if device is not None else book.devices())]
    return [_lines(holder, book.usage(holder, now)) for holder in holders]


def reset_budget(settings: Settings, device: str, operator: str) -> bool:
    """Forget what a device has used, and record it; False if it had used nothing. Raises BudgetViewError."""
    answer = _ask(settings, {"do": "budget-reset", "device": device, "audit": {"operator": operator}})
    if answer is not None:
        return answer.get("had_used") is True
    path = settings.gateway.state_directory / FILE_NAME
    had_used = False
    try:
        # The record comes first: a reset that nobody can find must not happen.
        append_offline(settings.audit.directory, BudgetReset(operator=operator, action="reset", device=device))
        if path.exists():
            database = BudgetDatabase(path)
            try:
                had_used = any(row.device == device for row in database.rows())
                database.put((), (device,))
            finally:
                database.close()
    except AuditLogBusyError as error:
        raise BudgetViewError("a gateway is starting or stopping just now; repeat the command") from error
    except (sqlite3.Error, ValueError) as error:
        raise BudgetViewError(_unreadable(path, error)) from error
    except (AuditLogError, OSError) as error:
        raise BudgetViewError(f"nothing was reset: the audit log can't take the record of it: {error}") from error
    return had_used


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path} can't be used: {error}. Repair it, or move it away: then all budgets begin anew"


def _ask(settings: Settings, request: dict[str, object]) -> Answer | None:
    """Ask the running gateway; None if none runs. Raises BudgetViewError."""
    try:
        answer = call(settings.gateway.state_directory, request, ANSWER_SECONDS)
    except ControlError as error:
        raise BudgetViewError(f"{error}; repeat the command") from error
    if answer is not None and answer.get("ok") is not True:
        raise BudgetViewError(f"the gateway answered: {answer.get('error') or answer}")
    return answer
