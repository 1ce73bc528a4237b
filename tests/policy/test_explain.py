from typing import Any

import pytest
from hypothesis import given, settings

from dicomward.policy.evaluate import evaluate
from dicomward.policy.explain import Mismatch, explain, find_mismatches
from dicomward.policy.model import Policy
from dicomward.policy.request import OperationRequest
from dicomward.policy.rule import Rule, TimeWindow
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.services import MODALITY_WORKLIST_FIND, Service
from tests.policy.builders import (
    ACCESSION_NUMBER,
    CT,
    HANGING_PROTOCOL_FIND,
    IDENTIFIERS,
    PATIENT_ID,
    STUDY_FIND,
    STUDY_GET,
    STUDY_INSTANCE_UID,
    STUDY_MOVE,
    allow,
    deny,
    identifier,
    operation,
    operations,
    policies,
    policy,
    principal,
)

FIND, MOVE, STORE = Operation.C_FIND, Operation.C_MOVE, Operation.C_STORE
NIGHT = TimeWindow(days=frozenset({4, 0}), start_minute=22 * 60, end_minute=6 * 60 + 5)


def one(*values: Any) -> frozenset[Any]:
    return frozenset(values)


@pytest.mark.parametrize(
    ("rule", "request_", "mismatch"),
    [
        (deny(devices=one("D2", "D9")), operation(), Mismatch("device", "D2, D9", "D1")),
        (deny(roles=one("x")), operation(), Mismatch("role", "x", "workstation")),
        (deny(sites=one("south")), operation(), Mismatch("site", "south", "north")),
        (deny(people=one("anna")), operation(), Mismatch("person", "anna", "nobody")),
        (deny(groups=one("readers")), operation(), Mismatch("group", "readers", "none")),
        (deny(archives=one("ris")), operation(), Mismatch("archive", "ris", "pacs")),
        (deny(operations=one(FIND, MOVE)), operation(), Mismatch("operation", "c-find, c-move", "c-store")),
        (deny(services=one(Service.PRINT)), operation(), Mismatch("service", "print", "storage")),
        (
            deny(sop_classes=one("1.2.840.10008.5.1.4.1.1.4", "1.2.3")),
            operation(),
            Mismatch("sop_class", "1.2.3, MRImageStorage", "CTImageStorage"),
        ),
        (
            allow(assurance=Assurance.DEVICE_AND_PERSON),
            operation(),
            Mismatch("assurance", "at least device-and-person", "tls-device"),
        ),
        (
            deny(assurance_below=Assurance.TLS_DEVICE),
            operation(),
            Mismatch("assurance_below", "less than tls-device", "tls-device"),
        ),
        (deny(times=(NIGHT,)), operation(), Mismatch("time", "mon, fri 22:00 to 06:05", "wed 12:00")),
        (
            deny(operations=one(MOVE), move_destinations=one("B"), move_to_self=True),
            operation(MOVE, STUDY_MOVE, move_destination="EVIL"),
            Mismatch("move_destination", "B, self", "EVIL"),
        ),
        (
            deny(operations=one(FIND), query_levels=one("STUDY")),
            identifier(level="PATIENT"),
            Mismatch("query_level", "STUDY", "PATIENT"),
        ),
        (
            allow(operations=one(FIND), services=None, query_levels=one("STUDY")),
            identifier(level=None),
            Mismatch("query_level", "STUDY", "no known level"),
        ),
        (
            deny(operations=one(FIND), query_levels=one("STUDY")),
            identifier(FIND, HANGING_PROTOCOL_FIND),
            Mismatch("query_level", "STUDY", "no level"),
        ),
        (
            deny(operations=one(FIND), query_levels=one("STUDY")),
            operation(FIND, MODALITY_WORKLIST_FIND),
            Mismatch("query_level", "STUDY", "WORKLIST"),
        ),
        (
            allow(
                operations=one(FIND),
                services=None,
                required_keys=one(STUDY_INSTANCE_UID, PATIENT_ID),
                required_any_key=one(ACCESSION_NUMBER),
            ),
            identifier(keys=one(PATIENT_ID)),
            Mismatch("required_keys", "all of PatientID, StudyInstanceUID and one of AccessionNumber", "PatientID"),
        ),
        (
            deny(operations=one(FIND), unless_any_key=one(PATIENT_ID)),
            identifier(keys=one(PATIENT_ID, 0x00111010)),
            Mismatch("unless_keys", "a query without its keys", "(0011,1010), PatientID"),
        ),
    ],
)
def test_each_condition_that_fails_is_said(rule: Rule, request_: OperationRequest, mismatch: Mismatch) -> None:
    assert find_mismatches(rule, request_) == (mismatch,)


def test_a_rule_about_identifiers_or_destinations_never_matches_other_operations() -> None:
    by_level = deny(operations=one(FIND), query_levels=one("STUDY"))
    by_destination = deny(operations=one(MOVE), move_to_self=True)
    assert [m.field for m in find_mismatches(by_level, operation())] == ["operation", "operation"]
    assert find_mismatches(by_destination, operation())[1] == Mismatch("move_destination", "self", "none")


def test_an_identifier_that_is_not_known_yet_counts_as_fitting() -> None:
    rule = allow(operations=one(FIND), services=None, query_levels=one("STUDY"), required_keys=one(PATIENT_ID))
    assert find_mismatches(rule, operation(FIND, STUDY_FIND)) == ()


def test_an_allowed_operation_needs_no_change() -> None:
    story = explain(policy(allow("r")), operation())
    assert (story.decision.rule_ids, story.changes, story.near_rules) == (("r",), (), ())


def test_a_denial_names_the_nearest_rules_and_what_they_want() -> None:
    rules = policy(
        allow("far", roles=one("x"), sites=one("y"), archives=one("z")),
        allow("near", operations=one(FIND), services=None, required_any_key=one(PATIENT_ID)),
        allow("next", operations=one(FIND), services=None, sites=one("south"), required_any_key=one(PATIENT_ID)),
        deny("irrelevant", roles=one("x")),
    )
    story = explain(rules, identifier())
    assert [near.rule_id for near in story.near_rules] == ["near", "next"]
    assert story.changes == (
        "rule near would allow it, but required_keys: the rule wants one of PatientID, the request has none",
        "rule next would allow it, but site: the rule wants south, the request has north; "
        "required_keys: the rule wants one of PatientID, the request has none",
        'or write an allow rule that fits, for example for role "workstation", operation "c-find", service "query"',
    )


def test_at_most_three_near_rules_are_named() -> None:
    rules = policy(*(allow(f"r{i}", sites=one("south")) for i in range(5)))
    assert [near.rule_id for near in explain(rules, operation()).near_rules] == ["r0", "r1", "r2"]


def test_without_any_rule_a_fitting_one_is_described() -> None:
    (change,) = explain(policy(), operation()).changes
    assert change == (
        'or write an allow rule that fits, for example for role "workstation", operation "c-store", service "storage"'
    )


def test_deny_rules_come_first_and_missing_allow_rules_after() -> None:
    story = explain(policy(deny("no"), allow("yes")), operation())
    assert story.changes == ("rule no denies this and overrides every allow: narrow it, or take it out",)
    both = explain(policy(deny("no"), allow("yes", sites=one("south"))), operation())
    assert [change.split()[:2] for change in both.changes] == [["rule", "no"], ["rule", "yes"], ["or", "write"]]


def test_what_no_rule_can_allow_is_said() -> None:
    (floor,) = explain(policy(), operation(FIND, STUDY_FIND, principal=principal(floor_only="draining"))).changes
    assert "only the clinical floor is left to D1 (draining)" in floor
    (new,) = explain(policy(), operation(FIND, STUDY_FIND, principal=principal(floor_only="not-confirmed"))).changes
    assert "dicomward device confirm D1" in new
    (standard,) = explain(policy(allow("all")), operation(FIND, CT)).changes
    assert "no rule can allow this: PS3.4 gives" in standard
    (mixed,) = explain(policy(allow("all")), operation(STORE, CT, context_sop_class_uid=STUDY_GET)).changes
    assert "no rule can allow this" in mixed


def test_a_rule_at_fault_is_to_be_corrected() -> None:
    story = explain(policy(allow("ok"), deny("typo", roles=one())), operation())
    assert story.changes == (
        "correct rule typo: the list is empty, so the rule could never match (name a value, or leave it out)",
        "nothing is allowed until this is corrected: a rule is at fault, so nothing is allowed",
    )


def test_conditions_on_the_identifier_are_listed() -> None:
    rules = policy(
        allow(
            "by-key",
            operations=one(FIND),
            services=None,
            query_levels=one("STUDY", "SERIES"),
            required_any_key=one(PATIENT_ID, ACCESSION_NUMBER),
        ),
        allow("all", operations=one(FIND), services=None),
        deny("no-browsing", operations=one(FIND), unless_keys=one(PATIENT_ID)),
        deny("elsewhere", sites=one("south")),
    )
    story = explain(rules, operation(FIND, STUDY_FIND))
    assert story.identifier_conditions == (
        "rule by-key allows it if the level is SERIES, STUDY and the query has one of AccessionNumber, PatientID",
        "rule all allows it in any case",
        "rule no-browsing denies it if the query lacks all of PatientID",
    )
    assert story.changes == ()


@settings(max_examples=150, deadline=None)
@given(policies(), operations() | IDENTIFIERS)
def test_every_denial_says_what_would_have_to_change(given_policy: Policy, request: OperationRequest) -> None:
    story = explain(given_policy, request)
    assert story.decision == evaluate(given_policy, request)
    assert bool(story.changes) is not story.decision.allowed
    assert all(near.mismatches for near in story.near_rules)
