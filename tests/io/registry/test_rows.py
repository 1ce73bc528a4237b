"""Rows of the registry: only what differs is written, and everything is read back."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event

from dicomward.identity.registry import RegistryError, RegistrySnapshot
from dicomward.io.registry.rows import name_of, read_registry, write_difference
from dicomward.io.registry.store import RegistryStore
from tests.identity.examples import NOT_AFTER, archive, device, snapshot


def test_difference_is_written_and_read_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    RegistryStore.open(url, create=True).close()
    moving = replace(device("CT1"), legacy_zone="old", legacy_always=True, observe_until=NOT_AFTER)
    first = snapshot(moving, device("MR1", ae_titles=("MR1",)), archive())
    second = snapshot(replace(moving, legacy_zone="", legacy_always=False, observe_until=None), archive())
    empty = RegistrySnapshot(devices=(), archives=(), revision=0)
    engine = create_engine(url)
    event.listen(engine, "connect", lambda raw, _record: raw.execute("PRAGMA foreign_keys = ON"))
    with engine.begin() as connection:
        for before, after in ((empty, first), (first, second), (second, second), (second, empty)):
            write_difference(connection, before, after)
            found = read_registry(connection)
            assert (found.devices, found.archives) == (after.devices, after.archives)
    engine.dispose()
    assert name_of(moving) == "CT1"


def test_status_that_is_none_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    RegistryStore.open(url, create=True).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        write_difference(connection, RegistrySnapshot(devices=(), archives=(), revision=0), snapshot(device()))
        connection.exec_driver_sql("UPDATE devices SET status = 'Active'")
        with pytest.raises(RegistryError, match="status 'Active' in the database is not known"):
            read_registry(connection)
    engine.dispose()
