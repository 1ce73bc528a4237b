"""Monitoring of a running gateway: metrics that are true, and answers that say what an orchestrator must know."""

import json
import logging
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest

from dicomward.io.audit.engine import AuditHealth, AuditState
from dicomward.io.audit.log import AuditLog
from dicomward.io.installation.gateway_certificates import renew_gateway_certificates
from dicomward.io.monitoring import state as monitoring_module
from dicomward.io.monitoring.certificate_watch import CertificatesInForce
from dicomward.io.monitoring.state import free_bytes
from dicomward.settings import ListenAddress, parse_host_port
from dicomward.vocab.reason import ReasonCode
from tests.degraded.place import Application, Place, application, process
from tests.directory_helpers import now
from tests.docs.pages import read, rows_of, section_of
from tests.io.monitoring.test_metrics import values_of
from tests.io.world import SECONDS, RawArchive, raw_archive


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    monitored(made, ListenAddress(host="127.0.0.1", port=0))
    yield made
    made.close()


def monitored(place: Place, where: ListenAddress | None) -> None:
    place.settings = replace(place.settings, metrics=replace(place.settings.metrics, listen=where))


def ask(where: ListenAddress | None, path: str) -> tuple[int, str]:
    assert where is not None
    connection = HTTPConnection(where.host, where.port, timeout=SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def get(running: Application, path: str) -> tuple[int, str]:
    return ask(running.gateway.monitoring.address, path)


def scrape(running: Application) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    status, text = get(running, "/metrics")
    assert status == 200
    return values_of(text)


def value(running: Application, name: str, **labels: str) -> float:
    return scrape(running)[f"dicomward_{name}", tuple(sorted(labels.items()))]


def test_association_and_its_operations_are_seen(place: Place) -> None:
    with application(place) as running:
        peer = place.peer().established()
        assert peer.echo() == 0
        assert value(running, "associations_open") == 1
        assert value(running, "connections_open") == 1
        assert value(running, "associations_total", outcome="allowed", reason="") == 1
        peer.release()
        peer.close()
        assert running.gateway._gate.wait_until_empty(SECONDS)
        assert value(running, "associations_open") == 0
        assert value(running, "operations_total", service="verification", operation="c-echo", outcome="success") == 1
        assert value(running, "device_operations_total", device="ct1", outcome="success") == 1
        assert value(running, "associations_ended_total", reason="released") == 1
        assert value(running, "operation_decision_seconds_count") == 1
        assert 0 < value(running, "operation_decision_seconds_sum") < SECONDS


def test_connection_that_says_nothing_waits(place: Place) -> None:
    with application(place) as running:
        with socket.create_connection(("127.0.0.1", place.port), SECONDS):
            deadline = running.gateway._gate
            while not deadline.waiting():
                pass
            found = scrape(running)
        assert found["dicomward_connections_waiting", ()] == 1
        assert found["dicomward_associations_open", ()] == 0


def test_what_is_in_force_is_told(place: Place) -> None:
    with application(place) as running:
        found = scrape(running)
        gate = running.gateway._gate
        assert found["dicomward_registry_revision", ()] == 7
        assert found["dicomward_policy_info", (("revision", gate.policy.revision),)] == 1
        assert found["dicomward_devices", (("status", "active"),)] == 1
        assert found["dicomward_devices", (("status", "revoked"),)] == 0
        assert found["dicomward_archives", ()] == 1
        assert found["dicomward_ready", ()] == 1
        assert found["dicomward_floor_only", (("reason", ""),)] == 0
        assert found["dicomward_audit_state", (("state", "ok"),)] == 1
        assert found["dicomward_audit_disk_free_bytes", ()] > 0
        assert found["dicomward_audit_record_number", ()] >= 1
        assert found["process_resident_memory_bytes", ()] > 1e6


def test_every_certificate_has_its_seconds(place: Place) -> None:
    with application(place) as running:
        left = {
            (dict(labels)["kind"], dict(labels)["name"]): seconds
            for (name, labels), seconds in scrape(running).items()
            if name == "dicomward_certificate_expires_in_seconds"
        }
    day = 86_400
    assert 390 * day < left["gateway", "gateway-ecdsa.cert.pem"] < 398 * day
    assert 390 * day < left["gateway", "gateway-rsa.cert.pem"] < 398 * day
    assert 3600 * day < left["ca", "ca.cert.pem"] < 3653 * day
    assert left["device", "ct1"] > 0


def test_second_ca_of_a_file_has_a_name_of_its_own(place: Place) -> None:
    ca = place.settings.tls.client_ca
    ca.write_bytes(ca.read_bytes() * 2)
    names = {name for kind, name in CertificatesInForce(place.settings).ends() if kind == "ca"}
    assert names == {"ca.cert.pem", "ca.cert.pem#2"}


def test_certificate_that_cannot_be_read_is_only_left_out(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.settings.tls.certificates[0].certificate.write_text("nonsense")
    with caplog.at_level(logging.WARNING):
        kinds = [kind for kind, _ in CertificatesInForce(place.settings).ends()]
    assert kinds == ["gateway", "ca"]
    assert "can't be told to monitoring" in caplog.text


def test_no_patient_and_no_secret_is_shown(place: Place) -> None:
    with application(place) as running:
        place.peer().established().echo()
        _status, text = get(running, "/metrics")
    assert "PRIVATE KEY" not in text
    assert place.scanner is not None
    assert "127.0.0.1" not in text


def test_health_and_readiness_of_a_gateway_that_serves(place: Place) -> None:
    with application(place) as running:
        assert get(running, "/healthz") == (200, "ok\n")
        assert get(running, "/readyz") == (200, "ready\n")


def test_engine_that_is_stuck_is_not_alive(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring_module, "ALIVE_SECONDS", 0.05)
    with application(place) as running:
        monkeypatch.setattr(running.gateway._engine, "post", lambda _call: None)
        status, text = get(running, "/healthz")
        monkeypatch.undo()
    assert status == 503
    assert "has done nothing" in text


class WithoutSink:
    """An audit log that says so; everything else is that of a real one."""

    health = AuditHealth(AuditState.NO_SINK, ReasonCode.AUDIT_DISK_FULL)

    def __init__(self, real: AuditLog) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_gateway_without_any_sink_is_not_ready_but_alive(place: Place) -> None:
    with application(place) as running:
        # The log itself would tell at its next record that all is well.
        monitoring = running.gateway.monitoring
        monitoring._audit = WithoutSink(monitoring._audit)  # type: ignore[assignment]
        assert get(running, "/readyz") == (503, "not ready: no audit sink (audit-disk-full)\n")
        assert get(running, "/healthz")[0] == 200
        assert value(running, "ready") == 0
        assert value(running, "audit_state", state="no-sink") == 1


def test_degraded_gateway_is_ready(place: Place) -> None:
    """The clinical floor works, so nobody may take it out of service for that."""
    with application(place) as running:
        running.gateway._audit_changed(AuditHealth(AuditState.DEGRADED, ReasonCode.AUDIT_DISK_FULL))
        assert get(running, "/readyz")[0] == 200
        assert value(running, "floor_only", reason="audit-unavailable") == 1


def test_it_is_not_ready_before_it_serves_and_while_it_drains(place: Place) -> None:
    made = Application(place)
    assert made.gateway.monitoring.not_ready() == "starting"
    made.open()
    try:
        made.gateway.monitoring.drains()
        assert get(made, "/readyz") == (503, "not ready: draining\n")
        assert get(made, "/healthz")[0] == 200
        assert value(made, "draining") == 1
    finally:
        made.close()


def test_draining_process_says_so_while_an_association_goes_on(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    text = place.settings.path.read_text("utf-8")
    text, count = re.subn(r'(?m)^listen = "off"$', f'listen = "127.0.0.1:{port}"', text)
    assert count == 1
    text, count = re.subn(r"(?m)^# format = .*$", 'format = "json"', text)
    assert count == 1
    place.settings.path.write_text(text, "utf-8")
    where = parse_host_port(f"127.0.0.1:{port}")
    with process(place) as running:
        peer = place.peer().established()
        assert ask(where, "/readyz")[0] == 200
        running.process.send_signal(signal.SIGTERM)
        while (answer := ask(where, "/readyz"))[0] == 200:
            pass
        assert answer == (503, "not ready: draining\n")
        assert peer.echo() == 0
        peer.release()
        peer.close()
        assert running.stop() == 0
    messages = [json.loads(line) for line in running.log.splitlines()]
    assert any("monitoring on http://127.0.0.1" in each["message"] for each in messages)


def test_it_is_off_where_nobody_asked_for_it(place: Place) -> None:
    monitored(place, None)
    with application(place) as running:
        assert running.gateway.monitoring.address is None


def test_port_that_is_taken_stops_no_imaging(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monitored(place, ListenAddress(host="127.0.0.1", port=taken.getsockname()[1]))
        with application(place) as running:
            assert place.peer().established().echo() == 0
            assert running.gateway.monitoring.address is None
    (alarm,) = [record for record in place.records() if record["code"] == "DW-DEGR-ENTER"]
    assert alarm["component"] == "metrics"
    assert "works without it" in alarm["detail"]


def test_disk_that_cannot_be_asked_is_left_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(Path("/nonexistent")) is None
    with application(place) as running:
        monkeypatch.setattr(monitoring_module, "free_bytes", lambda _directory: None)
        assert ("dicomward_audit_disk_free_bytes", ()) not in scrape(running)


def test_every_metric_is_documented(place: Place) -> None:
    """Families that have no sample yet are there with their type."""
    documented = {row[0].strip("`"): row[1] for row in rows_of(section_of(read("monitoring.md"), "Metrics"))}
    with application(place) as running:
        _status, text = get(running, "/metrics")
    shown = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert {name: documented.get(name) for name in shown} == shown
    assert set(documented) <= set(shown)


def test_certificates_are_those_of_the_last_reload(place: Place) -> None:
    """Not those on the disk: a renewed certificate that nobody has loaded yet saves no device."""
    with application(place) as running:
        before = running.gateway.monitoring.certificates.ends()
        renew_gateway_certificates(place.settings, now(), more_hosts=(), days=200)
        assert running.gateway.monitoring.certificates.ends() == before
        running.gateway._reloader.reload("SIGHUP")
        after = running.gateway.monitoring.certificates.ends()
        assert after != before
        assert value(running, "config_reloads_total", result="ok") == 1
