"""What the audit events say in numbers: counted where they are recorded anyway, added up when somebody asks.

An operation costs two look-ups in a dictionary. Labels are bounded: devices and archives are registered ones, at most
MOST_NAMES of them; everything else is one of a few words.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from dicomward.audit.event import (
    EVENT_CLASS_BY_CODE,
    AssociationAllowed,
    AssociationDenied,
    AssociationEnded,
    AuditEvent,
    ConfigurationReloaded,
    ConnectionFailed,
    DegradedEntered,
    DegradedLeft,
    OperationCompleted,
    OperationDenied,
    SecurityAlert,
)
from dicomward.io.monitoring.metrics import Family, MetricKind, Sample, histogram_samples, labelled
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import service_of

# More devices than a large hospital has; what comes after them shares one label.
MOST_NAMES: Final = 2_000
OTHER: Final = "(other)"
# A C-ECHO takes a millisecond, a C-MOVE of a large study a quarter of an hour.
DURATION_BOUNDS_SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)
# Rules are judged in tens of microseconds; what takes a millisecond has waited for the processor.
DECISION_BOUNDS_SECONDS: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
_BOUNDS_MS: Final = tuple(bound * 1000 for bound in DURATION_BOUNDS_SECONDS)

LIMIT_REASONS: Final = frozenset(
    {
        ReasonCode.DEVICE_ASSOCIATIONS,
        ReasonCode.NETWORK_ASSOCIATIONS,
        ReasonCode.ARCHIVE_ASSOCIATIONS,
        ReasonCode.ASSOCIATION_RATE,
        ReasonCode.OPERATION_RATE,
        ReasonCode.QUERY_RATE,
        ReasonCode.MATCHES_PER_QUERY,
        ReasonCode.BYTE_RATE,
        ReasonCode.CERTIFICATE_BACK_OFF,
        ReasonCode.ADDRESS_DELAY,
    }
)
_ARCHIVE_AWAY: Final = frozenset({ReasonCode.UPSTREAM_UNREACHABLE, ReasonCode.UPSTREAM_NOT_TRUSTED})
_ARCHIVE_FAILED: Final = _ARCHIVE_AWAY | {ReasonCode.UPSTREAM_REJECTED, ReasonCode.UPSTREAM_ABORTED}
_KEPT_OLD: Final = "kept-old"
_PENDING: Final = frozenset({0xFF00, 0xFF01})

_OperationKey = tuple[str, str | None, str | None, str]


class _Operations:
    """The numbers of one device, SOP class and kind of operation with one outcome."""

    __slots__ = ("buckets", "bytes", "count", "milliseconds")

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self.milliseconds = 0
        self.buckets = [0] * (len(_BOUNDS_MS) + 1)


def outcome_of(status: int | None) -> str:
    """Return the class of a final DIMSE status (PS3.7 annex C) in a word; None is an operation that was cut off."""
    if status is None:
        return "aborted"
    if status == 0:
        return "success"
    if status == 0xFE00:
        return "cancelled"
    if status in (0x0001, 0x0107, 0x0116) or 0xB000 <= status <= 0xBFFF:
        return "warning"
    return "pending" if status in _PENDING else "failed"


class EventCounts:
    """Counters of one gateway. Any thread may count."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._events: Counter[tuple[str, ReasonCode | None]] = Counter()
        self._operations: dict[_OperationKey, _Operations] = {}
        self._decisions = [0] * (len(DECISION_BOUNDS_SECONDS) + 1)
        self._decision_seconds = 0.0
        self._names: set[str] = set()
        self._association_bytes = 0
        self._seen: dict[str, float] = {}
        self._archive_failures: Counter[tuple[str, str]] = Counter()
        self._archive_is_reachable: dict[str, bool] = {}
        self._degraded: dict[str, bool] = {}
        # Both results are there before the first reload: an alert on an increase needs the zero before it.
        self._reloads: Counter[str] = Counter({"ok": 0, _KEPT_OLD: 0})
        self._reloaded: tuple[float, bool] | None = None

    def count(self, event: AuditEvent) -> None:
        """Count an event."""
        kind = type(event)
        with self._lock:
            self._events[event.code, event.reason] += 1
            if kind is OperationCompleted or kind is OperationDenied:
                self._count_operation(event)  # type: ignore[arg-type]
            elif kind in _RARE:
                self._count_rare(event)

    def note_decision(self, seconds: float) -> None:
        """Count how long it took from what an operation is judged by to its permission."""
        with self._lock:
            self._decisions[bisect_left(DECISION_BOUNDS_SECONDS, seconds)] += 1
            self._decision_seconds += seconds

    def _count_operation(self, event: OperationCompleted | OperationDenied) -> None:
        outcome = "denied" if isinstance(event, OperationDenied) else outcome_of(event.status)
        # The service stands for the SOP class: a device may name any number of private ones.
        service = service_of(event.sop_class_uid) if event.sop_class_uid else None
        key = (self._name(event.device), service, event.operation, outcome)
        numbers = self._operations.get(key)
        if numbers is None:
            numbers = self._operations[key] = _Operations()
        numbers.count += 1
        if event.bytes:
            numbers.bytes += event.bytes
        if event.duration_ms is not None:
            numbers.milliseconds += event.duration_ms
            numbers.buckets[bisect_left(_BOUNDS_MS, event.duration_ms)] += 1

    def _count_rare(self, event: AuditEvent) -> None:
        if isinstance(event, DegradedEntered):
            self._degraded[event.component] = True
        elif isinstance(event, DegradedLeft):
            self._degraded[event.component] = False
        elif isinstance(event, AssociationAllowed):
            if event.device:
                self._seen[self._name(event.device)] = self._clock()
        elif isinstance(event, ConfigurationReloaded):
            is_ok = event.state == "ok"
            self._reloads["ok" if is_ok else _KEPT_OLD] += 1
            self._reloaded = (self._clock(), is_ok)
        elif isinstance(event, AssociationEnded):
            self._association_bytes += event.bytes or 0
            self._archive_answered(event)
        elif event.archive and event.reason in _ARCHIVE_FAILED:
            self._archive_answered(event)

    def _archive_answered(self, event: AuditEvent) -> None:
        if not event.archive:
            return
        name = self._name(event.archive)
        if event.reason in _ARCHIVE_FAILED:
            self._archive_failures[name, str(event.reason)] += 1
        self._archive_is_reachable[name] = event.reason not in _ARCHIVE_AWAY

    def _name(self, name: str | None) -> str:
        if name is None or name in self._names:
            return name or ""
        if len(self._names) >= MOST_NAMES:
            return OTHER
        self._names.add(name)
        return name

    # -- telling ----------------------------------------------------------------------------------------------------

    def families(self) -> Iterable[Family]:
        """Return everything: a source of `Metrics`."""
        with self._lock:
            events = Counter(self._events)
            operations = [
                (key, numbers.count, numbers.bytes, numbers.milliseconds, tuple(numbers.buckets))
                for key, numbers in self._operations.items()
            ]
            seen, failures = dict(self._seen), Counter(self._archive_failures)
            reachable, degraded = dict(self._archive_is_reachable), dict(self._degraded)
            association_bytes = self._association_bytes
            decisions, decision_seconds = tuple(self._decisions), self._decision_seconds
            reloads, reloaded = Counter(self._reloads), self._reloaded
        yield from _event_families(events)
        yield from _operation_families(operations)
        yield Family(
            "dicomward_association_bytes_total",
            MetricKind.COUNTER,
            "Bytes of data sets in associations that have ended.",
            (Sample(association_bytes),),
        )
        yield Family(
            "dicomward_operation_decision_seconds",
            MetricKind.HISTOGRAM,
            "From the message that an operation is judged by to its permission, reading and checking it included.",
            histogram_samples(DECISION_BOUNDS_SECONDS, decisions, decision_seconds, {}),
        )
        yield from _reload_families(reloads, reloaded)
        yield labelled(
            "dicomward_device_last_association_timestamp_seconds",
            MetricKind.GAUGE,
            "When a device was last let in, Unix time.",
            "device",
            seen,  # type: ignore[arg-type]
        )
        yield labelled(
            "dicomward_archive_failures_total",
            MetricKind.COUNTER,
            "Associations that an archive did not take, or broke off.",
            ("archive", "reason"),
            failures,  # type: ignore[arg-type]
        )
        yield labelled(
            "dicomward_archive_reachable",
            MetricKind.GAUGE,
            "1 if the last association to the archive reached it, 0 if it could not be reached or not be trusted.",
            "archive",
            reachable,  # type: ignore[arg-type]
        )
        yield labelled(
            "dicomward_degraded",
            MetricKind.GAUGE,
            "1 while a part of the gateway works with less than it should; 0 after it has recovered.",
            "component",
            degraded,  # type: ignore[arg-type]
        )


_RARE: Final = frozenset(
    {AssociationAllowed, AssociationDenied, AssociationEnded, ConfigurationReloaded, DegradedEntered, DegradedLeft}
)


def _reload_families(reloads: Counter[str], reloaded: tuple[float, bool] | None) -> Iterable[Family]:
    yield labelled(
        "dicomward_config_reloads_total",
        MetricKind.COUNTER,
        "Reloads by result: ok, or kept-old where something was broken and its old version goes on.",
        "result",
        reloads,  # type: ignore[arg-type]
    )
    yield Family(
        "dicomward_config_last_reload_successful",
        MetricKind.GAUGE,
        "1 if the last reload found everything good, or none was yet; 0 if something broken was kept out.",
        (Sample(reloaded is None or reloaded[1]),),
    )
    yield Family(
        "dicomward_config_last_reload_timestamp_seconds",
        MetricKind.GAUGE,
        "When the last reload was, Unix time; 0 before the first.",
        (Sample(reloaded[0] if reloaded else 0),),
    )


def _event_families(events: Counter[tuple[str, ReasonCode | None]]) -> Iterable[Family]:
    associations: Counter[tuple[str, str]] = Counter()
    ended: Counter[str] = Counter()
    denied: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    limits: Counter[str] = Counter({str(reason): 0 for reason in LIMIT_REASONS})
    alerts: Counter[str] = Counter()
    # An alert on an increase needs the zero before it.
    codes: Counter[str] = Counter(dict.fromkeys(EVENT_CLASS_BY_CODE, 0))
    for (code, reason), number in events.items():
        codes[code] += number
        told = str(reason) if reason else ""
        if code == AssociationAllowed.code:
            associations["allowed", told] += number
        elif code == AssociationDenied.code:
            associations["denied", told] += number
        elif code == AssociationEnded.code:
            ended[told or "released"] += number
        elif code == OperationDenied.code:
            denied[told] += number
        elif code == ConnectionFailed.code:
            failed[told] += number
        elif code == SecurityAlert.code:
            alerts[told] += number
        if reason in LIMIT_REASONS:
            limits[told] += number
    rows: list[tuple[str, str, str | tuple[str, ...], Counter[str] | Counter[tuple[str, str]]]] = [
        (
            "dicomward_associations_total",
            "Associations that were let in or turned away, with the reason.",
            ("outcome", "reason"),
            associations,
        ),
        ("dicomward_associations_ended_total", "Established associations that are over.", "reason", ended),
        ("dicomward_operations_denied_total", "Operations that were not forwarded.", "reason", denied),
        (
            "dicomward_connections_failed_total",
            "Connections that ended before they proved who it is.",
            "reason",
            failed,
        ),
        ("dicomward_limit_refusals_total", "Refusals because of a limit.", "reason", limits),
        ("dicomward_security_alerts_total", "Security alerts in the audit log.", "reason", alerts),
        (
            "dicomward_audit_events_total",
            "Audit events by code; those that the log writes itself excepted.",
            "code",
            codes,
        ),
    ]
    for name, help_text, label, values in rows:
        yield labelled(name, MetricKind.COUNTER, help_text, label, values)  # type: ignore[arg-type]


def _operation_families(
    operations: list[tuple[_OperationKey, int, int, int, tuple[int, ...]]],
) -> Iterable[Family]:
    totals: Counter[tuple[str, str, str]] = Counter()
    volume: Counter[str] = Counter()
    devices: Counter[tuple[str, str]] = Counter()
    device_volume: Counter[str] = Counter()
    durations: dict[str, tuple[list[int], int]] = {}
    for (device, service, operation, outcome), count, size, milliseconds, buckets in operations:
        told = service or "other"
        totals[told, operation or "", outcome] += count
        volume[told] += size
        if device:
            devices[device, outcome] += count
            device_volume[device] += size
        if outcome != "denied":
            known, total = durations.get(told, ([0] * len(buckets), 0))
            durations[told] = ([a + b for a, b in zip(known, buckets, strict=True)], total + milliseconds)
    yield labelled(
        "dicomward_operations_total",
        MetricKind.COUNTER,
        "Operations by service, kind and outcome.",
        ("service", "operation", "outcome"),
        totals,  # type: ignore[arg-type]
    )
    yield labelled(
        "dicomward_operation_bytes_total",
        MetricKind.COUNTER,
        "Bytes of the data sets of finished operations.",
        "service",
        volume,  # type: ignore[arg-type]
    )
    yield Family(
        "dicomward_operation_duration_seconds",
        MetricKind.HISTOGRAM,
        "From the request of an operation to its final response, the archive's time included.",
        [
            sample
            for service, (buckets_of, total) in durations.items()
            for sample in histogram_samples(DURATION_BOUNDS_SECONDS, buckets_of, total / 1000, {"service": service})
        ],
    )
    yield labelled(
        "dicomward_device_operations_total",
        MetricKind.COUNTER,
        "Operations of a registered device by outcome.",
        ("device", "outcome"),
        devices,  # type: ignore[arg-type]
    )
    yield labelled(
        "dicomward_device_bytes_total",
        MetricKind.COUNTER,
        "Bytes of the data sets of a registered device's operations.",
        "device",
        device_volume,  # type: ignore[arg-type]
    )
