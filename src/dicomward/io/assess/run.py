"""One run of an assessment: hosts from the store, so many at once, each probed and stored; resumable at any moment."""

import asyncio
import contextlib
import importlib.resources
import itertools
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from dicomward.assess.observation import ServerObservation
from dicomward.assess.products import Known, parse_known
from dicomward.assess.scope import Address, Scope, ScopeNetwork, unmapped
from dicomward.assess.targets import Target
from dicomward.audit.event import AssessmentChanged
from dicomward.io.assess.count import is_counted, with_counts, with_place
from dicomward.io.assess.count_secrecy import forbid_dumps
from dicomward.io.assess.probe_guard import Guard, Pacer, ProbingStopped
from dicomward.io.assess.probe_host import HostProbe, HostTask
from dicomward.io.assess.store import AssessStore, TargetRow
from dicomward.io.audit.log import AuditLog

AUDIT_DIRECTORY: Final = "audit"
_PAGE: Final = 1000
_MOST_EXCLUDED: Final = 10_000
_MOST_EMPTY: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is: hosts done, all hosts, servers found in this process, seconds since its start."""

    done: int
    total: int
    servers: int
    seconds: float

    @property
    def seconds_left(self) -> float | None:
        """Return an estimate from this process's speed, None while there is none."""
        return None if not self.done else self.seconds / self.done * (self.total - self.done)


def load_known() -> Known:
    """Return the catalogue of products that comes with this version."""
    return parse_known(importlib.resources.files("dicomward.assess").joinpath("known.toml").read_text("utf-8"))


def fill_store(store: AssessStore, scope: Scope, targets: Iterable[Target] | None) -> None:
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


def _resolve(store: AssessStore, host: str) -> list[Address]:
    if _is_address(host):
        return [ip_address(host)]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        store.exclude(host, f"the name can't be resolved: {error}")
        return []
    return [ip_address(each) for each in dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)]


class AssessRun:
    """The run of one process over the hosts that wait in the store."""

    def __init__(
        self,
        scope: Scope,
        directory: Path,
        store: AssessStore,
        *,
        operator: str,
        now: Callable[[], datetime],
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._scope = scope
        self._directory = directory
        self._store = store
        self._operator = operator
        self._now = now
        self._on_progress = on_progress
        self._known = load_known()
        self._fragile = {each: asyncio.Semaphore(1) for each in scope.networks if each.fragile}
        self._servers = 0
        self._done = 0
        self._waiting = 0
        self._began = 0.0
        self._empty: list[tuple[str, str]] = []

    def run(self) -> str:
        """Probe until no host waits; return why it ended early, "" if it did not. Raises AuditLogError, NotSecret."""
        if any(each.counting for each in self._scope.networks):
            forbid_dumps()
        audit = AuditLog(self._directory / AUDIT_DIRECTORY)
        audit.start()
        try:
            self._record(audit, "began")
            stopped = ""
            try:
                asyncio.run(self._probe(audit))
            except ProbingStopped as stop:
                stopped = str(stop)
            except KeyboardInterrupt:
                stopped = "interrupted"
            finally:
                self._flush()
            self._record(audit, "stopped" if stopped else "ended", stopped)
            if not stopped:
                self._store.set_value("ended_at", self._now().isoformat(timespec="seconds"))
            return stopped
        finally:
            audit.close()

    def _record(self, audit: AuditLog, action: str, why: str = "") -> None:
        scope = self._scope
        audit.append(
            AssessmentChanged(
                operator=self._operator,
                action=action,
                count=self._store.progress()[0 if action != "began" else 1],
                state_sha256=scope.sha256,
                detail=why or f"owner {scope.owner}; authorisation {scope.authorisation}; contact {scope.contact}",
            )
        )

    async def _probe(self, audit: AuditLog) -> None:
        pacer = Pacer(self._scope.pace.connections_per_second)
        guard = Guard(self._scope, audit, self._directory, now=self._now, pacer=pacer)
        guard.verify_may_go_on()
        done, total = self._store.progress()
        self._waiting = total - done
        self._began = time.monotonic()
        rows = self._rows()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._scope.pace.hosts_at_once, max(1, self._waiting))):
                    group.create_task(self._work(rows, guard))
        except BaseExceptionGroup as failed:
            # The first one is the reason; the others are its echo in other workers.
            raise failed.exceptions[0] from None

    def _rows(self) -> Iterator[TargetRow]:
        """Yield the hosts that wait; what is done meanwhile does not come again."""
        after = ""
        while page := self._store.waiting(after, _PAGE):
            yield from page
            after = page[-1].address

    async def _work(self, rows: Iterator[TargetRow], guard: Guard) -> None:
        """Take the next host until there is none; the workers share the iterator, which never waits."""
        for row in rows:
            await self._host(row, guard)
            self._done += 1
            if self._on_progress is not None:
                seconds = time.monotonic() - self._began
                self._on_progress(
                    Progress(done=self._done, total=self._waiting, servers=self._servers, seconds=seconds)
                )

    async def _host(self, row: TargetRow, guard: Guard) -> None:
        network = self._scope.network_of(ip_address(row.address))
        if network is None:
            raise ProbingStopped(f"{row.address} waits in the store, but is outside the scope")
        task = HostTask(
            address=row.address,
            network=network,
            ports=row.ports or tuple(dict.fromkeys((*self._scope.dimse_ports, *self._scope.web_ports))),
            host=row.host,
            called_ae_titles=row.called_ae_titles,
            is_named=row.is_named,
        )
        async with self._fragile.get(network) or contextlib.nullcontext():
            observations, reach = await HostProbe(task, guard, self._known, self._now).run()
            observations = [await self._complete(each, network, guard) for each in observations]
        self._servers += sum(each.reach.value in ("answered", "certificate-wanted") for each in observations)
        if observations:
            self._store.finish_host(row.address, observations, reach)
            return
        self._empty.append((row.address, reach))
        if len(self._empty) >= _MOST_EMPTY:
            self._flush()

    def _flush(self) -> None:
        """Store the hosts on which nothing was found; those that a crash takes with it are only looked at again."""
        self._store.finish_hosts(self._empty)
        self._empty.clear()

    async def _complete(self, observation: ServerObservation, network: ScopeNetwork, guard: Guard) -> ServerObservation:
        observation = with_place(observation)
        if not is_counted(observation, network):
            return observation
        return await with_counts(observation, guard, self._store, self._now)
