"""Work of many threads in one commit: nobody is answered before it is stored, and a refusal is one's own."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, func, select
from sqlalchemy.exc import OperationalError

from dicomward.enrolment.renewal import RenewalState
from dicomward.io.ca.store import RenewalRow, put_renewal, renewal_of
from dicomward.io.registry.group_commit import MOST_TOGETHER, GroupCommit
from dicomward.io.registry.store import RegistryStore, RegistryStoreError
from dicomward.io.registry.tables import RENEWALS
from tests.io.ca_helpers import TERMS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RegistryStore]:
    with RegistryStore.open(f"sqlite:///{tmp_path / 'r.db'}", create=True, keeps_connections=True) as opened:
        yield opened


def row(name: str) -> RenewalRow:
    return RenewalRow(device=name, state=RenewalState.OPEN, life=TERMS.life, key_kinds=("rsa",))


def count(store: RegistryStore) -> int:
    with store.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(RENEWALS)).scalar_one())


def commits_of(store: RegistryStore) -> list[object]:
    seen: list[object] = []
    event.listen(store._engine, "commit", seen.append)
    return seen


def crowd(group: GroupCommit, store: RegistryStore, number: int) -> list[str | RegistryStoreError | ValueError]:
    """Let so many threads wait for one that has its turn; every third is refused."""
    began, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> str:
        began.set()
        assert go_on.wait(20)
        put_renewal(connection, row("slow"))
        return "slow"

    def work(index: int) -> str | RegistryStoreError | ValueError:
        def put(connection: Connection) -> str:
            put_renewal(connection, row(f"d{index}"))
            if index % 3 == 0:
                raise ValueError(f"d{index} is refused")
            return f"d{index}"

        try:
            return group.run(put)
        except (RegistryStoreError, ValueError) as error:
            return error

    with ThreadPoolExecutor(number + 1) as pool:
        first = pool.submit(group.run, slow)
        assert began.wait(20)
        others = [pool.submit(work, index) for index in range(number)]
        while len(group._waiting) < number:
            threading.Event().wait(0.005)
        go_on.set()
        assert first.result() == "slow"
        return [other.result() for other in others]


def test_a_crowd_shares_commits_and_each_gets_its_own_answer(store: RegistryStore) -> None:
    commits = commits_of(store)
    number = MOST_TOGETHER + 8
    results = crowd(GroupCommit(store), store, number)
    assert len(commits) == 3
    for index, result in enumerate(results):
        assert str(result) == (f"d{index} is refused" if index % 3 == 0 else f"d{index}")
    assert count(store) == 1 + sum(index % 3 != 0 for index in range(number))


def test_a_commit_that_fails_is_everybodys_failure(store: RegistryStore) -> None:
    group = GroupCommit(store)
    group.run(lambda connection: put_renewal(connection, row("kept")))

    def fail(_connection: object) -> None:
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    event.listen(store._engine, "commit", fail)
    with pytest.raises(RegistryStoreError, match="disk is full"):
        group.run(lambda connection: put_renewal(connection, row("lost")))
    event.remove(store._engine, "commit", fail)
    with store.reading() as connection:
        assert renewal_of(connection, "lost") is None
        assert renewal_of(connection, "kept") is not None
    group.run(lambda connection: put_renewal(connection, row("later")))


def test_what_the_database_refuses_is_refused_alone(store: RegistryStore) -> None:
    def twice(connection: Connection) -> None:
        put_renewal(connection, row("x"))
        connection.execute(
            RENEWALS.insert().values(device="x", state="open", life_seconds=1, key_kinds="rsa", held_detail="")
        )

    with pytest.raises(RegistryStoreError, match="UNIQUE constraint failed"):
        GroupCommit(store).run(twice)
    assert count(store) == 0


def test_a_disk_that_is_full_in_the_middle_ends_the_transaction(store: RegistryStore) -> None:
    def full(_connection: Connection) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with pytest.raises(RegistryStoreError, match="disk is full"):
        GroupCommit(store).run(full)
