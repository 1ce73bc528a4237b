"""The store of one run: `run.sqlite` in its directory. Hosts, observations, and slices of counting.

The unit of resuming is a host for probing, and a slice for counting: what is not marked as done runs again. A host
waits, is counted if its records are wanted, and is done. Nothing of a patient may be written here; the tables have no
place for it but numbers.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from dicomward.assess.observation import (
    ObservationError,
    ServerObservation,
    observation_from_json,
    observation_to_json,
)

STORE_NAME: Final = "run.sqlite"
SCHEMA_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS run (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS target (
    address TEXT PRIMARY KEY, host TEXT NOT NULL DEFAULT '', ports TEXT NOT NULL DEFAULT '[]',
    titles TEXT NOT NULL DEFAULT '[]', is_named INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'counting', 'done', 'excluded')),
    why TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS target_by_state ON target (state, address);
CREATE TABLE IF NOT EXISTS observation (
    address TEXT NOT NULL, port INTEGER NOT NULL, value TEXT NOT NULL, PRIMARY KEY (address, port)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slice (
    address TEXT NOT NULL, port INTEGER NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'given-up')),
    value TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (address, port, name)
) WITHOUT ROWID;
"""


class StoreError(Exception):
    """The directory holds no run, or one that can't be used so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """A host to be probed; without `ports` the scope's ports are meant. `is_named`: somebody has named it."""

    address: str
    host: str = ""
    ports: tuple[int, ...] = ()
    called_ae_titles: tuple[str, ...] = ()
    is_named: bool = False


class AssessStore:
    """The tables of one run. One writer; every method commits. Raises StoreError where a file can't be used."""

    def __init__(self, directory: Path, *, create: bool = False) -> None:
        path = directory / STORE_NAME
        if not create and not path.is_file():
            raise StoreError(f"{directory} holds no assessment: there is no {STORE_NAME}")
        try:
            # Where weak servers are is nobody else's business, whoever made the directory.
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
            version = self.value("schema")
            if version is None:
                self.set_value("schema", str(SCHEMA_VERSION))
            elif version != str(SCHEMA_VERSION):
                raise StoreError(f"{path} was written by another version (schema {version})")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path} can't be used: {error}; make room, or name another directory") from error

    def __enter__(self) -> "AssessStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # --- the run ---

    def value(self, name: str) -> str | None:
        """Return one fact of the run (`scope_sha256`, `owner`, `started_at`, `ended_at` …), None if not known."""
        row = self._database.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_value(self, name: str, value: str) -> None:
        """Set one fact of the run."""
        self._database.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, value))

    def values(self) -> dict[str, str]:
        """Return all facts of the run."""
        return dict(self._database.execute("SELECT name, value FROM run ORDER BY name"))

    # --- hosts ---

    def add_targets(self, targets: Iterable[TargetRow]) -> None:
        """Add hosts that wait; those that are known stay as they are."""
        rows = (
            (each.address, each.host, json.dumps(each.ports), json.dumps(each.called_ae_titles), each.is_named)
            for each in targets
        )
        with _Transaction(self._database):
            self._database.executemany(
                "INSERT OR IGNORE INTO target (address, host, ports, titles, is_named) VALUES (?, ?, ?, ?, ?)", rows
            )

    def copy_targets(self, rows: Iterable[tuple[TargetRow, str, str]]) -> None:
        """Take hosts over from another store, with their states and what their ports did."""
        values = (
            (row.address, row.host, json.dumps(row.ports), json.dumps(row.called_ae_titles), row.is_named, state, why)
            for row, state, why in rows
        )
        with _Transaction(self._database):
            self._database.executemany("INSERT INTO target VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def copy_observations(self, observations: Iterable[ServerObservation]) -> None:
        """Take over what another store knows of servers."""
        with _Transaction(self._database):
            for each in observations:
                self._put(each)

    def exclude(self, address: str, why: str) -> None:
        """Note a host that is not touched."""
        self._database.execute(
            "INSERT OR REPLACE INTO target (address, state, why) VALUES (?, 'excluded', ?)", (address, why)
        )

    def exclude_all(self, excluded: Iterable[tuple[str, str]]) -> None:
        """Note several of them."""
        with _Transaction(self._database):
            self._database.executemany(
                "INSERT OR REPLACE INTO target (address, state, why) VALUES (?, 'excluded', ?)", excluded
            )

    def excluded(self) -> list[tuple[str, str]]:
        """Return the hosts that are not touched, and why."""
        return list(self._database.execute("SELECT address, why FROM target WHERE state = 'excluded' ORDER BY address"))

    def waiting(self, after: str = "", limit: int = 1000) -> list[TargetRow]:
        """Return the next hosts that wait, in the order of their text, after `after`."""
        rows = self._database.execute(
            "SELECT address, host, ports, titles, is_named FROM target WHERE state = 'waiting' AND address > ? "
            "ORDER BY address LIMIT ?",
            (after, limit),
        )
        return [
            TargetRow(
                address=address,
                host=host,
                ports=tuple(json.loads(ports)),
                called_ae_titles=tuple(json.loads(titles)),
                is_named=bool(is_named),
            )
            for address, host, ports, titles, is_named in rows
        ]

    def progress(self) -> tuple[int, int]:
        """Return how many hosts are done, and how many there are (without those that are excluded)."""
        done, total = self._database.execute(
            "SELECT COALESCE(SUM(state = 'done'), 0), COALESCE(SUM(state != 'excluded'), 0) FROM target"
        ).fetchone()
        return int(done), int(total)

    def finish_host(
        self,
        address: str,
        observations: Iterable[ServerObservation],
        reach: str = "",
        *,
        is_to_be_counted: bool = False,
    ) -> None:
        """Store what was seen of a host in one transaction; `reach` is what its ports did.

        It is done then, or waits until its records are counted.
        """
        with _Transaction(self._database):
            for each in observations:
                self._put(each)
            self._database.execute(
                "UPDATE target SET state = ?, why = ? WHERE address = ?",
                ("counting" if is_to_be_counted else "done", reach, address),
            )

    def finish_hosts(self, reaches: Iterable[tuple[str, str]]) -> None:
        """Mark hosts on which nothing was found as done, in one transaction: addresses, and what their ports did."""
        with _Transaction(self._database):
            self._database.executemany(
                "UPDATE target SET state = 'done', why = ? WHERE address = ?", ((why, each) for each, why in reaches)
            )

    def to_be_counted(self) -> list[str]:
        """Return the hosts that were looked at, and whose records are still to be counted."""
        rows = self._database.execute("SELECT address FROM target WHERE state = 'counting' ORDER BY address")
        return [str(address) for (address,) in rows]

    def finish_counting(self, address: str, observations: Iterable[ServerObservation]) -> None:
        """Store the counts of a host, and mark it as done; its slices are of no use any more."""
        with _Transaction(self._database):
            for each in observations:
                self._put(each)
            self._database.execute("UPDATE target SET state = 'done' WHERE address = ?", (address,))
            self._database.execute("DELETE FROM slice WHERE address = ?", (address,))

    def reach_of(self, address: str) -> str:
        """Return what the ports of a host did (as "refused, silent"), "" if it wasn't looked at."""
        row = self._database.execute(
            "SELECT why FROM target WHERE address = ? AND state IN ('counting', 'done')", (address,)
        ).fetchone()
        return "" if row is None else str(row[0])

    # --- observations ---

    def _put(self, observation: ServerObservation) -> None:
        text = json.dumps(observation_to_json(observation), separators=(",", ":"))
        self._database.execute(
            "INSERT OR REPLACE INTO observation VALUES (?, ?, ?)", (observation.address, observation.port, text)
        )

    def observations(self) -> Iterator[ServerObservation]:
        """Yield what is known of each server, by address and port. Raises StoreError."""
        yield from map(_read, self._database.execute("SELECT * FROM observation ORDER BY address, port"))

    def observations_as_json(self) -> Iterator[Any]:
        """Yield the same as values of JSON, as `observation_to_json` has made them. Raises StoreError."""
        yield from map(_load, self._database.execute("SELECT * FROM observation ORDER BY address, port"))

    def observations_of(self, address: str) -> list[ServerObservation]:
        """Return what is known of the servers of one host. Raises StoreError."""
        rows = self._database.execute("SELECT * FROM observation WHERE address = ? ORDER BY port", (address,))
        return [_read(row) for row in rows]

    # --- slices of counting ---

    def finish_slice(self, address: str, port: int, name: str, value: dict[str, Any], *, state: str = "done") -> None:
        """Store the numbers of a slice; `state` is "done" or "given-up"."""
        self._database.execute(
            "INSERT OR REPLACE INTO slice VALUES (?, ?, ?, ?, ?)",
            (address, port, name, state, json.dumps(value, separators=(",", ":"))),
        )

    def slices(self, address: str, port: int) -> list[tuple[str, str, dict[str, Any]]]:
        """Return the name, state and numbers of each slice of a server."""
        rows = self._database.execute(
            "SELECT name, state, value FROM slice WHERE address = ? AND port = ? ORDER BY name", (address, port)
        )
        return [(name, state, json.loads(value)) for name, state, value in rows]


def _load(row: tuple[str, int, str]) -> Any:
    try:
        return json.loads(row[2])
    except json.JSONDecodeError as error:
        raise _unreadable(row, error) from error


def _read(row: tuple[str, int, str]) -> ServerObservation:
    try:
        return observation_from_json(_load(row))
    except ObservationError as error:
        raise _unreadable(row, error) from error


def _unreadable(row: tuple[str, int, str], error: Exception) -> StoreError:
    return StoreError(f"what is stored of {row[0]} port {row[1]} can't be read: {error}")


class _Transaction:
    """BEGIN, and COMMIT or ROLLBACK."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.execute("COMMIT" if error is None else "ROLLBACK")
