"""`dicomward device address`: where a registered device is called as an SCP."""

import argparse
from typing import TYPE_CHECKING

from dicomward.cli.common import UsageError, now, parse_where_called, print_json, require
from dicomward.cli.registry_command import applied_to_json, describe_applied, make_change, principal_to_json

if TYPE_CHECKING:
    from dicomward.settings import Settings


def describe(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("name", metavar="NAME", help="its registered name")
    parser.add_argument(
        "where",
        metavar="WHERE",
        help="HOST:PORT where it listens; `reverse`: over connections that its edge agent opens; `none`: nowhere",
    )
    parser.add_argument("--plain", action="store_true", help="it can't do TLS at HOST:PORT")


def run(args: argparse.Namespace, settings: "Settings") -> int:
    """Say where a device is called."""
    from dicomward.cli.device_credential import warn_of_plaintext
    from dicomward.identity.operators import Permission

    is_nowhere = args.where.lower() == "none"
    address, is_reverse = (None, False) if is_nowhere else parse_where_called(args.where)
    if args.plain and address is None:
        raise UsageError("--plain is about the place where the device listens; it goes with HOST:PORT only")
    operator = require(args, Permission.DEVICE_CHANGE, settings=settings)
    applied = make_change(
        settings,
        lambda store: store.set_address(
            args.name, address, plain=args.plain, reverse=is_reverse, by=operator, at=now()
        ),
    )
    device = applied.snapshot.device_by_name(args.name)
    if args.json and device is not None:
        print_json({**principal_to_json(device), **applied_to_json(applied)})
        return 0
    if args.plain and address is not None:
        warn_of_plaintext(address.host)
    where = "over the reverse connections of its edge agent" if is_reverse else f"at {args.where}"
    print(f"device {args.name} is called {'nowhere' if is_nowhere else where}; {describe_applied(applied)}")
    return 0
