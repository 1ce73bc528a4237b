"""What is done with hosts, in whichever process: each is probed, then counted where the scope allows it, and stored.

Probing comes first and counting after it, so that the one never makes the answers of the other look slow.
"""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final, Protocol, TypeVar

from dicomward.assess.observation import ServerObservation
from dicomward.assess.products import Known
from dicomward.assess.scope import ScopeNetwork
from dicomward.assess.sites import Sites
from dicomward.io.assess.count_secrecy import forbid_dumps
from dicomward.io.assess.place import is_counted, with_place
from dicomward.io.assess.probe_guard import Guard, ProbingStopped
from dicomward.io.assess.probe_host import HostProbe
from dicomward.io.assess.probe_result import HostTask
from dicomward.io.assess.store import TargetRow

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
        self._guard = guard
        self._known = known
        self._now = now
        self._sites = sites
        self._on_host = on_host
        self._fragile = {each: asyncio.Semaphore(1) for each in self._scope.networks if each.fragile}
        self._pool = ThreadPoolExecutor(COUNTING_THREADS, thread_name_prefix="count")
        # A store that has to wait for others would make the answers of hosts look slow.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store")
        self.found = Found()

    def close(self) -> None:
        """End the threads that count; they have been told before."""
        self._pool.shutdown()
        self._writer.shutdown()

    async def probe(self, rows: Iterator[TargetRow], store: HostStore) -> None:
        """Look at hosts, so many at once as the scope says."""
        empty: list[tuple[str, str]] = []

        async def one(row: TargetRow) -> None:
            observations, reach = await self._look_at(row)
            if observations:
                network = self._network_of(row.address)
                wanted = any(is_counted(each, network) for each in observations)
                await self._write(store.finish_host, row.address, observations, reach, is_to_be_counted=wanted)
            else:
                # Hosts on which nothing was found are stored together; after a crash they are only looked at again.
                empty.append((row.address, reach))
                if len(empty) >= _MOST_EMPTY:
                    full = empty.copy()
                    empty.clear()
                    await self._write(store.finish_hosts, full)
            self._on_host()

        try:
            await together(rows, one, self._scope.pace.hosts_at_once)
        finally:
            store.finish_hosts(empty)

    async def count(self, addresses: Iterator[str], store: HostStore) -> None:
        """Count hosts that were looked at, a few at once."""
        await together(addresses, lambda address: self.count_host(address, store), COUNTING_THREADS)

    async def count_host(self, address: str, store: HostStore) -> None:
        """Count the servers of one host, one after the other."""
        from dicomward.io.assess.count import with_counts

        network = self._network_of(address)
        async with self._fragile.get(network) or contextlib.nullcontext():
            observations = [
                await with_counts(each, self._guard, store, self._now, self._pool)
                if is_counted(each, network)
                else each
                for each in await self._write(store.observations_of, address)
            ]
        await self._write(store.finish_counting, address, observations)
        self._on_host()

    async def _write(self, call: Callable[..., _Result], *arguments: object, **named: object) -> _Result:
        work = functools.partial(call, *arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    def _network_of(self, address: str) -> ScopeNetwork:
        network = self._scope.network_of(ip_address(address))
        if network is None:
            raise ProbingStopped(f"{address} waits in the store, but is outside the scope")
        return network

    async def _look_at(self, row: TargetRow) -> tuple[list[ServerObservation], str]:
        network = self._network_of(row.address)
        task = HostTask(
            address=row.address,
            network=network,
            ports=row.ports or tuple(dict.fromkeys((*self._scope.dimse_ports, *self._scope.web_ports))),
            host=row.host,
            called_ae_titles=row.called_ae_titles,
            is_named=row.is_named,
        )
        async with self._fragile.get(network) or contextlib.nullcontext():
            observations, reach = await HostProbe(task, self._guard, self._known, self._now).run()
        observations = [with_place(each, self._sites) for each in observations]
        self.found.servers += sum(each.reach.value in ("answered", "certificate-wanted") for each in observations)
        return observations, reach


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
