"""Inviting devices: codes are drawn, stored as hashes, and returned once. All of a list, or none."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dicomward.enrolment.code import (
    CMP_SECRET_CHARACTERS,
    SECRET_CHARACTERS,
    SELECTOR_CHARACTERS,
    Code,
    encode_bits,
    hash_of,
    make_code,
    uri_of,
)
from dicomward.enrolment.grant import Grant
from dicomward.enrolment.invitation import Invitation
from dicomward.identity.registry import DeviceStatus, RegistryError
from dicomward.io.enrolment.invitation_store import (
    StoredInvitation,
    insert_invitation,
    invitation_by_id,
    revoke_invitations,
    verify_unclaimed,
)
from dicomward.io.enrolment.key import seal_secret
from dicomward.io.registry.rows import read_registry
from dicomward.io.registry.store import RegistryStore

_DRAWN_BYTES: Final = 16
_TRIES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an operator wants to grant, and until when (aware)."""

    grant: Grant
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """An invitation with what is shown once: the code and the CMP secret. Neither shows in repr."""

    invitation: Invitation
    code: Code
    cmp_secret: str

    def __repr__(self) -> str:
        return f"Handed({self.invitation.id!r})"

    def uri(self, server: str) -> str:
        """Return what the QR holds."""
        return uri_of(self.code.text, server)


def invite(
    store: RegistryStore, wishes: Sequence[Wish], *, by: str, now: datetime, key: bytes, root: bytes
) -> tuple[Handed, ...]:
    """Invite devices, in one transaction; an open invitation of the same device ends. `root`: the CA's root, DER.

    Raises RegistryError if a name or AE title belongs to somebody else, RegistryStoreError.
    """
    handed = []
    with store.writing() as connection:
        snapshot = read_registry(connection)
        for wish in wishes:
            device = snapshot.device_by_name(wish.grant.device)
            if device is not None and device.status is not DeviceStatus.ACTIVE:
                raise RegistryError(
                    f"{device.name} is {device.status}; resume it, or invite it under another name if it is revoked"
                )
            verify_unclaimed(connection, wish.grant, snapshot, now)
            revoke_invitations(connection, wish.grant.device, by=by, now=now)
            code = next(
                code
                for code in (make_code(secrets.token_bytes(_DRAWN_BYTES), root) for _ in range(_TRIES))
                if invitation_by_id(connection, code.selector) is None
            )
            cmp_secret = encode_bits(secrets.token_bytes(CMP_SECRET_CHARACTERS), CMP_SECRET_CHARACTERS)
            invitation = Invitation(
                id=code.selector,
                grant=wish.grant,
                code_hash=hash_of(code.secret, key),
                created_at=now,
                created_by=by,
                expires_at=wish.expires_at,
            )
            sealed = seal_secret(cmp_secret, key, invitation.id)
            insert_invitation(connection, StoredInvitation(invitation=invitation, cmp_secret=sealed))
            handed.append(Handed(invitation=invitation, code=code, cmp_secret=cmp_secret))
    return tuple(handed)


def new_passphrase() -> str:
    """Return a passphrase to type, in groups of five: 100 bits."""
    count = SELECTOR_CHARACTERS * 4
    plain = encode_bits(secrets.token_bytes(SECRET_CHARACTERS), count)
    return "-".join(plain[at : at + SELECTOR_CHARACTERS] for at in range(0, count, SELECTOR_CHARACTERS))
