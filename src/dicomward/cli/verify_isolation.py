"""`dicomward verify-isolation`: whether an archive answers anyone but the gateway, seen from here."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dicomward.assess.isolation import (
    MOST_PORTS,
    USUAL_PORTS,
    ArchiveVerdict,
    Place,
    Verdict,
    judge_archive,
    worst,
)
from dicomward.cli.common import (
    RefusedError,
    UsageError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    nearest,
    print_json,
    require,
    warn,
)
from dicomward.identity.operators import Permission

if TYPE_CHECKING:
    from dicomward.identity.registry import Archive
    from dicomward.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    usual = ",".join(map(str, USUAL_PORTS))
    parser.description = (
        "See from this machine whether registered archives answer anyone but the gateway: one association request "
        "for Verification, GETs of web roots, a TLS handshake without a certificate; nothing to any other address. "
        "Exit code 0: every archive is PASS; 1: one is not, or not certainly. See docs/verify-isolation.md."
    )
    parser.add_argument("--archive", metavar="NAME", action="append", help="only this one (repeatable; default: all)")
    parser.add_argument(
        "--from", dest="source", metavar="HOST", default="", help="call from this address of this machine"
    )
    parser.add_argument(
        "--ports",
        metavar="LIST",
        help=f"ports besides that of the registry, as 104,8042 or 8000-8010 (default: {usual})",
    )
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=3.0, help="for each step (default: 3)")
    parser.add_argument(
        "--archive-is-up", action="store_true", help="you know that it is up, so that silence is a firewall's: PASS"
    )
    parser.add_argument(
        "--registry", metavar="FILE", type=Path, help="a copy of registry.json, on a machine without the settings"
    )
    parser.add_argument("--record", action="store_true", help="write the verdicts into the audit log")
    add_operator_argument(parser)
    add_config_argument(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Look, judge, print; see main for exit codes."""
    if not 0.1 <= args.timeout <= 60:
        raise UsageError("--timeout must be within 0.1 and 60 seconds")
    ports = _ports_of(args.ports)
    settings, operator = None, ""
    if args.registry is None or args.record:
        settings = load_settings_of(args)
        operator = require(args, Permission.VIEW, settings=settings)
    archives = _archives(args, settings)
    gateway_runs = settings is not None and _gateway_runs(settings)
    verdicts = [_look(args, archive, ports, gateway_runs=gateway_runs) for archive in archives]
    if args.record and settings is not None:
        _record(settings, operator, verdicts)
    verdict = worst(each.verdict for each in verdicts)
    _print(args, verdict, verdicts)
    return 0 if verdict is Verdict.PASS else 1


def _ports_of(text: str | None) -> tuple[int, ...]:
    """Read `104,8000-8010`. Raises UsageError."""
    if text is None:
        return USUAL_PORTS
    ports: dict[int, None] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise UsageError(f"--ports: {part!r} is neither a port nor a range as 8000-8010")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= 0xFFFF or high - low >= MOST_PORTS:
            raise UsageError(f"--ports: {part!r} is not within 1 to 65535, or is more than {MOST_PORTS} ports")
        ports |= dict.fromkeys(range(low, high + 1))
    if len(ports) > MOST_PORTS:
        raise UsageError(f"--ports: at most {MOST_PORTS}; this looks at archives, it is no scanner")
    return tuple(ports)


def _archives(args: argparse.Namespace, settings: "Settings | None") -> "list[Archive]":
    from dicomward.identity.registry import RegistryError
    from dicomward.io.registry.file import read_registry

    path = args.registry if args.registry is not None or settings is None else settings.registry.snapshot
    try:
        registry = read_registry(path)
    except (OSError, RegistryError) as error:
        raise UsageError(f"the registry {path} can't be read: {error}") from error
    known = {each.name: each for each in registry.archives}
    for name in args.archive or ():
        if name not in known:
            raise RefusedError(
                f"there is no archive {name!r}; {nearest(name, list(known))}. Only registered archives are looked at"
            )
    found = [known[name] for name in dict.fromkeys(args.archive)] if args.archive else list(known.values())
    if not found:
        raise RefusedError("no archive is registered, so there is nothing to look at: dicomward archive add")
    return found


def _gateway_runs(settings: "Settings") -> bool:
    from dicomward.io.control import ControlError, call

    try:
        return call(settings.gateway.state_directory, {"do": "status"}, 2.0) is not None
    except ControlError:
        # It runs, whatever it answers.
        return True


def _look(
    args: argparse.Namespace, archive: "Archive", ports: tuple[int, ...], *, gateway_runs: bool
) -> ArchiveVerdict:
    from dicomward.io.protection.isolation import NotResolvedError, addresses_of, is_own_address, look_at

    try:
        addresses = addresses_of(archive.endpoint.host)
    except NotResolvedError as error:
        place = Place(gateway_runs_here=gateway_runs, archive_is_here=False)
        return judge_archive(archive.name, (), place, problem=str(error))
    place = Place(
        gateway_runs_here=gateway_runs,
        archive_is_here=any(is_own_address(each) for each in addresses),
        source=args.source,
        archive_is_up=args.archive_is_up,
    )
    observations = look_at(
        addresses,
        tuple(dict.fromkeys((archive.endpoint.port, *ports))),
        called_ae_title=archive.ae_title,
        source=args.source,
        timeout=args.timeout,
    )
    return judge_archive(archive.name, observations, place)


def _record(settings: "Settings", operator: str, verdicts: list[ArchiveVerdict]) -> None:
    from dicomward.audit.event import IsolationVerified
    from dicomward.io.people.operators import record_event
    from dicomward.vocab.reason import ReasonCode

    for each in verdicts:
        event = IsolationVerified(
            archive=each.archive,
            operator=operator,
            state=each.verdict.value,
            count=len(each.checks),
            reason=ReasonCode.ARCHIVE_NOT_ISOLATED if each.verdict is Verdict.FAIL else None,
            detail=each.why,
        )
        if (problem := record_event(settings, event)) is not None:
            warn(f"the verdict on {each.archive} could not be recorded: {problem}")


def _print(args: argparse.Namespace, verdict: Verdict, verdicts: list[ArchiveVerdict]) -> None:
    if args.json:
        print_json(
            {
                "verdict": verdict.value,
                "archives": [
                    {
                        "archive": each.archive,
                        "verdict": each.verdict.value,
                        "why": each.why,
                        "checks": [
                            {
                                "address": check.address,
                                "port": check.port,
                                "service": check.service or None,
                                "verdict": check.verdict.value,
                                "why": check.why,
                            }
                            for check in each.checks
                        ],
                    }
                    for each in verdicts
                ],
            }
        )
        return
    for each in verdicts:
        print(f"{each.verdict.value}  archive {each.archive}: {each.why}")
        for check in each.checks:
            service = f" {check.service}" if check.service else ""
            print(f"  {check.verdict.value}  {check.address} port {check.port}{service}: {check.why}")
