"""The files after every kind of end: in order, in the middle of a record, on a full or broken disk."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.audit.chain import GENESIS, Head, seal
from dicomward.audit.encode_json import event_members, format_time
from dicomward.audit.opening import Opened, Torn
from dicomward.io.audit.files import AuditLogBusyError
from dicomward.io.audit.key import AuditKeyError
from dicomward.io.audit.read import find_tail, segment_path
from dicomward.io.audit.store import AuditStore
from tests.io.audit_helpers import FailingFiles, event, lines_of, records_of, verified

TIME = format_time(1_769_900_000_000_000_000)


_stores: list[AuditStore] = []


@pytest.fixture(autouse=True)
def _close_all() -> Iterator[None]:
    yield
    for store in _stores:
        store.close()
    _stores.clear()


def store_in(directory: Path, **options: object) -> AuditStore:
    _stores.append(AuditStore(directory, **{"reserve_bytes": 4096, **options}))  # type: ignore[arg-type]
    return _stores[-1]


def looked_at(directory: Path) -> Opened:
    """Open the log, and close it again."""
    store = store_in(directory)
    try:
        return store.open()
    finally:
        store.close()


def is_open(store: AuditStore) -> bool:
    return store.is_open


def sealed(head: Head, count: int = 1) -> tuple[Head, bytes]:
    data = b""
    for _ in range(count):
        head, line = seal(head, TIME, event_members(event(head.seq + 1)))
        data += line
    return head, data


def write(store: AuditStore, count: int = 1, *, sync: bool = True) -> None:
    head, data = sealed(store.head, count)
    store.write(data, head)
    if sync:
        store.sync()


def closed_log(directory: Path, count: int = 3) -> AuditStore:
    store = store_in(directory)
    store.open()
    store.checkpoint(TIME)
    write(store, count)
    store.checkpoint(TIME)
    store.close()
    return store


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def test_a_new_log(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    store = store_in(directory)
    assert not is_open(store)
    opened = store.open()
    assert is_open(store)
    assert (opened.head, opened.checkpoint, opened.torn, opened.vanished) == (GENESIS, None, None, 0)
    assert opened.is_new
    assert not opened.key_is_exposed
    assert directory.stat().st_mode & 0o777 == 0o700
    assert names(directory) == ["audit-000000000001.jsonl", "checkpoints.jsonl", "lock"]
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in directory.iterdir())


def test_records_are_there_again_after_closing(tmp_path: Path) -> None:
    closed = closed_log(tmp_path)
    store = store_in(tmp_path)
    opened = store.open()
    assert opened.head == store.head == store.durable_head == closed.head
    assert opened.head.seq == 3
    assert not opened.is_new
    assert opened.checkpoint is not None
    assert opened.checkpoint.seq == store.signed_seq == 3
    write(store)
    store.checkpoint(TIME)
    assert verified(tmp_path).is_good
    assert [each.seq for each in records_of(tmp_path)] == [1, 2, 3, 4]


def test_written_is_not_durable_before_sync(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.open()
    write(store, 2, sync=False)
    assert (store.head.seq, store.durable_head.seq) == (2, 0)
    assert store.checkpoint(TIME).seq == 0
    store.sync()
    assert store.durable_head == store.head
    assert store.checkpoint(TIME).seq == store.signed_seq == 2


def test_there_is_one_writer(tmp_path: Path) -> None:
    first = store_in(tmp_path)
    first.open()
    second = store_in(tmp_path)
    with pytest.raises(AuditLogBusyError):
        second.open()
    assert not second.is_open
    first.close()
    second.open()
    assert second.is_open


@pytest.mark.parametrize(
    ("torn", "lines"), [(b'{"code":"DW', 1), (b"\0\0\0\0", 1), (b"garbage\n", 1), (b"garbage\nand more\n{", 3)]
)
def test_a_torn_end_is_cut_off_and_kept(tmp_path: Path, torn: bytes, lines: int) -> None:
    head = closed_log(tmp_path).head
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    store = store_in(tmp_path)
    opened = store.open()
    assert opened.head == head
    assert opened.torn == Torn(f"{path.name}.torn-1", len(torn), lines)
    assert path.read_bytes() == whole
    assert (tmp_path / f"{path.name}.torn-1").read_bytes() == torn
    write(store)
    store.checkpoint(TIME)
    store.close()
    assert verified(tmp_path).is_good
    # The next one has a name of its own.
    path.write_bytes(path.read_bytes() + torn)
    again = looked_at(tmp_path).torn
    assert again is not None
    assert again.names == f"{path.name}.torn-2"


def test_a_crash_in_the_first_record_ever(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.open()
    store.checkpoint(TIME)
    store.close()
    segment_path(tmp_path, 1).write_bytes(b'{"co')
    opened = store.open()
    assert (opened.head, opened.torn is not None) == (GENESIS, True)
    write(store)
    assert verified(tmp_path).is_good


def test_a_crash_in_the_first_record_of_a_new_segment(tmp_path: Path) -> None:
    head = closed_log(tmp_path).head
    segment_path(tmp_path, 4).write_bytes(b'{"co')
    store = store_in(tmp_path)
    opened = store.open()
    assert opened.head == head
    assert opened.torn == Torn("audit-000000000004.jsonl.torn-1", 4, 1)
    write(store)
    store.checkpoint(TIME)
    assert verified(tmp_path).is_good


def test_a_crash_right_after_a_new_segment_was_made(tmp_path: Path) -> None:
    head = closed_log(tmp_path).head
    segment_path(tmp_path, 4).touch()
    store = store_in(tmp_path)
    opened = store.open()
    assert (opened.head, opened.torn) == (head, None)
    write(store)
    store.checkpoint(TIME)
    assert verified(tmp_path).is_good


def test_torn_ends_of_several_segments_are_added_up(tmp_path: Path) -> None:
    head = closed_log(tmp_path).head
    path = segment_path(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b"a\nb")
    segment_path(tmp_path, 4).write_bytes(b"c")
    store = store_in(tmp_path)
    opened = store.open()
    assert opened.head == head
    assert opened.torn == Torn("audit-000000000001.jsonl.torn-1, audit-000000000004.jsonl.torn-1", 4, 3)
    write(store)
    store.checkpoint(TIME)
    assert verified(tmp_path).is_good


@settings(max_examples=40, deadline=None)
@given(st.integers(min_value=0, max_value=2000), st.binary(max_size=30))
def test_any_cut_and_any_junk_leave_a_log_that_goes_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    directory = tmp_path_factory.mktemp("audit")
    store = store_in(directory)
    store.open()
    store.checkpoint(TIME)
    write(store, 4)
    store.close()
    path = segment_path(directory, 1)
    data = path.read_bytes()
    path.write_bytes(data[:cut] + junk)
    expected = find_tail(path)
    opened = looked_at(directory)
    assert opened.head == (expected.record.head if expected.record else GENESIS)
    again = store_in(directory)
    again.open()
    write(again)
    again.close()
    assert verified(directory).is_good
    assert [each.seq for each in records_of(directory)] == list(range(1, opened.head.seq + 2))


def test_a_torn_checkpoint_is_cut_off(tmp_path: Path) -> None:
    closed_log(tmp_path)
    path = tmp_path / "checkpoints.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"hash":')
    store = store_in(tmp_path)
    opened = store.open()
    assert opened.checkpoint is not None
    assert opened.checkpoint.seq == 3
    assert path.read_bytes() == whole
    write(store)
    store.checkpoint(TIME)
    assert verified(tmp_path).is_good


def test_the_newest_checkpoint_is_found_among_many_and_past_damage(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.open()
    for _ in range(30):
        store.checkpoint(TIME)
        write(store)
    store.checkpoint(TIME)
    store.close()
    path = tmp_path / "checkpoints.jsonl"
    assert path.stat().st_size > 4096
    opened = looked_at(tmp_path)
    assert opened.checkpoint is not None
    assert opened.checkpoint.seq == 30
    path.write_bytes(path.read_bytes() + b"{}\n")
    opened = looked_at(tmp_path)
    assert opened.checkpoint is not None
    assert opened.checkpoint.seq == 30


def test_no_checkpoint_can_be_read(tmp_path: Path) -> None:
    closed_log(tmp_path)
    (tmp_path / "checkpoints.jsonl").write_bytes(b"{}\n")
    opened = looked_at(tmp_path)
    assert (opened.checkpoint, opened.is_new) == (None, False)


def test_an_exposed_key_is_reported(tmp_path: Path) -> None:
    closed_log(tmp_path)
    (tmp_path / "checkpoint.key").chmod(0o644)
    assert looked_at(tmp_path).key_is_exposed


def test_the_key_may_be_elsewhere(tmp_path: Path) -> None:
    store = store_in(tmp_path / "audit", key_path=tmp_path / "signing.key")
    store.open()
    store.checkpoint(TIME)
    assert (tmp_path / "signing.key").exists()
    assert not (tmp_path / "audit" / "checkpoint.key").exists()


def test_segments_are_changed_without_a_gap_in_the_chain(tmp_path: Path) -> None:
    store = store_in(tmp_path, segment_bytes=1000)
    store.open()
    assert not store.needs_rotation(5000), "a record that is longer than a segment gets one of its own"
    store.checkpoint(TIME)
    for _ in range(10):
        head, data = sealed(store.head)
        if store.needs_rotation(len(data)):
            store.sync()
            store.checkpoint(TIME)
            store.rotate()
        store.write(data, head)
    store.sync()
    store.checkpoint(TIME)
    store.close()
    segments = [each for each in names(tmp_path) if each.startswith("audit-")]
    assert len(segments) > 2
    assert all((tmp_path / each).stat().st_size <= 1000 for each in segments)
    report = verified(tmp_path)
    assert report.is_good
    assert report.records == 10
    # A border has a checkpoint, so the older segments can go.
    (tmp_path / segments[0]).unlink()
    assert not verified(tmp_path).is_good
    assert verified(tmp_path, archived=True).is_good
    assert looked_at(tmp_path).head == store.head


def test_a_write_that_fails_leaves_no_half_record(tmp_path: Path) -> None:
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    store.open()
    write(store, 2)
    files.fail("write", times=1, number=errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        write(store)
    assert store.is_open
    assert store.head.seq == 2
    write(store)
    store.close()
    assert [each.seq for each in records_of(tmp_path)] == [1, 2, 3]


def test_a_half_record_that_cannot_be_cut_off_closes_the_log_and_is_cut_at_the_next_opening(tmp_path: Path) -> None:
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    store.open()
    write(store, 2)
    files.fail("write")
    files.fail("truncate")
    with pytest.raises(OSError, match="Input/output error"):
        write(store)
    assert not store.is_open
    with pytest.raises(OSError, match="isn't open"):
        write(store)
    with pytest.raises(OSError, match="Input/output error"):
        store.open()
    files.work()
    opened = store.open()
    assert (opened.head.seq, opened.torn) == (2, None)
    write(store)
    store.close()
    assert [each.seq for each in records_of(tmp_path)] == [1, 2, 3]


def test_abandoning_cuts_off_what_is_not_durable(tmp_path: Path) -> None:
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    store.open()
    write(store, 2)
    write(store, 3, sync=False)
    files.fail("sync")
    with pytest.raises(OSError, match="Input/output error"):
        store.sync()
    store.abandon()
    files.work()
    assert [each.seq for each in records_of(tmp_path)] == [1, 2]
    opened = store.open()
    assert (opened.head.seq, opened.torn, opened.vanished) == (2, None, 0)


def test_what_could_not_be_cut_off_is_cut_before_anything_else_is_written(tmp_path: Path) -> None:
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    store.open()
    write(store, 2)
    write(store, 3, sync=False)
    files.fail("truncate")
    store.abandon()
    assert len(lines_of(tmp_path)) == 5
    files.work()
    assert store.open().head.seq == 2
    assert len(lines_of(tmp_path)) == 2


def test_remains_that_went_away_by_themselves_are_forgotten(tmp_path: Path) -> None:
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    store.open()
    write(store, 1, sync=False)
    files.fail("truncate")
    store.abandon()
    files.work()
    path = segment_path(tmp_path, 1)
    path.write_bytes(b"")
    store.open()
    write(store, 1, sync=False)
    files.fail("truncate")
    store.abandon()
    files.work()
    path.unlink()
    assert store.open().head == GENESIS


def test_records_that_vanished_leave_a_gap_that_verify_sees(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    store = store_in(directory)
    store.open()
    store.checkpoint(TIME)
    write(store, 4)
    store.checkpoint(TIME)
    directory.rename(tmp_path / "moved")
    store.abandon()
    opened = store.open()
    assert (opened.vanished, opened.head.seq, opened.is_new) == (4, 4, False)
    write(store)
    store.checkpoint(TIME)
    store.close()
    assert [each.seq for each in records_of(directory)] == [5]
    assert not verified(directory).is_good


@pytest.mark.parametrize("name", ["audit-000000000001.jsonl", "checkpoints.jsonl", ""])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_that_is_not_in_its_place_any_more_is_a_failure(tmp_path: Path, name: str, replaced: bool) -> None:
    """Nobody would find what is written: removed by a cleaning job, or moved away by one that rotates logs."""
    directory = tmp_path / "audit"
    store = store_in(directory)
    store.open()
    write(store, 2)
    (directory / name).rename(tmp_path / "moved")
    if replaced:
        directory.mkdir(exist_ok=True)
        (directory / (name or "audit-000000000001.jsonl")).touch()
    with pytest.raises(OSError, match=r"replaced by another|No such file"):
        write(store, 1)
    store.abandon()
    opened = store.open()
    assert opened.head.seq == 2
    write(store, 1)
    store.close()


@pytest.mark.parametrize(
    "call", ["make_directory", "open", "sync_directory", "truncate", "sync", "write", "unlink", "lock"]
)
def test_an_opening_that_fails_leaves_nothing_open(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed_log(tmp_path)
    path = segment_path(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b"torn")
    segment_path(tmp_path, 4).write_bytes(b"torn")
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    if call == "lock":
        monkeypatch.setattr(files, "lock", lambda _: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks")))
    else:
        files.fail(call)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"Input/output error|No locks"):
        store.open()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not store.is_open
    files.work()
    monkeypatch.undo()
    assert store.open().head.seq == 3


def test_a_new_segment_that_cannot_be_made(tmp_path: Path) -> None:
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    store.open()
    write(store, 2)
    files.fail("open")
    with pytest.raises(OSError, match="Input/output error"):
        store.rotate()
    files.work()
    files.fail("sync_directory")
    with pytest.raises(OSError, match="Input/output error"):
        store.rotate()
    store.abandon()
    files.work()
    store.open()
    write(store)
    store.close()
    assert [each.seq for each in records_of(tmp_path)] == [1, 2, 3]


def test_a_checkpoint_that_cannot_be_written_leaves_no_half_line(tmp_path: Path) -> None:
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    with pytest.raises(OSError, match="isn't open"):
        store.checkpoint(TIME)
    store.open()
    store.checkpoint(TIME)
    write(store)
    for call in ("write", "sync"):
        files.fail(call, only="checkpoints")
        with pytest.raises(OSError, match="Input/output error"):
            store.checkpoint(TIME)
        files.work()
    assert store.signed_seq == 0
    store.abandon()
    store.open()
    store.checkpoint(TIME)
    assert verified(tmp_path).is_good


def test_a_key_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.key").write_bytes(b"x")
    store = store_in(tmp_path)
    store.open()
    with pytest.raises(AuditKeyError):
        store.checkpoint(TIME)
    write(store)
    assert len(records_of(tmp_path)) == 1


def test_the_reserve_takes_space_and_gives_it_back_once(tmp_path: Path) -> None:
    store = store_in(tmp_path, reserve_bytes=65_536)
    assert not store.release_reserve()
    assert store.renew_reserve()
    assert store.renew_reserve()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 65_536
    assert store.release_reserve()
    assert not (tmp_path / "reserve").exists()
    assert not store.release_reserve()


def test_a_reserve_for_which_there_is_no_space_leaves_nothing_behind(tmp_path: Path) -> None:
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    files.fail("preallocate", number=errno.ENOSPC)
    assert not store.renew_reserve()
    assert not (tmp_path / "reserve").exists()
    files.work()
    assert store.renew_reserve()
    files.fail("unlink")
    assert not store.release_reserve()


def test_closing_twice_and_a_close_that_fails_do_no_harm(tmp_path: Path) -> None:
    files = FailingFiles()
    store = store_in(tmp_path, files=files)
    store.open()
    write(store)
    files.fail("close")
    store.close()
    files.work()
    store.close()
    store.abandon()
    assert not is_open(store)
    assert store.open().head.seq == 1
