"""The devices of a dcm4chee directory (PS3.15 H), to a registry draft and back: LDIF.

Whatever a draft can't say becomes a note: nothing is dropped in silence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from dicomward.identity.draft import Draft, DraftArchive, DraftDevice, name_from
from dicomward.identity.ldif import Entry, escape_dn_value, normalise_dn, parse_ldif, render_entry
from dicomward.identity.registry import Device, Endpoint, RegistryError
from dicomward.vocab.ae_title import AeTitleError, parse_ae_title
from dicomward.vocab.services import Service, service_of

DEFAULT_BASE: Final = "cn=DICOM Configuration,dc=dcm4che,dc=org"
_ARCHIVE_CLASS: Final = "dcmArchiveDevice"
_ARCHIVE_SERVICES: Final = (Service.QUERY, Service.MOVE, Service.GET)
_MODALITY_TYPES: Final = frozenset(
    {"AR", "BI", "BMD", "CR", "CT", "DG", "DX", "ECG", "ES", "GM", "IO", "LS", "MG", "MR", "NM", "OP", "OT", "PT", "PX",
     "RF", "RG", "SC", "SM", "TG", "US", "XA", "XC"}
)  # fmt: skip
_TYPE_ROLES: Final = {"WSD": "workstation", "ARCHIVE": "archive", "PACS": "archive"}
_LOOPBACK_NETWORK: Final = "127.0.0.0/8"
# What the draft takes of a device and of an AE; everything else is shown to its reader or noted.
_RIGHTS: Final = (
    "dcmAcceptedCallingAETitle", "dcmAcceptedMoveDestination", "dcmUserIdentityNegotiation", "dcmAcceptedUserRole",
    "dcmAccessControlID", "dcmStoreAccessControlID",
)  # fmt: skip


class Dcm4cheeError(ValueError):
    """It is no LDIF with DICOM devices; the message says why."""


# --- reading ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Found:
    """One dicomDevice with what belongs to it."""

    name: str
    entry: Entry
    connections: dict[tuple[str, ...], Entry] = field(default_factory=dict)
    titles: list[Entry] = field(default_factory=list)
    capabilities: dict[tuple[str, ...], list[tuple[Service, str]]] = field(default_factory=dict)


def read_dcm4chee(files: Sequence[tuple[str, str]]) -> Draft:
    """Return the draft of one or several LDIF files: names and texts. Raises Dcm4cheeError, LdifError."""
    notes: list[str] = []
    entries: list[Entry] = []
    for name, text in files:
        ldif = parse_ldif(text, name)
        entries += ldif.entries
        notes += ldif.notes
    devices = _collect(entries, notes)
    if not devices:
        raise Dcm4cheeError(
            "no dicomDevice is in it: export cn=Devices with everything below, for example with ldapsearch"
        )
    drafted: list[DraftDevice] = []
    archives: list[DraftArchive] = []
    taken: set[str] = set()
    for found in devices:
        is_archive, why = _is_archive(found)
        if found.entry.text("dicomInstalled").upper() == "FALSE":
            notes.append(f"device {found.name!r} is left out: it is not installed (dicomInstalled is FALSE)")
        elif is_archive:
            archives += _archives_of(found, why, taken, notes)
        elif (device := _device_of(found, taken, notes)) is not None:
            drafted.append(device)
    return Draft(
        source=f"dcm4chee: {', '.join(name for name, _text in files)}",
        archives=tuple(archives),
        devices=tuple(drafted),
        notes=tuple(notes),
    )


def _collect(entries: Iterable[Entry], notes: list[str]) -> list[_Found]:
    devices: dict[tuple[str, ...], _Found] = {}
    rest: list[Entry] = []
    for entry in entries:
        if entry.is_a("dicomDevice"):
            name = entry.text("dicomDeviceName")
            devices[entry.dn] = _Found(name or entry.dn[0].partition("=")[2], entry)
        else:
            rest.append(entry)
    others: dict[str, int] = {}
    for entry in rest:
        owner = next((devices[entry.dn[n:]] for n in range(1, len(entry.dn)) if entry.dn[n:] in devices), None)
        if owner is not None and entry.is_a("dicomNetworkConnection"):
            owner.connections[entry.dn] = entry
        elif owner is not None and entry.is_a("dicomNetworkAE"):
            owner.titles.append(entry)
        elif owner is not None and entry.is_a("dicomTransferCapability"):
            sop_class = entry.text("dicomSOPClass")
            capability = (service_of(sop_class), entry.text("dicomTransferRole").upper())
            owner.capabilities.setdefault(entry.dn[1:], []).append(capability)
        elif entry.is_a("dicomNetworkConnection") or entry.is_a("dicomNetworkAE"):
            notes.append(f"line {entry.line}: {entry.dn[0]} belongs to no device in these files, and is left out")
        else:
            kind = next(iter(entry.texts("objectClass")), "entry without a class")
            others[kind] = others.get(kind, 0) + 1
    notes += [f"{count} entries of class {kind} are not about network titles, and not in this draft"
              for kind, count in sorted(others.items())]  # fmt: skip
    return list(devices.values())


def _is_archive(found: _Found) -> tuple[bool, str]:
    if found.entry.is_a(_ARCHIVE_CLASS):
        return True, f"device {found.name}: it has the class {_ARCHIVE_CLASS}"
    for capabilities in found.capabilities.values():
        if any(service in _ARCHIVE_SERVICES and role == "SCP" for service, role in capabilities):
            return True, f"device {found.name}: it answers queries or retrievals"
    return False, ""


@dataclass(frozen=True, slots=True)
class _Connection:
    """Where an AE listens, or only calls from."""

    host: str
    port: int | None
    is_tls: bool


def _connections_of(found: _Found, entry: Entry, notes: list[str]) -> list[_Connection]:
    references = [normalise_dn(each) for each in entry.texts("dicomNetworkConnectionReference")]
    connections = []
    for dn in references:
        connection = found.connections.get(dn)
        title = entry.text("dicomAETitle")
        if connection is None:
            notes.append(f"AE {title} of device {found.name!r} refers to {','.join(dn)}, which is not in these files")
            continue
        if connection.text("dicomInstalled").upper() == "FALSE":
            continue
        protocol = connection.text("dcmProtocol").upper()
        if protocol not in ("", "DICOM"):
            notes.append(f"connection {connection.text('cn')!r} of device {found.name!r} is {protocol}, not DICOM")
            continue
        port = connection.text("dicomPort")
        connections.append(
            _Connection(
                host=connection.text("dicomHostname"),
                port=int(port) if port.isascii() and port.isdigit() and 0 < int(port) <= 0xFFFF else None,
                is_tls=bool(connection.texts("dicomTLSCipherSuite")),
            )
        )
    return connections


def _titles_of(found: _Found, notes: list[str]) -> list[tuple[str, Entry]]:
    titles = []
    for entry in found.titles:
        if entry.text("dicomInstalled").upper() == "FALSE":
            notes.append(f"AE {entry.text('dicomAETitle')} of device {found.name!r} is not installed, and left out")
            continue
        try:
            titles.append((parse_ae_title(entry.text("dicomAETitle")), entry))
        except AeTitleError as error:
            notes.append(f"an AE of device {found.name!r} is left out: {error}")
    return titles


def _endpoint(connection: _Connection | None) -> Endpoint | None:
    if connection is None or connection.port is None:
        return None
    try:
        return Endpoint(host=connection.host, port=connection.port)
    except RegistryError:
        return None


def _networks_of(hosts: Iterable[str]) -> tuple[str, ...]:
    networks: dict[str, None] = {}
    for host in hosts:
        try:
            address = ip_address(host)
        except ValueError:
            if host.lower() == "localhost":
                networks[_LOOPBACK_NETWORK] = None
            continue
        loopback = address.is_loopback and address.version == 4
        networks[_LOOPBACK_NETWORK if loopback else f"{address}/{address.max_prefixlen}"] = None
    return tuple(networks)


def _archives_of(found: _Found, why: str, taken: set[str], notes: list[str]) -> Iterable[DraftArchive]:
    """Return an archive for each AE: they may be configured apart, so devices must reach each under its own title."""
    pins = [value for key in ("usercertificate",) for value in found.entry.attributes.get(key, ()) if value]
    for title, entry in _titles_of(found, notes):
        connections = _connections_of(found, entry, notes)
        listening = [each for each in connections if _endpoint(each) is not None]
        chosen = next((each for each in listening if not each.is_tls), next(iter(listening), None))
        address = _endpoint(chosen)
        if address is None or chosen is None:
            notes.append(f"AE {title} of device {found.name!r} is left out: no connection of it has a host and a port")
            continue
        lines = [why]
        if chosen.is_tls and not pins:
            lines.append("it speaks TLS only: fill in certificate_sha256")
            notes.append(f"archive {title} speaks TLS: pin its certificate (certificate_sha256) before you load this")
        networks = _networks_of([chosen.host])
        if not networks:
            lines.append(f"{chosen.host} is a name: fill in the networks that it calls from")
        name = name_from(title, taken)
        taken.add(name)
        yield DraftArchive(
            name=name,
            ae_title=title,
            address=address,
            calling_ae_titles=(title,),
            networks=networks,
            certificate_sha256=sha256(pins[0]).hexdigest() if chosen.is_tls and pins else "",
            site=_site_of(found.entry),
            why="\n".join(lines),
            seen=_seen_of([entry], found, notes),
        )


def _device_of(found: _Found, taken: set[str], notes: list[str]) -> DraftDevice | None:
    titles = _titles_of(found, notes)
    if not titles:
        notes.append(f"device {found.name!r} is left out: it has no AE title")
        return None
    connections = [each for _title, entry in titles for each in _connections_of(found, entry, notes)]
    listening = [each for each in connections if _endpoint(each) is not None]
    chosen = next((each for each in listening if each.is_tls), next(iter(listening), None))
    addresses = {f"{each.host}:{each.port}" for each in listening}
    if len(addresses) > 1:
        notes.append(
            f"device {found.name!r} listens at {', '.join(sorted(addresses))}; a draft holds one address: "
            f"{_endpoint(chosen)}"
        )
    networks = _networks_of(each.host for each in connections)
    role, why = _role_of(found)
    unknown = sorted({each.host for each in connections if not _networks_of([each.host])})
    if unknown or not networks:
        why += f"\n{', '.join(unknown) or 'no connection'}: fill in the networks that it calls from"
    if found.entry.attributes.get("usercertificate"):
        notes.append(f"device {found.name!r} has a certificate; bind it with: dicomward device add --certificate FILE")
    name = name_from(found.name, taken)
    taken.add(name)
    return DraftDevice(
        name=name,
        ae_titles=tuple(dict.fromkeys(title for title, _entry in titles)),
        role=role,
        site=_site_of(found.entry),
        networks=networks,
        address=_endpoint(chosen),
        plain=chosen is not None and not chosen.is_tls,
        why=why,
        seen=_seen_of([entry for _title, entry in titles], found, notes),
    )


def _site_of(entry: Entry) -> str:
    site = entry.text("dicomInstitutionName").partition("^")[0].strip()
    return site if site.isprintable() and len(site) <= 64 else ""


def _role_of(found: _Found) -> tuple[str, str]:
    kinds = [each.upper() for each in found.entry.texts("dicomPrimaryDeviceType")]
    for kind in kinds:
        if kind in _TYPE_ROLES:
            return _TYPE_ROLES[kind], f"role {_TYPE_ROLES[kind]}: dicomPrimaryDeviceType is {kind}"
        if kind in _MODALITY_TYPES:
            return "modality", f"role modality: dicomPrimaryDeviceType is {kind}"
    asked = {service for each in found.capabilities.values() for service, role in each if role == "SCU"}
    if asked & set(_ARCHIVE_SERVICES):
        return "workstation", "role workstation: it queries or retrieves"
    if Service.STORAGE in asked or Service.WORKLIST in asked:
        return "modality", "role modality: it stores, and neither queries nor retrieves"
    return "", "the directory does not say what it does: fill in its role"


def _seen_of(entries: Iterable[Entry], found: _Found, notes: list[str]) -> Mapping[str, tuple[str, ...]]:
    """Return what the directory says besides, for the reader; what narrows rights is noted too."""
    seen: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        title = entry.text("dicomAETitle")
        services = sorted({f"{s.value} {role}" for s, role in found.capabilities.get(entry.dn, ())})
        if services:
            seen[f"{title} services"] = tuple(services)
        for key in _RIGHTS:
            if values := entry.texts(key):
                seen[f"{title} {key}"] = values
                notes.append(f"AE {title}: {key} is set; rules say this behind the gateway (docs/policy.md)")
        if others := entry.texts("dcmOtherAETitle"):
            notes.append(f"AE {title} answers to {', '.join(others)} as well; add what is in use to called_ae_titles")
    for key in ("dicomDescription", "dicomManufacturer", "dicomManufacturerModelName", "dicomStationName"):
        if values := found.entry.texts(key):
            seen[key] = values
    return seen


# --- writing ---------------------------------------------------------------------------------------------------------


def write_dcm4chee(devices: Iterable[Device], gateway: Endpoint, *, tls: bool, base: str = DEFAULT_BASE) -> str:
    """Return LDIF that has dcm4chee reach every device at the gateway's archive side."""
    parts = [
        "# For dcm4chee: load it with ldapadd. Every device is reached at the gateway's archive side.\n"
        "# On the archive's own AEs set dcmAcceptedCallingAETitle to these titles, and let its firewall\n"
        "# take DICOM, DICOMweb and the web interface from nobody but the gateway.\n"
        "version: 1\n\n"
    ]
    for device in devices:
        dn = f"dicomDeviceName={escape_dn_value(device.name)},cn=Devices,{base}"
        connection = f"cn=dicomward,{dn}"
        parts.append(
            render_entry(
                dn,
                (
                    ("objectClass", "dicomDevice"),
                    ("dicomDeviceName", device.name),
                    ("dicomInstalled", "TRUE"),
                    *((("dicomInstitutionName", device.site),) if device.site else ()),
                ),
            )
        )
        parts.append(
            render_entry(
                connection,
                (
                    ("objectClass", "dicomNetworkConnection"),
                    ("cn", "dicomward"),
                    ("dicomHostname", gateway.host),
                    ("dicomPort", str(gateway.port)),
                    *((("dicomTLSCipherSuite", each) for each in _SUITES) if tls else ()),
                ),
            )
        )
        for title in device.ae_titles:
            escaped = escape_dn_value(title)
            parts.append(
                render_entry(
                    f"dicomAETitle={escaped},{dn}",
                    (
                        ("objectClass", "dicomNetworkAE"),
                        ("dicomAETitle", title),
                        ("dicomAssociationInitiator", "TRUE"),
                        ("dicomAssociationAcceptor", "TRUE"),
                        ("dicomNetworkConnectionReference", connection),
                    ),
                )
            )
            parts.append(
                render_entry(
                    f"dicomAETitle={escaped},cn=Unique AE Titles Registry,{base}",
                    (("objectClass", "dicomUniqueAETitle"), ("dicomAETitle", title)),
                )
            )
    return "".join(parts)


_SUITES: Final = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")
