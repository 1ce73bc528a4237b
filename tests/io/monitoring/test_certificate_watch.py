"""Every certificate's end is known, and on record before it comes; the time travels."""

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dicomward.audit.event import AuditEvent, CertificateExpires
from dicomward.identity.registry import CertificateRecord, Device, DeviceStatus, RegistrySnapshot
from dicomward.io.ca.crl import renew_crls
from dicomward.io.monitoring.certificate_watch import CertificatesInForce, CertificateWatch, device_ends
from dicomward.io.registry.store import RegistryStore
from dicomward.settings import Settings
from dicomward.settings.kinds import parse_host_port
from dicomward.settings.syslog import SyslogDestination
from tests.directory_helpers import copy_directory, now
from tests.io.ca_helpers import NOW, make_ca

DAY = timedelta(days=1)


def records_while(kind: str, end: datetime, *, before: int, after: int) -> list[int | None]:
    events: list[AuditEvent] = []
    watch = CertificateWatch(events.append)
    moment = end - before * DAY
    while moment < end + after * DAY:
        watch.check({(kind, "x"): end}, moment)
        moment += timedelta(hours=6)
    return [event.count for event in events if isinstance(event, CertificateExpires)]


@pytest.mark.parametrize(
    ("kind", "days"),
    [
        ("gateway", [30, 14, 7, 3, 1, 0, -1, -2, -3]),
        ("device", [20, 14, 7, 3, 1, 0, -1, -2, -3]),
        ("crl", [1, 0, -1, -2, -3]),
    ],
)
def test_each_step_is_recorded_once_and_every_day_after_the_end(kind: str, days: list[int]) -> None:
    assert records_while(kind, NOW, before=40, after=3) == days


def test_the_record_names_the_device() -> None:
    events: list[AuditEvent] = []
    CertificateWatch(events.append).check({("device", "ct1"): NOW + 2 * DAY}, NOW)
    (event,) = events
    assert isinstance(event, CertificateExpires)
    assert (event.component, event.device, event.count) == ("device", "ct1", 2)
    assert event.last == "2027-03-03T12:00:00+00:00"
    assert event.detail == "device ct1 ends at 2027-03-03 12:00 UTC, in 2 days"


def test_a_renewed_certificate_is_quiet_and_its_own_end_is_said() -> None:
    events: list[AuditEvent] = []
    watch = CertificateWatch(events.append)
    watch.check({("gateway", "x"): NOW + DAY}, NOW)
    watch.check({("gateway", "x"): NOW + 300 * DAY}, NOW)
    watch.check({("gateway", "x"): NOW + 300 * DAY}, NOW + 299 * DAY)
    assert len(events) == 2


def test_the_newest_certificate_of_an_active_device_counts() -> None:
    def record(number: int, days: int, status: str = "active") -> CertificateRecord:
        return CertificateRecord(
            sha256=f"{number:064x}",
            not_before=NOW,
            not_after=NOW + days * DAY,
            status=status,  # type: ignore[arg-type]
            serial="1",
        )

    device = Device(name="a", ae_titles=("A",), role="modality", networks=(), certificates=(record(1, 5), record(2, 9)))
    revoked = replace(device, name="b", ae_titles=("B",), certificates=(record(3, 5, "revoked"),))
    suspended = replace(device, name="c", ae_titles=("C",), certificates=(record(4, 5),), status=DeviceStatus.SUSPENDED)
    registry = RegistrySnapshot(devices=(device, revoked, suspended), archives=(), revision=1)
    assert device_ends(registry) == {("device", "a"): NOW + 9 * DAY}
    assert device_ends(registry, 0) == {}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def test_every_kind_of_certificate_is_known(settings: Settings) -> None:
    moment = now().replace(microsecond=0)
    ca = make_ca(settings.enrolment.ca, moment)
    with RegistryStore.open(settings.registry.url) as store:
        renew_crls(store, ca, moment, life=7 * DAY)
    pair = settings.tls.certificates[0]
    receiver = SyslogDestination(
        address=parse_host_port("127.0.0.1:6514"),
        ca=settings.tls.client_ca,
        server_name="x",
        certificate=pair.certificate,
        key=pair.key,
    )
    settings = replace(settings, audit=replace(settings.audit, syslog=(receiver,)))
    ends = CertificatesInForce(settings).ends()
    assert {kind for kind, _name in ends} == {"gateway", "ca", "issuing-ca", "crl", "syslog", "syslog-ca"}
    assert ends["crl", "issuing-1.crl"] == moment + 7 * DAY
    assert ends["issuing-ca", "issuing-1.cert.pem"] == moment + 1826 * DAY
    assert ends["syslog", "127.0.0.1:6514 dicom"] == ends["gateway", pair.certificate.name]


def test_a_new_crl_is_seen_without_a_reload(settings: Settings) -> None:
    known = CertificatesInForce(settings)
    assert all(kind != "crl" for kind, _name in known.ends())
    ca = make_ca(settings.enrolment.ca, now())
    with RegistryStore.open(settings.registry.url) as store:
        renew_crls(store, ca, now(), life=7 * DAY)
    assert ("crl", "issuing-1.crl") in known.ends()


def test_what_can_not_be_read_is_told_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    settings.enrolment.ca.mkdir()
    for data in (b"", b"nonsense", b"\x30\x03\x30\x01\x02"):
        (settings.enrolment.ca / "issuing-1.crl").write_bytes(data)
        caplog.clear()
        known = CertificatesInForce(settings)
        with caplog.at_level(logging.WARNING):
            known.ends()
            known.ends()
        assert caplog.text.count("can't be told to monitoring") == 1
