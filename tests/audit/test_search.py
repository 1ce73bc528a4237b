"""Search finds what is meant and nothing else, and what it prints can't fool a terminal."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.audit.chain import GENESIS, Record, decode_record, seal
from dicomward.audit.encode_json import MASK, MemberValue, event_members, format_time
from dicomward.audit.event import (
    AssociationAllowed,
    AssociationDenied,
    AuditEvent,
    ConnectionFailed,
    DeviationsCounted,
    GatewayStarted,
    OperationDenied,
)
from dicomward.audit.search import Damaged, Query, format_record, format_value, redact, search_lines
from dicomward.vocab.reason import ReasonCode

EVENTS: list[AuditEvent] = [
    GatewayStarted(version="1"),
    AssociationAllowed(
        device="CT1",
        archive="pacs",
        association="a1",
        calling_ae_title="CT1",
        called_ae_title="PACS",
        address="10.1.2.3",
    ),
    OperationDenied(
        device="CT1",
        association="a1",
        operation="c-move",
        reason=ReasonCode.NO_MATCHING_RULE,
        move_destination="WS7",
        address="10.1.2.3",
    ),
    AssociationDenied(
        device="WS7", reason=ReasonCode.NETWORK_NOT_ALLOWED, calling_ae_title="WS7", address="2001:db8::7"
    ),
    ConnectionFailed(reason=ReasonCode.NOT_TLS, address="bad address", detail="Wrong Version Number"),
]


def lines_of(events: list[AuditEvent]) -> Iterator[bytes]:
    head = GENESIS
    for second, event in enumerate(events):
        head, line = seal(head, format_time(second * 10**9), event_members(event))
        yield line


LINES = list(lines_of(EVENTS))


def found(query: Query) -> list[int]:
    results = list(search_lines(query, LINES))
    assert all(isinstance(each, Record) for each in results)
    return [each.seq for each in results if isinstance(each, Record)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), [1, 2, 3, 4, 5]),
        (Query(device="CT1"), [2, 3]),
        (Query(device="CT"), []),
        (Query(archive="pacs"), [2]),
        (Query(association="a1"), [2, 3]),
        (Query(operation="c-move"), [3]),
        (Query(operation="c-find"), []),
        (Query(reason="no-matching-rule"), [3]),
        (Query(code="DW-ASSOC-DENY"), [4]),
        (Query(aet="WS7"), [3, 4]),
        (Query(aet="PACS"), [2]),
        (Query(aet="pacs"), []),
        (Query(address="10.1.2.3"), [2, 3]),
        (Query(address="10.0.0.0/8"), [2, 3]),
        (Query(address="2001:db8::/32"), [4]),
        (Query(address="192.0.2.0/24"), []),
        (Query(text="wrong version"), [5]),
        (Query(text="nowhere"), []),
        (Query(since=format_time(3 * 10**9)), [4, 5]),
        (Query(until=format_time(1 * 10**9)), [1]),
        (Query(since=format_time(1 * 10**9), until=format_time(3 * 10**9)), [2, 3]),
        (Query(device="CT1", code="DW-OP-DENY", aet="WS7", address="10.1.2.3/32", text="ws7"), [3]),
        (Query(device="CT1", code="DW-ASSOC-DENY"), []),
    ],
)
def test_a_query_finds(query: Query, expected: list[int]) -> None:
    assert found(query) == expected


def test_a_query_judges_a_record_by_its_members_alone() -> None:
    record = decode_record(LINES[1][:-1])
    assert Query(device="CT1", since=record.time).matches(record)
    assert not Query(device="WS7").matches(record)
    assert not Query(until=record.time).matches(record)


def test_bytes_that_look_right_in_another_field_do_not_match() -> None:
    lines = list(lines_of([GatewayStarted(detail='"device":"CT1" "WS7"', site="WS7"), GatewayStarted(version="WS7")]))
    assert list(search_lines(Query(device="CT1"), lines)) == []
    assert list(search_lines(Query(aet="WS7"), lines)) == []


def test_a_name_that_is_a_time_does_not_confuse_the_range() -> None:
    lines = list(lines_of([GatewayStarted(detail=',"time":"1960', rule_ids=(",", "time", "1960"))]))
    assert len(list(search_lines(Query(since=format_time(0)), lines))) == 1


def test_an_address_that_is_none_is_a_usage_error_at_once() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        Query(address="ten")


def test_a_list_can_be_searched_as_text() -> None:
    lines = list(lines_of([DeviationsCounted(deviations=(("uid-leading-zero", 3),), rule_ids=("r1", "r2"))]))
    assert len(list(search_lines(Query(text="UID-leading-zero:3"), lines))) == 1
    assert len(list(search_lines(Query(text="r1,r2"), lines))) == 1


def test_a_damaged_line_is_named() -> None:
    damaged = LINES[1].replace(b"PACS", b"PACT")
    results = list(search_lines(Query(device="CT1"), [LINES[0], damaged, LINES[2]]))
    assert results[0] == Damaged(2, "the record doesn't match its own hash: it was changed or damaged")
    assert isinstance(results[1], Record)


def test_a_damaged_line_is_named_also_when_its_time_is_gone() -> None:
    (result,) = search_lines(Query(since=format_time(0)), [b'{"tim":1}\n'])
    assert isinstance(result, Damaged)


def test_a_record_that_is_being_written_is_left_out() -> None:
    assert len(list(search_lines(Query(), [*LINES, LINES[0][:-5]]))) == len(LINES)


@given(st.lists(st.binary(max_size=80)))
def test_any_lines_are_records_or_damage(lines: list[bytes]) -> None:
    for each in search_lines(Query(), lines):
        assert isinstance(each, Damaged)


def test_redacted_records_keep_only_what_is_public() -> None:
    record = decode_record(LINES[2][:-1])
    assert redact(record) == {
        "code": "DW-OP-DENY",
        "device": "CT1",
        "association": "a1",
        "operation": "c-move",
        "reason": "no-matching-rule",
        "move_destination": MASK,
        "address": MASK,
    }


def test_unknown_fields_of_a_newer_release_are_masked() -> None:
    _, line = seal(GENESIS, format_time(0), {"code": "DW-NEW", "patient_name": "Doe"})
    assert redact(decode_record(line[:-1])) == {"code": "DW-NEW", "patient_name": MASK}


def test_people_read_one_line() -> None:
    record = decode_record(LINES[2][:-1])
    assert format_record(record, dict(record.members)) == (
        "1970-01-01T00:00:02.000000Z 3 DW-OP-DENY address=10.1.2.3 association=a1 device=CT1 move_destination=WS7 "
        "operation=c-move reason=no-matching-rule"
    )


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("two words", 'detail="two words"'),
        ('say "hi"', "detail=\"say 'hi'\""),
        ("a=b", 'detail="a=b"'),
        ("", 'detail=""'),
        ("\x1b[2J", "detail=\\x1b[2J"),
        (["r1", "r2"], "detail=r1,r2"),
        ([["a", 1], ["b", 2]], "detail=a:1,b:2"),
        (7, "detail=7"),
    ],
)
def test_values_are_printed_so_that_they_cannot_be_mistaken(value: MemberValue, printed: str) -> None:
    _, line = seal(GENESIS, format_time(0), {"code": "X", "detail": value})
    record = decode_record(line[:-1])
    assert format_record(record, dict(record.members)) == f"1970-01-01T00:00:00.000000Z 1 X {printed}"


def test_a_text_value_is_itself() -> None:
    assert format_value("x") == "x"


@pytest.mark.parametrize(
    "members", [{"code": "X", "devi\tions": "y"}, {"code": "X\x1b[2J"}, {"code": "X", "\x1b]0;y\x07": 1}]
)
def test_names_and_codes_of_a_forged_log_are_printable_too(members: dict[str, MemberValue]) -> None:
    """Found by fuzz_audit_log: only values were escaped."""
    _, line = seal(GENESIS, "1970-01-01T00:00:00.000000Z", members)
    record = decode_record(line.removesuffix(b"\n"))
    assert format_record(record, dict(record.members)).isprintable()
