"""The rows of the registry database: read into a snapshot, and written where two snapshots differ."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import BindParameter, Connection, RowMapping, Select, Table, bindparam, select

from dicomward.identity.registry import (
    Archive,
    CertificateRecord,
    Device,
    DeviceStatus,
    Endpoint,
    RegistryError,
    RegistrySnapshot,
)
from dicomward.io.registry.tables import (
    ARCHIVE_CALLED_AE_TITLES,
    ARCHIVE_CALLING_AE_TITLES,
    ARCHIVE_NETWORKS,
    ARCHIVES,
    CERTIFICATES,
    DEVICE_AE_TITLES,
    DEVICE_NETWORKS,
    DEVICES,
    REGISTRY,
)

# What is done for each enrolment is built once: to build a statement takes longer than to run it.
_NAME: BindParameter[str] = bindparam("wanted")
_ONE_DEVICE = select(DEVICES).where(DEVICES.c.name == _NAME)
_ONES_CERTIFICATES = (
    select(CERTIFICATES)
    .where(CERTIFICATES.c.device == _NAME)
    .order_by(CERTIFICATES.c.not_before, CERTIFICATES.c.sha256)
)
_DELETE_DEVICE = DEVICES.delete().where(DEVICES.c.name == _NAME)
_INSERT_DEVICE, _INSERT_CERTIFICATE = DEVICES.insert(), CERTIFICATES.insert()


def _list_query(table: Table) -> Select[Any]:
    return select(table.c.value).where(table.c.owner == _NAME).order_by(table.c.position)


_INSERT_LIST = {
    table: table.insert()
    for table in (
        DEVICE_AE_TITLES,
        DEVICE_NETWORKS,
        ARCHIVE_CALLED_AE_TITLES,
        ARCHIVE_CALLING_AE_TITLES,
        ARCHIVE_NETWORKS,
    )
}
_LISTS_OF_A_DEVICE = (_list_query(DEVICE_AE_TITLES), _list_query(DEVICE_NETWORKS))


def name_of(principal: Device | Archive) -> str:
    """Return what principals are sorted by."""
    return principal.name


def _lists(connection: Connection, table: Table) -> dict[str, tuple[str, ...]]:
    lists: dict[str, list[str]] = {}
    for owner, value in connection.execute(
        select(table.c.owner, table.c.value).order_by(table.c.owner, table.c.position)
    ):
        lists.setdefault(owner, []).append(value)
    return {owner: tuple(values) for owner, values in lists.items()}


def read_registry(connection: Connection) -> RegistrySnapshot:
    """Return the whole registry. Raises RegistryError."""
    titles, networks = _lists(connection, DEVICE_AE_TITLES), _lists(connection, DEVICE_NETWORKS)
    certificates: dict[str, list[CertificateRecord]] = {}
    columns = CERTIFICATES.c
    for row in connection.execute(select(CERTIFICATES).order_by(columns.not_before, columns.sha256)).mappings():
        values = dict(row)
        certificates.setdefault(values.pop("device"), []).append(CertificateRecord(**values))
    devices = tuple(
        _device(row, titles.get(row["name"], ()), networks.get(row["name"], ()), certificates.get(row["name"], ()))
        for row in connection.execute(select(DEVICES)).mappings()
    )
    called, calling = _lists(connection, ARCHIVE_CALLED_AE_TITLES), _lists(connection, ARCHIVE_CALLING_AE_TITLES)
    networks = _lists(connection, ARCHIVE_NETWORKS)
    archives = tuple(
        Archive(
            name=row["name"],
            ae_title=row["ae_title"],
            called_ae_titles=called.get(row["name"], ()),
            calling_ae_titles=calling.get(row["name"], ()),
            endpoint=Endpoint(host=row["host"], port=row["port"]),
            networks=networks.get(row["name"], ()),
            tls=row["tls"],
            dedicated_link=row["dedicated_link"],
            certificate_sha256=row["certificate_sha256"],
            site=row["site"],
            sends_move_originator=row["sends_move_originator"],
            replica_of=row["replica_of"],
        )
        for row in connection.execute(select(ARCHIVES)).mappings()
    )
    return RegistrySnapshot(
        # Sorted here: databases sort texts by their own rules.
        devices=tuple(sorted(devices, key=name_of)),
        archives=tuple(sorted(archives, key=name_of)),
        revision=connection.execute(select(REGISTRY.c.revision)).scalar_one(),
    )


def read_device(connection: Connection, name: str) -> Device | None:
    """Return one device, whatever its status. Raises RegistryError."""
    wanted = {"wanted": name}
    row = connection.execute(_ONE_DEVICE, wanted).mappings().one_or_none()
    if row is None:
        return None
    certificates: list[CertificateRecord] = []
    for each in connection.execute(_ONES_CERTIFICATES, wanted).mappings():
        values = dict(each)
        values.pop("device")
        certificates.append(CertificateRecord(**values))
    titles, networks = (tuple[str, ...](connection.execute(query, wanted).scalars()) for query in _LISTS_OF_A_DEVICE)
    return _device(row, titles, networks, certificates)


def write_device(connection: Connection, device: Device, *, is_new: bool = False) -> None:
    """Replace one device, or add it; `is_new`: it isn't there."""
    if not is_new:
        connection.execute(_DELETE_DEVICE, {"wanted": device.name})
    _insert_device(connection, device)


def _device(
    row: RowMapping, titles: tuple[str, ...], networks: tuple[str, ...], certificates: Iterable[CertificateRecord]
) -> Device:
    return Device(
        name=row["name"],
        ae_titles=titles,
        role=row["role"],
        site=row["site"],
        networks=networks,
        address=None if row["host"] is None else Endpoint(host=row["host"], port=row["port"]),
        plain=row["plain"],
        reverse=row["reverse"],
        status=_status(row["status"], row["name"]),
        certificates=tuple(certificates),
        legacy_zone=row["legacy_zone"],
        legacy_always=row["legacy_always"],
        observe_until=row["observe_until"],
    )


def _status(value: str, name: str) -> DeviceStatus:
    try:
        return DeviceStatus(value)
    except ValueError as error:
        raise RegistryError(f"{name}: status {value!r} in the database is not known; restore a backup") from error


def write_difference(connection: Connection, before: RegistrySnapshot, after: RegistrySnapshot) -> None:
    """Write the principals that are new or changed, and delete those that are gone."""
    for device in before.devices:
        if after.device_by_name(device.name) != device:
            connection.execute(DEVICES.delete().where(DEVICES.c.name == device.name))
    for archive in before.archives:
        if after.archive_by_name(archive.name) != archive:
            connection.execute(ARCHIVES.delete().where(ARCHIVES.c.name == archive.name))
    for device in after.devices:
        if before.device_by_name(device.name) != device:
            _insert_device(connection, device)
    for archive in after.archives:
        if before.archive_by_name(archive.name) != archive:
            _insert_archive(connection, archive)


def _insert_device(connection: Connection, device: Device) -> None:
    address = device.address
    connection.execute(
        _INSERT_DEVICE,
        {
            "name": device.name,
            "role": device.role,
            "site": device.site,
            "status": device.status.value,
            "host": address.host if address else None,
            "port": address.port if address else None,
            "plain": device.plain,
            "reverse": device.reverse,
            "legacy_zone": device.legacy_zone,
            "legacy_always": device.legacy_always,
            "observe_until": device.observe_until,
        },
    )
    _insert_list(connection, DEVICE_AE_TITLES, device.name, device.ae_titles)
    _insert_list(connection, DEVICE_NETWORKS, device.name, device.networks)
    certificates = [
        {
            "sha256": record.sha256,
            "device": device.name,
            "not_before": record.not_before,
            "not_after": record.not_after,
            "status": record.status,
            "serial": record.serial,
        }
        for record in device.certificates
    ]
    if certificates:
        connection.execute(_INSERT_CERTIFICATE, certificates)


def _insert_archive(connection: Connection, archive: Archive) -> None:
    connection.execute(
        ARCHIVES.insert().values(
            name=archive.name,
            ae_title=archive.ae_title,
            host=archive.endpoint.host,
            port=archive.endpoint.port,
            tls=archive.tls,
            dedicated_link=archive.dedicated_link,
            certificate_sha256=archive.certificate_sha256,
            site=archive.site,
            sends_move_originator=archive.sends_move_originator,
            replica_of=archive.replica_of,
        )
    )
    _insert_list(connection, ARCHIVE_CALLED_AE_TITLES, archive.name, archive.called_ae_titles)
    _insert_list(connection, ARCHIVE_CALLING_AE_TITLES, archive.name, archive.calling_ae_titles)
    _insert_list(connection, ARCHIVE_NETWORKS, archive.name, archive.networks)


def _insert_list(connection: Connection, table: Table, owner: str, values: tuple[str, ...]) -> None:
    rows = [{"owner": owner, "position": position, "value": value} for position, value in enumerate(values)]
    if rows:
        connection.execute(_INSERT_LIST[table], rows)
