"""The desk of an enrolment server: it holds codes, keys and requests against what was granted, and lets the CA issue.

EST, CMP and the upload page all come here. What is refused is refused with an EnrolmentRefusedError, and nothing has
happened then, but for a counted wrong guess.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from dicomward.enrolment.code import SELECTOR_CHARACTERS, Code, CodeError, encode_bits, parse_code
from dicomward.enrolment.grant import Grant, Issued, grant_of
from dicomward.enrolment.invitation import (
    Invitation,
    InvitationStatus,
    Verdict,
    judge_code,
    network_of,
    verify_network,
)
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import CertificationRequest, verify_request
from dicomward.identity.registry import RegistryError
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.ca.store import device_of_certificate, renewal_of
from dicomward.io.enrolment.invitation_store import (
    StoredInvitation,
    WaitingRequest,
    count_waiting,
    count_wrong_guess,
    insert_waiting,
    invitation_by_id,
    invitation_for_device,
    mark_used,
    mark_waiting_issued,
    waiting_by_key,
)
from dicomward.io.enrolment.key import EnrolmentKeyError, open_secret
from dicomward.io.registry.store import RegistryStore, RegistryStoreError
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

WAITING_DAYS: Final = 7
MOST_WAITING: Final = 100
MOST_WAITING_OF_AN_ADDRESS: Final = 5
_OPERATOR_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CmpInvitation:
    """What CMP needs of an open invitation: its id, what was granted, and the secret that protects messages."""

    id: str
    grant: Grant
    secret: str


class Desk:
    """Safe to be used from many threads; the database puts them, and other servers, in a row."""

    def __init__(
        self,
        store: RegistryStore,
        issuer: CaIssuer,
        publish: Callable[[int], str | None],
        key: bytes,
        *,
        has_queue: bool = False,
        needs_confirmation: bool = False,
    ) -> None:
        """`publish` brings a revision of the registry into force; `key` is the enrolment key.

        `needs_confirmation`: a new credential may do only C-ECHO until a second person has confirmed its device.
        """
        self._store, self._issuer, self._publish, self._key = store, issuer, publish, key
        self._has_queue, self._needs_confirmation = has_queue, needs_confirmation

    @property
    def issuer(self) -> CaIssuer:
        """Return the CA: its chain and the anchors are what devices are to trust."""
        return self._issuer

    @property
    def has_queue(self) -> bool:
        """Say if a request without a code may wait for approval."""
        return self._has_queue

    # --- with a code ---

    def granted(self, name: str, typed: str, address: str, now: datetime) -> Grant:
        """Return what a code is for, without using it; a wrong one counts. Raises EnrolmentRefusedError."""
        return self._verify_code(name, typed, address, now)[0].grant

    def enrol(
        self,
        name: str,
        typed: str,
        request: CertificationRequest,
        address: str,
        now: datetime,
        *,
        may_repeat: bool = False,
    ) -> Issued:
        """Issue a certificate for a code. `may_repeat`: the device says that it has lost the answer.

        Raises EnrolmentRefusedError.
        """
        invitation, verdict = self._verify_code(
            name, typed, address, now, key_sha256=request.key_sha256, may_repeat=may_repeat
        )
        verify_request(request, invitation.grant)
        if verdict is Verdict.REPEATED:
            found = self._issuer.find_issued(invitation.grant.device, request.public_key)
            if found is None:
                raise EnrolmentRefusedError(ReasonCode.CODE_USED, "the certificate that it was used for is over")
            return found
        return self._issue(invitation, request.public_key, request.key_sha256, address, now)

    def _verify_code(
        self, name: str, typed: str, address: str, now: datetime, *, key_sha256: str = "", may_repeat: bool = False
    ) -> tuple[Invitation, Verdict]:
        """Judge a code. A right one is only read here, and spent with the certificate; a wrong one is counted."""
        code = _read_code(typed)

        def judge(connection: Connection, *, lock: bool) -> tuple[Invitation, Verdict] | EnrolmentRefusedError:
            stored = _find(connection, name, code, lock=lock)
            verify_network(stored.invitation, address)
            try:
                verdict = judge_code(
                    stored.invitation, code, self._key, now, key_sha256=key_sha256, may_repeat=may_repeat
                )
                return stored.invitation, verdict
            except EnrolmentRefusedError as error:
                if lock and error.reason is ReasonCode.CODE_WRONG:
                    count_wrong_guess(connection, stored.invitation, address, now)
                return EnrolmentRefusedError(error.reason, f"{stored.invitation.grant.device}: {error.detail}")

        with _Unavailable():
            with self._store.reading() as connection:
                found = judge(connection, lock=False)
            if isinstance(found, EnrolmentRefusedError):
                # Once more, alone with it: as many as come at once, five are judged. A value, so that the count stays.
                found = self._issuer.commits.run(lambda connection: judge(connection, lock=True))
        if isinstance(found, EnrolmentRefusedError):
            raise found
        return found

    def _issue(self, invitation: Invitation, public_key: bytes, key_sha256: str, address: str, now: datetime) -> Issued:
        grant = self._completed(invitation.grant, address)

        def spend(connection: Connection) -> None:
            try:
                mark_used(connection, invitation.id, key_sha256=key_sha256, address=address, now=now)
            except RegistryError as error:
                raise EnrolmentRefusedError(ReasonCode.CODE_USED, str(error)) from error

        return self._issued(self._issuer.issue(public_key, grant, now, by=_operator(address), spend=spend))

    def _completed(self, grant: Grant, address: str) -> Grant:
        """Return a grant with what only the moment of issue knows."""
        networks = grant.networks or (network_of(address),)
        return replace(grant, networks=networks, needs_confirmation=self._needs_confirmation)

    def _issued(self, issued: Issued) -> Issued:
        problem = self._publish(issued.revision)
        if problem is not None:
            # The certificate exists, and its device should have it; the next change brings it into force too.
            _log.error("the certificate of %s is issued, but may not be in force: %s", issued.device, problem)
        return issued

    # --- with a certificate ---

    def renewable(self, certificate: bytes) -> Grant:
        """Return what the holder of a certificate (DER) may have again. Raises EnrolmentRefusedError."""
        sha256 = hashlib.sha256(certificate).hexdigest()
        with _Unavailable(), self._store.reading() as connection:
            device = device_of_certificate(connection, sha256)
            renewal = renewal_of(connection, device.name) if device is not None else None
        if device is None:
            raise EnrolmentRefusedError(
                ReasonCode.NOT_A_DEVICE_CERTIFICATE, f"certificate {sha256[:16]} is bound to no device"
            )
        if renewal is None:
            return grant_of(device, self._issuer.terms.life)
        return grant_of(device, renewal.life, renewal.key_kinds)

    def renew(self, request: CertificationRequest, certificate: bytes, now: datetime) -> Issued:
        """Issue the next certificate to the holder of one (DER). Raises EnrolmentRefusedError."""
        return self._issued(self._issuer.renew(request.public_key, hashlib.sha256(certificate).hexdigest(), now))

    def revoke(self, sha256: str, now: datetime, *, detail: str) -> None:
        """Revoke one certificate for its holder, and bring that into force. Raises EnrolmentRefusedError."""
        self._issuer.revoke(sha256, now, detail=detail)
        with _Unavailable():
            problem = self._publish(self._store.read().revision)
        if problem is not None:
            raise EnrolmentRefusedError(ReasonCode.CA_UNAVAILABLE, f"revoked, but may not be in force: {problem}")

    # --- with an approval ---

    def ask(self, request: CertificationRequest, address: str, now: datetime) -> Issued | WaitingRequest:
        """Let a request without a code wait, or issue what an operator has approved. Raises EnrolmentRefusedError."""

        def look(connection: Connection) -> tuple[WaitingRequest, bool]:
            known = waiting_by_key(connection, request.key_sha256)
            return (known, False) if known is not None else (self._let_wait(connection, request, address, now), True)

        with _Unavailable():
            waiting, is_new = self._issuer.commits.run(look)
        if is_new:
            return waiting
        if waiting.status == "rejected" or now >= waiting.expires_at:
            raise EnrolmentRefusedError(
                ReasonCode.APPROVAL_REJECTED,
                f"request {waiting.id}: rejected by {waiting.decided_by or 'nobody in time'}",
            )
        if waiting.granted is None:
            return waiting
        grant = waiting.granted
        verify_request(request, grant)
        if waiting.status == "issued":
            found = self._issuer.find_issued(grant.device, request.public_key)
            if found is None:
                raise EnrolmentRefusedError(ReasonCode.CODE_USED, f"request {waiting.id}: its certificate is over")
            return found
        grant = self._completed(grant, waiting.address)

        def spend(connection: Connection) -> None:
            try:
                mark_waiting_issued(connection, waiting.id)
            except RegistryError as error:
                raise EnrolmentRefusedError(ReasonCode.CODE_USED, str(error)) from error

        return self._issued(self._issuer.issue(request.public_key, grant, now, by=_operator(address), spend=spend))

    def _let_wait(
        self, connection: Connection, request: CertificationRequest, address: str, now: datetime
    ) -> WaitingRequest:
        total, own = count_waiting(connection, address, now)
        if total >= MOST_WAITING or own >= MOST_WAITING_OF_AN_ADDRESS:
            raise EnrolmentRefusedError(
                ReasonCode.ENROLMENT_QUEUE_FULL, f"{total} requests wait for approval, {own} of them from {address}"
            )
        waiting = WaitingRequest(
            id=encode_bits(secrets.token_bytes(4), SELECTOR_CHARACTERS),
            key_sha256=request.key_sha256,
            common_name=", ".join(request.common_names),
            address=address,
            asked_at=now,
            expires_at=now + timedelta(days=WAITING_DAYS),
        )
        insert_waiting(connection, waiting)
        return waiting

    # --- CMP ---

    def cmp_invitation(self, reference: str, address: str, now: datetime) -> CmpInvitation:
        """Return the open invitation of a reference (the device's name, or the id). Raises EnrolmentRefusedError."""
        with _Unavailable(), self._store.reading() as connection:
            stored = invitation_for_device(connection, reference) or invitation_by_id(connection, reference)
        if stored is None:
            raise EnrolmentRefusedError(ReasonCode.INVITATION_UNKNOWN, f"nobody is invited as {reference[:64]!r}")
        invitation = stored.invitation
        verify_network(invitation, address)
        match invitation.status:
            case InvitationStatus.DEAD:
                raise EnrolmentRefusedError(ReasonCode.CODE_DEAD, "wrong guesses have ended it")
            case InvitationStatus.USED:
                raise EnrolmentRefusedError(ReasonCode.CODE_USED, "the invitation was used before")
            case InvitationStatus.REVOKED:
                raise EnrolmentRefusedError(ReasonCode.CODE_REVOKED, "an operator has revoked the invitation")
            case InvitationStatus.OPEN:
                if now >= invitation.expires_at:
                    raise EnrolmentRefusedError(ReasonCode.CODE_EXPIRED, f"it ended at {invitation.expires_at}")
        try:
            secret = open_secret(stored.cmp_secret, self._key, invitation.id)
        except EnrolmentKeyError as error:
            raise EnrolmentRefusedError(ReasonCode.CA_UNAVAILABLE, str(error)) from error
        return CmpInvitation(id=invitation.id, grant=invitation.grant, secret=secret)

    def count_wrong_cmp(self, identifier: str, address: str, now: datetime) -> None:
        """Count a message whose protection was wrong as a wrong guess. Raises EnrolmentRefusedError."""

        def count(connection: Connection) -> None:
            stored = invitation_by_id(connection, identifier, lock=True)
            if stored is not None:
                count_wrong_guess(connection, stored.invitation, address, now)

        with _Unavailable():
            self._issuer.commits.run(count)

    def enrol_cmp(self, identifier: str, public_key: bytes, address: str, now: datetime) -> Issued:
        """Issue for an invitation whose CMP secret was proved; the names were checked. Raises EnrolmentRefusedError."""
        with _Unavailable(), self._store.reading() as connection:
            stored = invitation_by_id(connection, identifier)
        if stored is None:
            raise EnrolmentRefusedError(ReasonCode.INVITATION_UNKNOWN, f"no invitation {identifier!r}")
        verify_network(stored.invitation, address)
        return self._issue(stored.invitation, public_key, hashlib.sha256(public_key).hexdigest(), address, now)


class _Unavailable:
    """Turns a broken database into a refusal that tells the peer nothing."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (RegistryStoreError, RegistryError)):
            raise EnrolmentRefusedError(ReasonCode.CA_UNAVAILABLE, str(error)) from error


def _read_code(typed: str) -> Code | None:
    try:
        return parse_code(typed)
    except CodeError:
        return None


def _find(connection: Connection, name: str, code: Code | None, *, lock: bool) -> StoredInvitation:
    """Return the invitation that was meant: that of the device's name, else that of the code."""
    stored = None
    if name:
        stored = invitation_for_device(connection, name, lock=lock)
    elif code is not None:
        stored = invitation_by_id(connection, code.selector, lock=lock)
    if stored is None:
        raise EnrolmentRefusedError(
            ReasonCode.INVITATION_UNKNOWN, f"nobody is invited as {name[:64]!r}" if name else "no such invitation"
        )
    return stored


def _operator(address: str) -> str:
    return f"enrolment from {address}"[:_OPERATOR_CHARACTERS]
