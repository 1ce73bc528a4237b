"""What holds for every policy and every request."""

from dataclasses import replace
from itertools import product
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.policy.decision import Effect, Obligation
from dicomward.policy.evaluate import evaluate, evaluate_association
from dicomward.policy.explain import find_mismatches
from dicomward.policy.families import command_sop_classes
from dicomward.policy.levels import IDENTIFIER_OPERATIONS
from dicomward.policy.model import Policy
from dicomward.policy.request import AssociationRequest, IdentifierRequest, OperationRequest
from dicomward.policy.rule import Rule
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import operations_of
from tests.policy.builders import ASSOCIATIONS, IDENTIFIERS, TITLES, operations, policies, policy, rules

BEFORE_RULES = {
    ReasonCode.CLINICAL_FLOOR_ONLY,
    ReasonCode.NOT_CONFIRMED,
    ReasonCode.OPERATION_NOT_OF_SOP_CLASS,
    ReasonCode.SOP_CLASS_MISMATCH,
}
REQUESTS = operations() | IDENTIFIERS


@settings(max_examples=400, deadline=None)
@given(policies(), IDENTIFIERS | operations().filter(lambda request: request.operation not in IDENTIFIER_OPERATIONS))
def test_the_compiled_index_decides_as_reading_rule_by_rule_does(
    given_policy: Policy, request: OperationRequest | IdentifierRequest
) -> None:
    decision = evaluate(given_policy, request)
    if decision.reason in BEFORE_RULES:
        return
    matching = [rule for rule in given_policy.rules if not find_mismatches(rule, request)]
    denies = tuple(rule.id for rule in matching if rule.effect is Effect.DENY)
    allows = tuple(rule.id for rule in matching if rule.effect is Effect.ALLOW)
    if denies:
        assert (decision.reason, decision.rule_ids) == (ReasonCode.DENIED_BY_RULE, denies)
    elif allows:
        assert (decision.reason, decision.rule_ids) == (ReasonCode.ALLOWED, allows)
    else:
        assert not decision.allowed
        assert decision.reason not in (ReasonCode.DENIED_BY_RULE, ReasonCode.RULE_ERROR)
        assert decision.rule_ids == ()


@settings(max_examples=150, deadline=None)
@given(policies(), rules("extra"), st.integers(0, 6), REQUESTS)
def test_adding_a_deny_rule_never_allows_more(
    given_policy: Policy, extra: Rule, place: int, request: OperationRequest
) -> None:
    if extra.effect is Effect.ALLOW:
        # The same conditions as a deny rule; what only allow rules can say is left out.
        extra = replace(extra, effect=Effect.DENY, required_keys=None, required_any_key=None, assurance=None)
    more = policy(*given_policy.rules[:place], extra, *given_policy.rules[place:])
    assert evaluate(given_policy, request).allowed or not evaluate(more, request).allowed


@settings(max_examples=150, deadline=None)
@given(policies(), st.integers(0, 5), REQUESTS)
def test_removing_an_allow_rule_never_allows_more(given_policy: Policy, place: int, request: OperationRequest) -> None:
    less = policy(*(rule for i, rule in enumerate(given_policy.rules) if i != place or rule.effect is Effect.DENY))
    assert evaluate(given_policy, request).allowed or not evaluate(less, request).allowed


@settings(max_examples=100, deadline=None)
@given(policies(), st.randoms(use_true_random=False), REQUESTS)
def test_the_order_of_rules_does_not_matter(given_policy: Policy, random: Random, request: OperationRequest) -> None:
    shuffled = list(given_policy.rules)
    random.shuffle(shuffled)
    first, second = evaluate(given_policy, request), evaluate(policy(*shuffled), request)
    assert (first.effect, first.reason, first.obligations) == (second.effect, second.reason, second.obligations)
    assert set(first.rule_ids) == set(second.rule_ids)


@settings(max_examples=150, deadline=None)
@given(policies(), IDENTIFIERS)
def test_what_the_operation_point_says_holds_for_every_identifier(
    given_policy: Policy, request: IdentifierRequest
) -> None:
    first, final = evaluate(given_policy, _without_identifier(request)), evaluate(given_policy, request)
    if not first.allowed:
        assert not final.allowed
    elif Obligation.INSPECT_IDENTIFIER not in first.obligations:
        assert final.allowed
    assert not final.obligations


def _without_identifier(request: IdentifierRequest) -> OperationRequest:
    fields = {name: getattr(request, name) for name in OperationRequest.__dataclass_fields__}
    return OperationRequest(**fields)


def _could_be_allowed(given_policy: Policy, asked: AssociationRequest, abstract_syntax: str, op: Operation) -> bool:
    """Try every command and every destination that makes a difference: T1 to T3 are all that rules name."""
    destinations = (*TITLES, "T9") if op is Operation.C_MOVE else (None,)
    return any(
        evaluate(
            given_policy,
            OperationRequest(
                principal=asked.principal,
                archive=asked.archive,
                operation=op,
                sop_class_uid=uid,
                context_sop_class_uid=abstract_syntax,
                move_destination=destination,
                own_ae_titles=asked.own_ae_titles,
                at=asked.at,
            ),
        ).allowed
        for uid, destination in product(command_sop_classes(abstract_syntax), destinations)
    )


@settings(max_examples=300, deadline=None)
@given(policies(), ASSOCIATIONS)
def test_a_context_is_permitted_if_and_only_if_some_operation_in_it_could_be_allowed(
    given_policy: Policy, asked: AssociationRequest
) -> None:
    answer = evaluate_association(given_policy, asked)
    gets = any(_could_be_allowed(given_policy, asked, uid, Operation.C_GET) for _, uid in asked.contexts)
    expected = set()
    for context_id, uid in asked.contexts:
        carries_sub_operations = gets and uid in asked.scp_role_sop_classes and Operation.C_STORE in operations_of(uid)
        if carries_sub_operations or any(_could_be_allowed(given_policy, asked, uid, op) for op in Operation):
            expected.add(context_id)
    assert answer.permitted_ids == expected
    assert answer.allowed is bool(expected)
    assert set(answer.permitted) == {context_id for context_id, _ in asked.contexts}
