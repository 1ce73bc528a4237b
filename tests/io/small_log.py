"""A log of many small segments, each of them some records long."""

from collections.abc import Callable
from pathlib import Path

from dicomward.audit.event import AuditEvent, GatewayStarted
from dicomward.io.audit.engine import AuditEngine, EngineLimits, Entry, Level
from dicomward.io.audit.store import AuditStore
from tests.io.audit_helpers import FakeClock

SEGMENT_BYTES = 700


def make_log(
    directory: Path,
    count: int,
    *,
    clock: FakeClock | None = None,
    event: Callable[[int], AuditEvent] = lambda number: GatewayStarted(detail=str(number)),
    seconds: float = 1.0,
) -> FakeClock:
    """Append so many records, one each `seconds`, signed at the end."""
    clock = clock or FakeClock()
    engine = AuditEngine(AuditStore(directory, segment_bytes=SEGMENT_BYTES), None, clock=clock, limits=EngineLimits())
    engine.open()
    for number in range(count):
        clock.now += seconds
        assert engine.run(engine.prepare([Entry(clock.time_ns(), event(number), Level.DURABLE, None)]))
    assert engine.run((), closing=True)
    engine.close()
    return clock
