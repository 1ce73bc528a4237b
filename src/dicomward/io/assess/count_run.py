"""Workers that lease shards and count their servers. One process with a few threads by default; any number may join."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

import iptocc

from dicomward.assess.count_limits import CountLimits
from dicomward.assess.count_query import STUDY_ROOT_CONTEXT, Caller
from dicomward.assess.countries import country_in
from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import (
    Confidence,
    Control,
    ControlResult,
    ProductGuess,
    Protocol,
    Reach,
    ServerObservation,
)
from dicomward.assess.sites import Place, Sites, place_of
from dicomward.io.assess.count_secrecy import forbid_dumps
from dicomward.io.assess.count_server import CountTarget, ServerCount, count_server
from dicomward.io.assess.shards import Lease, LeaseLost, ShardStore

THREADS: Final = 4
_WAIT_SECONDS: Final = 0.5
# PS3.8 Table 9-21: rejected by the user, calling AE title not recognised; PS3.7 Annex C: refused, not authorised.
_NOT_RECOGNISED: Final = (1, 3)
_NOT_AUTHORISED: Final = 0x0124
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountJob:
    """What all workers of a scope share."""

    caller: Caller
    today: date
    limits: CountLimits = field(default_factory=CountLimits)
    sites: Sites | None = None
    threads: int = THREADS


def registered_country(address: str) -> str | None:
    """Return the country in which an address is registered (iptocc: the registries' own files, inside the package)."""
    return iptocc.country_code(address)


def work(
    store: ShardStore,
    job: CountJob,
    *,
    worker: str,
    is_stopped: Callable[[], bool] = lambda: False,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Count until no shard is left, also those that other workers lose. Raises NotSecret, ShardError."""
    forbid_dumps()
    with ThreadPoolExecutor(job.threads, thread_name_prefix="count") as pool:
        while not is_stopped():
            lease = store.lease(worker)
            if lease is not None:
                _shard(store, job, lease, pool, is_stopped, on_progress)
            elif store.is_done():
                return
            else:
                time.sleep(_WAIT_SECONDS)


def _shard(
    store: ShardStore,
    job: CountJob,
    lease: Lease,
    pool: ThreadPoolExecutor,
    is_stopped: Callable[[], bool],
    on_progress: Callable[[], None],
) -> None:
    lost = threading.Event()

    def one(target: tuple[str, int]) -> None:
        if lost.is_set() or is_stopped():
            return
        observation = observe(*target, job, store, lambda: lost.is_set() or is_stopped())
        if is_stopped():
            # What was cut short by us is counted again by whoever goes on.
            return
        try:
            store.finish_server(lease, observation)
        except LeaseLost:
            lost.set()
        on_progress()

    with _renewed(store, lease, lost):
        for future in [pool.submit(one, target) for target in store.waiting_in(lease)]:
            future.result()
    if lost.is_set():
        _log.warning("shard %s was taken by another worker; what was seen of it here is dropped", lease.shard)
    elif is_stopped():
        store.give_back(lease)
    else:
        try:
            store.finish_shard(lease)
        except LeaseLost:
            _log.warning("shard %s was taken by another worker when it was done", lease.shard)


@contextmanager
def _renewed(store: ShardStore, lease: Lease, lost: threading.Event) -> Iterator[None]:
    """Renew a lease in the background; `lost` is set when it is gone."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(store.renew_seconds):
            try:
                store.renew(lease)
            except LeaseLost:
                lost.set()
                return

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def observe(
    address: str, port: int, job: CountJob, store: ShardStore | None, is_stopped: Callable[[], bool]
) -> ServerObservation:
    """Count one server and say it as an observation."""
    started = _now()
    seen = count_server(
        CountTarget(address=address, port=port, caller=job.caller),
        limits=job.limits,
        today=job.today,
        key=secrets.token_bytes(32),
        country_of=country_in,
        keeper=store,
        is_stopped=is_stopped,
    )
    place = place_of(address, job.sites, registered_country)
    return _observation(address, port, seen, place, started)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")


def _observation(address: str, port: int, seen: ServerCount, place: Place, started: str) -> ServerObservation:
    accept = seen.accept
    information = None if accept is None else accept.user_information
    return ServerObservation(
        address=address,
        port=port,
        protocol=Protocol.DIMSE if accept is not None or seen.rejected else Protocol.UNKNOWN,
        reach=_reach(seen),
        site=place.site,
        country=place.country,
        country_source=place.source,
        product=ProductGuess()
        if information is None
        else ProductGuess(
            confidence=Confidence.NONE,
            implementation_class_uid=information.implementation_class_uid,
            implementation_version_name=information.implementation_version_name or "",
        ),
        controls=tuple(_controls(seen)),
        storage_contexts=seen.storage_contexts,
        counts=seen.counts,
        started_at=started,
        ended_at=_now(),
        probes=1 + seen.queries,
        slowest_ms=seen.slowest_ms,
        problem=seen.problem,
    )


def _reach(seen: ServerCount) -> Reach:
    if seen.accept is not None or seen.rejected is not None:
        return Reach.ANSWERED
    return Reach.OTHER if seen.connected else Reach.UNREACHABLE


def _controls(seen: ServerCount) -> Iterator[ControlResult]:
    if seen.rejected is not None:
        known = seen.rejected[1:] == _NOT_RECOGNISED
        yield ControlResult(
            control=Control.CALLING_AE_TITLE,
            verdict=Verdict.PASS if known else Verdict.INCONCLUSIVE,
            why="" if known else f"rejected for another reason (source, reason: {seen.rejected[1:]})",
        )
        return
    if seen.accept is None:
        return
    yield ControlResult(control=Control.CALLING_AE_TITLE, verdict=Verdict.FAIL, why="an unknown title was accepted")
    yield ControlResult(
        control=Control.STORAGE_CONTEXTS,
        verdict=Verdict.FAIL if seen.storage_contexts else Verdict.PASS,
    )
    if seen.counts is not None:
        yield ControlResult(control=Control.FIND, verdict=Verdict.FAIL, why="an unknown caller's query was answered")
    elif STUDY_ROOT_CONTEXT not in seen.contexts or seen.refused_status == _NOT_AUTHORISED:
        yield ControlResult(control=Control.FIND, verdict=Verdict.PASS)
    else:
        status = "" if seen.refused_status is None else f" (status {seen.refused_status:04X}H)"
        yield ControlResult(control=Control.FIND, verdict=Verdict.INCONCLUSIVE, why=f"the query failed{status}")
