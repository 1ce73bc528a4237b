"""The ready policies, as a PACS administrator would check them: who can do what, and what nobody can do."""

import re

import pytest

from dicomward.policy.decision import Decision, Obligation
from dicomward.policy.evaluate import evaluate, evaluate_association
from dicomward.policy.load import load_policy
from dicomward.policy.model import Policy
from dicomward.policy.ready import default_policy_text, ready_policy_text
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Role
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import (
    MODALITY_WORKLIST_FIND,
    MPPS,
    SOP_CLASS_BY_KEYWORD,
    STORAGE_COMMITMENT_PUSH_MODEL,
    VERIFICATION,
    operations_of,
)
from tests.policy.builders import (
    ACCESSION_NUMBER,
    CT,
    FILM_SESSION,
    PATIENT_ID,
    PRIVATE,
    STUDY_FIND,
    STUDY_GET,
    STUDY_INSTANCE_UID,
    STUDY_MOVE,
    UPS_PUSH,
    association,
    identifier,
    operation,
    principal,
)

ECHO, STORE, FIND = Operation.C_ECHO, Operation.C_STORE, Operation.C_FIND
GET, MOVE = Operation.C_GET, Operation.C_MOVE
ACTION, REPORT, CREATE, SET = (
    Operation.N_ACTION,
    Operation.N_EVENT_REPORT,
    Operation.N_CREATE,
    Operation.N_SET,
)

# What each role can do, on one usual SOP class for each service. Everything that is not listed is denied.
STORING = {(ECHO, VERIFICATION), (STORE, CT)}
COMMITTING = {(ACTION, STORAGE_COMMITMENT_PUSH_MODEL), (REPORT, STORAGE_COMMITMENT_PUSH_MODEL)}
PRINTING = {(op, FILM_SESSION) for op in operations_of(FILM_SESSION)}
READING = {(FIND, STUDY_FIND), (GET, STUDY_GET), (MOVE, STUDY_MOVE)}
EXPECTED = {
    Role.MODALITY: STORING
    | COMMITTING
    | PRINTING
    | {(STORE, PRIVATE), (FIND, MODALITY_WORKLIST_FIND), (CREATE, MPPS), (SET, MPPS)},
    Role.UPLOADER: STORING | COMMITTING | {(STORE, PRIVATE)},
    Role.WORKSTATION: STORING | COMMITTING | PRINTING | READING | {(op, UPS_PUSH) for op in operations_of(UPS_PUSH)},
    Role.TELERADIOLOGY: STORING | READING,
    Role.RESEARCH: {(ECHO, VERIFICATION)},
    Role.ARCHIVE: {(ECHO, VERIFICATION)},
}
UIDS = sorted({uid for pairs in EXPECTED.values() for _, uid in pairs})


@pytest.fixture(scope="module")
def default() -> Policy:
    return load_policy(default_policy_text(), source="policy.toml")


def test_the_default_policy_loads_without_a_warning(default: Policy) -> None:
    assert default.warnings == ()
    assert {role for rule in default.rules for role in rule.roles or ()} == set(Role)


@pytest.mark.parametrize("role", Role)
def test_each_ready_policy_loads_alone_and_is_about_its_role(role: Role) -> None:
    policy = load_policy(ready_policy_text(role), source=f"{role}.toml")
    assert policy.warnings == ()
    assert all(
        rule.roles == frozenset({role.value}) and rule.id.startswith(f"{role}-") and rule.description
        for rule in policy.rules
    )
    assert ready_policy_text(role) in default_policy_text()


@pytest.mark.parametrize("role", Role)
def test_each_role_can_do_what_is_listed_and_nothing_else(default: Policy, role: Role) -> None:
    allowed = {
        (op, uid)
        for uid in UIDS
        for op in Operation
        if evaluate(default, operation(op, uid, principal=principal(role=role))).allowed
    }
    assert allowed == EXPECTED[role]


@pytest.mark.parametrize("role", Role)
def test_contexts_follow_from_the_operations(default: Policy, role: Role) -> None:
    answer = evaluate_association(default, association(*UIDS, principal=principal(role=role)))
    permitted = {uid for i, uid in enumerate(UIDS) if 2 * i + 1 in answer.permitted_ids}
    assert permitted == {uid for _, uid in EXPECTED[role]}


def test_rules_for_private_storage_open_no_other_service_of_the_standard(default: Policy) -> None:
    notification = SOP_CLASS_BY_KEYWORD["InstanceAvailabilityNotification"]
    asked_for = association(CT, notification, SOP_CLASS_BY_KEYWORD["MediaCreationManagement"])
    assert evaluate_association(default, asked_for).permitted_ids == {1}
    stored = evaluate(default, operation(STORE, notification, principal=principal(role=Role.MODALITY)))
    assert stored.reason is ReasonCode.OPERATION_NOT_OF_SOP_CLASS


def test_a_role_that_is_not_ours_can_do_nothing(default: Policy) -> None:
    assert not evaluate_association(default, association(*UIDS, principal=principal(role="guest"))).allowed


def test_a_workstation_moves_to_itself_only(default: Policy) -> None:
    assert evaluate(default, operation(MOVE, STUDY_MOVE)).allowed
    other = evaluate(default, operation(MOVE, STUDY_MOVE, move_destination="EVIL"))
    assert other.reason is ReasonCode.MOVE_DESTINATION_NOT_ALLOWED


def asked(default: Policy, op: Operation, uid: str, level: str, *keys: int) -> Decision:
    caller = principal(role=Role.TELERADIOLOGY)
    first = evaluate(default, operation(op, uid, principal=caller))
    assert first.obligations == {Obligation.INSPECT_IDENTIFIER}
    return evaluate(default, identifier(op, uid, level=level, keys=frozenset(keys), principal=caller))


@pytest.mark.parametrize("key", [PATIENT_ID, ACCESSION_NUMBER, STUDY_INSTANCE_UID])
def test_teleradiology_finds_what_it_knows(default: Policy, key: int) -> None:
    assert asked(default, FIND, STUDY_FIND, "STUDY", key).allowed


def test_teleradiology_cannot_browse(default: Policy) -> None:
    assert asked(default, FIND, STUDY_FIND, "STUDY").reason is ReasonCode.REQUIRED_KEYS_MISSING
    assert not asked(default, FIND, STUDY_FIND, "STUDY", 0x00100010, 0x00080020).allowed
    assert asked(default, FIND, STUDY_FIND, "PATIENT", PATIENT_ID).reason is ReasonCode.QUERY_LEVEL_NOT_ALLOWED


@pytest.mark.parametrize(("op", "uid"), [(GET, STUDY_GET), (MOVE, STUDY_MOVE)])
def test_teleradiology_retrieves_by_study_never_by_patient(default: Policy, op: Operation, uid: str) -> None:
    assert asked(default, op, uid, "STUDY", STUDY_INSTANCE_UID).allowed
    assert not asked(default, op, uid, "STUDY", PATIENT_ID).allowed
    assert not asked(default, op, uid, "PATIENT", PATIENT_ID, STUDY_INSTANCE_UID).allowed


def test_research_stays_out_even_if_somebody_opens_its_site(default: Policy) -> None:
    text = default_policy_text() + (
        '\n[[rule]]\nid = "open"\neffect = "allow"\nsite = "north"\nservice = ["query", "get", "move", "worklist"]\n'
    )
    opened = load_policy(text, source="policy.toml")
    for op, uid in (*READING, (FIND, MODALITY_WORKLIST_FIND)):
        decision = evaluate(opened, operation(op, uid, principal=principal(role=Role.RESEARCH)))
        assert decision.rule_ids == ("research-reads-nothing",)


def test_the_examples_in_comments_are_rules_that_load() -> None:
    text = re.sub(r"(?m)^# (?=\[\[rule\]\]|[a-z_]+ = )", "", default_policy_text())
    policy = load_policy(text, source="policy.toml")
    assert text.count("[[rule]]") == len(policy.rules) > default_policy_text().count("\n[[rule]]")
    assert policy.warnings == ()


def test_the_example_for_priors_gives_a_modality_its_priors_only() -> None:
    text = re.sub(r"(?m)^# (?=\[\[rule\]\]|[a-z_]+ = )", "", ready_policy_text(Role.MODALITY))
    policy = load_policy(text, source="policy.toml")
    scanner = principal(role=Role.MODALITY, device="CT1")
    find = identifier(principal=scanner, keys=frozenset({PATIENT_ID}))
    assert evaluate(policy, find).rule_ids == ("modality-prior-query",)
    assert not evaluate(policy, identifier(principal=scanner)).allowed
    move = identifier(MOVE, STUDY_MOVE, principal=scanner, keys=frozenset({STUDY_INSTANCE_UID}))
    assert evaluate(policy, move).rule_ids == ("modality-prior-move",)


def test_sop_classes_of_the_ready_policies_are_named_by_keyword() -> None:
    for keyword in re.findall(r'"([A-Z][A-Za-z]{9,})"', default_policy_text()):
        assert keyword in SOP_CLASS_BY_KEYWORD or keyword in ("AccessionNumber", "StudyInstanceUID")
