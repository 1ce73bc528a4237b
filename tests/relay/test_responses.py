"""What the acceptor answers: matched to its request, counted, cut, kept honest."""

import pytest

from dicomward.audit.event import OperationCompleted, OperationDenied
from dicomward.dicom.dimse import CommandSet
from dicomward.vocab.reason import ReasonCode
from tests.relay.test_operations import IDENTIFIER, is_aborted, last, windowed
from tests.relay.wire import (
    Message,
    c_cancel_rq,
    c_echo_rq,
    c_find_rq,
    c_move_rq,
    c_store_rq,
    data_set,
    identifier,
    image,
    message,
    n_create_rq,
    response_to,
)
from tests.relay.world import (
    ACCEPTOR,
    REQUESTOR,
    established,
)

# -- matches -----------------------------------------------------------------------------------------------------------


def pending(find: CommandSet, i: int) -> bytes:
    return message(5, response_to(find, 0xFF00, has_data_set=True), identifier(study=f"1.2.{i}"))


@pytest.mark.parametrize("final", [0xFE00, 0x0000], ids=["cancelled", "archive ignores the cancel"])
def test_a_query_with_too_many_matches_is_cut(final: int) -> None:
    line = established(calling="WS1")
    line.world.limits.matches = 2
    find = c_find_rq(9)
    line.say(REQUESTOR, 5, find, IDENTIFIER)
    line.read(ACCEPTOR)
    for i in range(5):
        line.send(ACCEPTOR, pending(find, i))
    # One C-CANCEL, at the third match; the rest is swallowed.
    assert line.said(ACCEPTOR) == ["C-CANCEL-RQ 9 on 5"]
    matches = line.read(REQUESTOR)
    assert [m.data for m in matches if isinstance(m, Message)] == [identifier(study="1.2.0"), identifier(study="1.2.1")]
    line.say(REQUESTOR, 5, c_cancel_rq(9))
    assert line.said(ACCEPTOR) == []
    line.say(ACCEPTOR, 5, response_to(find, final))
    response = line.response()
    assert str(response) == "C-FIND-RSP 9 on 5 status A700"
    assert response.command.error_comment == "Dicomward: matches-per-query"
    completed = last(line, OperationCompleted)
    assert (completed.status, completed.reason, completed.matches) == (0xA700, ReasonCode.MATCHES_PER_QUERY, 2)


def test_a_cut_query_that_failed_keeps_the_archives_status() -> None:
    line = established(calling="WS1")
    line.world.limits.matches = 1
    find = c_find_rq(9)
    line.say(REQUESTOR, 5, find, IDENTIFIER)
    for i in range(2):
        line.send(ACCEPTOR, pending(find, i))
    line.read(REQUESTOR)
    line.say(ACCEPTOR, 5, response_to(find, 0xC001))
    assert line.said(REQUESTOR) == ["C-FIND-RSP 9 on 5 status C001"]


def test_exactly_as_many_matches_as_allowed_are_a_success() -> None:
    line = established(calling="WS1")
    line.world.limits.matches = 2
    find = c_find_rq(9)
    line.say(REQUESTOR, 5, find, IDENTIFIER)
    for i in range(2):
        line.send(ACCEPTOR, pending(find, i))
    line.say(ACCEPTOR, 5, response_to(find))
    assert len(line.said(REQUESTOR)) == 3
    completed = last(line, OperationCompleted)
    assert (completed.status, completed.reason, completed.matches) == (0, None, 2)


def test_the_worklist_has_the_floors_number_of_matches() -> None:
    line = established()
    line.world.limits.matches, line.world.limits.floor_matches = 0, 1
    find = c_find_rq(9, affected_sop_class_uid="1.2.840.10008.5.1.4.31")
    line.say(REQUESTOR, 11, find, data_set({0x00400100: b""}))
    line.say(ACCEPTOR, 11, response_to(find, 0xFF01, has_data_set=True), IDENTIFIER)
    assert len(line.said(REQUESTOR)) == 1


def test_a_pending_response_without_data_set_is_no_match() -> None:
    line = established(calling="WS1")
    line.world.limits.matches = 1
    move, find = c_move_rq(1), c_find_rq(2)
    line.say(REQUESTOR, 7, move, IDENTIFIER)
    for remaining in (3, 2, 1):
        line.say(ACCEPTOR, 7, response_to(move, 0xFF00, number_of_remaining_suboperations=remaining))
    line.say(ACCEPTOR, 7, response_to(move, number_of_completed_suboperations=3))
    assert len(line.said(REQUESTOR)) == 4
    assert last(line, OperationCompleted).completed == 3
    line.say(REQUESTOR, 5, find, IDENTIFIER)
    line.say(ACCEPTOR, 5, response_to(find, 0xFF00))
    line.send(ACCEPTOR, pending(find, 1))
    line.say(ACCEPTOR, 5, response_to(find))
    assert len(line.said(REQUESTOR)) == 3


@pytest.mark.parametrize(("status", "told"), [(0x0000, "C000"), (0xB000, "B000"), (0xFF02, "FF02")])
def test_a_match_in_a_final_response_is_held_back(status: int, told: str) -> None:
    """Matches come with Pending; nothing would count or strip one that comes with another status."""
    line = established(calling="WS1")
    find = c_find_rq(9)
    line.say(REQUESTOR, 5, find, IDENTIFIER)
    line.send(ACCEPTOR, pending(find, 1))
    wire = message(5, response_to(find, status, has_data_set=True), identifier(study="1.2.2"), size=10)
    line.send(ACCEPTOR, wire[:-20])
    # The next request goes, and its answer comes behind what is read to its end.
    line.say(REQUESTOR, 1, c_echo_rq(10))
    line.send(ACCEPTOR, wire[-20:])
    line.say(ACCEPTOR, 1, response_to(c_echo_rq(10)))
    assert line.said(REQUESTOR)[1:] == [f"C-FIND-RSP 9 on 5 status {told}", "C-ECHO-RSP 10 on 1 status 0000"]
    completed = line.recorded(OperationCompleted)[0]
    assert isinstance(completed, OperationCompleted)
    assert (completed.status, completed.matches) == (int(told, 16), 1)
    assert last(line, OperationDenied).reason is ReasonCode.RESPONSE_UNREADABLE


def test_a_final_response_of_the_worklist_passes_as_it_is() -> None:
    line = established()
    find = c_find_rq(9, affected_sop_class_uid="1.2.840.10008.5.1.4.31")
    line.say(REQUESTOR, 11, find, data_set({0x00400100: b""}))
    line.say(ACCEPTOR, 11, response_to(find, 0x0000, has_data_set=True), IDENTIFIER)
    assert line.response().data == IDENTIFIER


# -- responses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("context_id", "response"),
    [
        (1, response_to(c_echo_rq(2))),
        (3, response_to(c_echo_rq(1))),
        (1, response_to(c_store_rq(1))),
    ],
    ids=["message id", "context", "command field"],
)
def test_a_response_that_was_not_asked_for_is_an_abort(context_id: int, response: CommandSet) -> None:
    line = established()
    line.say(REQUESTOR, 1, c_echo_rq(1))
    line.say(ACCEPTOR, context_id, response)
    assert is_aborted(line, ACCEPTOR, 5)


def test_a_response_to_a_request_that_was_not_forwarded_is_an_abort() -> None:
    line = windowed()
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    line.say(REQUESTOR, 5, c_find_rq(2), IDENTIFIER)
    line.say(ACCEPTOR, 5, response_to(c_find_rq(2)))
    assert is_aborted(line, ACCEPTOR, 5)


def test_a_second_final_response_is_an_abort() -> None:
    line = established()
    line.say(REQUESTOR, 1, c_echo_rq(1))
    line.say(ACCEPTOR, 1, response_to(c_echo_rq(1)))
    line.say(ACCEPTOR, 1, response_to(c_echo_rq(1)))
    assert is_aborted(line, ACCEPTOR, 5)


def test_a_response_may_have_a_data_set() -> None:
    line = established()
    create = n_create_rq(1)
    line.say(REQUESTOR, 13, create, data_set({0x00400252: "IN PROGRESS"}))
    attributes = data_set({0x00400252: "IN PROGRESS", 0x00400253: "1"})
    wire = message(13, response_to(create, has_data_set=True), attributes, size=7)
    line.send(ACCEPTOR, wire[:-40])
    line.say(REQUESTOR, 1, c_echo_rq(2))
    # Towards the archive the window is 1 until the whole response is there.
    assert line.said(ACCEPTOR)[1:] == []
    line.send(ACCEPTOR, wire[-40:])
    assert line.response().data == attributes
    assert line.said(ACCEPTOR) == ["C-ECHO-RQ 2 on 1"]


def test_an_early_response_does_not_stop_the_data_set() -> None:
    """An archive that is full may say so before it has read everything."""
    line = established()
    data = image(pixels=b"p" * 5000)
    wire = message(3, c_store_rq(1), data, size=500)
    line.send(REQUESTOR, wire[:3000])
    line.say(ACCEPTOR, 3, response_to(c_store_rq(1), 0xA700))
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status A700"]
    line.send(REQUESTOR, wire[3000:])
    assert [m.data for m in line.read(ACCEPTOR) if isinstance(m, Message)] == [data]
    line.say(REQUESTOR, 3, c_store_rq(1), image())
    assert len(line.said(ACCEPTOR)) == 1
