"""Reading takes no lock, stops at what is being written, and finds the end of a damaged file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.audit.chain import GENESIS, MAX_RECORD_BYTES, Head, seal
from dicomward.audit.encode_json import event_members, format_time
from dicomward.audit.search import Query
from dicomward.io.audit.read import (
    Follower,
    Tail,
    find_records,
    find_tail,
    list_segments,
    read_checkpoint_lines,
    read_lines,
    segment_path,
)
from tests.io.audit_helpers import event

TIME = format_time(0)


def chain(count: int, head: Head = GENESIS) -> tuple[Head, list[bytes]]:
    lines = []
    for number in range(count):
        head, line = seal(head, TIME, event_members(event(number)))
        lines.append(line)
    return head, lines


def test_segments_are_sorted_and_nothing_else_is_one(tmp_path: Path) -> None:
    for name in (
        "audit-000000000123.jsonl",
        "audit-000000000001.jsonl",
        "audit-000000000001.jsonl.torn-1",
        "audit-1.jsonl",
        "checkpoints.jsonl",
        "lock",
    ):
        (tmp_path / name).touch()
    assert [(each.path.name, each.first_seq) for each in list_segments(tmp_path)] == [
        ("audit-000000000001.jsonl", 1),
        ("audit-000000000123.jsonl", 123),
    ]
    assert segment_path(tmp_path, 123) == tmp_path / "audit-000000000123.jsonl"


def test_lines_come_with_their_line_feeds(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"one\n\ntwo\nthr")
    assert list(read_lines(tmp_path / "f")) == [b"one\n", b"\n", b"two\n", b"thr"]


def test_a_last_line_that_grows_meanwhile_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\ntw")
    lines = read_lines(path)
    assert next(lines) == b"one\n"
    assert next(lines) == b"tw"
    with path.open("ab") as file:
        file.write(b"o\nthree\n")
    assert list(lines) == []


def test_a_line_longer_than_any_record_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 25 + b"\nend\n")
    assert list(read_lines(tmp_path / "f", max_bytes=9)) == [b"x" * 10, b"x" * 10, b"x" * 5 + b"\n", b"end\n"]


def test_reading_stops_where_the_file_ended_then(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jsonl"
    assert list(read_checkpoint_lines(path)) == []
    path.write_bytes(b"one\ntwo\n")
    lines = read_checkpoint_lines(path)
    with path.open("ab") as file:
        file.write(b"three\n")
    assert list(lines) == [b"one\n", b"two\n"]
    assert list(read_lines(path, end=6)) == [b"one\n", b"tw"]


def test_the_tail_of_a_whole_segment(tmp_path: Path) -> None:
    head, lines = chain(5)
    data = b"".join(lines)
    (tmp_path / "s").write_bytes(data)
    tail = find_tail(tmp_path / "s")
    assert tail.record is not None
    assert tail.record.head == head
    assert (tail.good_bytes, tail.bad_bytes, tail.bad_lines) == (len(data), 0, 0)


def test_the_tail_of_an_empty_segment(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    assert find_tail(tmp_path / "s") == Tail(None, 0, 0, 0)


@pytest.mark.parametrize(
    ("bad", "lines"),
    [
        (b'{"code":', 1),
        (b"garbage\n", 1),
        (b"garbage\nmore\n{", 3),
        (b"\0" * 4096, 1),
        (b"\n", 1),
        (b"x" * 200_000, 1),
        (b"x\n" * 100_000, 100_000),
    ],
)
def test_what_a_crash_left_after_the_last_record(tmp_path: Path, bad: bytes, lines: int) -> None:
    head, good = chain(3)
    data = b"".join(good)
    (tmp_path / "s").write_bytes(data + bad)
    tail = find_tail(tmp_path / "s")
    assert tail.record is not None
    assert tail.record.head == head
    assert (tail.good_bytes, tail.bad_bytes, tail.bad_lines) == (len(data), len(bad), lines)
    (tmp_path / "s").write_bytes(bad)
    assert find_tail(tmp_path / "s") == Tail(None, 0, len(bad), lines)


def test_a_tail_longer_than_the_first_look_is_found(tmp_path: Path) -> None:
    head, lines = chain(2000)
    (tmp_path / "s").write_bytes(b"".join(lines))
    tail = find_tail(tmp_path / "s")
    assert tail.record is not None
    assert tail.record.head == head
    assert tail.bad_bytes == 0


@given(st.integers(min_value=0, max_value=900), st.binary(max_size=40))
def test_the_tail_is_the_longest_prefix_of_whole_records_that_ends_in_one(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    _, lines = chain(4)
    data = b"".join(lines)
    path = tmp_path_factory.getbasetemp() / "s"
    path.write_bytes(data[:cut] + junk)
    tail = find_tail(path)
    whole = 0
    for line in lines:
        if whole + len(line) > len(data[:cut]):
            break
        whole += len(line)
    # What follows by chance could complete the record, nothing else could make it longer.
    assert tail.good_bytes in {whole, *(sum(map(len, lines[:n])) for n in range(5) if junk)}
    assert tail.good_bytes + tail.bad_bytes == len(data[:cut] + junk)


def write_segments(directory: Path, *counts: int) -> Head:
    head = GENESIS
    for count in counts:
        path = segment_path(directory, head.seq + 1)
        head, lines = chain(count, head)
        path.write_bytes(b"".join(lines))
    return head


def found(directory: Path, query: Query, limit: int | None) -> list[int | str]:
    return [each if isinstance(each, str) else each.seq for each in find_records(directory, query, limit)]


def test_the_newest_are_found_across_segments_oldest_first(tmp_path: Path) -> None:
    write_segments(tmp_path, 4, 3, 2)
    assert found(tmp_path, Query(), None) == list(range(1, 10))
    assert found(tmp_path, Query(), 4) == [6, 7, 8, 9]
    assert found(tmp_path, Query(), 2) == [8, 9]
    assert found(tmp_path, Query(text="1"), 99) == [2, 6, 9]


def test_damage_is_named_with_its_place(tmp_path: Path) -> None:
    write_segments(tmp_path, 3, 2)
    path = segment_path(tmp_path, 1)
    path.write_bytes(path.read_bytes().replace(b"DW-GW-START", b"DW-GW-STOP!", 1))
    damage = f"{path.name}:1: the record doesn't match its own hash: it was changed or damaged"
    assert found(tmp_path, Query(), None) == [damage, 2, 3, 4, 5]
    assert found(tmp_path, Query(), 3) == [damage, 3, 4, 5]
    assert found(tmp_path, Query(), 2) == [4, 5]


def test_following_begins_at_the_end_and_goes_on_across_segments(tmp_path: Path) -> None:
    head = write_segments(tmp_path, 2)
    follower = Follower(tmp_path)
    assert list(follower.read()) == []
    _, lines = chain(3, head)
    path = segment_path(tmp_path, 1)
    with path.open("ab") as file:
        file.write(lines[0] + lines[1][:10])
    assert list(follower.read()) == lines[:1]
    assert list(follower.read()) == []
    with path.open("ab") as file:
        file.write(lines[1][10:])
    segment_path(tmp_path, 5).write_bytes(lines[2])
    assert list(follower.read()) == lines[1:]
    assert list(follower.read()) == []


def test_following_an_empty_log_sees_its_first_record(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    assert list(follower.read()) == []
    write_segments(tmp_path, 2, 1)
    assert len(list(follower.read())) == 3


def test_a_record_of_the_greatest_length_is_one_line(tmp_path: Path) -> None:
    line = b"x" * MAX_RECORD_BYTES + b"\n"
    (tmp_path / "f").write_bytes(line * 2)
    assert list(read_lines(tmp_path / "f")) == [line, line]
