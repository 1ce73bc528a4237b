"""A large scope, split into shards that any number of workers lease from one database: PostgreSQL, or SQLite alone.

A lease has a token and an end. A worker that dies lets its lease run out, and another takes the shard; what is stored
with a token that is no longer the shard's is refused, so nothing is counted twice. PostgreSQL gives each worker
another shard (FOR UPDATE SKIP LOCKED) and its clock is the only one. Why no job queue of others: ADR 0013.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    Column,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from dicomward.assess.observation import ServerObservation, observation_from_json, observation_to_json

_READS: Final = "dicomward_reads"
LEASE_SECONDS: Final = 120
SHARD_SERVERS: Final = 64

_METADATA: Final = MetaData()
_SHARD: Final = Table(
    "assess_shard",
    _METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("state", String(8), nullable=False, default="waiting"),
    Column("worker", String(80), nullable=False, default=""),
    Column("token", String(32), nullable=False, default=""),
    Column("until", Double, nullable=False, default=0.0),
)
_TARGET: Final = Table(
    "assess_target",
    _METADATA,
    Column("address", String(45), primary_key=True),
    Column("port", Integer, primary_key=True, autoincrement=False),
    Column("shard", Integer, nullable=False, index=True),
    Column("value", Text),
)
_SLICE: Final = Table(
    "assess_slice",
    _METADATA,
    Column("address", String(45), primary_key=True),
    Column("port", Integer, primary_key=True, autoincrement=False),
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)


class ShardError(Exception):
    """The database of the shards can't be used; it says why."""


class LeaseLost(Exception):
    """The shard belongs to another worker by now; what this one has seen of it is dropped."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard that is ours for a while."""

    shard: int
    token: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scope is."""

    done: int
    total: int


class ShardStore:
    """The shards of one scope. Safe for threads and processes; every method is one transaction."""

    def __init__(self, url: str, *, lease_seconds: int = LEASE_SECONDS) -> None:
        """Open the database, and make the tables where they are missing. Raises ShardError."""
        self._lease_seconds = lease_seconds
        self.renew_seconds = lease_seconds / 4
        try:
            self._engine = create_engine(url)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _prepare_sqlite)
                event.listen(self._engine, "begin", _begin)
            with self._engine.begin() as connection:
                if self._engine.dialect.name == "postgresql":
                    # Two workers that start together may both find no tables.
                    connection.execute(select(func.pg_advisory_xact_lock(0x64776172)))
                _METADATA.create_all(connection)
        except (SQLAlchemyError, ImportError) as error:
            raise ShardError(f"the database can't be used: {_reason(error)}") from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def plan(self, targets: Iterable[tuple[str, int]], *, size: int = SHARD_SERVERS) -> None:
        """Put servers into shards; those that are known stay where they are, and what they gave too."""
        with self._engine.begin() as connection:
            known = {(row.address, row.port) for row in connection.execute(select(_TARGET.c.address, _TARGET.c.port))}
            new = [each for each in dict.fromkeys(targets) if each not in known]
            first = (connection.execute(select(func.max(_SHARD.c.id))).scalar() or 0) + 1
            for place in range(0, len(new), size):
                shard = first + place // size
                connection.execute(insert(_SHARD).values(id=shard))
                connection.execute(
                    insert(_TARGET),
                    [{"address": address, "port": port, "shard": shard} for address, port in new[place : place + size]],
                )

    def lease(self, worker: str) -> Lease | None:
        """Take a shard that nobody works on; None if there is none now."""
        with self._engine.begin() as connection:
            now = self._now(connection)
            free = (
                select(_SHARD.c.id)
                .where(or_(_SHARD.c.state == "waiting", (_SHARD.c.state == "leased") & (_SHARD.c.until < now)))
                .order_by(_SHARD.c.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            shard = connection.execute(free).scalar()
            if shard is None:
                return None
            token = uuid4().hex
            connection.execute(
                update(_SHARD)
                .where(_SHARD.c.id == shard)
                .values(state="leased", worker=worker[:80], token=token, until=now + self._lease_seconds)
            )
            return Lease(int(shard), token)

    def renew(self, lease: Lease) -> None:
        """Keep a shard for longer. Raises LeaseLost."""
        with self._engine.begin() as connection:
            self._hold(connection, lease)

    def waiting_in(self, lease: Lease) -> list[tuple[str, int]]:
        """Return the servers of a shard that nobody has finished."""
        with self._reading() as connection:
            rows = connection.execute(
                select(_TARGET.c.address, _TARGET.c.port)
                .where(_TARGET.c.shard == lease.shard, _TARGET.c.value.is_(None))
                .order_by(_TARGET.c.address, _TARGET.c.port)
            )
            return [(row.address, row.port) for row in rows]

    def finish_server(self, lease: Lease, observation: ServerObservation) -> None:
        """Store what is known of a server, once and for all; its slices are of no use any more. Raises LeaseLost."""
        address, port = observation.address, observation.port
        text = json.dumps(observation_to_json(observation), separators=(",", ":"))
        with self._engine.begin() as connection:
            self._hold(connection, lease)
            connection.execute(
                update(_TARGET)
                .where(_TARGET.c.address == address, _TARGET.c.port == port, _TARGET.c.value.is_(None))
                .values(value=text)
            )
            connection.execute(delete(_SLICE).where(_SLICE.c.address == address, _SLICE.c.port == port))

    def finish_shard(self, lease: Lease) -> None:
        """Say that a shard is done. Raises LeaseLost."""
        with self._engine.begin() as connection:
            self._hold(connection, lease)
            connection.execute(update(_SHARD).where(_SHARD.c.id == lease.shard).values(state="done", token=""))

    def give_back(self, lease: Lease) -> None:
        """Let others take a shard at once; nothing happens if it isn't ours any more."""
        with self._engine.begin() as connection:
            connection.execute(
                update(_SHARD)
                .where(_SHARD.c.id == lease.shard, _SHARD.c.token == lease.token, _SHARD.c.state == "leased")
                .values(state="waiting", token="")
            )

    def progress(self) -> Progress:
        """Count the servers that are done, and all."""
        with self._reading() as connection:
            done, total = connection.execute(select(func.count(_TARGET.c.value), func.count())).one()
            return Progress(int(done), int(total))

    def is_done(self) -> bool:
        """Say if no shard is left for anybody."""
        with self._reading() as connection:
            return connection.execute(select(_SHARD.c.id).where(_SHARD.c.state != "done").limit(1)).scalar() is None

    def observations(self) -> Iterator[ServerObservation]:
        """Yield what is known of each server, by address and port."""
        with self._reading() as connection:
            rows: Sequence[Any] = connection.execute(
                select(_TARGET.c.value).where(_TARGET.c.value.is_not(None)).order_by(_TARGET.c.address, _TARGET.c.port)
            ).all()
        for row in rows:
            yield observation_from_json(json.loads(row.value))

    # --- slices: what a count_server.Keeper does ---

    def slices(self, address: str, port: int) -> list[tuple[str, str, dict[str, Any]]]:
        """Return name, state and numbers of each finished slice of a server."""
        with self._reading() as connection:
            rows = connection.execute(
                select(_SLICE.c.name, _SLICE.c.value).where(_SLICE.c.address == address, _SLICE.c.port == port)
            )
            return [(row.name, "done", json.loads(row.value)) for row in rows]

    def finish_slice(self, address: str, port: int, name: str, value: dict[str, Any], *, state: str = "done") -> None:
        """Keep the numbers of a slice until its server is finished; only `done` ones are."""
        if state != "done":
            return
        which = (_SLICE.c.address == address) & (_SLICE.c.port == port) & (_SLICE.c.name == name)
        with self._engine.begin() as connection:
            connection.execute(delete(_SLICE).where(which))
            connection.execute(
                insert(_SLICE).values(
                    address=address, port=port, name=name, value=json.dumps(value, separators=(",", ":"))
                )
            )

    # --- inside a transaction ---

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Begin a transaction that waits for no writer."""
        with self._engine.connect().execution_options(**{_READS: True}) as connection, connection.begin():
            yield connection

    def _now(self, connection: Connection) -> float:
        """Return the database's time: workers' clocks differ."""
        if self._engine.dialect.name == "postgresql":
            return float(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())
        return float(connection.execute(select((func.julianday("now") - 2440587.5) * 86400.0)).scalar_one())

    def _hold(self, connection: Connection, lease: Lease) -> None:
        done = connection.execute(
            update(_SHARD)
            .where(_SHARD.c.id == lease.shard, _SHARD.c.token == lease.token, _SHARD.c.state == "leased")
            .values(until=self._now(connection) + self._lease_seconds)
        )
        if not done.rowcount:
            raise LeaseLost(f"shard {lease.shard} belongs to another worker")


def _prepare_sqlite(connection: Any, record: object) -> None:
    # The driver would begin by itself, and too late for a lease.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA busy_timeout=30000")


def _begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _reason(error: BaseException) -> str:
    """Return the first line of the driver's message: SQLAlchemy adds the statement and a link."""
    cause = getattr(error, "orig", None) or error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
