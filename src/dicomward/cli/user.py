"""`dicomward user add | list | passcode | remove`: persons of the local passcode file."""

import argparse
import getpass
import sys
from pathlib import Path
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
    from dicomward.identity.passcodes import Passcodes
    from dicomward.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = (
        "Persons who sit at devices, with passcodes of the gateway's own. A running gateway uses a change at once. "
        "The passcode is typed, or comes from a file or on standard input: never on the command line."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, text in (
        ("list", "list the persons of the passcode file"),
        ("add", "add a person with a passcode"),
        ("passcode", "give a person another passcode"),
        ("remove", "remove a person"),
    ):
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if action != "list":
            child.add_argument("name", metavar="NAME", help="the username that devices send")
        if action == "add":
            child.add_argument(
                "--group", metavar="GROUP", action="append", default=[], help="a group that rules can name"
            )
        if action in ("add", "passcode"):
            child.add_argument(
                "--passcode-file", metavar="FILE", type=Path, help="read the passcode from here (default: ask for it)"
            )
        add_config_argument(child)
        add_operator_argument(child)
        add_json_argument(child)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    settings = load_settings_of(args)
    return _list(args, settings) if args.action == "list" else _change(args, settings)


def _read(settings: "Settings") -> "Passcodes":
    from dicomward.identity.passcodes import PasscodesError
    from dicomward.io.people.file import read_passcodes

    try:
        return read_passcodes(settings.people.passcodes)
    except PasscodesError as error:
        raise UsageError(str(error)) from error


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission

    require(args, Permission.VIEW, settings=settings)
    entries = _read(settings).entries
    if args.json:
        print_json([{"name": each.name, "groups": list(each.groups)} for each in entries])
    else:
        print_table(("NAME", "GROUPS"), [(each.name, ",".join(each.groups) or "-") for each in entries])
    return 0


def _change(args: argparse.Namespace, settings: "Settings") -> int:
    import os

    from dicomward.audit.event import OperatorsChanged
    from dicomward.identity.operators import Permission
    from dicomward.identity.passcodes import SALT_BYTES, PasscodeRecord, PasscodesError, hash_passcode
    from dicomward.io.people.file import write_passcodes
    from dicomward.io.people.operators import record_event
    from dicomward.io.private_file import FileBusyError, file_lock

    by = require(args, Permission.USER_CHANGE, settings=settings)
    try:
        if args.action == "add":
            PasscodeRecord(name=args.name, hash="", groups=tuple(args.group))
        passcode_hash = hash_passcode(_passcode(args), os.urandom(SALT_BYTES)) if args.action != "remove" else ""
        with file_lock(settings.people.passcodes):
            passcodes = _read(settings)
            if args.action != "add" and passcodes.named(args.name) is None:
                known = [each.name for each in passcodes.entries]
                raise RefusedError(f"there is no person {args.name!r}; {nearest(args.name, known)}")
            match args.action:
                case "add":
                    record = PasscodeRecord(name=args.name, hash=passcode_hash, groups=tuple(args.group))
                    passcodes, done = passcodes.with_person(record), f"person {args.name} added"
                case "passcode":
                    passcodes, done = passcodes.with_hash(args.name, passcode_hash), f"person {args.name} changed"
                case _:
                    passcodes, done = passcodes.without(args.name), f"person {args.name} removed"
            write_passcodes(settings.people.passcodes, passcodes)
    except (PasscodesError, FileBusyError) as error:
        raise RefusedError(str(error)) from error
    problem = record_event(settings, OperatorsChanged(operator=by, action=f"{args.action}-user", person=args.name))
    if args.json:
        print_json({"name": args.name, "action": args.action})
    else:
        print(f"{done}; open associations go on")
    if problem is not None:
        warn(f"this is done, but not in the audit log: {problem}")
    return 0 if problem is None else 1


def _passcode(args: argparse.Namespace) -> bytes:
    """Return the new passcode. Raises UsageError, RefusedError, PasscodesError."""
    from dicomward.identity.passcodes import verify_new_passcode

    path: Path | None = args.passcode_file
    if path is not None:
        try:
            text = path.read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} can't be read: {error}") from error
        passcode = text.rstrip("\r\n")
    elif sys.stdin.isatty():
        passcode = getpass.getpass(f"passcode for {args.name}: ")
        if getpass.getpass("once more: ") != passcode:
            raise RefusedError("the two are not the same; nothing was changed")
    else:
        passcode = sys.stdin.readline().rstrip("\r\n")
    encoded = passcode.encode()
    verify_new_passcode(encoded)
    return encoded
