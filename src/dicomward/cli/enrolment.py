"""`dicomward enrolment serve | list | approve | reject | revoke`."""

import argparse
from typing import TYPE_CHECKING, TypeVar

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    now,
    print_json,
    print_table,
    require,
)
from dicomward.cli.grant_arguments import describe_grant, grant_from
from dicomward.cli.registry_command import read_registry, require_view, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from dicomward.io.enrolment.invitation_store import StoredInvitation, WaitingRequest
    from dicomward.settings import Settings


_Result = TypeVar("_Result")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the commands."""
    parser.description = "Run the enrolment server, and look after invitations and requests. docs/est.md"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, text in (
        ("serve", "run the enrolment server: EST and CMP over HTTPS"),
        ("list", "list invitations, and requests that wait for approval"),
        ("approve", "grant a waiting request what it gets"),
        ("reject", "refuse a waiting request"),
        ("revoke", "end the invitation of a device"),
    ):
        child = actions.add_parser(action, help=text, description=f"{text[0].upper()}{text[1:]}.")
        match action:
            case "list":
                child.add_argument("--all", action="store_true", help="also those that are over")
            case "approve":
                child.add_argument("id", metavar="ID", help="number of the request, from: dicomward enrolment list")
                child.add_argument("--name", metavar="NAME", help="name of the device (default: the CN of the request)")
                describe_grant(child)
            case "reject":
                child.add_argument("id", metavar="ID", help="number of the request, from: dicomward enrolment list")
            case "revoke":
                child.add_argument("name", metavar="NAME", help="name of the invited device")
        add_config_argument(child)
        if action != "serve":
            add_operator_argument(child)
            add_json_argument(child)


def run(args: argparse.Namespace) -> int:
    """Do one action; see main for exit codes."""
    settings = load_settings_of(args)
    match args.action:
        case "serve":
            return _serve(settings)
        case "list":
            return _list(args, settings)
        case "approve":
            return _decide(args, settings, approve=True)
        case "reject":
            return _decide(args, settings, approve=False)
        case _:
            return _revoke(args, settings)


def _serve(settings: "Settings") -> int:
    import signal
    import sys
    import threading

    from dicomward.io.ca.local import LocalCaError
    from dicomward.io.ca.terms import CaError
    from dicomward.io.enrolment.key import EnrolmentKeyError
    from dicomward.io.enrolment.server import EnrolmentServer, server_url
    from dicomward.io.logs import configure
    from dicomward.io.registry.store import RegistryStoreError

    configure(settings.logging.format, settings.logging.level)
    try:
        server = EnrolmentServer(settings, now)
    except (CaError, EnrolmentKeyError, LocalCaError, RegistryStoreError, OSError) as error:
        raise RefusedError(f"the enrolment server can't start: {error}") from error
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    server.start()
    address = f"{server.http.host}:{server.http.port}"
    print(
        f"enrolment server listens on {address}; devices are told {server_url(settings)}", file=sys.stderr, flush=True
    )
    stopping.wait()
    server.stop()
    return 0


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.io.enrolment.invitation_store import all_invitations, all_waiting

    require_view(args, settings)
    moment = now()
    invitations, waiting = in_store(settings, lambda connection: (all_invitations(connection), all_waiting(connection)))
    if not args.all:
        invitations = tuple(each for each in invitations if each.invitation.state(moment) == "open")
        waiting = tuple(each for each in waiting if each.status in ("waiting", "approved"))
    if args.json:
        print_json(
            {
                "invitations": [_invitation_to_json(each, moment) for each in invitations],
                "requests": [_waiting_to_json(each) for each in waiting],
            }
        )
        return 0
    print_table(
        ["INVITED", "AE TITLES", "ROLE", "NETWORKS", "UNTIL", "WRONG", "STATE", "BY"],
        [
            [
                each.invitation.grant.device,
                ",".join(each.invitation.grant.ae_titles),
                each.invitation.grant.role,
                ",".join(each.invitation.grant.networks) or "-",
                f"{each.invitation.expires_at.astimezone():%Y-%m-%d %H:%M}",
                str(each.invitation.wrong_guesses),
                each.invitation.state(moment) + (f" ({each.closed_by})" if each.closed_by else ""),
                each.invitation.created_by,
            ]
            for each in invitations
        ],
    )
    if waiting:
        print()
        print_table(
            ["REQUEST", "NAME", "KEY", "FROM", "SINCE", "STATE"],
            [
                [
                    each.id,
                    each.common_name or "-",
                    each.key_sha256[:16],
                    each.address,
                    f"{each.asked_at.astimezone():%Y-%m-%d %H:%M}",
                    each.status + (f" ({each.decided_by})" if each.decided_by else ""),
                ]
                for each in waiting
            ],
        )
    return 0


def _invitation_to_json(each: "StoredInvitation", moment: "datetime") -> dict[str, object]:
    invitation = each.invitation
    return {
        "invitation": invitation.id,
        "name": invitation.grant.device,
        "ae_titles": invitation.grant.ae_titles,
        "role": invitation.grant.role,
        "site": invitation.grant.site,
        "networks": invitation.grant.networks,
        "state": invitation.state(moment),
        "wrong_guesses": invitation.wrong_guesses,
        "created_at": invitation.created_at.isoformat(),
        "created_by": invitation.created_by,
        "expires_at": invitation.expires_at.isoformat(),
        "closed_at": each.closed_at.isoformat() if each.closed_at else None,
        "closed_by": each.closed_by or None,
    }


def _waiting_to_json(each: "WaitingRequest") -> dict[str, object]:
    return {
        "id": each.id,
        "name": each.common_name,
        "key_sha256": each.key_sha256,
        "address": each.address,
        "asked_at": each.asked_at.isoformat(),
        "expires_at": each.expires_at.isoformat(),
        "state": each.status,
        "decided_by": each.decided_by or None,
    }


def _decide(args: argparse.Namespace, settings: "Settings", *, approve: bool) -> int:
    from datetime import timedelta

    from dicomward.identity.operators import Permission
    from dicomward.identity.registry import RegistryError
    from dicomward.io.enrolment.desk import WAITING_DAYS
    from dicomward.io.enrolment.invitation_store import all_waiting, decide_waiting, verify_unclaimed, waiting_by_id

    waiting = in_store(settings, all_waiting)
    found = next((each for each in waiting if each.id == args.id.upper()), None)
    if found is None:
        raise unknown_name("request", args.id, [each.id for each in waiting if each.status == "waiting"])
    grant = None
    if approve:
        name = args.name or found.common_name
        if not name:
            raise UsageError("the request names no device; name it with --name NAME")
        snapshot = read_registry(settings)
        grant = grant_from(name, args, settings, snapshot.device_by_name(name))
    operator = require(args, Permission.DEVICE_CHANGE, settings=settings)
    moment = now()

    def decide(connection: "Connection") -> None:
        waiting_now = waiting_by_id(connection, found.id)
        if waiting_now is None or waiting_now.status != "waiting":
            raise RegistryError(f"the request {found.id} doesn't wait any more; see: dicomward enrolment list --all")
        if grant is not None:
            verify_unclaimed(connection, grant, snapshot, moment)
        end = moment + timedelta(days=WAITING_DAYS)
        decide_waiting(connection, found.id, granted=grant, by=operator, now=moment, expires_at=end)

    in_store(settings, decide, writes=True)
    verb = "approved" if approve else "rejected"
    device = grant.device if grant is not None else found.common_name or None
    _record(
        settings, operator, "approve" if approve else "reject", device, f"request {found.id}, key {found.key_sha256}"
    )
    if args.json:
        print_json({"id": found.id, "name": device, "state": verb, "key_sha256": found.key_sha256})
    else:
        what = f"; {device} gets its certificate when it asks again" if approve else ""
        print(f"request {found.id} (key {found.key_sha256[:16]}) {verb}{what}")
    return 0


def _revoke(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission
    from dicomward.io.enrolment.invitation_store import all_invitations, revoke_invitations

    # It narrows rights: it never waits for a second person.
    operator = require(args, Permission.DEVICE_SUSPEND, settings=settings)
    moment = now()
    count = in_store(
        settings, lambda connection: revoke_invitations(connection, args.name, by=operator, now=moment), writes=True
    )
    if not count:
        invitations = in_store(settings, all_invitations)
        names = [each.invitation.grant.device for each in invitations if each.invitation.state(moment) == "open"]
        if args.name in {each.invitation.grant.device for each in invitations}:
            raise RefusedError(f"the invitation of {args.name} is over already; see: dicomward enrolment list --all")
        raise unknown_name("open invitation of a device", args.name, names)
    _record(settings, operator, "revoke-invitation", args.name, None)
    if args.json:
        print_json({"name": args.name, "state": "revoked"})
    else:
        print(f"the invitation of {args.name} is revoked; its code is worth nothing now")
    return 0


def _record(settings: "Settings", operator: str, action: str, device: str | None, detail: str | None) -> None:
    """Put it on record. Raises RefusedError."""
    from dicomward.audit.event import EnrolmentChanged
    from dicomward.io.people.operators import record_event

    event = EnrolmentChanged(operator=operator, action=action, device=device, detail=detail)
    if (problem := record_event(settings, event)) is not None:
        raise RefusedError(f"it is done, but the audit log can't take the record of it: {problem}")


def in_store(settings: "Settings", use: "Callable[[Connection], _Result]", *, writes: bool = False) -> _Result:
    """Do something with the database. Raises RefusedError."""
    from dicomward.identity.registry import RegistryError
    from dicomward.io.registry.store import RegistryStore, RegistryStoreError

    try:
        with (
            RegistryStore.open(settings.registry.url) as store,
            store.writing() if writes else store.reading() as connection,
        ):
            return use(connection)
    except (RegistryError, RegistryStoreError) as error:
        raise RefusedError(str(error)) from error
