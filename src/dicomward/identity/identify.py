"""Certificate, network and calling AE title → the registered principal.

Rules of this file: each function returns a proven principal or raises IdentityError; what is not registered is denied.
The checks run from the widest reason to the narrowest, so that the audit names the one to repair first. The order and
the reasons are in docs/identity.md.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.network import NetworkSet, parse_address
from dicomward.identity.registry import Archive, Device, DeviceStatus, RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.vocab.principal import Assurance, Principal, Role
from dicomward.vocab.reason import ReasonCode

_FINGERPRINT_SHOWN: Final = 16


class IdentityError(Exception):
    """The peer is not a principal that we know: `reason` is the stable code, `detail` is for the audit only."""

    def __init__(self, reason: ReasonCode, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Identified:
    """A device that proved its key from an allowed address; its calling AE title is still to be checked by `bind`.

    `floor_only`: the reason for which only the clinical floor is open to it, or None.
    """

    device: Device
    floor_only: ReasonCode | None


@lru_cache(10_000)
def _network_set(networks: tuple[str, ...]) -> NetworkSet:
    return NetworkSet(networks)


def identify_device(
    snapshot: RegistrySnapshot,
    certificate: PeerCertificate,
    address: str,
    now: datetime,
    *,
    expiry_grace: timedelta,
) -> Identified:
    """Return the device that the certificate is bound to. Raises IdentityError.

    `now` is aware. `expiry_grace`: for how long an expired certificate still opens the clinical floor; zero for not at
    all, ValueError below. To be called after every handshake: TLS resumption checks nothing of this by itself.
    """
    if expiry_grace < timedelta(0):
        raise ValueError(f"the grace for expired certificates is {expiry_grace}; it must not be negative")
    device, shown = snapshot.device_by_certificate(certificate.sha256), certificate.sha256[:_FINGERPRINT_SHOWN]
    record = device.certificate(certificate.sha256) if device else None
    if device is None or record is None:
        raise IdentityError(
            ReasonCode.CERTIFICATE_UNKNOWN, f"certificate {shown} ({certificate.subject!r}) is bound to no device"
        )
    if device.status is DeviceStatus.REVOKED:
        raise IdentityError(ReasonCode.DEVICE_REVOKED, f"device {device.name!r} is revoked")
    if record.status == "revoked":
        raise IdentityError(ReasonCode.CERTIFICATE_REVOKED, f"certificate {shown} of device {device.name!r} is revoked")
    if device.status is not DeviceStatus.ACTIVE:
        raise IdentityError(ReasonCode.DEVICE_SUSPENDED, f"device {device.name!r} is suspended")
    floor_only = _judge_validity(certificate, now, expiry_grace, device)
    if record.status == "unconfirmed":
        floor_only = ReasonCode.NOT_CONFIRMED
    if not _network_set(device.networks).allows(address):
        allowed = ", ".join(device.networks) or "no network"
        raise IdentityError(
            ReasonCode.NETWORK_NOT_ALLOWED, f"device {device.name!r} may call from {allowed}, not from {address}"
        )
    return Identified(device=device, floor_only=floor_only)


def _judge_validity(
    certificate: PeerCertificate, now: datetime, expiry_grace: timedelta, device: Device
) -> ReasonCode | None:
    if now < certificate.not_before:
        raise IdentityError(
            ReasonCode.CERTIFICATE_NOT_YET_VALID,
            f"the certificate of device {device.name!r} is valid from {certificate.not_before.isoformat()}; "
            "are the clocks right?",
        )
    if now <= certificate.not_after:
        return None
    if now - certificate.not_after <= expiry_grace:
        return ReasonCode.CERTIFICATE_JUST_EXPIRED
    raise IdentityError(
        ReasonCode.CERTIFICATE_EXPIRED,
        f"the certificate of device {device.name!r} expired at {certificate.not_after.isoformat()}; renew it",
    )


def bind(identified: Identified, calling_ae_title: str, certificate: PeerCertificate, address: str) -> Principal:
    """Return the principal of one association. Raises IdentityError.

    The calling AE title must be one of the device's: compared case-sensitively, leading and trailing spaces are not
    significant (PS3.5 §6.2).
    """
    device, title = identified.device, calling_ae_title.strip(" ")
    if device.certificate(certificate.sha256) is None:
        raise IdentityError(
            ReasonCode.CERTIFICATE_UNKNOWN,
            f"certificate {certificate.sha256[:_FINGERPRINT_SHOWN]} is not one of device {device.name!r}",
        )
    if title not in device.ae_titles:
        raise IdentityError(
            ReasonCode.CALLING_AE_TITLE_NOT_BOUND,
            f"device {device.name!r} calls itself {title!r}; bound are {', '.join(device.ae_titles)}",
        )
    return Principal(
        device=device.name,
        calling_ae_title=title,
        role=device.role,
        site=device.site,
        assurance=Assurance.TLS_DEVICE,
        address=_shown(address),
        certificate_sha256=certificate.sha256,
        floor_only=identified.floor_only,
    )


def identify_legacy_device(
    snapshot: RegistrySnapshot, zone: LegacyZone, *, calling_ae_title: str, address: str, has_moved: bool, now: datetime
) -> tuple[Device, Principal]:
    """Return the device that calls in plaintext, and its principal (assurance `network-pin`). Raises IdentityError.

    It is known by its calling AE title and its address alone. `has_moved`: it has been seen with TLS. `now` is aware,
    in the site's own time: after the last day of the zone only the clinical floor is left.
    """
    title = calling_ae_title.strip(" ")
    if not zone.allows(address):
        raise IdentityError(ReasonCode.NETWORK_NOT_ALLOWED, f"{address} is not in the legacy zone {zone.name!r}")
    device = snapshot.device_by_ae_title(title)
    if device is None:
        raise IdentityError(ReasonCode.CALLING_AE_TITLE_NOT_BOUND, f"no device calls itself {title!r}")
    if device.status is not DeviceStatus.ACTIVE:
        raise IdentityError(ReasonCode.DEVICE_SUSPENDED, f"device {device.name!r} is suspended")
    if device.legacy_zone != zone.name:
        registered = f"for the zone {device.legacy_zone!r}" if device.legacy_zone else "for TLS only"
        raise IdentityError(
            ReasonCode.NOT_IN_LEGACY_ZONE, f"device {device.name!r} is registered {registered}, not for {zone.name!r}"
        )
    if not _network_set(device.networks).allows(address):
        raise IdentityError(
            ReasonCode.NETWORK_NOT_ALLOWED,
            f"device {device.name!r} may call from {', '.join(device.networks)}, not from {address}",
        )
    if has_moved and not device.legacy_always:
        raise IdentityError(ReasonCode.MOVED_TO_TLS, f"device {device.name!r} uses TLS by now")
    return device, Principal(
        device=device.name,
        calling_ae_title=title,
        role=device.role,
        site=device.site or zone.site,
        assurance=Assurance.NETWORK_PIN,
        address=_shown(address),
        floor_only=ReasonCode.LEGACY_ZONE_OVER if zone.is_over(now) else None,
    )


def identify_archive(
    snapshot: RegistrySnapshot, *, calling_ae_title: str, address: str, certificate: PeerCertificate | None
) -> tuple[Archive, Principal]:
    """Return the archive that calls on the archive side, and its principal. Raises IdentityError.

    An archive with a pinned certificate is known by that and by its network; one on a plaintext link by its network
    alone (assurance `network-pin`). A pin is the trust itself, so the dates of a pinned certificate are not judged.
    Where two archives fit, none is guessed.
    """
    title = calling_ae_title.strip(" ")
    calling = snapshot.archives_calling(title)
    if not calling:
        raise IdentityError(ReasonCode.ARCHIVE_UNKNOWN, f"no archive calls itself {title!r}")
    near = [archive for archive in calling if NetworkSet(archive.networks).allows(address)]
    if not near:
        names = ", ".join(archive.name for archive in calling)
        raise IdentityError(ReasonCode.NETWORK_NOT_ALLOWED, f"{names} may not call from {address}")
    proved = certificate.sha256 if certificate else None
    fitting = [archive for archive in near if archive.certificate_sha256 == proved]
    if not fitting:
        # A certificate that nobody asked for neither helps nor harms an archive that has none pinned.
        fitting = [archive for archive in near if archive.certificate_sha256 is None]
    if not fitting:
        reason = ReasonCode.NO_CERTIFICATE if proved is None else ReasonCode.CERTIFICATE_UNKNOWN
        raise IdentityError(reason, f"{', '.join(archive.name for archive in near)}: the pinned certificate is missing")
    if len(fitting) > 1:
        names = ", ".join(archive.name for archive in fitting)
        raise IdentityError(
            ReasonCode.ARCHIVE_UNKNOWN, f"{title!r} at {address} could be {names}; give each its network"
        )
    archive = fitting[0]
    pinned = archive.certificate_sha256
    return archive, Principal(
        device=archive.name,
        calling_ae_title=title,
        role=Role.ARCHIVE,
        site=archive.site,
        assurance=Assurance.NETWORK_PIN if pinned is None else Assurance.TLS_DEVICE,
        address=_shown(address),
        certificate_sha256=pinned or "",
    )


@lru_cache(1_024)
def _shown(address: str) -> str:
    """Return the address as audit and limits know it: IPv4 is IPv4, also where a listener shows it as IPv6."""
    return str(parse_address(address))
