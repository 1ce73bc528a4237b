"""Invitations: what was granted, until when, and whether somebody who presents a code may have it."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

from dicomward.enrolment.code import Code, is_secret
from dicomward.enrolment.grant import Grant
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.identity.network import ANY, NetworkSet
from dicomward.identity.registry import Endpoint, RegistryError
from dicomward.vocab.reason import ReasonCode

MOST_WRONG_GUESSES: Final = 5
MIN_EXPIRY: Final = timedelta(minutes=1)
MAX_EXPIRY: Final = timedelta(days=30)
DEFAULT_EXPIRY: Final = timedelta(hours=24)


class InvitationStatus(StrEnum):
    """What has become of an invitation. DEAD: by too many wrong guesses."""

    OPEN = "open"
    USED = "used"
    REVOKED = "revoked"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """One invitation as it is stored. `grant.networks` may be empty: then the address that uses it becomes its network.

    `used_key` is the SHA-256 of the SubjectPublicKeyInfo that it was used with.
    """

    id: str
    grant: Grant
    code_hash: str
    created_at: datetime
    created_by: str
    expires_at: datetime
    wrong_guesses: int = 0
    status: InvitationStatus = InvitationStatus.OPEN
    used_key: str | None = None

    def state(self, now: datetime) -> str:
        """Say what it is now, in a word for people."""
        is_over = self.status is InvitationStatus.OPEN and now >= self.expires_at
        return "expired" if is_over else self.status.value


class Verdict(StrEnum):
    """What a presented code is: RIGHT, or once more by the key that has used it (REPEATED)."""

    RIGHT = "right"
    REPEATED = "repeated"


def verify_network(invitation: Invitation, address: str) -> None:
    """Raise EnrolmentRefusedError for an address that the invitation isn't for; before anything is counted."""
    networks = invitation.grant.networks
    if networks and ANY not in networks and not NetworkSet(networks).names(address):
        raise EnrolmentRefusedError(
            ReasonCode.NETWORK_NOT_ALLOWED, f"{address} is not in {', '.join(networks)}; nothing was counted"
        )


def judge_code(
    invitation: Invitation,
    code: Code | None,
    key: bytes,
    now: datetime,
    *,
    key_sha256: str = "",
    may_repeat: bool = False,
) -> Verdict:
    """Judge a code that was presented for an invitation; None is one that can't be read.

    `may_repeat`: it was used with the key `key_sha256`, whose holder says that it has lost the answer.
    Raises EnrolmentRefusedError: with CODE_WRONG the caller counts a wrong guess, with another reason nothing.
    """
    # A dead or used one says so to nobody who doesn't know the secret.
    is_right = code is not None and code.selector == invitation.id and is_secret(code.secret, invitation.code_hash, key)
    if invitation.status is InvitationStatus.DEAD:
        raise EnrolmentRefusedError(ReasonCode.CODE_DEAD, f"{invitation.wrong_guesses} wrong guesses have ended it")
    if not is_right:
        what = "a code of another invitation" if code is not None and code.selector != invitation.id else "a wrong code"
        raise EnrolmentRefusedError(
            ReasonCode.CODE_WRONG, f"{what}; {invitation.wrong_guesses} wrong guesses before, of {MOST_WRONG_GUESSES}"
        )
    if invitation.status is InvitationStatus.USED:
        if may_repeat and key_sha256 == invitation.used_key and now < invitation.expires_at:
            return Verdict.REPEATED
        raise EnrolmentRefusedError(ReasonCode.CODE_USED, "the code was used before")
    if invitation.status is InvitationStatus.REVOKED:
        raise EnrolmentRefusedError(ReasonCode.CODE_REVOKED, "an operator has revoked the invitation")
    if now >= invitation.expires_at:
        raise EnrolmentRefusedError(ReasonCode.CODE_EXPIRED, f"it ended at {invitation.expires_at.isoformat()}")
    return Verdict.RIGHT


def after_wrong_guess(wrong_guesses: int) -> tuple[int, InvitationStatus]:
    """Return the count and the status after one more wrong guess at an open invitation."""
    count = wrong_guesses + 1
    return count, InvitationStatus.DEAD if count >= MOST_WRONG_GUESSES else InvitationStatus.OPEN


def network_of(address: str) -> str:
    """Return the network of exactly one address."""
    found = ip_address(address)
    return f"{found}/{found.max_prefixlen}"


def encode_grant(grant: Grant) -> str:
    """Return a grant as JSON text, for the store."""
    address = grant.address
    return json.dumps(
        {
            "device": grant.device,
            "ae_titles": grant.ae_titles,
            "role": grant.role,
            "site": grant.site,
            "networks": grant.networks,
            "address": [address.host, address.port] if address is not None else None,
            "plain": grant.plain,
            "reverse": grant.reverse,
            "key_kinds": grant.key_kinds,
            "life_seconds": round(grant.life.total_seconds()),
            "revoke_others": grant.revoke_others,
        }
    )


def decode_grant(text: str) -> Grant:
    """Read the JSON text of `encode_grant`. Raises RegistryError."""
    try:
        # Invitations of 0.1.0 don't say "reverse".
        match {"reverse": False, **json.loads(text)}:
            case {
                "device": str(device),
                "ae_titles": [*ae_titles],
                "role": str(role),
                "site": str(site),
                "networks": [*networks],
                "address": address,
                "plain": bool(plain),
                "reverse": bool(reverse),
                "key_kinds": [*key_kinds],
                "life_seconds": int(seconds),
                "revoke_others": bool(revoke_others),
            }:
                return Grant(
                    device=device,
                    ae_titles=tuple(map(str, ae_titles)),
                    role=role,
                    site=site,
                    networks=tuple(map(str, networks)),
                    address=Endpoint(host=address[0], port=address[1]) if address else None,
                    plain=plain,
                    reverse=reverse,
                    key_kinds=tuple(map(str, key_kinds)),
                    life=timedelta(seconds=seconds),
                    revoke_others=revoke_others,
                )
    except (ValueError, TypeError, LookupError) as error:
        raise RegistryError(f"a stored grant can't be read ({error}); revoke the invitation") from error
    raise RegistryError("a stored grant lacks something; revoke the invitation")
