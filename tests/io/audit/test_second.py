"""The second sink takes whole lines or none, never hangs, and its count and hash can be checked."""

import json
import os
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from dicomward.io.audit import second as audit_second
from dicomward.io.audit.second import Diversion, Diverted, FileSink, StderrSink
from tests.io.audit_helpers import MemorySink

EMPTY = sha256().hexdigest()


def test_lines_go_to_the_descriptor_in_pieces_that_cannot_block() -> None:
    reader, writer = os.pipe()
    StderrSink(writer).write(b"x" * 10_000)
    StderrSink(writer).close()
    assert os.read(reader, 20_000) == b"x" * 10_000
    os.close(reader)
    os.close(writer)


def test_a_pipe_that_nobody_reads_is_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_second, "_WRITE_WAIT_SECONDS", 0.001)
    reader, writer = os.pipe()
    with pytest.raises(TimeoutError, match="nobody reads"):
        StderrSink(writer).write(b"x" * 10_000_000)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        StderrSink(writer).write(b"x")
    os.close(writer)


def test_standard_error_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as file:
        monkeypatch.setattr(sys, "__stderr__", file)
        StderrSink().write(b"line\n")
    assert (tmp_path / "err").read_bytes() == b"line\n"
    monkeypatch.setattr(sys, "__stderr__", None)
    with pytest.raises(OSError, match="no standard error"):
        StderrSink().write(b"line\n")


def test_a_file_is_made_when_it_is_needed_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "second.jsonl"
    sink = FileSink(path)
    assert not path.exists()
    sink.write(b"one\n")
    sink.write(b"two\n")
    sink.close()
    sink.close()
    FileSink(path).write(b"three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "second.jsonl"
    sink = FileSink(path)
    sink.write(b"one\n")
    monkeypatch.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        sink.write(b"two\n")
    monkeypatch.undo()
    assert path.read_bytes() == b"one\n"
    sink.write(b"three\n")
    assert path.read_bytes() == b"one\nthree\n"


def test_a_file_that_cannot_even_be_cut_is_only_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    sink = FileSink(tmp_path / "second.jsonl")
    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(OSError, match="Input/output error"):
        sink.write(b"two\n")


def test_a_file_that_cannot_be_opened_is_an_error_each_time(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "missing" / "second.jsonl")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            sink.write(b"one\n")


def test_diverted_records_are_numbered_counted_and_hashed() -> None:
    sink = MemorySink()
    diversion = Diversion(sink)
    assert diversion.diverted == Diverted(0, EMPTY)
    assert diversion.write([("t1", {"code": "A"}), ("t2", {"code": "B"})])
    assert diversion.write([("t3", {"code": "C"})])
    lines = [json.loads(line) for line in sink.data.splitlines()]
    assert lines == [
        {"code": "A", "time": "t1", "sink": 1},
        {"code": "B", "time": "t2", "sink": 2},
        {"code": "C", "time": "t3", "sink": 3},
    ]
    assert diversion.diverted == Diverted(3, sha256(sink.data).hexdigest())
    diversion.close()
    assert sink.is_closed


def test_nothing_to_write_touches_nothing() -> None:
    sink = MemorySink()
    diversion = Diversion(sink)
    sink.fails = True
    assert diversion.write([])
    assert not diversion.write([("t", {"code": "A"})])
    assert not diversion.write([])


def test_what_the_sink_refused_is_not_counted() -> None:
    sink = MemorySink()
    diversion = Diversion(sink)
    sink.fails = True
    assert not diversion.write([("t1", {"code": "A"})])
    assert diversion.diverted.count == 0
    sink.fails = False
    assert diversion.write([("t2", {"code": "B"})])
    assert diversion.diverted == Diverted(1, sha256(sink.data).hexdigest())


def test_only_what_was_reported_is_forgotten() -> None:
    diversion = Diversion(MemorySink())
    assert diversion.write([("t1", {"code": "A"})])
    reported = diversion.diverted
    assert diversion.write([("t2", {"code": "B"})])
    diversion.forget(reported)
    assert diversion.diverted.count == 2
    diversion.forget(diversion.diverted)
    assert diversion.diverted == Diverted(0, EMPTY)
