"""What a principal may do: the device by policy, the archive by what a device has asked it for."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.pdu import RoleSelection, UserInformation
from dicomward.identity.identify import bind, identify_archive, identify_device
from dicomward.identity.registry import RegistrySnapshot
from dicomward.policy.decision import Effect as PolicyEffect
from dicomward.policy.rule import Rule, TimeWindow
from dicomward.relay.correlations import PendingCommitment, PendingMove
from dicomward.relay.inputs import Instant, Leg
from dicomward.relay.messages import Refusal
from dicomward.relay.negotiation import Context
from dicomward.relay.rights import ArchiveRights, DeviceRights, Grant
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import Service
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN
from tests.relay.wire import (
    COMMITMENT,
    CT_IMAGE,
    STUDY_FIND,
    STUDY_MOVE,
    VERIFICATION,
    WORKLIST,
    Contexts,
    a_associate_rq,
    c_echo_rq,
    c_find_rq,
    c_move_rq,
    c_store_rq,
    n_event_report_rq,
)
from tests.relay.world import (
    ARCHIVE_ADDRESS,
    EVERYTHING,
    MODALITY_ADDRESS,
    NOON,
    REGISTRY,
    RULES,
    FakeWorld,
    allow,
    certificate,
    policy,
)

NOW = Instant(1000.0, NOON)
PRIVATE = "1.2.276.0.99.1"


def device_rights(world: FakeWorld, name: str = "ws1", title: str = "WS1", **changes: str) -> DeviceRights:
    shown = certificate(name)
    identified = identify_device(
        world.registry, shown, MODALITY_ADDRESS, NOON, expiry_grace=world.settings.expiry_grace
    )
    principal = replace(bind(identified, title, shown, MODALITY_ADDRESS), **changes)  # type: ignore[arg-type]
    target = world.registry.route("PACS")
    assert target is not None
    return DeviceRights(world, principal, target)


def archive_rights(world: FakeWorld, called: str = "WS1") -> ArchiveRights:
    _, principal = identify_archive(world.registry, calling_ae_title="PACS", address=ARCHIVE_ADDRESS, certificate=None)
    target = world.registry.route(called)
    assert target is not None
    return ArchiveRights(world, principal, target, called)


def context(uid: str) -> Context:
    return Context(context_id=1, abstract_syntax=uid, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN)


def move(move_id: str = "m1", message_id: int = 1) -> PendingMove:
    return PendingMove(
        move_id=move_id,
        archive="pacs",
        destination_ae_title="WS1",
        originator_ae_title="WS1",
        message_id=message_id,
        device="ws1",
        called_ae_title="PACS",
        association="a",
    )


COMMITTED = PendingCommitment(
    transaction_uid="1.2.7.1", archive="pacs", device="ws1", device_ae_title="WS1", called_ae_title="PACS"
)
TO_PUSH = allow("push", "archive", Service.STORAGE, Service.STORAGE_COMMITMENT)


# -- devices -----------------------------------------------------------------------------------------------------------


def test_a_report_on_a_devices_own_association_is_for_its_own_request() -> None:
    """The archive may mix its callers up, on the same association or a later one: nobody hears of another's images."""
    world = FakeWorld()
    world.correlations.commitments.append(COMMITTED)
    report = n_event_report_rq(1)
    assert device_rights(world).judge_report("1.2.7.1", context(COMMITMENT), report, NOW) == Grant(())
    for other, transaction_uid in ((device_rights(world, "ct1", "CT1"), "1.2.7.1"), (device_rights(world), "1.2.7.2")):
        outcome = other.judge_report(transaction_uid, context(COMMITMENT), report, NOW)
        assert isinstance(outcome, Refusal)
        assert outcome.reason is ReasonCode.NO_PENDING_COMMITMENT


def test_a_device_gets_the_contexts_that_its_policy_permits() -> None:
    rights = device_rights(FakeWorld()).judge_contexts(a_associate_rq(EVERYTHING), NOW)
    assert rights.permitted == {1, 3, 5, 7, 9, 11, 17}
    assert rights.rule_ids == ("workstation-reads", "workstation-moves", "workstation-worklist")
    assert rights.refusal is None
    assert rights.floor is False


def test_an_association_of_floor_contexts_counts_as_floor() -> None:
    contexts: Contexts = {1: VERIFICATION, 3: CT_IMAGE, 5: WORKLIST}
    assert device_rights(FakeWorld()).judge_contexts(a_associate_rq(contexts), NOW).floor is True


def test_a_device_without_a_permitted_context_is_refused_with_the_reason() -> None:
    rights = device_rights(FakeWorld(), "research1", "RESEARCH1").judge_contexts(a_associate_rq({1: CT_IMAGE}), NOW)
    assert rights.permitted == frozenset()
    assert rights.refusal is not None
    assert rights.refusal.reason in (ReasonCode.NO_MATCHING_RULE, ReasonCode.NO_PERMITTED_CONTEXT)


def test_the_scp_role_makes_contexts_for_suboperations_possible() -> None:
    world = FakeWorld(policy=policy(allow("gets", "workstation", Service.GET)))
    rights = device_rights(world)
    roles = (RoleSelection(sop_class_uid=CT_IMAGE, scu_role=False, scp_role=True),)
    request = a_associate_rq(EVERYTHING, user=UserInformation(role_selections=roles))
    assert 3 in rights.judge_contexts(request, NOW).permitted
    assert 3 not in rights.judge_contexts(a_associate_rq(EVERYTHING), NOW).permitted


@pytest.mark.parametrize("own", [True, False])
def test_degraded_states_narrow_to_the_floor(own: bool) -> None:
    """Also a principal that is narrowed for a reason of its own keeps that one."""
    world = FakeWorld(floor=ReasonCode.AUDIT_UNAVAILABLE)
    rights = device_rights(world, **({"floor_only": "certificate-just-expired"} if own else {}))
    outcome = rights.judge_operation(Leg.REQUESTOR, context(STUDY_FIND), c_find_rq(1), NOW)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is ReasonCode.CLINICAL_FLOOR_ONLY
    assert outcome.detail == f"because of {'certificate-just-expired' if own else 'audit-unavailable'}"
    worklist = c_find_rq(1, affected_sop_class_uid=WORKLIST)
    assert isinstance(rights.judge_operation(Leg.REQUESTOR, context(WORKLIST), worklist, NOW), Grant)
    world.floor = None
    assert isinstance(rights.judge_operation(Leg.REQUESTOR, context(STUDY_FIND), c_find_rq(1), NOW), Grant) is not own


def test_a_grant_says_if_the_identifier_must_be_judged() -> None:
    world = FakeWorld()
    research = device_rights(world, "research1", "RESEARCH1")
    outcome = research.judge_operation(Leg.REQUESTOR, context(STUDY_FIND), c_find_rq(1), NOW)
    assert outcome == Grant(("research-asks",), inspect=True)
    finding = research.judge_identifier(context(STUDY_FIND), c_find_rq(1), "STUDY", frozenset({0x00100020}), NOW)
    assert finding == Grant(("research-asks",))
    fishing = research.judge_identifier(context(STUDY_FIND), c_find_rq(1), "STUDY", frozenset(), NOW)
    assert isinstance(fishing, Refusal)
    assert fishing.reason is ReasonCode.REQUIRED_KEYS_MISSING


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("WS1", None),
        # "self" is every title of the device.
        ("WS1_ALT", None),
        ("WS2", ReasonCode.MOVE_DESTINATION_NOT_ALLOWED),
        ("NOBODY", ReasonCode.MOVE_DESTINATION_UNKNOWN),
    ],
)
def test_move_destinations(destination: str, reason: ReasonCode | None) -> None:
    outcome = device_rights(FakeWorld()).judge_operation(
        Leg.REQUESTOR, context(STUDY_MOVE), c_move_rq(1, destination), NOW
    )
    if reason is None:
        assert isinstance(outcome, Grant)
    else:
        assert isinstance(outcome, Refusal)
        assert outcome.reason is reason


def test_who_does_not_judge_destinations_leaves_them_to_the_gateway_behind_it() -> None:
    world = FakeWorld()
    rights = device_rights(world)
    world.settings = replace(world.settings, judges_destinations=False)
    world.registry = RegistrySnapshot(
        devices=tuple(d for d in REGISTRY.devices if d.name != "ws1"), archives=REGISTRY.archives, revision=8
    )
    # Nobody here has the title.
    outcome = rights.judge_operation(Leg.REQUESTOR, context(STUDY_MOVE), c_move_rq(1, "WS1"), NOW)
    assert isinstance(outcome, Grant)


def test_a_device_that_left_the_registry_is_still_itself() -> None:
    world = FakeWorld()
    rights = device_rights(world)
    world.registry = RegistrySnapshot(
        devices=tuple(d for d in REGISTRY.devices if d.name != "ws1"), archives=REGISTRY.archives, revision=8
    )
    outcome = rights.judge_operation(Leg.REQUESTOR, context(STUDY_MOVE), c_move_rq(1, "WS1"), NOW)
    # Nobody has the title any more, so there is no way to it.
    assert isinstance(outcome, Refusal)
    assert outcome.reason is ReasonCode.MOVE_DESTINATION_UNKNOWN


@pytest.mark.parametrize("command", [c_echo_rq(1), c_store_rq(1), c_find_rq(1)])
def test_an_acceptor_may_invoke_reports_only(command: CommandSet) -> None:
    rights = device_rights(FakeWorld(), "ct1", "CT1")
    uid = command.sop_class_uid or ""
    outcome = rights.judge_operation(Leg.ACCEPTOR, context(uid), command, NOW)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is ReasonCode.UNEXPECTED_COMMAND
    assert isinstance(rights.judge_operation(Leg.ACCEPTOR, context(COMMITMENT), n_event_report_rq(1), NOW), Grant)


def test_a_device_reports_events_only_in_the_scp_role() -> None:
    rights = device_rights(FakeWorld(), "ct1", "CT1")
    outcome = rights.judge_operation(Leg.REQUESTOR, context(COMMITMENT), n_event_report_rq(1), NOW)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is ReasonCode.UNEXPECTED_COMMAND
    as_scp = replace(context(COMMITMENT), requestor_is_scp=True)
    assert isinstance(rights.judge_operation(Leg.REQUESTOR, as_scp, n_event_report_rq(1), NOW), Grant)


# -- answers that are asked for again ----------------------------------------------------------------------------------


def test_the_same_question_at_the_same_moment_gets_the_same_answer() -> None:
    rights = device_rights(FakeWorld())
    first, second = (
        rights.judge_operation(Leg.REQUESTOR, context(CT_IMAGE), c_store_rq(i, f"1.2.{i}"), NOW) for i in (1, 2)
    )
    assert first is second


@pytest.mark.parametrize("change", ["policy", "registry", "time", "floor", "class", "context", "operation"])
def test_an_answer_does_not_outlive_what_it_was_given_for(change: str) -> None:
    night = replace(RULES[1], times=(TimeWindow(days=frozenset(range(7)), start_minute=0, end_minute=12 * 60 + 1),))
    world = FakeWorld(policy=policy(night))
    rights = device_rights(world)
    asked, where, now = c_find_rq(1), context(STUDY_FIND), NOW
    before = rights.judge_operation(Leg.REQUESTOR, where, asked, now)
    assert isinstance(before, Grant)
    match change:
        case "policy":
            world.policy = policy(RULES[0])
        case "registry":
            world.registry = replace(world.registry, revision=8)
        case "time":
            now = Instant(1000.0, NOON + timedelta(minutes=1))
        case "floor":
            world.floor = ReasonCode.AUDIT_UNAVAILABLE
        case "class":
            asked = c_find_rq(1, affected_sop_class_uid=WORKLIST)
        case "context":
            where = context(WORKLIST)
        case _:
            asked = c_echo_rq(1)
    after = rights.judge_operation(Leg.REQUESTOR, where, asked, now)
    assert after is not before
    assert isinstance(after, Grant) is (change == "registry")


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("contexts", "reason"),
    [({1: CT_IMAGE}, ReasonCode.NO_PENDING_MOVE), ({1: CT_IMAGE, 3: COMMITMENT}, ReasonCode.NO_PENDING_COMMITMENT)],
)
def test_an_archive_without_a_reason_to_call_is_refused(contexts: Contexts, reason: ReasonCode) -> None:
    rights = archive_rights(FakeWorld()).judge_contexts(a_associate_rq(contexts), NOW)
    assert rights.refusal is not None
    assert rights.refusal.reason is reason


def test_an_archive_that_a_rule_denies_is_told_so() -> None:
    deny = Rule(id="never", effect=PolicyEffect.DENY, roles=frozenset({"archive"}))
    world = FakeWorld(policy=policy(*RULES, TO_PUSH, deny))
    rights = archive_rights(world).judge_contexts(a_associate_rq({3: CT_IMAGE}), NOW)
    assert rights.refusal is not None
    assert rights.refusal.reason in (ReasonCode.DENIED_BY_RULE, ReasonCode.NO_PENDING_MOVE)


def test_a_pending_move_opens_the_contexts_of_images() -> None:
    world = FakeWorld()
    world.correlations.table.request(move())
    rights = archive_rights(world).judge_contexts(a_associate_rq({**EVERYTHING, 19: PRIVATE}), NOW)
    assert rights.permitted == {3, 17, 19}
    assert rights.refusal is None


def test_a_pending_commitment_opens_its_context() -> None:
    world = FakeWorld()
    world.correlations.commitments.append(COMMITTED)
    rights = archive_rights(world).judge_contexts(a_associate_rq(EVERYTHING), NOW)
    assert rights.permitted == {15}


def test_a_rule_may_let_an_archive_push() -> None:
    world = FakeWorld(policy=policy(*RULES, TO_PUSH))
    rights = archive_rights(world)
    assert {3, 15, 17} <= rights.judge_contexts(a_associate_rq(EVERYTHING), NOW).permitted
    assert rights.judge_operation(Leg.REQUESTOR, context(CT_IMAGE), c_store_rq(1), NOW) == Grant(("push",))
    report = n_event_report_rq(1)
    assert rights.judge_operation(Leg.REQUESTOR, context(COMMITMENT), report, NOW) == Grant((), inspect=True)
    assert rights.judge_report("9.9", context(COMMITMENT), report, NOW) == Grant(("push",))


def test_a_suboperation_belongs_to_its_move() -> None:
    world = FakeWorld()
    world.correlations.table.request(move())
    rights = archive_rights(world)
    assert rights.judge_operation(Leg.REQUESTOR, context(CT_IMAGE), c_store_rq(1), NOW) == Grant((), move=move())
    other = c_store_rq(1, move_originator_ae_title="WS1", move_originator_message_id=9)
    outcome = rights.judge_operation(Leg.REQUESTOR, context(CT_IMAGE), other, NOW)
    assert isinstance(outcome, Refusal)
    assert (outcome.reason, outcome.moves) == (ReasonCode.NO_PENDING_MOVE, ())


def test_a_suboperation_of_several_moves_is_refused_and_names_them() -> None:
    world = FakeWorld()
    world.correlations.table.names_originator["pacs"] = True
    for one in (move("m1", 1), move("m2", 2)):
        world.correlations.table.request(one)
    outcome = archive_rights(world).judge_operation(Leg.REQUESTOR, context(CT_IMAGE), c_store_rq(1), NOW)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is ReasonCode.AMBIGUOUS_MOVE
    assert [m.move_id for m in outcome.moves] == ["m1", "m2"]


def test_an_archive_that_names_itself_as_originator_names_nobody() -> None:
    world = FakeWorld()
    world.correlations.table.request(move())
    command = c_store_rq(1, move_originator_ae_title="PACS", move_originator_message_id=1)
    outcome = archive_rights(world).judge_operation(Leg.REQUESTOR, context(CT_IMAGE), command, NOW)
    assert outcome == Grant((), move=move())
    assert world.correlations.table.names_originator == {"pacs": False}


def test_a_report_belongs_to_its_commitment() -> None:
    world = FakeWorld()
    world.correlations.commitments.append(COMMITTED)
    rights = archive_rights(world)
    assert rights.judge_report("1.2.7.1", context(COMMITMENT), n_event_report_rq(1), NOW) == Grant(())
    outcome = rights.judge_report("1.2.7.2", context(COMMITMENT), n_event_report_rq(1), NOW)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is ReasonCode.NO_PENDING_COMMITMENT


def test_everything_else_of_an_archive_is_for_the_policy() -> None:
    outcome = archive_rights(FakeWorld()).judge_operation(Leg.REQUESTOR, context(VERIFICATION), c_echo_rq(1), NOW)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is ReasonCode.NO_MATCHING_RULE


@pytest.mark.parametrize("command", [c_echo_rq(1), c_store_rq(1), n_event_report_rq(1)])
def test_the_destination_may_invoke_nothing(command: CommandSet) -> None:
    world = FakeWorld(policy=policy(*RULES, TO_PUSH))
    outcome = archive_rights(world).judge_operation(Leg.ACCEPTOR, context(command.sop_class_uid or ""), command, NOW)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is ReasonCode.UNEXPECTED_COMMAND
