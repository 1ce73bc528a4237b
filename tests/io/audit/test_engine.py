"""What becomes of records when the disk is full, broken or slow: step by step, with a clock that stands still."""

import errno
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from dicomward.audit.chain import Checkpoint
from dicomward.audit.event import AssociationAllowed, AuditEvent
from dicomward.io.audit.engine import (
    AuditEngine,
    AuditHealth,
    AuditState,
    EngineLimits,
    Entry,
    Level,
    SystemClock,
)
from dicomward.io.audit.files import AuditLogBusyError
from dicomward.io.audit.read import segment_path
from dicomward.io.audit.second import Diversion
from dicomward.io.audit.store import AuditStore
from dicomward.vocab.reason import ReasonCode
from tests.io.audit_helpers import FailingFiles, FakeClock, MemorySink, event, records_of, short, story_of, verified

OK = AuditHealth(AuditState.OK)
FULL = AuditHealth(AuditState.DEGRADED, ReasonCode.AUDIT_DISK_FULL)
BROKEN = AuditHealth(AuditState.DEGRADED, ReasonCode.AUDIT_WRITE_FAILED)
NO_SINK = AuditHealth(AuditState.NO_SINK, ReasonCode.AUDIT_WRITE_FAILED)


class Bench:
    """An engine with everything around it."""

    def __init__(self, directory: Path, *, has_second: bool = True, **options: object) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.files = FailingFiles()
        self.sink = MemorySink()
        self.diversion = Diversion(self.sink)
        self.checkpoints: list[Checkpoint] = []
        limits = {"reserve_bytes": 8192, **options}
        self.store = AuditStore(directory, files=self.files, **limits)  # type: ignore[arg-type]
        self.engine = AuditEngine(
            self.store,
            self.diversion if has_second else None,
            clock=self.clock,
            limits=EngineLimits(sync_seconds=0.05, sync_records=8, checkpoint_records=100),
            on_checkpoint=self.checkpoints.append if has_second else None,
        )

    def write(
        self,
        *details: object,
        level: Level = Level.DURABLE,
        closing: bool = False,
        event_of: Callable[[object], AuditEvent] = event,
    ) -> bool:
        """One round of the writer, as the shell does it."""
        entries = [Entry(self.clock.time_ns(), event_of(each), level, None) for each in details]
        batch = self.engine.prepare(entries)
        is_written = self.engine.run(batch, closing=closing)
        return self.engine.settle(batch, is_written=is_written)

    def health(self) -> AuditHealth:
        return self.engine.health

    def due(self) -> float | None:
        return self.engine.due

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def story(self) -> list[str]:
        return story_of(self.directory)

    def diverted(self) -> list[str]:
        return [short(json.loads(line)) for line in self.sink.data.splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "audit")
    made.engine.open()
    assert made.health() == OK
    yield made
    made.engine.close()


def lines(*details: object) -> list[str]:
    return [f"DW-GW-START {each}" for each in details]


# --- all is well ------------------------------------------------------------------------------------------------------


def test_the_first_checkpoint_stands_before_the_first_record(bench: Bench) -> None:
    assert bench.due() == 0.0
    assert not (bench.directory / "checkpoint.key").exists()
    assert bench.write("a")
    assert [each.seq for each in bench.checkpoints] == [0]
    assert bench.story() == lines("a")
    assert verified(bench.directory).is_good


def test_durable_records_are_synced_at_once(bench: Bench) -> None:
    bench.write()
    bench.files.calls.clear()
    assert bench.write("a", "b", "c")
    assert bench.files.calls.count("sync") == 1
    assert bench.engine.unsettled == []


@pytest.mark.parametrize("level", [Level.QUEUED, Level.WRITTEN])
def test_others_are_written_at_once_and_synced_within_50_ms(bench: Bench, level: Level) -> None:
    bench.write()
    bench.files.calls.clear()
    assert bench.write("a", level=level)
    bench.wait(0.02)
    assert bench.write("b", level=level)
    assert bench.story() == lines("a", "b")
    assert bench.files.calls.count("sync") == 0
    assert len(bench.engine.unsettled) == 2
    assert bench.due() == pytest.approx(bench.clock.now + 0.03)
    bench.wait(0.03)
    assert bench.write()
    assert bench.files.calls.count("sync") == 1
    assert bench.engine.unsettled == []


def test_many_that_wait_for_a_sync_get_one_earlier(bench: Bench) -> None:
    bench.write()
    bench.files.calls.clear()
    assert bench.write(*range(5), level=Level.QUEUED)
    assert bench.files.calls.count("sync") == 0
    assert bench.write(*range(3), level=Level.QUEUED)
    assert bench.files.calls.count("sync") == 1


def test_a_checkpoint_follows_within_a_second_of_a_change(bench: Bench) -> None:
    bench.write()
    bench.write("a")
    assert bench.due() == bench.clock.now + 1
    bench.wait(0.9)
    bench.write("b")
    assert [each.seq for each in bench.checkpoints] == [0]
    bench.wait(0.1)
    bench.write()
    assert [each.seq for each in bench.checkpoints] == [0, 2]
    assert bench.due() is None
    bench.wait(100)
    bench.write()
    assert [each.seq for each in bench.checkpoints] == [0, 2]


def test_a_checkpoint_follows_after_so_many_records(bench: Bench) -> None:
    bench.write()
    bench.write(*range(99))
    assert [each.seq for each in bench.checkpoints] == [0]
    bench.write("one more")
    assert [each.seq for each in bench.checkpoints] == [0, 100]


def test_closing_syncs_and_signs(bench: Bench) -> None:
    bench.write()
    bench.write("a", level=Level.QUEUED, closing=True)
    assert [each.seq for each in bench.checkpoints] == [0, 1]
    assert bench.engine.unsettled == []


def test_segments_change_with_a_checkpoint_at_the_border(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "audit", segment_bytes=2000)
    bench.engine.open()
    for number in range(20):
        assert bench.write(number, level=Level.QUEUED)
    bench.write(closing=True)
    bench.engine.close()
    segments = sorted(bench.directory.glob("audit-*.jsonl"))
    assert len(segments) > 2
    report = verified(bench.directory)
    assert (report.is_good, report.records) == (True, 20)
    segments[0].unlink()
    assert verified(bench.directory, archived=True).is_good


def test_time_and_number_are_stamped_by_the_log(bench: Bench) -> None:
    entry = Entry(1_769_900_000_123_456_789, event("a"), Level.DURABLE, None)
    assert bench.engine.run(bench.engine.prepare([entry]))
    (record,) = records_of(bench.directory)
    assert (record.seq, record.time) == (1, "2026-01-31T22:53:20.123456Z")


def test_an_event_that_cannot_be_encoded_is_on_record_as_lost(bench: Bench) -> None:
    entries = [
        Entry(0, AssociationAllowed(device=7), Level.DURABLE, None),  # type: ignore[arg-type]
        Entry(0, event("good"), Level.DURABLE, None),
    ]
    batch = bench.engine.prepare(entries)
    assert [each.is_whole for each in batch] == [False, True]
    assert bench.engine.run(batch)
    assert bench.story() == ["DW-AUDIT-LOST internal-error", "DW-GW-START good"]


def test_the_store_is_for_one_process(bench: Bench) -> None:
    other = Bench(bench.directory)
    with pytest.raises(AuditLogBusyError):
        other.engine.open()


def test_the_machine_s_clock() -> None:
    clock = SystemClock()
    assert clock.time_ns() > 1_700_000_000 * 10**9
    assert clock.monotonic() <= clock.monotonic()


@pytest.mark.parametrize(
    "name", ["sync_seconds", "sync_records", "checkpoint_seconds", "checkpoint_records", "retry_seconds"]
)
def test_no_promise_can_be_switched_off(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        EngineLimits(**{name: 0})


# --- how it was found -------------------------------------------------------------------------------------------------


def test_a_crash_is_on_record_before_anything_else(bench: Bench) -> None:
    bench.write("a")
    bench.engine.close()
    path = segment_path(bench.directory, 1)
    path.write_bytes(path.read_bytes() + b'{"torn')
    after = Bench(bench.directory)
    after.engine.open()
    assert after.due() == 0.0
    after.write("b")
    after.write(closing=True)
    after.engine.close()
    assert after.story() == [
        *lines("a"),
        "DW-AUDIT-LOST audit-record-torn",
        "DW-AUDIT-LOST audit-not-closed",
        *lines("b"),
    ]
    assert verified(bench.directory).is_good


def test_the_first_signature_after_an_opening_is_not_hurried(bench: Bench) -> None:
    bench.write("a")
    bench.engine.close()
    after = Bench(bench.directory)
    after.engine.open()
    after.write("b")
    assert after.checkpoints == []
    after.wait(1)
    after.write()
    assert [each.seq for each in after.checkpoints] == [3]
    after.engine.close()


# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_written_on_with_the_reserve(bench: Bench) -> None:
    bench.write("a")
    assert (bench.directory / "reserve").exists()
    bench.files.fail("write", times=1, number=errno.ENOSPC)
    assert bench.write("b")
    assert bench.health() == FULL
    assert not (bench.directory / "reserve").exists()
    assert bench.write("c")
    assert bench.story() == [*lines("a", "b"), "DW-DEGR-ENTER audit-disk-full (reserve)", *lines("c")]
    assert bench.sink.data == b""
    # Space comes back.
    bench.wait(1)
    bench.write("d")
    bench.write("e")
    assert bench.health() == OK
    assert (bench.directory / "reserve").exists()
    assert bench.story()[4:] == [*lines("d"), "DW-DEGR-LEAVE audit-disk-full (reserve)", *lines("e")]
    assert verified(bench.directory).is_good


def test_without_space_for_the_reserve_the_log_is_degraded_from_the_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "audit")
    bench.files.fail("preallocate", number=errno.ENOSPC)
    bench.engine.open()
    assert bench.health() == FULL
    assert bench.write("a")
    assert bench.story() == ["DW-DEGR-ENTER audit-disk-full (reserve)", *lines("a")]
    assert bench.due() == pytest.approx(bench.clock.now + 1)
    bench.wait(1)
    bench.write()
    assert bench.health() == FULL
    assert len(bench.story()) == 2, "the alarm isn't repeated"
    bench.files.work()
    bench.wait(1)
    bench.write()
    assert bench.health() == OK
    bench.engine.close()


def test_when_the_reserve_is_used_up_records_go_to_the_second_sink_and_the_log_says_so_later(bench: Bench) -> None:
    bench.write("a")
    bench.files.fail("write", number=errno.ENOSPC)
    assert bench.write("b")
    assert bench.health() == FULL
    assert bench.write("c", "d")
    assert bench.diverted() == ["DW-DEGR-ENTER audit-disk-full", *lines("b", "c", "d")]
    assert bench.due() == bench.clock.now + 1
    assert bench.write("e")
    bench.wait(1)
    assert bench.write("f")
    assert bench.health() == FULL
    bench.files.work()
    bench.wait(1)
    digest = sha256(bench.sink.data).hexdigest()
    assert bench.write("g")
    assert bench.health() == OK
    assert bench.diverted()[4:] == lines("e", "f")
    assert bench.story() == [
        *lines("a"),
        "DW-DEGR-ENTER audit-disk-full (reserve)",
        "DW-DEGR-ENTER audit-disk-full",
        "DW-DEGR-LEAVE audit-disk-full",
        *lines("g"),
    ]
    left = records_of(bench.directory)[3].members
    assert (left["count"], left["sink_sha256"], left["state"]) == (6, digest, "degraded")
    assert left["first"] < records_of(bench.directory)[3].time  # type: ignore[operator]
    bench.write(closing=True)
    assert bench.story()[5:] == ["DW-DEGR-LEAVE audit-disk-full (reserve)"]
    assert verified(bench.directory).is_good


# --- a broken disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["write", "sync"])
def test_a_broken_disk_diverts_and_is_tried_every_second(bench: Bench, call: str) -> None:
    bench.write("a")
    bench.files.fail(call)
    assert bench.write("b")
    assert bench.health() == BROKEN
    assert bench.diverted() == ["DW-DEGR-ENTER audit-write-failed", *lines("b")]
    bench.files.calls.clear()
    bench.wait(0.9)
    assert bench.write("c")
    assert bench.files.calls == [], "not before its time"
    bench.wait(0.1)
    assert bench.write("d")
    assert bench.files.calls != []
    bench.files.work()
    bench.wait(1)
    assert bench.write("e")
    assert bench.health() == OK
    assert bench.story() == [
        *lines("a"),
        "DW-DEGR-ENTER audit-write-failed",
        "DW-DEGR-LEAVE audit-write-failed",
        *lines("e"),
    ]
    assert records_of(bench.directory)[2].members["count"] == 4
    bench.write(closing=True)
    assert verified(bench.directory).is_good


def test_records_that_were_written_but_not_synced_go_to_the_second_sink_too(bench: Bench) -> None:
    bench.write("a")
    assert bench.write("b", level=Level.QUEUED)
    assert bench.write("c", level=Level.WRITTEN)
    bench.files.fail("sync")
    bench.wait(0.05)
    assert bench.write("d", level=Level.QUEUED)
    assert bench.diverted() == ["DW-DEGR-ENTER audit-write-failed", *lines("b", "c", "d")]
    bench.files.work()
    bench.wait(1)
    bench.write()
    assert bench.story() == [
        *lines("a"),
        "DW-DEGR-ENTER audit-write-failed",
        "DW-DEGR-LEAVE audit-write-failed",
    ]


def test_a_log_that_cannot_be_opened_at_all_is_degraded_from_the_start(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "audit")
    bench.files.fail("make_directory")
    bench.engine.open()
    assert bench.health() == BROKEN
    assert bench.write("a")
    assert bench.diverted() == ["DW-DEGR-ENTER audit-write-failed", *lines("a")]
    bench.files.work()
    bench.wait(1)
    bench.write("b")
    assert bench.health() == OK
    assert bench.story()[-1:] == lines("b")
    bench.write(closing=True)
    bench.engine.close()
    assert verified(bench.directory).is_good


def test_a_directory_that_was_removed_is_made_again_and_the_gap_stays_visible(bench: Bench) -> None:
    bench.write("a", "b")
    bench.directory.rename(bench.directory.with_name("moved"))
    assert bench.write("c")
    assert bench.health() == BROKEN
    bench.wait(1)
    bench.write("d")
    assert bench.health() == OK
    assert bench.story() == [
        "DW-DEGR-ENTER audit-write-failed",
        "DW-SEC-ALERT audit-tail-missing",
        "DW-DEGR-LEAVE audit-write-failed",
        *lines("d"),
    ]
    assert records_of(bench.directory)[0].seq == 3
    bench.write(closing=True)
    assert not verified(bench.directory).is_good


def test_a_checkpoint_that_fails_does_not_lose_the_batch(bench: Bench) -> None:
    bench.write("a")
    bench.wait(1)
    bench.files.fail("sync", only="checkpoints")
    assert bench.write("b")
    assert bench.health() == BROKEN
    assert bench.story() == lines("a", "b")
    bench.files.work()
    bench.wait(1)
    bench.write()
    assert bench.health() == OK
    assert bench.diverted() == []


def test_what_was_only_written_when_a_checkpoint_failed_comes_back_into_the_log(bench: Bench) -> None:
    bench.write("a")
    bench.wait(1)
    bench.files.fail("sync", only="checkpoints")
    assert bench.write("b", level=Level.QUEUED)
    assert bench.health() == BROKEN
    assert bench.story() == lines("a"), "what isn't durable was cut off"
    bench.files.work()
    bench.wait(1)
    bench.write("c")
    assert bench.story() == [
        *lines("a"),
        "DW-DEGR-ENTER audit-write-failed",
        "DW-DEGR-LEAVE audit-write-failed",
        *lines("b", "c"),
    ]


def test_a_second_failure_while_recovering_loses_nothing_of_the_story(bench: Bench) -> None:
    bench.write("a")
    bench.files.fail("write")
    bench.write("b")
    for _ in range(3):
        bench.wait(1)
        bench.write()
    bench.files.work()
    bench.wait(1)
    bench.write("c")
    assert bench.story() == [
        *lines("a"),
        "DW-DEGR-ENTER audit-write-failed",
        "DW-DEGR-LEAVE audit-write-failed",
        *lines("c"),
    ]


def test_an_alarm_that_waits_for_a_place_is_not_doubled(bench: Bench) -> None:
    bench.write("a")
    bench.directory.rename(bench.directory.with_name("moved"))
    bench.files.fail("write")
    for _ in range(4):
        bench.write("b")
        bench.wait(1)
    bench.files.work()
    bench.write("c")
    assert bench.story() == [
        "DW-DEGR-ENTER audit-write-failed",
        "DW-SEC-ALERT audit-tail-missing",
        "DW-DEGR-LEAVE audit-write-failed",
        *lines("c"),
    ]


def test_notes_that_wait_for_a_place_are_bounded_and_counted(bench: Bench) -> None:
    bench.write("a")
    bench.files.fail("write")
    bench.write("b")
    for number in range(1000):
        bench.engine.note_stall(number * 10**9)
    bench.files.work()
    bench.wait(1)
    bench.write("c")
    bench.write("d")
    records = records_of(bench.directory)
    assert len(records) == 1 + 1 + 256 + 1 + 2
    assert records[1].members["count"] == 2000 - 255


# --- no sink ----------------------------------------------------------------------------------------------------------


def test_when_both_fail_nothing_is_kept_and_the_loss_is_counted(bench: Bench) -> None:
    bench.write("a")
    bench.files.fail("write")
    bench.sink.fails = True
    assert not bench.write("b", "c")
    assert bench.health() == NO_SINK
    assert not bench.write("d")
    bench.files.work()
    bench.wait(1)
    assert bench.write("e")
    assert bench.health() == OK
    assert bench.story() == [
        *lines("a"),
        "DW-AUDIT-LOST audit-write-failed",
        "DW-DEGR-ENTER audit-write-failed",
        "DW-DEGR-ENTER second sink of the audit log",
        "DW-DEGR-LEAVE audit-write-failed",
        *lines("e"),
    ]
    assert records_of(bench.directory)[1].members["count"] == 3


def test_the_second_sink_is_tried_again_even_when_nothing_happens(bench: Bench) -> None:
    bench.write("a")
    bench.files.fail("write")
    bench.sink.fails = True
    assert not bench.write("b")
    assert bench.health() == NO_SINK
    bench.wait(1)
    bench.write()
    assert bench.health() == NO_SINK
    bench.sink.fails = False
    bench.wait(1)
    bench.write()
    assert bench.health() == BROKEN
    assert bench.diverted() == ["DW-DEGR-ENTER audit-write-failed"]
    bench.files.work()
    bench.wait(1)
    bench.write()
    assert bench.story() == [
        *lines("a"),
        "DW-AUDIT-LOST audit-write-failed",
        "DW-DEGR-ENTER audit-write-failed",
        "DW-DEGR-ENTER second sink of the audit log",
        "DW-DEGR-LEAVE second sink of the audit log",
        "DW-DEGR-LEAVE audit-write-failed",
    ]


def test_a_sink_that_fails_only_later_is_probed_with_a_record_of_its_own(bench: Bench) -> None:
    bench.write("a")
    bench.files.fail("write")
    assert bench.write("b")
    bench.sink.fails = True
    assert not bench.write("c")
    assert bench.health() == NO_SINK
    bench.sink.fails = False
    bench.wait(1)
    bench.write()
    assert bench.health() == BROKEN
    assert bench.diverted() == ["DW-DEGR-ENTER audit-write-failed", *lines("b"), "DW-DEGR-ENTER audit log"]


def test_what_was_written_but_lost_its_log_is_kept_until_there_is_a_place(bench: Bench) -> None:
    bench.write("a")
    assert bench.write("b", level=Level.QUEUED)
    bench.files.fail("sync")
    bench.sink.fails = True
    bench.wait(0.05)
    bench.write()
    assert bench.health() == NO_SINK
    bench.files.work()
    bench.wait(1)
    bench.write()
    assert bench.story()[-1:] == lines("b")


def test_an_overflow_is_counted_first_thing(bench: Bench) -> None:
    bench.write("a")
    bench.engine.count_lost(7)
    assert bench.due() == 0.0
    bench.write("b")
    assert bench.story() == [*lines("a"), "DW-AUDIT-LOST audit-queue-full", *lines("b")]
    assert records_of(bench.directory)[1].members["count"] == 7


def test_without_a_second_sink_a_failure_is_no_sink(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "audit", has_second=False)
    bench.engine.open()
    bench.files.fail("write")
    assert not bench.write("a")
    assert bench.health() == NO_SINK
    bench.engine.note_stall(0)
    bench.files.work()
    bench.wait(1)
    assert bench.write("b")
    assert bench.health() == OK
    bench.engine.close()


# --- the key ----------------------------------------------------------------------------------------------------------


def test_a_key_that_cannot_be_used_is_an_alarm_not_an_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "audit")
    bench.directory.mkdir()
    (bench.directory / "checkpoint.key").write_bytes(b"x")
    (bench.directory / "checkpoint.key").chmod(0o600)
    bench.engine.open()
    assert bench.write("a")
    assert bench.health() == AuditHealth(AuditState.DEGRADED, ReasonCode.AUDIT_KEY_UNUSABLE)
    bench.write()
    assert bench.story() == ["DW-DEGR-ENTER audit-key-unusable", *lines("a")]
    assert bench.due() == pytest.approx(bench.clock.now + 1)
    bench.wait(1)
    bench.write()
    bench.write()
    assert len(bench.story()) == 2
    (bench.directory / "checkpoint.key").unlink()
    bench.wait(1)
    bench.write()
    bench.write()
    assert bench.health() == OK
    assert bench.story()[2:] == ["DW-DEGR-LEAVE audit-key-unusable"]
    bench.engine.close()


# --- stalls -----------------------------------------------------------------------------------------------------------


def test_after_a_stall_the_log_says_when_it_was_and_what_was_diverted(bench: Bench) -> None:
    bench.write("a")
    since = bench.clock.time_ns()
    bench.wait(5)
    batch = bench.engine.prepare([Entry(bench.clock.time_ns(), event("b"), Level.DURABLE, None)])
    assert bench.engine.divert([each.line for each in batch])
    digest = sha256(bench.sink.data).hexdigest()
    bench.engine.note_stall(since)
    assert bench.due() == 0.0
    bench.write("c")
    assert bench.story() == [*lines("a"), "DW-DEGR-ENTER audit-stalled", "DW-DEGR-LEAVE audit-stalled", *lines("c")]
    left = records_of(bench.directory)[2].members
    assert (left["count"], left["sink_sha256"], left["first"]) == (1, digest, "2026-01-31T23:10:00.000000Z")
    assert bench.diversion.diverted.count == 0
