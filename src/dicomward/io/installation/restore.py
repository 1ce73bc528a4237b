"""Reading backups: verifying one, and restoring one into a new directory.

Nothing of a backup is believed before it is checked: names stay inside the new directory, every file must be the one
that the manifest names, and the directory gets its place only when all of it is there.
"""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath
from typing import IO, Final

from dicomward.io.installation.backup import (
    GATEWAY,
    MANIFEST_NAME,
    OUTSIDE,
    BackupError,
    Entry,
    Manifest,
    decode_manifest,
)
from dicomward.io.installation.compression import PackingError, unpacked

_FOLDER: Final = re.compile(rf"(?:{GATEWAY}|{OUTSIDE}/[0-9]{{1,4}})/")
_MOST_MANIFEST_BYTES: Final = 64 * 1024 * 1024
_PIECE_BYTES: Final = 1024 * 1024
_SAFE_MODES: Final = 0o755

_Take = Callable[[Entry, IO[bytes]], str]


def verify_backup(path: Path) -> Manifest:
    """Read a whole backup and compare it with its manifest. Raises BackupError, OSError."""
    return _read(path, lambda _entry, file: _copy(file, None))


def restore_backup(path: Path, directory: Path) -> Manifest:
    """Make `directory` from a backup; it must not be there, or be empty. Raises BackupError, OSError.

    Files from outside the gateway's directory go to `outside/` in it.
    """
    directory = directory.absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BackupError(f"{directory} is there already, and nothing is overwritten; choose another, or move it away")
    directory.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        manifest = _read(path, lambda entry, file: _extract(building, entry, file))
        if directory.exists():
            directory.rmdir()
        building.rename(directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return manifest


def _read(path: Path, take: _Take) -> Manifest:
    found: dict[str, Entry] = {}
    data: bytes | None = None
    try:
        with unpacked(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if data is not None:
                    raise BackupError(f"{path} goes on after its manifest: it was changed")
                file = archive.extractfile(member) if member.isreg() else None
                if file is None:
                    raise BackupError(f"{path} holds {member.name!r}, which is no ordinary file: it is none of ours")
                if member.name == MANIFEST_NAME:
                    data = file.read(_MOST_MANIFEST_BYTES)
                    continue
                _verify_name(path, member.name)
                if member.name in found:
                    raise BackupError(f"{path} holds {member.name!r} twice: it was changed")
                entry = Entry(name=member.name, bytes=member.size, sha256="", mode=member.mode)
                digest = take(entry, file)
                found[member.name] = Entry(name=entry.name, bytes=entry.bytes, sha256=digest, mode=entry.mode)
    except (tarfile.TarError, EOFError, zlib.error, BadGzipFile) as error:
        raise BackupError(f"{path} is no whole backup: {error}. Take another copy of it") from error
    except PackingError as error:
        raise BackupError(str(error)) from error
    if data is None:
        raise BackupError(f"{path} has no {MANIFEST_NAME}: it breaks off, or is no backup of ours")
    manifest = decode_manifest(data)
    _verify_same(path, manifest, found)
    return manifest


def _verify_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name).parts
    is_plain = name == "/".join(parts) and not {"..", ".", "/"} & set(parts) and "\\" not in name and name.isprintable()
    if not is_plain or _FOLDER.match(name) is None:
        raise BackupError(f"{path} holds a file {name!r} that belongs nowhere: it was changed, or is none of ours")


def _verify_same(path: Path, manifest: Manifest, found: dict[str, Entry]) -> None:
    named = {entry.name: entry for entry in manifest.entries}
    for name in sorted(named.keys() | found.keys()):
        if name not in found:
            raise BackupError(f"{path} has lost {name}: take another copy of it")
        if name not in named:
            raise BackupError(f"{path} holds {name}, which its manifest does not name: it was changed")
        if named[name] != found[name]:
            raise BackupError(f"{name} in {path} is not the file that the manifest names: it was changed or damaged")
    if manifest.configuration not in named:
        raise BackupError(f"{path} has no {manifest.configuration}: it is no backup of a gateway")


def _extract(building: Path, entry: Entry, file: IO[bytes]) -> str:
    inner = entry.name.removeprefix(f"{GATEWAY}/")
    target = building / inner
    if inner.startswith(f"{OUTSIDE}/") and not entry.name.startswith(f"{OUTSIDE}/"):
        raise BackupError(f"{entry.name} has the name of a folder of ours ({OUTSIDE}): restore it by hand, with tar")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        digest = _copy(file, output)
        os.fchmod(output.fileno(), entry.mode & _SAFE_MODES)
        output.flush()
        os.fsync(output.fileno())
    return digest


def _copy(file: IO[bytes], output: IO[bytes] | None) -> str:
    digest = hashlib.sha256()
    while piece := file.read(_PIECE_BYTES):
        digest.update(piece)
        if output is not None:
            output.write(piece)
    return digest.hexdigest()
