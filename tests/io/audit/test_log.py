"""The log's threads: promises to callers, a queue with an end, disks that hang, and a process that is killed."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomward.audit.chain import Checkpoint, Record
from dicomward.audit.event import AssociationAllowed, ConnectionFailed
from dicomward.audit.search import Query
from dicomward.audit.strangers import CoalescingLimits
from dicomward.io.audit.engine import EngineLimits
from dicomward.io.audit.log import (
    AuditHealth,
    AuditLog,
    AuditLogBusyError,
    AuditLogError,
    AuditLogLimits,
    AuditState,
    append_offline,
)
from dicomward.io.audit.read import find_records, segment_path
from dicomward.vocab.reason import ReasonCode
from tests.io.audit_helpers import (
    FailingFiles,
    FakeClock,
    MemorySink,
    event,
    records_of,
    short,
    story_of,
    verified,
)

WAIT = 30.0  # nothing here takes so long; a test that gets there has failed
SMALL = {"reserve_bytes": 8192}
SOURCE = Path(__file__).parents[3]


class GatedFiles(FailingFiles):
    """Files whose `sync` of a segment hangs while the gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.is_held = threading.Event()

    def sync(self, descriptor: int) -> None:
        if not self.gate.is_set() and self._names[descriptor].startswith("audit-"):
            self.is_held.set()
            if not self.gate.wait(WAIT):
                raise OSError(errno.ETIMEDOUT, "the test never opened the gate")
        super().sync(descriptor)


class Answers:
    """Collects what `done` was called with."""

    def __init__(self, expected: int = 1) -> None:
        self.values: list[bool] = []
        self._expected = expected
        self._all = threading.Event()

    def __call__(self, value: bool) -> None:
        self.values.append(value)
        if len(self.values) >= self._expected:
            self._all.set()

    def wait(self) -> list[bool]:
        assert self._all.wait(WAIT), f"only {len(self.values)} of {self._expected} answers came"
        return self.values


class Desk:
    """A log with everything around it."""

    def __init__(self, directory: Path, **limits: object) -> None:
        self.directory = directory
        self.files = GatedFiles()
        self.sink = MemorySink()
        self.clock = FakeClock()
        self.healths: list[AuditHealth] = []
        self.checkpoints: list[Checkpoint] = []
        self.changed = threading.Condition()
        self.log = AuditLog(
            directory,
            second_sink=self.sink,
            listener=self._heard,
            on_checkpoint=self.checkpoints.append,
            limits=AuditLogLimits(**{**SMALL, **limits}),  # type: ignore[arg-type]
            files=self.files,
        )

    def _heard(self, health: AuditHealth) -> None:
        with self.changed:
            self.healths.append(health)
            self.changed.notify_all()

    def wait_for(self, state: AuditState, reason: ReasonCode | None = None) -> None:
        with self.changed:
            assert self.changed.wait_for(
                lambda: self.healths and self.healths[-1] == AuditHealth(state, reason), WAIT
            ), f"heard only {self.healths}"

    def durable(self, *details: object) -> list[bool]:
        answers = Answers(len(details))
        for each in details:
            self.log.append_durable(event(each), answers)
        return answers.wait()

    def hold(self) -> Answers:
        """Make the disk hang with one record on its way."""
        self.files.gate.clear()
        answers = Answers()
        self.log.append_durable(event("held"), answers)
        assert self.files.is_held.wait(WAIT)
        return answers

    def story(self) -> list[str]:
        return story_of(self.directory)

    def diverted(self) -> list[str]:
        return [short(json.loads(line)) for line in self.sink.data.splitlines()]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def made(**limits: object) -> Desk:
        desks.append(Desk(tmp_path / "audit", **limits))
        return desks[-1]

    yield made
    for each in desks:
        each.files.gate.set()
        each.files.work()
        each.log.close()


@pytest.fixture
def desk(make: Callable[..., Desk]) -> Desk:
    made = make()
    made.log.start()
    return made


def lines(*details: object) -> list[str]:
    return [f"DW-GW-START {each}" for each in details]


# --- promises ---------------------------------------------------------------------------------------------------------


def test_a_durable_record_is_in_the_log_when_its_caller_is_told(desk: Desk) -> None:
    seen: list[list[str]] = []
    told = threading.Event()

    def done(is_durable: bool) -> None:
        assert is_durable
        assert "sync" in desk.files.calls
        seen.append(desk.story())
        told.set()

    desk.log.append_durable(event("a"), done)
    assert told.wait(WAIT)
    assert seen == [lines("a")]


def test_a_written_record_is_in_the_log_when_its_caller_is_told(desk: Desk) -> None:
    answers = Answers()
    desk.log.append_written(event("a"), answers)
    assert answers.wait() == [True]
    assert desk.story() == lines("a")


def test_ordinary_records_are_synced_without_anybody_asking(make: Callable[..., Desk]) -> None:
    desk = make(engine=EngineLimits(checkpoint_seconds=3600))
    desk.log.start()
    desk.durable("a")
    desk.files.gate.clear()
    assert desk.log.append(event("b"))
    assert desk.files.is_held.wait(WAIT)
    assert desk.story() == lines("a", "b")


def test_a_signature_follows_without_anybody_asking(make: Callable[..., Desk]) -> None:
    signed = threading.Event()
    desk = make(engine=EngineLimits(checkpoint_seconds=0.001))
    desk.log._on_checkpoint = lambda checkpoint: signed.set() if checkpoint.seq else None
    desk.log.start()
    desk.log.append(event("a"))
    assert signed.wait(WAIT)


def test_all_that_wait_share_one_sync(desk: Desk) -> None:
    desk.durable("a")
    held = desk.hold()
    answers = Answers(200)
    for number in range(200):
        desk.log.append_durable(event(number), answers)
    desk.files.calls.clear()
    desk.files.gate.set()
    assert held.wait() == [True]
    assert answers.wait() == [True] * 200
    assert desk.files.calls.count("sync") <= 3


def test_records_of_one_thread_keep_their_order(desk: Desk) -> None:
    def work(name: str) -> None:
        for number in range(200):
            assert desk.log.append(event(f"{name}{number}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    desk.durable("end")
    story = desk.story()
    assert len(story) == 801
    for name in "abcd":
        assert [each for each in story if f" {name}" in each] == lines(*(f"{name}{n}" for n in range(200)))


def test_closing_writes_and_signs_everything(desk: Desk) -> None:
    for number in range(2000):
        assert desk.log.append(event(number))
    assert desk.log.close()
    assert desk.story() == lines(*range(2000))
    assert desk.checkpoints[-1].seq == 2000
    assert desk.sink.is_closed
    report = verified(desk.directory)
    assert (report.is_good, report.signed) == (True, 2000)


def test_after_closing_nothing_is_taken(desk: Desk) -> None:
    desk.log.close()
    assert not desk.log.append(event("late"))
    answers = Answers(2)
    desk.log.append_durable(event("late"), answers)
    desk.log.append_written(event("late"), answers)
    assert answers.values == [False, False]
    assert desk.log.close()
    assert desk.story() == []


def test_a_log_that_was_never_started_can_be_closed(make: Callable[..., Desk]) -> None:
    assert make().log.close()


def test_what_waited_before_the_start_is_written_after_it(make: Callable[..., Desk]) -> None:
    desk = make()
    answers = Answers()
    desk.log.append_durable(event("early"), answers)
    desk.log.start()
    assert answers.wait() == [True]


def test_a_second_gateway_is_refused(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(AuditLogBusyError):
        Desk(tmp_path / "audit").log.start()


def test_batches_are_bounded(make: Callable[..., Desk]) -> None:
    desk = make(batch_records=10)
    desk.log.start()
    answers = Answers(95)
    for number in range(95):
        desk.log.append_written(event(number), answers)
    assert answers.wait() == [True] * 95
    assert desk.story() == lines(*range(95))


def test_a_clock_that_was_set_back_makes_no_record_wait(make: Callable[..., Desk]) -> None:
    desk = make(engine=EngineLimits(sync_seconds=0.001, checkpoint_seconds=3600))
    desk.log.start()
    desk.durable("a")
    times = [2_000_000_000 * 10**9]
    desk.log._clock = type("Clock", (), {"time_ns": lambda _: times[0], "monotonic": desk.log._clock.monotonic})()
    desk.files.gate.clear()
    desk.log.append(event("b"))
    times[0] -= 3600 * 10**9
    assert desk.files.is_held.wait(WAIT)


# --- the end of the queue ---------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_and_the_loss_is_on_record(make: Callable[..., Desk]) -> None:
    desk = make(queue_records=10)
    desk.log.start()
    desk.durable("a")
    held = desk.hold()
    for number in range(10):
        assert desk.log.append(event(number))
    assert not desk.log.append(event("too many"))
    refused = Answers()
    desk.log.append_durable(event("too many"), refused)
    assert refused.values == [False], "before append_durable returned"
    desk.files.gate.set()
    assert held.wait() == [True]
    desk.durable("b")
    assert desk.story() == [*lines("a", "held"), "DW-AUDIT-LOST audit-queue-full", *lines(*range(10), "b")]
    assert records_of(desk.directory)[2].members["count"] == 2


# --- strangers --------------------------------------------------------------------------------------------------------


def failure(address: str = "192.0.2.1", device: str | None = None) -> ConnectionFailed:
    return ConnectionFailed(reason=ReasonCode.TLS_FAILED, address=address, device=device)


def test_trap_14_strangers_are_coalesced(desk: Desk) -> None:
    for _ in range(20_000):
        assert desk.log.append(failure())
    desk.durable("a")
    desk.log.close()
    assert desk.story() == ["DW-CONN-FAIL tls-failed", *lines("a"), "DW-CONN-COALESCE tls-failed"]
    assert records_of(desk.directory)[2].members["count"] == 19_999


def test_strangers_cannot_hide_the_failures_of_a_device(make: Callable[..., Desk]) -> None:
    desk = make(strangers=CoalescingLimits(records_per_minute=1))
    desk.log.start()
    for number in range(50):
        desk.log.append(failure(f"192.0.2.{number}"))
    desk.log.append(failure("192.0.2.99", "CT1"))
    desk.log.close()
    written = [each.members for each in records_of(desk.directory) if each.code == "DW-CONN-FAIL"]
    assert [(each["address"], each.get("device")) for each in written] == [("192.0.2.0", None), ("192.0.2.99", "CT1")]


def test_a_window_ends_without_anybody_asking(make: Callable[..., Desk]) -> None:
    desk = make(strangers=CoalescingLimits(window_seconds=0.2), engine=EngineLimits(checkpoint_seconds=0.001))
    coalesced = threading.Event()

    def look(_: Checkpoint) -> None:
        if "DW-CONN-COALESCE tls-failed" in desk.story():
            coalesced.set()

    desk.log._on_checkpoint = look
    desk.log.start()
    for _ in range(100):
        desk.log.append(failure())
    assert coalesced.wait(WAIT)


# --- failing ----------------------------------------------------------------------------------------------------------


def test_the_gateway_hears_of_failure_and_recovery(make: Callable[..., Desk]) -> None:
    desk = make(engine=EngineLimits(retry_seconds=0.001))
    desk.log.start()
    desk.durable("a")
    assert desk.healths == []
    desk.files.fail("write")
    assert desk.durable("b") == [True]
    desk.wait_for(AuditState.DEGRADED, ReasonCode.AUDIT_WRITE_FAILED)
    assert desk.log.degraded is ReasonCode.AUDIT_WRITE_FAILED
    assert desk.diverted() == ["DW-DEGR-ENTER audit-write-failed", *lines("b")]
    desk.sink.fails = True
    assert desk.durable("c") == [False]
    desk.wait_for(AuditState.NO_SINK, ReasonCode.AUDIT_WRITE_FAILED)
    desk.sink.fails = False
    desk.wait_for(AuditState.DEGRADED, ReasonCode.AUDIT_WRITE_FAILED)
    desk.files.work()
    desk.wait_for(AuditState.OK)
    assert desk.log.health == AuditHealth(AuditState.OK)
    assert desk.durable("d") == [True]
    desk.log.close()
    assert verified(desk.directory).is_good


def test_a_log_that_cannot_be_opened_starts_degraded(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file where the directory should be")
    desk = Desk(tmp_path / "audit")
    desk.log.start()
    assert desk.log.degraded is ReasonCode.AUDIT_WRITE_FAILED
    assert desk.durable("a") == [True]
    desk.log.close()
    assert desk.diverted() == ["DW-DEGR-ENTER audit-write-failed", *lines("a")]


def test_an_event_that_cannot_be_encoded_is_answered_with_no(desk: Desk) -> None:
    answers = Answers()
    desk.log.append_durable(AssociationAllowed(device=7), answers)  # type: ignore[arg-type]
    assert answers.wait() == [False]
    assert desk.durable("a") == [True]
    assert desk.story() == ["DW-AUDIT-LOST internal-error", *lines("a")]


def fails(*_: object) -> None:
    raise RuntimeError("a fault of the caller")


def test_a_fault_in_a_callback_does_not_stop_the_log(
    make: Callable[..., Desk], caplog: pytest.LogCaptureFixture
) -> None:
    desk = make()
    desk.log._listener = fails
    desk.log._on_checkpoint = fails
    desk.files.fail("preallocate")
    with caplog.at_level(logging.ERROR):
        desk.log.start()
        desk.log.append_durable(event("a"), fails)
        assert desk.durable("b") == [True]
        desk.log.close()
    assert desk.story() == ["DW-DEGR-ENTER audit-disk-full (reserve)", *lines("a", "b")]
    assert caplog.text.count("a fault of the caller") >= 3


def test_trap_8_a_fault_of_the_log_itself_is_never_taken_for_a_log_that_works(
    make: Callable[..., Desk], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make()
    answers = Answers(3)
    monkeypatch.setattr(desk.log._engine, "run", fails)
    with caplog.at_level(logging.ERROR):
        desk.log.append_durable(event("a"), answers)
        desk.log.append(event("b"))
        desk.log.start()
        desk.wait_for(AuditState.NO_SINK, ReasonCode.INTERNAL_ERROR)
        desk.log.append_durable(event("c"), answers)
        desk.log.append_written(event("d"), answers)
        assert answers.wait() == [False, False, False]
    assert not desk.log.append(event("e"))
    assert "an error of its own" in caplog.text


def test_a_fault_before_a_batch_is_on_its_way_answers_those_who_wait(
    make: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make()
    answers = Answers(2)
    release = threading.Event()

    def fail_later(*_: object) -> None:
        release.wait(WAIT)
        raise RuntimeError("a fault of ours")

    desk.log.append_durable(event("taken"), lambda _: None)
    monkeypatch.setattr(desk.log._engine, "prepare", fail_later)
    desk.log.start()
    for _ in range(2):
        desk.log.append_durable(event("waits"), answers)
    desk.log.append(event("waits"))
    release.set()
    assert answers.wait() == [False, False]


# --- a disk that hangs ------------------------------------------------------------------------------------------------


def stall(desk: Desk) -> threading.Thread:
    """Let the watcher find that the disk has hung for too long."""
    watcher = threading.Thread(target=desk.log.watch)
    watcher.start()
    return watcher


@pytest.fixture
def slow(make: Callable[..., Desk]) -> Desk:
    """A log whose watcher is called by the test alone, and calls every disk slow."""
    desk = make(stall_seconds=3600)
    desk.log.start()
    desk.durable("a")
    return desk


def declare_slow(desk: Desk) -> None:
    object.__setattr__(desk.log._limits, "stall_seconds", 0.0)


def test_a_disk_that_answers_in_time_is_left_alone(slow: Desk) -> None:
    slow.log.watch()
    held = slow.hold()
    slow.log.watch()
    assert slow.healths == []
    slow.files.gate.set()
    assert held.wait() == [True]


def test_while_the_disk_hangs_the_second_sink_takes_over(slow: Desk) -> None:
    slow.log.append_written(event("written"), lambda _: None)
    held = slow.hold()
    declare_slow(slow)
    watcher = stall(slow)
    assert held.wait() == [True]
    slow.wait_for(AuditState.DEGRADED, ReasonCode.AUDIT_STALLED)
    assert slow.durable("b", "c") == [True, True]
    slow.log.append(event("d"))
    assert slow.durable("e") == [True]
    assert slow.diverted()[-5:] == lines("held", "b", "c", "d", "e")
    slow.files.gate.set()
    watcher.join(WAIT)
    slow.wait_for(AuditState.OK)
    assert slow.durable("f") == [True]
    slow.log.close()
    story = slow.story()
    assert [each for each in story if "stalled" in each] == [
        "DW-DEGR-ENTER audit-stalled",
        "DW-DEGR-LEAVE audit-stalled",
    ]
    assert story[-1:] == lines("f")
    report = verified(slow.directory)
    assert report.is_good


def test_while_the_disk_hangs_and_the_second_sink_fails_nothing_is_promised(slow: Desk) -> None:
    held = slow.hold()
    declare_slow(slow)
    slow.sink.fails = True
    watcher = stall(slow)
    assert held.wait() == [False]
    slow.wait_for(AuditState.NO_SINK, ReasonCode.AUDIT_STALLED)
    assert slow.durable("b") == [False]
    slow.files.gate.set()
    watcher.join(WAIT)
    slow.wait_for(AuditState.OK)
    slow.log.close()
    assert "DW-AUDIT-LOST audit-queue-full" in slow.story()
    assert verified(slow.directory).is_good


def test_a_disk_that_hangs_and_then_fails(slow: Desk) -> None:
    held = slow.hold()
    declare_slow(slow)
    watcher = stall(slow)
    assert held.wait() == [True]
    slow.files.fail("sync")
    slow.files.gate.set()
    watcher.join(WAIT)
    slow.wait_for(AuditState.DEGRADED, ReasonCode.AUDIT_WRITE_FAILED)
    assert slow.durable("b") == [True]
    assert slow.diverted() == [*lines("held"), "DW-DEGR-ENTER audit-write-failed", *lines("b")]


def test_the_watcher_looks_by_itself(make: Callable[..., Desk]) -> None:
    desk = make(stall_seconds=0.002)
    desk.log.start()
    desk.durable("a")
    held = desk.hold()
    assert held.wait() == [True]
    assert desk.diverted()[-1:] == lines("held")


def test_closing_does_not_wait_for_ever_for_a_disk_that_hangs(slow: Desk) -> None:
    slow.hold()
    assert not slow.log.close(timeout=0.01)


# --- one event while no gateway runs ----------------------------------------------------------------------------------


def test_an_offline_event_is_durable_and_signed(tmp_path: Path) -> None:
    append_offline(tmp_path / "audit", event("a"))
    append_offline(tmp_path / "audit", event("b"), key_path=tmp_path / "audit" / "checkpoint.key")
    assert story_of(tmp_path / "audit") == lines("a", "b")
    report = verified(tmp_path / "audit")
    assert (report.is_good, report.signed) == (True, 2)


def test_an_offline_event_after_a_crash_tells_of_it(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    append_offline(directory, event("a"))
    path = segment_path(directory, 1)
    path.write_bytes(path.read_bytes() + b"torn")
    append_offline(directory, event("b"))
    assert story_of(directory) == [*lines("a"), "DW-AUDIT-LOST audit-record-torn", *lines("b")]
    assert verified(directory).is_good


def test_an_offline_event_is_refused_while_a_gateway_writes(desk: Desk) -> None:
    with pytest.raises(AuditLogBusyError):
        append_offline(desk.directory, event("a"))
    assert desk.durable("b") == [True]


def test_an_offline_event_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    files = FailingFiles()
    for call in ("open", "write", "sync"):
        files.work()
        files.fail(call)
        with pytest.raises(AuditLogError, match="Input/output error"):
            append_offline(tmp_path / "audit", event("a"), files=files)
    with pytest.raises(AuditLogError, match="wrong kind"):
        append_offline(tmp_path / "audit", AssociationAllowed(device=7))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["queue_records", "batch_records", "stall_seconds", "segment_bytes", "reserve_bytes"])
def test_no_limit_can_be_switched_off(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        AuditLogLimits(**{name: 0})  # type: ignore[arg-type]


# --- real processes ---------------------------------------------------------------------------------------------------


def run_python(program: str, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE / 'src'}:{SOURCE}"}
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


LIGHT = """
import sys
from pathlib import Path
from dicomward.audit.event import GatewayStarted
from dicomward.io.audit.log import AuditLog
log = AuditLog(Path(sys.argv[1]))
heavy = {"cryptography", "sqlalchemy", "pydicom", "ssl", "asyncio"} & set(sys.modules)
assert not heavy, heavy
log.start()
log.append(GatewayStarted())
log.close()
"""


def test_the_import_is_light(tmp_path: Path) -> None:
    process = run_python(LIGHT, str(tmp_path / "audit"))
    _, errors = process.communicate(timeout=WAIT)
    assert (process.returncode, errors) == (0, "")


ENDLESS = """
import sys, threading
from pathlib import Path
from dicomward.audit.event import GatewayStarted
from dicomward.io.audit.log import AuditLog
log = AuditLog(Path(sys.argv[1]))
log.start()
lock = threading.Lock()
def done(number):
    def told(ok):
        with lock:
            print(number, ok, flush=True)
    return told
number = 0
room = threading.Semaphore(64)
while True:
    room.acquire()
    def told(ok, say=done(number)):
        say(ok)
        room.release()
    log.append_durable(GatewayStarted(detail=str(number)), told)
    log.append(GatewayStarted(detail="ordinary"))
    number += 1
"""


def test_nothing_that_was_promised_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    promised: set[int] = set()
    for _ in range(3):
        process = run_python(ENDLESS, str(directory))
        assert process.stdout is not None
        heard = set()
        for line in process.stdout:
            number, ok = line.split()
            assert ok == "True"
            heard.add(int(number))
            if len(heard) == 500:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate(timeout=WAIT)
        promised |= heard
        kept = {str(each.members.get("detail")) for each in records_of_any(directory)}
        assert {str(each) for each in heard} <= kept
    append_offline(directory, event("after"))
    story = story_of(directory)
    assert [each for each in story if "audit-not-closed" in each]
    report = verified(directory)
    assert report.is_good
    assert report.signed == report.last
    assert len(promised) >= 500


def records_of_any(directory: Path) -> list[Record]:
    """The records of a log whose last line may be torn."""
    return [each for each in find_records(directory, Query(), None) if isinstance(each, Record)]


def test_a_record_that_was_torn_by_a_crash_is_kept_apart_and_told(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    append_offline(directory, event("a"))
    path = segment_path(directory, 1)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    desk = Desk(directory)
    desk.log.start()
    desk.durable("b")
    desk.log.close()
    assert desk.story() == [*lines("a"), "DW-AUDIT-LOST audit-record-torn", *lines("b")]
    lost = records_of(directory)[1].members
    assert lost["count"] == 1
    assert (directory / f"{path.name}.torn-1").read_bytes() == whole[: len(whole) // 2]
    assert verified(directory).is_good


FULL_DISK = """
import json, os, subprocess, sys, threading
from pathlib import Path
mount = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], check=True)
from dicomward.audit.event import GatewayStarted
from dicomward.io.audit.engine import EngineLimits
from dicomward.io.audit.log import AuditLog, AuditLogLimits
from dicomward.io.audit.second import FileSink
from dicomward.io.audit.verify import verify_directory
from tests.io.audit_helpers import story_of

healths = []
changed = threading.Condition()
def heard(health):
    with changed:
        healths.append(f"{health.state} {health.reason}")
        changed.notify_all()
def wait_for(text):
    with changed:
        assert changed.wait_for(lambda: healths and healths[-1] == text, 30), healths
second = Path(sys.argv[2])
log = AuditLog(
    mount / "audit",
    second_sink=FileSink(second),
    listener=heard,
    limits=AuditLogLimits(reserve_bytes=256 * 1024, engine=EngineLimits(retry_seconds=0.01)),
)
log.start()
def durable(number):
    answers, told = [], threading.Event()
    log.append_durable(GatewayStarted(detail=f"{number} " + "x" * 900), lambda ok: (answers.append(ok), told.set()))
    assert told.wait(30)
    return answers[0]
assert durable(0)
ballast = mount / "ballast"
with ballast.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        pass
# First on the reserve, then in the second sink; each record is kept somewhere.
number = 1
while not second.exists():
    assert durable(number)
    number += 1
    assert number < 5000
on_reserve = number - 1
assert durable(number)
reasons = set(healths)
ballast.unlink()
wait_for("ok None")
assert durable("end")
assert log.close()
report = verify_directory(mount / "audit").report
kept = [each.split()[1] for each in story_of(mount / "audit") if each.startswith("DW-GW-START")]
diverted = [json.loads(line) for line in second.read_bytes().splitlines()]
print(json.dumps({
    "good": report.is_good,
    "on_reserve": on_reserve,
    "reasons": sorted(reasons),
    "kept": len(kept),
    "diverted": len([each for each in diverted if each["code"] == "DW-GW-START"]),
    "all": number + 2,
    "story": [each for each in story_of(mount / "audit") if "DEGR" in each],
}))
"""


def can_mount() -> bool:
    """Say if this machine lets us mount a small file system of our own."""
    try:
        return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(
    not can_mount(), reason="a really full disk needs a mount namespace (unshare), so root or a user namespace"
)
def test_a_really_full_disk(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    process = run_python(
        FULL_DISK, str(mount), str(tmp_path / "second.jsonl"), prefix=("unshare", "--mount", "--propagation", "private")
    )
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    result = json.loads(output)
    assert result["good"]
    assert result["reasons"] == ["degraded audit-disk-full"]
    assert result["on_reserve"] >= 50
    assert result["kept"] + result["diverted"] == result["all"]
    assert result["story"][0] == "DW-DEGR-ENTER audit-disk-full (reserve)"
    assert "DW-DEGR-LEAVE audit-disk-full" in result["story"]
    assert result["story"][-1] == "DW-DEGR-LEAVE audit-disk-full (reserve)"


def test_a_file_size_limit_is_a_full_disk_too(tmp_path: Path) -> None:
    program = """
import resource, sys, threading
from pathlib import Path
from dicomward.io.audit.log import AuditLog, AuditLogLimits
from dicomward.io.audit.second import FileSink
from tests.io.audit_helpers import event
log = AuditLog(Path(sys.argv[1]), second_sink=FileSink(Path(sys.argv[2])), limits=AuditLogLimits(reserve_bytes=4096))
log.start()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
number = 0
while log.degraded is None:
    told, answers = threading.Event(), []
    log.append_durable(event(number), lambda ok: (answers.append(ok), told.set()))
    assert told.wait(30)
    assert answers == [True]
    number += 1
print(log.degraded)
"""
    process = run_python(program, str(tmp_path / "audit"), str(tmp_path / "second.jsonl"))
    output, errors = process.communicate(timeout=WAIT)
    assert (process.returncode, errors, output.strip()) == (0, "", "audit-disk-full")
    assert (tmp_path / "second.jsonl").exists()
