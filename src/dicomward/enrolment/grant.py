"""What an invitation, an approval or a renewal decided: the one source of everything that is issued and registered."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from dicomward.identity.registry import CertificateRecord, Device, Endpoint, RegistryError

KEY_KINDS: Final = ("ecdsa", "rsa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A right to one credential. The fields are those of `identity.registry.Device`.

    `key_kinds`: which keys may be certified. `life`: of the certificate. `revoke_others`: the device's earlier
    certificates end when this one is issued (a replaced device, a compromised key). `needs_confirmation`: it is for
    C-ECHO only until a second person has confirmed the device. Raises RegistryError for what could not be registered.
    """

    device: str
    ae_titles: tuple[str, ...]
    role: str
    site: str = ""
    networks: tuple[str, ...]
    address: Endpoint | None = None
    plain: bool = False
    reverse: bool = False
    key_kinds: tuple[str, ...] = KEY_KINDS
    life: timedelta
    revoke_others: bool = False
    needs_confirmation: bool = False

    def __post_init__(self) -> None:
        """Raise RegistryError for anything that could not be issued or registered."""
        self.as_device()
        if not self.key_kinds or not set(self.key_kinds) <= set(KEY_KINDS):
            raise RegistryError(f"{self.device}: kinds of keys {self.key_kinds!r}; the known ones are {KEY_KINDS}")
        if self.life <= timedelta(0):
            raise RegistryError(f"{self.device}: a life of {self.life} is none")

    def as_device(self, certificates: Sequence[CertificateRecord] = ()) -> Device:
        """Return the device as it will be registered. Raises RegistryError."""
        return Device(
            name=self.device,
            ae_titles=self.ae_titles,
            role=self.role,
            site=self.site,
            networks=self.networks,
            address=self.address,
            plain=self.plain,
            reverse=self.reverse,
            certificates=tuple(certificates),
        )


def grant_of(device: Device, life: timedelta, key_kinds: tuple[str, ...] = KEY_KINDS) -> Grant:
    """Return what a registered device may have again: the grant of its renewal."""
    return Grant(
        device=device.name,
        ae_titles=device.ae_titles,
        role=device.role,
        site=device.site,
        networks=device.networks,
        address=device.address,
        plain=device.plain,
        reverse=device.reverse,
        key_kinds=key_kinds,
        life=life,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new certificate: DER; `chain` is what the device sends with it (issuing CAs, without the root).

    `revision` is that of the registry which has it. `is_repeated`: the same certificate once more, for an answer that
    was lost.
    """

    certificate: bytes
    chain: tuple[bytes, ...]
    serial: int
    generation: int
    device: str
    sha256: str
    not_before: datetime
    not_after: datetime
    revision: int
    is_repeated: bool = False


class Issuer(Protocol):
    """The port of those who hand out credentials. Raises `enrolment.refusal.EnrolmentRefusedError`.

    `public_key` is a SubjectPublicKeyInfo (DER). When a call returns, the certificate is recorded and bound to its
    device; when it raises, nothing is.
    """

    def issue(self, public_key: bytes, grant: Grant, now: datetime) -> Issued:
        """Issue a first, or another, certificate for a device, and register the device if it is new."""
        ...

    def renew(self, public_key: bytes, presented_sha256: str, now: datetime) -> Issued:
        """Issue the next generation to the holder of a certificate, which has proved its key.

        `presented_sha256`: fingerprint of its DER form, lower-case hex.
        """
        ...

    def revoke(self, presented_sha256: str, now: datetime, *, detail: str) -> None:
        """Revoke one certificate for its holder (CMP rr, a device that is taken out of use)."""
        ...
