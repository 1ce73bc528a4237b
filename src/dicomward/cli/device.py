"""`dicomward device`: its actions; `device_credential` and `device_moving` have the longer ones."""

import argparse
from typing import TYPE_CHECKING, Final

from dicomward.cli import (
    device_address,
    device_bundle,
    device_credential,
    device_invite,
    device_moving,
    device_renewal,
    device_sync,
)
from dicomward.cli.common import (
    RefusedError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    now,
    parse_when,
    print_json,
    print_table,
    require,
)
from dicomward.cli.registry_command import (
    applied_to_json,
    change_to_json,
    describe_applied,
    describe_history,
    make_change,
    principal_to_json,
    read_history,
    read_registry,
    require_view,
    unknown_name,
)

if TYPE_CHECKING:
    from datetime import datetime

    from dicomward.identity.registry import Device, RegistrySnapshot
    from dicomward.io.registry.store import RegistryStore
    from dicomward.settings import Settings

_MORE_ACTIONS: Final[dict[str, device_moving.Action]] = {
    **device_moving.ACTIONS,
    "address": device_moving.Action(
        "say where a device is called as an SCP", device_address.describe, device_address.run
    ),
}
_STATUS_COMMANDS: Final = {
    "suspend": ("suspended", "suspend a device until it is resumed; its open associations are aborted"),
    "resume": ("active", "let a suspended device work again"),
    "revoke": ("revoked", "end a device and its certificates for good; its open associations are aborted"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = "Register devices, and end them. A command returns when its change is in force."
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    child = actions.add_parser("add", help="register a device", description="Register a device.")
    device_credential.describe_add(child)
    _describe_common(child)
    for action, text, describe in (
        ("invite", "print a one-time code with which a device gets its certificate", device_invite.describe),
        ("confirm", "let a new or replaced credential do more than C-ECHO; for a second person", _describe_name),
        ("bundle", "make a key and certificate in one PKCS#12 file", device_bundle.describe),
    ):
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        describe(child)
        _describe_common(child)
    text = "give a device a new key and certificate"
    child = actions.add_parser("renew", help=text, description=f"{text[0].upper()}{text[1:]}.")
    child.add_argument("name", metavar="NAME", help="its registered name")
    device_credential.describe_renew(child)
    _describe_common(child)
    for action, (_status, text) in _STATUS_COMMANDS.items():
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        child.add_argument("name", metavar="NAME", help="its registered name")
        _describe_common(child)
    for action, text, describe in (
        ("renewal", "decide about a renewal that is held", device_renewal.describe_renewal),
        ("sync", "bring into force what an enrolment server elsewhere has stored", device_sync.describe),
        (
            "compromised",
            "revoke all certificates of a device, which stays registered",
            device_renewal.describe_compromised,
        ),
    ):
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        describe(child)
        _describe_common(child)
    for action, move in _MORE_ACTIONS.items():
        child = actions.add_parser(action, help=move.help, description=f"{move.help[0].upper()}{move.help[1:]}.")
        move.describe(child)
        _describe_common(child)
    for action, text in (("list", "list all devices"), ("show", "show one device and its history")):
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if action == "show":
            child.add_argument("name", metavar="NAME", help="its registered name")
        else:
            child.add_argument("--plaintext", action="store_true", help="only those that may call in plaintext")
            child.add_argument(
                "--expiring",
                metavar="TIME",
                help="only those whose last certificate ends within TIME (30d, 12h, 2027-03-31) or has ended",
            )
        _describe_common(child)


def _describe_common(parser: argparse.ArgumentParser) -> None:
    add_config_argument(parser)
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    settings = load_settings_of(args)
    match args.action:
        case "add":
            return device_credential.add(args, settings)
        case "invite":
            return device_invite.run(args, settings)
        case "confirm":
            return _confirm(args, settings)
        case "bundle":
            return device_bundle.run(args, settings)
        case "renew":
            return device_credential.renew(args, settings)
        case "list":
            return _list(args, settings)
        case "show":
            return _show(args, settings)
        case "renewal":
            return device_renewal.renewal(args, settings)
        case "sync":
            return device_sync.run(args, settings)
        case "compromised":
            return device_renewal.compromised(args, settings)
        case action if action in _MORE_ACTIONS:
            return _MORE_ACTIONS[action].run(args, settings)
        case _:
            return _set_status(args, settings)


def _describe_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="its registered name")


# --- the others ------------------------------------------------------------------------------------------------------


def _set_status(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission
    from dicomward.identity.registry import DeviceStatus

    status = DeviceStatus(_STATUS_COMMANDS[args.action][0])
    permission = Permission.DEVICE_RESUME if status is DeviceStatus.ACTIVE else Permission.DEVICE_SUSPEND
    operator = require(args, permission, settings=settings)

    def change(store: "RegistryStore") -> "RegistrySnapshot":
        return store.set_device_status(args.name, status, by=operator, at=now())

    applied = make_change(settings, change)
    if args.json:
        print_json({"name": args.name, "status": status.value, **applied_to_json(applied)})
    else:
        print(f"device {args.name} is {status.value}; {describe_applied(applied)}")
    return 0


def _confirm(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.cli.enrolment import in_store
    from dicomward.identity.operators import Permission
    from dicomward.io.enrolment.invitation_store import all_invitations, all_waiting

    operator = require(args, Permission.DEVICE_RESUME, settings=settings)
    invitations, waiting = in_store(settings, lambda connection: (all_invitations(connection), all_waiting(connection)))
    first = {each.invitation.created_by for each in invitations if each.invitation.grant.device == args.name}
    first |= {each.decided_by for each in waiting if each.granted is not None and each.granted.device == args.name}
    first |= {change.operator for change in read_history(settings, args.name) if change.action == "enrol-device"}
    if operator in first:
        raise RefusedError(
            f"{operator} has let {args.name} in; a second person has to look at the device and confirm it"
        )
    applied = make_change(settings, lambda store: store.confirm_device(args.name, by=operator, at=now()))
    if args.json:
        print_json({"name": args.name, "state": "confirmed", **applied_to_json(applied)})
    else:
        print(f"device {args.name} is confirmed; {describe_applied(applied)}")
    return 0


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    require_view(args, settings)
    devices = read_registry(settings).devices
    if args.plaintext:
        devices = tuple(device for device in devices if device.legacy_zone)
    if args.expiring is not None:
        limit = parse_when(args.expiring, now())
        ending = [(end, device) for device in devices if device.is_active and (end := _end(device)) is not None]
        devices = tuple(device for end, device in sorted(ending, key=lambda each: each[0]) if end <= limit)
    if args.json:
        print_json([principal_to_json(device) for device in devices])
        return 0
    header = ["NAME", "AE TITLES", "ROLE", "SITE", "NETWORKS", "STATUS", "CERTIFICATE UNTIL"]
    rows = [
        [
            device.name,
            ",".join(device.ae_titles),
            device.role,
            device.site or "-",
            ",".join(device.networks),
            device.status.value,
            _ends(device),
        ]
        for device in devices
    ]
    standings = [_standing(device) for device in devices]
    if any(standing != "-" for standing in standings):
        header.append("MOVING OVER")
        rows = [[*row, standing] for row, standing in zip(rows, standings, strict=True)]
    print_table(header, rows)
    return 0


def _end(device: "Device") -> "datetime | None":
    """Return when its last certificate ends."""
    return max((record.not_after for record in device.certificates if record.status == "active"), default=None)


def _ends(device: "Device") -> str:
    """Return the day on which its last certificate ends."""
    end = _end(device)
    return f"{end:%Y-%m-%d}" if end is not None else "-"


def _standing(device: "Device") -> str:
    """Say what is special while it moves over from plaintext."""
    parts = []
    if device.legacy_zone:
        parts.append(f"plaintext in {device.legacy_zone}{' always' if device.legacy_always else ''}")
    if device.observe_until is not None and device.is_observed(now()):
        parts.append(f"observed until {device.observe_until.astimezone():%Y-%m-%d %H:%M}")
    return ", ".join(parts) or "-"


def _show(args: argparse.Namespace, settings: "Settings") -> int:
    require_view(args, settings)
    snapshot = read_registry(settings)
    device = snapshot.device_by_name(args.name)
    if device is None:
        raise unknown_name("device", args.name, [each.name for each in snapshot.devices])
    history = read_history(settings, device.name)
    if args.json:
        print_json({**principal_to_json(device), "history": [change_to_json(change) for change in history]})
        return 0
    from dicomward.settings import ListenAddress

    address = device.address
    where = str(ListenAddress(host=address.host, port=address.port)) if address else "-"
    where = "its edge agent's reverse connections" if device.reverse else where
    print(f"device {device.name}: {device.status.value}")
    print(f"  AE titles    {', '.join(device.ae_titles)}")
    print(f"  role         {device.role}")
    print(f"  site         {device.site or '-'}")
    print(f"  calls from   {', '.join(device.networks)}")
    print(f"  listens at   {where}{' (plaintext)' if device.plain else ''}")
    print(f"  moving over  {_standing(device)}")
    for record in device.certificates:
        print(f"  certificate  {record.sha256}")
        print(f"               {record.status}, {record.not_before:%Y-%m-%d} to {record.not_after:%Y-%m-%d}")
    print("history")
    print("\n".join(describe_history(history)))
    return 0
