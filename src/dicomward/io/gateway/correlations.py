"""Pending moves (in memory: they end with their association) and storage commitments (on disk: they outlive us).

A report may come hours after the request, over an association of its own, and after a restart of the gateway.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dicomward.relay.correlations import Ambiguous, MoveTable, PendingCommitment, PendingMove

_log = logging.getLogger(__name__)

# An archive that has not reported within so many days won't; the modality has asked again by then.
COMMITMENT_DAYS = 14
# Most pending ones of an archive towards one device; the oldest is forgotten for the next. A scanner asks for some
# dozens a day, so an archive that doesn't report for weeks costs nothing, and one device can't fill our memory.
MOST_OF_A_DEVICE = 2_000
_SECONDS_A_DAY = 86_400

_SCHEMA = """
CREATE TABLE IF NOT EXISTS commitment (
    transaction_uid TEXT NOT NULL,
    archive TEXT NOT NULL,
    device TEXT NOT NULL,
    device_ae_title TEXT NOT NULL,
    called_ae_title TEXT NOT NULL,
    requested REAL NOT NULL,
    PRIMARY KEY (transaction_uid, archive, device_ae_title)
)
"""
_COLUMNS = ("transaction_uid", "archive", "device", "device_ae_title", "called_ae_title")
_SELECT = f"SELECT {', '.join(_COLUMNS)}, requested FROM commitment ORDER BY requested"  # noqa: S608  constants only
_INSERT = "INSERT OR REPLACE INTO commitment VALUES (?, ?, ?, ?, ?, ?)"


class CorrelationStore:
    """The port `relay.correlations.Correlations` for one process, with a lock.

    `failed` hears, once, that commitments are kept in memory only; `works` that they are all on disk again.
    """

    def __init__(self, path: Path, *, failed: Callable[[str], object], works: Callable[[], object]) -> None:
        self._failed = failed
        self._works = works
        self._lock = threading.Lock()
        self._moves = MoveTable()
        self._turns: dict[str, Callable[[bool], None]] = {}
        self._writer = ThreadPoolExecutor(1, "dicomward-correlations")
        # By archive and title, then by transaction UID; with the time of the request, oldest first.
        self._commitments: dict[tuple[str, str], dict[str, tuple[PendingCommitment, float]]] = {}
        self._path = path
        # What follows belongs to the writer's thread.
        self._database: sqlite3.Connection | None = None
        self._is_loaded = False
        self._is_failing = False
        self._purged = 0.0
        self._wall, self._monotonic = time.time(), time.monotonic()
        self._writer.submit(self._load).result()

    def _now(self) -> float:
        """Return the time as the wall clock said at the start: one that jumps makes nothing older that we hold."""
        return self._wall + time.monotonic() - self._monotonic

    def close(self) -> None:
        """Write what is left, and close."""
        self._writer.submit(self._close).result()
        self._writer.shutdown()

    # -- moves ------------------------------------------------------------------------------------------------------

    def register_move(self, move: PendingMove, done: Callable[[bool], None]) -> None:
        """Register a move; `done(True)` when its turn has come."""
        with self._lock:
            granted = self._moves.request(move)
            if not granted:
                self._turns[move.move_id] = done
        if granted:
            done(True)

    def moves_towards(self, archive: str, destination_ae_title: str) -> Sequence[PendingMove]:
        """Return the running moves of an archive towards a destination."""
        with self._lock:
            return self._moves.towards(archive, destination_ae_title)

    def match_move(
        self, archive: str, destination_ae_title: str, originator_ae_title: str | None, message_id: int | None
    ) -> PendingMove | Ambiguous | None:
        """Return the move that a C-STORE sub-operation belongs to."""
        with self._lock:
            return self._moves.match(archive, destination_ae_title, originator_ae_title, message_id)

    def note_refused(self, move_id: str) -> None:
        """Note that the gateway refused a sub-operation of the move."""
        with self._lock:
            self._moves.note_refused(move_id)

    def finish_move(self, move_id: str) -> int:
        """Forget a move; return how many of its sub-operations the gateway refused."""
        with self._lock:
            self._turns.pop(move_id, None)
            refused, admitted = self._moves.finish(move_id)
            turns = [self._turns.pop(move.move_id) for move in admitted if move.move_id in self._turns]
        for turn in turns:
            turn(True)
        return refused

    # -- commitments ------------------------------------------------------------------------------------------------

    def register_commitment(self, commitment: PendingCommitment, done: Callable[[bool], None]) -> None:
        """Register a commitment; `done(True)` once it is on disk, or in memory only where the disk fails."""
        requested = self._now()
        with self._lock:
            forgotten = self._remember(commitment, requested)
        self._writer.submit(self._insert, commitment, requested, forgotten, done)

    def commitments_towards(self, archive: str, device_ae_title: str) -> Sequence[PendingCommitment]:
        """Pending commitments of an archive towards a device's title."""
        with self._lock:
            return [commitment for commitment, _ in self._commitments.get((archive, device_ae_title), {}).values()]

    def finish_commitment(self, transaction_uid: str, archive: str) -> None:
        """Forget a commitment that was reported on."""
        with self._lock:
            for (of_archive, _), pending in self._commitments.items():
                if of_archive == archive:
                    pending.pop(transaction_uid, None)
        self._writer.submit(
            self._write,
            "DELETE FROM commitment WHERE transaction_uid = ? AND archive = ?",
            [(transaction_uid, archive)],
        )

    def _remember(self, commitment: PendingCommitment, requested: float) -> PendingCommitment | None:
        """Keep a commitment in memory; return one that is forgotten for it, if any. Call it locked."""
        pending = self._commitments.setdefault((commitment.archive, commitment.device_ae_title), {})
        pending.pop(commitment.transaction_uid, None)
        pending[commitment.transaction_uid] = (commitment, requested)
        if len(pending) <= MOST_OF_A_DEVICE:
            return None
        return pending.pop(next(iter(pending)))[0]

    # -- the writer's thread ----------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            self._open()
        except sqlite3.Error as error:
            self._complain("opened", error)

    def _open(self) -> sqlite3.Connection:
        """Open the file; what it holds and what memory holds become one. Raises sqlite3.Error."""
        database = sqlite3.connect(self._path)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute(_SCHEMA)
            self._purge(database)
            if not self._is_loaded:
                rows = database.execute(_SELECT).fetchall()
                with self._lock:
                    for row in rows:
                        self._remember(PendingCommitment(**dict(zip(_COLUMNS, row[:-1], strict=True))), row[-1])
            with self._lock:
                pending = [_row(*each) for one in self._commitments.values() for each in one.values()]
            # What was registered, or reported on, while the file was away is put right.
            database.execute("DELETE FROM commitment")
            database.executemany(_INSERT, pending)
            database.commit()
        except sqlite3.Error:
            database.close()
            raise
        self._database = database
        self._is_loaded = True
        return database

    def _purge(self, database: sqlite3.Connection) -> None:
        """Forget what nobody will report on any more, once a day."""
        now = self._now()
        if now - self._purged < _SECONDS_A_DAY:
            return
        self._purged = now
        oldest = now - COMMITMENT_DAYS * _SECONDS_A_DAY
        with self._lock:
            for key, pending in list(self._commitments.items()):
                left = {uid: entry for uid, entry in pending.items() if entry[1] >= oldest}
                if left:
                    self._commitments[key] = left
                else:
                    del self._commitments[key]
        database.execute("DELETE FROM commitment WHERE requested < ?", (oldest,))

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _insert(
        self,
        commitment: PendingCommitment,
        requested: float,
        forgotten: PendingCommitment | None,
        done: Callable[[bool], None],
    ) -> None:
        if forgotten is not None:
            self._write(
                "DELETE FROM commitment WHERE transaction_uid = ? AND archive = ? AND device_ae_title = ?",
                [(forgotten.transaction_uid, forgotten.archive, forgotten.device_ae_title)],
            )
        self._write(_INSERT, [_row(commitment, requested)])
        # Clinical floor: storage commitment goes on without our disk; only a report after our restart would be lost.
        done(True)

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            database = self._database or self._open()
            database.executemany(statement, rows)
            self._purge(database)
            database.commit()
        except sqlite3.Error as error:
            self._close()
            self._complain("written", error)
            return
        if self._is_failing:
            self._is_failing = False
            _log.warning("%s can be written again: pending storage commitments are on disk", self._path)
            self._works()

    def _complain(self, what: str, error: sqlite3.Error) -> None:
        if self._is_failing:
            return
        self._is_failing = True
        detail = (
            f"{self._path} can't be {what}: {error}. Storage commitments are kept in memory only; "
            "free the disk or repair the file"
        )
        _log.error("%s", detail)
        self._failed(detail)


def _row(commitment: PendingCommitment, requested: float) -> tuple[object, ...]:
    return (*(getattr(commitment, column) for column in _COLUMNS), requested)
