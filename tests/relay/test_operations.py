"""Messages on an established association: judged, recorded, forwarded in turn, answered, cut, cancelled, counted."""

from dataclasses import replace

import pytest

from dicomward.audit.event import (
    AssociationEnded,
    AuditEvent,
    OperationAllowed,
    OperationCompleted,
    OperationDenied,
    OperationEvent,
)
from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.errors import RemoteProtocolError
from dicomward.dicom.framing import DataRun
from dicomward.dicom.pdu import AAbort, AsyncOperationsWindow, UserInformation
from dicomward.relay.effects import Effect, Record, RegisterMove, Send
from dicomward.relay.inputs import Ended, Instant, Leg
from dicomward.relay.messages import Exchange, Mode, Transfer
from dicomward.relay.operations import Operations
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import Service
from tests.relay.wire import (
    ABORT,
    COMMITMENT,
    CT_IMAGE,
    FILM_SESSION,
    IMPLEMENTATION,
    MPPS,
    MR_IMAGE,
    PRINT_META,
    STUDY_FIND,
    VERIFICATION,
    WORKLIST,
    Message,
    c_cancel_rq,
    c_echo_rq,
    c_find_rq,
    c_get_rq,
    c_move_rq,
    c_store_rq,
    data_set,
    fragments,
    identifier,
    image,
    message,
    n_action_rq,
    n_create_rq,
    n_event_report_rq,
    p_data,
    pdv,
    response_to,
    transaction,
)
from tests.relay.world import (
    ACCEPTOR,
    NOON,
    REQUESTOR,
    FakeWorld,
    Line,
    allow,
    established,
    established_by_archive,
    policy,
)

IDENTIFIER = identifier()
WINDOW = UserInformation(
    maximum_length=16384,
    implementation_class_uid=IMPLEMENTATION,
    async_operations_window=AsyncOperationsWindow(maximum_invoked=0, maximum_performed=0),
)


def windowed(world: FakeWorld | None = None, *, calling: str = "WS1", archive_window: int | None = None) -> Line:
    """Return a line whose requestor may invoke many operations; the archive's window is 1, or what the test says."""
    answer = None
    if archive_window is not None:
        window = AsyncOperationsWindow(maximum_invoked=archive_window, maximum_performed=archive_window)
        answer = replace(WINDOW, async_operations_window=window)
    return established(world, calling=calling, user=WINDOW, answer=answer)


def operations(line: Line) -> Operations:
    assert line.relay._operations is not None
    return line.relay._operations


def last(line: Line, kind: type[AuditEvent]) -> OperationEvent:
    event = line.recorded(kind)[-1]
    assert isinstance(event, OperationEvent)
    return event


def is_aborted(line: Line, leg: Leg, reason: int) -> bool:
    return line.read(leg)[-1] == AAbort(source=2, reason=reason) and isinstance(line.read(leg.other)[-1], AAbort)


# -- forwarding --------------------------------------------------------------------------------------------------------


def test_a_message_without_data_set_goes_there_and_back() -> None:
    line = established()
    line.say(REQUESTOR, 1, c_echo_rq(7))
    assert line.said(ACCEPTOR) == ["C-ECHO-RQ 7 on 1"]
    assert last(line, OperationAllowed).operation == "c-echo"
    line.now += 0.25
    line.say(ACCEPTOR, 1, response_to(c_echo_rq(7)))
    assert line.said(REQUESTOR) == ["C-ECHO-RSP 7 on 1 status 0000"]
    completed = last(line, OperationCompleted)
    assert (completed.status, completed.duration_ms, completed.direction) == (0, 250, "requestor")


@pytest.mark.parametrize("size", [1, 7, 333, 16000])
def test_a_data_set_passes_bit_for_bit_whatever_its_fragments(size: int) -> None:
    line = established()
    data = image(pixels=bytes(range(256)) * 5)
    line.say(REQUESTOR, 3, c_store_rq(1), data, size=size)
    (read,) = line.read(ACCEPTOR)
    assert isinstance(read, Message)
    assert read.data == data
    assert read.command == c_store_rq(1)
    allowed = last(line, OperationAllowed)
    assert (allowed.sop_class_uid, allowed.sop_instance_uid) == (CT_IMAGE, "1.2.3")
    line.say(ACCEPTOR, 3, response_to(c_store_rq(1), affected_sop_instance_uid="1.2.3"))
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status 0000"]
    assert last(line, OperationCompleted).bytes == len(data)


def test_the_record_of_an_operation_comes_before_its_first_byte() -> None:
    line = established()
    effects = line.send(REQUESTOR, message(3, c_store_rq(1), image()))
    kinds = [type(effect) for effect in effects]
    assert kinds[:2] == [Record, Send]
    assert isinstance(effects[0], Record)
    assert isinstance(effects[0].event, OperationAllowed)


def test_nothing_of_a_data_set_passes_before_its_head_is_judged() -> None:
    line = established()
    wire = message(3, c_store_rq(1), image(pixels=b"p" * 100), size=10)
    line.send(REQUESTOR, wire[:-130])
    before = bytes(line.bytes[ACCEPTOR])
    line.send(REQUESTOR, wire[-130:])
    assert len(line.bytes[ACCEPTOR]) > len(before)
    assert len(line.read(ACCEPTOR)) == 1


def test_fragments_that_are_too_long_for_the_acceptor_are_cut() -> None:
    answer = UserInformation(maximum_length=200, implementation_class_uid=IMPLEMENTATION)
    line = established(answer=answer)
    data = image(pixels=b"p" * 5000)
    line.send(REQUESTOR, message(3, c_store_rq(1), data, size=190))
    (read,) = line.read(ACCEPTOR)
    assert isinstance(read, Message)
    assert read.data == data


def test_fragments_that_are_too_long_for_the_requestor_are_cut() -> None:
    """The acceptor keeps to what we told it, plus the tolerance for old devices; the requestor's own limit holds."""
    user = UserInformation(maximum_length=200, implementation_class_uid=IMPLEMENTATION)
    line = established(calling="WS1", user=user)
    line.readers[REQUESTOR].max_pdu = 200
    find = c_find_rq(1)
    line.say(REQUESTOR, 5, find, IDENTIFIER, size=100)
    match = identifier(patient_id="4" * 600)
    line.say(ACCEPTOR, 5, response_to(find, 0xFF00, has_data_set=True), match, size=206)
    assert line.response().data == match


def test_what_comes_with_the_head_goes_in_pieces_that_fit() -> None:
    answer = UserInformation(maximum_length=128, implementation_class_uid=IMPLEMENTATION)
    line = established(answer=answer)
    line.say(REQUESTOR, 3, c_store_rq(1), image(pixels=b"p" * 999), size=134)
    (read,) = line.read(ACCEPTOR)
    assert isinstance(read, Message)
    assert read.data == image(pixels=b"p" * 999)


def test_a_data_set_that_ends_with_an_empty_fragment() -> None:
    line = established()
    start = message(3, c_store_rq(1)) + fragments(3, image(), command=False, size=4096, ends=False)
    line.send(REQUESTOR, start + p_data(pdv(3, b"", command=False)))
    (read,) = line.read(ACCEPTOR)
    assert isinstance(read, Message)
    assert read.data == image()


def test_messages_in_one_context_the_acceptor_did_not_accept_are_aborted() -> None:
    line = established()
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    assert is_aborted(line, REQUESTOR, 6)


def test_a_data_set_that_no_command_announced() -> None:
    """Framing lets none through; should it ever, it is an error."""
    line = established()
    run = DataRun(3, memoryview(b""), 0, 0, True)
    with pytest.raises(RemoteProtocolError):
        operations(line).run_received(REQUESTOR, run, Instant(0.0, NOON), [])


# -- denied ------------------------------------------------------------------------------------------------------------


def test_an_operation_that_no_rule_allows_is_answered_once_its_data_set_has_ended() -> None:
    world = FakeWorld(
        policy=policy(allow("echo", "modality", Service.VERIFICATION), allow("images", "modality", Service.STORAGE))
    )
    line = established(world)
    world.policy = policy(world.policy.rules[0])
    wire = message(17, c_store_rq(5, sop_class=MR_IMAGE), image(sop_class=MR_IMAGE), size=20)
    line.send(REQUESTOR, wire[:-10])
    assert line.said(REQUESTOR) == []
    denied = last(line, OperationDenied)
    assert (denied.reason, denied.status) == (ReasonCode.NO_MATCHING_RULE, 0x0124)
    line.send(REQUESTOR, wire[-10:])
    response = line.response()
    assert str(response) == "C-STORE-RSP 5 on 17 status 0124"
    assert response.command.error_comment == "Dicomward: no-matching-rule"
    assert line.said(ACCEPTOR) == []
    # The association goes on.
    line.say(REQUESTOR, 1, c_echo_rq(6))
    assert line.said(ACCEPTOR) == ["C-ECHO-RQ 6 on 1"]


def test_a_denied_request_without_data_set_is_answered_at_once() -> None:
    world = FakeWorld()
    line = established(world)
    world.policy = policy()
    line.say(REQUESTOR, 1, c_echo_rq(6))
    assert line.said(REQUESTOR) == ["C-ECHO-RSP 6 on 1 status 0124"]


def test_a_request_above_the_rate_is_refused_with_the_services_own_code() -> None:
    line = established(calling="WS1")
    line.world.limits.refuse_operations[Operation.C_FIND] = ReasonCode.QUERY_RATE
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    assert line.said(REQUESTOR) == ["C-FIND-RSP 1 on 5 status A700"]
    denied = last(line, OperationDenied)
    assert (denied.reason, denied.rule_ids) == (ReasonCode.QUERY_RATE, ("workstation-reads",))


def test_a_reused_message_id_is_refused_and_the_first_request_goes_on() -> None:
    line = windowed()
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    assert line.said(REQUESTOR) == ["C-FIND-RSP 1 on 5 status 0210"]
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    assert line.said(REQUESTOR) == ["C-FIND-RSP 1 on 5 status 0000"]
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    assert line.said(ACCEPTOR)[-1] == f"C-FIND-RQ 1 on 5 with {len(IDENTIFIER)} bytes"


def test_message_id_zero_is_one_like_others() -> None:
    line = established()
    line.say(REQUESTOR, 1, c_echo_rq(0))
    line.say(ACCEPTOR, 1, response_to(c_echo_rq(0)))
    assert line.said(REQUESTOR) == ["C-ECHO-RSP 0 on 1 status 0000"]


def test_a_sop_class_of_another_context_is_refused() -> None:
    line = established()
    line.say(REQUESTOR, 3, c_store_rq(1, sop_class=MR_IMAGE), image(sop_class=MR_IMAGE))
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status A900"]
    assert last(line, OperationDenied).reason is ReasonCode.SOP_CLASS_MISMATCH


def test_a_meta_sop_class_carries_the_classes_of_its_service() -> None:
    line = established(contexts={1: PRINT_META})
    create = n_create_rq(1, FILM_SESSION, None)
    line.say(REQUESTOR, 1, create, data_set({0x20000010: "1"}))
    assert len(line.said(ACCEPTOR)) == 1
    line.say(REQUESTOR, 1, n_create_rq(2, MPPS), data_set({0x20000010: "1"}))
    assert line.said(REQUESTOR) == ["N-CREATE-RSP 2 on 1 status 0110"]


def test_more_operations_than_any_window_are_an_abort() -> None:
    line = windowed(FakeWorld().limited(max_operations_window=2))
    for i in (1, 2):
        line.say(REQUESTOR, 5, c_find_rq(i), IDENTIFIER)
    line.say(REQUESTOR, 5, c_find_rq(3), IDENTIFIER)
    assert is_aborted(line, REQUESTOR, 0)
    assert line.reasons[-1] == ("AssociationEnded", ReasonCode.LIMIT_EXCEEDED)


def test_roles_that_were_not_negotiated_are_counted() -> None:
    line = established()
    # No role selection: the requestor is SCU, so an event report from it is a deviation, and one to it is not.
    line.say(REQUESTOR, 15, n_event_report_rq(1), transaction())
    line.say(ACCEPTOR, 15, n_event_report_rq(1), transaction())
    line.send(REQUESTOR, ABORT)
    assert dict(line.relay._deviations)["role-not-negotiated"] == 1


# -- heads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (image("1.2.4"), ReasonCode.INSTANCE_UID_MISMATCH),
        (image(sop_class=MR_IMAGE), ReasonCode.SOP_CLASS_MISMATCH),
        (data_set({0x00080016: CT_IMAGE, 0x00080018: b"1" * 5000}), ReasonCode.INSTANCE_UID_MISMATCH),
    ],
    ids=["instance", "class", "absurd"],
)
def test_uids_of_command_and_data_set_must_be_equal(data: bytes, reason: ReasonCode) -> None:
    line = established()
    line.say(REQUESTOR, 3, c_store_rq(1), data)
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status A900"]
    assert line.said(ACCEPTOR) == []
    assert last(line, OperationDenied).reason is reason


@pytest.mark.parametrize("size", [1, 10, 4096])
@pytest.mark.parametrize("number", [0x0018, 0x0016], ids=["instance", "class"])
def test_a_second_uid_behind_the_first_is_refused(number: int, size: int) -> None:
    """An archive whose reader takes the last value would see another instance than the one on record."""
    line = established()
    first = data_set({0x00080016: CT_IMAGE, 0x00080018: "1.2.3"})
    second = data_set({0x00080000 | number: "1.2.840.9", 0x7FE00010: "px"})
    line.say(REQUESTOR, 3, c_store_rq(1), first + second, size=size)
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status C000"]
    assert line.said(ACCEPTOR) == []
    assert last(line, OperationDenied).reason is ReasonCode.DATA_SET_UNREADABLE


def _deep_image(depth: int) -> bytes:
    opened = data_set({0x00081140: b""})[:4] + b"\xff" * 4 + b"\xfe\xff\0\xe0" + b"\xff" * 4
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return image(pixels=b"")[:-8] + opened * depth + closed * depth + data_set({0x7FE00010: b"p" * 500})


@pytest.mark.parametrize("size", [10, 4096])
def test_what_is_nested_too_deep_ends_the_association_where_that_is_set(size: int) -> None:
    world = FakeWorld()
    world.settings = replace(world.settings, most_nested_sequences=8)
    line = established(world)
    line.say(REQUESTOR, 3, c_store_rq(1), _deep_image(8), size=size)
    assert len(line.said(ACCEPTOR)) == 1
    line.say(ACCEPTOR, 3, response_to(c_store_rq(1)))
    line.read(REQUESTOR)
    line.say(REQUESTOR, 3, c_store_rq(2), _deep_image(9), size=size)
    assert is_aborted(line, REQUESTOR, 0)
    ended = line.recorded(AssociationEnded)[-1]
    assert "nested more than 8 deep" in str(ended)


def test_nobody_looks_at_depth_unless_it_is_set() -> None:
    line = established()
    line.say(REQUESTOR, 3, c_store_rq(1), _deep_image(5000))
    assert len(line.said(ACCEPTOR)) == 1


def test_what_is_refused_is_not_looked_into() -> None:
    world = FakeWorld()
    world.settings = replace(world.settings, most_nested_sequences=8)
    line = established(world)
    line.say(REQUESTOR, 3, c_store_rq(1), image("1.2.4")[:-8] + _deep_image(50))
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status A900"]


def test_a_data_set_without_uids_passes_and_is_counted() -> None:
    line = established()
    line.say(REQUESTOR, 3, c_store_rq(1), data_set({0x00100020: "4711"}))
    assert len(line.said(ACCEPTOR)) == 1
    assert line.relay._deviations["data-set-without-instance-uid"] == 2


@pytest.mark.parametrize("size", [10, 4096, 32000])
def test_a_head_is_judged_whatever_comes_behind_it(size: int) -> None:
    """Also where more arrives at once than a head may be long."""
    line = established(FakeWorld().limited(max_head_bytes=1000))
    line.say(REQUESTOR, 3, c_store_rq(1), image("1.2.4", pixels=b"p" * 200_000), size=size)
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status A900"]
    line.say(REQUESTOR, 3, c_store_rq(2), image(pixels=b"p" * 200_000), size=size)
    assert len(line.said(ACCEPTOR)) == 1


@pytest.mark.parametrize("size", [10, 4096])
def test_a_head_that_never_ends_is_refused(size: int) -> None:
    line = established(FakeWorld().limited(max_head_bytes=1000))
    data = data_set({0x00080005: b"x" * 900, 0x00080006: b"x" * 900, 0x00080016: CT_IMAGE, 0x00080018: "1.2.3"})
    line.say(REQUESTOR, 3, c_store_rq(1), data, size=size)
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status C000"]
    denied = last(line, OperationDenied)
    assert denied.reason is ReasonCode.DATA_SET_UNREADABLE
    assert denied.detail == "(0008,0018) is not within the first 1000 bytes"


@pytest.mark.parametrize(
    "data", [data_set({0x00080016: CT_IMAGE})[:-3], data_set({0x00000002: CT_IMAGE})], ids=["cut", "a command set"]
)
def test_a_data_set_that_is_none_is_refused(data: bytes) -> None:
    line = established()
    line.say(REQUESTOR, 3, c_store_rq(1), data)
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status C000"]
    assert last(line, OperationDenied).reason is ReasonCode.DATA_SET_UNREADABLE


def test_an_identifier_that_is_none_is_refused() -> None:
    line = established(calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER[:-3])
    assert line.said(REQUESTOR) == ["C-FIND-RSP 1 on 5 status A900"]
    assert last(line, OperationDenied).reason is ReasonCode.IDENTIFIER_UNREADABLE


@pytest.mark.parametrize("size", [1, 500, 4096])
def test_an_identifier_that_is_too_long_is_refused(size: int) -> None:
    line = established(FakeWorld().limited(max_identifier_bytes=1000, max_held_bytes=2000), calling="WS1")
    long = identifier(patient_id="4" * (600 if size == 1 else 2000))
    wire = message(5, c_find_rq(1), long, size=size)
    # In single bytes it is what must be kept, with all its headers, that counts.
    line.send(REQUESTOR, wire, chunks=[1000] * (len(wire) // 1000))
    assert line.said(REQUESTOR) == ["C-FIND-RSP 1 on 5 status A900"]
    assert last(line, OperationDenied).reason is ReasonCode.LIMIT_EXCEEDED
    assert line.said(ACCEPTOR) == []


@pytest.mark.parametrize("size", [5, 4096])
def test_deviations_of_commands_and_heads_are_counted(size: int) -> None:
    line = established()
    late = data_set({0x00080016: CT_IMAGE}) + data_set({0x00080005: "ISO_IR 100"}) + data_set({0x00080018: "1.2.3"})
    command = c_store_rq(1)
    wire = bytearray(message(3, command))
    # Priority (0000,0700) = 7 is no priority.
    wire[wire.index(bytes.fromhex("0000000702000000")) + 8] = 7
    line.send(REQUESTOR, bytes(wire) + fragments(3, late, command=False, size=size))
    assert line.relay._deviations["invalid-priority"] == 1
    assert line.relay._deviations["data-set-order"] == 1
    (read,) = line.read(ACCEPTOR)
    assert isinstance(read, Message)
    assert read.command.priority == 0


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (identifier("SERIES"), 0x0124, ReasonCode.QUERY_LEVEL_NOT_ALLOWED),
        (data_set({0x00080052: "STUDY", 0x00100010: "DOE*"}), 0x0124, ReasonCode.REQUIRED_KEYS_MISSING),
    ],
    ids=["level", "keys"],
)
def test_an_identifier_is_judged_before_the_query_goes_on(data: bytes, status: int, reason: ReasonCode) -> None:
    line = established(calling="RESEARCH1")
    line.say(REQUESTOR, 5, c_find_rq(1), data)
    response = line.response()
    assert response.command.status == status
    assert line.said(ACCEPTOR) == []
    denied = last(line, OperationDenied)
    assert denied.reason is reason
    line.say(REQUESTOR, 5, c_find_rq(2), IDENTIFIER)
    assert len(line.said(ACCEPTOR)) == 1
    assert last(line, OperationAllowed).query_level == "STUDY"


# -- turns -------------------------------------------------------------------------------------------------------------


def test_operations_are_serialised_towards_an_archive_whose_window_is_one() -> None:
    line = windowed()
    finds = [c_find_rq(i) for i in (1, 2, 3)]
    for find in finds:
        line.say(REQUESTOR, 5, find, IDENTIFIER)
    assert line.said(ACCEPTOR) == [f"C-FIND-RQ 1 on 5 with {len(IDENTIFIER)} bytes"]
    for i, find in enumerate(finds):
        line.say(ACCEPTOR, 5, response_to(find))
        assert line.said(REQUESTOR) == [f"C-FIND-RSP {find.message_id} on 5 status 0000"]
        assert len(line.said(ACCEPTOR)) == (1 if i < 2 else 0)
    assert operations(line).is_quiet


def test_operations_run_side_by_side_where_the_archive_can() -> None:
    line = windowed(archive_window=2)
    for i in (1, 2, 3):
        line.say(REQUESTOR, 5, c_find_rq(i), IDENTIFIER)
    assert [text.split(" on")[0] for text in line.said(ACCEPTOR)] == ["C-FIND-RQ 1", "C-FIND-RQ 2"]
    line.say(ACCEPTOR, 5, response_to(c_find_rq(2)))
    assert [text.split(" on")[0] for text in line.said(ACCEPTOR)] == ["C-FIND-RQ 3"]


def test_an_impatient_requestor_is_served_one_after_the_other() -> None:
    """It has not negotiated a window, and sends its next request before the answer."""
    line = established()
    line.say(REQUESTOR, 1, c_echo_rq(1))
    line.say(REQUESTOR, 1, c_echo_rq(2))
    assert line.said(ACCEPTOR) == ["C-ECHO-RQ 1 on 1"]
    line.say(ACCEPTOR, 1, response_to(c_echo_rq(1)))
    assert line.said(ACCEPTOR) == ["C-ECHO-RQ 2 on 1"]


def test_a_held_data_set_that_is_still_coming_flows_on_when_its_turn_comes() -> None:
    line = windowed(calling="CT1")
    line.say(REQUESTOR, 3, c_store_rq(1, "1.2.1"), image("1.2.1"))
    data = image("1.2.2", pixels=b"p" * 4000)
    wire = message(3, c_store_rq(2, "1.2.2"), data, size=300)
    line.send(REQUESTOR, wire[:2000], chunks=[700, 700])
    assert len(line.said(ACCEPTOR)) == 1
    line.say(ACCEPTOR, 3, response_to(c_store_rq(1)))
    line.send(REQUESTOR, wire[2000:])
    (read,) = line.read(ACCEPTOR)
    assert isinstance(read, Message)
    assert read.data == data


def test_held_data_is_bounded_by_not_reading() -> None:
    line = windowed(FakeWorld().limited(max_held_bytes=5000), calling="CT1")
    line.say(REQUESTOR, 3, c_store_rq(1, "1.2.1"), image("1.2.1"))
    for i in (2, 3, 4):
        # Together they are more than may be held, though each alone is not.
        line.say(REQUESTOR, 3, c_store_rq(i, f"1.2.{i}"), image(f"1.2.{i}", pixels=b"p" * 1500))
    data = image("1.2.5", pixels=b"p" * 9000)
    wire = message(3, c_store_rq(5, "1.2.5"), data, size=1000)
    line.send(REQUESTOR, wire[:4000])
    assert line.paused == {REQUESTOR}
    for i in (1, 2, 3, 4):
        line.say(ACCEPTOR, 3, response_to(c_store_rq(i)))
    assert line.paused == set()
    line.send(REQUESTOR, wire[4000:])
    assert [m.data for m in line.read(ACCEPTOR) if isinstance(m, Message)][-1] == data
    line.say(ACCEPTOR, 3, response_to(c_store_rq(5)))
    assert line.said(REQUESTOR) == [f"C-STORE-RSP {i} on 3 status 0000" for i in (1, 2, 3, 4, 5)]


def test_what_is_held_is_dropped_when_the_archive_waits_for_an_answer_behind_it() -> None:
    """C-GET with sub-operations while a large store is held: not reading would wait for ever."""
    line = getting(FakeWorld().limited(max_held_bytes=5000))
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), image("1.5.1"))
    line.read(REQUESTOR)
    wire = message(3, c_store_rq(8, "1.2.8"), image("1.2.8", pixels=b"p" * 9000), size=1000)
    line.send(REQUESTOR, wire, chunks=[3000, 3000])
    assert line.paused == set()
    assert last(line, OperationDenied).reason is ReasonCode.OPERATION_RATE
    assert line.said(REQUESTOR) == ["C-STORE-RSP 8 on 3 status A700"]
    line.say(REQUESTOR, 3, response_to(c_store_rq(1)))
    assert line.said(ACCEPTOR) == ["C-STORE-RSP 1 on 3 status 0000"]


def test_a_pause_for_what_is_held_ends_when_the_archive_asks_something() -> None:
    line = getting(FakeWorld().limited(max_held_bytes=5000))
    wire = message(3, c_store_rq(8, "1.2.8"), image("1.2.8", pixels=b"p" * 9000), size=1000)
    line.send(REQUESTOR, wire[:7000])
    assert line.paused == {REQUESTOR}
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), image("1.5.1"))
    assert line.paused == set()
    line.send(REQUESTOR, wire[7000:] + message(3, response_to(c_store_rq(1))))
    assert line.said(REQUESTOR)[-1] == "C-STORE-RSP 8 on 3 status A700"
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5), number_of_completed_suboperations=1))
    assert line.said(REQUESTOR) == ["C-GET-RSP 5 on 9 status 0000"]


def test_a_pause_for_complete_requests_ends_when_the_archive_asks_something() -> None:
    line = getting(FakeWorld().limited(max_held_bytes=3000))
    line.say(REQUESTOR, 3, c_store_rq(8, "1.2.8"), image("1.2.8", pixels=b"p" * 4000))
    assert line.paused == {REQUESTOR}
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), image("1.5.1"))
    assert line.paused == set()
    line.say(REQUESTOR, 3, response_to(c_store_rq(1)))
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5)))
    # It was whole, so it keeps its turn.
    assert line.said(ACCEPTOR)[-1].startswith("C-STORE-RQ 8")


def test_a_registration_that_fails_ends_the_pause_that_waits_for_it() -> None:
    world = FakeWorld().limited(max_held_bytes=3000)
    line = established(world)
    world.registrations_work = False
    line.say(REQUESTOR, 15, n_action_rq(1), transaction())
    assert line.said(REQUESTOR) == ["N-ACTION-RSP 1 on 15 status 0124"]
    assert last(line, OperationDenied).reason is ReasonCode.INTERNAL_ERROR


def test_only_one_message_leaves_at_a_time_and_answers_of_ours_wait() -> None:
    """PS3.7 §6.3.1: while a worklist entry streams to the requestor, a refusal waits for its end."""
    line = windowed()
    find = c_find_rq(1, affected_sop_class_uid=WORKLIST)
    line.say(REQUESTOR, 11, find, IDENTIFIER)
    match = identifier(patient_id="4" * 500)
    wire = message(11, response_to(find, 0xFF00, has_data_set=True), match, size=50)
    line.send(ACCEPTOR, wire[:300])
    line.say(REQUESTOR, 1, c_echo_rq(1))
    assert line.said(REQUESTOR) == []
    line.send(ACCEPTOR, wire[300:])
    assert line.said(REQUESTOR) == [
        f"C-FIND-RSP 1 on 11 status FF00 with {len(match)} bytes",
        "C-ECHO-RSP 1 on 1 status 0210",
    ]


def test_answers_of_ours_that_wait_are_bounded() -> None:
    line = windowed(FakeWorld().limited(max_held_bytes=1000))
    find = c_find_rq(1, affected_sop_class_uid=WORKLIST)
    line.say(REQUESTOR, 11, find, IDENTIFIER)
    wire = message(11, response_to(find, 0xFF00, has_data_set=True), IDENTIFIER, size=10)
    line.send(ACCEPTOR, wire[:-20])
    for _ in range(20):
        line.say(REQUESTOR, 1, c_echo_rq(1))
        if REQUESTOR in line.paused:
            break
    assert line.paused == {REQUESTOR}
    line.send(ACCEPTOR, wire[-20:])
    assert line.paused == set()
    assert 1 < len(line.said(REQUESTOR)) < 20


def test_requests_wait_while_another_message_streams_in_their_way() -> None:
    line = windowed(calling="CT1", archive_window=4)
    data = image("1.2.1", pixels=b"p" * 3000)
    line.send(REQUESTOR, message(3, c_store_rq(1, "1.2.1"), data, size=500)[:2000])
    assert operations(line).is_quiet is False
    assert operations(line).may_release(REQUESTOR) is False
    assert operations(line).may_release(ACCEPTOR) is True


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_a_cancel_of_what_is_under_way_is_forwarded() -> None:
    line = established(calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(4), IDENTIFIER)
    line.say(REQUESTOR, 5, c_cancel_rq(4))
    assert line.said(ACCEPTOR)[-1] == "C-CANCEL-RQ 4 on 5"
    line.say(ACCEPTOR, 5, response_to(c_find_rq(4), 0xFE00))
    assert line.said(REQUESTOR) == ["C-FIND-RSP 4 on 5 status FE00"]


def test_a_cancel_of_what_is_held_is_answered_by_us() -> None:
    line = windowed()
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    line.say(REQUESTOR, 5, c_find_rq(2), IDENTIFIER)
    line.read(ACCEPTOR)
    line.say(REQUESTOR, 5, c_cancel_rq(2))
    assert line.said(REQUESTOR) == ["C-FIND-RSP 2 on 5 status FE00"]
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    assert line.said(ACCEPTOR) == []
    assert operations(line).is_quiet


def test_a_cancel_of_a_move_that_waits_for_its_turn_is_answered_by_us() -> None:
    world = FakeWorld()
    first, second = established(world, calling="WS1"), windowed(world)
    first.say(REQUESTOR, 7, c_move_rq(1), IDENTIFIER)
    second.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    second.say(REQUESTOR, 7, c_move_rq(2), IDENTIFIER)
    second.say(REQUESTOR, 7, c_move_rq(3), IDENTIFIER)
    second.read(ACCEPTOR)
    second.say(REQUESTOR, 7, c_cancel_rq(3))
    assert second.said(REQUESTOR) == ["C-MOVE-RSP 3 on 7 status FE00"]
    first.say(ACCEPTOR, 7, response_to(c_move_rq(1)))
    second.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    assert second.said(ACCEPTOR) == [f"C-MOVE-RQ 2 on 7 with {len(IDENTIFIER)} bytes"]


@pytest.mark.parametrize(
    ("context_id", "message_id"), [(5, 77), (7, 1)], ids=["of an unknown message", "on another context"]
)
def test_a_late_cancel_is_normal_and_has_no_answer(context_id: int, message_id: int) -> None:
    line = established(calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    line.read(ACCEPTOR)
    line.say(REQUESTOR, context_id, c_cancel_rq(message_id))
    assert line.said(ACCEPTOR) == line.said(REQUESTOR) == []
    assert not line.relay.is_over


def test_a_cancel_of_an_operation_that_has_none_goes_nowhere() -> None:
    """PS3.7 §9.3.2.3, §9.3.3.3, §9.3.4.3: only C-FIND, C-GET and C-MOVE can be cancelled."""
    line = established()
    line.say(REQUESTOR, 3, c_store_rq(1), image())
    line.read(ACCEPTOR)
    line.say(REQUESTOR, 3, c_cancel_rq(1))
    assert line.said(ACCEPTOR) == line.said(REQUESTOR) == []


def test_a_cancel_of_what_is_still_being_read_goes_nowhere() -> None:
    """A peer can't send it in the middle of its own message; should it ever come, nothing happens."""
    line = established(calling="WS1")
    line.send(REQUESTOR, message(5, c_find_rq(1), IDENTIFIER, size=10)[:-20])
    out: list[Effect] = []
    operations(line).command_received(REQUESTOR, 5, c_cancel_rq(1), Instant(0.0, NOON), out)
    assert out == []


# -- C-GET -------------------------------------------------------------------------------------------------------------


def getting(world: FakeWorld | None = None, *, archive_window: int | None = None) -> Line:
    """Return a line on which C-GET 5 is under way."""
    line = windowed(world, archive_window=archive_window)
    line.say(REQUESTOR, 9, c_get_rq(5), IDENTIFIER)
    line.read(ACCEPTOR)
    return line


def test_suboperations_of_a_get_go_to_the_requestor_and_back() -> None:
    line = getting()
    data = image("1.5.1", pixels=b"p" * 9000)
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), data)
    read = line.response()
    assert (read.name, read.data) == ("C-STORE-RQ", data)
    allowed = last(line, OperationAllowed)
    assert (allowed.operation, allowed.direction, allowed.rule_ids) == ("c-store", "acceptor", ("workstation-reads",))
    line.say(REQUESTOR, 3, response_to(c_store_rq(1)))
    assert line.said(ACCEPTOR) == ["C-STORE-RSP 1 on 3 status 0000"]
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5), number_of_completed_suboperations=1))
    assert line.said(REQUESTOR) == ["C-GET-RSP 5 on 9 status 0000"]


def test_a_get_that_waits_does_not_open_the_way_for_suboperations() -> None:
    line = windowed()
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    line.say(REQUESTOR, 9, c_get_rq(5), IDENTIFIER)
    line.read(ACCEPTOR)
    line.say(ACCEPTOR, 3, c_store_rq(1), image())
    assert line.said(ACCEPTOR) == ["C-STORE-RSP 1 on 3 status 0211"]


def test_a_get_with_a_suboperation_that_we_refused_is_no_success() -> None:
    line = getting()
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), image("9.9.9"))
    assert line.said(ACCEPTOR) == ["C-STORE-RSP 1 on 3 status A900"]
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5)))
    assert line.said(REQUESTOR) == ["C-GET-RSP 5 on 9 status B000"]


@pytest.mark.parametrize(
    "command", [c_store_rq(1, sop_class=MR_IMAGE), c_store_rq(2)], ids=["class of another context", "reused message id"]
)
def test_a_suboperation_refused_for_its_form_counts_for_its_get(command: CommandSet) -> None:
    line = getting()
    line.say(ACCEPTOR, 3, c_store_rq(2), image())
    line.say(ACCEPTOR, 3, command, image())
    line.say(REQUESTOR, 3, response_to(c_store_rq(2)))
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5)))
    assert line.said(REQUESTOR)[-1] == "C-GET-RSP 5 on 9 status B000"


def test_a_refused_suboperation_counts_for_every_get_that_it_may_belong_to() -> None:
    """A C-STORE sub-operation of a C-GET doesn't say whose it is, and we never guess."""
    line = getting(archive_window=2)
    line.say(REQUESTOR, 9, c_get_rq(6), IDENTIFIER)
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), image("9.9.9"))
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5)))
    line.say(ACCEPTOR, 9, response_to(c_get_rq(6)))
    assert line.said(REQUESTOR) == ["C-GET-RSP 5 on 9 status B000", "C-GET-RSP 6 on 9 status B000"]


def test_a_get_that_failed_keeps_the_archives_status() -> None:
    line = getting()
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), image("9.9.9"))
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5), 0xA702))
    assert line.said(REQUESTOR) == ["C-GET-RSP 5 on 9 status A702"]


def test_a_final_response_that_we_changed_keeps_its_data_set() -> None:
    line = getting()
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), image("9.9.9"))
    failed = data_set({0x00080058: "1.5.1"})
    line.say(ACCEPTOR, 9, response_to(c_get_rq(5), has_data_set=True), failed)
    response = line.response()
    assert (response.command.status, response.data) == (0xB000, failed)


def test_the_archive_may_not_invoke_anything_else() -> None:
    line = getting()
    line.say(ACCEPTOR, 1, c_echo_rq(1))
    assert line.said(ACCEPTOR) == ["C-ECHO-RSP 1 on 1 status 0211"]
    line.say(ACCEPTOR, 5, c_find_rq(2), IDENTIFIER)
    assert line.said(ACCEPTOR) == ["C-FIND-RSP 2 on 5 status 0211"]
    assert line.said(REQUESTOR) == []


def test_a_store_in_a_context_of_no_images_is_no_suboperation() -> None:
    line = getting()
    line.say(ACCEPTOR, 5, c_store_rq(1, sop_class=STUDY_FIND), image(sop_class=STUDY_FIND))
    assert line.said(ACCEPTOR) == ["C-STORE-RSP 1 on 5 status 0211"]


# -- C-MOVE ------------------------------------------------------------------------------------------------------------


def moving(world: FakeWorld, message_id: int = 1, calling: str = "WS1") -> Line:
    """Return a line on which a C-MOVE to the caller itself is under way."""
    line = established(world, calling=calling)
    line.say(REQUESTOR, 7, c_move_rq(message_id, calling), IDENTIFIER)
    line.read(ACCEPTOR)
    return line


def suboperation(message_id: int, instance: str, **originator: object) -> CommandSet:
    return c_store_rq(message_id, instance, CT_IMAGE, **originator)


def test_a_move_is_registered_before_it_is_forwarded() -> None:
    line = established(calling="WS1")
    effects = line.send(REQUESTOR, message(7, c_move_rq(1), IDENTIFIER))
    kinds = [type(effect) for effect in effects]
    assert kinds == [RegisterMove, Record, Send, Send]
    (move,) = [effect.move for effect in effects if isinstance(effect, RegisterMove)]
    assert (move.archive, move.destination_ae_title, move.originator_ae_title, move.message_id) == (
        "pacs",
        "WS1",
        "WS1",
        1,
    )
    assert last(line, OperationAllowed).move_destination == "WS1"


def test_suboperations_come_over_the_archive_side_and_the_books_are_closed() -> None:
    world = FakeWorld()
    mover = moving(world)
    line = established_by_archive(world)
    data = image("1.5.1")
    command = suboperation(1, "1.5.1", move_originator_ae_title="WS1", move_originator_message_id=1)
    line.say(REQUESTOR, 3, command, data)
    (read,) = line.read(ACCEPTOR)
    assert isinstance(read, Message)
    assert (read.command, read.data) == (command, data)
    line.say(ACCEPTOR, 3, response_to(command))
    mover.say(ACCEPTOR, 7, response_to(c_move_rq(1), number_of_completed_suboperations=1))
    assert mover.said(REQUESTOR) == ["C-MOVE-RSP 1 on 7 status 0000"]
    assert world.correlations.moves_towards("pacs", "WS1") == []


def test_a_move_with_a_suboperation_that_we_refused_is_no_success() -> None:
    world = FakeWorld()
    mover = moving(world)
    line = established_by_archive(world)
    line.say(REQUESTOR, 3, suboperation(1, "1.5.1"), image("9.9.9"))
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status A900"]
    mover.say(ACCEPTOR, 7, response_to(c_move_rq(1)))
    assert mover.said(REQUESTOR) == ["C-MOVE-RSP 1 on 7 status B000"]


def test_a_suboperation_above_the_rate_counts_for_its_move() -> None:
    world = FakeWorld()
    mover = moving(world)
    line = established_by_archive(world)
    world.limits.refuse_operations[Operation.C_STORE] = ReasonCode.OPERATION_RATE
    line.say(REQUESTOR, 3, suboperation(1, "1.5.1"), image("1.5.1"))
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status A700"]
    mover.say(ACCEPTOR, 7, response_to(c_move_rq(1)))
    assert mover.said(REQUESTOR) == ["C-MOVE-RSP 1 on 7 status B000"]


def test_a_suboperation_that_may_belong_to_several_moves_counts_for_all() -> None:
    world = FakeWorld()
    world.correlations.table.names_originator["pacs"] = True
    movers = [moving(world, 1), moving(world, 2)]
    line = established_by_archive(world)
    line.say(REQUESTOR, 3, suboperation(1, "1.5.1"), image("1.5.1"))
    assert line.said(REQUESTOR) == ["C-STORE-RSP 1 on 3 status 0124"]
    assert last(line, OperationDenied).reason is ReasonCode.AMBIGUOUS_MOVE
    for i, mover in enumerate(movers, 1):
        mover.say(ACCEPTOR, 7, response_to(c_move_rq(i)))
        assert mover.said(REQUESTOR) == [f"C-MOVE-RSP {i} on 7 status B000"]


def test_moves_towards_one_destination_take_turns_until_the_archive_names_them() -> None:
    world = FakeWorld()
    first, second = moving(world, 1), established(world, calling="WS1")
    second.say(REQUESTOR, 7, c_move_rq(1), IDENTIFIER)
    assert second.said(ACCEPTOR) == []
    assert operations(second).is_quiet is False
    first.say(ACCEPTOR, 7, response_to(c_move_rq(1)))
    assert second.said(ACCEPTOR) == [f"C-MOVE-RQ 1 on 7 with {len(IDENTIFIER)} bytes"]


@pytest.mark.parametrize("how", ["aborted", "ended", "cancelled while it waits"])
def test_the_next_move_runs_however_the_first_ends(how: str) -> None:
    world = FakeWorld()
    first, second = moving(world, 1), established(world, calling="WS1")
    second.say(REQUESTOR, 7, c_move_rq(1), IDENTIFIER)
    third = established(world, calling="WS1")
    third.say(REQUESTOR, 7, c_move_rq(1), IDENTIFIER)
    match how:
        case "aborted":
            first.send(REQUESTOR, ABORT)
            assert len(second.said(ACCEPTOR)) == 1
        case "ended":
            first.handle(Ended(ReasonCode.DEVICE_SUSPENDED))
            assert len(second.said(ACCEPTOR)) == 1
        case _:
            second.say(REQUESTOR, 7, c_cancel_rq(1))
            assert second.said(REQUESTOR) == ["C-MOVE-RSP 1 on 7 status FE00"]
            assert third.said(ACCEPTOR) == []
            first.say(ACCEPTOR, 7, response_to(c_move_rq(1)))
            assert len(third.said(ACCEPTOR)) == 1


@pytest.mark.parametrize(
    "end",
    [ABORT, message(7, c_cancel_rq(1)), message(7, c_move_rq(1, "WS1")) + bytes(6)],
    ids=["aborted", "cancelled", "malformed behind it"],
)
def test_a_move_that_ends_in_the_same_bytes_leaves_nothing_pending(end: bytes) -> None:
    """Its registration is an effect, and must not come after its end: an archive could send to the destination."""
    world = FakeWorld()
    first, second = established(world, calling="WS1"), established(world, calling="WS1")
    first.send(REQUESTOR, message(7, c_move_rq(1, "WS1"), IDENTIFIER) + end)
    assert world.correlations.moves_towards("pacs", "WS1") == []
    second.say(REQUESTOR, 7, c_move_rq(1, "WS1"), IDENTIFIER)
    assert second.said(ACCEPTOR) == [f"C-MOVE-RQ 1 on 7 with {len(IDENTIFIER)} bytes"]


def test_a_move_to_a_title_that_nobody_has_is_refused() -> None:
    line = established(calling="WS1")
    line.say(REQUESTOR, 7, c_move_rq(1, "NOBODY"), IDENTIFIER)
    assert line.said(REQUESTOR) == ["C-MOVE-RSP 1 on 7 status A801"]
    assert last(line, OperationDenied).reason is ReasonCode.MOVE_DESTINATION_UNKNOWN


def test_a_registration_that_fails_refuses_the_move() -> None:
    world = FakeWorld()
    line = established(world, calling="WS1")
    world.registrations_work = False
    line.say(REQUESTOR, 7, c_move_rq(1), IDENTIFIER)
    assert line.said(REQUESTOR) == ["C-MOVE-RSP 1 on 7 status 0124"]
    assert operations(line).is_quiet


# -- storage commitment ------------------------------------------------------------------------------------------------


def committing(world: FakeWorld) -> Line:
    line = established(world)
    line.say(REQUESTOR, 15, n_action_rq(1), transaction("1.2.7.1"))
    line.say(ACCEPTOR, 15, response_to(n_action_rq(1), action_type_id=1))
    line.read(REQUESTOR)
    line.read(ACCEPTOR)
    return line


def test_a_commitment_is_registered_before_it_is_forwarded() -> None:
    world = FakeWorld()
    line = established(world)
    effects = line.send(REQUESTOR, message(15, n_action_rq(1), transaction("1.2.7.1")))
    assert [type(effect).__name__ for effect in effects] == ["RegisterCommitment", "Record", "Send", "Send"]
    (commitment,) = world.correlations.commitments
    assert (commitment.transaction_uid, commitment.archive, commitment.device) == ("1.2.7.1", "pacs", "ct1")
    assert (commitment.device_ae_title, commitment.called_ae_title) == ("CT1", "PACS")


def test_a_report_on_the_same_association() -> None:
    world = FakeWorld()
    line = committing(world)
    line.say(ACCEPTOR, 15, n_event_report_rq(1), transaction("1.2.7.1"))
    assert line.said(REQUESTOR) == [f"N-EVENT-REPORT-RQ 1 on 15 with {len(transaction('1.2.7.1'))} bytes"]
    assert last(line, OperationAllowed).direction == "acceptor"
    line.say(REQUESTOR, 15, response_to(n_event_report_rq(1), event_type_id=1))
    assert line.said(ACCEPTOR) == ["N-EVENT-REPORT-RSP 1 on 15 status 0000"]
    assert world.correlations.commitments == []


def test_a_report_on_a_later_association() -> None:
    world = FakeWorld()
    committing(world).send(REQUESTOR, ABORT)
    line = established(world)
    line.say(ACCEPTOR, 15, n_event_report_rq(1), transaction("1.2.7.1"))
    assert len(line.said(REQUESTOR)) == 1


def test_a_report_on_the_association_of_a_device_that_has_not_asked_is_refused() -> None:
    line = established()
    line.say(ACCEPTOR, 15, n_event_report_rq(1), transaction("1.2.7.99"))
    assert line.said(ACCEPTOR) == ["N-EVENT-REPORT-RSP 1 on 15 status 0124"]
    assert line.said(REQUESTOR) == []


def test_a_report_on_a_reverse_association() -> None:
    world = FakeWorld()
    committing(world).send(REQUESTOR, ABORT)
    line = established_by_archive(world, called="CT1", contexts={1: COMMITMENT, 3: VERIFICATION})
    assert line.upstream_request is not None
    assert [c.context_id for c in line.upstream_request.presentation_contexts] == [1]
    line.say(REQUESTOR, 1, n_event_report_rq(1), transaction("1.2.7.1"))
    assert len(line.said(ACCEPTOR)) == 1
    line.say(ACCEPTOR, 1, response_to(n_event_report_rq(1), event_type_id=1))
    assert world.correlations.commitments == []


def test_a_report_that_was_not_taken_stays_pending() -> None:
    world = FakeWorld()
    committing(world)
    line = established_by_archive(world, called="CT1", contexts={1: COMMITMENT})
    line.say(REQUESTOR, 1, n_event_report_rq(1), transaction("1.2.7.1"))
    line.say(ACCEPTOR, 1, response_to(n_event_report_rq(1), 0x0110))
    assert len(world.correlations.commitments) == 1


def test_a_report_on_another_transaction_is_refused() -> None:
    world = FakeWorld()
    committing(world)
    line = established_by_archive(world, called="CT1", contexts={1: COMMITMENT})
    line.say(REQUESTOR, 1, n_event_report_rq(1), transaction("1.2.7.99"))
    assert line.said(REQUESTOR) == ["N-EVENT-REPORT-RSP 1 on 1 status 0124"]
    assert last(line, OperationDenied).reason is ReasonCode.NO_PENDING_COMMITMENT


@pytest.mark.parametrize(
    "data", [None, data_set({0x00081199: b""}), data_set({0x00081195: b""})], ids=["no data set", "absent", "empty"]
)
def test_a_report_without_transaction_uid_is_refused(data: bytes | None) -> None:
    world = FakeWorld()
    committing(world)
    line = established_by_archive(world, called="CT1", contexts={1: COMMITMENT})
    line.say(REQUESTOR, 1, n_event_report_rq(1, has_data_set=data is not None), data)
    assert line.said(REQUESTOR) == ["N-EVENT-REPORT-RSP 1 on 1 status 0110"]
    assert last(line, OperationDenied).reason is ReasonCode.DATA_SET_UNREADABLE
    assert line.said(ACCEPTOR) == []


def test_an_action_without_transaction_uid_is_refused() -> None:
    line = established()
    line.say(REQUESTOR, 15, n_action_rq(1, has_data_set=False))
    assert line.said(REQUESTOR) == ["N-ACTION-RSP 1 on 15 status 0110"]
    long = data_set({0x00080005: b"x" * 900, 0x00080006: b"x" * 900, 0x00081195: "1.2"})
    line = established(FakeWorld().limited(max_head_bytes=1000))
    line.say(REQUESTOR, 15, n_action_rq(2), long)
    assert line.said(REQUESTOR) == ["N-ACTION-RSP 2 on 15 status 0110"]


# -- interleaving ------------------------------------------------------------------------------------------------------


def test_tagged_data_sets_of_several_associations_never_mix() -> None:
    """Same world, same message IDs, same contexts, byte for byte interleaved, one of them aborted in the middle."""
    world = FakeWorld()
    lines = [established(world, calling="CT1") for _ in range(4)]
    images = [image(f"1.2.{i}", pixels=b"tag%d" % i * 400) for i in range(4)]
    wires = [message(3, c_store_rq(1, f"1.2.{i}"), images[i], size=97 + i) for i in range(4)]
    for at in range(0, max(map(len, wires)), 61):
        for i, line in enumerate(lines):
            if at > 900 and i == 2:
                if not line.relay.is_over:
                    line.send(REQUESTOR, ABORT)
                continue
            line.send(REQUESTOR, wires[i][at : at + 61])
    for i, line in enumerate(lines):
        read = line.read(ACCEPTOR)
        if i == 2:
            assert [type(each) for each in read] == [AAbort]
            assert not any(b"tag%d" % j in line.bytes[ACCEPTOR] for j in (0, 1, 3))
            continue
        (only,) = read
        assert isinstance(only, Message)
        assert only.data == images[i]
        line.say(ACCEPTOR, 3, response_to(c_store_rq(1), i))
    for i in (0, 1, 3):
        assert lines[i].said(REQUESTOR) == [f"C-STORE-RSP 1 on 3 status {i:04X}"]


def test_an_abort_at_any_moment_leaves_a_well_formed_stream_and_clean_books() -> None:
    wire = message(7, c_move_rq(1), IDENTIFIER, size=30) + message(5, c_find_rq(2), IDENTIFIER, size=30)
    for at in range(0, len(wire), 7):
        world = FakeWorld()
        line = windowed(world)
        line.send(REQUESTOR, wire[:at])
        line.handle(Ended(ReasonCode.DRAINING))
        assert isinstance(line.read(ACCEPTOR)[-1], AAbort)
        line.readers[ACCEPTOR].finish()
        assert world.correlations.moves_towards("pacs", "WS1") == []
        assert world.limits.admitted == world.limits.released == 1


# -- what never happens ------------------------------------------------------------------------------------------------


def test_the_end_of_an_exchange_that_is_not_in_the_books_changes_nothing() -> None:
    line = established()
    one = operations(line)
    out: list[Effect] = []
    exchange = Exchange(invoker=REQUESTOR, context_id=1, command=c_echo_rq(1), operation=Operation.C_ECHO, started=0.0)
    one._finish(exchange, Instant(0.0, NOON), out)
    one._forget(Transfer(leg=REQUESTOR, context_id=1, command=c_echo_rq(1), mode=Mode.HOLD, exchange=exchange), out)
    one.correlated(77, True, Instant(0.0, NOON), out)
    assert out == []
