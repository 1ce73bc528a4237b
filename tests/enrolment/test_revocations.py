"""What a CRL lists."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from dicomward.enrolment.revocations import CESSATION, HOLD, KEY_COMPROMISE, SUPERSEDED, IssuedRow, revocations_of
from dicomward.identity.registry import CertificateRecord, Device, DeviceStatus

NOW = datetime(2027, 3, 1, tzinfo=UTC)
END = NOW + timedelta(days=30)
RECORD = CertificateRecord(sha256="a" * 64, not_before=NOW, not_after=END, status="active", serial="5")
DEVICE = Device(name="ct", ae_titles=("CT",), role="modality", networks=(), certificates=(RECORD,))
ROW = IssuedRow(serial=5, sha256=RECORD.sha256, device="ct", not_after=END)


def reasons(device: Device | None, *rows: IssuedRow, now: datetime = NOW) -> list[tuple[int, str]]:
    devices = {} if device is None else {device.name: device}
    return [(each.serial, each.reason) for each in revocations_of(rows or (ROW,), devices, now)]


def test_good_certificates_are_not_listed() -> None:
    assert reasons(DEVICE) == []


def test_what_the_registry_has_revoked_is_listed() -> None:
    assert reasons(replace(DEVICE, status=DeviceStatus.REVOKED)) == [(5, CESSATION)]
    revoked = replace(RECORD, status="revoked")
    assert reasons(replace(DEVICE, certificates=(revoked,))) == [(5, SUPERSEDED)]


def test_suspended_and_unbound_ones_are_on_hold() -> None:
    assert reasons(replace(DEVICE, status=DeviceStatus.SUSPENDED)) == [(5, HOLD)]
    assert reasons(replace(DEVICE, certificates=())) == [(5, HOLD)]
    assert reasons(None) == [(5, HOLD)]


def test_what_was_noted_keeps_its_time_and_reason() -> None:
    noted = replace(ROW, revoked_at=NOW - timedelta(days=3), reason=KEY_COMPROMISE)
    (entry,) = revocations_of([noted], {"ct": DEVICE}, NOW)
    assert (entry.revoked_at, entry.reason) == (NOW - timedelta(days=3), KEY_COMPROMISE)


def test_entries_are_sorted_and_end_with_their_certificates() -> None:
    other = replace(ROW, serial=3)
    assert [serial for serial, _reason in reasons(None, ROW, other)] == [3, 5]
    assert reasons(None, now=END + timedelta(seconds=1)) == []
