"""A run that several workers share, in one database: PostgreSQL, or SQLite on one machine. What they lease are shards.

A shard is some hosts to be probed, or one host to be counted. A lease has a token and an end. A worker that dies lets
its lease run out, and another takes the shard; what is stored with a token that is no longer the shard's is refused,
so nothing is counted twice. PostgreSQL gives each worker another shard (FOR UPDATE SKIP LOCKED) and its clock is the
only one. Why no job queue of others: ADR 0013.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    Integer,
    MetaData,
    Select,
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
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import SQLAlchemyError

from dicomward.assess.observation import ServerObservation, observation_from_json, observation_to_json
from dicomward.io.assess.store import TargetRow

_READS: Final = "dicomward_reads"
LEASE_SECONDS: Final = 120
SHARD_HOSTS: Final = 64
_PAGE: Final = 1000
_SLICE_SECONDS: Final = 5.0

_METADATA: Final = MetaData()
_RUN: Final = Table(
    "assess_run", _METADATA, Column("name", String(40), primary_key=True), Column("value", Text, nullable=False)
)
_SHARD: Final = Table(
    "assess_shard",
    _METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # The host to be counted; "" for hosts to be probed.
    Column("counts", String(45), nullable=False, default=""),
    # The fragile network that it is in: of these only one is leased at a time.
    Column("alone", String(50), nullable=False, default=""),
    Column("state", String(8), nullable=False, default="waiting"),
    Column("worker", String(80), nullable=False, default=""),
    Column("token", String(32), nullable=False, default=""),
    Column("until", Double, nullable=False, default=0.0),
)
_TARGET: Final = Table(
    "assess_target",
    _METADATA,
    Column("address", String(255), primary_key=True),
    Column("host", Text, nullable=False, default=""),
    Column("ports", Text, nullable=False, default="[]"),
    Column("titles", Text, nullable=False, default="[]"),
    Column("is_named", Boolean, nullable=False, default=False),
    Column("state", String(8), nullable=False, default="waiting", index=True),
    Column("why", Text, nullable=False, default=""),
    Column("shard", Integer, nullable=False, default=0, index=True),
)
_OBSERVATION: Final = Table(
    "assess_observation",
    _METADATA,
    Column("address", String(45), primary_key=True),
    Column("port", Integer, primary_key=True, autoincrement=False),
    Column("value", Text, nullable=False),
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
    """A shard that is ours for a while. `counts` is the host to be counted, "" where hosts are to be probed."""

    shard: int
    token: str
    counts: str = ""


@dataclass(frozen=True, slots=True)
class Slice:
    """The numbers of one slice of a server."""

    address: str
    port: int
    name: str
    value: dict[str, Any]


class ShardStore:
    """The shards of one run. Safe for threads and processes; every method is one transaction. Raises ShardError."""

    def __init__(
        self, url: str, *, lease_seconds: float = LEASE_SECONDS, alone_of: Callable[[str], str] = lambda address: ""
    ) -> None:
        """Open the database, and make the tables where they are missing.

        `alone_of` names the fragile network of an address, whose hosts are worked on by one worker at a time.
        """
        self._alone_of = alone_of
        self._lease_seconds = lease_seconds
        self.renew_seconds = lease_seconds / 4
        try:
            self._engine = create_engine(url)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _prepare_sqlite)
                event.listen(self._engine, "begin", _begin)
        except (SQLAlchemyError, ImportError) as error:
            raise ShardError(f"the database can't be used: {_reason(error)}") from error
        with self._writing() as connection:
            if self._engine.dialect.name == "postgresql":
                # Two workers that start together may both find no tables.
                connection.execute(select(func.pg_advisory_xact_lock(0x64776172)))
            _METADATA.create_all(connection)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # --- the run ---

    def value(self, name: str) -> str | None:
        """Return one fact of the run, None if not known."""
        return self.values().get(name)

    def values(self) -> dict[str, str]:
        """Return all facts of the run."""
        with self._reading() as connection:
            return {row.name: row.value for row in connection.execute(select(_RUN))}

    def set_value(self, name: str, value: str) -> None:
        """Set one fact of the run."""
        with self._writing() as connection:
            connection.execute(delete(_RUN).where(_RUN.c.name == name))
            connection.execute(insert(_RUN).values(name=name, value=value))

    def drop_value(self, name: str) -> None:
        """Forget one fact of the run."""
        with self._writing() as connection:
            connection.execute(delete(_RUN).where(_RUN.c.name == name))

    def clear(self) -> None:
        """Drop all hosts: the run was not filled to its end."""
        with self._writing() as connection:
            for table in (_SHARD, _TARGET, _OBSERVATION, _SLICE):
                connection.execute(delete(table))

    # --- hosts ---

    def add_targets(self, targets: Iterable[TargetRow], *, size: int = SHARD_HOSTS) -> None:
        """Put hosts into shards; a run is filled once, before anybody works on it."""
        with self._writing() as connection:
            shard = connection.execute(select(func.max(_SHARD.c.id))).scalar() or 0
            for alone, hosts in groupby(targets, key=lambda each: self._alone_of(each.address)):
                while rows := list(islice(hosts, size)):
                    shard += 1
                    connection.execute(insert(_SHARD).values(id=shard, alone=alone))
                    connection.execute(insert(_TARGET), [_row(each, shard) for each in rows])

    def exclude(self, address: str, why: str) -> None:
        """Note a host that is not touched."""
        self.exclude_all([(address, why)])

    def exclude_all(self, excluded: Iterable[tuple[str, str]]) -> None:
        """Note several of them."""
        rows = dict(excluded)
        with self._writing() as connection:
            for address, why in rows.items():
                connection.execute(delete(_TARGET).where(_TARGET.c.address == address))
                connection.execute(insert(_TARGET).values(address=address, state="excluded", why=why))

    def progress(self) -> tuple[int, int]:
        """Return how many hosts are done, and how many there are (without those that are excluded)."""
        with self._reading() as connection:
            rows = connection.execute(select(_TARGET.c.state, func.count()).group_by(_TARGET.c.state)).all()
        numbers = {str(state): int(number) for state, number in rows if state != "excluded"}
        return numbers.get("done", 0), sum(numbers.values())

    def targets(self) -> Iterator[tuple[TargetRow, str, str]]:
        """Yield each host with its state and what its ports did, or why it is not touched."""
        for row in self._pages(_TARGET, _TARGET.c.address):
            yield _target(row), str(row.state), str(row.why)

    def observations(self) -> Iterator[ServerObservation]:
        """Yield what is known of each server, by address and port."""
        for row in self._pages(_OBSERVATION, _OBSERVATION.c.address, _OBSERVATION.c.port):
            yield observation_from_json(json.loads(row.value))

    # --- shards ---

    def lease(self, worker: str, *, may_count: bool = True) -> Lease | None:
        """Take a shard that nobody works on, hosts to be probed first; None if there is none now."""
        with self._writing() as connection:
            now = self._now(connection)
            is_free = or_(_SHARD.c.state == "waiting", (_SHARD.c.state == "leased") & (_SHARD.c.until < now))
            free = (
                select(_SHARD.c.id, _SHARD.c.counts, _SHARD.c.alone)
                .where(is_free, or_(_SHARD.c.alone == "", _SHARD.c.alone.not_in(_busy(now))))
                .order_by(_SHARD.c.counts != "", _SHARD.c.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            shard = connection.execute(free if may_count else free.where(_SHARD.c.counts == "")).one_or_none()
            if shard is None or (shard.alone and self._is_taken(connection, shard.alone)):
                return None
            token = uuid4().hex
            connection.execute(
                update(_SHARD)
                .where(_SHARD.c.id == shard.id)
                .values(state="leased", worker=worker[:80], token=token, until=now + self._lease_seconds)
            )
            return Lease(int(shard.id), token, str(shard.counts))

    def _is_taken(self, connection: Connection, alone: str) -> bool:
        """Say if another worker has just taken a shard of the same fragile network."""
        if self._engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(0x64776174, func.hashtext(alone))))
        busy = _busy(self._now(connection)).where(_SHARD.c.alone == alone)
        return connection.execute(busy.limit(1)).scalar() is not None

    def renew(self, lease: Lease) -> None:
        """Keep a shard for longer. Raises LeaseLost."""
        with self._writing() as connection:
            self._hold(connection, lease)

    def finish_shard(self, lease: Lease) -> None:
        """Say that a shard of hosts to be probed is done. Raises LeaseLost."""
        with self._writing() as connection:
            self._hold(connection, lease)
            connection.execute(update(_SHARD).where(_SHARD.c.id == lease.shard).values(state="done", token=""))

    def give_back(self, lease: Lease) -> None:
        """Let others take a shard at once; nothing happens if it isn't ours any more."""
        with self._writing() as connection:
            connection.execute(
                update(_SHARD)
                .where(_SHARD.c.id == lease.shard, _SHARD.c.token == lease.token, _SHARD.c.state == "leased")
                .values(state="waiting", token="")
            )

    def is_done(self) -> bool:
        """Say if no shard is left for anybody."""
        with self._reading() as connection:
            return connection.execute(select(_SHARD.c.id).where(_SHARD.c.state != "done").limit(1)).scalar() is None

    # --- what LeasedStore does, inside a lease ---

    def waiting_in(self, lease: Lease) -> list[TargetRow]:
        """Return the hosts of a shard that nobody has looked at."""
        with self._reading() as connection:
            rows = connection.execute(
                select(_TARGET)
                .where(_TARGET.c.shard == lease.shard, _TARGET.c.state == "waiting")
                .order_by(_TARGET.c.address)
            )
            return [_target(row) for row in rows]

    def finish_probing(
        self,
        lease: Lease,
        reaches: Iterable[tuple[str, str]],
        observations: Iterable[ServerObservation],
        counts: str = "",
    ) -> None:
        """Store what was seen of hosts, once and for all; `counts` is one that is to be counted. Raises LeaseLost."""
        with self._writing() as connection:
            self._hold(connection, lease)
            for address, reach in reaches:
                state = "counting" if address == counts else "done"
                which = (_TARGET.c.address == address) & (_TARGET.c.state == "waiting")
                connection.execute(update(_TARGET).where(which).values(state=state, why=reach))
            self._put(connection, observations)
            if counts:
                if self._engine.dialect.name == "postgresql":
                    # Two workers that take the same next number would stop each other.
                    connection.execute(select(func.pg_advisory_xact_lock(0x64776173)))
                last = connection.execute(select(func.max(_SHARD.c.id))).scalar() or 0
                connection.execute(insert(_SHARD).values(id=last + 1, counts=counts, alone=self._alone_of(counts)))

    def finish_counting(self, lease: Lease, address: str, observations: Iterable[ServerObservation]) -> None:
        """Store the counts of a host and end its shard; its slices are of no use any more. Raises LeaseLost."""
        with self._writing() as connection:
            self._hold(connection, lease)
            self._put(connection, observations)
            connection.execute(update(_TARGET).where(_TARGET.c.address == address).values(state="done"))
            connection.execute(delete(_SLICE).where(_SLICE.c.address == address))
            connection.execute(update(_SHARD).where(_SHARD.c.id == lease.shard).values(state="done", token=""))

    def observations_of(self, address: str) -> list[ServerObservation]:
        """Return what is known of the servers of one host."""
        with self._reading() as connection:
            rows = connection.execute(
                select(_OBSERVATION.c.value).where(_OBSERVATION.c.address == address).order_by(_OBSERVATION.c.port)
            )
            return [observation_from_json(json.loads(row.value)) for row in rows]

    def slices(self, address: str, port: int) -> list[tuple[str, str, dict[str, Any]]]:
        """Return name, state and numbers of each finished slice of a server."""
        with self._reading() as connection:
            rows = connection.execute(
                select(_SLICE.c.name, _SLICE.c.value).where(_SLICE.c.address == address, _SLICE.c.port == port)
            )
            return [(row.name, "done", json.loads(row.value)) for row in rows]

    def finish_slices(self, lease: Lease, slices: Iterable[Slice]) -> None:
        """Keep the numbers of slices until their host is finished. Raises LeaseLost."""
        with self._writing() as connection:
            self._hold(connection, lease)
            for each in slices:
                which = (_SLICE.c.address == each.address) & (_SLICE.c.port == each.port) & (_SLICE.c.name == each.name)
                text = json.dumps(each.value, separators=(",", ":"))
                connection.execute(delete(_SLICE).where(which))
                connection.execute(
                    insert(_SLICE).values(address=each.address, port=each.port, name=each.name, value=text)
                )

    # --- inside a transaction ---

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise ShardError(f"the database can't be used: {_reason(error)}") from error

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Begin a transaction that waits for no writer."""
        try:
            with self._engine.connect().execution_options(**{_READS: True}) as connection, connection.begin():
                yield connection
        except SQLAlchemyError as error:
            raise ShardError(f"the database can't be used: {_reason(error)}") from error

    def _pages(self, table: Table, *key: Column[Any]) -> Iterator[Row[Any]]:
        """Yield all rows in the order of a key, some at a time, so that no more are held."""
        place = 0
        while True:
            with self._reading() as connection:
                rows = connection.execute(select(table).order_by(*key).offset(place).limit(_PAGE)).all()
            yield from rows
            place += len(rows)
            if len(rows) < _PAGE:
                return

    def _put(self, connection: Connection, observations: Iterable[ServerObservation]) -> None:
        for each in observations:
            which = (_OBSERVATION.c.address == each.address) & (_OBSERVATION.c.port == each.port)
            text = json.dumps(observation_to_json(each), separators=(",", ":"))
            connection.execute(delete(_OBSERVATION).where(which))
            connection.execute(insert(_OBSERVATION).values(address=each.address, port=each.port, value=text))

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


class LeasedStore:
    """The shard that a worker has leased, as a HostStore. Every write raises LeaseLost once it is another's.

    Slices are written some at a time: what a crash takes with it is only asked for again.
    """

    def __init__(self, store: ShardStore, lease: Lease, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._lease = lease
        self._clock = clock
        self._slices: list[Slice] = []
        self._write_at = clock() + _SLICE_SECONDS

    def observations_of(self, address: str) -> list[ServerObservation]:
        """Return what is known of the servers of one host."""
        return self._store.observations_of(address)

    def slices(self, address: str, port: int) -> list[tuple[str, str, dict[str, Any]]]:
        """Return name, state and numbers of each finished slice of a server."""
        return self._store.slices(address, port)

    def finish_host(
        self,
        address: str,
        observations: Iterable[ServerObservation],
        reach: str = "",
        *,
        is_to_be_counted: bool = False,
    ) -> None:
        """Store what was seen of a host; one that is to be counted becomes a shard of its own."""
        counts = address if is_to_be_counted else ""
        self._store.finish_probing(self._lease, [(address, reach)], observations, counts)

    def finish_hosts(self, reaches: Iterable[tuple[str, str]]) -> None:
        """Mark hosts on which nothing was found as done."""
        self._store.finish_probing(self._lease, reaches, [])

    def finish_counting(self, address: str, observations: Iterable[ServerObservation]) -> None:
        """Store the counts of the host."""
        self._store.finish_counting(self._lease, address, observations)

    def finish_slice(self, address: str, port: int, name: str, value: dict[str, Any], *, state: str = "done") -> None:
        """Keep the numbers of a slice."""
        self._slices.append(Slice(address, port, name, value))
        if self._clock() >= self._write_at:
            self._store.finish_slices(self._lease, self._slices)
            self._slices.clear()
            self._write_at = self._clock() + _SLICE_SECONDS


def _busy(now: float) -> Select[tuple[str]]:
    """Return the query for the fragile networks in which somebody works."""
    return select(_SHARD.c.alone).where(_SHARD.c.state == "leased", _SHARD.c.until >= now, _SHARD.c.alone != "")


def _row(target: TargetRow, shard: int) -> dict[str, object]:
    return {
        "address": target.address,
        "host": target.host,
        "ports": json.dumps(target.ports),
        "titles": json.dumps(target.called_ae_titles),
        "is_named": target.is_named,
        "shard": shard,
    }


def _target(row: Row[Any]) -> TargetRow:
    return TargetRow(
        address=row.address,
        host=row.host,
        ports=tuple(json.loads(row.ports)),
        called_ae_titles=tuple(json.loads(row.titles)),
        is_named=row.is_named,
    )


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
