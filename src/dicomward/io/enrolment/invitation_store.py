"""Invitations and waiting requests in the registry's database. Each function works inside the caller's transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Executable, and_, bindparam, func, or_, select

from dicomward.enrolment.grant import Grant
from dicomward.enrolment.invitation import (
    Invitation,
    InvitationStatus,
    after_wrong_guess,
    decode_grant,
    encode_grant,
)
from dicomward.identity.registry import RegistryError, RegistrySnapshot
from dicomward.io.registry.tables import INVITATIONS, WAITING_REQUESTS

_TEXT = 64

# What is done for each enrolment is built once: to build a statement takes longer than to run it.
_NEWEST_OF_DEVICE = (
    select(INVITATIONS)
    .where(INVITATIONS.c.device == bindparam("wanted"))
    .order_by(INVITATIONS.c.created_at.desc(), INVITATIONS.c.id)
    .limit(1)
)
_BY_ID = select(INVITATIONS).where(INVITATIONS.c.id == bindparam("wanted"))
_LOCKED_OF_DEVICE, _LOCKED_BY_ID = _NEWEST_OF_DEVICE.with_for_update(), _BY_ID.with_for_update()
_SPEND = (
    INVITATIONS.update()
    .where((INVITATIONS.c.id == bindparam("wanted")) & (INVITATIONS.c.status == InvitationStatus.OPEN.value))
    .values(
        status=InvitationStatus.USED.value,
        closed_at=bindparam("at"),
        closed_by=bindparam("by"),
        used_key=bindparam("key"),
        cmp_secret="",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInvitation:
    """An invitation with what only the store knows: its sealed CMP secret, and who or what closed it."""

    invitation: Invitation
    cmp_secret: str = ""
    closed_at: datetime | None = None
    closed_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingRequest:
    """A request without a code. `status`: waiting, approved, rejected or issued."""

    id: str
    key_sha256: str
    common_name: str
    address: str
    asked_at: datetime
    expires_at: datetime
    status: str = "waiting"
    granted: Grant | None = None
    decided_by: str = ""
    decided_at: datetime | None = None


# --- invitations -----------------------------------------------------------------------------------------------------


def insert_invitation(connection: Connection, stored: StoredInvitation) -> None:
    """Store a new invitation; the database refuses an id that exists."""
    each = stored.invitation
    connection.execute(
        INVITATIONS.insert().values(
            id=each.id,
            device=each.grant.device,
            granted=encode_grant(each.grant),
            code_hash=each.code_hash,
            cmp_secret=stored.cmp_secret,
            created_at=each.created_at,
            created_by=each.created_by,
            expires_at=each.expires_at,
            wrong_guesses=each.wrong_guesses,
            status=each.status.value,
            closed_by="",
        )
    )


def invitation_for_device(connection: Connection, device: str, *, lock: bool = False) -> StoredInvitation | None:
    """Return the invitation of a device that counts: the newest. `lock`: until the transaction ends it is ours."""
    return _one(connection, _LOCKED_OF_DEVICE if lock else _NEWEST_OF_DEVICE, device)


def invitation_by_id(connection: Connection, identifier: str, *, lock: bool = False) -> StoredInvitation | None:
    """Return an invitation by the selector of its code."""
    return _one(connection, _LOCKED_BY_ID if lock else _BY_ID, identifier)


def all_invitations(connection: Connection) -> tuple[StoredInvitation, ...]:
    """Return all invitations, the newest first."""
    rows = connection.execute(select(INVITATIONS).order_by(INVITATIONS.c.created_at.desc(), INVITATIONS.c.id))
    return tuple(_invitation(row) for row in rows.mappings())


def count_wrong_guess(connection: Connection, invitation: Invitation, address: str, now: datetime) -> InvitationStatus:
    """Count a wrong guess at a locked invitation; return what it is now. One that is over stays what it is."""
    if invitation.status is not InvitationStatus.OPEN:
        return invitation.status
    count, status = after_wrong_guess(invitation.wrong_guesses)
    values: dict[str, Any] = {"wrong_guesses": count}
    if status is not InvitationStatus.OPEN:
        values |= {"status": status.value, "closed_at": now, "closed_by": address[:_TEXT], "cmp_secret": ""}
    connection.execute(INVITATIONS.update().where(INVITATIONS.c.id == invitation.id).values(values))
    return status


def mark_used(connection: Connection, identifier: str, *, key_sha256: str, address: str, now: datetime) -> None:
    """Spend an invitation. Raises RegistryError if it isn't open any more, so that nothing is issued for it."""
    done = connection.execute(_SPEND, {"wanted": identifier, "at": now, "by": address[:_TEXT], "key": key_sha256})
    if done.rowcount != 1:
        raise RegistryError(f"invitation {identifier} is not open any more")


def revoke_invitations(connection: Connection, device: str, *, by: str, now: datetime) -> int:
    """Revoke the open invitations of a device; return how many there were."""
    done = connection.execute(
        INVITATIONS.update()
        .where((INVITATIONS.c.device == device) & (INVITATIONS.c.status == InvitationStatus.OPEN.value))
        .values(status=InvitationStatus.REVOKED.value, closed_at=now, closed_by=by[:_TEXT], cmp_secret="")
    )
    return done.rowcount


def verify_unclaimed(connection: Connection, grant: Grant, snapshot: RegistrySnapshot, now: datetime) -> None:
    """Check that name and AE titles belong to nobody else, registered or invited. Raises RegistryError."""
    if snapshot.archive_by_name(grant.device) is not None:
        raise RegistryError(f"{grant.device!r} is the name of an archive; choose another")
    for title in grant.ae_titles:
        other = snapshot.device_by_ae_title(title)
        if other is not None and other.name != grant.device:
            raise RegistryError(
                f"{grant.device}: AE title {title!r} belongs to {other.name!r}; revoke that device first"
            )
        for archive in snapshot.archives:
            if title in (archive.ae_title, *archive.called_ae_titles, *archive.calling_ae_titles):
                raise RegistryError(
                    f"{grant.device}: AE title {title!r} belongs to the archive {archive.name!r}; choose another"
                )
    is_open = and_(INVITATIONS.c.status == InvitationStatus.OPEN.value, INVITATIONS.c.expires_at > now)
    rows = connection.execute(select(INVITATIONS.c.granted).where(is_open & (INVITATIONS.c.device != grant.device)))
    for (granted,) in rows:
        invited = decode_grant(granted)
        for title in set(grant.ae_titles) & set(invited.ae_titles):
            raise RegistryError(
                f"{grant.device}: AE title {title!r} is promised to {invited.device!r}, which is invited; "
                "revoke that invitation, or choose another title"
            )


def _one(connection: Connection, query: Executable, wanted: str) -> StoredInvitation | None:
    row = connection.execute(query, {"wanted": wanted}).mappings().one_or_none()
    return None if row is None else _invitation(row)


def _invitation(row: Any) -> StoredInvitation:
    return StoredInvitation(
        invitation=Invitation(
            id=row["id"],
            grant=decode_grant(row["granted"]),
            code_hash=row["code_hash"],
            created_at=row["created_at"],
            created_by=row["created_by"],
            expires_at=row["expires_at"],
            wrong_guesses=row["wrong_guesses"],
            status=InvitationStatus(row["status"]),
            used_key=row["used_key"],
        ),
        cmp_secret=row["cmp_secret"],
        closed_at=row["closed_at"],
        closed_by=row["closed_by"],
    )


# --- requests that wait ----------------------------------------------------------------------------------------------


def insert_waiting(connection: Connection, request: WaitingRequest) -> None:
    """Store a request; the database refuses a key that has asked already."""
    connection.execute(
        WAITING_REQUESTS.insert().values(
            id=request.id,
            key_sha256=request.key_sha256,
            common_name=request.common_name[:_TEXT],
            address=request.address[:_TEXT],
            asked_at=request.asked_at,
            expires_at=request.expires_at,
            status=request.status,
            decided_by="",
        )
    )


def waiting_by_key(connection: Connection, key_sha256: str, *, lock: bool = False) -> WaitingRequest | None:
    """Return the request of a key."""
    query = select(WAITING_REQUESTS).where(WAITING_REQUESTS.c.key_sha256 == key_sha256)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return None if row is None else _waiting(row)


def waiting_by_id(connection: Connection, identifier: str) -> WaitingRequest | None:
    """Return a request by its number, locked."""
    query = select(WAITING_REQUESTS).where(WAITING_REQUESTS.c.id == identifier).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _waiting(row)


def all_waiting(connection: Connection) -> tuple[WaitingRequest, ...]:
    """Return all requests, the oldest first."""
    rows = connection.execute(select(WAITING_REQUESTS).order_by(WAITING_REQUESTS.c.asked_at, WAITING_REQUESTS.c.id))
    return tuple(_waiting(row) for row in rows.mappings())


def count_waiting(connection: Connection, address: str, now: datetime) -> tuple[int, int]:
    """Return how many requests wait: all, and those of one address. What is over is removed first."""
    columns = WAITING_REQUESTS.c
    connection.execute(
        WAITING_REQUESTS.delete().where(
            or_(columns.status == "waiting", columns.status == "rejected") & (columns.expires_at <= now)
        )
    )
    waits = columns.status == "waiting"
    total = connection.execute(select(func.count()).where(waits)).scalar_one()
    own = connection.execute(select(func.count()).where(waits & (columns.address == address))).scalar_one()
    return total, own


def decide_waiting(
    connection: Connection, identifier: str, *, granted: Grant | None, by: str, now: datetime, expires_at: datetime
) -> None:
    """Approve a request with a grant, or reject it without one."""
    connection.execute(
        WAITING_REQUESTS.update()
        .where(WAITING_REQUESTS.c.id == identifier)
        .values(
            status="rejected" if granted is None else "approved",
            granted=None if granted is None else encode_grant(granted),
            decided_by=by[:_TEXT],
            decided_at=now,
            expires_at=expires_at,
        )
    )


def mark_waiting_issued(connection: Connection, identifier: str) -> None:
    """Spend the approval of a request. Raises RegistryError if it isn't approved any more."""
    done = connection.execute(
        WAITING_REQUESTS.update()
        .where((WAITING_REQUESTS.c.id == identifier) & (WAITING_REQUESTS.c.status == "approved"))
        .values(status="issued")
    )
    if done.rowcount != 1:
        raise RegistryError(f"the request {identifier} is not approved any more")


def _waiting(row: Any) -> WaitingRequest:
    values = dict(row)
    values["granted"] = None if row["granted"] is None else decode_grant(row["granted"])
    return WaitingRequest(**values)
