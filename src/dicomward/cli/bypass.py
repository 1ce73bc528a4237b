"""`dicomward bypass`: the emergency bypass (break glass). Needs no database, no directory service, no second person."""

import argparse
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
    now,
    print_json,
    print_table,
    require,
    warn,
)
from dicomward.identity.operators import Permission
from dicomward.policy.bypass import DEFAULT_MINUTES, MOST_MINUTES, MOST_TEXT

if TYPE_CHECKING:
    from dicomward.identity.registry import RegistrySnapshot
    from dicomward.io.protection.bypass_commands import Done
    from dicomward.policy.bypass import Bypass
    from dicomward.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "In an emergency, lift policy, limits and budgets for a device or a site, for a while and on record. "
        "Certificates, bound AE titles and networks, and the checks of messages stay. See docs/emergency-bypass.md."
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    opening = actions.add_parser("open", help="open a bypass, at once")
    _add_target(opening, required=True)
    opening.add_argument("--reason", metavar="TEXT", required=True, help="why; it goes into the audit log")
    opening.add_argument(
        "--minutes",
        metavar="N",
        type=int,
        default=DEFAULT_MINUTES,
        help=f"how long, 1 to {MOST_MINUTES} (default: {DEFAULT_MINUTES})",
    )
    _add_common(opening)

    closing = actions.add_parser("close", help="close an open bypass before its time")
    closing.add_argument("id", metavar="ID", nargs="?", help="which (default: the only one that is open)")
    _add_target(closing, required=False)
    _add_common(closing)

    listing = actions.add_parser("list", help="list what is open and what nobody has reviewed")
    listing.add_argument("--all", action="store_true", help="also those that are reviewed")
    add_config_argument(listing)
    add_json_argument(listing)

    reviewing = actions.add_parser("review", help="note that you have looked at what was done while it was open")
    reviewing.add_argument("id", metavar="ID", help="which")
    reviewing.add_argument("--note", metavar="TEXT", required=True, help="what you found; it goes into the audit log")
    _add_common(reviewing)


def _add_target(parser: argparse.ArgumentParser, *, required: bool) -> None:
    target = parser.add_mutually_exclusive_group(required=required)
    target.add_argument("--device", metavar="NAME", help="the bypass of this device")
    target.add_argument("--site", metavar="SITE", help="the bypass of all devices of this site")


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_operator_argument(parser)
    add_config_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Open, close, list or review; see main for exit codes."""
    settings = load_settings_of(args)
    match args.action:
        case "open":
            return _open(args, settings)
        case "close":
            return _close(args, settings)
        case "review":
            return _review(args, settings)
        case _:
            return _list(args, settings)


def _open(args: argparse.Namespace, settings: "Settings") -> int:
    if not 1 <= args.minutes <= MOST_MINUTES:
        raise UsageError(
            f"--minutes {args.minutes} is not within 1 to {MOST_MINUTES}; if it must last longer, open another one then"
        )
    reason = _text_of(args.reason, "--reason")
    operator = require(args, Permission.BYPASS, settings=settings)
    _must_be_registered(settings, args.device, args.site)
    request = {"action": "open", "device": args.device, "site": args.site, "reason": reason, "minutes": args.minutes}
    done = _ask(settings, {**request, "operator": operator})
    bypass = done.changed.bypass
    until = f"until {bypass.ends_at.astimezone():%Y-%m-%d %H:%M:%S%z} ({bypass.minutes} minutes)"
    return _tell(args, done, f"bypass {bypass.bypass_id} for {bypass.target} is open {until}")


def _close(args: argparse.Namespace, settings: "Settings") -> int:
    operator = require(args, Permission.BYPASS, settings=settings)
    bypass_id = args.id
    if bypass_id is None:
        bypass_id = _only_open(settings, args.device, args.site)
    elif args.device is not None or args.site is not None:
        raise UsageError("name the bypass by its ID, or by --device or --site, not by both")
    done = _ask(settings, {"action": "close", "id": bypass_id, "operator": operator})
    bypass = done.changed.bypass
    return _tell(
        args,
        done,
        f"bypass {bypass.bypass_id} for {bypass.target} is closed; now it must be reviewed, "
        f"by another operator if there is one: "
        f"dicomward bypass review {bypass.bypass_id} --note TEXT",
    )


def _only_open(settings: "Settings", device: str | None, site: str | None) -> str:
    bypasses = [each for each in _read(settings) if each.is_open]
    if device is not None or site is not None:
        bypasses = [each for each in bypasses if (each.device, each.site) == (device, site)]
    if len(bypasses) == 1:
        return bypasses[0].bypass_id
    if not bypasses:
        raise RefusedError("no such bypass is open; see: dicomward bypass list")
    raise UsageError(f"{len(bypasses)} are open, so say which: {', '.join(each.bypass_id for each in bypasses)}")


def _review(args: argparse.Namespace, settings: "Settings") -> int:
    note = _text_of(args.note, "--note")
    operator = require(args, Permission.BYPASS_REVIEW, settings=settings)
    request = {"action": "review", "id": args.id, "note": note, "operator": operator}
    done = _ask(settings, {**request, "is_only_operator": _is_only_operator(settings, operator)})
    bypass = done.changed.bypass
    return _tell(args, done, f"bypass {bypass.bypass_id} for {bypass.target} is reviewed by {bypass.reviewed_by}")


def _is_only_operator(settings: "Settings", name: str) -> bool:
    """Say if the operators are known, and nobody but this one may review."""
    from dicomward.io.people.operators import read_operators

    operators = read_operators(settings)
    return operators is not None and not any(
        each.name != name and each.may(Permission.BYPASS_REVIEW) for each in operators.entries
    )


def _ask(settings: "Settings", request: dict[str, object]) -> "Done":
    from dicomward.io.protection.bypass_commands import run_bypass
    from dicomward.io.protection.bypass_keeper import BypassError

    try:
        return run_bypass(settings, request)
    except BypassError as error:
        raise RefusedError(str(error)) from error


def _read(settings: "Settings") -> "tuple[Bypass, ...]":
    from dicomward.io.protection.bypass_commands import list_bypasses

    listed = list_bypasses(settings)
    for problem in listed.problems:
        warn(problem)
    return listed.bypasses


def _tell(args: argparse.Namespace, done: "Done", text: str) -> int:
    if args.json:
        print_json(
            {**_to_json(done.changed.bypass), "gateway_runs": done.gateway_runs, "problem": done.changed.problem}
        )
    else:
        print(f"{text}; {'in force' if done.gateway_runs else 'no gateway runs here, the next start uses it'}")
    if done.changed.problem:
        warn(f"bypass {done.changed.bypass.bypass_id}: {done.changed.problem}")
    return 0


def _list(args: argparse.Namespace, settings: "Settings") -> int:
    from dicomward.io.protection.bypass_store import find_contradictions

    bypasses = _read(settings)
    try:
        contradictions = find_contradictions(settings.audit.directory, {each.bypass_id: each for each in bypasses})
    except OSError as error:
        contradictions = [f"the audit log can't be read, so nothing was compared with it: {error}"]
    shown = [each for each in bypasses if args.all or not each.is_reviewed]
    if args.json:
        print_json({"bypasses": [_to_json(each) for each in shown], "contradictions": contradictions})
    elif shown:
        print_table(
            ("ID", "FOR", "STATE", "OPENED", "ENDS", "OPERATOR", "REASON"),
            [_row(each) for each in shown],
        )
    else:
        print("no bypass is open, and none waits for its review")
    for contradiction in contradictions:
        warn(contradiction)
    return 1 if contradictions else 0


def _row(bypass: "Bypass") -> Sequence[str]:
    ended = bypass.ended_at or bypass.ends_at
    return (
        bypass.bypass_id,
        bypass.target,
        _state(bypass),
        f"{bypass.opened_at.astimezone():%Y-%m-%d %H:%M}",
        f"{ended.astimezone():%Y-%m-%d %H:%M}",
        bypass.operator,
        bypass.reason,
    )


def _state(bypass: "Bypass") -> str:
    if bypass.is_reviewed:
        return f"reviewed by {bypass.reviewed_by}"
    # A gateway that doesn't run can't have noted that the time is over.
    return "OPEN" if bypass.is_open and now() < bypass.ends_at else "not reviewed"


def _to_json(bypass: "Bypass") -> dict[str, object]:
    from dicomward.io.protection.bypass_store import encode_bypass

    hidden = ("boot", "boot_seconds", "leased_seconds", "alarmed_at")
    members = {name: value for name, value in encode_bypass(bypass).items() if name not in hidden}
    return {"id": members.pop("bypass_id"), **members, "ends_at": bypass.ends_at.isoformat(), "state": _state(bypass)}


def _text_of(text: str, option: str) -> str:
    if not text.strip() or len(text) > MOST_TEXT or not text.isprintable():
        raise UsageError(f"{option} must have 1 to {MOST_TEXT} printable characters: others will read it")
    return text.strip()


def _must_be_registered(settings: "Settings", device: str | None, site: str | None) -> None:
    """Refuse a name that nobody has: a bypass that lifts nothing would cost time in an emergency."""
    registry = _snapshot(settings)
    if device is not None and registry.device_by_name(device) is None:
        raise RefusedError(
            f"there is no device {device!r}; {nearest(device, [each.name for each in registry.devices])}"
        )
    sites = sorted({each.site for each in registry.devices} - {""})
    if site is not None and site not in sites:
        raise RefusedError(f"no device is of site {site!r}; {nearest(site, sites)}")


def _snapshot(settings: "Settings") -> "RegistrySnapshot":
    from dicomward.identity.registry import RegistryError
    from dicomward.io.registry.file import read_registry

    path = settings.registry.snapshot
    try:
        return read_registry(path)
    except (OSError, RegistryError) as error:
        raise RefusedError(f"the registry snapshot {path} can't be read: {error}") from error
