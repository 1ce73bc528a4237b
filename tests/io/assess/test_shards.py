"""Shards are worked on by one worker at a time; a dead one loses nothing, and nothing is stored twice."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicomward.assess.observation import Count, Counts, ServerObservation
from dicomward.io.assess.shards import LeasedStore, LeaseLost, ShardError, ShardStore, Slice
from dicomward.io.assess.store import TargetRow

TARGETS = [
    TargetRow(address=f"10.0.0.{number}", host="h", ports=(104, 105), called_ae_titles=("A",), is_named=True)
    for number in range(10)
]


def seen(address: str, records: int = 1) -> ServerObservation:
    return ServerObservation(address=address, port=104, counts=Counts(records=Count(value=records)))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'shards.sqlite'}"


@pytest.fixture
def store(url: str) -> Iterator[ShardStore]:
    opened = ShardStore(url)
    opened.add_targets(TARGETS, size=4)
    yield opened
    opened.close()


def test_every_host_is_in_one_shard(store: ShardStore) -> None:
    shards = [store.lease(f"w{number}") for number in range(4)]
    leases = [lease for lease in shards if lease is not None]
    assert len(leases) == 3
    found = [target for lease in leases for target in store.waiting_in(lease)]
    assert sorted(found, key=lambda each: each.address) == TARGETS
    assert store.progress() == (0, 10)
    assert not store.is_done()


def test_facts_of_the_run(store: ShardStore) -> None:
    assert store.value("owner") is None
    store.set_value("owner", "a")
    store.set_value("owner", "b")
    assert store.values() == {"owner": "b"}
    store.drop_value("owner")
    assert store.values() == {}


def test_run_that_was_not_filled_to_its_end_is_filled_anew(store: ShardStore) -> None:
    store.clear()
    assert store.progress() == (0, 0)
    store.add_targets(TARGETS[:1])
    store.exclude("10.0.0.99", "pump")
    store.exclude("10.0.0.99", "ventilator")
    assert list(store.targets()) == [
        (TARGETS[0], "waiting", ""),
        (TargetRow(address="10.0.0.99"), "excluded", "ventilator"),
    ]
    assert store.progress() == (0, 1)


def test_hosts_are_probed_then_counted_and_shards_end(store: ShardStore) -> None:
    while (lease := store.lease("w", may_count=False)) is not None:
        leased = LeasedStore(store, lease)
        for each in store.waiting_in(lease):
            if each.address in ("10.0.0.3", "10.0.0.7"):
                leased.finish_host(each.address, [seen(each.address, 0)], "answered", is_to_be_counted=True)
            else:
                leased.finish_hosts([(each.address, "refused")])
        store.finish_shard(lease)
    assert store.progress() == (8, 10)
    for _ in range(2):
        lease = store.lease("w")
        assert lease is not None
        times = iter([0.0, 1.0, 6.0, 6.0, 7.0])
        leased = LeasedStore(store, lease, times.__next__)
        leased.finish_slice(lease.counts, 104, "a", {"studies": 1})
        assert leased.slices(lease.counts, 104) == []
        leased.finish_slice(lease.counts, 104, "b", {"studies": 2})
        leased.finish_slice(lease.counts, 104, "c", {"studies": 3})
        assert leased.slices(lease.counts, 104) == [("a", "done", {"studies": 1}), ("b", "done", {"studies": 2})]
        assert leased.observations_of(lease.counts) == [seen(lease.counts, 0)]
        leased.finish_counting(lease.counts, [seen(lease.counts, 5)])
        assert store.slices(lease.counts, 104) == []
    assert store.is_done()
    assert store.progress() == (10, 10)
    assert list(store.observations()) == [seen("10.0.0.3", 5), seen("10.0.0.7", 5)]
    assert {(row.address, state, why) for row, state, why in store.targets() if why != "refused"} == {
        ("10.0.0.3", "done", "answered"), ("10.0.0.7", "done", "answered"),
    }  # fmt: skip


def test_hosts_are_probed_before_others_are_counted(store: ShardStore) -> None:
    first = store.lease("w")
    assert first is not None
    LeasedStore(store, first).finish_host("10.0.0.0", [seen("10.0.0.0")], is_to_be_counted=True)
    kinds = [lease.counts for lease in iter(lambda: store.lease("w"), None)]
    assert kinds == ["", "", "10.0.0.0"]


def test_worker_that_died_loses_nothing_and_counts_nothing_twice(url: str, store: ShardStore) -> None:
    dying = ShardStore(url, lease_seconds=-1)
    old = dying.lease("dies")
    assert old is not None
    first = dying.waiting_in(old)[0].address
    new = store.lease("lives")
    assert new is not None
    assert new.shard == old.shard
    LeasedStore(store, new).finish_host(first, [seen(first, 5)])
    leased = LeasedStore(dying, old)
    writes: list[Callable[[], None]] = [
        lambda: leased.finish_host(first, [seen(first, 99)]),
        lambda: leased.finish_hosts([(first, "")]),
        lambda: leased.finish_counting(first, [seen(first, 99)]),
        lambda: dying.finish_slices(old, [Slice(first, 104, "a", {})]),
        lambda: dying.renew(old),
        lambda: dying.finish_shard(old),
    ]
    for write in writes:
        with pytest.raises(LeaseLost, match="belongs to another worker"):
            write()
    dying.give_back(old)
    store.renew(new)
    assert list(store.observations()) == [seen(first, 5)]
    assert len(store.waiting_in(new)) == 3
    dying.close()


def test_shard_that_is_given_back_is_free_at_once(store: ShardStore) -> None:
    lease = store.lease("one")
    assert lease is not None
    store.give_back(lease)
    again = store.lease("two")
    assert again is not None
    assert again.shard == lease.shard


def alone_of(address: str) -> str:
    return "10.0.1.0/24" if address.startswith("10.0.1.") else ""


def test_fragile_network_is_worked_on_by_one_worker_at_a_time(url: str) -> None:
    store = ShardStore(url, alone_of=alone_of)
    store.add_targets((TargetRow(address=f"10.0.{n // 4}.{n}") for n in range(12)), size=2)
    leases = list(iter(lambda: store.lease("w"), None))
    assert [sorted(each.address for each in store.waiting_in(lease)) for lease in leases] == [
        ["10.0.0.0", "10.0.0.1"], ["10.0.0.2", "10.0.0.3"], ["10.0.1.4", "10.0.1.5"], ["10.0.2.8", "10.0.2.9"],
        ["10.0.2.10", "10.0.2.11"],
    ]  # fmt: skip
    fragile = leases[2]
    LeasedStore(store, fragile).finish_host("10.0.1.4", [seen("10.0.1.4")], is_to_be_counted=True)
    assert store.lease("other") is None
    store.finish_shard(fragile)
    second = store.lease("other")
    assert second is not None
    assert [each.address for each in store.waiting_in(second)] == ["10.0.1.6", "10.0.1.7"]
    assert store.lease("third") is None
    store.give_back(second)
    assert store.lease("third") is not None
    store.close()


def test_slices_are_replaced(store: ShardStore) -> None:
    lease = store.lease("w")
    assert lease is not None
    for number in (1, 2):
        store.finish_slices(lease, [Slice("10.0.0.1", 104, "a", {"studies": number})])
    assert store.slices("10.0.0.1", 104) == [("a", "done", {"studies": 2})]


def test_many_workers_share_the_work(url: str) -> None:
    plan = ShardStore(url)
    plan.add_targets((TargetRow(address=f"10.1.{n // 200}.{n % 200}") for n in range(120)), size=5)
    done: list[str] = []
    start = threading.Barrier(6)

    def work(name: str) -> None:
        store = ShardStore(url)
        start.wait()
        while (lease := store.lease(name)) is not None:
            leased = LeasedStore(store, lease)
            if lease.counts:
                leased.finish_counting(lease.counts, [seen(lease.counts)])
                done.append(lease.counts)
                continue
            for each in store.waiting_in(lease):
                leased.finish_host(each.address, [seen(each.address)], is_to_be_counted=True)
            store.finish_shard(lease)
        store.close()

    with ThreadPoolExecutor(6) as pool:
        for each in [pool.submit(work, f"w{number}") for number in range(6)]:
            each.result()
    work_left = plan.lease("last")
    assert work_left is None
    assert len(done) == len(set(done)) == 120
    assert plan.is_done()
    plan.close()


def test_more_than_a_page_comes_back_once(store: ShardStore) -> None:
    store.clear()
    store.add_targets(TargetRow(address=f"10.{n // 250}.{n % 250}.1") for n in range(2500))
    assert len({row.address for row, _, _ in store.targets()}) == 2500


def test_database_that_cannot_be_used_is_told(tmp_path: Path, url: str, store: ShardStore) -> None:
    with pytest.raises(ShardError, match="unable to open database file"):
        ShardStore(f"sqlite:///{tmp_path / 'missing' / 'x.sqlite'}")
    with pytest.raises(ShardError, match="can't be used"):
        ShardStore("nonsense")
    (tmp_path / "other").write_bytes(b"no database, and long enough to be looked at as one" * 100)
    with pytest.raises(ShardError, match="not a database"):
        ShardStore(f"sqlite:///{tmp_path / 'other'}").progress()
