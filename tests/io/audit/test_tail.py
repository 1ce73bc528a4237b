"""Reading the log from a record on, across segments, while it grows and while its beginning goes."""

from pathlib import Path

from dicomward.audit.chain import decode_checkpoint, decode_record
from dicomward.io.audit.read import list_segments
from dicomward.io.audit.tail import LogTail, last_checkpoint_line, last_seq
from tests.io.small_log import make_log


def numbers(tail: LogTail, most: int = 1000) -> list[int]:
    found = []
    for seq, line in tail.read(most):
        assert decode_record(line).seq == seq
        found.append(seq)
    return found


def test_from_any_record_on(tmp_path: Path) -> None:
    make_log(tmp_path, 12)
    assert len(list_segments(tmp_path)) > 3
    for after in (0, 1, 5, 11, 12):
        assert numbers(LogTail(tmp_path, after=after)) == list(range(after + 1, 13))


def test_in_batches_and_what_comes_later(tmp_path: Path) -> None:
    make_log(tmp_path, 6)
    tail = LogTail(tmp_path, after=0)
    assert numbers(tail, 4) == [1, 2, 3, 4]
    assert numbers(tail) == [5, 6]
    assert numbers(tail) == []
    make_log(tmp_path, 3)
    assert numbers(tail) == [7, 8, 9]


def test_a_record_that_is_being_written_waits(tmp_path: Path) -> None:
    make_log(tmp_path, 2)
    path = list_segments(tmp_path)[-1].path
    whole = path.read_bytes()
    tail = LogTail(tmp_path, after=0)
    path.write_bytes(whole[:-5])
    seen = numbers(tail)
    path.write_bytes(whole)
    assert seen + numbers(tail) == [1, 2]


def test_what_was_pruned_is_passed_over(tmp_path: Path) -> None:
    make_log(tmp_path, 12)
    segments = list_segments(tmp_path)
    segments[0].path.unlink()
    assert numbers(LogTail(tmp_path, after=0))[0] == segments[1].first_seq


def test_the_newest_record_and_checkpoint(tmp_path: Path) -> None:
    assert last_seq(tmp_path) == 0
    assert last_checkpoint_line(tmp_path) is None
    make_log(tmp_path, 3)
    assert last_seq(tmp_path) == 3
    line = last_checkpoint_line(tmp_path)
    assert line is not None
    assert decode_checkpoint(line).seq == 3
    (tmp_path / "checkpoints.jsonl").write_bytes(b"")
    assert last_checkpoint_line(tmp_path) is None
