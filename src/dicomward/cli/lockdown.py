"""`dicomward lockdown`: leave only the clinical floor to a site, at once."""

import argparse
from typing import TYPE_CHECKING

from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    nearest,
    now,
    print_json,
    print_table,
    require,
)

if TYPE_CHECKING:
    from dicomward.identity.lockdown import Lockdown
    from dicomward.settings import Settings

_MOST_CHARACTERS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Leave only the clinical floor to a site: C-ECHO, C-STORE, worklist, MPPS, storage commitment. Queries and "
        "retrievals that run there end, new ones are refused. Without --site: list what is locked."
    )
    parser.add_argument(
        "action", nargs="?", choices=("list", "status"), metavar="list", help="list the locked sites (the default)"
    )
    parser.add_argument("--site", metavar="SITE", help="the site, as in `dicomward device list`, or all")
    parser.add_argument("--lift", action="store_true", help="give back the rest")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for the audit log")
    add_config_argument(parser)
    add_operator_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Do it; see main for exit codes."""
    if args.site is None and (args.lift or args.reason):
        raise UsageError("--site is missing: name the site")
    if args.site is not None and args.action is not None:
        raise UsageError(f"--site and {args.action!r} don't go together: leave one of them out")
    settings = load_settings_of(args)
    return _list(args, settings) if args.site is None else _change(args, settings)


def _read(settings: "Settings") -> "Lockdown":
    from dicomward.identity.lockdown import LockdownError
    from dicomward.io.protection.lockdown import read_lockdown

    try:
        return read_lockdown(settings.gateway.state_directory)
    except LockdownError as error:
        raise RefusedError(str(error)) from error


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.operators import Permission

    require(args, Permission.VIEW, settings=settings)
    sites = sorted(_read(settings).sites.items())
    if args.json:
        print_json(
            [
                {"site": name, "since": each.since, "operator": each.operator, "reason": each.reason}
                for name, each in sites
            ]
        )
    elif sites:
        print_table(
            ["SITE", "SINCE", "OPERATOR", "REASON"],
            [[name, each.since, each.operator, each.reason] for name, each in sites],
        )
    else:
        print("no site is locked")
    return 0


def _change(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.identity.lockdown import LockdownError
    from dicomward.identity.operators import Permission
    from dicomward.io.private_file import FileBusyError
    from dicomward.io.protection.lockdown import LockdownNotInForceError, change_lockdown

    site: str = args.site
    if len(args.reason) > _MOST_CHARACTERS or not args.reason.isprintable():
        raise UsageError(f"the reason must be printable, and at most {_MOST_CHARACTERS} characters long")
    _require_known(settings, site, lift=args.lift)
    operator = require(args, Permission.LOCKDOWN_LIFT if args.lift else Permission.LOCKDOWN, settings=settings)
    moment = now().isoformat(timespec="seconds").replace("+00:00", "Z")
    try:
        applied = change_lockdown(settings, site, operator, reason=args.reason, now=moment, lift=args.lift)
    except (LockdownError, LockdownNotInForceError, FileBusyError) as error:
        raise RefusedError(str(error)) from error
    state = "lifted" if args.lift else "locked"
    if args.json:
        print_json(
            {
                "site": site,
                "state": state,
                "changed": applied.changed,
                "gateway": applied.gateway_runs,
                "aborted": applied.aborted,
            }
        )
        return 0
    was = "" if applied.changed else " (it was already)"
    told = f"in force, {applied.aborted} open associations aborted" if applied.gateway_runs else "no gateway runs"
    what = f"the lockdown of site {site} is lifted" if args.lift else f"only the clinical floor is left to site {site}"
    print(f"{what}{was}; {told}")
    return 0


def _require_known(settings: "Settings", site: str, *, lift: bool) -> None:
    """Refuse a site that nobody belongs to: a typing error must not pass for a lockdown.

    An emergency must not fail for a registry that can't be read: then any name goes.
    """
    from dicomward.identity.lockdown import EVERY_SITE
    from dicomward.identity.registry import RegistryError
    from dicomward.identity.registry_json import decode_snapshot

    locked = _read(settings).sites
    if site in locked:
        return
    if lift:
        raise RefusedError(f"site {site!r} isn't locked; {nearest(site, sorted(locked))}")
    try:
        registry = decode_snapshot(settings.registry.snapshot.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RegistryError):
        return
    sites = sorted({device.site for device in registry.devices} - {""})
    if site not in (*sites, EVERY_SITE):
        raise RefusedError(f"no device belongs to a site {site!r}; {nearest(site, [*sites, EVERY_SITE])}")
