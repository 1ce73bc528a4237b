"""Events are plain values with stable codes."""

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
    "DW-REVERSE": "ReverseConnection",
}


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
