"""The spool: what was accepted lies here until the archive has it. The files are the truth; nothing else is needed.

    incoming/   being received; emptied at the start, since nobody was told that it was kept
    ready/      accepted: durable before the device gets its answer
    quarantine/ refused for good, with the reason beside it

A name says when, in which order, of which device and study (a keyed number), and how long it is.
"""

import fcntl
import hashlib
import hmac
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dicomward.edge.queue import Waiting
from dicomward.io.edge.spool_seal import KEY_BYTES, Description, Sealer, Unsealer
from dicomward.settings.edge import CREDENTIAL, SpoolSettings

_NAME: Final = re.compile(
    r"(?P<ms>\d{15})-(?P<serial>[0-9a-f]{12})-(?P<study>[0-9a-f]{16})-(?P<size>\d+)-(?P<device>[A-Za-z0-9_-]+)\.dw\Z"
)
_SUFFIX: Final = ".dw"
_REASON_SUFFIX: Final = ".reason.json"
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_KEY_HEX: Final = 2 * KEY_BYTES


class SpoolError(Exception):
    """The spool can't be used; the message says what and what to do."""


class SpoolFull(Exception):
    """There is no place for it: the quota, or the disk."""


def read_spool_key(settings: SpoolSettings) -> bytes:
    """Return the key: 32 bytes, or 64 hexadecimal digits, in a file or a credential. Raises SpoolError."""
    path = Path(settings.key)
    if settings.key.startswith(CREDENTIAL):
        directory = os.environ.get(_CREDENTIALS)
        if directory is None:
            raise SpoolError(f"spool.key is {settings.key!r}, and the service manager has handed over no credentials")
        path = Path(directory) / settings.key.removeprefix(CREDENTIAL)
    try:
        key = path.read_bytes()
    except OSError as error:
        raise SpoolError(f"the spool's key {path} can't be read: {error.strerror}; docs/edge.md says how") from error
    if len(key.strip()) == _KEY_HEX:
        try:
            key = bytes.fromhex(key.strip().decode("ascii"))
        except ValueError as error:
            raise SpoolError(f"the spool's key {path} is neither 32 bytes nor 64 hexadecimal digits") from error
    if len(key) != KEY_BYTES:
        raise SpoolError(f"the spool's key {path} is neither 32 bytes nor 64 hexadecimal digits")
    return key


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Be the only agent that uses a spool. Raises SpoolError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SpoolError(f"another agent uses {directory}; stop it first") from error
        yield


class Spool:
    """The spool of one agent. Thread-safe."""

    def __init__(self, settings: SpoolSettings, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._key = key
        self._clock = clock
        self._incoming = settings.directory / "incoming"
        self._ready = settings.directory / "ready"
        self._quarantine = settings.directory / "quarantine"
        self._lock = threading.Lock()
        # Two starts within a millisecond, or a clock set back, must not give the same name twice.
        self._serial = int.from_bytes(os.urandom(4), "big") << 14
        self._bytes = 0

    def open(self) -> dict[str, list[Waiting]]:
        """Return what waits, by device. Raises OSError."""
        for directory in (self._incoming, self._ready, self._quarantine):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._incoming.iterdir():
            left.unlink()
        found: dict[str, list[Waiting]] = {}
        for path in sorted(self._ready.iterdir()):
            match = _NAME.match(path.name)
            if match is not None:
                found.setdefault(match["device"], []).append(_waiting(path.name))
        self._bytes = sum(path.stat().st_size for path in (*self._ready.iterdir(), *self._quarantine.iterdir()))
        return found

    def receive(self, device: str, description: Description) -> "Incoming":
        """Begin to receive an object. Raises SpoolFull, OSError."""
        self.need_room()
        with self._lock:
            self._serial += 1
            serial = self._serial
        return Incoming(self, self._incoming / f"{os.getpid()}-{serial}", device, description, self._key)

    def need_room(self) -> None:
        """Raise SpoolFull if the quota is used up, or too little of the disk is free."""
        if self._bytes >= self._settings.quota_bytes:
            raise SpoolFull(f"the quota of {self._settings.quota_bytes} bytes is used up")
        if shutil.disk_usage(self._incoming).free < self._settings.free_bytes:
            raise SpoolFull(f"less than {self._settings.free_bytes} bytes of the disk are free")

    def keep(self, path: Path, device: str, study: bytes) -> Waiting:
        """Make a received file durable; when this returns, it is accepted. Raises OSError."""
        size = path.stat().st_size
        token = hmac.new(self._key, b"study" + study, hashlib.sha256).hexdigest()[:16]
        with self._lock:
            self._serial += 1
            name = f"{int(self._clock() * 1000):015d}-{self._serial:012x}-{token}-{size}-{device}{_SUFFIX}"
            self._bytes += size
        path.rename(self._ready / name)
        _sync_directory(self._ready)
        return _waiting(name)

    def read(self, waiting: Waiting) -> Unsealer:
        """Open what waits. Raises SealError, OSError."""
        return Unsealer(self._ready / waiting.name, self._key)

    def delivered(self, waiting: Waiting) -> None:
        """Delete what the archive has."""
        (self._ready / waiting.name).unlink(missing_ok=True)
        with self._lock:
            self._bytes -= waiting.size

    def set_aside(self, waiting: Waiting, reason: str) -> None:
        """Keep what was refused for good in the quarantine. Raises OSError."""
        note = json.dumps({"time": self._clock(), "reason": reason})
        (self._quarantine / f"{waiting.name}{_REASON_SUFFIX}").write_text(note, "utf-8")
        (self._ready / waiting.name).rename(self._quarantine / waiting.name)
        _sync_directory(self._quarantine)
        _sync_directory(self._ready)


def _waiting(name: str) -> Waiting:
    match = _NAME.match(name)
    if match is None:
        raise ValueError(name)
    return Waiting(name=name, study=match["study"], size=int(match["size"]), received=int(match["ms"]) / 1000)


class Incoming:
    """One object that is being received."""

    def __init__(self, spool: Spool, path: Path, device: str, description: Description, key: bytes) -> None:
        self._spool = spool
        self._path = path
        self._device = device
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        try:
            self._sealer = Sealer(self._file, key, description)
        except OSError:
            self.abandon()
            raise

    def write(self, data: bytes | memoryview) -> None:
        """Write some of it. Raises OSError."""
        self._sealer.write(data)

    def keep(self, study: bytes) -> Waiting:
        """Make it durable. Raises SpoolFull, OSError."""
        self._sealer.finish()
        self._spool.need_room()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._spool.keep(self._path, self._device, study)

    def abandon(self) -> None:
        """Forget it: nobody was told that it is kept."""
        try:
            self._file.close()
        except OSError:
            # What could not be written isn't wanted.
            pass
        self._path.unlink(missing_ok=True)


def spool_report(settings: SpoolSettings, now: float) -> dict[str, object]:
    """Return what lies in the spool, for `dicomward edge status`; no key is needed. Raises OSError."""
    devices: dict[str, dict[str, float]] = {}
    for path in _listed(settings.directory / "ready"):
        match = _NAME.match(path)
        if match is not None:
            entry = devices.setdefault(match["device"], {"objects": 0, "bytes": 0, "oldest_seconds": 0.0})
            entry["objects"] += 1
            entry["bytes"] += int(match["size"])
            entry["oldest_seconds"] = max(entry["oldest_seconds"], round(now - int(match["ms"]) / 1000, 1))
    quarantine = []
    for name in _listed(settings.directory / "quarantine"):
        match = _NAME.match(name)
        if match is not None:
            note = settings.directory / "quarantine" / f"{name}{_REASON_SUFFIX}"
            reason = json.loads(note.read_text("utf-8"))["reason"] if note.exists() else "unknown"
            quarantine.append({"name": name, "device": match["device"], "bytes": int(match["size"]), "reason": reason})
    return {"waiting": devices, "quarantine": quarantine, "quota_bytes": settings.quota_bytes}


def release_quarantine(settings: SpoolSettings) -> int:
    """Put what was set aside back; a running agent finds it at its next start. Returns how many. Raises OSError."""
    count = 0
    for name in _listed(settings.directory / "quarantine"):
        if _NAME.match(name):
            (settings.directory / "quarantine" / name).rename(settings.directory / "ready" / name)
            (settings.directory / "quarantine" / f"{name}{_REASON_SUFFIX}").unlink(missing_ok=True)
            count += 1
    return count


def _listed(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []
