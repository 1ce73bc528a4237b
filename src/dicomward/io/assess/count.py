"""Counting as a part of an assessment: where the scope turns it on, and where a query was answered before."""

import asyncio
import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from dicomward.assess.count_limits import CountLimits
from dicomward.assess.count_query import Caller
from dicomward.assess.countries import country_in
from dicomward.assess.findings import findings_of
from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, Protocol, ServerObservation
from dicomward.assess.plan import ASSESS_IMPLEMENTATION_CLASS_UID, ASSESS_IMPLEMENTATION_VERSION_NAME
from dicomward.assess.scope import ScopeNetwork
from dicomward.assess.sites import place_of
from dicomward.io.assess.count_run import registered_country
from dicomward.io.assess.count_server import CountTarget, count_server
from dicomward.io.assess.probe_guard import Guard, ProbingStopped
from dicomward.io.assess.probe_tls import anyone
from dicomward.io.assess.store import AssessStore

_ANY_TITLE = "ANY-SCP"


def is_counted(observation: ServerObservation, network: ScopeNetwork) -> bool:
    """Say if a server's records are to be counted: the scope allows it, and strangers' queries are answered."""
    return (
        network.counting
        and observation.protocol in (Protocol.DIMSE, Protocol.DIMSE_TLS)
        and observation.verdict_of(Control.FIND) is Verdict.FAIL
    )


def with_place(observation: ServerObservation) -> ServerObservation:
    """Return the observation with the country of its registration, where the scope names none."""
    if observation.country:
        return observation
    place = place_of(observation.address, None, registered_country)
    return replace(observation, country=place.country, country_source=place.source)


async def with_counts(
    observation: ServerObservation,
    guard: Guard,
    store: AssessStore,
    now: Callable[[], datetime],
    limits: CountLimits | None = None,
) -> ServerObservation:
    """Return the observation with its counts and what is found by them. Raises ProbingStopped."""
    await guard.before(observation.address, (observation.port,), "count: queries at study level")
    cancelled = threading.Event()

    def is_stopped() -> bool:
        try:
            guard.verify_may_go_on()
        except ProbingStopped:
            return True
        return cancelled.is_set()

    target = CountTarget(
        address=observation.address,
        port=observation.port,
        caller=Caller(
            calling_ae_title=guard.scope.calling_ae_title,
            called_ae_title=observation.called_ae_title or _ANY_TITLE,
            implementation_class_uid=ASSESS_IMPLEMENTATION_CLASS_UID,
            implementation_version_name=ASSESS_IMPLEMENTATION_VERSION_NAME,
        ),
        context=anyone() if observation.protocol is Protocol.DIMSE_TLS else None,
    )
    try:
        seen = await asyncio.to_thread(
            count_server,
            target,
            limits=limits or CountLimits(),
            today=now().date(),
            key=secrets.token_bytes(32),
            country_of=country_in,
            keeper=store,
            is_stopped=is_stopped,
        )
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
