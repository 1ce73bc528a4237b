"""The evaluator and Cedar agree: effect, and the determining rules by name."""

from itertools import chain, combinations

from hypothesis import given, settings

from dicomward.policy.decision import Obligation
from dicomward.policy.evaluate import evaluate
from dicomward.policy.levels import IDENTIFIER_OPERATIONS
from dicomward.policy.model import Policy
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.vocab.reason import ReasonCode
from tests.policy.builders import IDENTIFIERS, KEYS, RETRIEVALS, TYPED_LEVELS, operations, policies
from tests.policy.cedar_oracle import CedarOracle

# Facts of the standard and of the identity, decided before any rule is looked at.
BEFORE_RULES = {
    ReasonCode.CLINICAL_FLOOR_ONLY,
    ReasonCode.NOT_CONFIRMED,
    ReasonCode.OPERATION_NOT_OF_SOP_CLASS,
    ReasonCode.SOP_CLASS_MISMATCH,
}
KEY_SETS = [frozenset(keys) for keys in chain.from_iterable(combinations(KEYS, n) for n in range(len(KEYS) + 1))]


def agrees(policy: Policy, request: OperationRequest) -> None:
    decision = evaluate(policy, request)
    if decision.reason in BEFORE_RULES:
        assert not decision.allowed
        return
    ((allowed, ids),) = CedarOracle(policy).decide([request])
    assert decision.allowed is allowed
    assert frozenset(decision.rule_ids) == ids
    assert not decision.obligations


@settings(max_examples=300, deadline=None)
@given(policies(), operations().filter(lambda request: request.operation not in IDENTIFIER_OPERATIONS))
def test_operations_without_identifier_are_decided_as_cedar_does(policy: Policy, request: OperationRequest) -> None:
    agrees(policy, request)


@settings(max_examples=500, deadline=None)
@given(policies(), IDENTIFIERS)
def test_identifiers_are_decided_as_cedar_does(policy: Policy, request: IdentifierRequest) -> None:
    agrees(policy, request)


@settings(max_examples=150, deadline=None)
@given(policies(), RETRIEVALS)
def test_an_operation_is_allowed_if_and_only_if_cedar_allows_some_identifier(
    policy: Policy, request: OperationRequest
) -> None:
    decision = evaluate(policy, request)
    if decision.reason in BEFORE_RULES:
        return
    every = [IdentifierRequest.of(request, query_level=level, keys=keys) for level in TYPED_LEVELS for keys in KEY_SETS]
    allowed = [allows for allows, _ in CedarOracle(policy).decide(every)]
    assert decision.allowed is any(allowed)
    assert (Obligation.INSPECT_IDENTIFIER in decision.obligations) is (any(allowed) and not all(allowed))
