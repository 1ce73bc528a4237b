"""The registry read again: always what a whole reading finds, and only what has changed is read."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection

from dicomward.identity.registry import DeviceStatus, RegistrySnapshot
from dicomward.io.registry import changed
from dicomward.io.registry.changed import MOST_CHANGED, ChangedRegistry
from dicomward.io.registry.rows import read_registry
from dicomward.io.registry.store import RegistryStore
from tests.identity.examples import archive, device

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RegistryStore]:
    with RegistryStore.open(f"sqlite:///{tmp_path / 'registry.db'}", create=True) as store:
        yield store


def add(store: RegistryStore, number: int, first: int = 0) -> RegistrySnapshot:
    one = device()
    for each in range(first, first + number):
        store.add_device(replace(one, name=f"d{each}", ae_titles=(f"D{each}",), certificates=()), by="anna", at=AT)
    return store.read()


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often everything is read."""
    whole: list[int] = []

    def read(connection: Connection) -> RegistrySnapshot:
        whole.append(1)
        return read_registry(connection)

    monkeypatch.setattr(changed, "read_registry", read)
    return whole


def test_what_has_changed_is_read_and_nothing_else(store: RegistryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = counting(monkeypatch)
    reader = ChangedRegistry(store)
    assert reader.read() == add(store, 0)
    add(store, 5)
    assert reader.read() == store.read()
    assert len(whole) == 2, "an empty database has no change yet, by which it could be known again"
    changes: list[Callable[[], RegistrySnapshot]] = [
        lambda: add(store, 3, 5),
        lambda: store.set_device_status("d1", DeviceStatus.SUSPENDED, by="anna", at=AT),
        lambda: store.set_device_status("d2", DeviceStatus.REVOKED, by="anna", at=AT),
        store.read,
        lambda: store.rollback_device("d1", changes=1, by="anna", at=AT),
    ]
    for change in changes:
        change()
        assert reader.read() == store.read()
    assert len(whole) == 2


def test_a_change_of_an_archive_and_many_changes_are_read_with_everything(
    store: RegistryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ChangedRegistry(store)
    add(store, 1)
    reader.read()
    whole = counting(monkeypatch)
    store.add_archive(archive(), by="anna", at=AT)
    assert reader.read() == store.read()
    add(store, MOST_CHANGED, 10)
    assert reader.read() == store.read()
    assert len(whole) == 1
    add(store, MOST_CHANGED + 1, 100)
    assert reader.read() == store.read()
    assert len(whole) == 2


def test_a_device_that_is_gone_is_gone(store: RegistryStore) -> None:
    reader = ChangedRegistry(store)
    add(store, 2)
    reader.read()
    store.set_device_status("d0", DeviceStatus.SUSPENDED, by="anna", at=AT)
    with store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM devices WHERE name = 'd0'")
    assert [each.name for each in reader.read().devices] == ["d1"]


def test_a_restored_database_is_read_anew(store: RegistryStore, tmp_path: Path) -> None:
    reader = ChangedRegistry(store)
    add(store, 1)
    backup = tmp_path / "backup.db"
    shutil.copy(tmp_path / "registry.db", backup)
    add(store, 2, 1)
    assert len(reader.read().devices) == 3
    shutil.copy(backup, tmp_path / "registry.db")
    # The same number of changes, but other ones.
    add(store, 3, 50)
    assert reader.read() == store.read()
    assert [each.name for each in reader.read().devices] == ["d0", "d50", "d51", "d52"]
