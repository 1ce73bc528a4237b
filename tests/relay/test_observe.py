"""A device that is observed: what passes, how it is recorded, what never passes, and that nobody else is touched."""

from dataclasses import replace
from datetime import timedelta

from dicomward.audit.event import AssociationAllowed, OperationAllowed, OperationCompleted, RefusalObserved
from dicomward.dicom.dimse import CommandSet
from dicomward.policy.bypass import LIFTED
from dicomward.relay.inputs import Leg
from dicomward.relay.messages import Lift
from dicomward.relay.observe import OBSERVED, is_observed, observe
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from tests.relay.wire import (
    CT_IMAGE,
    MR_IMAGE,
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
    NOON,
    REGISTRY,
    FakeWorld,
    Line,
    device_caller,
    established,
    legacy_caller,
    with_device,
)

REQUESTOR, ACCEPTOR = Leg.REQUESTOR, Leg.ACCEPTOR
UNTIL = NOON + timedelta(hours=1)


def observed_world(name: str = "ct1") -> FakeWorld:
    return with_device(FakeWorld(), name, observe_until=UNTIL)


def observed(line: Line) -> list[tuple[str | None, ReasonCode | None]]:
    """What was recorded instead of refused: operation and reason."""
    events = line.recorded(RefusalObserved)
    assert all(event.device == line.recorded(AssociationAllowed)[0].device for event in events)
    return [(event.operation, event.reason) for event in events if isinstance(event, RefusalObserved)]


def query(message_id: int = 1) -> CommandSet:
    return c_find_rq(message_id, affected_sop_class_uid=STUDY_FIND)


# -- the value ---------------------------------------------------------------------------------------------------------


def test_observing_ends_by_itself() -> None:
    device = replace(REGISTRY.devices[0], observe_until=UNTIL)
    lift = observe(device, ReasonCode.NO_MATCHING_RULE, NOON)
    assert lift == Lift("observe:ct1", ReasonCode.NO_MATCHING_RULE)
    assert is_observed(lift)
    assert not is_observed(Lift("bypass:1", ReasonCode.NO_MATCHING_RULE))
    assert observe(device, ReasonCode.NO_MATCHING_RULE, UNTIL) is None
    assert observe(REGISTRY.devices[0], ReasonCode.NO_MATCHING_RULE, NOON) is None
    assert observe(None, ReasonCode.NO_MATCHING_RULE, NOON) is None


def test_who_somebody_is_and_what_protects_others_is_never_let_pass() -> None:
    ours = {ReasonCode.ARCHIVE_ASSOCIATIONS, ReasonCode.CLINICAL_FLOOR_ONLY, ReasonCode.BUDGETS_UNAVAILABLE}
    assert ours == LIFTED - OBSERVED
    never = (
        ReasonCode.CALLING_AE_TITLE_NOT_BOUND,
        ReasonCode.CERTIFICATE_REVOKED,
        ReasonCode.NETWORK_NOT_ALLOWED,
        ReasonCode.MALFORMED_PDU,
        ReasonCode.MALFORMED_COMMAND,
        ReasonCode.UNEXPECTED_COMMAND,
        ReasonCode.DUPLICATE_MESSAGE_ID,
        ReasonCode.NO_PENDING_MOVE,
        ReasonCode.CALLED_AE_TITLE_UNKNOWN,
    )
    assert OBSERVED.isdisjoint(never)


# -- associations ------------------------------------------------------------------------------------------------------


def test_contexts_that_no_rule_allows_pass_and_are_recorded() -> None:
    line = established(observed_world())
    (allowed,) = line.recorded(AssociationAllowed)
    assert allowed.waived == ("no-matching-rule",)
    assert allowed.rule_ids is not None
    assert "observe:ct1" in allowed.rule_ids
    assert observed(line) == [(None, ReasonCode.NO_MATCHING_RULE)]


def test_nothing_is_recorded_for_what_the_rules_allow() -> None:
    line = established(observed_world(), contexts={1: VERIFICATION, 3: CT_IMAGE})
    line.say(REQUESTOR, 3, c_store_rq(1), image())
    assert observed(line) == []


def test_caps_pass_but_an_archive_that_is_full_refuses() -> None:
    world = observed_world()
    world.limits.refuse_association = ReasonCode.DEVICE_ASSOCIATIONS
    line = established(world)
    assert (None, ReasonCode.DEVICE_ASSOCIATIONS) in observed(line)
    world.limits.refuse_association = ReasonCode.ARCHIVE_ASSOCIATIONS
    refused = Line(world, device_caller())
    refused.request(a_associate_rq(EVERYTHING))
    assert refused.reasons[-1] == ("AssociationDenied", ReasonCode.ARCHIVE_ASSOCIATIONS)


def test_another_device_is_refused_as_ever() -> None:
    line = established(observed_world("ws1"))
    assert line.upstream_request is not None
    assert {each.context_id for each in line.upstream_request.presentation_contexts} == {1, 3, 11, 13, 15, 17}


def test_identity_is_as_strict_as_ever() -> None:
    world = observed_world()
    line = Line(world, device_caller())
    line.request(a_associate_rq(EVERYTHING, calling="WS1"))
    assert line.reasons[-1] == ("AssociationDenied", ReasonCode.CALLING_AE_TITLE_NOT_BOUND)


def test_the_floor_of_a_degraded_state_stays_the_floor() -> None:
    world = observed_world("ws1")
    world.floor = ReasonCode.AUDIT_UNAVAILABLE
    line = established(world, calling="WS1")
    assert line.upstream_request is not None
    assert 5 not in {each.context_id for each in line.upstream_request.presentation_contexts}


def test_a_device_in_a_legacy_zone_can_be_observed() -> None:
    world = with_device(observed_world(), "ct1", legacy_zone="old")
    line = Line(world, legacy_caller())
    line.request(a_associate_rq(EVERYTHING))
    line.accept()
    assert observed(line) == [(None, ReasonCode.NO_MATCHING_RULE)]


# -- operations --------------------------------------------------------------------------------------------------------


def test_query_that_no_rule_allows_passes_and_is_recorded() -> None:
    line = established(observed_world())
    line.say(REQUESTOR, 5, query(), identifier())
    (allowed,) = line.recorded(OperationAllowed)
    assert allowed.waived == ("no-matching-rule",)
    assert observed(line)[1:] == [("c-find", ReasonCode.NO_MATCHING_RULE)]


def test_rates_and_matches_pass() -> None:
    world = observed_world("ws1")
    world.limits.refuse_operations = {Operation.C_FIND: ReasonCode.QUERY_RATE}
    world.limits.matches = 1
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 5, query(), identifier())
    for _ in range(3):
        line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), identifier())
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    (completed,) = line.recorded(OperationCompleted)
    assert isinstance(completed, OperationCompleted)
    assert (completed.status, completed.matches) == (0, 3)
    reasons = [reason for operation, reason in observed(line) if operation == "c-find"]
    assert reasons == [ReasonCode.QUERY_RATE, ReasonCode.MATCHES_PER_QUERY]


def test_bytes_pass_and_leave_no_debt() -> None:
    world = observed_world()
    world.limits.waits.extend((3.0, 3.0))
    line = established(world)
    line.say(REQUESTOR, 3, c_store_rq(1), image())
    line.say(REQUESTOR, 3, c_store_rq(2, affected_sop_instance_uid="1.2.3.9"), image(instance="1.2.3.9"))
    assert not line.paused
    assert len(world.limits.bytes) == 1
    line.say(ACCEPTOR, 3, response_to(c_store_rq(1)))
    assert ("c-store", ReasonCode.BYTE_RATE) in observed(line)


def test_destination_that_only_the_archive_knows_passes() -> None:
    line = established(observed_world("ws1"), calling="WS1")
    move = c_move_rq(1, affected_sop_class_uid=STUDY_MOVE, destination="NEW")
    line.say(REQUESTOR, 7, move, identifier())
    reasons = [reason for operation, reason in observed(line) if operation == "c-move"]
    assert ReasonCode.MOVE_DESTINATION_UNKNOWN in reasons


def test_instance_that_is_not_the_one_of_the_command_passes() -> None:
    line = established(observed_world())
    line.say(REQUESTOR, 3, c_store_rq(1), image(instance="1.2.3.4.5"))
    assert observed(line)[1:] == [("c-store", ReasonCode.INSTANCE_UID_MISMATCH)]
    assert len(line.recorded(OperationAllowed)) == 1


def test_sop_class_that_is_not_the_one_of_the_context_passes() -> None:
    line = established(observed_world())
    line.say(REQUESTOR, 3, c_store_rq(1, affected_sop_class_uid=MR_IMAGE), image(sop_class=MR_IMAGE))
    assert ("c-store", ReasonCode.SOP_CLASS_MISMATCH) in observed(line)
    assert len(line.recorded(OperationAllowed)) == 1


def test_identifier_that_cannot_be_read_passes() -> None:
    line = established(observed_world("ws1"), calling="WS1")
    line.say(REQUESTOR, 5, query(), b"\x08\0\x52\0\xff\0\0\0AB")
    assert ("c-find", ReasonCode.IDENTIFIER_UNREADABLE) in observed(line)
    assert len(line.recorded(OperationAllowed)) == 1


def test_end_of_observing_is_the_end_on_an_open_association() -> None:
    line = established(observed_world())
    line.say(REQUESTOR, 5, query(), identifier())
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    line.local = UNTIL
    line.say(REQUESTOR, 5, query(2), identifier())
    assert line.reasons[-1] == ("OperationDenied", ReasonCode.NO_MATCHING_RULE)


def test_same_message_id_twice_is_refused_as_ever() -> None:
    line = established(observed_world())
    line.say(REQUESTOR, 1, c_echo_rq(1))
    line.say(REQUESTOR, 1, c_echo_rq(1))
    assert line.reasons[-1] == ("OperationDenied", ReasonCode.DUPLICATE_MESSAGE_ID)
