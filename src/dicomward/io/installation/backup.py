"""Backups of a gateway's directory, made while the gateway runs. docs/backup.md says what they hold and promise.

Databases are copied with SQLite's own backup, the registry and its snapshot under their lock, the audit log up to its
newest checkpoint: what comes out verifies as a log that was closed in order.
"""

import hashlib
import io
import json
import os
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from dicomward import __version__
from dicomward.audit.chain import Checkpoint, decode_checkpoint, decode_record
from dicomward.audit.encode_json import RecordError
from dicomward.io.audit.read import CHECKPOINTS_NAME, list_segments, read_checkpoint_lines, read_lines
from dicomward.io.installation.compression import compressed, ending_of
from dicomward.io.registry.store import snapshot_lock
from dicomward.settings import Settings

MANIFEST_NAME: Final = "manifest.json"
GATEWAY: Final = "gateway"
OUTSIDE: Final = "outside"
FORMAT_VERSION: Final = 1
MOST_FILES: Final = 20_000
_SQLITE_MAGIC: Final = b"SQLite format 3\0"
_SQLITE_COMPANIONS: Final = ("-wal", "-shm", "-journal")
# The lock and the reserve belong to a running writer; checkpoints are cut, so they have a way of their own.
_AUDIT_LEFT_OUT: Final = frozenset({"lock", "reserve", CHECKPOINTS_NAME})
# Where the gateway writes to for others: on another disk or machine by intention.
_OUTPUTS: Final = frozenset({"second_sink", "heads_file"})
_SQLITE_URL: Final = "sqlite"


class BackupError(Exception):
    """The backup can't be made, read or restored; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file in a backup. `sha256` is hex."""

    name: str
    bytes: int
    sha256: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup says of itself. `outside` maps folders in it to the absolute paths that they came from."""

    version: str
    made: str
    configuration: str
    audit_records: int
    audit_signed: str
    entries: tuple[Entry, ...]
    outside: dict[str, str]

    @property
    def bytes(self) -> int:
        """How much the files hold."""
        return sum(entry.bytes for entry in self.entries)


@dataclass(slots=True)
class Made:
    """A finished backup, and what it does not hold."""

    manifest: Manifest
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Planned:
    """A file to be copied: all of it, or its first `end` bytes."""

    name: str
    path: Path
    end: int | None = None


@dataclass(slots=True)
class _Plan:
    files: list[_Planned] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    outside: dict[str, str] = field(default_factory=dict)
    checkpoint: Checkpoint | None = None


def make_backup(settings: Settings, path: Path, now: datetime) -> Made:
    """Write a backup of everything that the settings lead to; the file is there whole, mode 0600, or not at all.

    Raises BackupError, OSError, RegistryStoreError (somebody changes the registry for too long).
    """
    path = path.absolute()
    ending_of(path)
    if path.exists():
        raise BackupError(f"{path} is there already, and nothing is overwritten; choose another name")
    if path.resolve().is_relative_to(settings.directory.resolve()):
        raise BackupError(
            f"{path} is inside the gateway's directory; put the backup elsewhere, best on another machine"
        )
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    building = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as output:
            with compressed(output, ending_of(path)) as stream:
                made = _write(settings, stream, now)
            output.flush()
            os.fsync(output.fileno())
        # A link, unlike a renaming, takes the place of nothing.
        os.link(building, path)
    finally:
        building.unlink(missing_ok=True)
    return made


def _write(settings: Settings, stream: IO[bytes], now: datetime) -> Made:
    # While the lock is held nobody changes the registry: database and snapshot belong together.
    with snapshot_lock(settings.registry.snapshot):
        plan = _plan(settings)
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            entries = [entry for planned in plan.files if (entry := _add(archive, planned, now, plan)) is not None]
            manifest = Manifest(
                version=__version__,
                made=now.isoformat(timespec="seconds"),
                configuration=f"{GATEWAY}/{settings.path.name}",
                audit_records=plan.checkpoint.seq if plan.checkpoint else 0,
                audit_signed=plan.checkpoint.time if plan.checkpoint else "",
                entries=tuple(entries),
                outside=plan.outside,
            )
            data = encode_manifest(manifest)
            _add_bytes(archive, MANIFEST_NAME, io.BytesIO(data), len(data), 0o600, now)
    return Made(manifest, tuple(plan.left_out))


# --- what belongs to it ----------------------------------------------------------------------------------------------


def _plan(settings: Settings) -> _Plan:
    plan = _Plan()
    base, audit = settings.directory.resolve(), settings.audit.directory.resolve()
    _plan_tree(plan, base, GATEWAY, audit)
    for number, path in enumerate(_outside_of(settings, base), start=1):
        folder = f"{OUTSIDE}/{number}"
        plan.outside[folder] = str(path)
        if path.is_dir():
            _plan_tree(plan, path, folder, audit)
        elif path.exists():
            plan.files.append(_Planned(f"{folder}/{path.name}", path))
    if not settings.registry.url.startswith(_SQLITE_URL):
        plan.left_out.append("the registry's PostgreSQL database: back it up with pg_dump")
    return plan


def _paths_of(value: object) -> Iterator[tuple[str, Path]]:
    """Yield each path in a tree of settings, with the name of its setting."""
    if is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            inner = getattr(value, item.name)
            if isinstance(inner, Path):
                yield item.name, inner
            else:
                yield from _paths_of(inner)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _paths_of(each)


def _outside_of(settings: Settings, base: Path) -> list[Path]:
    """Return what the settings name outside of their own directory."""
    named = [path for name, path in _paths_of(settings) if name not in _OUTPUTS]
    scheme, _, database = settings.registry.url.partition(":///")
    if scheme.startswith(_SQLITE_URL):
        named.append(Path(database))
    found = {path.resolve() for path in named if path.exists()}
    return sorted(path for path in found if not path.is_relative_to(base))


def _plan_tree(plan: _Plan, directory: Path, folder: str, audit: Path) -> None:
    for parent, names, files in os.walk(directory):
        names.sort()
        here = Path(parent)
        if here.resolve() == audit:
            _plan_audit(plan, here, f"{folder}/{here.relative_to(directory)}".removesuffix("/."))
            names.clear()
            continue
        for name in names:
            if (here / name).is_symlink():
                plan.left_out.append(f"{here / name}: a link to a directory")
        for name in sorted(files):
            _plan_file(plan, here / name, f"{folder}/{(here / name).relative_to(directory)}")
    if len(plan.files) > MOST_FILES:
        raise BackupError(
            f"{directory} holds more than {MOST_FILES} files, which can't all be a gateway's; "
            "give the gateway a directory of its own"
        )


def _plan_file(plan: _Plan, path: Path, name: str) -> None:
    if any(path.name.endswith(each) and _is_sqlite(Path(str(path)[: -len(each)])) for each in _SQLITE_COMPANIONS):
        return
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            plan.left_out.append(f"{path}: a link to nowhere")
        return
    if stat.S_ISREG(mode):
        plan.files.append(_Planned(name, path))
    elif not stat.S_ISSOCK(mode):
        plan.left_out.append(f"{path}: it is no file")


def _plan_audit(plan: _Plan, directory: Path, folder: str) -> None:
    """Plan the log up to its newest checkpoint, read before the segments: what it signs is in them."""
    checkpoints = directory / CHECKPOINTS_NAME
    signed, end = _last_checkpoint(checkpoints)
    plan.checkpoint = signed
    segments = {each.path: each for each in list_segments(directory)}
    for path in sorted(directory.iterdir()):
        segment = segments.get(path)
        if segment is None:
            if path.name not in _AUDIT_LEFT_OUT:
                _plan_file(plan, path, f"{folder}/{path.name}")
        elif signed is None or segment.first_seq <= signed.seq:
            plan.files.append(
                _Planned(f"{folder}/{path.name}", path, _end_of_record(path, signed.seq if signed else None))
            )
    if checkpoints.exists():
        plan.files.append(_Planned(f"{folder}/{CHECKPOINTS_NAME}", checkpoints, end))


def _last_checkpoint(path: Path) -> tuple[Checkpoint | None, int]:
    """Return the newest checkpoint, and how many bytes of the file end with it."""
    newest, end, position = None, 0, 0
    for line in read_checkpoint_lines(path):
        position += len(line)
        try:
            newest, end = decode_checkpoint(line.rstrip(b"\n")), position
        except RecordError:
            continue
    return newest, end


def _end_of_record(path: Path, seq: int | None) -> int:
    """Return how many bytes of a segment end with a record; all its whole lines, if it ends before that one."""
    position = 0
    for line in read_lines(path):
        if not line.endswith(b"\n"):
            break
        position += len(line)
        if seq is not None and f'"seq":{seq},'.encode() in line and decode_record(line.rstrip(b"\n")).seq == seq:
            break
    return position


# --- writing ---------------------------------------------------------------------------------------------------------


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC
    except OSError:
        return False


def _add(archive: tarfile.TarFile, planned: _Planned, now: datetime, plan: _Plan) -> Entry | None:
    """Copy one file; None if it has vanished meanwhile, as old files may."""
    try:
        mode = stat.S_IMODE(planned.path.stat().st_mode)
        with _source(planned) as (file, size):
            return _add_bytes(archive, planned.name, file, size, mode, now)
    except FileNotFoundError:
        plan.left_out.append(f"{planned.path}: it has gone meanwhile")
        return None


@contextmanager
def _source(planned: _Planned) -> Iterator[tuple[IO[bytes], int]]:
    """Open what is copied, with its size: a consistent copy of a database, else the file as it is now."""
    if planned.end is None and _is_sqlite(planned.path):
        with tempfile.TemporaryDirectory(prefix="dicomward-backup-") as scratch:
            copy = Path(scratch) / "copy.db"
            _copy_database(planned.path, copy)
            with copy.open("rb") as file:
                yield file, copy.stat().st_size
        return
    with planned.path.open("rb") as file:
        yield file, os.fstat(file.fileno()).st_size if planned.end is None else planned.end


def _copy_database(source: Path, copy: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as database,
            closing(sqlite3.connect(copy)) as target,
        ):
            database.backup(target)
            # Without it the copy would want files beside it that a backup does not hold.
            target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise BackupError(f"the database {source} can't be copied: {error}; repair it, or move it away") from error


class _Hashing(io.RawIOBase):
    """Reads through, and keeps the hash of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read at most so many bytes."""
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def _add_bytes(archive: tarfile.TarFile, name: str, file: IO[bytes], size: int, mode: int, now: datetime) -> Entry:
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = size, mode, int(now.timestamp())
    reader = _Hashing(file)
    archive.addfile(header, reader)
    return Entry(name=name, bytes=size, sha256=reader.sha256.hexdigest(), mode=mode)


# --- the manifest ----------------------------------------------------------------------------------------------------


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON."""
    members = {
        "format": FORMAT_VERSION,
        "dicomward": manifest.version,
        "made": manifest.made,
        "configuration": manifest.configuration,
        "audit_records": manifest.audit_records,
        "audit_signed": manifest.audit_signed,
        "outside": manifest.outside,
        "files": [
            {"name": entry.name, "bytes": entry.bytes, "sha256": entry.sha256, "mode": entry.mode}
            for entry in manifest.entries
        ],
    }
    return json.dumps(members, indent=1).encode() + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Read a manifest. Raises BackupError."""
    try:
        members = json.loads(data)
        if members["format"] != FORMAT_VERSION:
            raise BackupError(
                f"the backup has format {members['format']!r}, this release reads {FORMAT_VERSION}; "
                "restore it with the release that made it"
            )
        return Manifest(
            version=str(members["dicomward"]),
            made=str(members["made"]),
            configuration=str(members["configuration"]),
            audit_records=int(members["audit_records"]),
            audit_signed=str(members["audit_signed"]),
            outside={str(key): str(value) for key, value in members["outside"].items()},
            entries=tuple(_entries(members["files"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BackupError(f"its {MANIFEST_NAME} can't be read ({error}): this is no whole backup of ours") from error


def _entries(files: Iterable[dict[str, object]]) -> Iterator[Entry]:
    for each in files:
        size, mode = each["bytes"], each["mode"]
        if not isinstance(size, int) or not isinstance(mode, int):
            raise TypeError("sizes and modes are numbers")
        yield Entry(name=str(each["name"]), bytes=size, sha256=str(each["sha256"]), mode=mode)
