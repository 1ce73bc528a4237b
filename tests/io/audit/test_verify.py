"""Verifying a directory: with the real key, against copies, and while a gateway writes."""

import threading
from pathlib import Path

import pytest

from dicomward.audit.verify import Problem
from dicomward.io.audit.key import AuditKeyError
from dicomward.io.audit.log import AuditLog, AuditLogLimits, append_offline
from dicomward.io.audit.read import segment_path
from dicomward.io.audit.verify import Verified, verify_directory
from tests.io.audit_helpers import event


def problem_of(verified: Verified) -> tuple[Problem, int | None]:
    (finding,) = verified.report.findings
    return finding.problem, finding.seq


@pytest.fixture
def log(tmp_path: Path) -> Path:
    directory = tmp_path / "audit"
    for number in range(3):
        append_offline(directory, event(number))
    return directory


def test_a_good_log(log: Path) -> None:
    verified = verify_directory(log)
    assert verified.report.is_good
    assert (verified.report.records, verified.report.signed, verified.segments) == (3, 3, 1)
    assert len(verified.key_id) == 64


def test_a_changed_record_is_named(log: Path) -> None:
    path = segment_path(log, 1)
    path.write_bytes(path.read_bytes().replace(b'"detail":"1"', b'"detail":"9"'))
    assert problem_of(verify_directory(log)) == (Problem.BAD_RECORD, 2)


def test_a_cut_tail_is_named(log: Path) -> None:
    path = segment_path(log, 1)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert problem_of(verify_directory(log)) == (Problem.CUT_TAIL, 3)


def test_missing_segments_are_a_fault_unless_they_were_archived(log: Path) -> None:
    segment_path(log, 1).rename(log / "away")
    assert problem_of(verify_directory(log)) == (Problem.CUT_TAIL, 1)


def test_a_log_that_was_cut_and_went_on_tells_it_itself(log: Path) -> None:
    path = segment_path(log, 1)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    append_offline(log, event("later"))
    assert b"audit-tail-missing" in path.read_bytes()
    assert problem_of(verify_directory(log)) == (Problem.REWRITTEN, 3)


def test_a_copy_of_the_checkpoints_notices_what_the_log_can_not(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes((log / "checkpoints.jsonl").read_bytes())
    assert verify_directory(log, against=copy).report.is_good
    append_offline(log, event("later"))
    assert verify_directory(log, against=copy).report.is_good
    for path, count in ((segment_path(log, 1), 2), (log / "checkpoints.jsonl", 3)):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:count]))
    assert verify_directory(log).report.is_good
    assert problem_of(verify_directory(log, against=copy)) == (Problem.WITHDRAWN, None)


def test_a_copy_of_the_key_notices_a_log_that_was_made_anew(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pub"
    copy.write_bytes((log / "checkpoint.pub").read_bytes())
    assert verify_directory(log, public_key=copy).report.is_good
    for path in log.iterdir():
        path.unlink()
    append_offline(log, event("forged"))
    assert verify_directory(log).report.is_good
    assert problem_of(verify_directory(log, public_key=copy)) == (Problem.BAD_SIGNATURE, 0)


def test_without_a_key_nothing_is_proven(log: Path) -> None:
    (log / "checkpoint.pub").unlink()
    verified = verify_directory(log)
    assert problem_of(verified) == (Problem.BAD_SIGNATURE, 0)
    assert verified.key_id == ""


def test_a_key_that_cannot_be_read_is_an_error(log: Path, tmp_path: Path) -> None:
    (log / "checkpoint.pub").write_bytes(b"x")
    with pytest.raises(AuditKeyError):
        verify_directory(log)
    with pytest.raises(FileNotFoundError):
        verify_directory(log, public_key=tmp_path / "missing")


def test_a_log_that_is_being_written_is_always_good(tmp_path: Path) -> None:
    limits = AuditLogLimits(segment_bytes=20_000, reserve_bytes=8192)
    log = AuditLog(tmp_path / "audit", limits=limits)
    log.start()
    stop = threading.Event()
    answered = threading.Semaphore(0)

    def write() -> None:
        number = 0
        while not stop.is_set():
            log.append(event(number))
            log.append_durable(event(number), lambda _: answered.release())
            answered.acquire(timeout=30)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert answered.acquire(timeout=30)
        answered.release()
        reports = [verify_directory(tmp_path / "audit").report]
        while len(reports) < 20 or reports[-1].records < 300:
            reports.append(verify_directory(tmp_path / "audit").report)
    finally:
        stop.set()
        writer.join()
        log.close()
    assert {each.findings for each in reports} == {()}
    assert verify_directory(tmp_path / "audit").report.is_good
