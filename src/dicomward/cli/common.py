"""What the commands share: their errors, `--config`, `--json`, `--operator`, and printing. Imports nothing heavy."""

import argparse
import json
import os
import pwd
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dicomward.identity.registry import Endpoint
    from dicomward.settings import Settings

CONFIG_VARIABLE: Final = "DICOMWARD_CONFIG"
CONFIG_DEFAULT: Final = "dicomward.toml"


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
        help=f"settings file (default: ${CONFIG_VARIABLE}, else ./{CONFIG_DEFAULT})",
    )


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_operator_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--operator`."""
    parser.add_argument(
        "--operator", metavar="NAME", help="who does it, for the audit log (default: $SUDO_USER, else the login name)"
    )


def config_path(args: argparse.Namespace) -> Path:
    """Return the settings file that the command uses."""
    path: Path | None = args.config
    return path or Path(os.environ.get(CONFIG_VARIABLE) or CONFIG_DEFAULT)


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
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def parse_endpoint(text: str) -> "Endpoint":
    """Read `HOST:PORT` of a peer. Raises UsageError."""
    from dicomward.identity.registry import Endpoint, RegistryError
    from dicomward.settings import parse_host_port

    try:
        address = parse_host_port(text)
        return Endpoint(host=address.host, port=address.port)
    except (RegistryError, ValueError) as error:
        raise UsageError(str(error)) from error


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint that names the most similar known name."""
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"the known ones are {', '.join(known)}" if known else "there is none yet"


def now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)  # noqa: TID251  a command is where the clock is read


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
