"""The chain: every change of a byte is noticed, and only whole, well-formed records are read."""

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.audit.chain import (
    CHECKPOINT_CONTEXT,
    GENESIS,
    MAX_RECORD_BYTES,
    ChainError,
    Checkpoint,
    Head,
    decode_checkpoint,
    decode_record,
    encode_checkpoint,
    follow,
    seal,
)
from dicomward.audit.encode_json import MemberValue, RecordError, encode_canonical, event_members
from dicomward.audit.event import EVENT_CLASSES, AssociationAllowed, AuditEvent, GatewayStarted, field_names
from dicomward.audit.fields import FIELD_RULES, Kind
from dicomward.vocab.reason import ReasonCode

TIME = "2026-01-31T23:59:59.123456Z"
MEMBERS: dict[str, MemberValue] = event_members(AssociationAllowed(device="CT1", rule_ids=("r1",)))


def sealed_with(**changed: object) -> bytes:
    """A line whose hash is right, but whose members are not what `seal` writes."""
    members: dict[str, object] = {"code": "DW-GW-START", "seq": 1, "prev": GENESIS.hash, "time": TIME, "v": 1}
    members.update(changed)
    body = json.dumps(
        {name: value for name, value in members.items() if value is not None}, sort_keys=True, separators=(",", ":")
    ).encode()
    return body[:-1] + b',"hash":"' + sha256(body).hexdigest().encode() + b'"}'


def test_a_sealed_record_is_plain_json_with_its_hash_at_the_end() -> None:
    head, line = seal(GENESIS, TIME, MEMBERS)
    assert line.endswith(b'"}\n')
    members = json.loads(line)
    stated = members.pop("hash")
    assert list(json.loads(line))[-1] == "hash"
    body = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    assert stated == sha256(body).hexdigest() == head.hash
    assert members == {
        "code": "DW-ASSOC-ALLOW",
        "device": "CT1",
        "rule_ids": ["r1"],
        "seq": 1,
        "prev": "0" * 64,
        "time": TIME,
        "v": 1,
    }


def test_records_follow_each_other() -> None:
    first, line1 = seal(GENESIS, TIME, MEMBERS)
    second, line2 = seal(first, TIME, MEMBERS)
    record1, record2 = decode_record(line1[:-1]), decode_record(line2[:-1])
    assert record1.code == "DW-ASSOC-ALLOW"
    assert record1.members == MEMBERS
    assert (record1.time, record1.prev) == (TIME, GENESIS.hash)
    assert follow(follow(GENESIS, record1), record2) == second == record2.head


def test_a_record_that_does_not_follow_is_refused() -> None:
    first, line1 = seal(GENESIS, TIME, MEMBERS)
    _, line2 = seal(first, TIME, MEMBERS)
    with pytest.raises(ChainError, match="record 1 should be here, but this is record 2"):
        follow(GENESIS, decode_record(line2[:-1]))
    with pytest.raises(ChainError, match="record 2 should be here, but this is record 1"):
        follow(first, decode_record(line1[:-1]))
    with pytest.raises(ChainError, match="one of them was replaced"):
        follow(Head(1, "f" * 64), decode_record(line2[:-1]))


def test_every_flipped_bit_is_noticed() -> None:
    _, line = seal(GENESIS, TIME, MEMBERS)
    record = line[:-1]
    for position in range(len(record)):
        for bit in range(8):
            damaged = bytearray(record)
            damaged[position] ^= 1 << bit
            with pytest.raises(RecordError):
                decode_record(bytes(damaged))


def test_every_cut_is_noticed() -> None:
    _, line = seal(GENESIS, TIME, MEMBERS)
    for length in range(len(line) - 1):
        with pytest.raises(RecordError):
            decode_record(line[:length])


@given(st.binary(max_size=300))
def test_bytes_are_a_record_or_a_record_error(data: bytes) -> None:
    with pytest.raises(RecordError):
        decode_record(data)
    with pytest.raises(RecordError):
        decode_checkpoint(data)


def test_what_seal_writes_is_the_pattern_of_the_bad_ones() -> None:
    assert decode_record(sealed_with()).seq == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"v": 2}, "unknown format version"),
        ({"v": None}, "unknown format version"),
        ({"seq": None}, "no sequence number"),
        ({"seq": "1"}, "no sequence number"),
        ({"seq": 0}, "no sequence number"),
        ({"code": None}, "no event code"),
        ({"code": 1}, "no event code"),
        ({"prev": None}, "64 lower-case hexadecimal digits"),
        ({"prev": "F" * 64}, "64 lower-case hexadecimal digits"),
        ({"prev": "0" * 63}, "64 lower-case hexadecimal digits"),
        ({"time": None}, "a time is UTC"),
        ({"time": "2026-01-31T23:59:59Z"}, "a time is UTC"),
        ({"time": 1}, "a time is UTC"),
        ({"device": 1.5}, "whole number"),
        ({"device": {}}, "texts, whole numbers and lists"),
    ],
)
def test_a_record_with_wrong_members_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        decode_record(sealed_with(**changed))


def test_a_record_with_another_encoding_is_refused() -> None:
    body = b'{"v": 1}'
    line = body[:-1] + b',"hash":"' + sha256(body).hexdigest().encode() + b'"}'
    with pytest.raises(RecordError, match="canonical"):
        decode_record(line)


def test_a_line_that_is_too_long_is_not_even_hashed() -> None:
    with pytest.raises(RecordError, match="longer than"):
        decode_record(b"x" * (MAX_RECORD_BYTES + 1))


@pytest.mark.parametrize("event_class", EVENT_CLASSES)
def test_the_longest_event_fits_into_a_record(event_class: type[AuditEvent]) -> None:
    # The worst that any caller could do: every field full of characters with the longest escape.
    longest = "\U0001f480" * 3000
    values: dict[str, object] = {}
    for name in field_names(event_class):
        kind = FIELD_RULES[name].kind
        if name == "reason":
            values[name] = max(ReasonCode, key=len)
        elif kind is Kind.TEXT:
            values[name] = longest
        elif kind is Kind.NUMBER:
            values[name] = 2**64
        elif kind is Kind.TEXTS:
            values[name] = (longest,) * 100
        else:
            values[name] = ((longest, 2**64),) * 100
    _, line = seal(Head(10**12, "f" * 64), TIME, event_members(event_class(**values)))  # type: ignore[arg-type]
    assert len(line) <= MAX_RECORD_BYTES
    assert decode_record(line[:-1]).code == event_class.code


@given(st.integers(min_value=0, max_value=10**15), st.text(max_size=60))
def test_any_text_survives_sealing(seq: int, text: str) -> None:
    members = event_members(GatewayStarted(detail=text))
    _, line = seal(Head(seq, "a" * 64), TIME, members)
    assert line.count(b"\n") == 1
    assert decode_record(line[:-1]).members == members


CHECKPOINT = Checkpoint(seq=7, hash="a" * 64, time=TIME, key="b" * 64, signature="c" * 128)


def test_a_checkpoint_is_one_line() -> None:
    line = encode_checkpoint(CHECKPOINT)
    assert line.endswith(b"\n")
    assert decode_checkpoint(line[:-1]) == CHECKPOINT


def test_the_signed_message_has_its_context_and_everything_but_the_signature() -> None:
    members: dict[str, MemberValue] = {"seq": 7, "hash": "a" * 64, "time": TIME, "key": "b" * 64, "v": 1}
    assert CHECKPOINT.message == CHECKPOINT_CONTEXT + encode_canonical(members)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"v": 2}, "unknown format version"),
        ({"extra": 1}, "nothing else"),
        ({"seq": -1}, "no sequence number"),
        ({"seq": "1"}, "no sequence number"),
        ({"signature": "c" * 127}, "no signature"),
        ({"signature": 1}, "no signature"),
        ({"hash": "x" * 64}, "hexadecimal"),
        ({"key": 1}, "hexadecimal"),
        ({"time": "now"}, "a time is UTC"),
    ],
)
def test_a_checkpoint_with_wrong_members_is_refused(changed: dict[str, MemberValue], message: str) -> None:
    members: dict[str, MemberValue] = json.loads(encode_checkpoint(CHECKPOINT))
    with pytest.raises(RecordError, match=message):
        decode_checkpoint(encode_canonical({**members, **changed}))


def test_a_checkpoint_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(RecordError, match="longer than"):
        decode_checkpoint(b"x" * 1025)
