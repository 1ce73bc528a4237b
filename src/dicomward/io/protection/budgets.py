"""The budgets of one process: the book behind a lock, kept in SQLite, and the keyed hashes that stand for patients.

Nothing is sent that isn't on disk first: `keep` calls back when all that has been charged is written. So a kill -9 can
make a budget only smaller, by what was charged and not sent any more. While the file can't be written, only the
clinical floor is left (docs/budgets.md).
"""

import hashlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dicomward.audit.event import AuditEvent, BudgetEnded, BudgetWarned, SecurityAlert
from dicomward.io.system import calls
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.budgets import (
    STEP_MINUTES,
    STEPS,
    BudgetBook,
    Charge,
    Holder,
    ItemRow,
    Level,
    Measure,
    Notice,
    Outcome,
    Span,
    SumRow,
    Usage,
)
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

FILE_NAME = "budgets.db"
KEY_NAME = "budgets.key"
_KEY_BYTES = 32
# A disk that hasn't answered by then is treated as failed.
STALL_SECONDS = 2.0
# A failed disk is tried again, and what nobody waits for is written, so often.
_IDLE_SECONDS = 1.0
# What a power cut (never a crash of ours) may lose.
_SYNC_SECONDS = 5.0
_PURGE_SECONDS = 3600.0

_SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS item (
        device TEXT NOT NULL, measure TEXT NOT NULL, item INTEGER NOT NULL, minute INTEGER NOT NULL,
        PRIMARY KEY (device, measure, item)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS amount (
        device TEXT NOT NULL, measure TEXT NOT NULL, span INTEGER NOT NULL, step INTEGER NOT NULL,
        amount INTEGER NOT NULL, PRIMARY KEY (device, measure, span, step)
    ) WITHOUT ROWID
    """,
)
_PUT_ITEM = "INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?)"
_PUT_AMOUNT = "INSERT OR REPLACE INTO amount VALUES (?, ?, ?, ?, ?)"


class BudgetFileError(Exception):
    """The budgets on disk can't be used; the message says why."""


class BudgetClock:
    """Wall time in seconds that goes on evenly, whatever somebody does to the wall clock while we run."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = calls.seconds_since_boot,
    ) -> None:
        self._steady = steady
        self._offset = wall() - steady()

    def now(self) -> float:
        """Return this moment."""
        return self._steady() + self._offset


class Hasher:
    """Stands for a patient or study by a number that only this gateway can make."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, *parts: str | bytes) -> int:
        """Return 63 bits of a keyed BLAKE2b over the parts."""
        data = b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts)
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=self._key).digest(), "big") >> 1


def read_key(path: Path) -> bytes:
    """Return the key, made now if there is none. Raises BudgetFileError.

    It is there whole or not at all: a full disk or a crash must not leave an empty one, which nobody could use.
    """
    try:
        key = path.read_bytes() if path.exists() else b""
        if not key:
            key = secrets.token_bytes(_KEY_BYTES)
            fresh = path.with_name(f"{path.name}.new")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | calls.FILE_FLAGS, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            calls.replace(fresh, path)
    except OSError as error:
        raise BudgetFileError(f"{path} can't be used: {error.strerror or error}") from error
    if len(key) != _KEY_BYTES:
        raise BudgetFileError(f"{path} must hold {_KEY_BYTES} bytes, not {len(key)}; remove it, and a new one is made")
    return key


class BudgetDatabase:
    """The file. Raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        # One connection for one thread at a time: the writer's, or a command's.
        self._database = sqlite3.connect(path, check_same_thread=False, timeout=STALL_SECONDS)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            for statement in _SCHEMA:
                self._database.execute(statement)
            self._database.commit()
        except sqlite3.Error:
            self._database.close()
            raise
        os.chmod(path, 0o600)

    def rows(self) -> list[ItemRow | SumRow]:
        """Read everything."""
        items = self._database.execute("SELECT device, measure, item, minute FROM item ORDER BY minute")
        found: list[ItemRow | SumRow] = [
            ItemRow(device, Measure(measure), item, minute) for device, measure, item, minute in items
        ]
        amounts = self._database.execute("SELECT device, measure, span, step, amount FROM amount")
        found += [
            SumRow(device, Measure(measure), Span(span), step, amount)
            for device, measure, span, step, amount in amounts
        ]
        return found

    def put(self, rows: Sequence[ItemRow | SumRow], forgotten: Sequence[str] = (), *, whole: bool = False) -> None:
        """Write rows in one transaction; `whole` replaces everything, `forgotten` devices go first."""
        with self._database:
            if whole:
                self._database.execute("DELETE FROM item")
                self._database.execute("DELETE FROM amount")
            for device in forgotten:
                self._database.execute("DELETE FROM item WHERE device = ?", (device,))
                self._database.execute("DELETE FROM amount WHERE device = ?", (device,))
            self._database.executemany(_PUT_ITEM, [row for row in rows if isinstance(row, ItemRow)])
            self._database.executemany(_PUT_AMOUNT, [row for row in rows if isinstance(row, SumRow)])

    def purge(self, minute: int) -> None:
        """Forget what no window holds any more."""
        with self._database:
            days = STEPS[Span.DAYS_30] + 1
            self._database.execute("DELETE FROM item WHERE minute < ?", (minute - days * STEP_MINUTES[Span.DAYS_30],))
            for span in Span:
                oldest = minute // STEP_MINUTES[span] - STEPS[span]
                self._database.execute("DELETE FROM amount WHERE span = ? AND step < ?", (span, oldest))

    def sync(self) -> None:
        """Make what is written outlive a power cut."""
        self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class BudgetStore:
    """The port `relay.world.SharedBudgets`.

    `failed` hears, once, that budgets can't be kept; `works` that they are all on disk again; `record` gets the alarms.
    """

    def __init__(
        self,
        directory: Path,
        settings: BudgetSettings,
        *,
        failed: Callable[[str], object],
        works: Callable[[], object],
        record: Callable[[AuditEvent], object],
        clock: BudgetClock | None = None,
    ) -> None:
        self._path = directory / FILE_NAME
        self._key_path = directory / KEY_NAME
        self._failed = failed
        self._works = works
        self._record = record
        self._clock = clock or BudgetClock()
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._book = BudgetBook(settings)
        self._hash: Hasher | None = None
        self._waiting: list[Callable[[], object]] = []
        self._forgotten: list[str] = []
        self._is_closing = False
        self.lost: ReasonCode | None = None
        self._written: list[Callable[[], object]] = []
        self._busy_since: float | None = None
        self._closed = threading.Event()
        # What follows belongs to the writer's thread.
        self._database: BudgetDatabase | None = None
        self._is_loaded = False
        self._is_synced = True
        self._synced = self._purged = self._clock.now()
        self._attempt(lambda: self._write((), ()))
        self._threads = [
            threading.Thread(target=self._write_until_closed, name="dicomward-budgets", daemon=True),
            threading.Thread(target=self._watch_until_closed, name="dicomward-budgets-watch", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    # -- the port ---------------------------------------------------------------------------------------------------

    def patient(self, archive: str, patient_id: bytes) -> int:
        """Return what stands for a patient of an archive."""
        return self._hash("patient", archive, patient_id) if self._hash is not None else 0

    def study(self, archive: str, study: bytes) -> int:
        """Return what stands for a study of an archive."""
        return self._hash("study", archive, study) if self._hash is not None else 0

    def check(self, holders: Sequence[Holder], charge: Charge) -> ReasonCode | None:
        """See BudgetBook.check."""
        if self.lost is not None:
            return self.lost
        with self._lock:
            return self._book.check(holders, charge, self._clock.now())

    def charge(self, holders: Sequence[Holder], charge: Charge, *, forced: bool = False) -> Outcome:
        """See BudgetBook.charge; alarms are recorded here."""
        if self.lost is not None and not forced:
            return Outcome(refused=self.lost)
        with self._lock:
            outcome = self._book.charge(holders, charge, self._clock.now(), forced=forced)
        self._tell(outcome.notices)
        return outcome

    def lease(self, holders: Sequence[Holder], needed: int) -> Outcome:
        """See BudgetBook.lease."""
        with self._lock:
            outcome = self._book.lease(holders, needed, self._clock.now())
        self._tell(outcome.notices)
        return outcome

    def refund(self, holders: Sequence[Holder], count: int, minute: int) -> None:
        """See BudgetBook.refund; it is written with the next charge, or soon."""
        with self._wake:
            self._book.refund(holders, count, minute, self._clock.now())
            self._wake.notify()

    def keep(self, done: Callable[[], object]) -> None:
        """Call back when all that has been charged is on disk, or when it is known that it can't be."""
        with self._wake:
            if self.lost is None and not self._is_closing:
                self._waiting.append(done)
                self._wake.notify()
                return
        done()

    def use_settings(self, settings: BudgetSettings) -> None:
        """See BudgetBook.use_settings."""
        with self._lock:
            self._book.use_settings(settings)

    # -- for operators ----------------------------------------------------------------------------------------------

    def devices(self) -> list[str]:
        """Return who has used anything."""
        with self._lock:
            return self._book.devices()

    def usage(self, holder: Holder) -> tuple[Usage, ...]:
        """Return what a device has used."""
        with self._lock:
            return self._book.usage(holder, self._clock.now())

    def reset(self, device: str, done: Callable[[], object]) -> bool:
        """Forget what a device has used; call back when that is on disk. False if it had used nothing."""
        with self._wake:
            had_used = self._book.reset(device)
            self._forgotten.append(device)
        self.keep(done)
        return had_used

    def close(self) -> None:
        """Write what is left, and close."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        # A disk that hangs must not keep the gateway from stopping.
        self._threads[0].join(STALL_SECONDS)
        self._closed.set()
        self._threads[1].join()

    # -- alarms -----------------------------------------------------------------------------------------------------

    def _tell(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            kind = BudgetEnded if notice.level is Level.ENDED else BudgetWarned
            detail = (
                f"{notice.used} of {notice.budget} {notice.measure} per {notice.span.label.replace('_', ' ')}; "
                f"at its end: {notice.at_end}"
            )
            facts = {
                "device": notice.holder.device,
                "role": notice.holder.role,
                "reason": notice.measure.reason,
                "detail": detail,
            }
            _log.warning("budget of device %s: %s", notice.holder.device, detail)
            self._record(
                kind(
                    **facts,  # type: ignore[arg-type]
                    action=notice.at_end.value,
                    measure=notice.measure.value,
                    period=notice.span.label,
                    count=notice.used,
                    budget=notice.budget,
                )
            )
            self._record(SecurityAlert(**facts, count=notice.used))  # type: ignore[arg-type]

    # -- the writer and its watcher ---------------------------------------------------------------------------------

    def _write_until_closed(self) -> None:
        while True:
            with self._wake:
                # What is waited for goes at once; the rest waits for company, or for the disk to be repaired.
                self._wake.wait_for(lambda: self._waiting or self._is_closing, _IDLE_SECONDS)
                is_last = self._is_closing
                self._written, self._waiting = self._waiting, []
                changes = self._book.take_changes()
                forgotten, self._forgotten = self._forgotten, []
                self._busy_since = time.monotonic()
            self._attempt(lambda: self._write(changes, forgotten))  # noqa: B023  it runs before the next turn
            self._release()
            if is_last:
                self._close_database()
                return

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do something with the disk, and note if it works."""
        self._busy_since = time.monotonic()
        try:
            work()
        except (sqlite3.Error, BudgetFileError, OSError, ValueError) as error:
            self._lose(str(error))
        else:
            self._found()
        finally:
            self._busy_since = None

    def _watch_until_closed(self) -> None:
        """Release whoever waits for a disk that doesn't answer."""
        while not self._closed.wait(STALL_SECONDS / 4):
            since = self._busy_since
            if since is not None and time.monotonic() - since > STALL_SECONDS:
                self._lose(f"{self._path}: the disk has not answered for {STALL_SECONDS:g} s")
                self._release()

    def _open(self) -> BudgetDatabase:
        self._hash = Hasher(read_key(self._key_path))
        database = BudgetDatabase(self._path)
        try:
            if not self._is_loaded:
                rows = database.rows()
                with self._lock:
                    self._book.load(rows, self._clock.now())
                self._is_loaded = True
        except BaseException:
            database.close()
            raise
        self._database = database
        return database

    def _write(self, changes: Sequence[ItemRow | SumRow], forgotten: Sequence[str]) -> None:
        """Write what has changed; after a failure everything, since nobody knows what of it is there."""
        try:
            whole = self._database is None or self.lost is not None
            database = self._database or self._open()
            if whole:
                with self._lock:
                    changes = list(self._book.rows())
            if whole or changes or forgotten:
                database.put(changes, forgotten, whole=whole)
                self._is_synced = False
            now = self._clock.now()
            if not self._is_synced and now - self._synced > _SYNC_SECONDS:
                database.sync()
                self._synced, self._is_synced = now, True
            if now - self._purged > _PURGE_SECONDS:
                database.purge(int(now // 60))
                self._purged = now
        except (sqlite3.Error, OSError, ValueError):
            self._close_database()
            raise

    def _close_database(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _lose(self, detail: str) -> None:
        with self._lock:
            is_new = self.lost is None
            self.lost = ReasonCode.BUDGETS_UNAVAILABLE
        if is_new:
            detail = f"{detail}. Budgets can't be kept, so only the clinical floor is left; free the disk or repair it"
            _log.error("%s", detail)
            self._failed(detail)

    def _found(self) -> None:
        with self._lock:
            was_lost, self.lost = self.lost is not None, None
        if was_lost:
            _log.warning("%s can be written again: budgets are kept", self._path)
            self._works()

    def _release(self) -> None:
        """Call back whoever waits: for what was written, and, while it can't be, everybody."""
        with self._lock:
            released, self._written = self._written, []
            if self.lost is not None:
                released, self._waiting = released + self._waiting, []
        for done in released:
            done()
