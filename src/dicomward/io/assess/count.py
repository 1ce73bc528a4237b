"""Counting as a part of an assessment: one server, under the guard of the run."""

import asyncio
import functools
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from datetime import datetime

from dicomward.assess.count_limits import CountLimits
from dicomward.assess.count_query import Caller
from dicomward.assess.countries import country_in
from dicomward.assess.findings import findings_of
from dicomward.assess.observation import Protocol, ServerObservation
from dicomward.assess.plan import ASSESS_IMPLEMENTATION_CLASS_UID, ASSESS_IMPLEMENTATION_VERSION_NAME, Tempo
from dicomward.assess.scope import Scope
from dicomward.io.assess.count_link import CountTarget
from dicomward.io.assess.count_server import Keeper, count_server
from dicomward.io.assess.count_web import WebTarget
from dicomward.io.assess.probe_guard import Guard, ProbingStopped
from dicomward.io.assess.probe_tls import anyone

_ANY_TITLE = "ANY-SCP"


async def with_counts(
    observation: ServerObservation,
    guard: Guard,
    keeper: Keeper,
    now: Callable[[], datetime],
    pool: Executor,
) -> ServerObservation:
    """Return the observation with its counts and what is found by them. Raises ProbingStopped."""
    await guard.before(observation.address, (observation.port,), "count: queries at study level")
    cancelled, pace = threading.Event(), guard.scope.pace

    def is_stopped() -> bool:
        try:
            guard.verify_may_go_on()
        except ProbingStopped:
            return True
        return cancelled.is_set()

    try:
        count = functools.partial(
            count_server,
            _target_of(observation, guard.scope),
            limits=replace(CountLimits(), reread_matches=pace.reread_matches),
            today=now().date(),
            key=secrets.token_bytes(32),
            country_of=country_in,
            keeper=keeper,
            is_stopped=is_stopped,
            tempo=Tempo(pace.slow_floor),
            pause=pace.fragile_pause if guard.scope.fragile_network_of(observation.address) else 0.0,
        )
        seen = await asyncio.get_running_loop().run_in_executor(pool, count)
    finally:
        cancelled.set()
    # What was cut short by us is counted again with --resume; its finished slices are kept.
    guard.verify_may_go_on()
    counted = replace(
        observation,
        counts=seen.counts,
        probes=observation.probes + 1 + seen.queries,
        slowest_ms=max(observation.slowest_ms, seen.slowest_ms),
        problem=observation.problem or (f"counting: {seen.problem}" if seen.problem else ""),
    )
    return replace(counted, findings=findings_of(counted))


def _target_of(observation: ServerObservation, scope: Scope) -> CountTarget | WebTarget:
    context = anyone() if observation.protocol in (Protocol.DIMSE_TLS, Protocol.HTTPS) else None
    if observation.protocol in (Protocol.HTTP, Protocol.HTTPS):
        return WebTarget(
            address=observation.address,
            port=observation.port,
            host=observation.host,
            roots=scope.dicomweb_roots,
            contact=scope.contact,
            context=context,
        )
    return CountTarget(
        address=observation.address,
        port=observation.port,
        caller=Caller(
            calling_ae_title=scope.calling_ae_title,
            called_ae_title=observation.called_ae_title or _ANY_TITLE,
            implementation_class_uid=ASSESS_IMPLEMENTATION_CLASS_UID,
            implementation_version_name=ASSESS_IMPLEMENTATION_VERSION_NAME,
        ),
        context=context,
    )
