"""`dicomward operator list | add | role | remove | whoami`."""

import argparse
import os
import pwd
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    nearest,
    print_json,
    print_table,
    require,
    warn,
)

if TYPE_CHECKING:
    from dicomward.identity.operators import Operator, Operators
    from dicomward.settings import Settings

_ROLES = ("viewer", "operator", "administrator")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = "Name the operators of this gateway. Their roles: viewer, operator, administrator."
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, text in (
        ("list", "list the operators and their roles"),
        ("whoami", "say which operator you are, and what you may do"),
        ("add", "add an operator"),
        ("role", "give an operator another role"),
        ("remove", "remove an operator"),
    ):
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if action in ("add", "role", "remove"):
            child.add_argument("name", metavar="NAME", help="the operator's name, as the audit log will show it")
        if action == "add":
            child.add_argument("--role", choices=_ROLES, required=True, help="what the operator may do")
            child.add_argument(
                "--user",
                metavar="UNIX-USER",
                action="append",
                help="the account that is this person; may be repeated (default: the one called NAME)",
            )
        if action == "role":
            child.add_argument("role", metavar="ROLE", choices=_ROLES, help="viewer, operator or administrator")
        add_config_argument(child)
        add_operator_argument(child)
        add_json_argument(child)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    from dicomward.identity.operators import Permission

    settings = load_settings_of(args)
    if args.action in ("list", "whoami"):
        name = require(args, Permission.VIEW, settings=settings)
        return _list(args, settings) if args.action == "list" else _whoami(args, settings, name)
    return _change(args, settings)


def _read(settings: "Settings") -> "Operators | None":
    from dicomward.identity.operators import OperatorError
    from dicomward.io.people.operators import read_operators

    try:
        return read_operators(settings)
    except OperatorError as error:
        raise UsageError(str(error)) from error


def _to_json(operator: "Operator") -> dict[str, object]:
    return {"name": operator.name, "role": operator.role.label, "users": list(operator.unix_users)}


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    operators = _read(settings)
    entries = operators.entries if operators is not None else ()
    if operators is None:
        warn("there are no operators yet: whoever may write this directory is an administrator; see docs/operators.md")
    if args.json:
        print_json([_to_json(each) for each in entries])
    else:
        rows = [(each.name, each.role.label, ",".join(each.unix_users) or "-") for each in entries]
        print_table(("NAME", "ROLE", "UNIX USERS"), rows)
    return 0


def _whoami(args: argparse.Namespace, settings: "Settings", name: str) -> int:
    from dicomward.identity.operators import Operator as _Operator
    from dicomward.identity.operators import OperatorRole, Permission

    operators = _read(settings)
    named = operators.named(name) if operators is not None else None
    operator = named or _Operator(name=name, role=OperatorRole.ADMINISTRATOR, unix_users=())
    permissions = [each.value for each in Permission if operator.may(each)]
    if args.json:
        print_json({"name": name, "role": operator.role.label, "permissions": permissions})
    else:
        print(f"{name}: {operator.role.label}; may {', '.join(permissions)}")
    return 0


def _warn_of_unknown(users: Sequence[str]) -> None:
    """Tell of accounts that aren't there: nobody could use the commands under them."""
    for user in users:
        try:
            pwd.getpwnam(user)
        except KeyError:
            warn(f"this machine has no Unix user {user!r} (yet); name the account with --user if it is another one")


def _change(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.audit.event import OperatorsChanged
    from dicomward.identity.operators import ROLE_BY_LABEL, Operator, OperatorError, OperatorRole, Operators, Permission
    from dicomward.io.people.operators import change_operators, record_event, unix_caller
    from dicomward.io.private_file import FileBusyError, file_lock

    by = require(args, Permission.OPERATOR_CHANGE, settings=settings)
    try:
        with file_lock(settings.operators.file):
            operators = _read(settings)
            if operators is None:
                # The first change names whoever makes it as well: nobody locks themselves out.
                me = unix_caller(settings.directory, os.environ).unix_user
                operators = Operators((Operator(name=by, role=OperatorRole.ADMINISTRATOR, unix_users=(me,)),))
            if args.action != "add" and operators.named(args.name) is None:
                known = [each.name for each in operators.entries]
                raise RefusedError(f"there is no operator {args.name!r}; {nearest(args.name, known)}")
            match args.action:
                case "add":
                    users = tuple(args.user) if args.user else (args.name,)
                    _warn_of_unknown(users)
                    operators = operators.with_operator(
                        Operator(name=args.name, role=ROLE_BY_LABEL[args.role], unix_users=users)
                    )
                case "role":
                    operators = operators.with_role(args.name, ROLE_BY_LABEL[args.role])
                case _:
                    operators = operators.without(args.name)
            change_operators(settings, operators)
    except (OperatorError, FileBusyError) as error:
        raise RefusedError(str(error)) from error
    changed = operators.named(args.name)
    done = f"operator {args.name} is {changed.role.label}" if changed is not None else f"operator {args.name} removed"
    event = OperatorsChanged(operator=by, action=f"{args.action}-operator", detail=done)
    problem = record_event(settings, event)
    if args.json:
        print_json({"name": args.name, "role": changed.role.label if changed is not None else None})
    else:
        print(done)
    if problem is not None:
        warn(f"this is done, but not in the audit log: {problem}")
    return 0 if problem is None else 1
