"""The same on a real PostgreSQL server: each worker gets another shard without waiting."""

import pytest
from sqlalchemy import create_engine, text

from dicomward.io.assess.shards import ShardStore
from tests.io.assess.test_shards import (
    TARGETS,
    store,
    test_every_host_is_in_one_shard,
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
