"""What is done with hosts, in whichever process: each is probed, then counted where the scope allows it, and stored.

Probing comes first and counting after it, so that the one never makes the answers of the other look slow.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from dicomward.assess.observation import Reach, ServerObservation
from dicomward.assess.products import Known
from dicomward.assess.scope import ScopeNetwork
from dicomward.assess.sites import Sites
from dicomward.io.assess.count_secrecy import forbid_dumps
from dicomward.io.assess.descriptors import hosts_that_fit
from dicomward.io.assess.probe_guard import Guard, ProbingStopped
from dicomward.io.assess.store import TargetRow
from dicomward.io.assess.sweep import Called, Sweep, group_size

COUNTING_THREADS: Final = 4
_MOST_EMPTY: Final = 256
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class HostStore(Protocol):
    """Where the results of hosts go: AssessStore, or a shard that is leased."""

    def finish_host(
        self,
        address: str,
        observations: Iterable[ServerObservation],
        reach: str = "",
        *,
        is_to_be_counted: bool = False,
    ) -> None:
        """Store what was seen of a host."""

    def finish_hosts(self, reaches: Iterable[tuple[str, str]]) -> None:
        """Mark hosts on which nothing was found as done."""

    def observations_of(self, address: str) -> list[ServerObservation]:
        """Return what is known of the servers of one host."""

    def finish_counting(self, address: str, observations: Iterable[ServerObservation]) -> None:
        """Store the counts of a host."""

    def slices(self, address: str, port: int) -> list[tuple[str, str, dict[str, Any]]]:
        """Return name, state and numbers of each known slice."""

    def finish_slice(self, address: str, port: int, name: str, value: dict[str, Any], *, state: str = "done") -> None:
        """Keep the numbers of a slice."""


@dataclass(slots=True)
class Found:
    """What this process has found until now."""

    servers: int = 0


class HostWork:
    """Probes and counts hosts under one guard. Raises ProbingStopped where the whole run has to end."""

    def __init__(
        self,
        guard: Guard,
        known: Known,
        *,
        now: Callable[[], datetime],
        sites: Sites | None = None,
        on_host: Callable[[], None] = lambda: None,
    ) -> None:
        """Close this process to others if it is to count. Raises NotSecret."""
        self._scope = guard.scope
        if any(each.counting for each in self._scope.networks):
            forbid_dumps()
        self.guard = guard
        self._known = known
        self._now = now
        self._sites = sites
        self.on_host = on_host
        self._fragile = {each: asyncio.Semaphore(1) for each in self._scope.networks if each.fragile}
        self._ports = tuple(dict.fromkeys((*self._scope.dimse_ports, *self._scope.web_ports)))
        self.most_ports = len(self._ports)
        self._pool = ThreadPoolExecutor(COUNTING_THREADS, thread_name_prefix="count")
        # A store that has to wait for others would make the answers of hosts look slow.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.found = Found()

    def close(self) -> None:
        """End the threads that count; they have been told before."""
        self._pool.shutdown()
        self._writer.shutdown()

    async def probe(self, rows: Iterator[TargetRow], store: HostStore) -> None:
        """Look at hosts, so many at once as the scope says. Raises ProbingStopped."""
        empty: list[tuple[str, str]] = []
        try:
            async with asyncio.TaskGroup() as group:
                await _Probing(self, group, store, empty).run(rows)
        except BaseExceptionGroup as failed:
            # The first one is the reason; the others are its echo in other tasks.
            raise failed.exceptions[0] from None
        finally:
            store.finish_hosts(empty)

    async def count(self, addresses: Iterator[str], store: HostStore) -> None:
        """Count hosts that were looked at, a few at once."""
        await together(addresses, lambda address: self.count_host(address, store), COUNTING_THREADS)

    async def count_host(self, address: str, store: HostStore) -> None:
        """Count the servers of one host, one after the other."""
        from dicomward.io.assess.count import with_counts
        from dicomward.io.assess.place import is_counted

        network = self._network_of(address)
        async with self._fragile.get(network) or contextlib.nullcontext():
            observations = [
                await with_counts(each, self.guard, store, self._now, self._pool) if is_counted(each, network) else each
                for each in await self.write(store.observations_of, address)
            ]
        await self.write(store.finish_counting, address, observations)
        self.on_host()

    def is_fragile(self, address: str) -> bool:
        """Say if a host is in a network that is asked one thing at a time. Raises ProbingStopped."""
        return bool(self._fragile) and self._network_of(address).fragile

    def time(self) -> str:
        """Return the time as reports have it."""
        return self._now().isoformat(timespec="seconds")

    async def write(self, call: Callable[..., _Result], *arguments: object, **named: object) -> _Result:
        """Call the store, in a thread of its own."""
        work = functools.partial(call, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    def _network_of(self, address: str) -> ScopeNetwork:
        network = self._scope.network_of(ip_address(address))
        if network is None:
            raise ProbingStopped(f"{address} waits in the store, but is outside the scope")
        return network

    def ports_of(self, row: TargetRow) -> tuple[int, ...]:
        """Return the ports of a host that are called."""
        return row.ports or self._ports

    async def _look_at(self, row: TargetRow, called: Sequence[Called] | None) -> tuple[list[ServerObservation], str]:
        """Ask what stands behind the ports of a host; where they were not called yet, call them first."""
        # Nobody needs this before the first open port, and what is silent is waited for meanwhile.
        from dicomward.io.assess.place import with_place
        from dicomward.io.assess.probe_host import HostProbe
        from dicomward.io.assess.probe_result import HostTask

        network = self._network_of(row.address)
        task = HostTask(
            address=row.address,
            network=network,
            ports=self.ports_of(row),
            host=row.host,
            called_ae_titles=row.called_ae_titles,
            is_named=row.is_named,
        )
        async with self._fragile.get(network) or contextlib.nullcontext():
            observations, reach = await HostProbe(task, self.guard, self._known, self._now).run(called)
        observations = [with_place(each, self._sites) for each in observations]
        self.found.servers += sum(each.reach.value in ("answered", "certificate-wanted") for each in observations)
        return observations, reach

    async def examine(self, row: TargetRow, called: Sequence[Called] | None, store: HostStore) -> str | None:
        """Look at a host and store what is found; return what its ports did where nothing is."""
        from dicomward.io.assess.place import is_counted

        observations, reach = await self._look_at(row, called)
        if not observations:
            return reach
        network = self._network_of(row.address)
        wanted = any(is_counted(each, network) for each in observations)
        await self.write(store.finish_host, row.address, observations, reach, is_to_be_counted=wanted)
        return None


class _Probing:
    """One pass over hosts: groups of them are swept, and those with an open port examined, within so many slots."""

    def __init__(
        self, work: HostWork, group: asyncio.TaskGroup, store: HostStore, empty: list[tuple[str, str]]
    ) -> None:
        self._work = work
        self._group = group
        self._store = store
        self._empty = empty
        self._pace = work.guard.scope.pace
        self._free = hosts_that_fit(self._pace.hosts_at_once, work.most_ports)
        self._freed = asyncio.Event()

    async def run(self, rows: Iterator[TargetRow]) -> None:
        """Begin with all of them; the group waits for the last."""
        size = group_size(self._pace.connections_per_second, self._work.most_ports)
        while hosts := list(islice(rows, min(size, self._free))):
            self._free -= len(hosts)
            others = []
            for row in hosts:
                if self._work.is_fragile(row.address):
                    self._group.create_task(self._examine(row, None))
                else:
                    others.append(row)
            if others:
                self._group.create_task(self._sweep(others))
            self._freed.clear()
            while not self._free:
                await self._freed.wait()
                self._freed.clear()

    async def _sweep(self, rows: Sequence[TargetRow]) -> None:
        def done(number: int, called: Sequence[Called]) -> None:
            row = rows[number]
            if row.is_named or any(each.reach is Reach.NOT_TRIED for each in called):
                self._group.create_task(self._examine(row, called))
            else:
                self._end(row, ", ".join(sorted({each.reach.value for each in called})))

        sweep = Sweep(self._work.guard, self._pace.connect_timeout, self._work.time, done)
        await sweep.run([(row.address, self._work.ports_of(row)) for row in rows])

    async def _examine(self, row: TargetRow, called: Sequence[Called] | None) -> None:
        self._end(row, await self._work.examine(row, called, self._store))

    def _end(self, row: TargetRow, reach: str | None) -> None:
        """Free the slot of a host; `reach` is what its ports did if nothing was found."""
        if reach is not None:
            # Hosts on which nothing was found are stored together; after a crash they are only looked at again.
            self._empty.append((row.address, reach))
            if len(self._empty) >= _MOST_EMPTY:
                full = self._empty.copy()
                self._empty.clear()
                self._group.create_task(self._work.write(self._store.finish_hosts, full))
        self._work.on_host()
        self._free += 1
        self._freed.set()


async def together(items: Iterator[_Item], work: Callable[[_Item], Awaitable[None]], most: int) -> None:
    """Work on items, so many at once; their iterator never waits. Raises what the first that fails raises."""

    async def run() -> None:
        for item in items:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(most):
                group.create_task(run())
    except BaseExceptionGroup as failed:
        # The first one is the reason; the others are its echo in other workers.
        raise failed.exceptions[0] from None
