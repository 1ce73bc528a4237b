"""CRLs for relying parties other than the gateway, which asks its registry: one for each issuing CA, as DER files."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from dicomward.enrolment.revocations import CA_COMPROMISE, HOLD, Revocation, revocations_of
from dicomward.io.ca.directory import COMPROMISED, CaDirectory, IssuingCa
from dicomward.io.ca.sign import Authority, fingerprint_of, make_crl
from dicomward.io.ca.store import mark_revoked, rows_bound_elsewhere, rows_for_crl
from dicomward.io.ca.terms import CaError
from dicomward.io.private_file import replace_bytes
from dicomward.io.registry.rows import read_device
from dicomward.io.registry.store import RegistryStore, RegistryStoreError

_log = logging.getLogger(__name__)

# A CRL is due at half of its life, which is hours at least.
_LOOK_SECONDS = 600.0
# The root signs only at a rollover; nobody must wait for its CRL in between.
ROOT_CRL_LIFE = timedelta(days=1826)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCrl:
    """A CRL on disk: which CA's, how many entries, when the next one must be there. Aware times."""

    name: str
    path: Path
    entries: int
    next_update: datetime


def crl_path(ca: CaDirectory, name: str) -> Path:
    """Return where the CRL of a CA is."""
    return ca.path / f"{name}.crl"


def read_crl(path: Path) -> x509.CertificateRevocationList | None:
    """Read a CRL in DER; None if there is none. Raises CaError."""
    try:
        return x509.load_der_x509_crl(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CaError(f"the CRL {path} can't be read ({error}); make it anew: dicomward ca crl") from error


def is_due(ca: CaDirectory, now: datetime) -> bool:
    """Say if a CRL is missing or at half of its life. Raises CaError."""
    for each in ca.state.issuing:
        crl = read_crl(crl_path(ca, each.name))
        if crl is None or crl.next_update_utc is None:
            return True
        if now >= crl.last_update_utc + (crl.next_update_utc - crl.last_update_utc) / 2:
            return True
    return False


def renew_crls(store: RegistryStore, ca: CaDirectory, now: datetime, *, life: timedelta) -> tuple[WrittenCrl, ...]:
    """Sign a CRL for each issuing CA that is not over, and replace its file.

    What the registry has revoked is noted with its time first, so that later CRLs say the same. Raises CaError,
    RegistryStoreError, OSError.
    """
    return tuple(
        _renew(store, ca, each, now, life)
        for each in ca.state.issuing
        if ca.certificate_of(each).not_valid_after_utc > now
    )


def write_root_crl(ca: CaDirectory, root: Authority, now: datetime) -> WrittenCrl:
    """Sign the root's CRL: the issuing CAs whose keys are compromised. Raises CaError, OSError."""
    revocations = [
        Revocation(
            serial=ca.certificate_of(each).serial_number,
            revoked_at=datetime.fromisoformat(each.since),
            reason=CA_COMPROMISE,
        )
        for each in ca.state.issuing
        if each.state == COMPROMISED
    ]
    return _write(ca, "root", make_crl(root, revocations, now, life=ROOT_CRL_LIFE))


def _renew(store: RegistryStore, ca: CaDirectory, issuing: IssuingCa, now: datetime, life: timedelta) -> WrittenCrl:
    authority = ca.open(issuing)
    with store.writing() as connection:
        rows = rows_for_crl(connection, fingerprint_of(authority.certificate), now)
        if issuing.is_adopted:
            # What it has issued is not recorded as issued here, only bound.
            rows += rows_bound_elsewhere(connection, now)
        found = {name: read_device(connection, name) for name in {row.device for row in rows}}
        devices = {name: device for name, device in found.items() if device is not None}
        revocations = revocations_of(rows, devices, now)
        by_serial = {row.serial: row.sha256 for row in rows}
        for each in revocations:
            if each.reason != HOLD:
                mark_revoked(connection, [by_serial[each.serial]], each.revoked_at, each.reason)
    if issuing.is_adopted:
        since = _dates_of(read_crl(crl_path(ca, issuing.name)))
        revocations = tuple(replace(each, revoked_at=since.get(each.serial, each.revoked_at)) for each in revocations)
    return _write(ca, issuing.name, make_crl(authority, revocations, now, life=life))


def _dates_of(crl: x509.CertificateRevocationList | None) -> dict[int, datetime]:
    """Return since when which serial is revoked: the next CRL says the same."""
    return {} if crl is None else {each.serial_number: each.revocation_date_utc for each in crl}


def _write(ca: CaDirectory, name: str, crl: x509.CertificateRevocationList) -> WrittenCrl:
    path = crl_path(ca, name)
    replace_bytes(path, crl.public_bytes(serialization.Encoding.DER))
    path.chmod(0o644)
    if crl.next_update_utc is None:
        raise CaError(f"the CRL of {name} has no end")
    return WrittenCrl(name=name, path=path, entries=len(crl), next_update=crl.next_update_utc)


class CrlKeeper:
    """Renews the CRLs in time for as long as an enrolment server runs: it has the keys open anyway."""

    def __init__(
        self,
        store: RegistryStore,
        path: Path,
        life: timedelta,
        clock: Callable[[], datetime],
        *,
        look_seconds: float = 600,
    ) -> None:
        self._store, self._path, self._life, self._clock = store, path, life, clock
        self._look_seconds = look_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crl", daemon=True)

    def start(self) -> None:
        """Look at once, then again and again."""
        self._thread.start()

    def stop(self) -> None:
        """Return when nothing is signed any more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                ca = CaDirectory(self._path)
                if is_due(ca, self._clock()):
                    for each in renew_crls(self._store, ca, self._clock(), life=self._life):
                        _log.info("%s: %s revoked, current until %s", each.path, each.entries, each.next_update)
            except (CaError, RegistryStoreError, OSError) as error:
                _log.error("the CRLs can't be renewed, and it is tried again: %s", error)
            if self._over.wait(self._look_seconds):
                return
