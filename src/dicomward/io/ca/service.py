"""The CA of a gateway's settings: opened, trusted by the gateway, and how far its fleet has moved."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from dicomward.enrolment.renewal import RENEWAL_GRACE
from dicomward.identity.registry import DeviceStatus
from dicomward.io.ca.crl import crl_path, read_crl
from dicomward.io.ca.directory import CaDirectory
from dicomward.io.ca.issuer import CaIssuer, IssuingTerms
from dicomward.io.ca.local import LocalCaError, load_certificates
from dicomward.io.ca.sign import fingerprint_of, pem_of
from dicomward.io.ca.store import RenewalRow, issued_since, renewals
from dicomward.io.ca.terms import CaError
from dicomward.io.private_file import replace_bytes
from dicomward.io.registry.store import RegistryStore
from dicomward.settings import Settings


def issuing_terms(settings: Settings) -> IssuingTerms:
    """Return what the settings say about certificates."""
    return IssuingTerms(
        life=timedelta(days=settings.enrolment.life_days),
        backdated=timedelta(minutes=settings.enrolment.backdated_minutes),
        crl_url=settings.enrolment.crl_url,
        renewal_grace=RENEWAL_GRACE,
    )


@contextmanager
def open_issuer(settings: Settings) -> Iterator[CaIssuer]:
    """Open database and issuing key of the settings. Raises CaError, RegistryStoreError."""
    ca = CaDirectory(settings.enrolment.ca)
    with RegistryStore.open(settings.registry.url) as store:
        yield CaIssuer(store, ca, issuing_terms(settings))


def trust(settings: Settings, certificates: Iterable[x509.Certificate]) -> int:
    """Add CAs to what the gateway believes (`tls.client_ca`); return how many are new. Raises CaError, OSError.

    The first one in the file stays the first: it is the local CA's.
    """
    path = settings.tls.client_ca
    try:
        known = load_certificates(path)
    except LocalCaError as error:
        raise CaError(str(error)) from error
    seen = {fingerprint_of(each) for each in known}
    new = [each for each in certificates if fingerprint_of(each) not in seen]
    if new:
        mode, owner = path.stat().st_mode & 0o777, path.stat()
        replace_bytes(path, pem_of(*known, *new))
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
    return len(new)


def gateway_anchors(settings: Settings) -> tuple[x509.Certificate, ...]:
    """Return the CAs that devices need to believe the gateway's own certificates. Raises CaError."""
    try:
        authorities = load_certificates(settings.tls.client_ca)
    except LocalCaError as error:
        raise CaError(str(error)) from error
    return tuple(each for each in authorities if each.subject == each.issuer)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuingStatus:
    """One issuing CA: how many active devices have their newest certificate from it. Aware times."""

    name: str
    state: str
    not_after: datetime
    devices: tuple[str, ...]
    crl_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaStatus:
    """A CA and its fleet. `others`: active devices whose certificates were all issued elsewhere."""

    name: str
    root_until: datetime
    issuing: tuple[IssuingStatus, ...]
    others: tuple[str, ...]
    held: tuple[RenewalRow, ...]


def ca_status(store: RegistryStore, ca: CaDirectory, now: datetime) -> CaStatus:
    """Look at everything. Raises CaError, RegistryStoreError, RegistryError."""
    with store.reading() as connection:
        issued = issued_since(connection, now)
        held = tuple(each for each in renewals(connection) if each.state.value in ("held", "rejected"))
    active = {
        device.name: {record.sha256 for record in device.certificates if record.status == "active"}
        for device in store.read().devices
        if device.status is DeviceStatus.ACTIVE and device.certificates
    }
    newest = {row.device: row.issuer_sha256 for row in issued if row.sha256 in active.get(row.device, ())}
    parts = []
    for each in ca.state.issuing:
        certificate = ca.certificate_of(each)
        fingerprint = fingerprint_of(certificate)
        crl = read_crl(crl_path(ca, each.name))
        parts.append(
            IssuingStatus(
                name=each.name,
                state=each.state,
                not_after=certificate.not_valid_after_utc,
                devices=tuple(sorted(name for name, issuer in newest.items() if issuer == fingerprint)),
                crl_until=crl.next_update_utc if crl is not None else None,
            )
        )
    return CaStatus(
        name=ca.state.name,
        root_until=ca.root.not_valid_after_utc,
        issuing=tuple(parts),
        others=tuple(sorted(name for name in active if name not in newest)),
        held=held,
    )
