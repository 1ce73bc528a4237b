"""`dicomward approval list | approve | reject`."""

import argparse
from typing import TYPE_CHECKING

from dicomward.cli.common import (
    RefusedError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    now,
    print_json,
    print_table,
    require,
    warn,
)

if TYPE_CHECKING:
    from dicomward.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = (
        "What needs a second operator waits here. After the approval, the first one types the same command again."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, text in (
        ("list", "list what waits for a second operator"),
        ("approve", "let another operator do what was asked for, once"),
        ("reject", "refuse it; who asked may take it back like this as well"),
    ):
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if action == "list":
            child.add_argument("--all", action="store_true", help="also what is decided, used or over")
        else:
            child.add_argument("id", metavar="ID", help="the request, as `approval list` shows it")
        add_config_argument(child)
        add_operator_argument(child)
        add_json_argument(child)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    settings = load_settings_of(args)
    return _list(args, settings) if args.action == "list" else _decide(args, settings)


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.approvals import ApprovalError, ApprovalStatus, approval_to_json
    from dicomward.identity.operators import Permission
    from dicomward.io.people.operators import read_approvals

    require(args, Permission.VIEW, settings=settings)
    try:
        approvals = read_approvals(settings)
    except (ApprovalError, OSError) as error:
        raise RefusedError(str(error)) from error
    moment = now()
    shown = [
        (each, status)
        for each in approvals.entries
        if (status := each.status_at(moment)) in (ApprovalStatus.PENDING, ApprovalStatus.APPROVED) or args.all
    ]
    if args.json:
        print_json([approval_to_json(each, status) for each, status in shown])
        return 0
    rows = [
        (
            each.id,
            status.value,
            each.requested_by,
            each.decided_by or "-",
            f"{each.expires_at.astimezone():%Y-%m-%d %H:%M}",
            each.command,
        )
        for each, status in shown
    ]
    print_table(("ID", "STATUS", "BY", "DECIDED BY", "UNTIL", "COMMAND"), rows)
    return 0


def _decide(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.audit.event import ApprovalChanged
    from dicomward.identity.approvals import ApprovalError, approval_to_json
    from dicomward.identity.operators import OperatorError, Permission
    from dicomward.io.people.operators import decide_approval, read_operators, record_event
    from dicomward.io.private_file import FileBusyError

    name = require(args, Permission.APPROVE, settings=settings)
    try:
        operators = read_operators(settings)
        operator = operators.named(name) if operators is not None else None
        if operator is None:
            raise RefusedError("there is only one operator, so there is no second one; see: dicomward operator add")
        approval = decide_approval(settings, args.id, operator, approve=args.action == "approve", now=now())
    except (ApprovalError, FileBusyError, OperatorError) as error:
        raise RefusedError(str(error)) from error
    event = ApprovalChanged(
        operator=name,
        action=approval.status.value,
        detail=f"{approval.id}: {approval.command}; requested by {approval.requested_by}",
    )
    problem = record_event(settings, event)
    if args.json:
        print_json(approval_to_json(approval, approval.status))
    else:
        print(f"{approval.id} is {approval.status}: {approval.command}")
        if args.action == "approve":
            print(f"{approval.requested_by} can type the command again, once")
    if problem is not None:
        warn(f"this is done, but not in the audit log: {problem}")
    return 0 if problem is None else 1
