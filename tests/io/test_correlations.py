"""Pending moves in memory, storage commitments on disk: what outlives what, and what happens without a disk."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.io import correlations as correlations_module
from dicomward.io.correlations import CorrelationStore
from dicomward.relay.correlations import Ambiguous, PendingCommitment, PendingMove

SECONDS = 10.0
DAY = 86_400


class Health:
    """What the store has said of itself."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def failed(self, detail: str) -> None:
        self.said.append(detail)

    def works(self) -> None:
        self.said.append("works")


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "correlations.db"


def open_store(path: Path, health: Health) -> CorrelationStore:
    return CorrelationStore(path, failed=health.failed, works=health.works)


@pytest.fixture
def store(path: Path, health: Health) -> Iterator[CorrelationStore]:
    made = open_store(path, health)
    yield made
    made.close()


def commitment(uid: str = "1.2.3", *, device: str = "ct1", archive: str = "pacs") -> PendingCommitment:
    return PendingCommitment(
        transaction_uid=uid,
        archive=archive,
        device=device,
        device_ae_title=device.upper(),
        called_ae_title="PACS",
    )


def register(store: CorrelationStore, pending: PendingCommitment) -> None:
    """Register and wait for the disk."""
    done = threading.Event()
    granted: list[bool] = []

    def answer(is_granted: bool) -> None:
        granted.append(is_granted)
        done.set()

    store.register_commitment(pending, answer)
    assert done.wait(SECONDS)
    assert granted == [True]


def settled(store: CorrelationStore) -> None:
    store._writer.submit(lambda: None).result(SECONDS)


def uids(store: CorrelationStore, device: str = "CT1") -> list[str]:
    return [each.transaction_uid for each in store.commitments_towards("pacs", device)]


def move(move_id: str, message_id: int, *, originator: str = "CT1") -> PendingMove:
    return PendingMove(
        move_id=move_id,
        archive="pacs",
        destination_ae_title="WS1",
        originator_ae_title=originator,
        message_id=message_id,
        device="ct1",
        called_ae_title="PACS",
        association="a1",
    )


# -- moves -------------------------------------------------------------------------------------------------------------


def test_first_move_runs_and_the_second_gets_its_turn_when_the_first_has_ended(store: CorrelationStore) -> None:
    turns: list[str] = []
    store.register_move(move("m1", 1), lambda _granted: turns.append("m1"))
    store.register_move(move("m2", 2), lambda _granted: turns.append("m2"))
    assert turns == ["m1"]
    store.note_refused("m1")
    assert [each.move_id for each in store.moves_towards("pacs", "WS1")] == ["m1"]
    assert store.finish_move("m1") == 1
    assert turns == ["m1", "m2"]
    assert store.finish_move("m2") == 0


def test_move_that_ends_before_its_turn_is_never_called(store: CorrelationStore) -> None:
    turns: list[str] = []
    store.register_move(move("m1", 1), lambda _granted: turns.append("m1"))
    store.register_move(move("m2", 2), lambda _granted: turns.append("m2"))
    store.finish_move("m2")
    store.finish_move("m1")
    assert turns == ["m1"]


def test_sub_operations_are_matched(store: CorrelationStore) -> None:
    for number in (1, 2):
        store._moves.names_originator["pacs"] = True
        store.register_move(move(f"m{number}", number), lambda _granted: None)
    matched = store.match_move("pacs", "WS1", "CT1", 2)
    assert isinstance(matched, PendingMove)
    assert matched.move_id == "m2"
    assert isinstance(store.match_move("pacs", "WS1", None, None), Ambiguous)


def test_turn_is_called_without_the_lock(store: CorrelationStore) -> None:
    """It takes the lock of another session, which may be waiting for this one."""
    turns: list[bool] = []
    store.register_move(move("m1", 1), lambda _granted: None)
    store.register_move(move("m2", 2), lambda _granted: turns.append(store._lock.locked()))
    store.finish_move("m1")
    assert turns == [False]


# -- commitments -------------------------------------------------------------------------------------------------------


def test_commitment_survives_a_restart_until_it_is_reported_on(path: Path, health: Health) -> None:
    store = open_store(path, health)
    register(store, commitment("1.2.3"))
    register(store, commitment("1.2.4"))
    store.close()
    store = open_store(path, health)
    assert uids(store) == ["1.2.3", "1.2.4"]
    assert store.commitments_towards("pacs", "CT1")[0] == commitment("1.2.3")
    store.finish_commitment("1.2.3", "pacs")
    store.close()
    store = open_store(path, health)
    assert uids(store) == ["1.2.4"]
    store.close()
    assert health.said == []


def test_commitment_is_on_disk_when_it_is_granted(store: CorrelationStore, path: Path) -> None:
    """A gateway that is killed a moment later has promised nothing in vain."""
    register(store, commitment("1.2.3"))
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT transaction_uid FROM commitment").fetchall() == [("1.2.3",)]
    other.close()


def test_device_that_takes_the_transaction_uid_of_another_takes_nothing_from_it(store: CorrelationStore) -> None:
    register(store, commitment("1.2.3"))
    register(store, commitment("1.2.3", device="ct2"))
    assert uids(store) == ["1.2.3"]
    assert uids(store, "CT2") == ["1.2.3"]
    store.finish_commitment("1.2.3", "other-archive")
    assert uids(store) == ["1.2.3"]
    store.finish_commitment("1.2.3", "pacs")
    assert uids(store) == []


def test_same_commitment_twice_is_one(store: CorrelationStore) -> None:
    register(store, commitment("1.2.3"))
    register(store, commitment("1.2.3"))
    assert uids(store) == ["1.2.3"]


def test_device_cannot_fill_memory_or_disk(path: Path, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlations_module, "MOST_OF_A_DEVICE", 3)
    store = open_store(path, health)
    register(store, commitment("9.9", device="ct2"))
    for number in range(6):
        register(store, commitment(f"1.2.{number}"))
    assert uids(store) == ["1.2.3", "1.2.4", "1.2.5"]
    assert uids(store, "CT2") == ["9.9"]
    store.close()
    again = open_store(path, health)
    assert uids(again) == ["1.2.3", "1.2.4", "1.2.5"]
    again.close()


def test_what_nobody_will_report_on_is_forgotten(path: Path, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 14 days, also in a gateway that isn't restarted for years."""
    now = time.time()
    store = open_store(path, health)
    register(store, commitment("old"))
    monkeypatch.setattr(correlations_module.time, "time", lambda: now + 13 * DAY)
    register(store, commitment("new"))
    register(store, commitment("alone", device="ct2"))
    assert uids(store) == ["old", "new"]
    monkeypatch.setattr(correlations_module.time, "time", lambda: now + 14.5 * DAY)
    register(store, commitment("newest"))
    assert uids(store) == ["new", "newest"]
    monkeypatch.setattr(correlations_module.time, "time", lambda: now + 28 * DAY)
    register(store, commitment("last"))
    assert uids(store, "CT2") == []
    store.close()
    monkeypatch.setattr(correlations_module.time, "time", lambda: now + 28.5 * DAY)
    again = open_store(path, health)
    assert uids(again) == ["newest", "last"]
    again.close()


# -- without a disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def blocked(path: Path) -> Path:
    """A place where no file can be made: a directory has the name (also root can't open that)."""
    path.mkdir()
    return path


def test_gateway_starts_and_commitment_goes_on_without_a_disk(blocked: Path, health: Health) -> None:
    store = open_store(blocked, health)
    register(store, commitment("1.2.3"))
    register(store, commitment("1.2.4"))
    store.finish_commitment("1.2.3", "pacs")
    settled(store)
    assert uids(store) == ["1.2.4"]
    assert len(health.said) == 1
    assert "memory only" in health.said[0]
    store.close()


def test_disk_that_comes_back_gets_what_it_has_missed(blocked: Path, health: Health) -> None:
    store = open_store(blocked, health)
    register(store, commitment("1.2.3"))
    blocked.rmdir()
    register(store, commitment("1.2.4"))
    assert health.said[1:] == ["works"]
    store.close()
    again = open_store(blocked, health)
    assert uids(again) == ["1.2.3", "1.2.4"]
    again.close()


def test_disk_that_goes_away_for_a_while_ends_up_as_memory_is(
    path: Path, health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was reported on meanwhile must not come back with it."""
    store = open_store(path, health)
    register(store, commitment("before"))
    register(store, commitment("reported"))
    database = store._database
    assert database is not None
    # Every write fails as it does on a full disk.
    database.execute("PRAGMA max_page_count = 1")
    database.execute("PRAGMA query_only = ON")
    real = sqlite3.connect
    monkeypatch.setattr(correlations_module.sqlite3, "connect", _refuse)
    register(store, commitment("during"))
    store.finish_commitment("reported", "pacs")
    settled(store)
    assert len(health.said) == 1
    monkeypatch.setattr(correlations_module.sqlite3, "connect", real)
    register(store, commitment("after"))
    assert health.said[1:] == ["works"]
    store.close()
    again = open_store(path, health)
    assert uids(again) == ["before", "during", "after"]
    again.close()


def _refuse(*_arguments: object) -> sqlite3.Connection:
    raise sqlite3.OperationalError("unable to open database file")


def test_broken_file_is_told_and_left_alone(path: Path, health: Health) -> None:
    path.write_bytes(b"this is no database, but it may be evidence" * 100)
    before = path.read_bytes()
    store = open_store(path, health)
    register(store, commitment("1.2.3"))
    assert uids(store) == ["1.2.3"]
    assert len(health.said) == 1
    store.close()
    assert path.read_bytes() == before


def test_file_that_comes_back_loses_to_memory_and_adds_to_it(path: Path, health: Health) -> None:
    """The gateway started without its file, and finds it later."""
    store = open_store(path, health)
    register(store, commitment("on disk"))
    store.close()
    hidden = path.rename(path.with_suffix(".away"))
    path.mkdir()
    store = open_store(path, health)
    assert uids(store) == []
    register(store, commitment("in memory"))
    path.rmdir()
    hidden.rename(path)
    register(store, commitment("later"))
    assert sorted(uids(store)) == ["in memory", "later", "on disk"]
    store.close()
