"""What the commands share: their errors, `--config`, `--json`, `--operator`, and printing. Imports nothing heavy."""

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dicomward.identity.operators import Operator, Operators, Permission
    from dicomward.identity.registry import Endpoint
    from dicomward.settings import Settings

CONFIG_VARIABLE: Final = "DICOMWARD_CONFIG"
CONFIG_DEFAULT: Final = "dicomward.toml"
# So many known names stand in a hint: more than a screen nobody reads.
MOST_NAMES: Final = 20


class CommandError(Exception):
    """The command can't go on; the message is for the person who typed it."""

    exit_code = 1


class RefusedError(CommandError):
    """The command was understood, and refused or failed."""


class UsageError(CommandError):
    """The command or the configuration is wrong."""

    exit_code = 2


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--config`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"settings file, or the directory of {CONFIG_DEFAULT} (default: ${CONFIG_VARIABLE}, else .)",
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_operator_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--operator`."""
    parser.add_argument(
        "--operator",
        metavar="NAME",
        help="who does it: root may name an operator (default: the operator that your Unix user is)",
    )


def config_path(args: argparse.Namespace) -> Path:
    """Return the settings file that the command uses; a directory stands for the one in it."""
    given: Path | None = args.config
    path = given or Path(os.environ.get(CONFIG_VARIABLE) or CONFIG_DEFAULT)
    return path / CONFIG_DEFAULT if path.is_dir() else path


def load_settings_of(args: argparse.Namespace) -> "Settings":
    """Read the settings. Raises UsageError with every problem."""
    from dicomward.settings import SettingsError, load_settings

    try:
        return load_settings(config_path(args))
    except SettingsError as error:
        raise UsageError(str(error)) from error


def operator_of(args: argparse.Namespace) -> str:
    """Return who does it. Raises UsageError for what can't stand in an audit record."""
    name: str = args.operator if args.operator is not None else os.environ.get("SUDO_USER") or _login_name()
    if not name or len(name) > 64 or not name.isprintable():
        raise UsageError("the operator's name must have 1 to 64 printable characters; write it with --operator NAME")
    return name


def _login_name() -> str:
    # The real user id can't be chosen by the caller, as $USER can.
    from dicomward.io.system import calls

    number = calls.user_id()
    try:
        return calls.user_name(number)
    except KeyError:
        return f"uid {number}"


def require(
    args: argparse.Namespace,
    permission: "Permission",
    *,
    settings: "Settings | None" = None,
    evidence: Sequence[Path] = (),
) -> str:
    """Return the name of the operator who runs this command, if it may; call it before anything is changed or shown.

    The command needs `add_config_argument` and `add_operator_argument`. Use the name that comes back for records, in
    the place of `operator_of(args)`. Where `operators.second_person` names the permission and nobody has approved
    exactly this command yet, the request is noted and RefusedError says what to do; after the approval the same
    command, typed again, passes here once. `evidence`: files whose content is part of what is approved (a policy, a
    certificate); the arguments of the command always are, but for --config, --json and --operator.
    An emergency must not fail for a file of ours: if operators.toml can't be read, what needs no second person
    (`identity.operators.AT_ONCE`) is open to root and to the owner of the directory, under the name that they give.

    Raises RefusedError, UsageError.
    """
    from dicomward.audit.event import OperatorRefused
    from dicomward.identity.operators import (
        AT_ONCE,
        NotPermittedError,
        OperatorError,
        identify_operator,
        needs_second_person,
        verify_permission,
    )
    from dicomward.io.people.operators import read_operators, record_event, unix_caller
    from dicomward.io.system import calls
    from dicomward.vocab.reason import ReasonCode

    name = operator_of(args)
    settings = settings or load_settings_of(args)
    try:
        operators = read_operators(settings)
    except OperatorError as error:
        if permission not in AT_ONCE or calls.user_id() not in (0, settings.directory.stat().st_uid):
            raise UsageError(str(error)) from error
        warn(f"{error}; {permission} goes on without it, for {name}")
        return name
    if operators is None:
        return name
    caller = unix_caller(settings.directory, os.environ)
    try:
        operator = identify_operator(operators, caller, args.operator)
        verify_permission(operator, permission)
    except NotPermittedError as error:
        event = OperatorRefused(
            operator=name,
            action=permission.value,
            reason=ReasonCode.OPERATOR_NOT_PERMITTED,
            detail=f"unix user {caller.unix_user}: {error}",
        )
        if (problem := record_event(settings, event)) is not None:
            warn(f"this refusal could not be recorded: {problem}")
        raise RefusedError(str(error)) from error
    if needs_second_person(operators, operator, permission, settings.operators.second_person):
        _require_second_person(args, settings, operators, operator, permission, evidence)
    return operator.name


def _require_second_person(
    args: argparse.Namespace,
    settings: "Settings",
    operators: "Operators",
    operator: "Operator",
    permission: "Permission",
    evidence: Sequence[Path],
) -> None:
    """Use up the approval of this command, or note that it needs one. Raises RefusedError where there is none yet."""
    from dicomward.audit.event import ApprovalChanged
    from dicomward.identity.approvals import ApprovalError, ApprovalStatus
    from dicomward.io.people.operators import record_event, take_approval
    from dicomward.io.private_file import FileBusyError

    others = operators.others_who_may(permission, operator.name)
    if not others:
        raise RefusedError(
            f"{permission} needs a second operator, and nobody else may approve it; "
            "add one: dicomward operator add NAME --role administrator"
        )
    command, digest = describe_command(args, evidence)
    moment = now()
    try:
        approval = take_approval(
            settings, operator, permission, command=command, digest=f"{permission}:{digest}", now=moment
        )
    except (ApprovalError, FileBusyError, OSError) as error:
        raise RefusedError(f"the request for a second operator can't be noted: {error}") from error
    is_used = approval.status is ApprovalStatus.USED
    if is_used or approval.requested_at == moment:
        event = ApprovalChanged(
            operator=operator.name,
            action="used" if is_used else "requested",
            detail=f"{approval.id}: {command}" + (f"; approved by {approval.decided_by}" if is_used else ""),
        )
        if (problem := record_event(settings, event)) is not None:
            raise RefusedError(f"nothing was done: the audit log can't take the record of it: {problem}")
    if not is_used:
        until = f"{approval.expires_at.astimezone():%Y-%m-%d %H:%M}"
        raise RefusedError(
            f"this needs a second operator ({', '.join(others)}), until {until}: "
            f"dicomward approval approve {approval.id}; then type this command again"
        )


def describe_command(args: argparse.Namespace, evidence: Sequence[Path]) -> tuple[str, str]:
    """Return a command in words, and a digest of it and of the files that it reads. Raises UsageError."""
    import hashlib

    parts = [str(getattr(args, "command", "") or ""), str(getattr(args, "action", "") or "")]
    for key, value in sorted(vars(args).items()):
        if key not in ("command", "action", "config", "json", "operator", "run") and value not in (None, False, []):
            parts.append(f"{key}={value if not isinstance(value, list) else ','.join(map(str, value))}")
    digest = hashlib.sha256(json.dumps(parts).encode())
    for path in evidence:
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from error
        digest.update(content.encode())
        parts.append(f"sha256({path.name})={content[:16]}")
    return " ".join(part for part in parts if part), digest.hexdigest()


def parse_endpoint(text: str) -> "Endpoint":
    """Read `HOST:PORT` of a peer. Raises UsageError."""
    from dicomward.identity.registry import Endpoint, RegistryError
    from dicomward.settings import parse_host_port

    try:
        address = parse_host_port(text)
        return Endpoint(host=address.host, port=address.port)
    except (RegistryError, ValueError) as error:
        raise UsageError(str(error)) from error


def parse_where_called(text: str) -> "tuple[Endpoint | None, bool]":
    """Read where a device is called: `HOST:PORT`, or (None, True) for `reverse`. Raises UsageError."""
    return (None, True) if text.lower() == "reverse" else (parse_endpoint(text), False)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint that names the most similar known name, else what is known: a hospital has thousands of devices."""
    from dicomward.vocab.nearest import nearest_name

    near = nearest_name(name, known)
    if near is not None:
        return f"did you mean {near!r}?"
    further = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
    return f"the known ones are {', '.join(known[:MOST_NAMES])}{further}" if known else "there is none yet"


def now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)  # noqa: TID251  a command is where the clock is read


# One or several, as 14d, 90 min or 1d12h.
_SPAN: Final = re.compile(r"(?:\d{1,6} ?[a-z]+ ?)+\Z", re.ASCII)
_SPAN_PART: Final = re.compile(r"(\d+) ?([a-z]+)", re.ASCII)
_UNITS: Final = {
    name: unit
    for unit, names in (
        ("seconds", ("s", "sec", "second", "seconds")),
        ("minutes", ("m", "min", "minute", "minutes")),
        ("hours", ("h", "hr", "hour", "hours")),
        ("days", ("d", "day", "days")),
        ("weeks", ("w", "week", "weeks")),
    )
    for name in names
}


def parse_when(text: str, moment: datetime, *, ahead: bool = True) -> datetime:
    """Read a time: a day, a time of ISO 8601 (local, or with a zone), or a span as 14d. Raises UsageError.

    A span counts from `moment`, forwards if `ahead`; a day stands for its first moment, and ahead for its end.
    """
    try:
        delta = _parse_span(text)
        if delta is not None:
            return moment + delta if ahead else moment - delta
        when = datetime.fromisoformat(text)
        is_day = len(text) <= len("2027-03-31") and "T" not in text
        return (when + timedelta(days=1) if is_day and ahead else when).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{text!r} is not a time: write 2027-03-31, 2027-03-31T18:00, or a span as 12h or 14d"
        ) from error


def _parse_span(text: str) -> timedelta | None:
    """Return a span; None if the text is none."""
    lowered = text.strip().lower()
    if _SPAN.match(lowered) is None:
        return None
    parts = [(int(count), _UNITS.get(name, "")) for count, name in _SPAN_PART.findall(lowered)]
    if not all(unit for _count, unit in parts):
        return None
    return sum((timedelta(**{unit: count}) for count, unit in parts), timedelta(0))


def print_json(value: object) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, as wide as they must be."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def warn(message: str) -> None:
    """Tell the person something without failing."""
    print(f"dicomward: {message}", file=sys.stderr)
