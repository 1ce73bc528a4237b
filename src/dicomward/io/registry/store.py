"""The registry database: SQLite by default, PostgreSQL by URL; and the snapshot file that the gateway reads.

Every change is one transaction: it reads the registry, builds the next `RegistrySnapshot` (which refuses whatever
would be ambiguous), writes what differs, raises the revision and notes who did it. Changes exclude each other.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sqlalchemy import Connection, Engine, create_engine, event, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, NoSuchTableError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from dicomward.identity.registry import (
    Archive,
    CertificateRecord,
    Device,
    DeviceStatus,
    Endpoint,
    RegistryError,
    RegistrySnapshot,
)
from dicomward.identity.registry_json import decode_device, encode_device, encode_snapshot
from dicomward.io.private_file import LOCK_WAIT_SECONDS, FileBusyError, file_lock, replace_file
from dicomward.io.registry.rows import name_of, read_registry, write_difference
from dicomward.io.registry.tables import CHANGES, REGISTRY
from dicomward.io.system import calls

# The newest migration; asked for here, so that Alembic is imported only when there is something to migrate.
HEAD: Final = "0006"
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_BUSY_SECONDS: Final = 15
# Any number that no other program on the same PostgreSQL database would take.
_MIGRATION_LOCK: Final = 0x44_49_43_4F_4D_57
_WRITES: Final = "dicomward_writes"

Principals = tuple[tuple[Device, ...], tuple[Archive, ...]]


class RegistryStoreError(Exception):
    """The database or the snapshot file can't be used; the message says why and what to do."""


class UnknownNameError(RegistryError):
    """No device or archive has that name; `known` holds those that exist."""

    def __init__(self, kind: str, name: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no {kind} {name!r}")
        self.name, self.known = name, tuple(known)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryChange:
    """One change: who did what to which device or archive. `audited` when the audit log has it.

    `before` is the device as it was (JSON of `encode_device`); `back_to` the revision that a rollback went back to.
    """

    revision: int
    at: datetime
    operator: str
    action: str
    device: str | None = None
    archive: str | None = None
    detail: str = ""
    audited: bool = False
    before: str | None = None
    back_to: int | None = None


class RegistryStore:
    """The registry of one installation. A context manager: it closes its connections."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str, *, create: bool = False, migrate: bool = True, keeps_connections: bool = False) -> Self:
        """Open the database and bring its tables up to date. Raises RegistryStoreError.

        With `create` a missing SQLite file is made; without, a missing one is a mistake in the settings.
        `keeps_connections` is for a server, which uses them again and again.
        """
        try:
            parsed = make_url(url)
            # A command opens one connection or two and ends; a pool would only keep them open.
            pool: type[Pool] = QueuePool if keeps_connections else NullPool
            engine = create_engine(parsed, poolclass=pool, hide_parameters=True, **_driver_options(url))
            if parsed.get_backend_name() == "sqlite":
                _set_up_sqlite(engine)
                _prepare_file(parsed.database or "", create=create)
        except (ArgumentError, NoSuchModuleError, ImportError, OSError) as error:
            raise RegistryStoreError(f"the database URL can't be used ({error}); correct [registry] url") from error
        store = cls(engine)
        with _explained():
            store._migrate() if migrate else store._check_revision()
        return store

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- reading ---

    def read(self) -> RegistrySnapshot:
        """Return the whole registry, principals by name. Raises RegistryStoreError, RegistryError."""
        with _explained(), self._engine.begin() as connection:
            return read_registry(connection)

    def unaudited_changes(self) -> tuple[RegistryChange, ...]:
        """Return the changes that the audit log doesn't have yet, oldest first."""
        return self._changes(CHANGES.c.audited.is_(False))

    def is_audited(self, revision: int) -> bool:
        """Say if the change of that revision, and all before it, are in the audit log, and so in force."""
        return not self._changes(CHANGES.c.audited.is_(False) & (CHANGES.c.revision <= revision))

    def changes_of(self, name: str) -> tuple[RegistryChange, ...]:
        """Return the history of a device or archive, oldest first."""
        return self._changes((CHANGES.c.device == name) | (CHANGES.c.archive == name))

    def _changes(self, condition: Any) -> tuple[RegistryChange, ...]:
        with _explained(), self._engine.begin() as connection:
            rows = connection.execute(select(CHANGES).where(condition).order_by(CHANGES.c.revision)).mappings()
            return tuple(RegistryChange(**row) for row in rows)

    # --- changing ---

    def add_device(self, device: Device, *, by: str, at: datetime) -> RegistrySnapshot:
        """Register a device. Raises RegistryError if its name, a title or a certificate is taken."""
        detail = f"AE titles {', '.join(device.ae_titles)}; role {device.role}; networks {', '.join(device.networks)}"
        change = RegistryChange(revision=0, at=at, operator=by, action="add-device", device=device.name, detail=detail)

        def edit(snapshot: RegistrySnapshot) -> Principals:
            for title in device.ae_titles:
                for archive in snapshot.archives:
                    if title in (archive.ae_title, *archive.called_ae_titles, *archive.calling_ae_titles):
                        raise RegistryError(
                            f"{device.name}: AE title {title!r} belongs to the archive {archive.name!r}; choose another"
                        )
            return (*snapshot.devices, device), snapshot.archives

        return self._change(change, edit)

    def set_device_status(self, name: str, status: DeviceStatus, *, by: str, at: datetime) -> RegistrySnapshot:
        """Suspend, resume or revoke a device. Revoking is for good, and revokes its certificates. Raises RegistryError.

        To set the status that it has already is a change too: so a command can be repeated until it is in force.
        """
        action = {
            DeviceStatus.ACTIVE: "resume-device",
            DeviceStatus.SUSPENDED: "suspend-device",
            DeviceStatus.REVOKED: "revoke-device",
        }[status]
        change = RegistryChange(revision=0, at=at, operator=by, action=action, device=name)

        def edit(device: Device) -> Device:
            if device.status is DeviceStatus.REVOKED and status is not DeviceStatus.REVOKED:
                raise RegistryError(
                    f"{name}: it is revoked, and that is for good; register the device anew under another name"
                )
            if status is DeviceStatus.REVOKED:
                return replace(device, status=status, certificates=_revoked(device.certificates))
            return replace(device, status=status)

        return self._change_device(change, name, edit)

    def add_certificate(
        self,
        name: str,
        record: CertificateRecord,
        *,
        revoke_others: bool,
        keep_plaintext: bool = False,
        by: str,
        at: datetime,
    ) -> RegistrySnapshot:
        """Bind one more certificate to a device; `revoke_others` ends those that it has. Raises RegistryError.

        `keep_plaintext`: a device of a legacy zone stays accepted there when it has been seen with TLS.
        """
        detail = f"certificate {record.sha256}{', the others revoked' if revoke_others else ''}"
        change = RegistryChange(revision=0, at=at, operator=by, action="renew-device", device=name, detail=detail)

        def edit(device: Device) -> Device:
            _changeable(device)
            kept = _revoked(device.certificates) if revoke_others else device.certificates
            always = device.legacy_always or (keep_plaintext and bool(device.legacy_zone))
            return replace(device, certificates=(*kept, record), legacy_always=always)

        return self._change_device(change, name, edit)

    def confirm_device(self, name: str, *, by: str, at: datetime) -> RegistrySnapshot:
        """Let the unconfirmed certificates of a device do what the policy allows. Raises RegistryError."""
        change = RegistryChange(revision=0, at=at, operator=by, action="confirm-device", device=name)

        def edit(device: Device) -> Device:
            _changeable(device)
            if all(each.status != "unconfirmed" for each in device.certificates):
                raise RegistryError(f"{name}: nothing waits to be confirmed")
            return replace(
                device,
                certificates=tuple(
                    replace(each, status="active") if each.status == "unconfirmed" else each
                    for each in device.certificates
                ),
            )

        return self._change_device(change, name, edit)

    def set_legacy_zone(self, name: str, zone: str, *, always: bool, by: str, at: datetime) -> RegistrySnapshot:
        """Let a device call in plaintext in a zone, or ("") no more; `always`: also after it was seen with TLS."""
        detail = f"zone {zone}{', also beside TLS' if always else ''}" if zone else "no plaintext any more"
        change = RegistryChange(revision=0, at=at, operator=by, action="legacy-device", device=name, detail=detail)
        return self._change_device(
            change, name, lambda device: replace(_changeable(device), legacy_zone=zone, legacy_always=always)
        )

    def set_address(
        self, name: str, address: Endpoint | None, *, plain: bool, reverse: bool, by: str, at: datetime
    ) -> RegistrySnapshot:
        """Say where a device is called: at an address, over reverse connections, or nowhere. Raises RegistryError."""
        where = (
            f"{address.host} port {address.port}{' without TLS' if plain else ''}" if address is not None else "nowhere"
        )
        detail = "over its reverse connections" if reverse else where
        change = RegistryChange(revision=0, at=at, operator=by, action="address-device", device=name, detail=detail)
        return self._change_device(
            change, name, lambda device: replace(_changeable(device), address=address, plain=plain, reverse=reverse)
        )

    def observe_device(self, name: str, until: datetime, *, by: str, at: datetime) -> RegistrySnapshot:
        """Only record what would be refused to a device, until then (aware). Raises RegistryError."""
        detail = f"until {until.isoformat(timespec='seconds')}"
        change = RegistryChange(revision=0, at=at, operator=by, action="observe-device", device=name, detail=detail)
        return self._change_device(change, name, lambda device: replace(_changeable(device), observe_until=until))

    def enforce_device(self, name: str, *, by: str, at: datetime) -> RegistrySnapshot:
        """End the observing of a device. Raises RegistryError."""
        change = RegistryChange(revision=0, at=at, operator=by, action="enforce-device", device=name)
        return self._change_device(change, name, lambda device: replace(device, observe_until=None))

    def rollback_device(self, name: str, *, changes: int, by: str, at: datetime) -> RegistrySnapshot:
        """Bring a device back as it was before its last so many changes, those rolled back not counted.

        Raises RegistryError where there is no such state, or the device is revoked.
        """
        kept = _not_rolled_back(self.changes_of(name))
        undone = kept[-changes:] if 0 < changes <= len(kept) else []
        stored = undone[0].before if undone else None
        back_to = kept[-changes - 1].revision if len(kept) > changes else None
        detail = f"as it was at revision {back_to}; undone: {', '.join(each.action for each in undone)}"
        change = RegistryChange(
            revision=0, at=at, operator=by, action="rollback-device", device=name, detail=detail, back_to=back_to
        )

        def edit(device: Device) -> Device:
            _changeable(device)
            if stored is None or back_to is None:
                raise RegistryError(f"{name}: nothing is known of it before that; {_steps(kept)} can be undone")
            return decode_device(stored)

        return self._change_device(change, name, edit)

    def add_archive(self, archive: Archive, *, by: str, at: datetime) -> RegistrySnapshot:
        """Register an archive. Raises RegistryError if its name or a title is taken."""
        detail = f"AE title {archive.ae_title} at {archive.endpoint.host} port {archive.endpoint.port}"
        change = RegistryChange(
            revision=0, at=at, operator=by, action="add-archive", archive=archive.name, detail=detail
        )

        def edit(snapshot: RegistrySnapshot) -> Principals:
            for title in (archive.ae_title, *archive.called_ae_titles, *archive.calling_ae_titles):
                device = snapshot.device_by_ae_title(title)
                if device is not None:
                    raise RegistryError(
                        f"{archive.name}: AE title {title!r} belongs to the device {device.name!r}; choose another"
                    )
            return snapshot.devices, (*snapshot.archives, archive)

        return self._change(change, edit)

    def remove_archive(self, name: str, *, by: str, at: datetime) -> RegistrySnapshot:
        """Remove an archive. Raises UnknownNameError."""
        change = RegistryChange(revision=0, at=at, operator=by, action="remove-archive", archive=name)

        def edit(snapshot: RegistrySnapshot) -> Principals:
            if snapshot.archive_by_name(name) is None:
                raise UnknownNameError("archive", name, [archive.name for archive in snapshot.archives])
            return snapshot.devices, tuple(archive for archive in snapshot.archives if archive.name != name)

        return self._change(change, edit)

    def mark_audited(self, *revisions: int) -> None:
        """Note that the audit log has these changes."""
        with _explained(), self._writing() as connection:
            connection.execute(CHANGES.update().where(CHANGES.c.revision.in_(revisions)).values(audited=True))

    def _change_device(self, change: RegistryChange, name: str, edit: Callable[[Device], Device]) -> RegistrySnapshot:
        def edit_all(snapshot: RegistrySnapshot) -> Principals:
            if snapshot.device_by_name(name) is None:
                raise UnknownNameError("device", name, [device.name for device in snapshot.devices])
            return tuple(edit(each) if each.name == name else each for each in snapshot.devices), snapshot.archives

        return self._change(change, edit_all)

    def _change(self, change: RegistryChange, edit: Callable[[RegistrySnapshot], Principals]) -> RegistrySnapshot:
        with _explained(), self._writing() as connection:
            # PostgreSQL: whoever has this row locked is the one who changes; SQLite locks the whole file.
            connection.execute(select(REGISTRY.c.revision).with_for_update())
            before = read_registry(connection)
            devices, archives = edit(before)
            after = RegistrySnapshot(
                devices=tuple(sorted(devices, key=name_of)),
                archives=tuple(sorted(archives, key=name_of)),
                revision=before.revision + 1,
            )
            write_difference(connection, before, after)
            connection.execute(REGISTRY.update().values(revision=after.revision))
            row = {field: getattr(change, field) for field in change.__slots__}
            device = before.device_by_name(change.device) if change.device else None
            row |= {"revision": after.revision, "before": encode_device(device) if device else None}
            connection.execute(CHANGES.insert().values(row))
        return after

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction for reading other tables of the database. Raises RegistryStoreError."""
        with _explained(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction in which nobody else changes the registry. Raises RegistryStoreError."""
        with _explained(), self._writing() as connection:
            connection.execute(select(REGISTRY.c.revision).with_for_update())
            yield connection

    # --- migrations ---

    def _migrate(self) -> None:
        with self._engine.begin() as connection:
            if _revision_of(connection) == HEAD:
                return
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION_LOCK})
            # Somebody else may have done it while we waited.
            if _revision_of(connection) != HEAD:
                _upgrade(connection)

    def _check_revision(self) -> None:
        with self._engine.begin() as connection:
            revision = _revision_of(connection)
        if revision != HEAD:
            raise RegistryStoreError(
                f"the registry's tables are of version {revision or 'none'}, and {HEAD} is needed; "
                "the next command that changes the registry brings them up to date"
            )


def _changeable(device: Device) -> Device:
    """Return the device, if it isn't revoked, which is for good. Raises RegistryError."""
    if device.status is DeviceStatus.REVOKED:
        raise RegistryError(f"{device.name}: it is revoked; register the device anew under another name")
    return device


def _revoked(records: tuple[CertificateRecord, ...]) -> tuple[CertificateRecord, ...]:
    return tuple(replace(record, status="revoked") for record in records)


def _not_rolled_back(history: Sequence[RegistryChange]) -> list[RegistryChange]:
    """Return the changes that the device of today is made of, oldest first."""
    kept: list[RegistryChange] = []
    for change in history:
        if change.back_to is None:
            kept.append(change)
        else:
            kept = [each for each in kept if each.revision <= change.back_to]
    return kept


def _steps(kept: Sequence[RegistryChange]) -> str:
    count = sum(change.before is not None for change in kept)
    return f"{count or 'no'} change{'' if count == 1 else 's'}"


def _driver_options(url: str) -> dict[str, Any]:
    return {"connect_args": {"timeout": _BUSY_SECONDS}} if url.startswith("sqlite") else {}


def _set_up_sqlite(engine: Engine) -> None:
    """Make SQLite keep its promises: foreign keys, and transactions that begin when we say so."""

    def connected(connection: Any, _record: object) -> None:
        # Otherwise the sqlite3 module begins transactions by itself, and only before some statements.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    def begun(connection: Connection) -> None:
        # A writer takes the lock at once: to upgrade a read lock later could only fail.
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)


def _prepare_file(path: str, *, create: bool) -> None:
    """Make the file of SQLite, or refuse that it is missing. Raises RegistryStoreError, OSError."""
    if create:
        # SQLite would make it with the umask's rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | calls.FILE_FLAGS, 0o600))
    elif not Path(path).is_file():
        raise RegistryStoreError(f"there is no registry at {path}; correct [registry] url, or make one: dicomward init")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what a driver raises into words for an administrator."""
    try:
        yield
    except (DBAPIError, NoSuchTableError) as error:
        reason = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
        raise RegistryStoreError(
            f"the registry database failed: {reason}; check that it runs, its rights and its disk, then repeat"
        ) from error


def _revision_of(connection: Connection) -> str | None:
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _upgrade(connection: Connection) -> None:
    """Run the migrations inside the transaction of the connection. Raises RegistryStoreError."""
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    # ConfigParser reads % in values.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise RegistryStoreError(
            f"the registry's tables can't be brought to version {HEAD} ({error}); "
            "a newer Dicomward has used this database: install that version, or restore a backup"
        ) from error


# --- the snapshot file -----------------------------------------------------------------------------------------------


@contextmanager
def snapshot_lock(path: Path, *, wait_seconds: float = LOCK_WAIT_SECONDS) -> Iterator[None]:
    """Hold the lock of the snapshot file: one command at a time changes, compiles and tells the gateway.

    Raises RegistryStoreError if another one holds it for longer than `wait_seconds`.
    """
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(path, wait_seconds=wait_seconds))
        except FileBusyError as error:
            raise RegistryStoreError(str(error)) from error
        yield


def write_snapshot(path: Path, snapshot: RegistrySnapshot) -> None:
    """Replace the snapshot file: a reader sees the old one or the new one, whole, also after a power cut."""
    replace_file(path, encode_snapshot(snapshot))
