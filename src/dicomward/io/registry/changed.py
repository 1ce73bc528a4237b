"""The registry for a process that reads it again and again: only the devices that have changed since are read anew."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from dicomward.identity.registry import Device, RegistrySnapshot
from dicomward.io.registry.rows import name_of, read_device, read_registry
from dicomward.io.registry.store import RegistryStore
from dicomward.io.registry.tables import CHANGES, REGISTRY

# More than so many at once are read with everything else: that takes fewer statements.
MOST_CHANGED = 64

# What tells a change from another one with the same revision: a database may have been restored from a backup.
_Mark = tuple[int, datetime, str, str, str | None]
_REVISION = select(REGISTRY.c.revision)
_SINCE = (
    select(CHANGES.c.revision, CHANGES.c.at, CHANGES.c.action, CHANGES.c.detail, CHANGES.c.device)
    .where(CHANGES.c.revision >= bindparam("since"))
    .order_by(CHANGES.c.revision)
    .limit(bindparam("most"))
)


class ChangedRegistry:
    """For one thread at a time."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self._known: RegistrySnapshot | None = None
        self._mark: _Mark | None = None

    def read(self) -> RegistrySnapshot:
        """Return the whole registry, as `RegistryStore.read`. Raises RegistryStoreError, RegistryError."""
        with self._store.reading() as connection:
            snapshot, mark = self._read(connection)
        self._known, self._mark = snapshot, mark
        return snapshot

    def _read(self, connection: Connection) -> tuple[RegistrySnapshot, _Mark | None]:
        known, mark = self._known, self._mark
        if known is not None and mark is not None:
            rows = connection.execute(_SINCE, {"since": known.revision, "most": MOST_CHANGED + 2}).all()
            if rows and mark == tuple(rows[0]) and len(rows) <= MOST_CHANGED + 1:
                names: set[str | None] = {row.device for row in rows[1:]}
                devices = {name for name in names if name is not None}
                revision: int = connection.execute(_REVISION).scalar_one()
                if devices == names and revision == rows[-1].revision:
                    return _with(connection, known, devices, revision), tuple(rows[-1])
        snapshot = read_registry(connection)
        last = connection.execute(_SINCE, {"since": snapshot.revision, "most": 1}).first()
        return snapshot, tuple(last) if last is not None else None


def _with(connection: Connection, known: RegistrySnapshot, names: set[str], revision: int) -> RegistrySnapshot:
    """Return what is known with these devices as they are now."""
    if not names:
        return known
    devices: dict[str, Device] = {each.name: each for each in known.devices}
    for name in names:
        device = read_device(connection, name)
        if device is None:
            devices.pop(name, None)
        else:
            devices[name] = device
    return RegistrySnapshot(
        devices=tuple(sorted(devices.values(), key=name_of)), archives=known.archives, revision=revision
    )
