"""Headroom and receivers of the audit log in numbers."""

from dicomward.io.monitoring.metrics import Metrics
from dicomward.io.monitoring.metrics_audit import outlet_families
from tests.io.monitoring.test_metrics import values_of

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def told(status: dict[str, object]) -> Values:
    metrics = Metrics()
    metrics.register("outlets", lambda: outlet_families(status))
    return {key: value for key, value in values_of(metrics.render()).items() if "metrics" not in key[0]}


def test_headroom_and_receivers_are_told() -> None:
    away = {"destination": "a:6514 dicom", "connected": False, "delivered": 5, "backlog": 7, "error": "refused"}
    found = told({"headroom_hours": 12.5, "destinations": [away, {**away, "destination": "b", "connected": True}]})
    label = (("destination", "a:6514 dicom"),)
    assert found["dicomward_audit_headroom_hours", ()] == 12.5
    assert found["dicomward_syslog_connected", label] == 0
    assert found["dicomward_syslog_backlog_records", label] == 7
    assert found["dicomward_syslog_connected", (("destination", "b"),)] == 1


def test_what_is_not_known_has_no_sample() -> None:
    assert told({"headroom_hours": None, "destinations": []}) == {}
    assert told({}) == {}
    found = told({"destinations": ["odd", {"destination": "a", "connected": True, "backlog": None}]})
    assert found == {("dicomward_syslog_connected", (("destination", "a"),)): 1}
