"""A person decides about a device: a held renewal, a key in other hands."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from dicomward.enrolment.renewal import RenewalState
from dicomward.enrolment.revocations import KEY_COMPROMISE, SUPERSEDED
from dicomward.identity.registry import Device, RegistryError, RegistrySnapshot
from dicomward.io.ca.store import (
    RenewalRow,
    change_device,
    lock_registry,
    mark_revoked,
    put_renewal,
    renewal_of,
    renewals,
)
from dicomward.io.registry.rows import read_device, read_registry
from dicomward.io.registry.store import RegistryStore, UnknownNameError

_Decide = Callable[[Device, RenewalRow], tuple[Device, RenewalRow, str]]


def held_renewals(store: RegistryStore) -> tuple[RenewalRow, ...]:
    """Return the renewals that wait for a person, or were rejected by one."""
    with store.reading() as connection:
        return tuple(each for each in renewals(connection) if each.state in (RenewalState.HELD, RenewalState.REJECTED))


def release_renewal(store: RegistryStore, name: str, *, keep: str, by: str, at: datetime) -> RegistrySnapshot:
    """Let a held device renew again; `keep`: only with the certificate whose fingerprint begins like this.

    Without it any of its certificates may be renewed, once: what is renewed after that is what counts. The others are
    revoked with `keep`. Raises RegistryError.
    """

    def decide(device: Device, renewal: RenewalRow) -> tuple[Device, RenewalRow, str]:
        if renewal.state not in (RenewalState.HELD, RenewalState.REJECTED):
            raise RegistryError(f"{name}: its renewal is not held, so there is nothing to release")
        released = replace(renewal, state=RenewalState.RELEASED, held_at=None, held_detail="")
        if not keep:
            return device, released, "any of its certificates"
        kept = [each for each in device.certificates if each.status == "active" and each.sha256.startswith(keep)]
        if len(kept) != 1:
            raise RegistryError(
                f"{name}: {len(kept)} active certificates begin with {keep!r}; see: dicomward device show {name}"
            )
        certificates = tuple(
            each if each is kept[0] else replace(each, status="revoked") for each in device.certificates
        )
        return replace(device, certificates=certificates), released, f"certificate {kept[0].sha256} only"

    return _decide(store, name, decide, "release-renewal", KEY_COMPROMISE, by, at)


def reject_renewal(store: RegistryStore, name: str, *, by: str, at: datetime) -> RegistrySnapshot:
    """Let none of a device's certificates be renewed; they stay good until they end. Raises RegistryError."""

    def decide(device: Device, renewal: RenewalRow) -> tuple[Device, RenewalRow, str]:
        return device, replace(renewal, state=RenewalState.REJECTED), "a new invitation is needed"

    return _decide(store, name, decide, "reject-renewal", SUPERSEDED, by, at)


def report_compromise(store: RegistryStore, name: str, *, by: str, at: datetime) -> RegistrySnapshot:
    """Revoke all certificates of a device: a key is in other hands. It can be invited anew. Raises RegistryError."""

    def decide(device: Device, renewal: RenewalRow) -> tuple[Device, RenewalRow, str]:
        certificates = tuple(replace(each, status="revoked") for each in device.certificates)
        count = len(certificates)
        return (
            replace(device, certificates=certificates),
            replace(renewal, state=RenewalState.REJECTED),
            f"{count} certificate{'' if count == 1 else 's'} revoked",
        )

    return _decide(store, name, decide, "key-compromise", KEY_COMPROMISE, by, at, needs_renewal=False)


def _decide(
    store: RegistryStore,
    name: str,
    decide: _Decide,
    action: str,
    reason: str,
    by: str,
    at: datetime,
    *,
    needs_renewal: bool = True,
) -> RegistrySnapshot:
    with store.writing() as connection:
        device = read_device(connection, name)
        if device is None:
            raise UnknownNameError("device", name, [each.name for each in read_registry(connection).devices])
        before = renewal_of(connection, name)
        if before is None and needs_renewal:
            raise RegistryError(f"{name}: the CA has issued nothing to it, so there is no renewal")
        # A device that was registered with a certificate has none; its next invitation makes one.
        after, renewal, detail = decide(device, before or _unissued(name))
        if before is not None:
            put_renewal(connection, renewal)
        mark_revoked(connection, [each.sha256 for each in after.certificates if each.status == "revoked"], at, reason)
        change_device(connection, device, after, lock_registry(connection), by=by, action=action, detail=detail, now=at)
        return read_registry(connection)


def _unissued(name: str) -> RenewalRow:
    return RenewalRow(device=name, state=RenewalState.OPEN, life=timedelta(0), key_kinds=())
