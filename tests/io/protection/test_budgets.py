"""Budgets on disk: kept before anything is sent, through kill -9, a lost file, a disk that hangs."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomward.audit.event import AuditEvent, BudgetEnded, BudgetWarned, SecurityAlert
from dicomward.io.protection import budgets as module
from dicomward.io.protection.budgets import BudgetClock, BudgetDatabase, BudgetFileError, BudgetStore, Hasher, read_key
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.budgets import Charge, Holder, ItemRow, Measure, Span, SumRow
from dicomward.vocab.reason import ReasonCode

SECONDS = 20.0
R1 = Holder("r1", "research")


class Place:
    """A directory with a store, what it has told, and a clock that stands."""

    def __init__(self, directory: Path, **numbers: object) -> None:
        self.directory = directory
        self.settings = BudgetSettings(device=numbers)
        self.told: list[str] = []
        self.records: list[AuditEvent] = []
        self.now = 1_700_000_000.0
        self.changed = threading.Condition()
        self.store = self.open()

    def open(self) -> BudgetStore:
        return BudgetStore(
            self.directory,
            self.settings,
            failed=lambda detail: self.tell(f"failed: {detail}"),
            works=lambda: self.tell("works"),
            record=self.records.append,
            clock=BudgetClock(wall=lambda: self.now, steady=lambda: 0.0),
        )

    def tell(self, text: str) -> None:
        with self.changed:
            self.told.append(text)
            self.changed.notify_all()

    def wait_for(self, what: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(what, SECONDS), self.told

    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    def used(self, measure: Measure, holder: Holder = R1) -> int:
        usage = self.store.usage(holder)
        return next(each.used for each in usage if (each.measure, each.span) == (measure, Span.HOUR))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.store.close()


def kept(store: BudgetStore) -> None:
    over = threading.Event()
    store.keep(over.set)
    assert over.wait(SECONDS)


def test_what_was_charged_is_there_after_a_restart(place: Place) -> None:
    patient, study = place.store.patient("pacs", b"4711"), place.store.study("pacs", b"1.2")
    place.store.charge((R1,), Charge(patients=(patient,), studies=(study,), matches=2, bytes=100))
    place.store.refund((R1,), 40, int(place.now // 60))
    place.reopen()
    assert [place.used(measure) for measure in Measure] == [1, 1, 2, 60]
    # The key is the same, so is the patient.
    place.store.charge((R1,), Charge(patients=(place.store.patient("pacs", b"4711"),)))
    assert place.used(Measure.PATIENTS) == 1


def test_no_identifier_of_a_patient_is_on_disk(place: Place) -> None:
    place.store.charge((R1,), Charge(patients=(place.store.patient("pacs", b"PATIENT-4711"),)))
    kept(place.store)
    for path in place.directory.iterdir():
        assert b"PATIENT-4711" not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.suffix != ".db"


def test_hashes_differ_by_kind_archive_and_key() -> None:
    one, other = Hasher(b"a" * 32), Hasher(b"b" * 32)
    assert len({one("patient", "pacs", b"1"), one("study", "pacs", b"1"), one("patient", "ris", b"1"),
                other("patient", "pacs", b"1")}) == 4  # fmt: skip
    assert 0 <= one("patient", "pacs", b"1") < 2**63


KILLED = """
import sys, threading
from pathlib import Path
from dicomward.io.protection.budgets import BudgetStore
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.budgets import Charge, Holder
store = BudgetStore(Path(sys.argv[1]), BudgetSettings(), failed=print, works=print, record=print)
for number in range(1_000_000):
    store.charge((Holder("r1", "research"),), Charge(patients=(number,), matches=1), forced=True)
    over = threading.Event()
    store.keep(over.set)
    over.wait()
    print(number + 1, flush=True)
"""


def test_a_kill_at_any_moment_forgets_nothing_that_could_have_been_sent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        for _ in range(50):
            last = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        sent = int((last + process.stdout.read()).split()[-1])
    database = BudgetDatabase(tmp_path / "budgets.db")
    rows = database.rows()
    database.close()
    patients = sum(isinstance(row, ItemRow) for row in rows)
    matches = sum(row.amount for row in rows if isinstance(row, SumRow) and row.span is Span.DAYS_30)
    assert sent >= 50
    # What is on disk and was not sent is one charge at most.
    assert sent <= patients <= sent + 1
    assert patients == matches


def test_a_file_that_cannot_be_opened_leaves_the_floor_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.02)
    (tmp_path / "budgets.db").mkdir()
    place = Place(tmp_path)
    try:
        assert place.store.lost is ReasonCode.BUDGETS_UNAVAILABLE
        assert len(place.told) == 1
        assert "only the clinical floor is left" in place.told[0]
        assert place.store.charge((R1,), Charge(matches=1)).refused is ReasonCode.BUDGETS_UNAVAILABLE
        assert place.store.check((R1,), Charge(matches=1)) is ReasonCode.BUDGETS_UNAVAILABLE
        # Under a bypass it is counted, and nobody waits for the file.
        assert place.store.charge((R1,), Charge(matches=3), forced=True).refused is None
        kept(place.store)
        (tmp_path / "budgets.db").rmdir()
        place.wait_for(lambda: place.told[-1] == "works")
        place.reopen()
        assert place.used(Measure.MATCHES) == 3
    finally:
        place.store.close()


def test_an_empty_key_is_made_anew(tmp_path: Path) -> None:
    """What a crash or a full disk may have left was never counted with."""
    path = tmp_path / "budgets.key"
    path.touch()
    key = read_key(path)
    assert len(key) == 32
    assert read_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["budgets.key"]


@pytest.mark.parametrize("broken", ["budgets.db", "budgets.key"])
def test_a_damaged_file_is_not_thrown_away(tmp_path: Path, broken: str) -> None:
    (tmp_path / broken).write_bytes(b"this is neither a key nor a database" * 100)
    place = Place(tmp_path)
    place.store.close()
    assert place.store.lost is ReasonCode.BUDGETS_UNAVAILABLE
    assert (tmp_path / broken).read_bytes().startswith(b"this is neither")


def test_a_write_that_fails_is_made_up_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.02)
    fails = True
    real = BudgetDatabase.put

    def put(self: BudgetDatabase, *args: object, **options: object) -> None:
        if fails:
            raise sqlite3.OperationalError("database or disk is full")
        real(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(BudgetDatabase, "put", put)
    place.store.charge((R1,), Charge(patients=(1,), matches=1))
    kept(place.store)
    place.wait_for(lambda: any("disk is full" in text for text in place.told))
    fails = False
    place.wait_for(lambda: place.told[-1] == "works")
    place.reopen()
    assert (place.used(Measure.PATIENTS), place.used(Measure.MATCHES)) == (1, 1)


def test_a_disk_that_hangs_holds_nobody_up_for_long(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.1)
    place.reopen()
    answers = threading.Event()
    real = BudgetDatabase.put

    def put(self: BudgetDatabase, *args: object, **options: object) -> None:
        answers.wait(SECONDS)
        real(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(BudgetDatabase, "put", put)
    place.store.charge((R1,), Charge(patients=(1,)))
    kept(place.store)
    place.wait_for(lambda: any("has not answered" in text for text in place.told))
    assert place.store.lost is ReasonCode.BUDGETS_UNAVAILABLE
    kept(place.store)
    answers.set()
    place.wait_for(lambda: place.told[-1] == "works")
    place.reopen()
    assert place.used(Measure.PATIENTS) == 1


def test_a_reset_is_on_disk_when_it_is_answered(place: Place) -> None:
    place.store.charge((R1, Holder("ws1", "workstation")), Charge(patients=(1,), matches=1))
    over = threading.Event()
    assert place.store.reset("r1", over.set) is True
    assert over.wait(SECONDS)
    place.reopen()
    assert place.store.devices() == ["ws1"]
    assert place.store.reset("r1", over.set) is False


def test_alarms_are_recorded_once(tmp_path: Path) -> None:
    place = Place(tmp_path, patients_per_hour=5, at_end="refuse")
    try:
        for patient in range(8):
            place.store.charge((R1,), Charge(patients=(patient,)))
        place.store.lease((R1,), 10)
    finally:
        place.store.close()
    kinds = [type(record) for record in place.records]
    assert kinds == [BudgetWarned, SecurityAlert, BudgetEnded, SecurityAlert]
    warned, ended = place.records[0], place.records[2]
    assert isinstance(warned, BudgetWarned)
    assert isinstance(ended, BudgetEnded)
    assert (warned.device, warned.role, warned.measure, warned.period) == ("r1", "research", "patients", "hour")
    assert (warned.count, warned.budget, warned.action, warned.reason) == (4, 5, "refuse", ReasonCode.PATIENT_BUDGET)
    assert (ended.count, ended.budget) == (5, 5)


def test_what_is_old_leaves_the_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    database = BudgetDatabase(place.directory / "old.db")
    minute = int(place.now // 60)
    rows: list[ItemRow | SumRow] = [
        ItemRow("r1", Measure.PATIENTS, 1, minute),
        ItemRow("r1", Measure.PATIENTS, 2, minute - 32 * 1440),
        SumRow("r1", Measure.BYTES, Span.HOUR, minute, 5),
        SumRow("r1", Measure.BYTES, Span.HOUR, minute - 61, 5),
    ]
    database.put(rows)
    database.purge(minute)
    database.sync()
    assert database.rows() == [rows[0], rows[2]]
    database.close()
    monkeypatch.setattr(module, "_PURGE_SECONDS", -1.0)
    monkeypatch.setattr(module, "_SYNC_SECONDS", -1.0)
    place.store.charge((R1,), Charge(matches=1))
    kept(place.store)
    assert place.store.lost is None


def test_a_key_is_made_once_and_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "budgets.key"
    key = read_key(path)
    assert len(key) == 32
    assert read_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"short")
    with pytest.raises(BudgetFileError, match="must hold 32 bytes, not 5"):
        read_key(path)
    with pytest.raises(BudgetFileError, match="can't be used"):
        read_key(tmp_path / "nowhere" / "budgets.key")


def test_time_goes_on_evenly_whatever_happens_to_the_wall_clock() -> None:
    wall, steady = 1000.0, 5.0
    clock = BudgetClock(wall=lambda: wall, steady=lambda: steady)
    wall, steady = 99.0, 7.0
    assert clock.now() == 1002.0
    assert abs(BudgetClock().now() - time.time()) < 5


def test_a_store_that_is_closed_answers_at_once(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.store.close()
    kept(place.store)
