"""The same on a real PostgreSQL server: each worker gets another shard without waiting."""

import subprocess
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from dicomward.io.assess.shards import ShardStore
from dicomward.io.assess.store import AssessStore
from tests.cli.test_assess_worker import COMMAND, place_of, servers
from tests.io.assess.test_shards import (
    TARGETS,
    store,
    test_every_host_is_in_one_shard,
    test_fragile_network_is_worked_on_by_one_worker_at_a_time,
    test_hosts_are_probed_then_counted_and_shards_end,
    test_many_workers_share_the_work,
    test_worker_that_died_loses_nothing_and_counts_nothing_twice,
)
from tests.io.registry.test_store_postgresql import server, url

pytestmark = pytest.mark.real
__all__ = [
    "server",
    "store",
    "test_every_host_is_in_one_shard",
    "test_fragile_network_is_worked_on_by_one_worker_at_a_time",
    "test_hosts_are_probed_then_counted_and_shards_end",
    "test_many_workers_share_the_work",
    "test_worker_that_died_loses_nothing_and_counts_nothing_twice",
    "url",
]


def test_shard_that_another_worker_is_taking_is_skipped(url: str) -> None:
    opened = ShardStore(url)
    opened.add_targets(TARGETS, size=4)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("SELECT id FROM assess_shard ORDER BY id LIMIT 1 FOR UPDATE"))
        lease = opened.lease("w")
    assert lease is not None
    assert lease.shard == 2
    engine.dispose()
    opened.close()


def test_run_is_shared_through_it(url: str, tmp_path: Path) -> None:
    with servers(3) as targets:
        place = place_of(tmp_path, targets)
        share = ["--confirm", place.hash, "--database", url]
        with subprocess.Popen(
            [*COMMAND, str(place.scope), "--out", str(place.out), *share], stdout=subprocess.PIPE
        ) as one:
            store = ShardStore(url)
            while store.value("filled_at") is None:
                assert one.poll() is None
            store.close()
            worker = [*COMMAND, "worker", str(place.scope), "--out", str(tmp_path / "w"), *share]
            subprocess.run(worker, check=True, capture_output=True, timeout=60)
            output, _ = one.communicate(timeout=60)
    assert one.returncode == 0
    assert b"3 of 3 hosts done" in output
    with AssessStore(place.out) as store_of_the_run:
        counts = [each.counts for each in store_of_the_run.observations()]
    assert [each.patients.value for each in counts if each is not None and each.patients is not None] == [1, 2, 3]
