"""Statements of pruning: read strictly, and signed over bytes that nothing else is signed over."""

import pytest

from dicomward.audit.chain import Checkpoint
from dicomward.audit.encode_json import RecordError, encode_canonical
from dicomward.audit.pruned import Pruned, decode_pruned, encode_pruned

GOOD = Pruned(seq=7, hash="a" * 64, time="2026-01-31T12:00:00.000000Z", key="b" * 64, signature="c" * 128)


def test_there_and_back() -> None:
    assert decode_pruned(encode_pruned(GOOD)[:-1]) == GOOD


def test_no_checkpoint_passes_for_a_statement() -> None:
    checkpoint = Checkpoint(seq=GOOD.seq, hash=GOOD.hash, time=GOOD.time, key=GOOD.key)
    assert checkpoint.message != GOOD.message


@pytest.mark.parametrize(
    "change",
    [{"seq": 0}, {"seq": "7"}, {"hash": "x"}, {"key": "x"}, {"signature": "x"}, {"v": 2}, {"more": 1}],
)
def test_anything_else_is_refused(change: dict[str, int | str]) -> None:
    members: dict[str, int | str] = {
        "seq": 7,
        "hash": GOOD.hash,
        "time": GOOD.time,
        "key": GOOD.key,
        "signature": GOOD.signature,
        "v": 1,
    }
    with pytest.raises(RecordError):
        decode_pruned(encode_canonical({**members, **change}))


def test_a_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(RecordError, match="longer"):
        decode_pruned(b" " * 2000)
