"""Heads that have left the machine find out whoever has rewritten the log with its own key."""

from collections.abc import Sequence

import pytest

from dicomward.audit.chain import Checkpoint, encode_checkpoint
from dicomward.audit.heads import HeadsReport, compare_heads, find_heads
from dicomward.audit.verify import Problem, SignatureError
from tests.audit.test_verify import GOOD, HEADS, KEY, chain

RECORDS = [(head.seq, head.hash) for head in HEADS[1:]]


def head(seq: int, hash_: str = "", signature: str = GOOD) -> Checkpoint:
    return Checkpoint(
        seq=seq, hash=hash_ or HEADS[seq].hash, time="2026-01-31T12:00:00.000000Z", key=KEY, signature=signature
    )


def verify_signature(checkpoint: Checkpoint) -> None:
    if checkpoint.signature != GOOD:
        raise SignatureError("its signature is wrong")


def compare(
    heads: Sequence[Checkpoint],
    records: Sequence[tuple[int, str]] = RECORDS,
    before_first: tuple[int, str] | None = None,
) -> HeadsReport:
    return compare_heads(heads, records, before_first=before_first, verify_signature=verify_signature)


def problems(report: HeadsReport) -> list[tuple[Problem, int | None]]:
    return [(each.problem, each.seq) for each in report.findings]


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "Jan 31 12:00:00 gw dicomward[7]: \ufeff{}",
        '{{"msgid":"DICOMWARD+HEAD","msg":"{}"}}',
        "<85>1 - - - - - - \ufeff{} {}",
    ],
)
def test_heads_are_found_whatever_a_receiver_writes_around_them(around: str) -> None:
    plain = encode_checkpoint(head(5)).decode().strip()
    written = plain.replace('"', '\\"') if "msgid" in around else plain
    line = around.format(written, written) if around.count("{}") == 2 else around.format(written)
    found = list(find_heads([b"something else\n", line.encode() + b"\n"]))
    assert set(found) == {head(5)}


def test_what_only_looks_like_a_head_is_passed_over() -> None:
    broken = encode_checkpoint(head(5)).replace(b'"v":1', b'"v":2')
    assert list(find_heads([broken])) == []


def test_a_log_that_holds_every_head_is_vouched_for_up_to_the_newest() -> None:
    report = compare([head(0, HEADS[0].hash), head(5), head(18), head(5)])
    assert (report.heads, report.vouched, report.findings) == (4, 18, ())


def test_rewritten_between_two_heads() -> None:
    _, _ = chain(1)
    others, _lines = chain(14, head=HEADS[6], salt="other")
    rewritten = [*RECORDS[:6], *((each.seq, each.hash) for each in others[1:])]
    report = compare([head(5), head(10), head(15)], rewritten)
    assert problems(report) == [(Problem.REWRITTEN, 6)]
    assert report.vouched == 5


def test_cut_off_after_a_head_has_left() -> None:
    assert problems(compare([head(5), head(18)], RECORDS[:10])) == [(Problem.CUT_TAIL, 11)]


def test_a_file_without_heads_vouches_for_nothing() -> None:
    assert problems(compare([])) == [(Problem.NO_HEADS, None)]


def test_a_head_that_this_key_has_not_signed() -> None:
    assert problems(compare([head(5, signature="d" * 128)])) == [(Problem.BAD_SIGNATURE, 5)]


def test_a_pruned_log_is_compared_from_where_it_begins() -> None:
    border = (10, HEADS[10].hash)
    assert compare([head(5), head(10), head(18)], RECORDS[10:], border).findings == ()
    assert problems(compare([head(10)], RECORDS[10:], (10, "e" * 64))) == [(Problem.REWRITTEN, 11)]
