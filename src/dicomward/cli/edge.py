"""`dicomward edge`: the agent beside a device that can speak only plaintext."""

import argparse
import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicomward.cli.common import CommandError, RefusedError, UsageError, add_json_argument

if TYPE_CHECKING:
    from dicomward.io.stop_signals import StopSignals
    from dicomward.io.windows_service import Stop
    from dicomward.settings.edge import EdgeSettings

_STALE_SECONDS = 10.0
_MOST_LINES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run the edge agent: plaintext DICOM towards its devices, mutual TLS towards the gateway. Prints `listening on "
        "HOST:PORT for DEVICE` for each when it serves it; SIGTERM ends it. `status` shows what waits in the spool and "
        "what lies in quarantine (exit code 1 if something is overdue or in quarantine, or a certificate needs a "
        "person); `retry` sends again what was refused, at once if the agent runs. `service` is what Windows' service "
        "manager starts; its log is a file beside the settings."
    )
    parser.add_argument("action", nargs="?", choices=("run", "status", "retry", "service"), default="run")
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=Path("edge.toml"),
        help="settings of the agent (default: ./edge.toml)",
    )
    parser.add_argument(
        "--code",
        metavar="NAME=CODE",
        action="append",
        default=[],
        help="the one-time code of a device, with which the agent gets its certificate ([enrolment] in FILE); - reads "
        "NAME=CODE from stdin. With one device CODE is enough. A code that was used does no harm",
    )
    add_json_argument(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, to stderr")


def run(args: argparse.Namespace) -> int:
    """Serve, or tell; see main for exit codes."""
    if args.code and args.action != "run":
        raise UsageError(f"--code is for an agent that starts, not for `edge {args.action}`")
    if args.action == "service":
        return _service(args.config, verbose=args.verbose)
    settings = _load(args.config)
    if args.action == "status":
        return _status(settings, as_json=args.json)
    if args.action == "retry":
        return _retry(settings, as_json=args.json)
    return _serve(settings, args.code, verbose=args.verbose)


def _load(path: Path) -> "EdgeSettings":
    from dicomward.settings import SettingsError
    from dicomward.settings.edge import load_edge_settings

    try:
        return load_edge_settings(path)
    except SettingsError as error:
        raise UsageError(str(error)) from error


def _serve(settings: "EdgeSettings", typed: list[str], *, verbose: bool) -> int:
    from dicomward.io.logs import configure
    from dicomward.io.stop_signals import StopSignals
    from dicomward.io.system import calls

    for number in calls.RELOAD_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    configure(settings.log_format, "debug" if verbose else settings.log_level)
    with StopSignals() as signals:
        _run_agent(settings, typed, signals, lambda line: print(line, flush=True))
    return 0


def _run_agent(
    settings: "EdgeSettings", typed: list[str], stop: "StopSignals | Stop", say: Callable[[str], object]
) -> None:
    """Serve until it is stopped. Raises RefusedError, UsageError."""
    from dicomward.io.edge.agent import EdgeAgent, EdgeStartError
    from dicomward.io.edge.codes import WrongCodeError, codes_given
    from dicomward.settings import ListenAddress

    try:
        codes = codes_given(settings, [sys.stdin.readline().strip() if each == "-" else each for each in typed])
    except WrongCodeError as error:
        raise UsageError(str(error)) from error

    def served(name: str) -> None:
        host, port = agent.addresses[name]
        say(f"listening on {ListenAddress(host=host, port=port)} for {name}")

    agent = EdgeAgent(settings, codes, served)
    try:
        agent.open()
    except EdgeStartError as error:
        raise RefusedError(str(error)) from error
    stop.ready()
    stop.wait(lambda: None)
    agent.close(lambda: stop.count > 1)


def _service(config: Path, *, verbose: bool) -> int:
    """Be a service of Windows; everything that is to be told goes to a file beside the settings."""
    from dicomward.io.logs import TEXT, configure_file
    from dicomward.io.system import calls
    from dicomward.io.windows_service import NotStartedByManager, WindowsManager
    from dicomward.io.windows_service import run as run_service

    if not calls.IS_WINDOWS:
        raise UsageError("`dicomward edge service` is for Windows' service manager; elsewhere use: dicomward edge")
    log = logging.getLogger(__name__)

    def serve(stop: "Stop") -> int:
        configure_file(TEXT, "info", config.with_suffix(".log"))
        try:
            settings = _load(config)
            level = "debug" if verbose else settings.log_level
            configure_file(settings.log_format, level, config.with_suffix(".log"))
            _run_agent(settings, [], stop, log.info)
        except CommandError as error:
            log.error("the agent does not start: %s", error)
            return error.exit_code
        return 0

    try:
        return run_service(serve, WindowsManager())
    except NotStartedByManager as error:
        raise RefusedError(
            "only Windows' service manager can start `dicomward edge service`; in a console use: dicomward edge"
        ) from error


def _status(settings: "EdgeSettings", *, as_json: bool) -> int:
    from dicomward.io.edge.spool import spool_report
    from dicomward.io.edge.watch import STATUS_NAME

    report: dict[str, Any] = {"running": False, "version": "", "devices": {}, "reverse": {}, "certificates": {}}
    path = settings.state_directory / STATUS_NAME
    if path.exists():
        told = json.loads(path.read_text("utf-8"))
        report["running"] = time.time() - told["time"] < _STALE_SECONDS
        report["version"] = told.get("version", "")
        report["devices"], report["reverse"] = told["devices"], told.get("reverse", {})
        report["certificates"] = told.get("certificates", {})
    if settings.spool is not None:
        report |= spool_report(settings.spool, time.time())
    waiting, quarantine = report.get("waiting", {}), report.get("quarantine", [])
    limit = settings.spool.alarm_minutes * 60 if settings.spool is not None else 0
    uncommitted = report.get("uncommitted", {})
    overdue = sorted(
        {name for each in (waiting, uncommitted) for name, entry in each.items() if entry["oldest_seconds"] > limit}
    )
    report["overdue"] = overdue
    code = 1 if overdue or quarantine or any(each["problem"] for each in report["certificates"].values()) else 0
    if as_json:
        print(json.dumps(report))
        return code
    print(f"running, version {report['version']}" if report["running"] else "not running")
    for device in settings.devices:
        entry = waiting.get(device.name, {"objects": 0, "bytes": 0, "oldest_seconds": 0.0})
        since = report["devices"].get(device.name, {})
        print(
            f"{device.name}: {entry['objects']} objects wait ({entry['bytes']} bytes, "
            f"oldest {entry['oldest_seconds']:g} s), "
            f"{uncommitted.get(device.name, {'objects': 0})['objects']} stored without commitment, "
            f"{since.get('delivered', 0)} delivered since the start, upstream: {since.get('upstream', 'unknown')}"
            + (" OVERDUE" if device.name in overdue else "")
            + _reverse_text(report["reverse"].get(device.name))
        )
        if (certificate := report["certificates"].get(device.name)) is not None:
            print(f"{device.name}: certificate: {_certificate_text(certificate)}")
    for entry in quarantine[:_MOST_LINES]:
        print(f"quarantine: {entry['device']} {entry['name']}: {entry['reason']}")
    if len(quarantine) > _MOST_LINES:
        print(f"quarantine: and {len(quarantine) - _MOST_LINES} more; --json has all of them")
    return code


def _certificate_text(certificate: "dict[str, Any]") -> str:
    until = f" until {certificate['not_after'][:10]}" if certificate["not_after"] else ""
    text = f": {certificate['text']}" if certificate["text"] else ""
    return f"{certificate['standing']}{until}{text}" + (" ATTENTION" if certificate["problem"] else "")


def _reverse_text(line: "dict[str, Any] | None") -> str:
    if line is None:
        return ""
    problem = "" if line["problem"] == "ok" else f" ({line['problem']})"
    return f", reverse connections: {line['parked']} parked, {line['used']} used{problem}"


def _retry(settings: "EdgeSettings", *, as_json: bool) -> int:
    from dicomward.io.edge.spool import SpoolError, release_quarantine

    if settings.spool is None:
        raise RefusedError("this agent has no spool")
    try:
        count = release_quarantine(settings.spool)
    except (SpoolError, OSError) as error:
        raise RefusedError(str(error)) from error
    print(json.dumps({"sent_again": count}) if as_json else f"{count} objects are sent again")
    return 0
