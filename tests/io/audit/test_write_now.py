"""`AuditLog.write_now`: records written in the caller's thread, and all that must not go wrong with it."""

import errno
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.io.audit.engine import EngineLimits
from dicomward.io.audit.log import AuditLog, AuditLogLimits, AuditState
from dicomward.vocab.reason import ReasonCode
from tests.io.audit.test_log import WAIT, Desk, lines
from tests.io.audit_helpers import FailingFiles, MemorySink, event, short, story_of, verified


class HangingWrites(FailingFiles):
    """Files whose `write` to a segment hangs while the gate is closed; then it fails if `then_fails`."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.is_held = threading.Event()
        self.then_fails = False

    def write(self, descriptor: int, data: bytes) -> None:
        if not self.gate.is_set() and self._names[descriptor].startswith("audit-"):
            self.is_held.set()
            if not self.gate.wait(WAIT) or self.then_fails:
                raise OSError(errno.EIO, "the disk is gone")
        super().write(descriptor, data)


class Hanging:
    """A log on a disk that hangs in a write of a worker, once the gate is closed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files, self.sink = HangingWrites(), MemorySink()
        self.states: list[AuditState] = []
        self.log = AuditLog(
            directory,
            second_sink=self.sink,
            listener=lambda health: self.states.append(health.state),
            limits=AuditLogLimits(reserve_bytes=8192, stall_seconds=3600),
            files=self.files,
        )
        self.log.start()
        written = threading.Event()
        self.log.append_durable(event("first"), lambda _: written.set())
        assert written.wait(WAIT)
        self.answers: list[bool | None] = []
        self.worker = threading.Thread(target=lambda: self.answers.append(now(self.log, "held")))

    def stall(self) -> threading.Thread:
        """Hang with one record in a worker's hands, and let the watcher find it."""
        self.files.gate.clear()
        self.worker.start()
        assert self.files.is_held.wait(WAIT)
        object.__setattr__(self.log._limits, "stall_seconds", 0.0)
        watcher = threading.Thread(target=self.log.watch)
        watcher.start()
        return watcher

    def durable(self, detail: str) -> bool:
        told = threading.Event()
        answers: list[bool] = []

        def done(value: bool) -> None:
            answers.append(value)
            told.set()

        self.log.append_durable(event(detail), done)
        assert told.wait(WAIT)
        return answers[0]

    def end(self, *threads: threading.Thread) -> None:
        self.files.gate.set()
        for each in (self.worker, *threads):
            each.join(WAIT)


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    made = Hanging(tmp_path / "audit")
    yield made
    made.files.gate.set()
    made.log.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "audit", engine=EngineLimits(checkpoint_seconds=3600))
    made.log.start()
    made.durable("a")
    yield made
    made.files.gate.set()
    made.files.work()
    made.log.close()


def now(log: AuditLog, detail: str) -> bool | None:
    """Write now; a writer that is busy with its own work is given time to finish it."""
    answer: bool | None = None
    tries = threading.Event()
    for _ in range(1000):
        answer = log.write_now(event(detail))
        if answer is not None:
            break
        tries.wait(0.001)
    return answer


def test_a_record_is_in_the_log_when_the_call_returns(desk: Desk) -> None:
    assert now(desk.log, "b") is True
    assert desk.story() == lines("a", "b")


def test_what_waits_comes_before_it(desk: Desk) -> None:
    desk.log.append(event("b"))
    desk.log.append(event("c"))
    assert now(desk.log, "d") is True
    assert desk.story() == lines("a", "b", "c", "d")


def test_it_is_synced_without_anybody_asking(desk: Desk) -> None:
    now(desk.log, "b")
    desk.files.gate.clear()
    desk.files.is_held.clear()
    now(desk.log, "c")
    assert desk.files.is_held.wait(WAIT)


def test_it_is_signed_at_the_end(desk: Desk) -> None:
    now(desk.log, "b")
    assert desk.log.close()
    report = verified(desk.directory)
    assert (report.is_good, report.signed) == (True, 2)


def test_records_of_many_threads_form_one_chain(desk: Desk) -> None:
    def work(name: str) -> None:
        for number in range(100):
            if desk.log.write_now(event(f"{name}{number}")) is None:
                desk.log.append(event(f"{name}{number}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    desk.durable("end")
    story = desk.story()
    assert len(story) == 402
    for name in "abcd":
        mine = [each for each in story if each.startswith(f"DW-GW-START {name}") and each[-1].isdigit()]
        assert mine == lines(*(f"{name}{number}" for number in range(100)))
    assert verified(desk.directory).is_good


def test_nothing_is_done_while_the_writer_writes(desk: Desk) -> None:
    held = desk.hold()
    assert desk.log.write_now(event("b")) is None
    desk.files.gate.set()
    assert held.wait() == [True]
    assert desk.story() == lines("a", "held")


def test_nothing_is_done_where_somebody_waits_for_a_sync(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "audit")
    desk.log.append_durable(event("a"), lambda _: None)
    assert desk.log.write_now(event("b")) is None


def test_nothing_is_done_before_the_log_is_open(tmp_path: Path) -> None:
    assert Desk(tmp_path / "audit").log.write_now(event("a")) is None


def test_nothing_is_done_after_closing(desk: Desk) -> None:
    desk.log.close()
    assert desk.log.write_now(event("b")) is None


def test_nothing_is_done_where_a_segment_is_nearly_full(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "audit", segment_bytes=4096)
    desk.log.start()
    desk.durable("a")
    assert desk.log.write_now(event("b")) is None
    desk.log.close()


def test_an_event_that_cannot_be_encoded_is_answered_with_no(desk: Desk) -> None:
    assert desk.log.write_now(event("b").__class__(detail=5)) is not True  # type: ignore[arg-type]
    desk.durable("c")
    assert "DW-AUDIT-LOST internal-error" in desk.story()


def test_a_write_that_fails_goes_to_the_second_sink(desk: Desk) -> None:
    desk.files.fail("write", only="audit-")
    assert now(desk.log, "b") is True
    desk.wait_for(AuditState.DEGRADED, ReasonCode.AUDIT_WRITE_FAILED)
    assert desk.diverted()[-1:] == lines("b")
    desk.files.work()
    desk.wait_for(AuditState.OK)
    assert verified(desk.directory).is_good


def test_a_write_that_nothing_takes_is_answered_with_no(desk: Desk) -> None:
    desk.sink.fails = True
    desk.files.fail("write", only="audit-")
    assert now(desk.log, "b") is False
    desk.wait_for(AuditState.NO_SINK, ReasonCode.AUDIT_WRITE_FAILED)


def test_trap_8_a_fault_of_the_log_itself_is_never_taken_for_a_log_that_works(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(desk.log._engine, "write", fails)
    with caplog.at_level(logging.ERROR):
        assert now(desk.log, "b") is False
    desk.wait_for(AuditState.NO_SINK, ReasonCode.INTERNAL_ERROR)
    assert "an error of its own" in caplog.text
    assert not desk.log.append(event("c"))
    assert desk.log.write_now(event("d")) is None


def test_while_a_worker_hangs_in_a_write_the_second_sink_serves_everybody_else(hanging: Hanging) -> None:
    watcher = hanging.stall()
    assert hanging.durable("b")
    assert hanging.log.write_now(event("c")) is None
    assert hanging.states[-1:] == [AuditState.DEGRADED]
    hanging.end(watcher)
    assert hanging.answers == [True]
    assert hanging.durable("d")
    assert [each for each in map(short, _diverted(hanging)) if "START" in each] == lines("held", "b")
    hanging.log.close()
    assert hanging.states[-1:] == [AuditState.OK]
    assert verified(hanging.directory).is_good
    assert "DW-DEGR-LEAVE audit-stalled" in story_of(hanging.directory)


def test_a_write_that_hangs_and_then_fails_is_kept_in_the_second_sink(hanging: Hanging) -> None:
    hanging.files.then_fails = True
    watcher = hanging.stall()
    assert hanging.durable("b")
    hanging.end(watcher)
    assert hanging.answers == [True]
    assert hanging.durable("d")


def test_a_write_that_hangs_while_nothing_else_takes_it_is_answered_with_no(hanging: Hanging) -> None:
    hanging.sink.fails = True
    watcher = hanging.stall()
    assert not hanging.durable("b")
    hanging.end(watcher)
    assert hanging.answers == [False]


def _diverted(hanging: Hanging) -> list[dict[str, object]]:
    return [json.loads(line) for line in hanging.sink.data.splitlines()]
