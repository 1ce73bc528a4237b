"""One record has one encoding; what comes from strangers is bounded and harmless on a terminal."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.audit.encode_json import (
    CUT_MARK,
    MASK,
    MAX_ITEMS,
    MemberValue,
    RecordError,
    decode_canonical,
    decode_event,
    encode_canonical,
    escape_text,
    event_members,
    format_time,
)
from dicomward.audit.event import (
    EVENT_CLASSES,
    AssociationAllowed,
    AssociationDenied,
    AuditEvent,
    ConnectionFailed,
    DeviationsCounted,
    OperationCompleted,
    RegistryChanged,
    field_names,
)
from dicomward.audit.fields import Kind, field_rule
from dicomward.vocab.reason import ReasonCode

texts = st.text(max_size=200)
PRINTABLE = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=100)


@st.composite
def events(draw: st.DrawFn) -> AuditEvent:
    """Any event, with values as they come from a well-behaved caller: they survive encoding unchanged."""
    event_class = draw(st.sampled_from(EVENT_CLASSES))
    values: dict[str, object] = {}
    for name in field_names(event_class):
        rule = field_rule(name)
        if name == "reason":
            values[name] = draw(st.sampled_from(ReasonCode))
        elif rule.kind is Kind.TEXT:
            values[name] = draw(PRINTABLE)
        elif rule.kind is Kind.NUMBER:
            values[name] = draw(st.integers(min_value=-(2**70), max_value=2**70))
        elif rule.kind is Kind.TEXTS:
            values[name] = tuple(draw(st.lists(PRINTABLE, max_size=MAX_ITEMS)))
        else:
            values[name] = tuple(draw(st.lists(st.tuples(PRINTABLE, st.integers()), max_size=MAX_ITEMS)))
    return event_class(**values)  # type: ignore[arg-type]


@given(events())
def test_every_event_comes_back_as_it_was(event: AuditEvent) -> None:
    assert decode_event(decode_canonical(encode_canonical(event_members(event)))) == event


@given(st.dictionaries(texts, st.one_of(texts, st.integers(), st.lists(texts), st.lists(st.lists(texts)))))
def test_encoding_is_canonical(members: dict[str, MemberValue]) -> None:
    data = encode_canonical(members)
    assert data.isascii()
    assert b"\n" not in data
    assert decode_canonical(data) == members
    assert json.loads(data) == members


def test_members_are_sorted_and_tight() -> None:
    assert encode_canonical({"b": 1, "a": ["x", "y"], "é": "\n"}) == b'{"a":["x","y"],"b":1,"\\u00e9":"\\n"}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'{"a":1.5}',
        b'{"a":NaN}',
        b'{"a":true}',
        b'{"a":null}',
        b'{"a":{}}',
        b'{"a":[1]}',
        b'{"a":[[true]]}',
        b'{"a":[[["x"]]]}',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1} ',
        b'{"a":01}',
        b'{"a":1e3}',
        b'{"a":"\\u0041"}',
        '{"a":"é"}'.encode(),
        b'{"a":"\xff"}',
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError):
        decode_canonical(data)


def test_times_are_utc_with_microseconds() -> None:
    assert format_time(0) == "1970-01-01T00:00:00.000000Z"
    assert format_time(1_769_903_999_123_456_999) == "2026-01-31T23:59:59.123456Z"


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000))
def test_times_sort_as_texts(microseconds: int) -> None:
    text = format_time(microseconds * 1000)
    assert len(text) == 27
    assert datetime.fromisoformat(text) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert format_time((microseconds + 1) * 1000) > text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain", "plain"),
        ("Müller", "Müller"),
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\x00b", "a\\x00b"),
        ("\u202egnp", "\\u202egnp"),
        ("\u2028", "\\u2028"),
        ("\ud800", "\\ud800"),
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1021 + CUT_MARK),
        ("\n" * 600, "\\n" * 510 + "\\" + CUT_MARK),
    ],
)
def test_text_is_escaped_and_bounded(text: str, escaped: str) -> None:
    assert escape_text(text, 1024) == escaped


@given(st.text(alphabet=st.characters(), max_size=300), st.integers(min_value=4, max_value=200))
def test_escaped_text_is_one_printable_line_within_its_limit(text: str, limit: int) -> None:
    escaped = escape_text(text, limit)
    assert len(escaped) <= limit
    assert escaped.isprintable()


def test_long_text_costs_no_more_than_its_limit() -> None:
    assert escape_text("\n" * 10_000_000, 128).endswith(CUT_MARK)


def test_none_is_left_out_and_reason_is_its_code() -> None:
    event = AssociationDenied(reason=ReasonCode.NOT_TLS, address="192.0.2.1")
    assert event_members(event) == {"code": "DW-ASSOC-DENY", "reason": "not-tls", "address": "192.0.2.1"}


def test_fields_from_strangers_are_escaped() -> None:
    members = event_members(
        ConnectionFailed(reason=ReasonCode.TLS_FAILED, calling_ae_title="A\x1b[2J", detail="x" * 2000)
    )
    assert members["calling_ae_title"] == "A\\x1b[2J"
    assert members["detail"] == "x" * 1021 + CUT_MARK


def test_long_lists_are_cut_and_say_so() -> None:
    members = event_members(AssociationAllowed(rule_ids=tuple(f"r{n}" for n in range(50))))
    rule_ids = members["rule_ids"]
    assert isinstance(rule_ids, list)
    assert len(rule_ids) == MAX_ITEMS
    assert rule_ids[-1] == CUT_MARK
    counts = event_members(DeviationsCounted(deviations=tuple((f"d{n}", n) for n in range(50))))["deviations"]
    assert isinstance(counts, list)
    assert len(counts) == MAX_ITEMS
    assert counts[1] == ["d1", 1]


def test_numbers_of_an_enum_are_written_as_numbers() -> None:
    from dicomward.vocab.dimse import Status

    assert encode_canonical(event_members(OperationCompleted(status=Status.CANCEL))).endswith(b'"status":65024}')


@pytest.mark.parametrize(
    "event",
    [
        AssociationAllowed(device=7),  # type: ignore[arg-type]
        OperationCompleted(bytes="7"),  # type: ignore[arg-type]
        AssociationAllowed(rule_ids="r1"),  # type: ignore[arg-type]
        AssociationAllowed(rule_ids=(1,)),  # type: ignore[arg-type]
        DeviationsCounted(deviations=(("a",),)),  # type: ignore[arg-type]
        DeviationsCounted(deviations=(("a", "b"),)),  # type: ignore[arg-type]
        DeviationsCounted(deviations=("ab",)),  # type: ignore[arg-type]
    ],
)
def test_a_value_of_the_wrong_kind_is_an_error_not_a_record(event: AuditEvent) -> None:
    with pytest.raises(RecordError, match="wrong kind"):
        event_members(event)


def test_trap_an_unclassified_field_is_masked() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Careless(AuditEvent):
        patient_name: str | None = None

    assert event_members(Careless(patient_name="Doe^Jane")) == {"code": "", "patient_name": MASK}
    assert event_members(Careless()) == {"code": ""}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "unknown event code None"),
        ({"code": 7}, "unknown event code 7"),
        ({"code": "DW-NEW"}, "unknown event code 'DW-NEW'"),
        ({"code": "DW-GW-START", "patient": "x"}, "no field 'patient'"),
        ({"code": "DW-ASSOC-DENY"}, "lacks a field"),
        ({"code": "DW-ASSOC-DENY", "reason": "because"}, "unknown reason code"),
        ({"code": "DW-ASSOC-DENY", "reason": 1}, "reason must be a text"),
        ({"code": "DW-GW-START", "device": 1}, "device must be a text"),
        ({"code": "DW-GW-START", "registry_revision": "1"}, "registry_revision must be a number"),
        ({"code": "DW-GW-START", "registry_revision": True}, "registry_revision must be a number"),
        ({"code": "DW-GW-START", "rule_ids": [1]}, "rule_ids must be a list of texts"),
        ({"code": "DW-GW-START", "rule_ids": "r"}, "rule_ids must be a list of texts"),
        ({"code": "DW-GW-START", "device": ["x"]}, "device must be a text"),
        ({"code": "DW-DEVIATION", "deviations": ["x"]}, "deviations must be a list"),
        ({"code": "DW-DEVIATION", "deviations": [["x", "y"]]}, "deviations must be a list"),
        ({"code": "DW-DEVIATION", "deviations": [[1, 2]]}, "deviations must be a list"),
        ({"code": "DW-DEVIATION", "deviations": [["x", 1, 2]]}, "deviations must be a list"),
    ],
)
def test_members_that_are_no_event_are_refused(members: dict[str, MemberValue], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        decode_event(members)


def test_an_event_that_came_over_the_control_socket() -> None:
    members = event_members(RegistryChanged(operator="alice", action="revoke", device="CT1", count=2))
    assert decode_event(json.loads(json.dumps(members))) == RegistryChanged(
        operator="alice", action="revoke", device="CT1", count=2
    )
