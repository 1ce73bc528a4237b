from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dicomward.policy.evaluate import evaluate_association
from dicomward.policy.request import AssociationRequest
from dicomward.policy.rule import TimeWindow
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import MODALITY_WORKLIST_FIND, VERIFICATION, Service
from tests.policy.builders import (
    CT,
    FILM_SESSION,
    GRAYSCALE_PRINT_META,
    NOON,
    PATIENT_ID,
    PRIVATE,
    STUDY_FIND,
    STUDY_GET,
    STUDY_MOVE,
    UPS_PULL,
    allow,
    association,
    deny,
    policy,
    principal,
)

GET, MOVE, FIND = Operation.C_GET, Operation.C_MOVE, Operation.C_FIND


def one(*values: Any) -> frozenset[Any]:
    return frozenset(values)


def test_each_context_is_permitted_by_its_own_rules() -> None:
    rules = policy(
        allow("echo", services=one(Service.VERIFICATION)),
        allow("store", services=one(Service.STORAGE)),
    )
    answer = evaluate_association(rules, association(VERIFICATION, CT, STUDY_FIND, CT))
    assert answer.permitted_ids == {1, 3, 7}
    assert [answer.permitted[i].rule_ids for i in (1, 3, 5, 7)] == [("echo",), ("store",), (), ("store",)]
    assert answer.permitted[5].reason is ReasonCode.NO_MATCHING_RULE
    assert (answer.decision.reason, answer.decision.rule_ids) == (ReasonCode.ALLOWED, ("echo", "store"))


def test_nothing_permitted_is_a_denial_with_the_reason() -> None:
    answer = evaluate_association(policy(), association(CT, STUDY_FIND))
    assert (answer.decision.reason, answer.allowed) == (ReasonCode.NO_PERMITTED_CONTEXT, False)


def test_no_context_at_all_is_a_denial() -> None:
    answer = evaluate_association(policy(allow("all")), association())
    assert (answer.decision.reason, answer.permitted) == (ReasonCode.NO_PERMITTED_CONTEXT, {})


def test_deny_rules_that_stand_in_the_way_are_named() -> None:
    rules = policy(allow("all"), deny("no-ct", sop_classes=one(CT)))
    answer = evaluate_association(rules, association(CT, PRIVATE))
    assert answer.permitted_ids == {3}
    assert (answer.permitted[1].reason, answer.permitted[1].rule_ids) == (ReasonCode.DENIED_BY_RULE, ("no-ct",))
    alone = evaluate_association(rules, association(CT))
    assert (alone.decision.reason, alone.decision.rule_ids) == (ReasonCode.DENIED_BY_RULE, ("no-ct",))


def test_different_reasons_are_summed_up() -> None:
    rules = policy(
        allow("store", services=one(Service.STORAGE), assurance=Assurance.DEVICE_AND_PERSON),
        deny("no", services=one(Service.QUERY)),
    )
    answer = evaluate_association(rules, association(CT, STUDY_FIND))
    assert answer.permitted[1].reason is ReasonCode.ASSURANCE_TOO_LOW
    assert answer.permitted[3].reason is ReasonCode.DENIED_BY_RULE
    assert (answer.decision.reason, answer.decision.rule_ids) == (ReasonCode.NO_PERMITTED_CONTEXT, ("no",))


def test_a_closed_window_is_said() -> None:
    rules = policy(allow("night", times=(TimeWindow(days=frozenset(range(7)), start_minute=0, end_minute=60),)))
    answer = evaluate_association(rules, association(CT))
    assert (answer.decision.reason, answer.permitted[1].reason) == (ReasonCode.OUTSIDE_PERMITTED_TIMES,) * 2


def test_a_rule_about_identifiers_permits_its_context_if_some_identifier_fits() -> None:
    by_level = allow("r", operations=one(FIND), services=None, query_levels=one("STUDY"))
    assert evaluate_association(policy(by_level), association(STUDY_FIND)).allowed
    assert not evaluate_association(policy(by_level), association(MODALITY_WORKLIST_FIND)).allowed
    never = policy(by_level, deny("no", operations=one(FIND), query_levels=one("STUDY")))
    assert evaluate_association(never, association(STUDY_FIND)).decision.reason is ReasonCode.DENIED_BY_RULE
    keys = policy(allow("all"), deny("no", operations=one(FIND), unless_keys=one(PATIENT_ID)))
    assert evaluate_association(keys, association(STUDY_FIND)).allowed


def test_a_move_context_is_permitted_if_some_destination_is() -> None:
    named = allow("r", operations=one(MOVE), services=None, move_destinations=one("A"))
    assert evaluate_association(policy(named), association(STUDY_MOVE)).allowed
    no_a = policy(named, deny("no", operations=one(MOVE), move_destinations=one("A")))
    assert not evaluate_association(no_a, association(STUDY_MOVE)).allowed
    to_self = allow("r", operations=one(MOVE), services=None, move_to_self=True)
    no_t1 = policy(to_self, deny("no", operations=one(MOVE), move_destinations=one("T1")))
    assert not evaluate_association(no_t1, association(STUDY_MOVE)).allowed
    assert evaluate_association(no_t1, association(STUDY_MOVE, own_ae_titles=one("T2"))).allowed
    unnamed = policy(allow("all"), deny("no", operations=one(MOVE), move_destinations=one("A"), move_to_self=True))
    assert evaluate_association(unnamed, association(STUDY_MOVE)).allowed


def test_contexts_of_meta_classes_and_ups_are_permitted_by_their_members() -> None:
    film = policy(allow("r", sop_classes=one(FILM_SESSION)))
    assert evaluate_association(film, association(GRAYSCALE_PRINT_META)).allowed
    meta = policy(allow("r", sop_classes=one(GRAYSCALE_PRINT_META)))
    assert evaluate_association(meta, association(GRAYSCALE_PRINT_META, FILM_SESSION)).permitted_ids == {1}
    ups = policy(allow("r", sop_classes=one("1.2.840.10008.5.1.4.34.6.1")))
    assert evaluate_association(ups, association(UPS_PULL)).allowed


def test_sub_operations_of_an_allowed_get_have_their_contexts() -> None:
    rules = policy(allow("get", services=one(Service.GET)), deny("no-store", operations=one(Operation.C_STORE)))
    without = evaluate_association(rules, association(STUDY_GET, CT, PRIVATE, STUDY_FIND))
    assert without.permitted_ids == {1}
    scp = one(CT, PRIVATE, STUDY_FIND)
    answer = evaluate_association(rules, association(STUDY_GET, CT, PRIVATE, STUDY_FIND, scp_role_sop_classes=scp))
    assert answer.permitted_ids == {1, 3, 5}
    assert answer.permitted[3].rule_ids == ("get",)


def test_no_sub_operations_without_a_permitted_get() -> None:
    rules = policy(allow("get", services=one(Service.GET)), deny("no", roles=one("workstation")))
    answer = evaluate_association(rules, association(STUDY_GET, CT, scp_role_sop_classes=one(CT)))
    assert not answer.allowed


def test_only_contexts_of_the_clinical_floor_are_left_to_a_narrowed_principal() -> None:
    rules = policy(allow("all"))
    narrowed = principal(floor_only="audit-unavailable")
    answer = evaluate_association(
        rules,
        association(STUDY_GET, CT, PRIVATE, MODALITY_WORKLIST_FIND, principal=narrowed, scp_role_sop_classes=one(CT)),
    )
    assert answer.permitted_ids == {3, 5, 7}
    assert answer.permitted[1].reason is ReasonCode.CLINICAL_FLOOR_ONLY
    only_reading = evaluate_association(rules, association(STUDY_GET, STUDY_FIND, principal=narrowed))
    assert only_reading.decision.reason is ReasonCode.CLINICAL_FLOOR_ONLY
    new = evaluate_association(rules, association(CT, STUDY_FIND, principal=principal(floor_only="not-confirmed")))
    assert new.decision.reason is ReasonCode.NOT_CONFIRMED


def test_many_private_contexts_cost_no_more_than_one_kind_of_context() -> None:
    destinations = frozenset(f"AE{i}" for i in range(300))
    rules = policy(
        allow("r", services=one(Service.OTHER), operations=one(MOVE), move_destinations=destinations),
        deny("no", operations=one(MOVE), move_destinations=destinations),
    )
    answer = evaluate_association(rules, association(*(f"{PRIVATE}.{i}" for i in range(128))))
    assert not answer.allowed
    assert len(answer.permitted) == 128


OF_EVERY_KIND = policy(
    allow("by-device", roles=None, devices=one("D2"), services=one(Service.STORAGE)),
    allow("by-role", roles=one("modality"), services=one(Service.STORAGE)),
    allow("by-site", sites=one("south"), services=one(Service.STORAGE)),
    allow("by-person", people=one("ann"), services=one(Service.STORAGE)),
    allow("by-group", groups=one("readers"), services=one(Service.STORAGE)),
    allow("by-assurance", assurance=Assurance.DEVICE_AND_PERSON, services=one(Service.STORAGE)),
    allow("by-archive", archives=one("other"), services=one(Service.STORAGE)),
    allow("to-self", operations=one(MOVE), services=None, move_to_self=True),
    deny("not-to-t1", operations=one(MOVE), move_destinations=one("T1")),
    allow("get", operations=one(GET), services=None),
    allow("early", times=(TimeWindow(days=frozenset(range(7)), start_minute=0, end_minute=60),)),
)
QUESTION = association(VERIFICATION, CT, STUDY_MOVE, STUDY_GET)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(QUESTION, principal=principal(device="D2")), id="device"),
        pytest.param(replace(QUESTION, principal=principal(role="modality")), id="role"),
        pytest.param(replace(QUESTION, principal=principal(site="south")), id="site"),
        pytest.param(replace(QUESTION, principal=principal(person="ann")), id="person"),
        pytest.param(replace(QUESTION, principal=principal(groups=one("readers"))), id="group"),
        pytest.param(replace(QUESTION, principal=principal(assurance=Assurance.DEVICE_AND_PERSON)), id="assurance"),
        pytest.param(replace(QUESTION, principal=principal(calling_ae_title="T2")), id="calling title"),
        pytest.param(replace(QUESTION, principal=principal(floor_only=ReasonCode.CLINICAL_FLOOR_ONLY)), id="floor"),
        pytest.param(replace(QUESTION, archive="other"), id="archive"),
        pytest.param(replace(QUESTION, own_ae_titles=one("T2")), id="own titles"),
        pytest.param(replace(QUESTION, scp_role_sop_classes=one(CT)), id="roles"),
        pytest.param(replace(QUESTION, contexts=((1, CT), (3, STUDY_MOVE))), id="contexts"),
        pytest.param(replace(QUESTION, at=NOON - timedelta(hours=11, minutes=30)), id="time"),
    ],
)
def test_trap_an_answer_is_remembered_for_the_same_question_only(other: AssociationRequest) -> None:
    fresh = evaluate_association(policy(*OF_EVERY_KIND.rules), other)
    first = evaluate_association(OF_EVERY_KIND, QUESTION)
    assert evaluate_association(OF_EVERY_KIND, other) == fresh != first
    assert evaluate_association(OF_EVERY_KIND, QUESTION) is first


def test_the_same_question_from_another_address_has_the_same_answer() -> None:
    first = evaluate_association(OF_EVERY_KIND, QUESTION)
    assert evaluate_association(OF_EVERY_KIND, replace(QUESTION, principal=principal(address="10.1.2.3"))) is first


def test_what_is_remembered_is_bounded() -> None:
    rules = policy(allow("all"))
    first = evaluate_association(rules, QUESTION)
    for number in range(256):
        evaluate_association(rules, association(CT, own_ae_titles=one(f"T{number}")))
    assert evaluate_association(rules, QUESTION) is not first
    assert len(rules.index.decided) <= 256
