"""The registry database: what is written comes back, what is ambiguous is refused, changes exclude each other."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Dialect, create_engine
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

import dicomward
from dicomward.identity.registry import (
    Archive,
    CertificateRecord,
    Device,
    DeviceStatus,
    Endpoint,
    RegistryError,
    RegistrySnapshot,
)
from dicomward.identity.registry_json import decode_snapshot
from dicomward.io.registry import store as registry_store
from dicomward.io.registry.store import (
    HEAD,
    RegistryChange,
    RegistryStore,
    RegistryStoreError,
    UnknownNameError,
    snapshot_lock,
    write_snapshot,
)
from dicomward.io.registry.tables import METADATA, UtcDateTime

AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BY = "anna"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dicomward.__file__).parents[1])}
POSTGRESQL: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
SQLITE: Dialect = sqlite.dialect()


def certificate(digit: str, **changes: object) -> CertificateRecord:
    values = CertificateRecord(
        sha256=digit * 64, not_before=AT, not_after=AT + timedelta(days=397), status="active", serial="1f"
    )
    return replace(values, **changes)  # type: ignore[arg-type]


CT = Device(
    name="ct1",
    ae_titles=("CT1", "CT1 STORE"),
    role="modality",
    site="Ward B",
    networks=("10.1.2.0/24", "2001:db8::/64"),
    address=Endpoint(host="2001:db8::7", port=104),
    plain=True,
    certificates=(certificate("a"), certificate("b", not_before=AT + timedelta(days=1))),
)
WORKSTATION = Device(name="ws1", ae_titles=("WS1",), role="workstation", networks=("any",))
PACS = Archive(
    name="PACS",
    ae_title="ORTHANC",
    called_ae_titles=("PACS", "ORTHANC"),
    calling_ae_titles=("ORTHANC", "ORTHANC2"),
    endpoint=Endpoint(host="10.9.9.9", port=4242),
    networks=("10.9.9.9/32",),
    tls=True,
    dedicated_link=False,
    certificate_sha256="c" * 64,
    site="Basement",
    sends_move_originator=False,
)
BROKER = Archive(name="RIS", ae_title="RIS", endpoint=Endpoint(host="ris.example", port=104), dedicated_link=True)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/registry.db"


@pytest.fixture
def store(url: str) -> Iterator[RegistryStore]:
    with RegistryStore.open(url, create=True) as opened:
        yield opened


def fill(store: RegistryStore) -> RegistrySnapshot:
    store.add_archive(PACS, by=BY, at=AT)
    store.add_archive(BROKER, by=BY, at=AT)
    store.add_device(WORKSTATION, by=BY, at=AT)
    return store.add_device(CT, by=BY, at=AT)


def test_new_registry_is_empty_at_revision_zero(store: RegistryStore) -> None:
    assert store.read() == RegistrySnapshot(devices=(), archives=(), revision=0)
    assert store.unaudited_changes() == ()


def test_everything_comes_back_as_it_was_written(store: RegistryStore, url: str) -> None:
    written = fill(store)
    assert written == RegistrySnapshot(devices=(CT, WORKSTATION), archives=(PACS, BROKER), revision=4)
    with RegistryStore.open(url) as other:
        assert other.read() == written


def test_times_with_another_offset_come_back_as_the_same_moment(store: RegistryStore) -> None:
    east = timezone(timedelta(hours=9))
    moved = certificate("a", not_before=AT.astimezone(east), not_after=(AT + timedelta(days=1)).astimezone(east))
    store.add_device(replace(CT, certificates=(moved,)), by=BY, at=AT.astimezone(east))
    device = store.read().device_by_name("ct1")
    assert device is not None
    assert device.certificates[0].not_before == AT
    assert device.certificates[0].not_before.tzinfo is UTC
    assert store.unaudited_changes()[0].at == AT


def test_every_change_is_on_record_until_it_is_audited(store: RegistryStore) -> None:
    fill(store)
    changes = store.unaudited_changes()
    assert [change.revision for change in changes] == [1, 2, 3, 4]
    assert changes[0] == RegistryChange(
        revision=1,
        at=AT,
        operator=BY,
        action="add-archive",
        archive="PACS",
        detail="AE title ORTHANC at 10.9.9.9 port 4242",
    )
    assert changes[3].detail == "AE titles CT1, CT1 STORE; role modality; networks 10.1.2.0/24, 2001:db8::/64"
    store.mark_audited(1)
    store.mark_audited(3)
    assert [change.revision for change in store.unaudited_changes()] == [2, 4]
    assert store.changes_of("PACS") == (replace(changes[0], audited=True),)
    assert [change.action for change in store.changes_of("ct1")] == ["add-device"]


@pytest.mark.parametrize(
    ("status", "action"),
    [
        (DeviceStatus.SUSPENDED, "suspend-device"),
        (DeviceStatus.ACTIVE, "resume-device"),
        (DeviceStatus.REVOKED, "revoke-device"),
    ],
)
def test_status_is_set_and_repeating_it_is_a_change_too(
    store: RegistryStore, status: DeviceStatus, action: str
) -> None:
    fill(store)
    for revision in (5, 6):
        snapshot = store.set_device_status("ct1", status, by="bert", at=AT)
        device = snapshot.device_by_name("ct1")
        assert device is not None
        assert device.status is status
        assert snapshot.revision == revision
        assert store.read() == snapshot
        last = store.unaudited_changes()[-1]
        assert (last.action, last.operator, last.device, last.revision) == (action, "bert", "ct1", revision)


def test_revoked_device_loses_its_certificates_and_never_comes_back(store: RegistryStore) -> None:
    fill(store)
    device = store.set_device_status("ct1", DeviceStatus.REVOKED, by=BY, at=AT).device_by_name("ct1")
    assert device is not None
    assert {record.status for record in device.certificates} == {"revoked"}
    for status in (DeviceStatus.ACTIVE, DeviceStatus.SUSPENDED):
        with pytest.raises(RegistryError, match="ct1: it is revoked, and that is for good; register the device anew"):
            store.set_device_status("ct1", status, by=BY, at=AT)
    with pytest.raises(RegistryError, match="it is revoked; register the device anew"):
        store.add_certificate("ct1", certificate("d"), revoke_others=False, by=BY, at=AT)
    assert store.read().revision == 5


def test_replacement_takes_over_the_titles_of_a_revoked_device(store: RegistryStore) -> None:
    fill(store)
    store.set_device_status("ct1", DeviceStatus.REVOKED, by=BY, at=AT)
    snapshot = store.add_device(replace(CT, name="ct2", certificates=(certificate("e"),)), by=BY, at=AT)
    owner = snapshot.device_by_ae_title("CT1")
    assert owner is not None
    assert owner.name == "ct2"


@pytest.mark.parametrize("revoke_others", [False, True])
def test_certificate_is_added_and_the_others_end_if_asked(store: RegistryStore, revoke_others: bool) -> None:
    fill(store)
    added = certificate("d", not_before=AT + timedelta(days=2))
    snapshot = store.add_certificate("ct1", added, revoke_others=revoke_others, by=BY, at=AT)
    device = snapshot.device_by_name("ct1")
    assert device is not None
    status = "revoked" if revoke_others else "active"
    assert [record.status for record in device.certificates] == [status, status, "active"]
    assert store.read() == snapshot
    assert store.unaudited_changes()[-1].detail == f"certificate {'d' * 64}" + (
        ", the others revoked" if revoke_others else ""
    )


@pytest.mark.parametrize(
    ("address", "plain", "reverse", "detail"),
    [
        (Endpoint(host="10.1.2.9", port=104), False, False, "10.1.2.9 port 104"),
        (Endpoint(host="10.1.2.9", port=104), True, False, "10.1.2.9 port 104 without TLS"),
        (None, False, True, "over its reverse connections"),
        (None, False, False, "nowhere"),
    ],
    ids=["tls", "plain", "reverse", "nowhere"],
)
def test_where_a_device_is_called_can_change(
    store: RegistryStore, address: Endpoint | None, plain: bool, reverse: bool, detail: str
) -> None:
    before = fill(store).device_by_name("ct1")
    snapshot = store.set_address("ct1", address, plain=plain, reverse=reverse, by=BY, at=AT)
    device = snapshot.device_by_name("ct1")
    assert before is not None
    assert device == replace(before, address=address, plain=plain, reverse=reverse)
    assert store.read() == snapshot
    last = store.unaudited_changes()[-1]
    assert (last.action, last.detail) == ("address-device", detail)
    # And back, with one command.
    assert store.rollback_device("ct1", changes=1, by=BY, at=AT).device_by_name("ct1") == before


def test_archive_is_removed_with_all_its_rows(store: RegistryStore, tmp_path: Path) -> None:
    fill(store)
    snapshot = store.remove_archive("PACS", by=BY, at=AT)
    assert snapshot.archives == (BROKER,)
    assert store.read() == snapshot
    with closing(sqlite3.connect(tmp_path / "registry.db")) as raw:
        assert raw.execute("SELECT owner FROM archive_calling_ae_titles").fetchall() == []


def test_unknown_names_are_refused_with_the_known_ones(store: RegistryStore) -> None:
    fill(store)
    with pytest.raises(UnknownNameError, match="there is no device 'ct9'") as caught:
        store.set_device_status("ct9", DeviceStatus.SUSPENDED, by=BY, at=AT)
    assert caught.value.known == ("ct1", "ws1")
    with pytest.raises(UnknownNameError, match="there is no archive 'ct1'") as caught:
        store.remove_archive("ct1", by=BY, at=AT)
    assert caught.value.known == ("PACS", "RIS")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (replace(WORKSTATION, ae_titles=("X",)), "the name 'ws1' is used twice"),
        (replace(WORKSTATION, name="PACS", ae_titles=("X",)), "the name 'PACS' is used twice"),
        (replace(WORKSTATION, name="ws2", ae_titles=("X", "CT1")), "AE title 'CT1' belongs to 'ct1'"),
        (replace(WORKSTATION, name="ws2", ae_titles=("PACS",)), "AE title 'PACS' belongs to the archive 'PACS'"),
        (replace(WORKSTATION, name="ws2", ae_titles=("ORTHANC2",)), "'ORTHANC2' belongs to the archive 'PACS'"),
        (
            replace(WORKSTATION, name="ws2", ae_titles=("X",), certificates=(certificate("a"),)),
            "is bound twice; each device needs its own key",
        ),
    ],
)
def test_device_with_something_that_is_taken_is_refused_and_nothing_changes(
    store: RegistryStore, device: Device, message: str
) -> None:
    before = fill(store)
    with pytest.raises(RegistryError, match=message):
        store.add_device(device, by=BY, at=AT)
    assert store.read() == before
    assert len(store.unaudited_changes()) == 4


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (replace(BROKER, ae_title="X", called_ae_titles=("X",)), "the name 'RIS' is used twice"),
        (replace(BROKER, name="ws1", ae_title="X", called_ae_titles=("X",)), "the name 'ws1' is used twice"),
        (replace(BROKER, name="R2"), "the called AE title 'RIS' leads to 'R2' and to 'RIS'"),
        (replace(BROKER, name="R2", ae_title="CT1", called_ae_titles=("R2",)), "'CT1' belongs to the device 'ct1'"),
        (replace(BROKER, name="R2", ae_title="R2", called_ae_titles=("WS1",)), "'WS1' belongs to the device 'ws1'"),
        (
            replace(BROKER, name="R2", ae_title="R2", called_ae_titles=("R2",), calling_ae_titles=("CT1 STORE",)),
            "'CT1 STORE' belongs to the device 'ct1'",
        ),
    ],
)
def test_archive_with_something_that_is_taken_is_refused_and_nothing_changes(
    store: RegistryStore, archive: Archive, message: str
) -> None:
    before = fill(store)
    with pytest.raises(RegistryError, match=message):
        store.add_archive(archive, by=BY, at=AT)
    assert store.read() == before


def test_two_nodes_of_one_archive_may_call_with_the_same_title(store: RegistryStore) -> None:
    fill(store)
    node = replace(PACS, name="PACS2", ae_title="NODE2", called_ae_titles=("PACS-2",))
    snapshot = store.add_archive(node, by=BY, at=AT)
    assert {archive.name for archive in snapshot.archives_calling("ORTHANC")} == {"PACS", "PACS2"}


def test_changes_from_many_threads_exclude_each_other(url: str) -> None:
    RegistryStore.open(url, create=True).close()
    failures: list[Exception] = []

    def add(number: int) -> None:
        try:
            with RegistryStore.open(url) as mine:
                title = f"T{number}"
                mine.add_device(replace(WORKSTATION, name=f"d{number}", ae_titles=(title,)), by=BY, at=AT)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with RegistryStore.open(url) as store:
        assert store.read().revision == 8
        assert [change.revision for change in store.unaudited_changes()] == list(range(1, 9))


def test_many_threads_can_make_the_tables_at_once(url: str) -> None:
    failures: list[Exception] = []

    def make() -> None:
        try:
            RegistryStore.open(url, create=True).close()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


_TITLES = st.lists(st.sampled_from("ABCDEFGH"), min_size=1, max_size=3, unique=True).map(tuple)
_EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 5), _TITLES),
        st.tuples(st.sampled_from(list(DeviceStatus)), st.integers(0, 5), st.none()),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("empty") / "registry.db"
    RegistryStore.open(f"sqlite:///{path}", create=True).close()
    return path.read_bytes()


# The disk's speed is not what is tested.
@settings(deadline=None, max_examples=40)
@given(edits=_EDITS)
def test_whatever_is_done_the_database_holds_what_the_command_was_told(
    edits: list[tuple[object, int, tuple[str, ...] | None]],
    tmp_path_factory: pytest.TempPathFactory,
    empty_database: bytes,
) -> None:
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    path.write_bytes(empty_database)
    with RegistryStore.open(f"sqlite:///{path}") as store:
        last = store.read()
        for what, number, titles in edits:
            try:
                if titles is not None:
                    device = replace(WORKSTATION, name=f"d{number}", ae_titles=titles)
                    last = store.add_device(device, by=BY, at=AT)
                else:
                    last = store.set_device_status(f"d{number}", DeviceStatus(str(what)), by=BY, at=AT)
            except RegistryError:
                pass
        assert store.read() == last
        assert len(store.unaudited_changes()) == last.revision


# --- opening ---


def test_missing_file_is_not_made_by_a_command_that_only_uses_it(url: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryStoreError, match=r"there is no registry at .*registry.db; correct"):
        RegistryStore.open(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", ["", "what", "nosuchdatabase://x", "sqlite+nosuchdriver:///x"])
def test_url_that_cannot_be_used_is_explained(bad: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryStoreError, match="the database URL can't be used"):
        RegistryStore.open(bad, create=True)
    assert list(tmp_path.iterdir()) == []


def test_new_file_is_for_its_owner_only(store: RegistryStore, tmp_path: Path) -> None:
    assert (tmp_path / "registry.db").stat().st_mode & 0o777 == 0o600


def test_driver_that_is_not_installed_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RegistryStoreError, match=r"the database URL can't be used .*psycopg"):
        RegistryStore.open("postgresql+psycopg://user:hunter2@127.0.0.1/x")


def test_file_that_is_no_database_is_explained(tmp_path: Path, url: str) -> None:
    (tmp_path / "registry.db").write_text("not a database, but long enough to look like one")
    with pytest.raises(RegistryStoreError, match="the registry database failed: file is not a database; check"):
        RegistryStore.open(url)


def test_database_of_a_newer_version_is_refused(store: RegistryStore, url: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "registry.db")) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.commit()
    with pytest.raises(RegistryStoreError, match="a newer Dicomward has used this database"):
        RegistryStore.open(url)
    with pytest.raises(RegistryStoreError, match=f"of version 9999, and {registry_store.HEAD} is needed"):
        RegistryStore.open(url, migrate=False)


def test_opening_without_migrating_changes_nothing(tmp_path: Path, url: str) -> None:
    sqlite3.connect(tmp_path / "registry.db").close()
    (tmp_path / "registry.db").touch()
    with pytest.raises(RegistryStoreError, match=f"of version none, and {registry_store.HEAD} is needed"):
        RegistryStore.open(url, migrate=False)
    assert (tmp_path / "registry.db").stat().st_size == 0


def test_up_to_date_database_opens_without_migrating(store: RegistryStore, url: str) -> None:
    with RegistryStore.open(url, migrate=False) as other:
        assert other.read().revision == 0


def test_failed_migration_leaves_nothing_behind(tmp_path: Path, url: str) -> None:
    with closing(sqlite3.connect(tmp_path / "registry.db")) as raw:
        # The second table of the first migration is in the way.
        raw.execute("CREATE TABLE devices (x)")
    with pytest.raises(RegistryStoreError, match="table devices already exists"):
        RegistryStore.open(url)
    with closing(sqlite3.connect(tmp_path / "registry.db")) as raw:
        assert raw.execute("SELECT name FROM sqlite_master").fetchall() == [("devices",)]


def test_broken_status_in_the_database_is_explained(store: RegistryStore, tmp_path: Path) -> None:
    fill(store)
    with closing(sqlite3.connect(tmp_path / "registry.db")) as raw:
        raw.execute("UPDATE devices SET status = 'Active' WHERE name = 'ws1'")
        raw.commit()
    with pytest.raises(RegistryError, match="ws1: status 'Active' in the database is not known"):
        store.read()


def test_locked_database_is_explained(
    store: RegistryStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_store, "_BUSY_SECONDS", 0.01)
    with (
        closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as raw,
        RegistryStore.open(url) as mine,
    ):
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryStoreError, match="database is locked; check that it runs"):
            mine.add_device(WORKSTATION, by=BY, at=AT)
        assert mine.read().revision == 0


# --- migrations ---


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(registry_store._MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_migrations_make_the_tables_that_the_code_expects(store: RegistryStore, url: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []


def test_migrations_can_go_back_and_forth(store: RegistryStore, url: str, tmp_path: Path) -> None:
    from alembic import command

    config = Config()
    config.set_main_option("script_location", str(registry_store._MIGRATIONS))
    config.set_main_option("path_separator", "os")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with closing(sqlite3.connect(tmp_path / "registry.db")) as raw:
        assert raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("alembic_version",)]
    with RegistryStore.open(url) as again:
        assert fill(again).revision == 4


def test_tables_can_be_made_on_postgresql() -> None:
    for table in METADATA.sorted_tables:
        ddl = str(CreateTable(table).compile(dialect=POSTGRESQL))
        if "at" in table.c or "not_after" in table.c:
            assert "TIMESTAMP WITH TIME ZONE" in ddl


def test_times_keep_their_zone_where_the_database_has_zones() -> None:
    kind = UtcDateTime()
    east = AT.astimezone(timezone(timedelta(hours=9)))
    assert kind.process_bind_param(east, POSTGRESQL) == AT
    assert kind.process_result_value(east, POSTGRESQL) == AT
    assert kind.process_bind_param(east, SQLITE) == AT.replace(tzinfo=None)
    assert kind.process_result_value(AT.replace(tzinfo=None), SQLITE) == AT
    assert kind.process_bind_param(None, SQLITE) is None
    assert kind.process_result_value(None, SQLITE) is None


# --- the snapshot file ---


def test_snapshot_file_is_replaced_whole_and_for_its_user_only(store: RegistryStore, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    write_snapshot(path, store.read())
    snapshot = fill(store)
    write_snapshot(path, snapshot)
    assert decode_snapshot(path.read_text()) == snapshot
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["registry.db", "registry.json"]


def test_snapshot_file_survives_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "registry.json"
    empty = RegistrySnapshot(devices=(), archives=(), revision=1)
    write_snapshot(path, empty)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_snapshot(path, replace(empty, revision=2))
    assert decode_snapshot(path.read_text()).revision == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_belongs_to_the_owner_of_the_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 23456)
    path = tmp_path / "registry.json"
    with snapshot_lock(path):
        write_snapshot(path, RegistrySnapshot(devices=(), archives=(), revision=1))
    for name in ("registry.json", "registry.json.lock"):
        status = (tmp_path / name).stat()
        assert (status.st_uid, status.st_gid) == (12345, 23456)


def test_lock_excludes_and_is_free_again_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    busy = pytest.raises(RegistryStoreError, match=r"another command has held .* for 0 s; wait for it to end")
    with snapshot_lock(path), busy, snapshot_lock(path, wait_seconds=0):
        raise AssertionError("two at once")
    with snapshot_lock(path, wait_seconds=0):
        pass


def test_lock_waits_for_the_other_command(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    order: list[str] = []
    held = threading.Event()

    def hold() -> None:
        with snapshot_lock(path):
            held.set()
            order.append("first")
            # Long enough for the other one to find it locked: the lock is polled.
            threading.Event().wait(0.12)
            order.append("first done")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with snapshot_lock(path):
        order.append("second")
    thread.join()
    assert order == ["first", "first done", "second"]


def test_reading_the_snapshot_needs_no_database_library(store: RegistryStore, tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    write_snapshot(path, fill(store))
    code = (
        "import sys; from pathlib import Path; from dicomward.identity.registry_json import decode_snapshot;"
        f"decode_snapshot(Path({str(path)!r}).read_text()); print('sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "False\n"


def test_registry_of_0_1_0_is_brought_up_to_date_with_its_devices(
    store: RegistryStore, url: str, tmp_path: Path
) -> None:
    from alembic import command

    written = fill(store)
    config = Config()
    config.set_main_option("script_location", str(registry_store._MIGRATIONS))
    config.set_main_option("path_separator", "os")
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    with RegistryStore.open(url) as upgraded:
        assert (upgraded.read().devices, upgraded.read().archives) == (written.devices, written.archives)
        assert [change.before for change in upgraded.changes_of(written.devices[0].name)] == [None]
