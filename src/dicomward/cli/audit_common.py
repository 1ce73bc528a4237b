"""What the commands that read the audit log share: where it is, who may read it, the record of the use itself."""

import argparse
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from dicomward.cli.common import (
    RefusedError,
    add_config_argument,
    add_json_argument,
    add_operator_argument,
    load_settings_of,
    operator_of,
    require,
    warn,
)

_CONTROL_SECONDS: Final = 5.0
_AGO: Final = re.compile(r"([0-9]{1,6})([smhdw])\Z")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_CRITERIA: Final = ("device", "archive", "reason", "code", "association", "aet", "address", "text", "since", "until")


def add_where_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the log is, who reads it, and `--json`."""
    add_config_argument(parser)
    parser.add_argument("--directory", metavar="DIR", type=Path, help="read this directory (a copy of a log) instead")
    add_operator_argument(parser)
    add_json_argument(parser)


def require_reader(args: argparse.Namespace) -> str:
    """Return who reads, if it may; a copy of a log elsewhere belongs to whoever has it. Raises RefusedError."""
    if args.directory is not None:
        return operator_of(args)
    from dicomward.identity.operators import Permission

    return require(args, Permission.AUDIT_READ)


def directory_of(args: argparse.Namespace) -> Path:
    """Return where the log is. Raises RefusedError where there is none."""
    chosen: Path | None = args.directory
    directory = chosen or load_settings_of(args).audit.directory
    if not directory.is_dir():
        raise RefusedError(f"there is no audit log in {directory}: the gateway makes it at its first start")
    return directory


def parse_moment(text: str, moment: datetime) -> str:
    """Read a time that a person typed, and write it as the log does. Raises ValueError.

    It is ISO 8601 (without a zone: that of this machine), how long before `moment` (45s, 30m, 2h, 7d, 1w), or "now".
    """
    ago = _AGO.match(text)
    if text == "now":
        then = moment
    elif ago is not None:
        then = moment - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    else:
        try:
            then = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{text!r} isn't a time: write 2026-01-31T14:00, or 2h for two hours ago") from error
    return then.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def record_access(args: argparse.Namespace, directory: Path, action: str, count: int) -> None:
    """Record that somebody looked; in a copy of a log nothing is written."""
    if args.directory is not None:
        return
    from dicomward.audit.encode_json import event_members
    from dicomward.audit.event import AuditAccessed
    from dicomward.io.audit.log import AuditLogBusyError, AuditLogError, append_offline
    from dicomward.io.control import ControlError, call

    event = AuditAccessed(operator=operator_of(args), action=action, count=count, detail=_criteria_of(args))
    try:
        append_offline(directory, event)
    except AuditLogBusyError:
        state_directory = load_settings_of(args).gateway.state_directory
        try:
            request: dict[str, object] = {"do": "audit-accessed", "audit": event_members(event)}
            answer = call(state_directory, request, _CONTROL_SECONDS)
        except ControlError as error:
            answer = {"error": str(error)}
        if answer is None or answer.get("ok") is not True:
            why = "no gateway answered" if answer is None else answer.get("error")
            warn(f"this use of the audit log could not be recorded: {why}")
    except (AuditLogError, OSError) as error:
        warn(f"this use of the audit log could not be recorded: {error}")


def _criteria_of(args: argparse.Namespace) -> str | None:
    """Return what was looked for, as it was typed."""
    given = [f"{name}={value}" for name in _CRITERIA if (value := getattr(args, name, None)) is not None]
    return " ".join(given) or None
