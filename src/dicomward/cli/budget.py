"""`dicomward budget show | reset`: what devices have taken out of the archives."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    print_json,
    print_table,
    require,
)
from dicomward.cli.registry_command import read_registry, unknown_name

if TYPE_CHECKING:
    from dicomward.identity.registry import RegistrySnapshot
    from dicomward.settings import Settings

_PERIODS: Final = {"hour": "hour", "day": "day", "30_days": "30 days"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = (
        "Show or set back what devices have taken out of the archives. It works with and without a gateway."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="what has been used of each budget")
    show.add_argument("--device", metavar="NAME", help="registered name of a device or archive (default: all)")
    reset = actions.add_parser("reset", help="let a device begin anew; it is recorded who did it")
    reset.add_argument("--device", metavar="NAME", required=True, help="registered name of a device or archive")
    for child in (show, reset):
        add_config_argument(child)
        add_operator_argument(child)
        add_json_argument(child)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    settings = load_settings_of(args)
    return _show(args, settings) if args.action == "show" else _reset(args, settings)


def _show(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission
    from dicomward.io.protection.budget_view import BudgetViewError, read_budgets

    require(args, Permission.VIEW, settings=settings)
    registry = read_registry(settings)
    _check_name(args.device, registry)
    try:
        devices = read_budgets(settings, registry, args.device)
    except BudgetViewError as error:
        raise RefusedError(str(error)) from error
    if args.json:
        print_json(devices[0] if args.device is not None else devices)
        return 0
    if not devices:
        print("nobody has taken anything out")
        return 0
    print_table(("DEVICE", "ROLE", "MEASURE", "PERIOD", "USED", "BUDGET", "%", "LEVEL"), _rows(devices))
    return 0


def _rows(devices: Sequence[dict[str, object]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for each in devices:
        budgets = each["budgets"]
        for line in budgets if isinstance(budgets, list) else ():
            rows.append(
                (
                    str(each["device"]),
                    str(each["role"]) or "-",
                    line["measure"],
                    _PERIODS[line["period"]],
                    f"{line['used']:,}",
                    f"{line['budget']:,}",
                    str(line["used"] * 100 // line["budget"]),
                    line["level"],
                )
            )
    return rows


def _reset(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission
    from dicomward.io.protection.budget_view import BudgetViewError, reset_budget

    _check_name(args.device, read_registry(settings))
    operator = require(args, Permission.BUDGET_RESET, settings=settings)
    try:
        had_used = reset_budget(settings, args.device, operator)
    except BudgetViewError as error:
        raise RefusedError(str(error)) from error
    if args.json:
        print_json({"device": args.device, "had_used": had_used})
    elif had_used:
        print(f"budgets of {args.device} are reset")
    else:
        print(f"budgets of {args.device} are reset; it had used nothing")
    return 0


def _check_name(name: str | None, registry: "RegistrySnapshot") -> None:
    """Raise for a name that the registry doesn't know."""
    if name is None:
        return
    if not name:
        raise UsageError("--device wants the registered name of a device or archive")
    if registry.device_by_name(name) is None and registry.archive_by_name(name) is None:
        known = [*(device.name for device in registry.devices), *(archive.name for archive in registry.archives)]
        raise unknown_name("device", name, known)
