"""What changes between two policies: nothing escapes, nothing is invented, each class has a request that shows it."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.policy import diff as diff_module
from dicomward.policy import diff_walk
from dicomward.policy.diff import ChangeKind, DiffError, PolicyDiff, RuleChange, diff_policies, widens
from dicomward.policy.evaluate import evaluate
from dicomward.policy.levels import IDENTIFIER_OPERATIONS
from dicomward.policy.load import load_policy
from dicomward.policy.model import Policy
from dicomward.policy.ready import default_policy_text
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.policy.request_space import body_of
from dicomward.policy.wording import describe_change, request_fields
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import MODALITY_WORKLIST_FIND, Service, operations_of
from tests.policy.builders import (
    ARCHIVES,
    CONTEXTS,
    DEVICES,
    KEYS,
    NOON,
    OTHER_PATIENT_IDS,
    PATIENT_ADDRESS,
    ROLES,
    SITES,
    TITLES,
    TYPED_LEVELS,
    UIDS,
    allow,
    deny,
    identifier,
    operation,
    policies,
    policy,
    principal,
    rules,
)
from tests.policy.cedar_oracle import CedarOracle

BECOMES_ALLOWED, BECOMES_DENIED = ChangeKind.BECOMES_ALLOWED, ChangeKind.BECOMES_DENIED
REASON_ONLY = ChangeKind.REASON_ONLY

# Each value that rules of the strategies name, and one more.
ASKED = [(op, uid) for uid in UIDS for op in sorted(operations_of(uid))]
LOOKING = [(op, uid) for op, uid in ASKED if op in IDENTIFIER_OPERATIONS]
KEY_SETS = [frozenset(keys) for size in range(len(KEYS) + 1) for keys in combinations(KEYS, size)]


def some_requests(seed: int, number: int = 60, *, known: bool = True) -> Iterator[OperationRequest]:
    """Yield requests from all over the space; drawing each of them by hypothesis would take most of the time."""
    random = Random(seed)
    for _ in range(number):
        op, uid = random.choice(LOOKING if random.random() < 0.7 else ASKED)
        asked = operation(
            op,
            uid,
            principal=principal(
                device=random.choice((*DEVICES, "D9")),
                role=random.choice((*ROLES, "research")),
                site=random.choice((*SITES, "south")),
                assurance=random.choice(tuple(Assurance)),
                calling_ae_title=random.choice(TITLES),
            ),
            archive=random.choice((*ARCHIVES, "far")),
            move_destination=random.choice((*TITLES, "T9")) if op is Operation.C_MOVE else None,
            own_ae_titles=random.choice((frozenset(), frozenset({"T2"}), frozenset(TITLES))),
            context_sop_class_uid=random.choice(CONTEXTS.get(uid, ("", uid))),
            at=NOON + timedelta(minutes=random.randrange(7 * 1440)),
        )
        if known and op in IDENTIFIER_OPERATIONS:
            asked = IdentifierRequest.of(
                asked, query_level=random.choice((*TYPED_LEVELS, "no-level")), keys=random.choice(KEY_SETS)
            )
        yield asked


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Policy, Policy]:
    """Draw two policies: unrelated ones, or one and a small change of it."""
    old = draw(policies())
    if draw(st.booleans()):
        return old, draw(policies())
    changed = list(old.rules)
    for i in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(changed)))
        match draw(st.sampled_from(("add", "replace", "remove", "turn round"))):
            case "replace" if place < len(changed):
                changed[place] = draw(rules(changed[place].id))
            case "remove" if place < len(changed):
                del changed[place]
            case _:
                changed.insert(place, draw(rules(f"more{i}")))
    return old, policy(*changed)


def kinds_at(found: PolicyDiff, request: OperationRequest) -> set[ChangeKind]:
    return {change.kind for change in found.changes if change.contains(request)}


def is_stripped(request: OperationRequest) -> bool:
    return request.operation is Operation.C_FIND and request.sop_class_uid != MODALITY_WORKLIST_FIND


def kind_at(old: Policy, new: Policy, request: OperationRequest) -> set[ChangeKind]:
    """Say what changes for one request, by asking both policies. A rule renamed or written twice says nothing new."""
    before, after = evaluate(old, request), evaluate(new, request)
    if before.allowed != after.allowed:
        return {BECOMES_ALLOWED if after.allowed else BECOMES_DENIED}
    strips = [
        decided.stripped_by(decision.rule_ids) if is_stripped(request) else frozenset()
        for decided, decision in ((old, before), (new, after))
    ]
    if strips[0] != strips[1]:
        return {ChangeKind.SHOWS_MORE if strips[0] - strips[1] else ChangeKind.SHOWS_LESS}
    if before.reason != after.reason:
        return {REASON_ONLY}
    bodies = [
        {body_of(rule) for rule in decided.rules if rule.id in decision.rule_ids}
        for decided, decision in ((old, before), (new, after))
    ]
    others = bodies[0] != bodies[1] and set(before.rule_ids) != set(after.rule_ids)
    return {REASON_ONLY} if others else set()


@settings(max_examples=120, deadline=None)
@given(pairs(), st.integers(0, 2**32))
def test_no_request_escapes_and_none_is_invented(pair: tuple[Policy, Policy], seed: int) -> None:
    old, new = pair
    found = diff_policies(old, new)
    assert found.reasons_complete
    for request in some_requests(seed):
        assert kinds_at(found, request) == kind_at(old, new, request)


@settings(max_examples=50, deadline=None)
@given(pairs(), st.integers(0, 2**32))
def test_cedar_sees_the_same_differences(pair: tuple[Policy, Policy], seed: int) -> None:
    old, new = pair
    found = diff_policies(old, new)
    asked = [request for request in some_requests(seed) if evaluate(old, request).reason not in BEFORE_RULES]
    answers = zip(asked, CedarOracle(old).decide(asked), CedarOracle(new).decide(asked), strict=True)
    for request, (before, _), (after, _) in answers:
        expected = set() if before == after else {BECOMES_ALLOWED if after else BECOMES_DENIED}
        assert kinds_at(found, request) & {BECOMES_ALLOWED, BECOMES_DENIED} == expected


BEFORE_RULES = {
    ReasonCode.CLINICAL_FLOOR_ONLY,
    ReasonCode.NOT_CONFIRMED,
    ReasonCode.OPERATION_NOT_OF_SOP_CLASS,
    ReasonCode.SOP_CLASS_MISMATCH,
}


@settings(max_examples=60, deadline=None)
@given(pairs(), st.integers(0, 2**32))
def test_what_the_gateway_decides_before_it_knows_the_identifier_changes_only_with_a_class(
    pair: tuple[Policy, Policy], seed: int
) -> None:
    old, new = pair
    found = diff_policies(old, new)
    for request in some_requests(seed, known=False):
        before, after = evaluate(old, request), evaluate(new, request)
        if before.allowed != after.allowed:
            assert (BECOMES_ALLOWED if after.allowed else BECOMES_DENIED) in kinds_at(found, request)


@settings(max_examples=50, deadline=None)
@given(pairs())
def test_every_class_has_a_request_that_shows_it(pair: tuple[Policy, Policy]) -> None:
    old, new = pair
    found = diff_policies(old, new)
    for change in found.changes:
        assert change.contains(change.request)
        assert (evaluate(old, change.request), evaluate(new, change.request)) == (change.old, change.new)
        assert kind_at(old, new, change.request) == {change.kind}
        assert change.because_of
    assert found.widens == widens(old, new) == any(change.kind.widens for change in found.changes)


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_the_way_back_is_the_opposite(pair: tuple[Policy, Policy]) -> None:
    there, back = diff_policies(*pair), diff_policies(*reversed(pair))
    for kind, opposite in ((BECOMES_ALLOWED, BECOMES_DENIED), (BECOMES_DENIED, BECOMES_ALLOWED)):
        for change in there.of_kind(kind):
            assert kinds_at(back, change.request) == {opposite}


@settings(max_examples=40, deadline=None)
@given(policies())
def test_a_policy_does_not_differ_from_itself_in_another_order(given_policy: Policy) -> None:
    found = diff_policies(given_policy, policy(*reversed(given_policy.rules)))
    assert (found.rules, found.changes) == ((), ())


def test_a_widening_that_two_rules_make_together_is_seen() -> None:
    old = policy(allow(), deny(operations=frozenset({Operation.C_FIND})))
    new = policy(allow(), deny(operations=frozenset({Operation.C_FIND}), sites=frozenset({"north"})))
    found = diff_policies(old, new)
    assert found.widens
    assert found.rules == (RuleChange("changed", "no", "no"),)
    assert kinds_at(found, identifier(principal=principal(site="south"))) == {BECOMES_ALLOWED}
    assert kinds_at(found, identifier()) == set()


def test_rules_that_are_renamed_added_or_removed_are_named() -> None:
    echo = {"operations": frozenset({Operation.C_ECHO})}
    old = policy(allow("a", **echo), allow("b", sites=frozenset({"x"})), deny("c", sites=frozenset({"y"})))
    new = policy(allow("a2", **echo), deny("c", sites=frozenset({"z"})), deny("d", sites=frozenset({"q"})))
    found = diff_policies(old, new)
    assert [str(change) for change in found.rules] == ["a renamed to a2", "c changed", "d added", "b removed"]
    assert kinds_at(found, operation(Operation.C_ECHO, "1.2.840.10008.1.1")) == set()


def test_a_policy_with_a_rule_at_fault_allows_nothing() -> None:
    broken = policy(allow(), deny(operations=frozenset()))
    assert evaluate(broken, operation()).reason is ReasonCode.RULE_ERROR
    assert not widens(policy(allow()), broken)
    assert widens(broken, policy(allow()))


def test_a_comparison_that_contradicts_the_evaluator_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_module, "evaluate", lambda _, request: evaluate(policy(), request))
    with pytest.raises(DiffError):
        diff_policies(policy(), policy(allow()))


def test_big_policies_are_compared_in_a_moment() -> None:
    """500 rules, one of them removed: no worse than reading them."""
    many = [allow(f"r{i}", devices=frozenset({f"D{i}"}), operations=frozenset({Operation.C_STORE})) for i in range(500)]
    found = diff_policies(policy(*many), policy(*many[:250], *many[251:]))
    (change,) = found.changes
    assert change.kind is BECOMES_DENIED
    assert change.request.principal.device == "D250"


def test_where_reasons_are_too_many_decisions_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_walk, "MOST_REASON_CASES", 3)
    old, new = load_policy(default_policy_text(), source="old"), policy(deny())
    found = diff_policies(old, new)
    assert not found.reasons_complete
    assert len(found.of_kind(BECOMES_DENIED)) > 20


def test_a_rule_for_a_group_is_seen_with_somebody_of_it() -> None:
    new = policy(allow("r", roles=None, groups=frozenset({"readers"}), people=frozenset({"person-1"})))
    also = policy(allow("r", roles=None, groups=frozenset({"readers"})))
    first = diff_policies(policy(), new).of_kind(ChangeKind.BECOMES_ALLOWED)[0].request
    assert (first.principal.person, first.principal.groups) == ("person-1", frozenset({"readers"}))
    assert request_fields(first)["group"] == ["readers"]
    change = diff_policies(new, also).of_kind(ChangeKind.BECOMES_ALLOWED)[0]
    assert change.request.principal.person == "person-2"
    assert describe_change(change)["group"] == "readers"


def test_what_is_no_longer_stripped_is_a_widening() -> None:
    find = {"operations": frozenset({Operation.C_FIND}), "services": frozenset({Service.QUERY, Service.WORKLIST})}
    bare, strict = allow("a", **find), allow("a", **find, strip=frozenset({PATIENT_ADDRESS}))
    other = allow("a", **find, strip=frozenset({OTHER_PATIENT_IDS}))
    for old, new, kinds in (
        (strict, bare, {ChangeKind.SHOWS_MORE}),
        (bare, strict, {ChangeKind.SHOWS_LESS}),
        (strict, other, {ChangeKind.SHOWS_MORE}),
        (strict, strict, set()),
    ):
        found = diff_policies(policy(old), policy(new))
        assert {change.kind for change in found.changes} == kinds
        assert widens(policy(old), policy(new)) is (ChangeKind.SHOWS_MORE in kinds)
        assert not any(change.contains(identifier(uid=MODALITY_WORKLIST_FIND)) for change in found.changes)
