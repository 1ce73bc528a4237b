"""The files of emergency bypasses: one JSON file each in the state directory, replaced as a whole and durably.

No database: a bypass must open when everything else is down. docs/emergency-bypass.md says what is proved of them.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from dicomward.audit.chain import Record
from dicomward.audit.event import BypassReviewed, SecurityAlert
from dicomward.audit.search import Query
from dicomward.io.audit.read import find_records
from dicomward.io.private_file import file_lock, make_private_directory, replace_file
from dicomward.policy.bypass import Bypass, Ending, Moment, judge_evidence

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
DIRECTORY_NAME: Final = "bypass"
_TIMES: Final = ("opened_at", "alarmed_at", "ended_at", "reviewed_at")
_TYPES: Final = {"minutes": int, "boot_seconds": float, "leased_seconds": float}
_UNPROVED: Final = ("boot", "boot_seconds", "leased_seconds", "alarmed_at")
_MAY_BE_NULL: Final = frozenset(
    {"device", "site", "alarmed_at", "ended_at", "ending", "ended_by", "reviewed_at", "reviewed_by", "note"}
)


class BypassFileError(ValueError):
    """The file of a bypass can't be read; the message says which and why."""


class Clocks:
    """The clocks that a bypass counts by."""

    def __init__(self) -> None:
        try:
            self._boot = _BOOT_ID.read_text(encoding="ascii").strip()
        except OSError:
            # A hardened unit may not see it: then each process counts as a boot, which gives no time back either.
            self._boot = f"process {os.getpid()} {time.monotonic_ns()}"

    def moment(self) -> Moment:
        """Return this moment."""
        return Moment(
            wall=datetime.now(UTC),  # noqa: TID251  io has the clocks
            boot=self._boot,
            boot_seconds=time.clock_gettime(time.CLOCK_BOOTTIME),
        )

    def monotonic(self) -> float:
        """Return the seconds that the relay counts by."""
        return time.monotonic()


def encode_bypass(bypass: Bypass) -> dict[str, object]:
    """Return the members of the file."""
    return {
        each.name: value.isoformat() if isinstance(value, datetime) else value
        for each in fields(bypass)
        for value in (getattr(bypass, each.name),)
    }


def state_digest(bypass: Bypass) -> str:
    """Return the SHA-256 over everything that the audit log proves of a bypass."""
    members = {name: value for name, value in encode_bypass(bypass).items() if name not in _UNPROVED}
    return sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()


def decode_bypass(text: str, name: str) -> Bypass:
    """Read the members of a file. Raises BypassFileError."""
    try:
        members = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BypassFileError(f"{name} is not JSON: {error}") from error
    known = {each.name: each for each in fields(Bypass)}
    if not isinstance(members, dict) or members.keys() != known.keys():
        raise BypassFileError(f"{name} does not have the members of a bypass")
    values: dict[str, object] = {}
    for key, value in members.items():
        values[key] = _decode_member(key, value, name)
    bypass = Bypass(**values)  # type: ignore[arg-type]  # each member was checked by its name
    if bypass.bypass_id != name or (bypass.device is None) == (bypass.site is None):
        raise BypassFileError(f"{name} is not a bypass of one device or one site, under its own name")
    return bypass


def _decode_member(key: str, value: object, name: str) -> object:
    try:
        if value is None and key in _MAY_BE_NULL:
            return None
        if key in _TIMES:
            return _decode_time(value)
        if key == "ending":
            return Ending(str(value))
        if type(value) is _TYPES.get(key, str):
            return value
    except ValueError:
        pass
    raise BypassFileError(f"{name}: {key} can't be {value!r}")


def _decode_time(value: object) -> datetime:
    """Read a time with its zone. Raises ValueError."""
    moment = datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment


@dataclass(frozen=True, slots=True)
class Stored:
    """What the files hold: bypasses by id, and what can't be read."""

    bypasses: Mapping[str, Bypass]
    problems: tuple[str, ...] = ()


def read_bypasses(state_directory: Path) -> Stored:
    """Read all files. A file that can't be read is a problem to report, never a bypass."""
    bypasses: dict[str, Bypass] = {}
    problems: list[str] = []
    try:
        paths = sorted((state_directory / DIRECTORY_NAME).glob("*.json"))
        for path in paths:
            if path.name.startswith("."):
                continue
            try:
                bypasses[path.stem] = decode_bypass(path.read_text(encoding="utf-8"), path.stem)
            except (OSError, BypassFileError, UnicodeDecodeError) as error:
                problems.append(f"{path}: {error}")
    except OSError as error:
        problems.append(f"{state_directory / DIRECTORY_NAME}: {error.strerror or error}")
    return Stored(bypasses, tuple(problems))


def write_bypass(state_directory: Path, bypass: Bypass) -> None:
    """Write the file of a bypass: old or new, whole, also after a power cut. Raises OSError."""
    path = _make_directory(state_directory) / f"{bypass.bypass_id}.json"
    replace_file(path, json.dumps(encode_bypass(bypass), ensure_ascii=False, indent=1) + "\n")


@contextmanager
def bypass_lock(state_directory: Path) -> Iterator[None]:
    """Let one process at a time read and change the files. Raises OSError, FileBusyError."""
    with file_lock(_make_directory(state_directory) / "bypass"):
        yield


def find_contradictions(audit_directory: Path, bypasses: Mapping[str, Bypass]) -> list[str]:
    """Compare the files with the audit log; return what does not fit. Raises OSError where the log can't be read."""
    recorded: dict[str, str] = {}
    reviewed = set()
    for code in (SecurityAlert.code, BypassReviewed.code):
        for each in find_records(audit_directory, Query(code=code), None):
            if not isinstance(each, Record):
                continue
            bypass_id, digest = each.members.get("bypass"), each.members.get("state_sha256")
            if isinstance(bypass_id, str) and isinstance(digest, str):
                recorded[bypass_id] = digest
                if code == BypassReviewed.code:
                    reviewed.add(bypass_id)
    digests = {bypass_id: state_digest(bypass) for bypass_id, bypass in bypasses.items()}
    return judge_evidence(digests, recorded, frozenset(reviewed))


def _make_directory(state_directory: Path) -> Path:
    directory = state_directory / DIRECTORY_NAME
    if not directory.is_dir():
        make_private_directory(directory)
    return directory
