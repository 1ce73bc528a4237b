"""What the audit log's outlets tell monitoring: the headroom of its disk, and how far each receiver has the log."""

from collections.abc import Iterable, Mapping

from dicomward.io.monitoring.metrics import Family, MetricKind, Sample


def outlet_families(status: Mapping[str, object]) -> Iterable[Family]:
    """Return the metrics of `AuditOutlets.status`."""
    hours = status.get("headroom_hours")
    yield Family(
        "dicomward_audit_headroom_hours",
        MetricKind.GAUGE,
        "Hours until the disk of the audit log is full, at its present pace; without a sample while not known.",
        [Sample(hours)] if isinstance(hours, (int, float)) else [],
    )
    found = status.get("destinations")
    receivers = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    yield Family(
        "dicomward_syslog_connected",
        MetricKind.GAUGE,
        "1 while a receiver of audit messages is connected.",
        [Sample(bool(each.get("connected")), {"destination": str(each.get("destination"))}) for each in receivers],
    )
    yield Family(
        "dicomward_syslog_backlog_records",
        MetricKind.GAUGE,
        "Records that a receiver of audit messages still has to get.",
        [
            Sample(backlog, {"destination": str(each.get("destination"))})
            for each in receivers
            if isinstance(backlog := each.get("backlog"), (int, float))
        ],
    )
