"""The registry: which device, which archive, with which certificates, AE titles, networks and role.

Rules of this file: values only. A `RegistrySnapshot` that exists is consistent: every name, AE title and certificate
belongs to one principal, every network is named.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from dicomward.identity.network import ANY, NetworkError, NetworkSet, parse_network
from dicomward.vocab.ae_title import AeTitleError, parse_ae_title

# Unconfirmed: new, and good for C-ECHO only until a second person has confirmed its device.
CertificateStatus = Literal["active", "unconfirmed", "revoked"]
CERTIFICATE_STATUSES: Final[dict[str, CertificateStatus]] = {
    "active": "active",
    "unconfirmed": "unconfirmed",
    "revoked": "revoked",
}

# Names go into file names, TOML keys, log lines and URLs.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
# Most titles look like this; only the others need the whole grammar.
_PLAIN_AE_TITLE: Final = re.compile(r"[A-Za-z0-9_-]{1,16}\Z")
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]{1,253}\Z")
_SERIAL: Final = re.compile(r"[!-~]{1,64}\Z")
_SITE_CHARACTERS: Final = 64


class RegistryError(ValueError):
    """The registry holds something that can't be right; the message says where, why and what to do."""


class DeviceStatus(StrEnum):
    """May the device be used: only ACTIVE says yes."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a peer listens: `host` is a name or an IP address (IPv6 without brackets), `port` 1 to 65535."""

    host: str
    port: int

    def __post_init__(self) -> None:
        """Raise RegistryError for what can't be dialled."""
        if not _HOST.match(self.host):
            raise RegistryError(f"{self.host!r} is not a host name or IP address")
        if not 0 < self.port <= 0xFFFF:
            raise RegistryError(f"port {self.port} is not in 1 to 65535")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRecord:
    """One certificate of a device: `sha256` is the fingerprint of its DER form in lower-case hex, times are aware."""

    sha256: str
    not_before: datetime
    not_after: datetime
    status: CertificateStatus
    serial: str

    def __post_init__(self) -> None:
        """Raise RegistryError for a fingerprint, validity, status or serial that can't be right."""
        _check_sha256(self.sha256)
        if self.not_before.tzinfo is None or self.not_after.tzinfo is None:
            raise RegistryError(f"certificate {self.sha256[:16]}: its times have no time zone")
        if self.not_before > self.not_after:
            raise RegistryError(f"certificate {self.sha256[:16]}: it would end before it begins")
        if self.status not in CERTIFICATE_STATUSES:
            raise RegistryError(f"certificate {self.sha256[:16]}: status {self.status!r} is not known")
        if not _SERIAL.match(self.serial):
            raise RegistryError(f"certificate {self.sha256[:16]}: serial {self.serial!r} is not one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One registered device.

    `ae_titles`: what it may call itself (at least one). `networks`: where it may call from: CIDR texts, or "any"; none
    means that it may not call from anywhere. `address`: where it listens as an SCP, `plain` if without TLS there;
    `reverse`: it is reached over connections that it has opened itself instead (an edge agent does that for it).
    `legacy_zone`: the zone in which it may call in plaintext ("": none), `legacy_always` if also after it has been seen
    with TLS. `observe_until`: until then (aware) what would be refused to it is only recorded.
    """

    name: str
    ae_titles: tuple[str, ...]
    role: str
    site: str = ""
    networks: tuple[str, ...]
    address: Endpoint | None = None
    plain: bool = False
    reverse: bool = False
    status: DeviceStatus = DeviceStatus.ACTIVE
    certificates: tuple[CertificateRecord, ...] = ()
    legacy_zone: str = ""
    legacy_always: bool = False
    observe_until: datetime | None = None

    def __post_init__(self) -> None:
        """Raise RegistryError for a name, title, network, role, site, zone or time that can't be right."""
        _check_name(self.name)
        _check_site(self.site, self.name)
        _check_ae_titles(self.ae_titles, self.name)
        _check_networks(self.networks, self.name)
        if not _NAME.match(self.role):
            raise RegistryError(f"{self.name}: role {self.role!r} is not a name")
        if not self.ae_titles:
            raise RegistryError(f"{self.name}: it has no AE title; bind at least one")
        if not isinstance(self.status, DeviceStatus):
            raise RegistryError(f"{self.name}: status {self.status!r} is not one of {sorted(DeviceStatus)}")
        if self.reverse and self.address is not None:
            raise RegistryError(f"{self.name}: it has an address or reverse connections, not both; choose one")
        if self.reverse and self.plain:
            raise RegistryError(f"{self.name}: reverse connections are never plaintext; leave that out")
        if self.legacy_zone:
            _check_name(self.legacy_zone)
            # Without a key its network is all that tells it from a stranger.
            if ANY in self.networks:
                raise RegistryError(f'{self.name}: "any" is not for a legacy zone; name the address of the device')
        elif self.legacy_always:
            raise RegistryError(f"{self.name}: plaintext beside TLS needs a legacy zone; name the zone")
        if self.observe_until is not None and self.observe_until.tzinfo is None:
            raise RegistryError(f"{self.name}: the end of observing has no time zone")

    @property
    def is_active(self) -> bool:
        """Say if the device may be used at all."""
        return self.status is DeviceStatus.ACTIVE

    @property
    def is_destination(self) -> bool:
        """Say if associations can be opened to it: it listens somewhere, or has reverse connections."""
        return self.address is not None or self.reverse

    def certificate(self, sha256: str) -> CertificateRecord | None:
        """Return the record of one of its certificates."""
        return next((record for record in self.certificates if record.sha256 == sha256), None)

    def is_observed(self, now: datetime) -> bool:
        """Say if it is observed at this (aware) time."""
        return self.observe_until is not None and now < self.observe_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One registered archive: a target of associations, and a principal where it calls us.

    `ae_title`: the called AE title that it knows itself by; `called_ae_titles`: what devices type to reach it (by
    default the same one); `calling_ae_titles`: what it calls us with (none: it never calls); `networks`: where it calls
    from. `tls` with `certificate_sha256`: mutual TLS with the pinned certificate; else the link is plaintext, which
    the dialler allows on loopback or if `dedicated_link`. `sends_move_originator`: if its C-STORE sub-operations name
    the C-MOVE that they belong to (PS3.7 §9.1.1.1); None: not known yet. `replica_of`: the archive for which it stands
    in while that one is down, "" for none.
    """

    name: str
    ae_title: str
    called_ae_titles: tuple[str, ...] = ()
    calling_ae_titles: tuple[str, ...] = ()
    endpoint: Endpoint
    networks: tuple[str, ...] = ()
    tls: bool = False
    dedicated_link: bool = False
    certificate_sha256: str | None = None
    site: str = ""
    sends_move_originator: bool | None = None
    replica_of: str = ""

    def __post_init__(self) -> None:
        """Fill in the called AE title; raise RegistryError for what can't be right."""
        if not self.called_ae_titles:
            # Frozen: there is no other way to derive a field from another one.
            object.__setattr__(self, "called_ae_titles", (self.ae_title,))
        _check_name(self.name)
        _check_site(self.site, self.name)
        _check_ae_titles((self.ae_title,), self.name)
        _check_ae_titles(self.called_ae_titles, self.name)
        _check_ae_titles(self.calling_ae_titles, self.name)
        _check_networks(self.networks, self.name)
        if self.certificate_sha256 is not None:
            _check_sha256(self.certificate_sha256)
        if self.tls is not (self.certificate_sha256 is not None):
            raise RegistryError(f"{self.name}: TLS and a pinned certificate belong together; register both or neither")
        # Without a key its network is all that tells an archive from a stranger.
        if ANY in self.networks and not self.tls:
            raise RegistryError(f'{self.name}: "any" is for archives with a pinned certificate only; name its network')


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySnapshot:
    """All devices and archives at one revision, immutable, with the indexes that the gateway asks at each association.

    Names are unique over devices and archives, certificates over all devices; AE titles over the devices that are not
    revoked (a replaced scanner keeps its title); a called AE title leads to one target. Raises RegistryError.
    """

    devices: tuple[Device, ...]
    archives: tuple[Archive, ...]
    revision: int
    _names: dict[str, Device | Archive] = field(init=False, repr=False, compare=False)
    _certificates: dict[str, Device] = field(init=False, repr=False, compare=False)
    _ae_titles: dict[str, Device] = field(init=False, repr=False, compare=False)
    _routes: dict[str, Archive | Device] = field(init=False, repr=False, compare=False)
    _calling: dict[str, tuple[Archive, ...]] = field(init=False, repr=False, compare=False)
    _replicas: dict[str, tuple[Archive, ...]] = field(init=False, repr=False, compare=False)
    _networks: NetworkSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Build the indexes; each refuses what would be ambiguous."""
        if self.revision < 0:
            raise RegistryError(f"revision {self.revision} is negative")
        # Frozen: indexes derived from the fields can't be set any other way.
        object.__setattr__(self, "_names", _index_names(self.devices, self.archives))
        object.__setattr__(self, "_certificates", _index_certificates(self.devices))
        object.__setattr__(self, "_ae_titles", _index_ae_titles(self.devices))
        object.__setattr__(self, "_replicas", _index_replicas(self.archives))
        object.__setattr__(self, "_routes", _index_routes(self.devices, self.archives))
        object.__setattr__(self, "_calling", _index_calling(self.archives))
        active = (network for device in self.devices if device.is_active for network in device.networks)
        object.__setattr__(self, "_networks", NetworkSet((*active, *(n for a in self.archives for n in a.networks))))

    def device_by_name(self, name: str) -> Device | None:
        """Return the device of that name, whatever its status."""
        found = self._names.get(name)
        return found if isinstance(found, Device) else None

    def archive_by_name(self, name: str) -> Archive | None:
        """Return the archive of that name."""
        found = self._names.get(name)
        return found if isinstance(found, Archive) else None

    def device_by_certificate(self, sha256: str) -> Device | None:
        """Return the device that the certificate is bound to, whatever the status of either."""
        return self._certificates.get(sha256)

    def device_by_ae_title(self, ae_title: str) -> Device | None:
        """Return the device, active or suspended, that has the AE title (case-sensitive, without padding)."""
        return self._ae_titles.get(ae_title)

    def route(self, called_ae_title: str) -> Archive | Device | None:
        """Return the target of a called AE title: an archive, or an active device that can be called."""
        return self._routes.get(called_ae_title)

    def replicas_of(self, name: str) -> tuple[Archive, ...]:
        """Return the archives that stand in for the one of that name, in the order of their names."""
        return self._replicas.get(name, ())

    def archives_calling(self, ae_title: str) -> tuple[Archive, ...]:
        """Return the archives that call us with this AE title; their networks tell them apart."""
        return self._calling.get(ae_title, ())

    def is_registered_address(self, ip: str) -> bool:
        """Say if the address is in a named network of an active device or of an archive.

        Runs before the handshake and costs the same with 5,000 devices as with one. "any" names no address, so it
        never turns a stranger into somebody known.
        """
        return self._networks.names(ip)


def _index_names(devices: Iterable[Device], archives: Iterable[Archive]) -> dict[str, Device | Archive]:
    names: dict[str, Device | Archive] = {}
    principals: list[Device | Archive] = [*devices, *archives]
    for principal in principals:
        if principal.name in names:
            raise RegistryError(
                f"the name {principal.name!r} is used twice; each device and archive, revoked ones too, keeps its own: "
                "choose another"
            )
        names[principal.name] = principal
    return names


def _index_certificates(devices: Iterable[Device]) -> dict[str, Device]:
    certificates: dict[str, Device] = {}
    for device in devices:
        for record in device.certificates:
            if record.sha256 in certificates:
                raise RegistryError(
                    f"{device.name}: certificate {record.sha256[:16]} is bound twice; each device needs its own key"
                )
            certificates[record.sha256] = device
    return certificates


def _index_ae_titles(devices: Iterable[Device]) -> dict[str, Device]:
    titles: dict[str, Device] = {}
    for device in devices:
        if device.status is not DeviceStatus.REVOKED:
            for title in device.ae_titles:
                other = titles.setdefault(title, device)
                if other is not device:
                    raise RegistryError(
                        f"{device.name}: AE title {title!r} belongs to {other.name!r}; revoke that device first"
                    )
    return titles


def _index_routes(devices: Iterable[Device], archives: Iterable[Archive]) -> dict[str, Archive | Device]:
    routes: dict[str, Archive | Device] = {}
    archives = tuple(archives)
    called = {archive.name: archive.called_ae_titles for archive in archives}
    # A replica often has the titles of the archive for which it stands in: these lead to that one.
    targets: list[tuple[Archive | Device, tuple[str, ...]]] = [
        (a, tuple(title for title in a.called_ae_titles if title not in called.get(a.replica_of, ()))) for a in archives
    ]
    targets += [(d, d.ae_titles) for d in devices if d.is_active and d.is_destination]
    for target, titles in targets:
        for title in titles:
            other = routes.setdefault(title, target)
            if other is not target:
                raise RegistryError(
                    f"the called AE title {title!r} leads to {other.name!r} and to {target.name!r}; rename one"
                )
    return routes


def _index_replicas(archives: Iterable[Archive]) -> dict[str, tuple[Archive, ...]]:
    by_name = {archive.name: archive for archive in archives}
    replicas: dict[str, tuple[Archive, ...]] = {}
    for archive in by_name.values():
        if not archive.replica_of:
            continue
        primary = by_name.get(archive.replica_of)
        if primary is None:
            raise RegistryError(f"{archive.name} is a replica of {archive.replica_of!r}, and there is no such archive")
        if primary.replica_of:
            raise RegistryError(
                f"{archive.name} is a replica of {primary.name}, which is one of {primary.replica_of!r}; "
                "name that one for both"
            )
        replicas[primary.name] = (*replicas.get(primary.name, ()), archive)
    return replicas


def _index_calling(archives: Iterable[Archive]) -> dict[str, tuple[Archive, ...]]:
    calling: dict[str, tuple[Archive, ...]] = {}
    for archive in archives:
        for title in archive.calling_ae_titles:
            calling[title] = (*calling.get(title, ()), archive)
    return calling


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise RegistryError(f"{name!r} is not a name: 1 to 64 letters, digits, dots, dashes and underscores")


def _check_sha256(text: str) -> None:
    if not _SHA256.match(text):
        raise RegistryError(f"{text!r} is not a SHA-256 fingerprint: 64 lower-case hex digits, no colons")


def _check_site(site: str, name: str) -> None:
    if len(site) > _SITE_CHARACTERS or not site.isprintable():
        raise RegistryError(f"{name}: a site has at most {_SITE_CHARACTERS} printable characters")


def _check_ae_titles(titles: tuple[str, ...], name: str) -> None:
    for title in titles:
        if _PLAIN_AE_TITLE.match(title):
            continue
        try:
            parsed = parse_ae_title(title)
        except AeTitleError as error:
            raise RegistryError(f"{name}: AE title {title!r}: {error}") from error
        if parsed != title:
            raise RegistryError(f"{name}: AE title {title!r} has spaces around it; write it without")
    if len(titles) > 1 and len(set(titles)) != len(titles):
        raise RegistryError(f"{name}: an AE title is listed twice")


def _check_networks(networks: tuple[str, ...], name: str) -> None:
    for network in networks:
        try:
            parse_network(network)
        except NetworkError as error:
            raise RegistryError(f"{name}: {error}") from error
