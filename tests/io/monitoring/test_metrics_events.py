"""Audit events in numbers: each is counted once, under names of which there are never too many."""

import threading

import pytest

from dicomward.audit.event import (
    AssociationAllowed,
    AssociationDenied,
    AssociationEnded,
    AuditEvent,
    ConfigurationReloaded,
    ConnectionFailed,
    DegradedEntered,
    DegradedLeft,
    OperationAllowed,
    OperationCompleted,
    OperationDenied,
    SecurityAlert,
)
from dicomward.io.monitoring import metrics_events
from dicomward.io.monitoring.metrics import Metrics
from dicomward.io.monitoring.metrics_events import LIMIT_REASONS, OTHER, EventCounts, outcome_of
from dicomward.vocab.reason import ReasonCode
from tests.io.monitoring.test_metrics import values_of

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


def told(*events: AuditEvent) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the samples after some events."""
    counts = EventCounts(clock=lambda: 1000.0)
    for event in events:
        counts.count(event)
    metrics = Metrics()
    metrics.register("events", counts.families)
    return values_of(metrics.render())


def of(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return f"dicomward_{name}", tuple(sorted(labels.items()))


def stored(**changes: object) -> OperationCompleted:
    values: dict[str, object] = {
        "device": "ct1",
        "archive": "PACS",
        "operation": "c-store",
        "sop_class_uid": CT_IMAGE,
        "status": 0,
        "bytes": 500,
        "duration_ms": 30,
        **changes,
    }
    return OperationCompleted(**values)  # type: ignore[arg-type]


def test_operations_are_counted_by_service_and_outcome() -> None:
    found = told(stored(), stored(), stored(status=0xA700), stored(status=None))
    assert found[of("operations_total", service="storage", operation="c-store", outcome="success")] == 2
    assert found[of("operations_total", service="storage", operation="c-store", outcome="failed")] == 1
    assert found[of("operations_total", service="storage", operation="c-store", outcome="aborted")] == 1
    assert found[of("operation_bytes_total", service="storage")] == 2000
    assert found[of("device_operations_total", device="ct1", outcome="success")] == 2
    assert found[of("device_bytes_total", device="ct1")] == 2000


def test_durations_fall_into_their_buckets() -> None:
    found = told(stored(duration_ms=2), stored(duration_ms=30), stored(duration_ms=900_000), stored(duration_ms=None))
    bucket = "operation_duration_seconds_bucket"
    assert found[of(bucket, service="storage", le="0.002")] == 1
    assert found[of(bucket, service="storage", le="0.025")] == 1
    assert found[of(bucket, service="storage", le="0.05")] == 2
    assert found[of(bucket, service="storage", le="600")] == 2
    assert found[of(bucket, service="storage", le="+Inf")] == 3
    assert found[of("operation_duration_seconds_sum", service="storage")] == 900.032


def test_denied_operation_has_its_reason_and_no_duration() -> None:
    denied = OperationDenied(
        device="ct1", operation="c-find", sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1", reason=ReasonCode.QUERY_RATE
    )
    found = told(denied)
    assert found[of("operations_total", service="query", operation="c-find", outcome="denied")] == 1
    assert found[of("operations_denied_total", reason="query-rate")] == 1
    assert found[of("limit_refusals_total", reason="query-rate")] == 1
    assert found[of("device_operations_total", device="ct1", outcome="denied")] == 1
    assert not any(name.startswith("dicomward_operation_duration") for name, _ in found)


def test_operation_without_device_or_class_is_counted() -> None:
    found = told(stored(device=None, sop_class_uid=None, operation=None, bytes=None))
    assert found[of("operations_total", service="other", operation="", outcome="success")] == 1
    assert not any(name == "dicomward_device_operations_total" for name, _ in found)


def test_private_sop_classes_share_one_label() -> None:
    """A device may name as many as it likes."""
    found = told(*(stored(sop_class_uid=f"1.2.3.{number}") for number in range(500)))
    assert found[of("operations_total", service="other", operation="c-store", outcome="success")] == 500
    assert len([name for name, _ in found if name == "dicomward_operations_total"]) == 1


def test_devices_beyond_the_bound_share_one_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_events, "MOST_NAMES", 2)
    found = told(*(stored(device=f"d{number}") for number in (1, 2, 3, 4, 1)))
    assert found[of("device_operations_total", device="d1", outcome="success")] == 2
    assert found[of("device_operations_total", device=OTHER, outcome="success")] == 2


def test_associations_are_counted_by_outcome_and_reason() -> None:
    found = told(
        AssociationAllowed(device="ct1", archive="PACS"),
        AssociationAllowed(device="ct1", archive="PACS", reason=ReasonCode.CERTIFICATE_JUST_EXPIRED),
        AssociationDenied(reason=ReasonCode.DEVICE_SUSPENDED),
        AssociationEnded(device="ct1", archive="PACS", bytes=700),
        AssociationEnded(device="ct1", archive="PACS", reason=ReasonCode.IDLE),
    )
    assert found[of("associations_total", outcome="allowed", reason="")] == 1
    assert found[of("associations_total", outcome="allowed", reason="certificate-just-expired")] == 1
    assert found[of("associations_total", outcome="denied", reason="device-suspended")] == 1
    assert found[of("associations_ended_total", reason="released")] == 1
    assert found[of("associations_ended_total", reason="idle")] == 1
    assert found[of("association_bytes_total")] == 700
    assert found[of("device_last_association_timestamp_seconds", device="ct1")] == 1000
    assert found[of("archive_reachable", archive="PACS")] == 1


def test_association_without_a_device_was_nobodys() -> None:
    assert not any("last_association" in name for name, _ in told(AssociationAllowed(), AssociationEnded()))


@pytest.mark.parametrize(
    ("reason", "is_reachable"),
    [
        (ReasonCode.UPSTREAM_UNREACHABLE, 0),
        (ReasonCode.UPSTREAM_NOT_TRUSTED, 0),
        (ReasonCode.UPSTREAM_REJECTED, 1),
        (ReasonCode.UPSTREAM_ABORTED, 1),
    ],
)
def test_archive_that_fails_is_told_with_its_reason(reason: ReasonCode, is_reachable: int) -> None:
    found = told(AssociationEnded(archive="PACS"), AssociationDenied(archive="PACS", reason=reason))
    assert found[of("archive_failures_total", archive="PACS", reason=str(reason))] == 1
    assert found[of("archive_reachable", archive="PACS")] == is_reachable


def test_archive_is_not_blamed_for_a_denial_of_ours() -> None:
    found = told(AssociationDenied(archive="PACS", reason=ReasonCode.NO_PERMITTED_CONTEXT))
    assert not any(name.startswith("dicomward_archive_") for name, _ in found)


def test_degraded_states_are_entered_and_left() -> None:
    assert told(DegradedEntered(component="correlations"))[of("degraded", component="correlations")] == 1
    left = told(DegradedEntered(component="correlations"), DegradedLeft(component="correlations"))
    assert left[of("degraded", component="correlations")] == 0


def test_strangers_and_alerts_have_their_reasons_and_no_address() -> None:
    found = told(
        ConnectionFailed(address="192.0.2.1", reason=ReasonCode.NOT_TLS),
        SecurityAlert(address="192.0.2.1", reason=ReasonCode.INTERNAL_ERROR),
        SecurityAlert(),
        OperationAllowed(device="ct1"),
    )
    assert found[of("connections_failed_total", reason="not-tls")] == 1
    assert found[of("security_alerts_total", reason="internal-error")] == 1
    assert found[of("security_alerts_total", reason="")] == 1
    assert found[of("audit_events_total", code="DW-OP-ALLOW")] == 1
    assert not any("192.0.2.1" in str(key) for key in found)


def test_every_limit_is_there_before_anybody_meets_it() -> None:
    """An alert on the increase of a series needs its zero."""
    found = told()
    assert {dict(labels)["reason"] for name, labels in found if name == "dicomward_limit_refusals_total"} == {
        str(reason) for reason in LIMIT_REASONS
    }


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (None, "aborted"),
        (0x0000, "success"),
        (0xFE00, "cancelled"),
        (0xB000, "warning"),
        (0xB007, "warning"),
        (0x0001, "warning"),
        (0x0107, "warning"),
        (0x0116, "warning"),
        (0xFF00, "pending"),
        (0xFF01, "pending"),
        (0xA700, "failed"),
        (0x0124, "failed"),
        (0xC000, "failed"),
    ],
)
def test_status_has_its_outcome(status: int | None, outcome: str) -> None:
    assert outcome_of(status) == outcome


def test_nothing_is_lost_between_threads() -> None:
    counts = EventCounts()

    def work() -> None:
        for _ in range(2000):
            counts.count(stored())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    metrics = Metrics()
    metrics.register("events", counts.families)
    found = values_of(metrics.render())
    assert found[of("operations_total", service="storage", operation="c-store", outcome="success")] == 8000


def test_reloads_have_their_results() -> None:
    before = told()
    assert before[of("config_reloads_total", result="kept-old")] == 0
    assert before[of("config_last_reload_successful")] == 1
    assert before[of("config_last_reload_timestamp_seconds")] == 0
    kept = told(ConfigurationReloaded(state="ok"), ConfigurationReloaded(state="kept-old"))
    assert kept[of("config_reloads_total", result="ok")] == 1
    assert kept[of("config_reloads_total", result="kept-old")] == 1
    assert kept[of("config_last_reload_successful")] == 0
    assert kept[of("config_last_reload_timestamp_seconds")] == 1000


def test_decisions_have_their_times() -> None:
    counts = EventCounts()
    for seconds in (0.00004, 0.0002, 3.0):
        counts.note_decision(seconds)
    metrics = Metrics()
    metrics.register("events", counts.families)
    found = values_of(metrics.render())
    assert found[of("operation_decision_seconds_bucket", le="5e-05")] == 1
    assert found[of("operation_decision_seconds_bucket", le="0.00025")] == 2
    assert found[of("operation_decision_seconds_bucket", le="0.25")] == 2
    assert found[of("operation_decision_seconds_bucket", le="+Inf")] == 3
    assert found[of("operation_decision_seconds_sum")] == pytest.approx(3.00024)
