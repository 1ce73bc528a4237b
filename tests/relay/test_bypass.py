"""An open bypass on whole associations: what passes, what still does not, and how the records show it."""

from dataclasses import replace

import pytest

from dicomward.audit.event import AssociationAllowed, OperationAllowed, OperationCompleted, OperationDenied
from dicomward.dicom.pdu import UserIdentity, UserInformation
from dicomward.policy.bypass import BypassTable, OpenBypass
from dicomward.relay.inputs import Leg, PeerClosed
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from tests.relay.wire import (
    CT_IMAGE,
    STUDY_FIND,
    STUDY_MOVE,
    VERIFICATION,
    a_associate_rq,
    c_echo_rq,
    c_find_rq,
    c_move_rq,
    c_store_rq,
    identifier,
    image,
    response_to,
)
from tests.relay.world import (
    EVERYTHING,
    FakeWorld,
    Line,
    archive_caller,
    device_caller,
    established,
    established_by_archive,
)

REQUESTOR, ACCEPTOR = Leg.REQUESTOR, Leg.ACCEPTOR
BYPASS = OpenBypass("bypass:20260302-1", until=5000.0)
FOR_CT1 = BypassTable(devices={"ct1": BYPASS})


def bypassed_world(**changes: object) -> FakeWorld:
    return FakeWorld(bypasses=FOR_CT1, **changes)  # type: ignore[arg-type]


def test_scanner_reads_what_its_policy_refuses_and_the_records_say_so() -> None:
    line = established(bypassed_world())
    (allowed,) = line.recorded(AssociationAllowed)
    assert allowed.rule_ids is not None
    assert "bypass:20260302-1" in allowed.rule_ids
    assert allowed.waived == ("no-matching-rule",)
    line.say(REQUESTOR, 5, c_find_rq(1, affected_sop_class_uid=STUDY_FIND), identifier())
    (operation,) = line.recorded(OperationAllowed)
    assert operation.rule_ids == ("bypass:20260302-1",)
    assert operation.waived == ("no-matching-rule",)


def test_what_the_policy_allows_anyway_is_not_marked() -> None:
    line = established(bypassed_world(), contexts={1: VERIFICATION, 3: CT_IMAGE})
    line.say(REQUESTOR, 3, c_store_rq(1), image())
    for event in line.records:
        assert event.waived is None
        assert "bypass:20260302-1" not in (event.rule_ids or ())


def test_open_association_benefits_for_its_next_operation_and_no_longer_than_the_bypass() -> None:
    world = FakeWorld()
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 7, c_move_rq(1, destination="WS2"), identifier())
    assert [event.reason for event in line.recorded(OperationDenied)] == [ReasonCode.MOVE_DESTINATION_NOT_ALLOWED]
    line.read(REQUESTOR)
    world.bypasses = BypassTable(devices={"ws1": OpenBypass("bypass:7", until=5000.0)})
    line.say(REQUESTOR, 7, c_move_rq(2, destination="WS2"), identifier())
    (allowed,) = line.recorded(OperationAllowed)
    assert allowed.waived == ("move-destination-not-allowed",)
    world.bypasses = BypassTable(devices={"ws1": OpenBypass("bypass:7", until=line.now)})
    line.say(REQUESTOR, 7, c_move_rq(3, destination="WS2"), identifier())
    assert len(line.recorded(OperationDenied)) == 2


def test_bypass_of_another_device_lifts_nothing() -> None:
    line = Line(bypassed_world(), device_caller("research1"))
    line.request(a_associate_rq({1: CT_IMAGE}, calling="RESEARCH1"))
    assert line.reasons[-1] == ("AssociationDenied", ReasonCode.NO_PERMITTED_CONTEXT)


def test_unknown_move_destination_stays_refused() -> None:
    line = established(bypassed_world())
    line.say(REQUESTOR, 7, c_move_rq(1, destination="NOBODY"), identifier())
    (denied,) = line.recorded(OperationDenied)
    assert denied.reason is ReasonCode.MOVE_DESTINATION_UNKNOWN
    assert denied.waived is None


@pytest.mark.parametrize(
    ("caller", "request_", "reason"),
    [
        ("ct1", a_associate_rq(EVERYTHING, calling="OTHER"), ReasonCode.CALLING_AE_TITLE_NOT_BOUND),
        ("ct1", a_associate_rq(EVERYTHING, called="NOBODY"), ReasonCode.CALLED_AE_TITLE_UNKNOWN),
        ("ct1", a_associate_rq(EVERYTHING, user=UserInformation(maximum_length=1)), ReasonCode.MALFORMED_PDU),
    ],
)
def test_identity_routes_and_validation_stay(caller: str, request_: object, reason: ReasonCode) -> None:
    line = Line(bypassed_world(), device_caller(caller))
    line.request(request_)  # type: ignore[arg-type]
    assert line.upstream_request is None
    assert reason in [event.reason for event in line.records]


def test_association_beyond_the_limits_is_counted_marked_and_released() -> None:
    world = bypassed_world()
    world.limits.refuse_association = ReasonCode.DEVICE_ASSOCIATIONS
    line = established(world, contexts={1: VERIFICATION})
    (allowed,) = line.recorded(AssociationAllowed)
    assert allowed.waived == ("device-associations",)
    assert allowed.rule_ids is not None
    assert allowed.rule_ids[-1] == "bypass:20260302-1"
    line.handle(PeerClosed(REQUESTOR, "gone"))
    assert (world.limits.admitted, world.limits.released) == (1, 1)


def test_rates_are_lifted_and_marked() -> None:
    world = bypassed_world()
    world.limits.refuse_operations = {Operation.C_ECHO: ReasonCode.OPERATION_RATE}
    line = established(world)
    line.say(REQUESTOR, 1, c_echo_rq(1))
    (allowed,) = line.recorded(OperationAllowed)
    assert allowed.waived == ("operation-rate",)


def test_query_goes_on_beyond_its_matches_and_is_marked_at_its_end() -> None:
    world = bypassed_world()
    world.limits.matches = 1
    line = established(world)
    line.say(REQUESTOR, 5, c_find_rq(1, affected_sop_class_uid=STUDY_FIND), identifier())
    for _ in range(3):
        line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), identifier())
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    (completed,) = line.recorded(OperationCompleted)
    assert isinstance(completed, OperationCompleted)
    assert (completed.status, completed.matches) == (0, 3)
    assert completed.waived == ("no-matching-rule", "matches-per-query")


def test_query_that_was_cut_stays_cut_when_a_bypass_opens() -> None:
    world = FakeWorld()
    world.limits.matches = 1
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(1, affected_sop_class_uid=STUDY_FIND), identifier())
    for _ in range(2):
        line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), identifier())
    world.bypasses = BypassTable(devices={"ws1": BYPASS})
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), identifier())
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    (completed,) = line.recorded(OperationCompleted)
    assert isinstance(completed, OperationCompleted)
    assert completed.reason is ReasonCode.MATCHES_PER_QUERY
    assert completed.status != 0


def test_bytes_are_neither_paced_nor_counted_so_that_no_debt_is_left() -> None:
    world = bypassed_world()
    world.limits.waits.append(3.0)
    line = established(world)
    line.say(REQUESTOR, 3, c_store_rq(1), image())
    assert not line.paused
    assert world.limits.bytes == []


def test_floor_of_a_degraded_audit_log_is_lifted() -> None:
    world = FakeWorld(floor=ReasonCode.AUDIT_UNAVAILABLE, bypasses=BypassTable(devices={"ws1": BYPASS}))
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(1, affected_sop_class_uid=STUDY_FIND), identifier())
    (allowed,) = line.recorded(OperationAllowed)
    assert allowed.waived == ("clinical-floor-only",)


def test_move_passes_while_the_audit_log_is_degraded_and_never_out_of_a_lockdown() -> None:
    world = FakeWorld(floor=ReasonCode.AUDIT_UNAVAILABLE, bypasses=BypassTable(devices={"ws1": BYPASS}))
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 7, c_move_rq(1, destination="WS2"), identifier())
    (allowed,) = line.recorded(OperationAllowed)
    assert "clinical-floor-only" in (allowed.waived or ())
    world.floor = ReasonCode.SITE_LOCKDOWN
    line.say(REQUESTOR, 7, c_move_rq(2, destination="WS2"), identifier())
    assert [event.reason for event in line.recorded(OperationDenied)] == [ReasonCode.CLINICAL_FLOOR_ONLY]


def test_sub_operations_of_a_lifted_move_are_marked() -> None:
    world = FakeWorld(bypasses=BypassTable(devices={"ws1": BYPASS}))
    mover = established(world, calling="WS1")
    mover.say(REQUESTOR, 7, c_move_rq(1, affected_sop_class_uid=STUDY_MOVE, destination="WS2"), identifier())
    archive = established_by_archive(world, called="WS2", contexts={3: CT_IMAGE})
    archive.say(
        REQUESTOR,
        3,
        replace(c_store_rq(1), move_originator_ae_title="WS1", move_originator_message_id=1),
        image(),
    )
    (allowed,) = archive.recorded(OperationAllowed)
    assert allowed.rule_ids == ("bypass:20260302-1",)


def test_archive_on_its_own_is_never_lifted() -> None:
    world = FakeWorld(bypasses=BypassTable(devices={"pacs": BYPASS}, sites={"": BYPASS}))
    line = Line(world, archive_caller())
    line.request(a_associate_rq({1: CT_IMAGE}, calling="PACS", called="WS1"))
    assert line.reasons[-1] == ("AssociationDenied", ReasonCode.NO_PENDING_MOVE)


def test_user_identity_that_nobody_verifies_stays_rejected() -> None:
    identity = UserInformation(
        maximum_length=16384,
        user_identity=UserIdentity(type=1, positive_response_requested=True, primary=b"x", secondary=b""),
    )
    line = Line(bypassed_world(), device_caller())
    line.request(a_associate_rq(EVERYTHING, user=identity))
    assert line.reasons[-1] == ("AssociationDenied", ReasonCode.USER_IDENTITY_NOT_CONFIGURED)
