"""What the commands share that grant a credential: the arguments, and the grant that they make."""

import argparse
import re
from typing import TYPE_CHECKING, Final

from dicomward.cli.common import RefusedError, UsageError, parse_where_called, warn
from dicomward.cli.device_credential import check_role

if TYPE_CHECKING:
    from dicomward.enrolment.grant import Grant
    from dicomward.identity.registry import Device
    from dicomward.settings import Settings

_SEVERAL: Final = re.compile(r"[;|,]")


def describe_grant(parser: argparse.ArgumentParser) -> None:
    """Add the arguments; for a registered device all of them are known already."""
    parser.add_argument(
        "--aet", metavar="AET", action="append", help="AE title that it calls with, and is called by (may be repeated)"
    )
    parser.add_argument("--role", metavar="ROLE", help="its role, as in: dicomward device add")
    parser.add_argument("--site", metavar="SITE", help="where it stands, for rules and the audit log")
    parser.add_argument(
        "--network",
        metavar="CIDR",
        action="append",
        help='from where it may enrol and call, as 10.1.2.0/24 or "any" (default: the one address that it enrols from)',
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="where it listens as an SCP: C-MOVE destination, reports; `reverse`: over connections of its edge agent",
    )
    parser.add_argument("--plain", action="store_true", help="it can't do TLS at --address")
    parser.add_argument(
        "--key", choices=("ecdsa", "rsa"), help="the one kind of key that is taken; rsa for old devices (default: both)"
    )
    parser.add_argument(
        "--days", metavar="N", type=int, help="life of its certificates (default: enrolment.life_days of the settings)"
    )


def grant_from(
    name: str,
    args: argparse.Namespace,
    settings: "Settings",
    registered: "Device | None",
    *,
    revoke_others: bool = False,
) -> "Grant":
    """Return the grant that was asked for. Raises UsageError, RefusedError."""
    from datetime import timedelta

    from dicomward.enrolment.grant import KEY_KINDS, Grant
    from dicomward.enrolment.profile import MAX_LIFE
    from dicomward.identity.registry import RegistryError

    days = args.days if args.days is not None else settings.enrolment.life_days
    if not 0 < days <= MAX_LIFE.days:
        raise UsageError(f"a life of {days} days is not possible; choose 1 to {MAX_LIFE.days}")
    if registered is not None:
        _check_same(registered, args)
        ae_titles, role, site, networks = registered.ae_titles, registered.role, registered.site, registered.networks
        address, plain, is_reverse = registered.address, registered.plain, registered.reverse
    else:
        if not args.aet or args.role is None:
            raise UsageError(f"{name} is not registered yet: its --aet AET and --role ROLE are needed")
        check_role(args.role, settings)
        if args.plain and args.address is None:
            raise UsageError("--plain is about the place where the device listens; add --address HOST:PORT")
        ae_titles, role, site, networks = tuple(args.aet), args.role, args.site or "", tuple(args.network or ())
        address, is_reverse = parse_where_called(args.address) if args.address is not None else (None, False)
        plain = args.plain
        if "any" in networks:
            warn(f'{name} may enrol and call from every address, because of "any"; name its network if you can')
    try:
        return Grant(
            device=name,
            ae_titles=ae_titles,
            role=role,
            site=site,
            networks=networks,
            address=address,
            plain=plain,
            reverse=is_reverse,
            key_kinds=(args.key,) if args.key else KEY_KINDS,
            life=timedelta(days=days),
            revoke_others=revoke_others,
        )
    except RegistryError as error:
        raise UsageError(str(error)) from error


def _check_same(registered: "Device", args: argparse.Namespace) -> None:
    """Raise RefusedError where the arguments say something else than the registry."""
    for what, wanted, known in (
        ("AE titles", set(args.aet or registered.ae_titles), set(registered.ae_titles)),
        ("role", args.role or registered.role, registered.role),
        ("site", registered.site if args.site is None else args.site, registered.site),
        ("networks", set(args.network or registered.networks), set(registered.networks)),
    ):
        if wanted != known:
            shown = ", ".join(sorted(known)) if isinstance(known, set) else known
            raise RefusedError(
                f"{registered.name} is registered with the {what} {shown or '-'}; leave that argument out, "
                "or choose another name for another device"
            )


def several(text: str) -> list[str]:
    """Return the parts of a field of a CSV file that holds several values, with ; | or , between them."""
    return [part.strip() for part in _SEVERAL.split(text) if part.strip()]
