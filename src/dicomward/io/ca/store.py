"""What the CA has issued, in the registry's database: serials, generations, held renewals, and the device itself.

Every function works inside the caller's transaction, so that a code is spent, a certificate recorded and the device
bound together, or nothing of it.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, func, literal, select, union_all

from dicomward.enrolment.grant import Grant
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.renewal import Generation, RenewalState
from dicomward.enrolment.revocations import SUPERSEDED, IssuedRow
from dicomward.identity.registry import CertificateRecord, Device, DeviceStatus
from dicomward.identity.registry_json import encode_device
from dicomward.io.registry.rows import read_device, write_device
from dicomward.io.registry.tables import (
    ARCHIVE_CALLED_AE_TITLES,
    ARCHIVE_CALLING_AE_TITLES,
    ARCHIVES,
    CERTIFICATES,
    CHANGES,
    DEVICE_AE_TITLES,
    DEVICES,
    ISSUED,
    REGISTRY,
    RENEWALS,
)
from dicomward.vocab.reason import ReasonCode

# What is done for each enrolment is built once: to build a statement takes longer than to run it.
_DEVICE: BindParameter[str] = bindparam("wanted")
_INSERT_ISSUED = ISSUED.insert()
_LAST_GENERATION = select(func.max(ISSUED.c.generation)).where(ISSUED.c.device == _DEVICE)
_OTHER_OF_KEY = (
    select(ISSUED.c.device).where((ISSUED.c.key_sha256 == bindparam("key")) & (ISSUED.c.device != _DEVICE)).limit(1)
)
_RENEWAL = select(RENEWALS).where(RENEWALS.c.device == _DEVICE)
_DELETE_RENEWAL, _INSERT_RENEWAL = RENEWALS.delete().where(RENEWALS.c.device == _DEVICE), RENEWALS.insert()
_LOCK_REVISION = select(REGISTRY.c.revision).with_for_update()
_SET_REVISION = REGISTRY.update().values(revision=bindparam("next"))
_INSERT_CHANGE = CHANGES.insert()


def _taken() -> Any:
    """Return a query for who else has a name or one of these AE titles: the kind, the title, the owner."""
    wanted: BindParameter[list[str]] = bindparam("titles", expanding=True)
    of_device = DEVICE_AE_TITLES.c
    return union_all(
        select(literal("name"), ARCHIVES.c.name, ARCHIVES.c.name).where(ARCHIVES.c.name == _DEVICE),
        select(literal("device"), of_device.value, of_device.owner)
        .join(DEVICES, DEVICES.c.name == of_device.owner)
        .where(of_device.value.in_(wanted))
        .where((of_device.owner != _DEVICE) & (DEVICES.c.status != DeviceStatus.REVOKED.value)),
        select(literal("archive"), ARCHIVES.c.ae_title, ARCHIVES.c.name).where(ARCHIVES.c.ae_title.in_(wanted)),
        *(
            select(literal("archive"), each.c.value, each.c.owner).where(each.c.value.in_(wanted))
            for each in (ARCHIVE_CALLED_AE_TITLES, ARCHIVE_CALLING_AE_TITLES)
        ),
    )


_TAKEN = _taken()


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A row of what was issued. `certificate` is DER; times are aware."""

    serial: int
    sha256: str
    issuer_sha256: str
    device: str
    generation: int
    parent: int | None
    key_sha256: str
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    certificate: bytes
    revoked_at: datetime | None = None
    revocation_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalRow:
    """The renewal of one device: what its next certificate may be, and if it waits for a person."""

    device: str
    state: RenewalState
    life: timedelta
    key_kinds: tuple[str, ...]
    held_at: datetime | None = None
    held_detail: str = ""


# --- what was issued -------------------------------------------------------------------------------------------------


def insert_issued(connection: Connection, row: IssuedCertificate) -> None:
    """Record a certificate; the database refuses a serial or a generation that exists."""
    values = {field: getattr(row, field) for field in row.__slots__}
    values |= {"serial": f"{row.serial:x}", "certificate": base64.b64encode(row.certificate).decode("ascii")}
    connection.execute(_INSERT_ISSUED, values)


def issued_of_device(connection: Connection, device: str) -> tuple[IssuedCertificate, ...]:
    """Return all that was issued to a device, oldest generation first."""
    query = select(ISSUED).where(ISSUED.c.device == device).order_by(ISSUED.c.generation)
    return tuple(_issued(row) for row in connection.execute(query).mappings())


def issued_by_sha256(connection: Connection, sha256: str) -> IssuedCertificate | None:
    """Return the certificate with that fingerprint."""
    row = connection.execute(select(ISSUED).where(ISSUED.c.sha256 == sha256)).mappings().one_or_none()
    return None if row is None else _issued(row)


def issued_since(connection: Connection, end: datetime) -> tuple[IssuedCertificate, ...]:
    """Return what was issued and ends only after that time."""
    query = select(ISSUED).where(ISSUED.c.not_after > end).order_by(ISSUED.c.device, ISSUED.c.generation)
    return tuple(_issued(row) for row in connection.execute(query).mappings())


def generations_of(rows: Sequence[IssuedCertificate]) -> tuple[Generation, ...]:
    """Return what renewals are judged by."""
    return tuple(Generation(number=each.generation, parent=each.parent, key_sha256=each.key_sha256) for each in rows)


def next_generation(connection: Connection, device: str) -> int:
    """Return the number of the next certificate of a device."""
    last: int | None = connection.execute(_LAST_GENERATION, {"wanted": device}).scalar_one()
    return (last or 0) + 1


def verify_key_unused(connection: Connection, key_sha256: str, device: str) -> None:
    """Raise EnrolmentRefusedError if another device has a certificate for this key."""
    other = connection.execute(_OTHER_OF_KEY, {"key": key_sha256, "wanted": device}).scalar_one_or_none()
    if other is not None:
        raise EnrolmentRefusedError(
            ReasonCode.KEY_IN_USE, f"{device}: {other} has a certificate for this key; each device needs its own"
        )


def mark_revoked(connection: Connection, sha256s: Sequence[str], now: datetime, reason: str) -> None:
    """Note since when, and why, certificates are revoked; what is noted already stays."""
    connection.execute(
        ISSUED.update()
        .where(ISSUED.c.sha256.in_(sha256s) & ISSUED.c.revoked_at.is_(None))
        .values(revoked_at=now, revocation_reason=reason)
    )


def rows_for_crl(connection: Connection, issuer_sha256: str, now: datetime) -> tuple[IssuedRow, ...]:
    """Return what a CRL of an issuing CA is about: its certificates that are not over."""
    query = select(ISSUED).where((ISSUED.c.issuer_sha256 == issuer_sha256) & (ISSUED.c.not_after >= now))
    return tuple(
        IssuedRow(
            serial=int(row["serial"], 16),
            sha256=row["sha256"],
            device=row["device"],
            not_after=row["not_after"],
            revoked_at=row["revoked_at"],
            reason=row["revocation_reason"],
        )
        for row in connection.execute(query).mappings()
    )


def rows_bound_elsewhere(connection: Connection, now: datetime) -> tuple[IssuedRow, ...]:
    """Return what is bound, but was not issued here, for the CRL of a CA that was made elsewhere.

    Who has issued it isn't known; a serial that isn't of that CA names nothing there.
    """
    query = (
        select(CERTIFICATES)
        .outerjoin(ISSUED, ISSUED.c.sha256 == CERTIFICATES.c.sha256)
        .where(ISSUED.c.sha256.is_(None) & (CERTIFICATES.c.not_after >= now))
    )
    rows = []
    for row in connection.execute(query).mappings():
        serial = _serial(row["serial"])
        if serial is not None:
            rows.append(
                IssuedRow(
                    serial=serial,
                    sha256=row["sha256"],
                    device=row["device"],
                    not_after=row["not_after"],
                )
            )
    return tuple(rows)


def _serial(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


def _issued(row: Any) -> IssuedCertificate:
    values = dict(row)
    values |= {"serial": int(row["serial"], 16), "certificate": base64.b64decode(row["certificate"])}
    return IssuedCertificate(**values)


# --- renewals --------------------------------------------------------------------------------------------------------


def renewal_of(connection: Connection, device: str) -> RenewalRow | None:
    """Return the renewal of a device; None if the CA has not issued anything to it."""
    row = connection.execute(_RENEWAL, {"wanted": device}).mappings().one_or_none()
    return None if row is None else _renewal(row)


def renewals(connection: Connection) -> tuple[RenewalRow, ...]:
    """Return the renewals of all devices, by name."""
    rows = connection.execute(select(RENEWALS)).mappings()
    return tuple(sorted((_renewal(row) for row in rows), key=lambda each: each.device))


def put_renewal(connection: Connection, row: RenewalRow) -> None:
    """Store the renewal of a device."""
    connection.execute(_DELETE_RENEWAL, {"wanted": row.device})
    connection.execute(
        _INSERT_RENEWAL,
        {
            "device": row.device,
            "state": row.state.value,
            "life_seconds": int(row.life.total_seconds()),
            "key_kinds": ",".join(row.key_kinds),
            "held_at": row.held_at,
            "held_detail": row.held_detail,
        },
    )


def _renewal(row: Any) -> RenewalRow:
    return RenewalRow(
        device=row["device"],
        state=RenewalState(row["state"]),
        life=timedelta(seconds=row["life_seconds"]),
        key_kinds=tuple(row["key_kinds"].split(",")),
        held_at=row["held_at"],
        held_detail=row["held_detail"],
    )


# --- the device ------------------------------------------------------------------------------------------------------


def lock_registry(connection: Connection) -> int:
    """Exclude other changes of the registry until the transaction ends; return its revision."""
    revision: int = connection.execute(_LOCK_REVISION).scalar_one()
    return revision


def device_of_certificate(connection: Connection, sha256: str) -> Device | None:
    """Return the device that a certificate is bound to, whatever the status of either."""
    name = connection.execute(select(CERTIFICATES.c.device).where(CERTIFICATES.c.sha256 == sha256)).scalar_one_or_none()
    return None if name is None else read_device(connection, name)


def register(
    connection: Connection,
    grant: Grant,
    record: CertificateRecord,
    revision: int,
    *,
    by: str,
    action: str,
    now: datetime,
) -> int:
    """Bind a certificate to its device, which is registered as granted if it is new; return the new revision.

    Reads no more than this device. Raises EnrolmentRefusedError.
    """
    before = read_device(connection, grant.device)
    if before is not None and before.status is DeviceStatus.REVOKED:
        raise EnrolmentRefusedError(ReasonCode.REGISTRATION_REFUSED, f"device {grant.device!r} is revoked, for good")
    _verify_free(connection, grant)
    kept = before.certificates if before is not None else ()
    if grant.revoke_others:
        kept = tuple(replace(each, status="revoked") for each in kept)
        mark_revoked(connection, [each.sha256 for each in kept], now, SUPERSEDED)
    if before is not None and set(before.ae_titles) != set(grant.ae_titles):
        raise EnrolmentRefusedError(
            ReasonCode.REGISTRATION_REFUSED,
            f"{grant.device}: granted for the AE titles {', '.join(grant.ae_titles)}, but registered with "
            f"{', '.join(before.ae_titles)}",
        )
    after = grant.as_device((record,)) if before is None else replace(before, certificates=(*kept, record))
    return change_device(
        connection, before, after, revision, by=by, action=action, detail=f"certificate {record.sha256}", now=now
    )


def change_device(
    connection: Connection,
    before: Device | None,
    after: Device,
    revision: int,
    *,
    by: str,
    action: str,
    detail: str,
    now: datetime,
) -> int:
    """Replace a device, note who did it, and return the new revision of the registry."""
    write_device(connection, after, is_new=before is None)
    connection.execute(_SET_REVISION, {"next": revision + 1})
    connection.execute(
        _INSERT_CHANGE,
        {
            "revision": revision + 1,
            "at": now,
            "operator": by,
            "action": action,
            "device": after.name,
            "detail": detail,
            "audited": False,
            "before": encode_device(before) if before else None,
        },
    )
    return revision + 1


def _verify_free(connection: Connection, grant: Grant) -> None:
    """Raise EnrolmentRefusedError if the name or an AE title belongs to somebody else."""
    wanted = {"wanted": grant.device, "titles": list(grant.ae_titles)}
    taken = connection.execute(_TAKEN, wanted).first()
    if taken is None:
        return
    kind, title, owner = taken
    match kind:
        case "name":
            why = f"{grant.device!r} is the name of an archive"
        case "device":
            why = f"{grant.device}: AE title {title!r} belongs to {owner!r}"
        case _:
            why = f"{grant.device}: AE title {title!r} belongs to an archive"
    raise EnrolmentRefusedError(ReasonCode.REGISTRATION_REFUSED, why)
