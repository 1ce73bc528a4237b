"""Shards are worked on by one worker at a time; a dead one loses nothing, and nothing is stored twice."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomward.assess.observation import Count, Counts, ServerObservation
from dicomward.io.assess.shards import LeaseLost, Progress, ShardError, ShardStore

TARGETS = [(f"10.0.0.{number}", 104) for number in range(10)]


def seen(address: str, records: int = 1) -> ServerObservation:
    return ServerObservation(address=address, port=104, counts=Counts(records=Count(value=records)))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shards.sqlite'}"


@pytest.fixture
def store(url: str) -> Iterator[ShardStore]:
    opened = ShardStore(url)
    opened.plan(TARGETS, size=4)
    yield opened
    opened.close()


def test_every_server_is_in_one_shard(store: ShardStore) -> None:
    shards = [store.lease(f"w{number}") for number in range(4)]
    leases = [lease for lease in shards if lease is not None]
    assert len(leases) == 3
    found = [target for lease in leases for target in store.waiting_in(lease)]
    assert sorted(found) == TARGETS
    assert store.progress() == Progress(0, 10)
    assert not store.is_done()


def test_planning_again_adds_only_what_is_new(store: ShardStore) -> None:
    store.plan([*TARGETS, ("10.0.1.1", 104), ("10.0.1.1", 104)], size=4)
    assert store.progress().total == 11


def test_results_are_kept_and_shards_end(store: ShardStore) -> None:
    while (lease := store.lease("w")) is not None:
        for address, _ in store.waiting_in(lease):
            store.finish_slice(address, 104, "a", {"studies": 1})
            store.finish_server(lease, seen(address))
            assert store.slices(address, 104) == []
        store.finish_shard(lease)
    assert store.is_done()
    assert store.progress() == Progress(10, 10)
    assert [each.address for each in store.observations()] == [address for address, _ in TARGETS]


def test_worker_that_died_loses_nothing_and_counts_nothing_twice(url: str, store: ShardStore) -> None:
    dying = ShardStore(url, lease_seconds=-1)
    old = dying.lease("dies")
    assert old is not None
    first = dying.waiting_in(old)[0][0]
    dying.finish_slice(first, 104, "20200101-20201231", {"studies": 4})
    new = store.lease("lives")
    assert new is not None
    assert new.shard == old.shard
    assert store.slices(first, 104) == [("20200101-20201231", "done", {"studies": 4})]
    store.finish_server(new, seen(first, 5))
    with pytest.raises(LeaseLost, match="belongs to another worker"):
        dying.finish_server(old, seen(first, 99))
    with pytest.raises(LeaseLost):
        dying.renew(old)
    with pytest.raises(LeaseLost):
        dying.finish_shard(old)
    dying.give_back(old)
    store.renew(new)
    assert [each.counts for each in store.observations()] == [seen(first, 5).counts]
    assert len(store.waiting_in(new)) == 3
    dying.close()


def test_shard_that_is_given_back_is_free_at_once(store: ShardStore) -> None:
    lease = store.lease("one")
    assert lease is not None
    store.give_back(lease)
    again = store.lease("two")
    assert again is not None
    assert again.shard == lease.shard


def test_slices_are_replaced_and_only_finished_ones_are_kept(store: ShardStore) -> None:
    store.finish_slice("10.0.0.1", 104, "a", {"studies": 1})
    store.finish_slice("10.0.0.1", 104, "a", {"studies": 2})
    store.finish_slice("10.0.0.1", 104, "b", {}, state="given-up")
    assert store.slices("10.0.0.1", 104) == [("a", "done", {"studies": 2})]


def test_many_workers_share_the_work(url: str) -> None:
    plan = ShardStore(url)
    plan.plan([(f"10.1.{number // 200}.{number % 200}", 104) for number in range(120)], size=5)
    done: list[str] = []
    start = threading.Barrier(6)

    def work(name: str) -> None:
        store = ShardStore(url)
        start.wait()
        while (lease := store.lease(name)) is not None:
            for address, _ in store.waiting_in(lease):
                store.finish_server(lease, seen(address))
                done.append(address)
            store.finish_shard(lease)
        store.close()

    with ThreadPoolExecutor(6) as pool:
        for each in [pool.submit(work, f"w{number}") for number in range(6)]:
            each.result()
    assert len(done) == len(set(done)) == 120
    assert plan.is_done()
    plan.close()


def test_database_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="unable to open database file"):
        ShardStore(f"sqlite:///{tmp_path / 'missing' / 'x.sqlite'}")
    with pytest.raises(ShardError, match="can't be used"):
        ShardStore("nonsense")
