from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dicomward.policy.decision import Decision, Obligation
from dicomward.policy.evaluate import evaluate, evaluate_association
from dicomward.policy.request import OperationRequest
from dicomward.policy.rule import Rule, TimeWindow
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import MODALITY_WORKLIST_FIND, VERIFICATION, Service
from tests.policy.builders import (
    ACCESSION_NUMBER,
    CT,
    FILM_SESSION,
    GRAYSCALE_PRINT_META,
    HANGING_PROTOCOL_FIND,
    NOON,
    PATIENT_ID,
    PRIVATE,
    STUDY_FIND,
    STUDY_GET,
    STUDY_INSTANCE_UID,
    STUDY_MOVE,
    allow,
    association,
    deny,
    identifier,
    operation,
    policy,
    principal,
)

FIND, GET, MOVE, STORE = Operation.C_FIND, Operation.C_GET, Operation.C_MOVE, Operation.C_STORE
INSPECT = frozenset({Obligation.INSPECT_IDENTIFIER})
DAYS = frozenset(range(7))


def one(*values: Any) -> frozenset[Any]:
    return frozenset(values)


def outcome(decision: Decision) -> tuple[ReasonCode, tuple[str, ...]]:
    assert decision.allowed is (decision.reason is ReasonCode.ALLOWED)
    return decision.reason, decision.rule_ids


# --- default deny, deny overrides -----------------------------------------------------------------------


def test_an_empty_policy_allows_nothing() -> None:
    for op in Operation:
        for uid in (CT, STUDY_FIND, VERIFICATION, PRIVATE):
            assert not evaluate(policy(), operation(op, uid)).allowed
    assert outcome(evaluate(policy(), operation())) == (ReasonCode.NO_MATCHING_RULE, ())


def test_every_matching_allow_rule_is_named_in_the_order_of_the_policy() -> None:
    rules = (allow("b"), allow("other", roles=one("x")), allow("a"))
    assert outcome(evaluate(policy(*rules), operation())) == (ReasonCode.ALLOWED, ("b", "a"))


def test_deny_overrides_allow_wherever_it_stands() -> None:
    first, last = policy(deny("no"), allow("yes")), policy(allow("yes"), deny("no"), deny("never", sites=one("north")))
    assert outcome(evaluate(first, operation())) == (ReasonCode.DENIED_BY_RULE, ("no",))
    assert outcome(evaluate(last, operation())) == (ReasonCode.DENIED_BY_RULE, ("no", "never"))


@pytest.mark.parametrize(
    ("fields", "request_changes"),
    [
        ({"devices": one("D1")}, {"principal": principal(device="D2")}),
        ({"roles": one("workstation")}, {"principal": principal(role="uploader")}),
        ({"sites": one("north")}, {"principal": principal(site="south")}),
        ({"archives": one("pacs")}, {"archive": "ris"}),
        ({"operations": one(STORE)}, {"operation": Operation.N_ACTION, "sop_class_uid": PRIVATE}),
        ({"sop_classes": one(CT)}, {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}),
        ({"services": one(Service.STORAGE)}, {"sop_class_uid": PRIVATE}),
    ],
)
def test_each_named_dimension_must_match(fields: dict[str, Any], request_changes: dict[str, Any]) -> None:
    base = {"roles": None, "devices": one("D1", "D2"), "services": None, "operations": one(*Operation)}
    rule = allow("r", **base | fields)
    assert outcome(evaluate(policy(rule), operation())) == (ReasonCode.ALLOWED, ("r",))
    assert outcome(evaluate(policy(rule), replace(operation(), **request_changes)))[0] is ReasonCode.NO_MATCHING_RULE


@pytest.mark.parametrize("fields", [{"people": one("anna", "bert")}, {"groups": one("readers", "x")}])
def test_persons_and_groups_must_match(fields: dict[str, Any]) -> None:
    rules = policy(allow("r", roles=None, **fields))
    anna = replace(operation(), principal=principal(person="anna", groups=one("readers", "y")))
    other = replace(operation(), principal=principal(person="carla", groups=one("y")))
    assert outcome(evaluate(rules, anna)) == (ReasonCode.ALLOWED, ("r",))
    for request in (other, operation()):
        assert outcome(evaluate(rules, request))[0] is ReasonCode.NO_MATCHING_RULE
    denying = policy(allow("yes"), deny("no", **fields))
    assert outcome(evaluate(denying, anna)) == (ReasonCode.DENIED_BY_RULE, ("no",))
    assert evaluate(denying, operation()).allowed


def test_private_storage_belongs_to_the_service_other() -> None:
    rule = allow("r", services=one(Service.STORAGE, Service.OTHER), operations=one(STORE))
    assert evaluate(policy(rule), operation(STORE, PRIVATE)).allowed
    assert not evaluate(policy(rule), operation(FIND, PRIVATE)).allowed


# --- assurance and time ---------------------------------------------------------------------------------


def test_an_allow_rule_asks_for_a_least_assurance() -> None:
    rules = policy(allow("r", assurance=Assurance.TLS_DEVICE))
    assert evaluate(rules, operation()).allowed
    assert evaluate(rules, operation(principal=principal(assurance=Assurance.DEVICE_AND_PERSON))).allowed
    weak = evaluate(rules, operation(principal=principal(assurance=Assurance.NETWORK_PIN)))
    assert outcome(weak) == (ReasonCode.ASSURANCE_TOO_LOW, ())
    assert "r" in weak.detail


def test_a_deny_rule_applies_below_an_assurance() -> None:
    rules = policy(allow("r"), deny("weak", assurance_below=Assurance.TLS_DEVICE))
    assert evaluate(rules, operation()).allowed
    weak = operation(principal=principal(assurance=Assurance.NETWORK_PIN))
    assert outcome(evaluate(rules, weak)) == (ReasonCode.DENIED_BY_RULE, ("weak",))


def test_rules_hold_in_their_windows_only() -> None:
    office = TimeWindow(days=DAYS, start_minute=8 * 60, end_minute=13 * 60)
    rules = policy(allow("r", times=(office,)))
    assert evaluate(rules, operation()).allowed
    late = evaluate(rules, operation(at=NOON + timedelta(hours=1)))
    assert outcome(late) == (ReasonCode.OUTSIDE_PERMITTED_TIMES, ())
    blocked = policy(allow("r"), deny("no", times=(office,)))
    assert not evaluate(blocked, operation()).allowed
    assert evaluate(blocked, operation(at=NOON + timedelta(hours=1))).allowed


# --- what no rule can allow -----------------------------------------------------------------------------


def test_an_operation_that_the_sop_class_does_not_have_is_denied() -> None:
    rules = policy(allow("r"))
    decision = evaluate(rules, operation(FIND, CT))
    assert outcome(decision) == (ReasonCode.OPERATION_NOT_OF_SOP_CLASS, ())
    assert "c-find" in decision.detail


def test_a_command_about_another_sop_class_than_its_context_is_denied() -> None:
    rules = policy(allow("r", sop_classes=one(CT)))
    assert evaluate(rules, operation(STORE, CT, context_sop_class_uid=CT)).allowed
    smuggled = operation(STORE, "1.2.840.10008.5.1.4.1.1.4", context_sop_class_uid=CT)
    assert outcome(evaluate(rules, smuggled)) == (ReasonCode.SOP_CLASS_MISMATCH, ())


def test_a_rule_for_a_meta_class_covers_the_commands_in_its_context() -> None:
    rules = policy(allow("r", sop_classes=one(GRAYSCALE_PRINT_META)))
    create = operation(Operation.N_CREATE, FILM_SESSION, context_sop_class_uid=GRAYSCALE_PRINT_META)
    assert evaluate(rules, create).allowed
    assert not evaluate(rules, replace(create, context_sop_class_uid="")).allowed
    denied = policy(allow("all"), deny("no", sop_classes=one(FILM_SESSION)))
    assert not evaluate(denied, create).allowed


def test_only_the_clinical_floor_is_left_to_a_narrowed_principal_and_policy_still_applies() -> None:
    narrowed = principal(floor_only="certificate-just-expired")
    rules = policy(allow("r"), deny("no", archives=one("ris")))
    assert evaluate(rules, operation(principal=narrowed)).allowed
    assert evaluate(rules, operation(FIND, MODALITY_WORKLIST_FIND, principal=narrowed)).allowed
    assert not evaluate(rules, operation(principal=narrowed, archive="ris")).allowed
    read = evaluate(rules, operation(FIND, STUDY_FIND, principal=narrowed))
    assert outcome(read) == (ReasonCode.CLINICAL_FLOOR_ONLY, ())
    assert "certificate-just-expired" in read.detail


def test_only_an_echo_is_left_to_who_is_not_confirmed_and_the_reason_says_so() -> None:
    new = principal(floor_only="not-confirmed")
    rules = policy(allow("r"))
    assert outcome(evaluate(rules, operation(principal=new))) == (ReasonCode.NOT_CONFIRMED, ())
    assert outcome(evaluate(rules, operation(FIND, STUDY_FIND, principal=new))) == (ReasonCode.NOT_CONFIRMED, ())
    assert evaluate(rules, operation(Operation.C_ECHO, VERIFICATION, principal=new)).allowed


# --- C-MOVE ---------------------------------------------------------------------------------------------


def move_policy(**fields: Any) -> Rule:
    return allow("r", operations=one(MOVE), services=None, **fields)


def test_a_move_goes_to_named_destinations_only() -> None:
    rules = policy(move_policy(move_destinations=one("OR1")))
    assert evaluate(rules, operation(MOVE, STUDY_MOVE, move_destination="OR1")).allowed
    other = evaluate(rules, operation(MOVE, STUDY_MOVE, move_destination="EVIL"))
    assert outcome(other) == (ReasonCode.MOVE_DESTINATION_NOT_ALLOWED, ())


def test_self_is_the_calling_ae_title_and_the_other_titles_of_the_principal() -> None:
    rules = policy(move_policy(move_to_self=True))
    assert evaluate(rules, operation(MOVE, STUDY_MOVE, move_destination="T1")).allowed
    assert not evaluate(rules, operation(MOVE, STUDY_MOVE, move_destination="T2")).allowed
    own = operation(MOVE, STUDY_MOVE, move_destination="T2", own_ae_titles=one("T2"))
    assert evaluate(rules, own).allowed
    assert not evaluate(policy(allow("all"), deny("no", operations=one(MOVE), move_to_self=True)), own).allowed


def test_a_rule_without_destination_is_open_to_all() -> None:
    assert evaluate(policy(move_policy()), operation(MOVE, STUDY_MOVE, move_destination="ANY")).allowed


def test_a_destination_that_is_missing_is_an_error_and_denied() -> None:
    decision = evaluate(policy(move_policy()), operation(MOVE, STUDY_MOVE, move_destination=None))
    assert outcome(decision) == (ReasonCode.RULE_ERROR, ())
    assert "destination" in decision.detail


# --- identifiers ----------------------------------------------------------------------------------------

BY_LEVEL = allow("level", operations=one(FIND), services=None, query_levels=one("STUDY", "SERIES"))
BY_KEYS = allow(
    "keys", operations=one(FIND, GET, MOVE), services=None, required_any_key=one(PATIENT_ID, ACCESSION_NUMBER)
)
FIND_ASKED = operation(FIND, STUDY_FIND)


def test_a_rule_that_needs_the_identifier_obliges_to_look_at_it() -> None:
    for rule in (BY_LEVEL, BY_KEYS):
        decision = evaluate(policy(rule), FIND_ASKED)
        assert (decision.allowed, decision.rule_ids, decision.obligations) == (True, (rule.id,), INSPECT)


def test_no_need_to_look_where_another_rule_allows_everything() -> None:
    decision = evaluate(policy(BY_LEVEL, allow("all")), FIND_ASKED)
    assert (decision.rule_ids, decision.obligations) == (("all",), frozenset())


def test_a_deny_rule_that_needs_the_identifier_obliges_too() -> None:
    rules = policy(allow("all"), deny("no", operations=one(FIND), query_levels=one("PATIENT")))
    decision = evaluate(rules, FIND_ASKED)
    assert (decision.allowed, decision.rule_ids, decision.obligations) == (True, ("all", "no"), INSPECT)
    assert evaluate(rules, identifier(level="STUDY")).allowed
    assert outcome(evaluate(rules, identifier(level="PATIENT"))) == (ReasonCode.DENIED_BY_RULE, ("no",))


@pytest.mark.parametrize("level", [None, "", "BOGUS", "STUDY\\PATIENT"])
def test_trap_a_missing_or_odd_level_evades_no_deny_rule_and_meets_no_allow_rule(level: str | None) -> None:
    rules = policy(allow("all"), deny("no", operations=one(FIND), query_levels=one("PATIENT")))
    assert outcome(evaluate(rules, identifier(level=level))) == (ReasonCode.DENIED_BY_RULE, ("no",))
    assert outcome(evaluate(policy(BY_LEVEL), identifier(level=level))) == (ReasonCode.QUERY_LEVEL_NOT_ALLOWED, ())


def test_denied_at_once_where_no_identifier_could_be_allowed() -> None:
    rules = policy(BY_LEVEL, deny("no", operations=one(FIND), query_levels=one("STUDY", "SERIES")))
    decision = evaluate(rules, FIND_ASKED)
    assert outcome(decision) == (ReasonCode.DENIED_BY_RULE, ("no",))
    assert not decision.obligations


def test_a_deny_rule_that_needs_no_identifier_denies_at_once() -> None:
    assert outcome(evaluate(policy(BY_LEVEL, deny("no")), FIND_ASKED)) == (ReasonCode.DENIED_BY_RULE, ("no",))


def test_denied_at_once_where_only_deny_rules_would_look() -> None:
    rules = policy(deny("no", operations=one(FIND), query_levels=one("STUDY")))
    assert outcome(evaluate(rules, FIND_ASKED)) == (ReasonCode.NO_MATCHING_RULE, ())


def test_a_query_needs_its_keys() -> None:
    assert evaluate(policy(BY_KEYS), identifier(keys=one(ACCESSION_NUMBER))).allowed
    browsing = evaluate(policy(BY_KEYS), identifier(keys=one(0x00100010)))
    assert outcome(browsing) == (ReasonCode.REQUIRED_KEYS_MISSING, ())
    all_of = allow("all-of", operations=one(FIND), services=None, required_keys=one(PATIENT_ID, STUDY_INSTANCE_UID))
    assert not evaluate(policy(all_of), identifier(keys=one(PATIENT_ID))).allowed
    assert evaluate(policy(all_of), identifier(keys=one(PATIENT_ID, STUDY_INSTANCE_UID))).allowed


def test_a_deny_rule_can_ask_for_keys_of_every_query() -> None:
    rules = policy(allow("all"), deny("no-browsing", operations=one(FIND), unless_any_key=one(PATIENT_ID)))
    assert evaluate(rules, FIND_ASKED).obligations == INSPECT
    assert outcome(evaluate(rules, identifier())) == (ReasonCode.DENIED_BY_RULE, ("no-browsing",))
    assert evaluate(rules, identifier(keys=one(PATIENT_ID))).allowed


def test_the_level_of_a_worklist_query_is_known_beforehand() -> None:
    rules = policy(allow("r", operations=one(FIND), services=None, query_levels=one("WORKLIST")))
    assert evaluate(rules, operation(FIND, MODALITY_WORKLIST_FIND)).obligations == frozenset()
    assert evaluate(rules, operation(FIND, MODALITY_WORKLIST_FIND)).allowed
    assert evaluate(rules, identifier(FIND, MODALITY_WORKLIST_FIND, level=None)).allowed
    assert not evaluate(rules, operation(FIND, STUDY_FIND)).allowed
    assert not evaluate(rules, identifier(FIND, STUDY_FIND, level="WORKLIST")).allowed


def test_a_sop_class_without_levels_meets_no_rule_that_names_one() -> None:
    rules = policy(BY_LEVEL, allow("all"), deny("no", operations=one(FIND), query_levels=one("STUDY")))
    assert evaluate(rules, identifier(FIND, HANGING_PROTOCOL_FIND, level="STUDY")).rule_ids == ("all",)


def test_keys_are_undecided_even_where_the_level_is_known() -> None:
    rules = policy(allow("r", operations=one(FIND), services=None, required_keys=one(PATIENT_ID)))
    assert evaluate(rules, operation(FIND, MODALITY_WORKLIST_FIND)).obligations == INSPECT


def test_rules_about_identifiers_never_touch_other_operations() -> None:
    rules = policy(BY_LEVEL, deny("no", operations=one(FIND), query_levels=one("STUDY")), allow("store"))
    assert outcome(evaluate(rules, operation(STORE, CT))) == (ReasonCode.ALLOWED, ("store",))


@pytest.mark.parametrize("op", [GET, MOVE])
def test_retrievals_have_identifiers_too(op: Operation) -> None:
    uid = STUDY_GET if op is GET else STUDY_MOVE
    assert evaluate(policy(BY_KEYS), operation(op, uid)).obligations == INSPECT
    assert not evaluate(policy(BY_KEYS), identifier(op, uid)).allowed


# --- errors deny ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [operation(), FIND_ASKED, identifier()])
def test_trap_a_rule_at_fault_denies_everything_and_is_named(request_: OperationRequest) -> None:
    rules = policy(allow("yes"), deny("typo", roles=one()))
    assert outcome(evaluate(rules, request_)) == (ReasonCode.RULE_ERROR, ("typo",))
    answer = evaluate_association(rules, association(CT, STUDY_FIND))
    assert outcome(answer.decision) == (ReasonCode.RULE_ERROR, ("typo",))
    assert {decision.reason for decision in answer.permitted.values()} == {ReasonCode.RULE_ERROR}


def test_trap_an_error_while_evaluating_denies() -> None:
    timed = policy(allow("yes", times=(TimeWindow(days=DAYS, start_minute=0, end_minute=1440),)))
    naive = operation(at=NOON.replace(tzinfo=None))
    decision = evaluate(timed, naive)
    assert outcome(decision) == (ReasonCode.RULE_ERROR, ())
    assert "no time zone" in decision.detail
    answer = evaluate_association(timed, association(CT, at=naive.at))
    assert outcome(answer.decision) == (ReasonCode.RULE_ERROR, ())
    assert not answer.permitted_ids
    assert set(answer.permitted) == {1}
