"""Pruning: what goes, what stays, and that the rest still verifies."""

from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.encode_json import format_time
from dicomward.audit.event import AuditPruned
from dicomward.audit.verify import Problem
from dicomward.io.audit.cursor import Cursor, cursor_path
from dicomward.io.audit.log import append_offline
from dicomward.io.audit.prune import COMMAND, PruneError, plan_prune, prune, trim_checkpoints
from dicomward.io.audit.read import list_segments, read_checkpoint_lines
from dicomward.io.audit.verify import PRUNED_NAME, verify_directory
from tests.io.audit.test_cursor import destination
from tests.io.small_log import make_log


def appended(directory: Path) -> "Append":
    return Append(directory)


class Append:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[AuditPruned] = []

    def __call__(self, event: AuditPruned) -> bool:
        append_offline(self.directory, event)
        self.events.append(event)
        return True


def prune_half(directory: Path) -> tuple[int, Append]:
    """Prune what is older than the middle; return the last record that went."""
    clock = make_log(directory, 12)
    plan = plan_prune(directory, before=format_time(clock.time_ns() - 5 * 10**9), destinations=())
    assert plan.last is not None
    assert 0 < len(plan.segments) < len(list_segments(directory))
    record = appended(directory)
    prune(directory, plan, now=format_time(clock.time_ns()), operator="anna", action=COMMAND, record=record)
    return plan.last.seq, record


def test_the_rest_verifies_and_says_what_was_pruned(tmp_path: Path) -> None:
    last, record = prune_half(tmp_path)
    verified = verify_directory(tmp_path)
    assert verified.report.is_good
    assert verified.report.first == last + 1
    assert verified.pruned is not None
    assert verified.pruned.seq == last
    (event,) = record.events
    assert (event.count, event.operator) == (last, "anna")


def test_without_its_statement_the_beginning_is_missing(tmp_path: Path) -> None:
    prune_half(tmp_path)
    (tmp_path / PRUNED_NAME).unlink()
    (finding,) = verify_directory(tmp_path).report.findings
    assert finding.problem is Problem.MISSING_START


@pytest.mark.parametrize("change", [b'"seq":', b'"signature":"'])
def test_a_statement_that_was_changed_is_none(tmp_path: Path, change: bytes) -> None:
    prune_half(tmp_path)
    path = tmp_path / PRUNED_NAME
    data = path.read_bytes()
    at = data.index(change) + len(change)
    path.write_bytes(data[:at] + (b"1" if data[at : at + 1] != b"1" else b"2") + data[at + 1 :])
    assert not verify_directory(tmp_path).report.is_good


def test_removing_more_than_was_said_is_found(tmp_path: Path) -> None:
    prune_half(tmp_path)
    list_segments(tmp_path)[0].path.unlink()
    (finding,) = verify_directory(tmp_path).report.findings
    assert finding.problem is Problem.MISSING_START


def test_checkpoints_of_pruned_records_are_dropped_and_a_copy_still_compares(tmp_path: Path) -> None:
    last, _record = prune_half(tmp_path)
    copy = tmp_path / "copy"
    copy.write_bytes((tmp_path / "checkpoints.jsonl").read_bytes())
    before = len(list(read_checkpoint_lines(tmp_path / "checkpoints.jsonl")))
    dropped = trim_checkpoints(tmp_path)
    assert 0 < dropped < before
    assert trim_checkpoints(tmp_path) == 0
    verified = verify_directory(tmp_path, against=copy)
    assert verified.report.is_good
    assert verified.report.first == last + 1


def test_a_whole_log_keeps_its_checkpoints(tmp_path: Path) -> None:
    make_log(tmp_path, 3)
    assert trim_checkpoints(tmp_path) == 0


def test_the_newest_segment_stays_however_old(tmp_path: Path) -> None:
    make_log(tmp_path, 12)
    plan = plan_prune(tmp_path, before="2999-01-01T00:00:00.000000Z", destinations=())
    assert [each.first_seq for each in plan.segments] == [each.first_seq for each in list_segments(tmp_path)[:-1]]
    assert plan.bytes > 0


def test_what_a_receiver_still_has_to_get_stays(tmp_path: Path) -> None:
    make_log(tmp_path, 12)
    segments = list_segments(tmp_path)
    cursor = Cursor(cursor_path(tmp_path, destination()), "x", start=segments[2].first_seq - 1)
    plan = plan_prune(tmp_path, before="2999-01-01T00:00:00.000000Z", destinations=(destination(),))
    assert (len(plan.segments), plan.held) == (2, destination().name)
    cursor.close()


def test_nothing_old_is_nothing_to_do(tmp_path: Path) -> None:
    make_log(tmp_path, 12)
    plan = plan_prune(tmp_path, before="2000-01-01T00:00:00.000000Z", destinations=())
    assert (plan.segments, plan.last, plan.records) == ((), None, 0)
    prune(tmp_path, plan, now="", operator=None, action=COMMAND, record=lambda _event: False)


def test_without_a_record_of_it_nothing_goes(tmp_path: Path) -> None:
    make_log(tmp_path, 12)
    plan = plan_prune(tmp_path, before="2999-01-01T00:00:00.000000Z", destinations=())
    with pytest.raises(PruneError):
        prune(tmp_path, plan, now="", operator=None, action=COMMAND, record=lambda _event: False)
    assert len(list_segments(tmp_path)) == len(plan.segments) + 1
    assert replace(plan, held="x").held == "x"
