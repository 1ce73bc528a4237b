"""What is made, copied, filtered and dropped on an established association: one test for each row of docs/relay.md."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.dicom.dimse import encode_command_set
from dicomward.dicom.pdu import AAbort, UserInformation
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.budgets import BudgetBook
from dicomward.relay.inputs import Leg
from tests.relay.wire import (
    ABORT,
    CT_IMAGE,
    IMPLEMENTATION,
    RELEASE_RP,
    RELEASE_RQ,
    Message,
    c_cancel_rq,
    c_find_rq,
    c_get_rq,
    c_store_rq,
    data_set,
    fragments,
    identifier,
    image,
    message,
    n_action_rq,
    p_data,
    pdv,
    response_to,
    transaction,
)
from tests.relay.world import ACCEPTOR, REQUESTOR, RULES, FakeWorld, Line, established, policy

IDENTIFIER = identifier()
COMMAND = encode_command_set(c_store_rq(1))


def finding(**changes: UserInformation) -> Line:
    """Return a line on which C-FIND 1 is under way."""
    line = established(calling="WS1", **changes)  # type: ignore[arg-type]
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    line.read(ACCEPTOR)
    return line


def only(line: Line, leg: Leg) -> Message:
    return line.response(leg)


def test_every_row_of_the_table_has_a_test_and_every_test_a_row() -> None:
    root = Path(__file__).parents[2]
    rows = re.findall(r"^\| ([A-Z]\d\d) \|", (root / "docs" / "relay.md").read_text(encoding="utf-8"), re.MULTILINE)
    tests = {
        name.upper()
        for file in ("test_negotiation.py", "test_rows.py")
        for name in re.findall(
            r"^def test_row_([a-z]\d\d)_", (Path(__file__).parent / file).read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert len(rows) == len(set(rows)) > 40
    assert tests == set(rows)


@pytest.mark.parametrize("leg", list(Leg))
def test_row_l01_release_requests_are_ours(leg: Leg) -> None:
    line = established()
    line.send(leg, RELEASE_RQ[:9] + b"\7")
    assert bytes(line.bytes[leg.other]).endswith(RELEASE_RQ)


@pytest.mark.parametrize("leg", list(Leg))
def test_row_l02_release_responses_are_ours(leg: Leg) -> None:
    line = established()
    line.send(leg, RELEASE_RQ)
    assert line.said(leg) == []
    line.send(leg.other, RELEASE_RP[:9] + b"\7")
    assert bytes(line.bytes[leg]).endswith(RELEASE_RP)


@pytest.mark.parametrize("leg", list(Leg))
@pytest.mark.parametrize("source", [0, 2])
def test_row_x01_an_abort_keeps_its_source_and_loses_its_reason(leg: Leg, source: int) -> None:
    line = established()
    line.send(leg, ABORT[:8] + bytes([source, 5]))
    assert line.read(leg.other) == [AAbort(source=source, reason=0)]


@pytest.mark.parametrize("leg", list(Leg))
def test_row_x02_who_breaks_the_protocol_is_told_why_and_nobody_else(leg: Leg) -> None:
    line = established()
    line.send(leg, b"\x09\0\0\0\0\0")
    assert line.read(leg) == [AAbort(source=2, reason=1)]
    assert line.read(leg.other) == [AAbort(source=2, reason=0)]


def test_row_p01_fragments_are_copied_byte_for_byte() -> None:
    line = established()
    line.send(REQUESTOR, message(3, c_store_rq(1)))
    data = fragments(3, image(pixels=b"p" * 999), command=False, size=100)
    line.send(REQUESTOR, data)
    assert bytes(line.bytes[ACCEPTOR]).endswith(data)
    line = finding()
    line.send(ACCEPTOR, message(5, response_to(c_find_rq(1), 0xFF00, has_data_set=True)))
    line.send(ACCEPTOR, data := fragments(5, IDENTIFIER, command=False, size=11))
    assert bytes(line.bytes[REQUESTOR]).endswith(data)


def test_row_p02_what_is_too_long_for_the_other_leg_is_cut() -> None:
    small = UserInformation(maximum_length=128, implementation_class_uid=IMPLEMENTATION)
    line = established(answer=small)
    # 128 was mirrored to the requestor; an old device counts the headers apart and sends 12 more.
    line.say(REQUESTOR, 3, c_store_rq(1), image(pixels=b"p" * 999), size=134)
    assert only(line, ACCEPTOR).data == image(pixels=b"p" * 999)
    line = finding(user=small)
    line.readers[REQUESTOR].max_pdu = 128
    line.say(
        ACCEPTOR, 5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), identifier(patient_id="4" * 300), size=122
    )
    assert only(line, REQUESTOR).data == identifier(patient_id="4" * 300)


def test_row_p03_several_pdvs_of_a_pdu_get_pdus_of_their_own() -> None:
    line = established()
    data = image(pixels=b"p" * 100)
    line.send(
        REQUESTOR,
        p_data(
            pdv(3, COMMAND[:20], command=True, last=False),
            pdv(3, COMMAND[20:], command=True),
            pdv(3, data[:40], command=False, last=False),
            pdv(3, data[40:], command=False),
        ),
    )
    sent = bytes(line.bytes[ACCEPTOR])
    assert sent.endswith(
        p_data(pdv(3, data[:40], command=False, last=False)) + p_data(pdv(3, data[40:], command=False))
    )
    assert only(line, ACCEPTOR).data == data


def test_row_p04_reserved_bits_of_the_message_control_header_are_zeros() -> None:
    line = established()
    first, second = p_data(pdv(3, COMMAND, command=True)), p_data(pdv(3, image(), command=False))
    line.send(REQUESTOR, first[:11] + bytes([first[11] | 0xF0]) + first[12:] + second[:11] + b"\xfe" + second[12:])
    assert bytes(line.bytes[ACCEPTOR]).endswith(second)
    assert only(line, ACCEPTOR).command == c_store_rq(1)


def test_row_p05_empty_fragments_are_dropped() -> None:
    line = established()
    empty = p_data(pdv(3, b"", command=False, last=False))
    data = fragments(3, image(), command=False, size=10)
    line.send(REQUESTOR, message(3, c_store_rq(1)) + empty + data[:22] + empty + data[22:])
    assert bytes(line.bytes[ACCEPTOR]).endswith(data)


def test_row_c01_command_sets_keep_their_values() -> None:
    line = established()
    command = c_store_rq(0xFFFE, move_originator_ae_title="WS1", move_originator_message_id=7, priority=2)
    line.say(REQUESTOR, 3, command, image())
    assert only(line, ACCEPTOR).command == command
    response = response_to(command, 0xB007, offending_elements=(0x00100010,), error_comment="what now?", error_id=3)
    line.say(ACCEPTOR, 3, response)
    assert only(line, REQUESTOR).command == response


def test_row_c02_elements_that_do_not_belong_to_the_message_are_dropped() -> None:
    line = established()
    # Length to End (0000,0001), retired; Move Destination (0000,0600), of another message; (0000,4321) of none.
    extra = bytes.fromhex("0000010004000000 00000000") + COMMAND[12:]
    extra += bytes.fromhex("0000214304000000") + b"what"
    line.send(REQUESTOR, p_data(pdv(3, extra, command=True)) + fragments(3, image(), command=False, size=999))
    assert only(line, ACCEPTOR).command == c_store_rq(1)
    assert b"what" not in line.bytes[ACCEPTOR]


@pytest.mark.parametrize("stated", [0, 9999])
def test_row_c03_group_length_is_ours(stated: int) -> None:
    line = established()
    wrong = COMMAND[:8] + stated.to_bytes(4, "little") + COMMAND[12:]
    line.send(REQUESTOR, p_data(pdv(3, wrong, command=True)) + fragments(3, image(), command=False, size=999))
    assert p_data(pdv(3, COMMAND, command=True)) in line.bytes[ACCEPTOR]


def test_row_c04_refused_requests_are_answered_by_us() -> None:
    line = established()
    line.say(REQUESTOR, 3, c_store_rq(1), image("9.9"))
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status A900"]
    line.say(ACCEPTOR, 3, c_store_rq(1), image())
    assert line.said(ACCEPTOR) == ["C-STORE-RSP 1 on 3 status 0211"]
    assert line.said(REQUESTOR) == []


def test_row_c05_a_cancel_of_what_is_under_way_is_copied() -> None:
    line = finding()
    line.say(REQUESTOR, 5, c_cancel_rq(1))
    assert only(line, ACCEPTOR).command == c_cancel_rq(1)


def test_row_c06_a_cancel_of_what_waits_is_answered_by_us() -> None:
    line = finding()
    line.say(REQUESTOR, 5, c_find_rq(2), IDENTIFIER)
    line.say(REQUESTOR, 5, c_cancel_rq(2))
    assert line.said(ACCEPTOR) == []
    assert line.said(REQUESTOR) == ["C-FIND-RSP 2 on 5 status FE00"]


def test_row_c07_other_cancels_are_dropped() -> None:
    line = finding()
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    line.read(REQUESTOR)
    line.say(REQUESTOR, 5, c_cancel_rq(1))
    assert line.said(ACCEPTOR) == line.said(REQUESTOR) == []


def test_row_c08_matches_beyond_the_limit_are_dropped() -> None:
    world = FakeWorld()
    world.limits.matches = 1
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    line.read(ACCEPTOR)
    for _ in range(3):
        line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), IDENTIFIER)
    assert line.said(ACCEPTOR) == ["C-CANCEL-RQ 1 on 5"]
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0xFE00))
    assert [text.split(" status ")[1][:4] for text in line.said(REQUESTOR)] == ["FF00", "A700"]


def test_row_c09_success_of_a_retrieval_with_a_refused_suboperation_becomes_a_warning() -> None:
    line = established(calling="WS1")
    line.say(REQUESTOR, 9, c_get_rq(1), IDENTIFIER)
    line.say(ACCEPTOR, 3, c_store_rq(1), image("9.9"))
    final = response_to(c_get_rq(1), number_of_completed_suboperations=4, number_of_failed_suboperations=1)
    line.say(ACCEPTOR, 9, final)
    read = only(line, REQUESTOR).command
    assert read.status == 0xB000
    assert (read.number_of_completed_suboperations, read.number_of_failed_suboperations) == (4, 1)


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_row_d01_data_sets_are_copied_whatever_their_size(size: int) -> None:
    line = established()
    data = image(pixels=b"\x5a" * size)
    line.say(REQUESTOR, 3, c_store_rq(1), data, size=16000)
    assert only(line, ACCEPTOR).data == data


def test_row_d02_data_sets_of_refused_requests_are_dropped() -> None:
    line = established()
    line.say(REQUESTOR, 3, c_store_rq(1), image("9.9", pixels=b"SECRET"))
    assert b"SECRET" not in line.bytes[ACCEPTOR]


def test_row_d03_heads_and_identifiers_go_on_as_they_came() -> None:
    line = finding()
    assert bytes(line.bytes[ACCEPTOR]).endswith(fragments(5, IDENTIFIER, command=False, size=4096))
    line = established()
    odd = image("1.2.3 ")
    line.say(REQUESTOR, 3, c_store_rq(1, "1.2.3", CT_IMAGE), odd, size=7)
    assert only(line, ACCEPTOR).data == odd
    line.say(REQUESTOR, 15, n_action_rq(2), transaction())
    line.say(ACCEPTOR, 3, response_to(c_store_rq(1)))
    assert only(line, ACCEPTOR).data == transaction()


def test_row_c10_a_match_that_cannot_be_read_is_held_back_and_no_success_follows() -> None:
    line = finding()
    find = c_find_rq(1)
    line.say(ACCEPTOR, 5, response_to(find, 0xFF00, has_data_set=True), b"no data set")
    line.say(ACCEPTOR, 5, response_to(find, 0xFF00, has_data_set=True), IDENTIFIER)
    line.say(ACCEPTOR, 5, response_to(find, 0))
    assert line.said(REQUESTOR) == [
        f"C-FIND-RSP 1 on 5 status FF00 with {len(IDENTIFIER)} bytes",
        "C-FIND-RSP 1 on 5 status C000",
    ]


def test_row_c11_matches_beyond_a_budget_end_the_query() -> None:
    world = FakeWorld()
    world.budgets.book = BudgetBook(BudgetSettings(device={"patients_per_hour": 1, "at_end": "refuse"}))
    line = established(world, calling="WS1")
    find = c_find_rq(1)
    line.say(REQUESTOR, 5, find, IDENTIFIER)
    line.read(ACCEPTOR)
    for patient in ("1", "2"):
        line.say(ACCEPTOR, 5, response_to(find, 0xFF00, has_data_set=True), identifier(patient_id=patient))
    assert line.said(ACCEPTOR) == ["C-CANCEL-RQ 1 on 5"]
    line.say(ACCEPTOR, 5, response_to(find, 0xFE00))
    assert line.said(REQUESTOR) == [
        f"C-FIND-RSP 1 on 5 status FF00 with {len(identifier(patient_id='1'))} bytes",
        "C-FIND-RSP 1 on 5 status A700",
    ]


def test_row_d04_stripped_matches_are_encoded_anew() -> None:
    world = FakeWorld()
    rules = [replace(rule, strip=frozenset({0x00101040})) if rule.id == "workstation-reads" else rule for rule in RULES]
    world.policy = policy(*rules)
    line = established(world, calling="WS1")
    find = c_find_rq(1)
    line.say(REQUESTOR, 5, find, data_set({0x00080052: "STUDY", 0x00100020: "4711", 0x00101040: ""}))
    line.say(
        ACCEPTOR,
        5,
        response_to(find, 0xFF00, has_data_set=True),
        data_set({0x00080052: "STUDY", 0x00100020: "4711", 0x00101040: "1 Main St"}),
    )
    line.say(ACCEPTOR, 5, response_to(find, 0))
    match, final = line.read(REQUESTOR)
    assert isinstance(match, Message)
    assert isinstance(final, Message)
    assert match.data == data_set({0x00080052: "STUDY", 0x00100020: "4711"})
    assert (match.command.status, final.command.status) == (0xFF01, 0)
