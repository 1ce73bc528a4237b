"""The issuing CA at work: each certificate is signed, recorded and bound to its device in one transaction.

`CaIssuer` is the `enrolment.grant.Issuer` of those who hand out credentials. It is safe to be used from many threads;
the database puts them in a row. When a call has returned, `Publisher` (io.ca.publish) brings the change into force.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sqlalchemy import Connection

from dicomward.enrolment.grant import KEY_KINDS, Grant, Issued, grant_of
from dicomward.enrolment.profile import KeyKind, profile_of, verify_key_granted, verify_public_key
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.renewal import (
    RENEWAL_GRACE,
    Presented,
    RenewalState,
    Verdict,
    judge_renewal,
)
from dicomward.enrolment.revocations import CESSATION
from dicomward.identity.registry import CertificateRecord, Device, DeviceStatus
from dicomward.io.ca.directory import CaDirectory
from dicomward.io.ca.opened import OpenedCa
from dicomward.io.ca.sign import der_of, fingerprint_of, make_device_certificate, new_serial
from dicomward.io.ca.store import (
    IssuedCertificate,
    RenewalRow,
    change_device,
    device_of_certificate,
    generations_of,
    insert_issued,
    issued_of_device,
    lock_registry,
    mark_revoked,
    next_generation,
    put_renewal,
    register,
    renewal_of,
    verify_key_unused,
)
from dicomward.io.ca.terms import CaError
from dicomward.io.registry.group_commit import GroupCommit
from dicomward.io.registry.store import RegistryStore, RegistryStoreError
from dicomward.vocab.reason import ReasonCode

# What the history of a device names as its operator when nobody typed a command.
ENROLMENT_OPERATOR = "enrolment"

Spend = Callable[[Connection], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuingTerms:
    """What the settings say about certificates."""

    life: timedelta
    backdated: timedelta
    crl_url: str = ""
    renewal_grace: timedelta = RENEWAL_GRACE


class CaIssuer:
    """The issuing CA that issues now, with its key in memory, and the database."""

    def __init__(self, store: RegistryStore, ca: CaDirectory, terms: IssuingTerms) -> None:
        """Open the key. Raises CaError."""
        self._store = store
        self._commits = GroupCommit(store)
        self._terms = terms
        self.opened = OpenedCa(ca.path)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """Return the issuing CA's certificate (DER). Raises EnrolmentRefusedError."""
        with _explained():
            return self.opened.current().chain

    @property
    def anchors(self) -> tuple[bytes, ...]:
        """Return what devices are to trust (DER), the root first. Raises EnrolmentRefusedError."""
        with _explained():
            return self.opened.current().anchors

    @property
    def commits(self) -> GroupCommit:
        """Return how this process writes: in a row, so that no thread waits for SQLite's lock until it gives up."""
        return self._commits

    @property
    def terms(self) -> IssuingTerms:
        """Return what the settings say."""
        return self._terms

    def issue(
        self,
        public_key: bytes,
        grant: Grant,
        now: datetime,
        *,
        by: str = ENROLMENT_OPERATOR,
        spend: Spend | None = None,
    ) -> Issued:
        """Issue a certificate, register the device, and let `spend` mark what was used for it: all, or nothing.

        `spend` runs first, in the same transaction; what it raises ends everything. Raises EnrolmentRefusedError.
        """
        kind = verify_public_key(public_key)
        verify_key_granted(kind, grant)

        def work(connection: Connection) -> Issued:
            if spend is not None:
                spend(connection)
            verify_key_unused(connection, _sha256(public_key), grant.device)
            issued = self._issue(connection, public_key, grant, now, parent=None, by=by)
            put_renewal(
                connection,
                RenewalRow(
                    device=grant.device, state=RenewalState.OPEN, life=grant.life, key_kinds=tuple(grant.key_kinds)
                ),
            )
            return issued

        with _explained():
            return self._commits.run(work)

    def find_issued(self, device: str, public_key: bytes) -> Issued | None:
        """Return the newest certificate that a device was given for this key, if it is not revoked.

        For an enrolment that is repeated because its answer was lost. Raises EnrolmentRefusedError.
        """
        with _explained(), self._store.reading() as connection:
            key_sha256 = _sha256(public_key)
            rows = [each for each in issued_of_device(connection, device) if each.key_sha256 == key_sha256]
            if not rows:
                return None
            bound = device_of_certificate(connection, rows[-1].sha256)
            record = bound.certificate(rows[-1].sha256) if bound is not None else None
            if record is None or record.status == "revoked":
                return None
            return self._repeated(rows[-1], lock_registry(connection))

    def renew(self, public_key: bytes, presented_sha256: str, now: datetime) -> Issued:
        """Issue the next generation to the holder of a certificate. Raises EnrolmentRefusedError.

        A copied credential is noticed here: its device is held, which stays, although nothing is issued.
        """
        kind = verify_public_key(public_key)
        with _explained():
            answer = self._commits.run(
                lambda connection: self._renew(connection, public_key, kind, presented_sha256, now)
            )
        if isinstance(answer, str):
            # After the transaction: that it is held must stay.
            raise EnrolmentRefusedError(ReasonCode.RENEWAL_OF_SPENT_GENERATION, answer)
        return answer

    def _renew(
        self, connection: Connection, public_key: bytes, kind: KeyKind, presented_sha256: str, now: datetime
    ) -> Issued | str:
        """Return what was issued, or why the device is held."""
        device = device_of_certificate(connection, presented_sha256)
        if device is None:
            raise EnrolmentRefusedError(
                ReasonCode.NOT_A_DEVICE_CERTIFICATE, f"certificate {presented_sha256[:16]} is bound to no device"
            )
        history = issued_of_device(connection, device.name)
        renewal = renewal_of(connection, device.name) or RenewalRow(
            device=device.name, state=RenewalState.OPEN, life=self._terms.life, key_kinds=KEY_KINDS
        )
        grant = grant_of(device, renewal.life, renewal.key_kinds)
        verify_key_granted(kind, grant)
        key_sha256 = _sha256(public_key)
        verify_key_unused(connection, key_sha256, device.name)
        presented = _presented(device, history, presented_sha256)
        answer = judge_renewal(
            renewal.state, generations_of(history), presented, key_sha256, now, grace=self._terms.renewal_grace
        )
        match answer.verdict:
            case Verdict.ISSUE:
                issued = self._issue(
                    connection, public_key, grant, now, parent=presented.generation, by=ENROLMENT_OPERATOR
                )
                put_renewal(connection, replace(renewal, state=RenewalState.OPEN, held_at=None, held_detail=""))
                return issued
            case Verdict.REPEAT:
                repeated = next(each for each in history if each.generation == answer.repeated)
                return self._repeated(repeated, lock_registry(connection))
            case Verdict.HOLD:
                detail = (
                    f"generation {presented.generation} (certificate {presented_sha256[:16]}) was renewed already, "
                    f"and is presented again with another key ({key_sha256[:16]})"
                )
                put_renewal(connection, replace(renewal, state=RenewalState.HELD, held_at=now, held_detail=detail))
                return f"device {device.name}: {detail}"

    def revoke(self, presented_sha256: str, now: datetime, *, detail: str, reason: str = CESSATION) -> None:
        """Revoke one certificate for its holder. Raises EnrolmentRefusedError."""
        with _explained(), self._store.writing() as connection:
            device = device_of_certificate(connection, presented_sha256)
            if device is None:
                raise EnrolmentRefusedError(
                    ReasonCode.NOT_A_DEVICE_CERTIFICATE, f"certificate {presented_sha256[:16]} is bound to no device"
                )
            certificates = tuple(
                replace(each, status="revoked") if each.sha256 == presented_sha256 else each
                for each in device.certificates
            )
            mark_revoked(connection, [presented_sha256], now, reason)
            change_device(
                connection,
                device,
                replace(device, certificates=certificates),
                lock_registry(connection),
                by=ENROLMENT_OPERATOR,
                action="revoke-certificate",
                detail=f"certificate {presented_sha256}: {detail}",
                now=now,
            )

    def _issue(
        self, connection: Connection, public_key: bytes, grant: Grant, now: datetime, *, parent: int | None, by: str
    ) -> Issued:
        key = serialization.load_der_public_key(public_key)
        if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
            raise EnrolmentRefusedError(ReasonCode.KEY_TOO_WEAK, "a key of an unknown kind")
        opened = self.opened.current()
        ca = opened.authority.certificate
        profile = profile_of(
            grant,
            verify_public_key(public_key),
            now,
            ca_not_before=ca.not_valid_before_utc,
            ca_not_after=ca.not_valid_after_utc,
            backdated=self._terms.backdated,
        )
        certificate = make_device_certificate(opened.authority, profile, key, new_serial(), crl_url=self._terms.crl_url)
        row = IssuedCertificate(
            serial=certificate.serial_number,
            sha256=fingerprint_of(certificate),
            issuer_sha256=opened.issuer_sha256,
            device=grant.device,
            generation=next_generation(connection, grant.device),
            parent=parent,
            key_sha256=_sha256(public_key),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            issued_at=now,
            certificate=der_of(certificate),
        )
        insert_issued(connection, row)
        record = CertificateRecord(
            sha256=row.sha256,
            not_before=row.not_before,
            not_after=row.not_after,
            status="unconfirmed" if grant.needs_confirmation else "active",
            serial=f"{row.serial:x}",
        )
        action = "enrol-device" if parent is None else "renew-device"
        revision = register(connection, grant, record, lock_registry(connection), by=by, action=action, now=now)
        return replace(self._repeated(row, revision), is_repeated=False)

    def _repeated(self, row: IssuedCertificate, revision: int) -> Issued:
        return Issued(
            certificate=row.certificate,
            chain=self._chain_of(row),
            serial=row.serial,
            generation=row.generation,
            device=row.device,
            sha256=row.sha256,
            not_before=row.not_before,
            not_after=row.not_after,
            revision=revision,
            is_repeated=True,
        )

    def _chain_of(self, row: IssuedCertificate) -> tuple[bytes, ...]:
        opened = self.opened.current()
        if row.issuer_sha256 == opened.issuer_sha256:
            return opened.chain
        for each in opened.directory.state.issuing:
            certificate = opened.directory.certificate_of(each)
            if fingerprint_of(certificate) == row.issuer_sha256:
                return (der_of(certificate),)
        return ()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what is broken here into a refusal that tells the peer nothing."""
    try:
        yield
    except (RegistryStoreError, CaError) as error:
        raise EnrolmentRefusedError(ReasonCode.CA_UNAVAILABLE, str(error)) from error


def _presented(device: Device, history: Sequence[IssuedCertificate], sha256: str) -> Presented:
    row = next((each for each in history if each.sha256 == sha256), None)
    return Presented(
        # What another CA has issued, and was bound by registration, is older than everything of ours.
        generation=row.generation if row is not None else 0,
        not_after=next(each.not_after for each in device.certificates if each.sha256 == sha256),
        is_active=_is_active(device, sha256),
    )


def _is_active(device: Device, sha256: str) -> bool:
    record = device.certificate(sha256)
    return device.status is DeviceStatus.ACTIVE and record is not None and record.status == "active"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
