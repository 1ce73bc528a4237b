"""The registry on a real PostgreSQL server of the test's own, reachable by a Unix socket only."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from dicomward.enrolment.grant import Issued
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.identity.registry import DeviceStatus, RegistryError
from dicomward.io.registry import store as registry_store
from dicomward.io.registry.store import RegistryStore, RegistryStoreError
from dicomward.io.registry.tables import METADATA
from dicomward.vocab.reason import ReasonCode
from tests.io.ca_helpers import NOW, grant, issuer, make_ca, spki
from tests.io.registry.test_store import AT, BY, CT, PACS, WORKSTATION, certificate, fill

psycopg = pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed: pip install 'psycopg[binary]'")

pytestmark = pytest.mark.real


def find(program: str) -> str | None:
    """Return the path of a server program; Debian keeps them out of the search path."""
    return shutil.which(program) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))), None)


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    initdb, pg_ctl = find("initdb"), find("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # The server refuses to run as root, and its user must be able to enter the directory.
    directory = Path(tempfile.mkdtemp(prefix="dicomward-pg-"))
    user = {"user": "postgres"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(directory, "postgres")
    data = directory / "data"

    def command(*arguments: str) -> None:
        done = subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            check=False,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            **user,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"

    try:
        command(initdb, "-D", str(data), "-A", "trust", "-U", "dicomward", "--locale=C", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c fsync=off"
        command(pg_ctl, "-D", str(data), "-w", "-o", options, "-l", str(directory / "log"), "start")
        try:
            yield directory
        finally:
            command(pg_ctl, "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def url(server: Path, request: pytest.FixtureRequest) -> str:
    name = f"t{abs(hash(request.node.name))}"
    with psycopg.connect(f"host={server} user=dicomward dbname=postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://dicomward@/{name}?host={server}"


def test_everything_comes_back_as_it_was_written(url: str) -> None:
    with RegistryStore.open(url) as store:
        written = fill(store)
        assert written.devices == (CT, WORKSTATION)
        store.mark_audited(1)
    with RegistryStore.open(url, migrate=False) as store:
        assert store.read() == written
        assert [change.revision for change in store.unaudited_changes()] == [2, 3, 4]
        assert store.unaudited_changes()[0].at == AT


def test_refusals_roll_back(url: str) -> None:
    with RegistryStore.open(url) as store:
        before = fill(store)
        with pytest.raises(RegistryError, match="belongs to the archive 'PACS'"):
            store.add_device(replace(WORKSTATION, name="ws2", ae_titles=("PACS",)), by=BY, at=AT)
        assert store.read() == before
        store.set_device_status("ct1", DeviceStatus.REVOKED, by=BY, at=AT)
        store.add_device(replace(CT, name="ct2", certificates=(certificate("e"),)), by=BY, at=AT)
        assert store.remove_archive(PACS.name, by=BY, at=AT).revision == 7


def test_changes_from_many_threads_exclude_each_other_from_the_first_migration_on(url: str) -> None:
    failures: list[Exception] = []

    def add(number: int) -> None:
        try:
            with RegistryStore.open(url) as store:
                device = replace(WORKSTATION, name=f"d{number}", ae_titles=(f"T{number}",))
                store.add_device(device, by=BY, at=AT)
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


def test_migrations_make_the_tables_that_the_code_expects(url: str) -> None:
    RegistryStore.open(url).close()
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []


def test_server_that_is_away_is_explained_without_the_password(server: Path) -> None:
    with pytest.raises(RegistryStoreError, match=r"the registry database failed: .*check that it runs") as caught:
        RegistryStore.open(f"postgresql+psycopg://dicomward:hunter2@/none?host={server}/nowhere")
    assert "hunter2" not in str(caught.value)


def test_tables_without_migrations_are_not_used(url: str) -> None:
    with pytest.raises(RegistryStoreError, match=f"of version none, and {registry_store.HEAD} is needed"):
        RegistryStore.open(url, migrate=False)


def test_two_issuing_processes_share_a_database(url: str, tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    with RegistryStore.open(url, keeps_connections=True) as first, RegistryStore.open(url) as second:
        issuers = [issuer(first, ca), issuer(second, ca)]
        spent: list[str] = []

        def spend(connection: Connection) -> None:
            # As a code is spent: whoever comes second sees that it is.
            connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
            if connection.execute(text("SELECT count(*) FROM renewals WHERE device = 'once'")).scalar_one():
                raise EnrolmentRefusedError(ReasonCode.CODE_USED, "used")
            spent.append("once")

        def work(number: int) -> Issued | ReasonCode:
            try:
                own = grant("once") if number < 8 else grant(f"d{number}")
                return issuers[number % 2].issue(spki(), own, NOW, spend=spend if number < 8 else None)
            except EnrolmentRefusedError as error:
                return error.reason

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(work, range(24)))
        once, others = results[:8], results[8:]
        assert sum(isinstance(each, Issued) for each in once) == 1
        assert {each for each in once if not isinstance(each, Issued)} == {ReasonCode.CODE_USED}
        assert all(isinstance(each, Issued) for each in others)
        assert len(second.read().devices) == 17
        assert second.read().revision == 17
