"""`dicomward audit prune | status`: how much of the log is kept, and how far it has got to those who receive it."""

import argparse
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import RefusedError, UsageError, load_settings_of, now, print_json, print_table, require, warn

if TYPE_CHECKING:
    from dicomward.io.control import Answer
    from dicomward.settings import Settings

_SECONDS: Final = 30.0


def prune(args: argparse.Namespace) -> int:
    """Remove what is older than the retention, through the running gateway if one runs."""
    from dicomward.identity.operators import Permission

    settings = load_settings_of(args)
    days = args.days if args.days is not None else settings.audit.retention_days
    if not days:
        raise UsageError(
            "nothing says how long records are kept: give --days N, or set retention_days in [audit] (0 keeps them)"
        )
    if args.dry_run:
        return _show_plan(args, settings, days)
    operator = require(args, Permission.AUDIT_PRUNE, settings=settings)
    answer = _ask_gateway(settings, {"do": "audit-prune", "days": days, "audit": {"operator": operator}})
    if answer is None:
        answer = _prune_offline(settings, days, operator)
    if answer.get("ok") is not True:
        raise RefusedError(f"nothing was removed: {answer.get('error')}")
    _report(args, answer, "removed")
    return 0


def _ask_gateway(settings: "Settings", request: dict[str, object]) -> "Answer | None":
    from dicomward.io.control import ControlError, call

    try:
        return call(settings.gateway.state_directory, request, _SECONDS)
    except ControlError as error:
        raise RefusedError(f"the gateway runs but does not answer: {error}") from error


def _prune_offline(settings: "Settings", days: float, operator: str) -> "Answer":
    from dicomward.audit.event import AuditPruned
    from dicomward.io.audit.log import AuditLogBusyError, AuditLogError, append_offline
    from dicomward.io.audit.outlets import days_before
    from dicomward.io.audit.prune import COMMAND, PruneError, plan_prune, prune, trim_checkpoints

    audit = settings.audit
    moment = now()
    before = days_before(int(moment.timestamp() * 1e9), days)

    def record(event: AuditPruned) -> bool:
        append_offline(audit.directory, event)
        return True

    try:
        plan = plan_prune(audit.directory, before=before, destinations=audit.syslog)
        time = moment.isoformat(timespec="microseconds")[:26] + "Z"
        prune(audit.directory, plan, now=time, operator=operator, action=COMMAND, record=record)
        trim_checkpoints(audit.directory)
    except (AuditLogBusyError, AuditLogError, PruneError, OSError) as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, "records": plan.records, "segments": len(plan.segments), "held": plan.held}


def _show_plan(args: argparse.Namespace, settings: "Settings", days: float) -> int:
    from dicomward.identity.operators import Permission
    from dicomward.io.audit.outlets import days_before
    from dicomward.io.audit.prune import plan_prune

    require(args, Permission.VIEW, settings=settings)
    before = days_before(int(now().timestamp() * 1e9), days)
    plan = plan_prune(settings.audit.directory, before=before, destinations=settings.audit.syslog)
    answer = {"ok": True, "records": plan.records, "segments": len(plan.segments), "held": plan.held}
    _report(args, answer, "would be removed")
    return 0


def _report(args: argparse.Namespace, answer: "Answer", verb: str) -> None:
    if args.json:
        print_json({name: answer.get(name) for name in ("records", "segments", "held")})
        return
    print(f"{answer.get('records')} records in {answer.get('segments')} segments {verb}; only whole segments go")
    if answer.get("held"):
        warn(f"older records stay until syslog {answer['held']} has them")


def status(args: argparse.Namespace) -> int:
    """Print the headroom of the disk and how far each receiver has the log."""
    from dicomward.identity.operators import Permission

    settings = load_settings_of(args)
    require(args, Permission.VIEW, settings=settings)
    answer = _ask_gateway(settings, {"do": "audit-status"})
    if answer is None:
        raise RefusedError("no gateway runs here, so nothing is sent; `dicomward audit verify` checks the log")
    if answer.get("ok") is not True:
        raise RefusedError(f"the gateway answered: {answer.get('error')}")
    if args.json:
        print_json({name: value for name, value in answer.items() if name != "ok"})
        return 0
    hours = answer.get("headroom_hours")
    room = "not known yet" if hours is None else f"{hours} h"
    print(f"disk: {answer.get('free_bytes'):,} bytes free, {answer.get('bytes_per_hour'):,} bytes an hour")
    print(f"headroom: {room}")
    found = answer.get("destinations")
    rows = [
        [
            str(each.get("destination")),
            "yes" if each.get("connected") else "no",
            str(each.get("delivered")),
            str(each.get("backlog")),
            str(each.get("error")),
        ]
        for each in (found if isinstance(found, list) else [])
        if isinstance(each, dict)
    ]
    print_table(["DESTINATION", "CONNECTED", "DELIVERED", "BACKLOG", "ERROR"], rows)
    return 0
