"""Pending moves and storage commitments: turns, restarts, and a disk that fails."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from dicomward.io.gateway import correlations as module
from dicomward.io.gateway.correlations import COMMITMENT_DAYS, CorrelationStore
from dicomward.relay.correlations import Ambiguous, PendingCommitment, PendingMove

SECONDS = 20.0
DAY = 86_400


class Health:
    """What a store says of itself."""

    def __init__(self) -> None:
        self.details: list[str] = []
        self.works = 0

    def worked(self) -> None:
        self.works += 1


Open = Callable[[], CorrelationStore]


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "correlations.db"


@pytest.fixture
def open_store(file: Path, health: Health) -> Iterator[Open]:
    """Open stores on one file, one after the other: opening the next closes the last."""
    opened: list[CorrelationStore] = []

    def open_next() -> CorrelationStore:
        while opened:
            opened.pop().close()
        opened.append(CorrelationStore(file, failed=health.details.append, works=health.worked))
        return opened[0]

    yield open_next
    while opened:
        opened.pop().close()


@pytest.fixture
def store(open_store: Open) -> CorrelationStore:
    return open_store()


def move(move_id: str = "m1", *, message_id: int = 1, destination: str = "WS1", archive: str = "pacs") -> PendingMove:
    return PendingMove(
        move_id=move_id,
        archive=archive,
        destination_ae_title=destination,
        originator_ae_title="WS1",
        message_id=message_id,
        device="ws1",
        called_ae_title="PACS",
        association="a1",
    )


def commitment(uid: str = "1.2.3", *, archive: str = "pacs", title: str = "CT1") -> PendingCommitment:
    return PendingCommitment(
        transaction_uid=uid, archive=archive, device=title.lower(), device_ae_title=title, called_ae_title="PACS"
    )


def register(store: CorrelationStore, pending: PendingCommitment) -> None:
    """Register a commitment and wait for its answer, which is never no."""
    answers: list[bool] = []
    over = threading.Event()

    def done(is_registered: bool) -> None:
        answers.append(is_registered)
        over.set()

    store.register_commitment(pending, done)
    assert over.wait(SECONDS)
    assert answers == [True]


def uids(store: CorrelationStore, archive: str = "pacs", title: str = "CT1") -> list[str]:
    return [pending.transaction_uid for pending in store.commitments_towards(archive, title)]


# -- moves -----------------------------------------------------------------------------------------------------------


def test_move_runs_at_once_where_nothing_is_in_its_way(store: CorrelationStore) -> None:
    turns: list[bool] = []
    store.register_move(move(), turns.append)
    assert turns == [True]
    assert store.moves_towards("pacs", "WS1") == [move()]
    assert store.moves_towards("pacs", "WS2") == []


def test_second_move_to_a_destination_waits_for_its_turn(store: CorrelationStore) -> None:
    turns: list[tuple[str, bool]] = []

    def request(name: str, message_id: int) -> None:
        store.register_move(move(name, message_id=message_id), lambda turn: turns.append((name, turn)))

    for message_id in (1, 2, 3):
        request(f"m{message_id}", message_id)
    assert turns == [("m1", True)]
    store.finish_move("m1")
    assert turns == [("m1", True), ("m2", True)]
    assert store.moves_towards("pacs", "WS1") == [move("m2", message_id=2)]


def test_move_that_ends_while_it_waits_never_gets_a_turn(store: CorrelationStore) -> None:
    turns: list[bool] = []
    store.register_move(move("m1"), lambda _turn: None)
    store.register_move(move("m2", message_id=2), turns.append)
    assert store.finish_move("m2") == 0
    store.finish_move("m1")
    assert turns == []
    assert store.moves_towards("pacs", "WS1") == []


def test_sub_operation_is_matched_and_what_was_refused_is_counted(store: CorrelationStore) -> None:
    store.register_move(move(), lambda _turn: None)
    assert store.match_move("pacs", "WS1", "WS1", 1) == move()
    assert store.match_move("pacs", "WS1", "WS1", 2) is None
    store.note_refused("m1")
    store.note_refused("m1")
    assert store.finish_move("m1") == 2
    assert store.finish_move("m1") == 0


def test_moves_run_side_by_side_once_the_archive_names_originators(store: CorrelationStore) -> None:
    turns: list[bool] = []
    store.register_move(move("m1"), turns.append)
    store.match_move("pacs", "WS1", "WS1", 1)
    store.register_move(move("m2", message_id=2), turns.append)
    assert turns == [True, True]
    assert store.match_move("pacs", "WS1", None, None) == Ambiguous()


# -- commitments -----------------------------------------------------------------------------------------------------


def test_commitment_is_pending_until_it_is_reported_on(store: CorrelationStore, health: Health) -> None:
    register(store, commitment())
    assert store.commitments_towards("pacs", "CT1") == [commitment()]
    assert store.commitments_towards("pacs", "CT2") == []
    assert store.commitments_towards("other", "CT1") == []
    store.finish_commitment("1.2.3", "other")
    assert uids(store) == ["1.2.3"]
    store.finish_commitment("1.2.3", "pacs")
    assert uids(store) == []
    assert health.details == []


def test_commitments_are_kept_over_a_restart(open_store: Open) -> None:
    store = open_store()
    register(store, commitment("1.2.1"))
    register(store, commitment("1.2.2"))
    register(store, commitment("1.2.2", title="MR1"))
    store.finish_commitment("1.2.1", "pacs")
    store = open_store()
    assert store.commitments_towards("pacs", "CT1") == [commitment("1.2.2")]
    assert store.commitments_towards("pacs", "MR1") == [commitment("1.2.2", title="MR1")]


def test_last_commitment_is_on_disk_when_the_store_has_closed(file: Path, health: Health) -> None:
    store = CorrelationStore(file, failed=health.details.append, works=health.worked)
    store.register_commitment(commitment(), lambda _is_registered: None)
    store.close()
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT transaction_uid, device_ae_title FROM commitment").fetchall()
    assert rows == [("1.2.3", "CT1")]


def test_commitment_that_is_asked_for_again_is_pending_once_and_the_newest(store: CorrelationStore) -> None:
    for uid in ("1.2.1", "1.2.2", "1.2.1"):
        register(store, commitment(uid))
    assert uids(store) == ["1.2.2", "1.2.1"]


def test_oldest_commitment_is_forgotten_where_a_device_has_too_many(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OF_A_DEVICE", 2)
    store = open_store()
    register(store, commitment("1.2.9", title="MR1"))
    for uid in ("1.2.1", "1.2.2", "1.2.3"):
        register(store, commitment(uid))
    for kept in (store, open_store()):
        assert uids(kept) == ["1.2.2", "1.2.3"]
        assert uids(kept, title="MR1") == ["1.2.9"]


def test_commitment_that_nobody_reports_on_is_forgotten_after_its_days(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(seconds=1_000_000_000.0)
    both = SimpleNamespace(time=lambda: clock.seconds, monotonic=lambda: clock.seconds)
    monkeypatch.setattr(module, "time", both)
    store = open_store()
    register(store, commitment("1.2.1"))
    register(store, commitment("1.2.1", title="MR1"))
    clock.seconds += DAY
    register(store, commitment("1.2.2"))
    clock.seconds += (COMMITMENT_DAYS - 1) * DAY
    register(store, commitment("1.2.3"))
    assert uids(store) == ["1.2.1", "1.2.2", "1.2.3"], "its last moment"
    clock.seconds += DAY - 1
    register(store, commitment("1.2.4"))
    assert "1.2.1" in uids(store), "it is looked after once a day"
    clock.seconds += 1
    register(store, commitment("1.2.5"))
    for kept in (store, open_store()):
        assert uids(kept) == ["1.2.2", "1.2.3", "1.2.4", "1.2.5"]
        assert uids(kept, title="MR1") == []


def test_clock_that_jumps_forgets_nothing(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year forward, by a mistake of NTP: no device may lose its pending commitments by it."""
    clock = SimpleNamespace(wall=1_000_000_000.0, monotonic=50.0)
    both = SimpleNamespace(time=lambda: clock.wall, monotonic=lambda: clock.monotonic)
    monkeypatch.setattr(module, "time", both)
    store = open_store()
    register(store, commitment("1.2.1"))
    clock.wall += 365 * DAY
    clock.monotonic += 2 * DAY
    register(store, commitment("1.2.2"))
    assert uids(store) == ["1.2.1", "1.2.2"]


# -- a disk that fails -----------------------------------------------------------------------------------------------


def test_file_that_cannot_be_opened_leaves_memory_only_and_is_said_once(
    open_store: Open, file: Path, health: Health, caplog: pytest.LogCaptureFixture
) -> None:
    file.mkdir()
    store = open_store()
    register(store, commitment("1.2.1"))
    register(store, commitment("1.2.2"))
    assert uids(store) == ["1.2.1", "1.2.2"]
    (detail,) = health.details
    assert detail.startswith(f"{file} can't be opened: ")
    assert "kept in memory only; free the disk or repair the file" in detail
    assert detail in caplog.text
    assert health.works == 0


def test_file_that_is_no_database_leaves_memory_only(open_store: Open, file: Path, health: Health) -> None:
    file.write_bytes(b"not a database" * 1000)
    store = open_store()
    register(store, commitment())
    assert uids(store) == ["1.2.3"]
    assert "file is not a database" in health.details[0]
    assert file.read_bytes() == b"not a database" * 1000, "what may be repaired isn't overwritten"


def test_what_came_in_the_meantime_is_on_disk_when_the_file_can_be_written_again(
    open_store: Open, file: Path, health: Health
) -> None:
    file.mkdir()
    store = open_store()
    register(store, commitment("1.2.1"))
    register(store, commitment("1.2.2"))
    store.finish_commitment("1.2.1", "pacs")
    file.rmdir()
    register(store, commitment("1.2.3"))
    assert health.works == 1
    register(store, commitment("1.2.4"))
    assert health.works == 1
    assert uids(open_store()) == ["1.2.2", "1.2.3", "1.2.4"]
    assert len(health.details) == 1


def test_commitments_of_before_are_read_when_the_file_comes_back(open_store: Open, file: Path, health: Health) -> None:
    store = CorrelationStore(file, failed=health.details.append, works=health.worked)
    register(store, commitment("1.2.1"))
    store.close()
    aside = file.with_name("aside")
    file.rename(aside)
    file.mkdir()
    store = open_store()
    register(store, commitment("1.2.2"))
    assert uids(store) == ["1.2.2"]
    file.rmdir()
    aside.rename(file)
    register(store, commitment("1.2.3"))
    assert sorted(uids(store)) == ["1.2.1", "1.2.2", "1.2.3"]
    assert health.works == 1
    assert sorted(uids(open_store())) == ["1.2.1", "1.2.2", "1.2.3"]


def test_write_that_fails_leaves_memory_only_until_one_succeeds(open_store: Open, file: Path, health: Health) -> None:
    store = open_store()
    register(store, commitment("1.2.1"))
    # A trigger is a disk that refuses: the file opens, and nothing can be added.
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TRIGGER full BEFORE INSERT ON commitment BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        database.commit()
    register(store, commitment("1.2.2"))
    assert uids(store) == ["1.2.1", "1.2.2"]
    assert health.details[0].startswith(f"{file} can't be written: disk full")
    register(store, commitment("1.2.3"))
    assert (len(health.details), health.works) == (1, 0)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT transaction_uid FROM commitment").fetchall() == [("1.2.1",)]
        database.execute("DROP TRIGGER full")
        database.commit()
    store.finish_commitment("1.2.2", "pacs")
    assert uids(open_store()) == ["1.2.1", "1.2.3"]
    assert health.works == 1


def test_device_that_takes_the_transaction_uid_of_another_takes_nothing_from_it(store: CorrelationStore) -> None:
    register(store, commitment("1.2.3"))
    register(store, commitment("1.2.3", title="CT2"))
    assert (uids(store), uids(store, title="CT2")) == (["1.2.3"], ["1.2.3"])
    store.finish_commitment("1.2.3", "pacs")
    assert (uids(store), uids(store, title="CT2")) == ([], [])


def test_turn_is_given_without_the_lock(store: CorrelationStore) -> None:
    """It takes the lock of another session, which may be waiting for this one."""
    locked: list[bool] = []
    store.register_move(move("m1"), lambda _granted: None)
    store.register_move(move("m2", message_id=2), lambda _granted: locked.append(store._lock.locked()))
    store.finish_move("m1")
    assert locked == [False]
