"""One run of an assessment: which hosts it begins with, and the process that works on them; resumable at any moment."""

import asyncio
import itertools
import pkgutil
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from dicomward.assess.products import Known, parse_known
from dicomward.assess.scope import Address, Scope, unmapped
from dicomward.assess.sites import Sites
from dicomward.audit.event import AssessmentChanged
from dicomward.io.assess.hosts import HostWork
from dicomward.io.assess.probe_guard import Guard, Pacer, ProbingStopped
from dicomward.io.assess.store import AssessStore, TargetRow
from dicomward.io.audit.log import AuditLog

if TYPE_CHECKING:
    from dicomward.assess.targets import Target

AUDIT_DIRECTORY: Final = "audit"
_PAGE: Final = 1000
_MOST_EXCLUDED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is: hosts done and all hosts of what it does now, servers found and seconds, in this process."""

    done: int
    total: int
    servers: int
    seconds: float
    is_counting: bool = False
    before: int = 0

    @property
    def seconds_left(self) -> float | None:
        """Return an estimate from this process's speed, None while there is none; `before` were done without it."""
        lately = self.done - self.before
        return None if lately <= 0 else self.seconds / lately * (self.total - self.done)


class TargetStore(Protocol):
    """Where the hosts of a run are put: AssessStore or ShardStore."""

    def add_targets(self, targets: Iterable[TargetRow]) -> None:
        """Add hosts that wait."""

    def exclude(self, address: str, why: str) -> None:
        """Note a host that is not touched."""

    def exclude_all(self, excluded: Iterable[tuple[str, str]]) -> None:
        """Note several of them."""


def load_known() -> Known:
    """Return the catalogue of products that comes with this version."""
    data = pkgutil.get_data("dicomward.assess", "known.toml")
    if data is None:
        raise FileNotFoundError("known.toml is missing in the package")
    return parse_known(data.decode())


def fill_store(store: TargetStore, scope: Scope, targets: "Iterable[Target] | None") -> None:
    """Put the hosts into the store: those of the networks, or those that were named; what may not be touched, and why.

    A name is resolved; nothing else is sent. Excluded addresses of the networks themselves are listed up to a bound.
    """
    if targets is None:
        excluded = ((str(address), why) for address, why in scope.addresses() if why)
        store.exclude_all(itertools.islice(excluded, _MOST_EXCLUDED))
        store.add_targets(TargetRow(address=str(unmapped(each))) for each, why in scope.addresses() if not why)
        return
    rows: dict[str, TargetRow] = {}
    for target in targets:
        for address in _resolve(store, target.host):
            why = scope.why_not(address)
            if why:
                store.exclude(str(address), why)
                continue
            key = str(unmapped(address))
            old = rows.get(key)
            ports = (*(old.ports if old else ()), *target.ports)
            titles = (*(old.called_ae_titles if old else ()), *target.called_ae_titles)
            name = target.host if not _is_address(target.host) else ""
            rows[key] = TargetRow(
                address=key,
                host=old.host if old and old.host else name,
                ports=tuple(dict.fromkeys(ports)),
                called_ae_titles=tuple(dict.fromkeys(titles)),
                is_named=True,
            )
    store.add_targets(rows.values())


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _resolve(store: TargetStore, host: str) -> list[Address]:
    if _is_address(host):
        return [ip_address(host)]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        store.exclude(host, f"the name can't be resolved: {error}")
        return []
    return [ip_address(each) for each in dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetup:
    """What a process of an assessment is given: under whose authority, where it writes, and whom it tells.

    `directory` has its audit log and its stop file.
    """

    scope: Scope
    directory: Path
    operator: str
    now: Callable[[], datetime]
    sites: Sites | None = None
    on_progress: Callable[[Progress], None] = lambda progress: None

    def time(self) -> str:
        """Return the time as reports have it."""
        return self.now().isoformat(timespec="seconds")

    def guard(self, audit: AuditLog) -> Guard:
        """Return what is asked before every probe."""
        pacer = Pacer(self.scope.pace.connections_per_second)
        return Guard(self.scope, audit, self.directory, now=self.now, pacer=pacer)

    def do(self, work: Callable[[AuditLog], Coroutine[Any, Any, None]], progress: Callable[[], tuple[int, int]]) -> str:
        """Do the work with its beginning and end on record; return why it ended early, "" if it did not.

        Raises AuditLogError, and what the work raises beside ProbingStopped.
        """
        audit = AuditLog(self.directory / AUDIT_DIRECTORY)
        audit.start()
        try:
            self._record(audit, "began", progress()[1])
            stopped = ""
            try:
                asyncio.run(work(audit))
            except ProbingStopped as stop:
                stopped = str(stop)
            except KeyboardInterrupt:
                stopped = "interrupted"
            self._record(audit, "stopped" if stopped else "ended", progress()[0], stopped)
            return stopped
        finally:
            audit.close()

    def _record(self, audit: AuditLog, action: str, count: int, why: str = "") -> None:
        scope = self.scope
        audit.append(
            AssessmentChanged(
                operator=self.operator,
                action=action,
                count=count,
                state_sha256=scope.sha256,
                detail=why or f"owner {scope.owner}; authorisation {scope.authorisation}; contact {scope.contact}",
            )
        )


class AssessRun:
    """The run of one process over the hosts that wait in the store."""

    def __init__(self, setup: RunSetup, store: AssessStore) -> None:
        self._setup = setup
        self._store = store
        self._done = 0
        self._total = 0
        self._is_counting = False
        self._began = 0.0

    def run(self) -> str:
        """Work until no host waits; return why it ended early, "" if it did not. Raises AuditLogError, NotSecret."""
        stopped = self._setup.do(self._work, self._store.progress)
        if not stopped:
            self._store.set_value("ended_at", self._setup.time())
        return stopped

    async def _work(self, audit: AuditLog) -> None:
        setup = self._setup
        guard = setup.guard(audit)
        guard.verify_may_go_on()
        work = HostWork(guard, load_known(), now=setup.now, sites=setup.sites, on_host=lambda: self._tell(work))
        try:
            done, total = self._store.progress()
            self._begin(total - done - len(self._store.to_be_counted()), is_counting=False)
            await work.probe(self._rows(), self._store)
            wanted = self._store.to_be_counted()
            self._begin(len(wanted), is_counting=True)
            await work.count(iter(wanted), self._store)
        finally:
            work.close()

    def _begin(self, total: int, *, is_counting: bool) -> None:
        self._done, self._total, self._is_counting, self._began = 0, total, is_counting, time.monotonic()

    def _tell(self, work: HostWork) -> None:
        self._done += 1
        self._setup.on_progress(
            Progress(
                done=self._done,
                total=self._total,
                servers=work.found.servers,
                seconds=time.monotonic() - self._began,
                is_counting=self._is_counting,
            )
        )

    def _rows(self) -> Iterator[TargetRow]:
        """Yield the hosts that wait; what is done meanwhile does not come again."""
        after = ""
        while page := self._store.waiting(after, _PAGE):
            yield from page
            after = page[-1].address
