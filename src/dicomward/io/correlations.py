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
_SECONDS_A_DAY = 86_400

_SCHEMA = """
CREATE TABLE IF NOT EXISTS commitment (
    transaction_uid TEXT NOT NULL,
    archive TEXT NOT NULL,
    device TEXT NOT NULL,
    device_ae_title TEXT NOT NULL,
    called_ae_title TEXT NOT NULL,
    requested REAL NOT NULL,
    PRIMARY KEY (transaction_uid, archive)
)
"""


class CorrelationStore:
    """The port `relay.correlations.Correlations` for one process, with a lock."""

    def __init__(self, path: Path, *, failed: Callable[[str], None]) -> None:
        self._failed = failed
        self._lock = threading.Lock()
        self._moves = MoveTable()
        self._turns: dict[str, Callable[[bool], None]] = {}
        self._writer = ThreadPoolExecutor(1, "dicomward-correlations")
        self._commitments: dict[tuple[str, str], PendingCommitment] = {}
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._writer.submit(self._open).result()

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
        with self._lock:
            self._commitments[(commitment.transaction_uid, commitment.archive)] = commitment
        self._writer.submit(self._insert, commitment, done)

    def commitments_towards(self, archive: str, device_ae_title: str) -> Sequence[PendingCommitment]:
        """Pending commitments of an archive towards a device's title."""
        with self._lock:
            return [
                commitment
                for commitment in self._commitments.values()
                if (commitment.archive, commitment.device_ae_title) == (archive, device_ae_title)
            ]

    def finish_commitment(self, transaction_uid: str, archive: str) -> None:
        """Forget a commitment that was reported on."""
        with self._lock:
            self._commitments.pop((transaction_uid, archive), None)
        self._writer.submit(self._delete, transaction_uid, archive)

    # -- the writer's thread ----------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            database = sqlite3.connect(self._path)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute(_SCHEMA)
            oldest = time.time() - COMMITMENT_DAYS * _SECONDS_A_DAY
            database.execute("DELETE FROM commitment WHERE requested < ?", (oldest,))
            database.commit()
            rows = database.execute(
                "SELECT transaction_uid, archive, device, device_ae_title, called_ae_title FROM commitment"
            ).fetchall()
        except sqlite3.Error as error:
            self._complain("opened", error)
            return
        self._database = database
        for transaction_uid, archive, device, device_ae_title, called_ae_title in rows:
            self._commitments[(transaction_uid, archive)] = PendingCommitment(
                transaction_uid=transaction_uid,
                archive=archive,
                device=device,
                device_ae_title=device_ae_title,
                called_ae_title=called_ae_title,
            )

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()

    def _insert(self, commitment: PendingCommitment, done: Callable[[bool], None]) -> None:
        self._write(
            "INSERT OR REPLACE INTO commitment VALUES (?, ?, ?, ?, ?, ?)",
            (
                commitment.transaction_uid,
                commitment.archive,
                commitment.device,
                commitment.device_ae_title,
                commitment.called_ae_title,
                time.time(),
            ),
        )
        # Clinical floor: storage commitment goes on without our disk; only a report after our restart would be lost.
        done(True)

    def _delete(self, transaction_uid: str, archive: str) -> None:
        self._write("DELETE FROM commitment WHERE transaction_uid = ? AND archive = ?", (transaction_uid, archive))

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            if self._database is None:
                self._open()
            if self._database is not None:
                self._database.execute(statement, values)
                self._database.commit()
        except sqlite3.Error as error:
            self._complain("written", error)

    def _complain(self, what: str, error: sqlite3.Error) -> None:
        detail = (
            f"{self._path} can't be {what}: {error}. Storage commitments are kept in memory only; "
            "free the disk or repair the file"
        )
        _log.error("%s", detail)
        self._failed(detail)
