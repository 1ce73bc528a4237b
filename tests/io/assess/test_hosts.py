"""Hosts are worked on so many at once; the first failure ends all, and what was found before is stored."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.assess.products import Known
from dicomward.assess.scope import parse_scope
from dicomward.io.assess import hosts
from dicomward.io.assess.hosts import HostWork, together
from dicomward.io.assess.probe_guard import Guard, Pacer, ProbingStopped
from dicomward.io.assess.run import load_known
from dicomward.io.assess.store import AssessStore, TargetRow
from dicomward.io.audit.log import AuditLog
from tests.io.assess.test_run import HEAD

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def test_so_many_at_once_and_each_once() -> None:
    running, most, done = 0, 0, []

    async def work(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(item)

    asyncio.run(together(iter(range(20)), work, 3))
    assert sorted(done) == list(range(20))
    assert most == 3


def test_first_failure_ends_all() -> None:
    async def work(item: int) -> None:
        if item == 2:
            raise ProbingStopped("stop")
        await asyncio.Event().wait()

    with pytest.raises(ProbingStopped, match="stop"):
        asyncio.run(together(iter(range(9)), work, 3))


def work_of(directory: Path, text: str, known: Known) -> Iterator[HostWork]:
    audit = AuditLog(directory / "audit")
    audit.start()
    guard = Guard(parse_scope((HEAD + text).encode()), audit, directory, now=lambda: NOW, pacer=Pacer(1000))
    work = HostWork(guard, known, now=lambda: NOW)
    try:
        yield work
    finally:
        work.close()
        audit.close()


def test_host_outside_the_scope_is_never_touched_although_the_store_names_it(tmp_path: Path) -> None:
    known = load_known()
    for work in work_of(tmp_path, 'networks = ["127.0.0.8/32"]\n', known):
        with AssessStore(tmp_path, create=True) as store:
            store.add_targets([TargetRow(address="127.0.0.9", ports=(9,))])
            with pytest.raises(ProbingStopped, match="outside the scope"):
                asyncio.run(work.probe(iter(store.waiting()), store))
            assert store.progress() == (0, 1)


def test_hosts_on_which_nothing_is_found_are_stored_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_MOST_EMPTY", 2)
    told: list[int] = []
    for work in work_of(tmp_path, 'dimse_ports = [9]\nweb_ports = []\nnetworks = ["127.0.0.8/29"]\n', load_known()):
        work.on_host = lambda: told.append(1)
        with AssessStore(tmp_path, create=True) as store:
            store.add_targets(TargetRow(address=f"127.0.0.{n}") for n in (9, 10, 11))
            asyncio.run(work.probe(iter(store.waiting()), store))
            assert store.progress() == (3, 3)
            assert store.reach_of("127.0.0.9") == "refused"
        assert len(told) == 3


def test_process_is_closed_to_others_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(hosts, "forbid_dumps", lambda: calls.append(1))
    for counting, expected in (("false", 0), ("true", 1)):
        text = f'[[network]]\ncidr = "127.0.0.8/32"\ncounting = {counting}\n'
        for _ in work_of(tmp_path / counting, text, load_known()):
            assert len(calls) == expected
