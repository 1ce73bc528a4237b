"""The spool: what was accepted lies here until the archive has it. The files are the truth; nothing else is needed.

    incoming/   being received; emptied at the start, since nobody was told that it was kept
    ready/      accepted: durable before the device gets its answer
    quarantine/ refused for good, with the reason beside it; or overdue, with nothing beside it, and still being sent
    stored/     the archive has answered with success, and has not committed to it yet

A name says when, in which order, of which device and study (a keyed number), and how long it is.
"""

import hashlib
import hmac
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomward.edge.queue import Waiting
from dicomward.io.edge.spool_seal import Description, Sealer, SpoolKey, Unsealer
from dicomward.io.system import calls
from dicomward.settings.edge import REQUIRED, SpoolSettings

_log = logging.getLogger(__name__)

_NAME: Final = re.compile(
    r"(?P<ms>\d{15})-(?P<serial>[0-9a-f]{12})-(?P<study>[0-9a-f]{16})-(?P<size>\d+)-(?P<device>[A-Za-z0-9_-]+)\.dw\Z"
)
_SUFFIX: Final = ".dw"
_REASON_SUFFIX: Final = ".reason.json"
_RETRY: Final = "retry"
_RETRIED: Final = "retried.json"
_RETRY_SECONDS: Final = 10.0


class SpoolError(Exception):
    """The spool can't be used; the message says what and what to do."""


class SpoolFull(Exception):
    """There is no place for it: the quota, or the disk."""


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Be the only agent that uses a spool. Raises SpoolError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            calls.lock_file(lock.fileno())
        except BlockingIOError as error:
            raise SpoolError(f"another agent uses {directory}; stop it first") from error
        yield


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in the spool of one device at the start."""

    ready: tuple[Waiting, ...] = ()
    overdue: tuple[Waiting, ...] = ()
    stored: tuple[Waiting, ...] = ()

    def __len__(self) -> int:
        """Return how many have not been deleted yet and are not refused."""
        return len(self.ready) + len(self.overdue) + len(self.stored)


class Spool:
    """The spool of one agent. Thread-safe."""

    def __init__(
        self, settings: SpoolSettings, keys: Callable[[str], SpoolKey], clock: Callable[[], float] = time.time
    ) -> None:
        """`keys` tells the key of a device, by its name."""
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._directory = settings.directory
        self._incoming = settings.directory / "incoming"
        self._ready = settings.directory / "ready"
        self._quarantine = settings.directory / "quarantine"
        self._stored = settings.directory / "stored"
        self._lock = threading.Lock()
        # Which of those that wait lie in the quarantine: they are overdue.
        self._overdue: set[str] = set()
        # What the archive has answered and not committed to, the oldest first.
        self._uncommitted: dict[str, Waiting] = {}
        # Two starts within a millisecond, or a clock set back, must not give the same name twice.
        self._serial = int.from_bytes(os.urandom(4), "big") << 14
        self._bytes = 0

    def open(self) -> dict[str, Found]:
        """Return what waits, by device. Raises OSError."""
        for directory in (self._incoming, self._ready, self._quarantine, self._stored):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._incoming.iterdir():
            left.unlink()
        self._bytes = 0
        ready, stored = self._look(self._ready), self._look(self._stored)
        overdue = self._look(self._quarantine)
        self._overdue = {each.name for waiting in overdue.values() for each in waiting}
        self._uncommitted = {each.name: each for waiting in stored.values() for each in waiting}
        return {
            device: Found(*(tuple(each.get(device, ())) for each in (ready, overdue, stored)))
            for device in {*ready, *overdue, *stored}
        }

    def _look(self, directory: Path) -> dict[str, list[Waiting]]:
        """Return the objects of a folder by device, in the order of arrival, but for those with a reason beside."""
        found: dict[str, list[Waiting]] = {}
        names: list[str] = []
        with os.scandir(directory) as entries:
            for entry in entries:
                names.append(entry.name)
                self._bytes += entry.stat().st_size
        refused = {name.removesuffix(_REASON_SUFFIX) for name in names if name.endswith(_REASON_SUFFIX)}
        for name in sorted(names):
            match = _NAME.match(name)
            if match is not None and name not in refused:
                found.setdefault(match["device"], []).append(_waiting(name))
        return found

    def receive(self, device: str, description: Description) -> "Incoming":
        """Begin to receive an object. Raises SpoolFull, OSError."""
        self.need_room()
        with self._lock:
            self._serial += 1
            serial = self._serial
        return Incoming(self, self._incoming / f"{os.getpid()}-{serial}", device, description, self._keys(device))

    def need_room(self) -> None:
        """Raise SpoolFull if the quota is used up, or too little of the disk is free.

        Before a device hears that, what the archive has already answered with success gives way, unless a commitment
        is required: an examination is worth more than a second copy.
        """
        while (lack := self._lack()) is not None:
            if self._settings.commitment == REQUIRED or not self._give_way():
                raise SpoolFull(lack)

    def _lack(self) -> str | None:
        if self._bytes >= self._settings.quota_bytes:
            return f"the quota of {self._settings.quota_bytes} bytes is used up"
        if shutil.disk_usage(self._incoming).free < self._settings.free_bytes:
            return f"less than {self._settings.free_bytes} bytes of the disk are free"
        return None

    def _give_way(self) -> bool:
        with self._lock:
            waiting = next(iter(self._uncommitted.values()), None)
        if waiting is None:
            return False
        _log.error("ALARM %s is deleted without a commitment, though the archive has taken it: no room", waiting.name)
        self.committed(waiting)
        return True

    def keep(self, path: Path, device: str, study: bytes) -> Waiting:
        """Make a received file durable; when this returns, it is accepted. Raises OSError."""
        size = path.stat().st_size
        token = hmac.new(self._keys(device).token_key, b"study" + study, hashlib.sha256).hexdigest()[:16]
        with self._lock:
            self._serial += 1
            name = f"{int(self._clock() * 1000):015d}-{self._serial:012x}-{token}-{size}-{device}{_SUFFIX}"
            self._bytes += size
        calls.replace(path, self._ready / name)
        calls.sync_directory(self._ready)
        return _waiting(name)

    def _folder(self, waiting: Waiting) -> Path:
        return self._quarantine if waiting.name in self._overdue else self._ready

    def read(self, waiting: Waiting) -> Unsealer:
        """Open what waits. Raises SealError, OSError."""
        key = self._key_of(waiting)
        with self._lock:
            return Unsealer(self._folder(waiting) / waiting.name, key)

    def describe_stored(self, waiting: Waiting) -> Description:
        """Return what one is that the archive has answered. Raises SealError, OSError."""
        unsealer = Unsealer(self._stored / waiting.name, self._key_of(waiting))
        unsealer.close()
        return unsealer.description

    def _key_of(self, waiting: Waiting) -> SpoolKey:
        match = _NAME.match(waiting.name)
        return self._keys(match["device"] if match is not None else "")

    def delivered(self, waiting: Waiting) -> None:
        """Delete what the archive has."""
        with self._lock:
            calls.unlink(self._folder(waiting) / waiting.name)
            self._overdue.discard(waiting.name)
            self._bytes -= waiting.size

    def store(self, waiting: Waiting) -> None:
        """Keep what the archive has answered until it commits to it. Raises OSError."""
        # Not synced: should it be lost with the power, the object is sent once more.
        with self._lock:
            calls.replace(self._folder(waiting) / waiting.name, self._stored / waiting.name)
            self._overdue.discard(waiting.name)
            self._uncommitted[waiting.name] = waiting

    def is_uncommitted(self, waiting: Waiting) -> bool:
        """Say if it is still kept for the archive's commitment."""
        with self._lock:
            return waiting.name in self._uncommitted

    def committed(self, waiting: Waiting) -> None:
        """Delete what the archive has committed to."""
        with self._lock:
            if self._uncommitted.pop(waiting.name, None) is not None:
                calls.unlink(self._stored / waiting.name)
                self._bytes -= waiting.size

    def send_again(self, waiting: Waiting) -> None:
        """Take back what the archive has not committed to after all. Raises OSError."""
        with self._lock:
            calls.replace(self._stored / waiting.name, self._ready / waiting.name)
            self._uncommitted.pop(waiting.name, None)
        calls.sync_directory(self._ready)

    def set_aside(self, waiting: Waiting, reason: str) -> None:
        """Keep what was refused for good in the quarantine. Raises OSError."""
        note = json.dumps({"time": self._clock(), "reason": reason})
        (self._quarantine / f"{waiting.name}{_REASON_SUFFIX}").write_text(note, "utf-8")
        with self._lock:
            calls.replace(self._folder(waiting) / waiting.name, self._quarantine / waiting.name)
            self._overdue.discard(waiting.name)
        calls.sync_directory(self._quarantine)
        calls.sync_directory(self._ready)

    def mark_overdue(self, overdue: list[Waiting]) -> None:
        """Put what waits for too long into the quarantine; it is still being sent. Raises OSError."""
        for waiting in overdue:
            with self._lock:
                try:
                    calls.replace(self._ready / waiting.name, self._quarantine / waiting.name)
                except FileNotFoundError:
                    # Delivered meanwhile.
                    continue
                self._overdue.add(waiting.name)
        calls.sync_directory(self._quarantine)
        calls.sync_directory(self._ready)

    def retry_if_asked(self) -> list[tuple[str, Waiting]] | None:
        """Take back what was refused, if an operator has asked for it; with the devices' names. Raises OSError."""
        request = self._directory / _RETRY
        try:
            number = request.read_text("utf-8")
        except FileNotFoundError:
            return None
        names = _take_back(self._directory)
        new = self._directory / f"{_RETRIED}.new"
        new.write_text(json.dumps({"request": number, "objects": len(names)}), "utf-8")
        calls.replace(new, self._directory / _RETRIED)
        request.unlink()
        return [(match["device"], _waiting(name)) for name in names if (match := _NAME.match(name)) is not None]


def _waiting(name: str) -> Waiting:
    match = _NAME.match(name)
    if match is None:
        raise ValueError(name)
    return Waiting(name=name, study=match["study"], size=int(match["size"]), received=int(match["ms"]) / 1000)


class Incoming:
    """One object that is being received."""

    def __init__(self, spool: Spool, path: Path, device: str, description: Description, key: SpoolKey) -> None:
        self._spool = spool
        self._path = path
        self._device = device
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | calls.FILE_FLAGS, 0o600), "wb")
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
        calls.unlink(self._path)


def spool_report(settings: SpoolSettings, now: float) -> dict[str, object]:
    """Return what lies in the spool, for `dicomward edge status`; no key is needed. Raises OSError."""
    devices: dict[str, dict[str, float]] = {}
    uncommitted: dict[str, dict[str, float]] = {}
    quarantine: list[dict[str, object]] = []
    for name in _listed(settings.directory / "ready"):
        _count(devices, name, now)
    for name in _listed(settings.directory / "stored"):
        _count(uncommitted, name, now)
    folder = settings.directory / "quarantine"
    names = _listed(folder)
    notes = {name for name in names if name.endswith(_REASON_SUFFIX)}
    for name in names:
        match = _NAME.match(name)
        if match is None:
            continue
        note = f"{name}{_REASON_SUFFIX}"
        if note in notes:
            state, reason = "refused", _reason_in(folder / note)
        else:
            state, reason = "overdue", f"older than {settings.alarm_minutes:g} minutes; still being sent"
            _count(devices, name, now)
        size = int(match["size"])
        quarantine.append({"name": name, "device": match["device"], "bytes": size, "state": state, "reason": reason})
    return {
        "waiting": devices,
        "uncommitted": uncommitted,
        "quarantine": quarantine,
        "quota_bytes": settings.quota_bytes,
    }


def _count(devices: dict[str, dict[str, float]], name: str, now: float) -> None:
    match = _NAME.match(name)
    if match is not None:
        entry = devices.setdefault(match["device"], {"objects": 0, "bytes": 0, "oldest_seconds": 0.0})
        entry["objects"] += 1
        entry["bytes"] += int(match["size"])
        entry["oldest_seconds"] = max(entry["oldest_seconds"], round(now - int(match["ms"]) / 1000, 1))


def _reason_in(note: Path) -> str:
    try:
        return str(json.loads(note.read_text("utf-8"))["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def release_quarantine(settings: SpoolSettings) -> int:
    """Have what was refused sent again: at once by a running agent, else by the next. Returns how many.

    Raises SpoolError, OSError.
    """
    try:
        with alone_in(settings.directory):
            return len(_take_back(settings.directory))
    except SpoolError:
        return _ask_the_agent(settings.directory)


def _take_back(directory: Path) -> list[str]:
    quarantine, ready = directory / "quarantine", directory / "ready"
    names = []
    for name in _listed(quarantine):
        note = quarantine / f"{name}{_REASON_SUFFIX}"
        if _NAME.match(name) and note.exists():
            calls.replace(quarantine / name, ready / name)
            note.unlink()
            names.append(name)
    if names:
        calls.sync_directory(ready)
    return names


def _ask_the_agent(directory: Path) -> int:
    """Leave a note that a running agent looks for each second, and wait for its answer. Raises SpoolError, OSError."""
    number = os.urandom(8).hex()
    request, answer = directory / _RETRY, directory / _RETRIED
    new = directory / f"{_RETRY}.{number}"
    new.write_text(number, "utf-8")
    new.replace(request)
    deadline = time.monotonic() + _RETRY_SECONDS
    while time.monotonic() < deadline:
        if answer.exists():
            told = json.loads(answer.read_text("utf-8"))
            if told["request"] == number:
                return int(told["objects"])
        time.sleep(0.05)
    raise SpoolError(f"the agent that uses {directory} has not answered in {_RETRY_SECONDS:g} s; look into its log")


def _listed(directory: Path) -> list[str]:
    return sorted(os.listdir(directory)) if directory.exists() else []
