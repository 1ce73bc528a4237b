"""The gateway's log on standard error: a line for each message, as text or as JSON. docs/monitoring.md has the fields.

What is said by whom stays apart from what happened to whom: that is the audit log. No message holds a patient's name
or a secret.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Final

TEXT: Final = "text"
JSON: Final = "json"
LEVELS: Final = ("debug", "info", "warning", "error")
# What a message may name besides its text: `extra={"association": ...}`.
NAMED: Final = ("association",)
_FILE_BYTES: Final = 10 * 1024 * 1024
_OLD_FILES: Final = 9
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)}
_CONTROL[0x0A] = "\\n"


def configure(form: str, level: str, stream: IO[str] | None = None) -> None:
    """Send every message of this process to standard error in one form, from a level on."""
    _send_to(logging.StreamHandler(stream or sys.stderr), form, level)


def configure_file(form: str, level: str, path: Path) -> None:
    """Send every message of this process to a file instead: a service of Windows has no standard error.

    Ten files of 10 MiB are kept. Raises OSError.
    """
    handler = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES, encoding="utf-8")
    _send_to(handler, form, level)


def _send_to(handler: logging.Handler, form: str, level: str) -> None:
    handler.setFormatter(JsonFormatter() if form == JSON else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        members: dict[str, str] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in NAMED:
            value = getattr(record, name, None)
            if value is not None:
                members[name] = str(value)
        traceback = _traceback(self, record)
        if traceback:
            members["traceback"] = traceback
        return json.dumps(members, ensure_ascii=True)


class TextFormatter(logging.Formatter):
    """For people: one line, and the lines of a traceback after it. What a peer has sent can't begin a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = record.getMessage().translate(_CONTROL)
        line = f"{_moment(record)} {record.levelname} {record.name}: {message}"
        traceback = _traceback(self, record)
        return f"{line}\n{traceback}" if traceback else line
