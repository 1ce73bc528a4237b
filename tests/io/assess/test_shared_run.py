"""Workers share a run: each host is asked by one of them, one that dies is replaced, and one stop stops all."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.assess.scope import Scope, parse_scope
from dicomward.io.assess import hosts, shared_run
from dicomward.io.assess.run import Progress, RunSetup
from dicomward.io.assess.shards import Lease, LeaseLost, ShardStore
from dicomward.io.assess.shared_run import STOPPED_BY, SharedRun, collect
from dicomward.io.assess.store import AssessStore, TargetRow
from tests.io.assess.test_run import HEAD
from tests.io.count_peers import archive, serving, simulated

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ADDRESSES = [f"127.0.7.{n}" for n in range(1, 7)]
PACE = "[pace]\nrate_probe = 0\nslow_floor = 30\n"
SCOPE = f'{HEAD}web_ports = []\n[[network]]\ncidr = "127.0.7.0/29"\ncounting = true\n{PACE}'


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "forbid_dumps", lambda: None)
    monkeypatch.setattr(shared_run, "_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(shared_run, "_LOOK_SECONDS", 0.02)


@contextmanager
def fleet() -> Iterator[list[tuple[str, int]]]:
    with ExitStack() as stack:
        yield [
            (each, stack.enter_context(serving(simulated(archive(patients=n, studies=3 * n)), each)))
            for n, each in enumerate(ADDRESSES, 1)
        ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ShardStore]:
    opened = ShardStore(f"sqlite:///{tmp_path / 'shards.sqlite'}")
    yield opened
    opened.close()


def fill(store: ShardStore, servers: list[tuple[str, int]], size: int = 2) -> Scope:
    store.add_targets((TargetRow(address=each, ports=(port,), is_named=True) for each, port in servers), size=size)
    return parse_scope(SCOPE.encode())


def run_of(scope: Scope, directory: Path, store: ShardStore, progress: list[Progress] | None = None) -> SharedRun:
    directory.mkdir(exist_ok=True)
    told = [] if progress is None else progress
    setup = RunSetup(scope=scope, directory=directory, operator="o", now=lambda: NOW, on_progress=told.append)
    return SharedRun(setup, store, directory.name)


def patients(store: ShardStore) -> list[int]:
    counts = [each.counts for each in store.observations()]
    return [each.patients.value for each in counts if each is not None and each.patients is not None]


def test_two_workers_count_everything_once_and_it_is_collected(tmp_path: Path, store: ShardStore) -> None:
    progress: list[Progress] = []
    with fleet() as servers:
        scope = fill(store, servers)
        other = ShardStore(f"sqlite:///{tmp_path / 'shards.sqlite'}")
        second = threading.Thread(target=run_of(scope, tmp_path / "b", other).run)
        second.start()
        assert run_of(scope, tmp_path / "a", store, progress).run() == ""
        second.join()
        other.close()
    assert patients(store) == [1, 2, 3, 4, 5, 6]
    assert progress[0].total == 6
    store.exclude("127.0.7.99", "pump")
    for _ in range(2):
        collect(store, tmp_path / "a")
        (tmp_path / "a" / "run.sqlite-wal").write_bytes(b"left by a reader that was killed")
    collect(store, tmp_path / "a")
    with AssessStore(tmp_path / "a") as copy:
        assert list(copy.observations()) == list(store.observations())
        assert (copy.progress(), copy.excluded()) == ((6, 6), [("127.0.7.99", "pump")])
        assert copy.value("ended_at")


def test_shard_of_a_worker_that_died_is_taken_over(tmp_path: Path, store: ShardStore) -> None:
    with fleet() as servers:
        scope = fill(store, servers, size=6)
        other = ShardStore(f"sqlite:///{tmp_path / 'shards.sqlite'}", lease_seconds=0.3)
        assert other.lease("dies") is not None
        assert run_of(scope, tmp_path / "a", store).run() == ""
        other.close()
    assert patients(store) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("method", ["finish_probing", "finish_counting", "finish_shard", "renew"])
def test_what_a_worker_saw_of_a_shard_that_it_lost_is_dropped(
    method: str, tmp_path: Path, store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = getattr(store, method), []

    def lose(lease: Lease, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            store.give_back(lease)
            raise LeaseLost("it is another's")
        real(lease, *arguments)

    monkeypatch.setattr(store, method, lose)
    store.renew_seconds = 0.001
    with fleet() as servers:
        assert run_of(fill(store, servers), tmp_path / "a", store).run() == ""
    assert calls
    assert patients(store) == [1, 2, 3, 4, 5, 6]


def test_stop_file_of_one_worker_stops_all_and_gives_back_what_it_held(tmp_path: Path, store: ShardStore) -> None:
    with fleet() as servers:
        scope = fill(store, servers)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "STOP").touch()
        assert "stop file" in run_of(scope, tmp_path / "a", store).run()
        assert "worker a: the stop file" in (store.value(STOPPED_BY) or "")
        assert "stopped by worker a" in run_of(scope, tmp_path / "b", store).run()
        assert store.progress() == (0, 6)
        (tmp_path / "a" / "STOP").unlink()
        store.drop_value(STOPPED_BY)
        assert run_of(scope, tmp_path / "b", store).run() == ""
    assert patients(store) == [1, 2, 3, 4, 5, 6]


def test_interrupted_worker_gives_back_what_it_held(
    tmp_path: Path, store: ShardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with fleet() as servers:
        scope = fill(store, servers)
        with monkeypatch.context() as patch:
            patch.setattr(hosts.HostWork, "probe", interrupt)
            assert run_of(scope, tmp_path / "a", store).run() == "interrupted"
        lease = store.lease("b")
        assert lease is not None
        assert lease.shard == 1


def test_watch_that_fails_ends_the_worker(tmp_path: Path, store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*arguments: object) -> None:
        raise OSError("the database is gone")

    async def forever(*arguments: object) -> None:
        await asyncio.sleep(0.05)

    with fleet() as servers:
        scope = fill(store, servers)
        monkeypatch.setattr(SharedRun, "_watch", fail)
        with pytest.raises(OSError, match="is gone"):
            run_of(scope, tmp_path / "a", store).run()
