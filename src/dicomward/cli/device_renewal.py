"""`dicomward device renewal` and `device compromised`: a person decides what two holders of a credential may do."""

import argparse
from typing import TYPE_CHECKING

from dicomward.cli.common import RefusedError, UsageError, now, print_json, print_table, require
from dicomward.cli.registry_command import applied_to_json, describe_applied, make_change, require_view

if TYPE_CHECKING:
    from dicomward.io.ca.store import RenewalRow
    from dicomward.settings import Settings


def describe_renewal(parser: argparse.ArgumentParser) -> None:
    """Describe `device renewal`."""
    parser.add_argument("what", choices=("list", "release", "reject"), help="look, or decide about a held renewal")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the device")
    parser.add_argument(
        "--keep",
        metavar="SHA256",
        default="",
        help="release: the true device has this certificate (first digits are enough); its others are revoked at once",
    )


def describe_compromised(parser: argparse.ArgumentParser) -> None:
    """Describe `device compromised`."""
    parser.add_argument("name", metavar="NAME", help="its registered name")


def renewal(args: argparse.Namespace, settings: "Settings") -> int:
    """List, release or reject."""
    if args.what == "list":
        return _list(args, settings)
    if args.name is None:
        raise UsageError(f"name the device: dicomward device renewal {args.what} NAME")
    if args.keep and args.what != "release":
        raise UsageError("--keep is for release; to revoke every certificate: dicomward device compromised NAME")

    from dicomward.identity.operators import Permission
    from dicomward.io.ca.renewals import reject_renewal, release_renewal

    operator = require(args, Permission.DEVICE_CHANGE, settings=settings)
    if args.what == "release":
        keep = args.keep.lower().replace(":", "")
        applied = make_change(
            settings, lambda store: release_renewal(store, args.name, keep=keep, by=operator, at=now())
        )
        done = "may renew again"
    else:
        applied = make_change(settings, lambda store: reject_renewal(store, args.name, by=operator, at=now()))
        done = "renews nothing any more; its certificates stay good until they end"
    if args.json:
        state = "released" if args.what == "release" else "rejected"
        print_json({"name": args.name, "renewal": state, **applied_to_json(applied)})
    else:
        print(f"device {args.name} {done}; {describe_applied(applied)}")
    return 0


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    require_view(args, settings)
    held = read_held(settings)
    if args.name is not None:
        held = tuple(each for each in held if each.device == args.name)
    if args.json:
        print_json(
            [
                {
                    "name": each.device,
                    "renewal": each.state.value,
                    "held_at": each.held_at.isoformat() if each.held_at is not None else None,
                    "detail": each.held_detail,
                }
                for each in held
            ]
        )
        return 0
    rows = [
        [
            each.device,
            each.state.value,
            f"{each.held_at.astimezone():%Y-%m-%d %H:%M}" if each.held_at is not None else "-",
            each.held_detail or "-",
        ]
        for each in held
    ]
    print_table(("NAME", "RENEWAL", "SINCE", "WHY"), rows)
    return 0


def read_held(settings: "Settings") -> "tuple[RenewalRow, ...]":
    """Return the renewals that are held or rejected. Raises RefusedError."""
    from dicomward.io.ca.renewals import held_renewals
    from dicomward.io.registry.store import RegistryStore, RegistryStoreError

    try:
        with RegistryStore.open(settings.registry.url) as store:
            return held_renewals(store)
    except RegistryStoreError as error:
        raise RefusedError(str(error)) from error


def compromised(args: argparse.Namespace, settings: "Settings") -> int:
    """Revoke all certificates of a device, and leave it registered."""
    from dicomward.identity.operators import Permission
    from dicomward.io.ca.renewals import report_compromise

    operator = require(args, Permission.DEVICE_SUSPEND, settings=settings)
    applied = make_change(settings, lambda store: report_compromise(store, args.name, by=operator, at=now()))
    if args.json:
        print_json({"name": args.name, "certificates": "revoked", **applied_to_json(applied)})
    else:
        print(f"all certificates of {args.name} are revoked; {describe_applied(applied)}")
        print("next: give it a new one, and let other relying parties know: dicomward ca crl")
    return 0
