"""Events are plain values with stable codes, and no field is left unclassified."""

import re
from dataclasses import FrozenInstanceError

import pytest

from dicomward.audit.event import (
    EVENT_CLASS_BY_CODE,
    EVENT_CLASSES,
    AssociationAllowed,
    AssociationDenied,
    AuditEvent,
    OperationDenied,
    OperationEvent,
    field_names,
)
from dicomward.audit.fields import FIELD_RULES, MAX_IDENTIFIER_CHARACTERS, Classification, Kind, field_rule
from dicomward.vocab.reason import ReasonCode

# Append only: alarms and searches of our users depend on every one of them.
CODES = {
    "DW-ASSOC-ALLOW": "AssociationAllowed",
    "DW-ASSOC-DENY": "AssociationDenied",
    "DW-ASSOC-END": "AssociationEnded",
    "DW-OP-ALLOW": "OperationAllowed",
    "DW-OP-DENY": "OperationDenied",
    "DW-OP-END": "OperationCompleted",
    "DW-CONN-FAIL": "ConnectionFailed",
    "DW-CONN-COALESCE": "StrangersCoalesced",
    "DW-REG-CHANGE": "RegistryChanged",
    "DW-POLICY-CHANGE": "PolicyChanged",
    "DW-GW-START": "GatewayStarted",
    "DW-GW-STOP": "GatewayStopped",
    "DW-DEGR-ENTER": "DegradedEntered",
    "DW-DEGR-LEAVE": "DegradedLeft",
    "DW-SEC-ALERT": "SecurityAlert",
    "DW-BUDGET-WARN": "BudgetWarned",
    "DW-BUDGET-END": "BudgetEnded",
    "DW-BUDGET-RESET": "BudgetReset",
    "DW-ISOLATION": "IsolationVerified",
    "DW-DEVIATION": "DeviationsCounted",
    "DW-AUDIT-ACCESS": "AuditAccessed",
    "DW-AUDIT-LOST": "AuditRecordsLost",
    "DW-OPER-CHANGE": "OperatorsChanged",
    "DW-OPER-DENY": "OperatorRefused",
    "DW-APPROVAL": "ApprovalChanged",
    "DW-ENROL": "EnrolmentChanged",
    "DW-ENROL-DENY": "EnrolmentRefused",
    "DW-RELOAD": "ConfigurationReloaded",
    "DW-BYPASS-REVIEW": "BypassReviewed",
    "DW-ZONE-ALARM": "LegacyZoneAlarm",
    "DW-OBSERVED": "RefusalObserved",
    "DW-AUDIT-PRUNE": "AuditPruned",
    "DW-LOCKDOWN": "LockdownChanged",
    "DW-ASSOC-NARROW": "AssociationNarrowed",
    "DW-OP-MATCH": "MatchesReturned",
    "DW-CA-CHANGE": "CaChanged",
    "DW-CERT-EXPIRES": "CertificateExpires",
    "DW-ASSESS": "AssessmentChanged",
    "DW-PROBE": "ProbeSent",
}
CHAIN_MEMBERS = {"seq", "prev", "time", "hash", "v", "code", "sink"}


def subclasses(base: type[AuditEvent]) -> set[type[AuditEvent]]:
    direct = set(base.__subclasses__())
    return direct.union(*(subclasses(each) for each in direct)) if direct else direct


def test_codes_are_the_published_ones() -> None:
    assert {code: each.__name__ for code, each in EVENT_CLASS_BY_CODE.items()} == CODES


def test_every_event_class_is_listed() -> None:
    # Slotted dataclasses leave their unslotted draft behind as a subclass: compare names, not classes.
    ours = {each.__name__ for each in subclasses(AuditEvent) if each.__module__ == AuditEvent.__module__}
    assert ours - {"OperationEvent"} == set(CODES.values())
    assert len(EVENT_CLASSES) == len(EVENT_CLASS_BY_CODE)


@pytest.mark.parametrize("event_class", EVENT_CLASSES)
def test_every_field_is_classified(event_class: type[AuditEvent]) -> None:
    for name in field_names(event_class):
        assert name in FIELD_RULES, f"classify {name} in FIELD_RULES"
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert name not in CHAIN_MEMBERS


def test_no_rule_is_left_over() -> None:
    used = {name for each in EVENT_CLASSES for name in field_names(each)}
    assert set(FIELD_RULES) == used


def test_a_field_that_nobody_classified_is_secret() -> None:
    assert field_rule("patient_name").classification is Classification.SECRET


def test_what_leads_to_a_person_is_not_public() -> None:
    for name in ("sop_instance_uid", "operator", "address", "detail", "calling_ae_title"):
        assert field_rule(name).classification is Classification.SENSITIVE


def test_only_details_and_identifiers_of_queries_may_be_long() -> None:
    assert field_rule("detail").max_characters == 1024
    assert field_rule("identifier").max_characters == MAX_IDENTIFIER_CHARACTERS
    assert {rule.max_characters for name, rule in FIELD_RULES.items() if name not in ("detail", "identifier")} == {128}


def test_kinds_of_lists() -> None:
    assert field_rule("rule_ids").kind is Kind.TEXTS
    assert field_rule("deviations").kind is Kind.COUNTS


def test_events_are_values() -> None:
    event = AssociationAllowed(device="CT1", association="a1")
    assert event == AssociationAllowed(device="CT1", association="a1")
    assert event.reason is None
    with pytest.raises(FrozenInstanceError):
        event.device = "CT2"  # type: ignore[misc]


@pytest.mark.parametrize("event_class", [AssociationDenied, OperationDenied])
def test_a_denial_without_a_reason_cannot_be_made(event_class: type[AuditEvent]) -> None:
    with pytest.raises(TypeError, match="reason"):
        event_class(device="CT1")
    denial = event_class(device="CT1", reason=ReasonCode.NO_MATCHING_RULE)
    assert denial.reason is ReasonCode.NO_MATCHING_RULE


def test_operation_events_share_their_fields() -> None:
    assert set(field_names(OperationEvent)) == set(field_names(OperationDenied))
