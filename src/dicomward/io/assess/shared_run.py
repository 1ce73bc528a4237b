"""A worker of a run that several share: it leases shards until none is left, also those that other workers lose."""

import asyncio
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from dicomward.io.assess.hosts import COUNTING_THREADS, HostWork
from dicomward.io.assess.probe_guard import Guard, ProbingStopped
from dicomward.io.assess.run import Progress, RunSetup, load_known
from dicomward.io.assess.shards import Lease, LeasedStore, LeaseLost, ShardStore
from dicomward.io.assess.store import STORE_NAME, AssessStore
from dicomward.io.audit.log import AuditLog

STOPPED_BY: Final = "stopped_by"
_WAIT_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 2.0
_SPEED_LOOKS: Final = 30
_Result = TypeVar("_Result")
_log: Final = logging.getLogger(__name__)


class SharedRun:
    """What one worker does, in a directory of its own: its audit log is there, and its stop file stops all workers."""

    def __init__(self, setup: RunSetup, store: ShardStore, worker: str) -> None:
        self._setup = setup
        self._store = store
        self._worker = worker
        self._held: set[Lease] = set()

    def run(self) -> str:
        """Work until no shard is left for anybody; return why it ended early, "" if it did not.

        Raises AuditLogError, NotSecret, ShardError.
        """
        stopped = self._setup.do(self._work, self._store.progress)
        if not stopped:
            self._store.set_value("ended_at", self._setup.time())
        return stopped

    async def _work(self, audit: AuditLog) -> None:
        guard = self._setup.guard(audit)
        work = HostWork(guard, load_known(), now=self._setup.now, sites=self._setup.sites)
        watch = asyncio.create_task(self._watch(guard, work))
        try:
            await self._take_shards(work, guard, watch)
        except ProbingStopped as stop:
            if self._store.value(STOPPED_BY) is None:
                self._store.set_value(STOPPED_BY, f"worker {self._worker}: {stop}")
            raise
        finally:
            watch.cancel()
            work.close()

    async def _take_shards(self, work: HostWork, guard: Guard, watch: "asyncio.Task[None]") -> None:
        """Probe one shard after the other, and count a few hosts meanwhile; hosts to be probed come first."""
        counting: set[asyncio.Task[None]] = set()
        try:
            while True:
                guard.verify_may_go_on()
                if watch.done():
                    watch.result()
                may_count = len(counting) < COUNTING_THREADS
                lease = await _apart(self._store.lease, self._worker, may_count=may_count)
                if lease is not None:
                    task = asyncio.create_task(self._shard(lease, work))
                    counting.add(task)
                    if not lease.counts:
                        await asyncio.wait([task])
                elif not counting and await _apart(self._store.is_done):
                    return
                elif counting:
                    await asyncio.wait(counting, timeout=_WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(_WAIT_SECONDS)
                over = {each for each in counting if each.done()}
                counting -= over
                for each in over:
                    each.result()
        finally:
            for each in counting:
                each.cancel()
            await asyncio.gather(*counting, return_exceptions=True)

    async def _shard(self, lease: Lease, work: HostWork) -> None:
        leased = LeasedStore(self._store, lease)
        self._held.add(lease)
        try:
            if lease.counts:
                await work.count_host(lease.counts, leased)
            else:
                await work.probe(iter(await _apart(self._store.waiting_in, lease)), leased)
                await _apart(self._store.finish_shard, lease)
        except LeaseLost:
            _log.warning("shard %s was taken by another worker; what was seen of it here is dropped", lease.shard)
        except BaseException:
            self._store.give_back(lease)
            raise
        finally:
            self._held.discard(lease)

    async def _watch(self, guard: Guard, work: HostWork) -> None:
        """Renew what is held, tell how far all workers are together, and stop when another one was told to stop."""
        renewed = time.monotonic()
        # The speed is that of the last minute: counting a host takes longer than looking at it.
        seen: deque[tuple[float, int]] = deque(maxlen=_SPEED_LOOKS)
        while True:
            if why := await _apart(self._store.value, STOPPED_BY):
                guard.stop(f"all workers were stopped by {why}")
            if time.monotonic() - renewed >= self._store.renew_seconds:
                renewed = time.monotonic()
                for lease in tuple(self._held):
                    try:
                        await _apart(self._store.renew, lease)
                    except LeaseLost:
                        # Its next write says so.
                        self._held.discard(lease)
            done, total = await _apart(self._store.progress)
            seen.append((time.monotonic(), done))
            since, before = seen[0]
            progress = Progress(
                done=done, total=total, servers=work.found.servers, seconds=time.monotonic() - since, before=before
            )
            self._setup.on_progress(progress)
            await asyncio.sleep(min(_LOOK_SECONDS, self._store.renew_seconds))


async def _apart(call: Callable[..., _Result], *arguments: Any, **named: Any) -> _Result:
    """Call the database in another thread: waiting for it must not make the answers of hosts look slow."""
    return await asyncio.to_thread(call, *arguments, **named)


def collect(store: ShardStore, directory: Path) -> None:
    """Make the directory's own store from a run that was shared, in place of an older copy. Raises ShardError."""
    place = directory / "collected"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    with AssessStore(place, create=True) as copy:
        for name, value in store.values().items():
            copy.set_value(name, value)
        copy.copy_targets(store.targets())
        copy.copy_observations(store.observations())
    for rest in ("-wal", "-shm"):
        # What a killed reader has left of the older copy does not belong to the new one.
        (directory / f"{STORE_NAME}{rest}").unlink(missing_ok=True)
    os.replace(place / STORE_NAME, directory / STORE_NAME)
    shutil.rmtree(place)
