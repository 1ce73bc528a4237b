"""What a CRL says, as values: which of the certificates that were issued other relying parties must not take."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dicomward.identity.registry import Device, DeviceStatus

# RFC 5280 §5.3.1, by their names in ASN.1.
KEY_COMPROMISE: Final = "keyCompromise"
CA_COMPROMISE: Final = "cACompromise"
CESSATION: Final = "cessationOfOperation"
SUPERSEDED: Final = "superseded"
HOLD: Final = "certificateHold"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedRow:
    """A certificate that was issued, as far as a CRL needs it. Times are aware; `reason` is "" unless it is revoked."""

    serial: int
    sha256: str
    device: str
    not_after: datetime
    revoked_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One entry of a CRL; `reason` is the name of a CRLReason."""

    serial: int
    revoked_at: datetime
    reason: str


def judge_revocation(row: IssuedRow, device: Device | None, now: datetime) -> Revocation | None:
    """Return the entry of one certificate, or None if it is good, or over, so that nobody asks any more.

    What the registry has revoked since the last CRL counts from now. A suspended device is on hold, which a later CRL
    can take back; so is a certificate that a rollback has taken from its device.
    """
    if row.not_after < now:
        return None
    if row.revoked_at is not None:
        return Revocation(serial=row.serial, revoked_at=row.revoked_at, reason=row.reason)
    record = device.certificate(row.sha256) if device is not None else None
    if device is None or record is None:
        return Revocation(serial=row.serial, revoked_at=now, reason=HOLD)
    if device.status is DeviceStatus.REVOKED:
        return Revocation(serial=row.serial, revoked_at=now, reason=CESSATION)
    if record.status == "revoked":
        return Revocation(serial=row.serial, revoked_at=now, reason=SUPERSEDED)
    if device.status is DeviceStatus.SUSPENDED:
        return Revocation(serial=row.serial, revoked_at=now, reason=HOLD)
    return None


def revocations_of(rows: Iterable[IssuedRow], devices: Mapping[str, Device], now: datetime) -> tuple[Revocation, ...]:
    """Return the entries of a CRL, by serial number."""
    found = (judge_revocation(row, devices.get(row.device), now) for row in rows)
    return tuple(sorted((each for each in found if each is not None), key=lambda each: each.serial))
