"""Verify names the first bad record, whatever was done to the files."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.audit.chain import GENESIS, Checkpoint, Head, encode_checkpoint, seal
from dicomward.audit.encode_json import event_members, format_time
from dicomward.audit.event import GatewayStarted
from dicomward.audit.verify import Problem, Report, Segment, SignatureError, find_withdrawn, verify_log

KEY = "b" * 64
GOOD = "c" * 128


def verify_signature(checkpoint: Checkpoint) -> None:
    """Stands for Ed25519: a signature is good if it says so."""
    if checkpoint.signature != GOOD:
        raise SignatureError("its signature is wrong")


def chain(count: int, *, head: Head = GENESIS, salt: str = "") -> tuple[list[Head], list[bytes]]:
    """`count` records after `head`: all heads (the given one first), and the lines."""
    heads, lines = [head], []
    for number in range(count):
        head, line = seal(head, format_time(head.seq * 10**9), event_members(GatewayStarted(detail=f"{salt}{number}")))
        heads.append(head)
        lines.append(line)
    return heads, lines


def checkpoint(head: Head, signature: str = GOOD) -> bytes:
    time = format_time(head.seq * 10**9)
    return encode_checkpoint(Checkpoint(seq=head.seq, hash=head.hash, time=time, key=KEY, signature=signature))


HEADS, LINES = chain(20)
CHECKPOINTS = [checkpoint(HEADS[seq]) for seq in (0, 5, 10, 18)]


def verify(lines: Sequence[bytes], checkpoints: Iterable[bytes] = CHECKPOINTS, *, archived: bool = False) -> Report:
    half = len(lines) // 2
    segments = [Segment(name="first", lines=lines[:half]), Segment(name="second", lines=lines[half:])]
    return verify_log(segments, checkpoints, verify_signature=verify_signature, archived=archived)


def only_finding(report: Report) -> tuple[Problem, int | None, str]:
    assert not report.is_good
    (finding,) = report.findings
    return finding.problem, finding.seq, finding.place


def test_a_whole_log_is_good() -> None:
    report = verify(LINES)
    assert report.is_good
    assert (report.records, report.first, report.last, report.head_hash) == (20, 1, 20, HEADS[20].hash)
    assert (report.checkpoints, report.signed, report.incomplete_bytes) == (4, 18, 0)


def test_an_empty_log_with_its_first_checkpoint_is_good() -> None:
    report = verify([], CHECKPOINTS[:1])
    assert report.is_good
    assert (report.records, report.first, report.last) == (0, 0, 0)


def test_a_record_that_is_being_written_is_no_fault() -> None:
    report = verify([*LINES, b'{"code":'])
    assert report.is_good
    assert report.incomplete_bytes == 8


def test_the_last_checkpoint_may_be_in_the_middle_of_being_written() -> None:
    assert verify(LINES, [*CHECKPOINTS, checkpoint(HEADS[20])[:-9]]).is_good


def test_a_record_that_breaks_off_in_the_middle_is_bad() -> None:
    lines = [*LINES[:7], LINES[7][:-30], *LINES[8:]]
    assert only_finding(verify(lines)) == (Problem.BAD_RECORD, 8, "first:9")


@pytest.mark.parametrize("number", range(20))
def test_a_changed_record_is_named(number: int) -> None:
    lines = list(LINES)
    lines[number] = lines[number].replace(b"DW-GW-START", b"DW-GW-STOP!")
    place = f"first:{number + 1}" if number < 10 else f"second:{number - 9}"
    assert only_finding(verify(lines)) == (Problem.BAD_RECORD, number + 1, place)


@pytest.mark.parametrize("number", range(19))
def test_a_removed_record_is_named(number: int) -> None:
    lines = LINES[:number] + LINES[number + 1 :]
    expected = Problem.BROKEN_CHAIN if number else Problem.MISSING_START
    problem, seq, _ = only_finding(verify(lines))
    assert (problem, seq) == (expected, number + 1)


def test_a_removed_segment_is_named() -> None:
    segments = [Segment(name="one", lines=LINES[:5]), Segment(name="three", lines=LINES[9:])]
    report = verify_log(segments, CHECKPOINTS, verify_signature=verify_signature)
    assert only_finding(report) == (Problem.BROKEN_CHAIN, 6, "three:1")


@pytest.mark.parametrize("number", range(19))
def test_swapped_records_are_named(number: int) -> None:
    lines = list(LINES)
    lines[number], lines[number + 1] = lines[number + 1], lines[number]
    assert only_finding(verify(lines))[1] == number + 1


@pytest.mark.parametrize("number", range(20))
def test_a_record_put_in_twice_is_named(number: int) -> None:
    lines = [*LINES[: number + 1], LINES[number], *LINES[number + 1 :]]
    problem, seq, _ = only_finding(verify(lines))
    assert (problem, seq) == (Problem.BROKEN_CHAIN, number + 2)


def test_a_record_with_the_right_number_in_another_chain_is_named() -> None:
    _, others = chain(20, salt="other")
    lines = [*LINES[:4], others[4], *LINES[5:]]
    assert only_finding(verify(lines))[:2] == (Problem.BROKEN_CHAIN, 5)


@pytest.mark.parametrize("start", range(18))
def test_a_log_that_was_rewritten_and_chained_anew_is_noticed(start: int) -> None:
    _, rewritten = chain(20 - start, head=HEADS[start], salt="forged")
    problem, seq, _ = only_finding(verify(LINES[:start] + rewritten))
    newest_good = max(each for each in (0, 5, 10, 18) if each <= start)
    assert (problem, seq) == (Problem.REWRITTEN, newest_good + 1)


def test_what_no_checkpoint_covers_yet_can_be_rewritten_unnoticed() -> None:
    # The loss of proof that docs/audit.md states: one second at most.
    _, rewritten = chain(2, head=HEADS[18], salt="forged")
    assert verify(LINES[:18] + rewritten).is_good


@pytest.mark.parametrize("length", range(18))
def test_a_cut_tail_is_noticed(length: int) -> None:
    report = verify(LINES[:length])
    assert only_finding(report)[:2] == (Problem.CUT_TAIL, length + 1)
    assert report.last == length


def test_a_tail_cut_together_with_its_checkpoints_is_noticed_only_against_a_copy() -> None:
    assert verify(LINES[:10], CHECKPOINTS[:3]).is_good
    finding = find_withdrawn(CHECKPOINTS, CHECKPOINTS[:3])
    assert finding is not None
    assert (finding.problem, finding.place) == (Problem.WITHDRAWN, "checkpoints:4")


def test_a_copy_of_checkpoints_that_is_older_is_fine() -> None:
    assert find_withdrawn(CHECKPOINTS[:2], CHECKPOINTS) is None
    assert find_withdrawn([*CHECKPOINTS[:2], CHECKPOINTS[2][:-1]], CHECKPOINTS) is None
    assert find_withdrawn([], CHECKPOINTS) is None


def test_a_copy_of_other_checkpoints_is_not() -> None:
    finding = find_withdrawn([checkpoint(HEADS[1])], CHECKPOINTS)
    assert finding is not None
    assert finding.place == "checkpoints:1"


def test_missing_checkpoints_are_noticed() -> None:
    assert only_finding(verify(LINES, [])) == (Problem.NO_CHECKPOINT, None, "checkpoints")
    assert only_finding(verify([], [])) == (Problem.NO_CHECKPOINT, None, "checkpoints")


@pytest.mark.parametrize("number", range(4))
def test_a_checkpoint_that_cannot_be_read_is_named(number: int) -> None:
    checkpoints = [*CHECKPOINTS]
    checkpoints[number] = b"{}\n"
    assert only_finding(verify(LINES, checkpoints)) == (Problem.BAD_CHECKPOINT, None, f"checkpoints:{number + 1}")


@pytest.mark.parametrize("number", range(4))
def test_a_checkpoint_with_a_wrong_signature_is_named(number: int) -> None:
    seqs = (0, 5, 10, 18)
    checkpoints = [*CHECKPOINTS]
    checkpoints[number] = checkpoint(HEADS[seqs[number]], "d" * 128)
    assert only_finding(verify(LINES, checkpoints)) == (Problem.BAD_SIGNATURE, seqs[number], "checkpoints")


def test_a_forged_checkpoint_after_the_end_is_a_wrong_signature_not_a_cut_tail() -> None:
    forged = [*CHECKPOINTS, checkpoint(Head(99, "f" * 64), "d" * 128)]
    assert only_finding(verify(LINES, forged))[0] is Problem.BAD_SIGNATURE


def test_checkpoints_that_go_back_show_a_log_that_was_cut_and_went_on() -> None:
    heads, rewritten = chain(10, head=HEADS[10], salt="later")
    checkpoints = [*CHECKPOINTS, checkpoint(heads[2])]
    problem, seq, place = only_finding(verify(LINES[:10] + rewritten, checkpoints))
    assert (problem, place) == (Problem.REWRITTEN, "second:8")
    assert seq == 11
    # The same where the new records have not reached the old checkpoint yet.
    problem, seq, place = only_finding(verify(LINES[:10] + rewritten[:2], checkpoints))
    assert (problem, seq, place) == (Problem.REWRITTEN, 13, "checkpoints")


def test_two_checkpoints_for_one_record_are_fine() -> None:
    assert verify(LINES, [CHECKPOINTS[0], CHECKPOINTS[0], CHECKPOINTS[1], CHECKPOINTS[1]]).is_good


def test_archived_segments_are_a_fault_unless_the_caller_says_so() -> None:
    assert only_finding(verify(LINES[5:]))[:2] == (Problem.MISSING_START, 1)
    report = verify(LINES[5:], archived=True)
    assert report.is_good
    assert (report.records, report.first, report.last) == (15, 6, 20)
    assert verify(LINES, archived=True).is_good


def test_archived_segments_need_a_checkpoint_where_the_rest_begins() -> None:
    for length in (4, 6, 19):
        assert only_finding(verify(LINES[length:], archived=True))[:2] == (Problem.MISSING_START, 1)


def test_the_start_of_the_rest_must_be_the_one_of_the_checkpoint() -> None:
    forged = [CHECKPOINTS[0], checkpoint(replace(HEADS[5], hash="f" * 64))]
    problem, seq, _ = only_finding(verify(LINES[5:], forged, archived=True))
    assert (problem, seq) == (Problem.REWRITTEN, 1)


@settings(max_examples=300)
@given(
    st.integers(min_value=0, max_value=18),
    st.integers(min_value=0, max_value=2000),
    st.binary(max_size=4),
)
def test_no_change_before_the_newest_checkpoint_goes_unnoticed(record: int, position: int, put: bytes) -> None:
    lines = list(LINES)
    line = lines[record]
    at = position % len(line)
    lines[record] = line[:at] + put + line[at + len(put) :]
    data = b"".join(lines)
    changed = data.splitlines(keepends=True)
    report = verify_log([Segment(name="all", lines=changed)], CHECKPOINTS, verify_signature=verify_signature)
    if lines[record] == line:
        assert report.is_good
    elif record < 18:
        assert not report.is_good
        assert report.findings[0].seq is not None
        assert report.findings[0].seq <= record + 2


@given(st.lists(st.binary(max_size=120), max_size=5), st.lists(st.binary(max_size=120), max_size=5))
def test_any_bytes_end_in_a_report(lines: list[bytes], checkpoints: list[bytes]) -> None:
    report = verify(lines, [*CHECKPOINTS[:1], *checkpoints])
    assert report.records == 0


def test_a_report_prints_no_lines() -> None:
    assert "DW-GW-START" not in repr(Segment(name="x", lines=LINES))
