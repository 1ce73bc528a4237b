from dicomward.policy.decision import AssociationDecision, Decision, Effect, Obligation
from dicomward.vocab.reason import ReasonCode

ALLOW = Decision(effect=Effect.ALLOW, reason=ReasonCode.ALLOWED, rule_ids=("r",))
DENY = Decision(effect=Effect.DENY, reason=ReasonCode.NO_MATCHING_RULE)


def test_a_decision_is_allowed_by_its_effect_alone() -> None:
    assert ALLOW.allowed
    assert not DENY.allowed
    assert Decision(
        effect=Effect.ALLOW, reason=ReasonCode.ALLOWED, obligations=frozenset({Obligation.INSPECT_IDENTIFIER})
    ).allowed


def test_a_denial_has_no_rules_and_no_obligations_unless_named() -> None:
    assert (DENY.rule_ids, DENY.obligations, DENY.detail) == ((), frozenset(), "")


def test_an_association_decision_names_the_permitted_contexts() -> None:
    decision = AssociationDecision(decision=ALLOW, permitted={1: ALLOW, 3: DENY, 5: ALLOW})
    assert decision.permitted_ids == {1, 5}
    assert decision.allowed
    assert not AssociationDecision(decision=DENY, permitted={1: DENY}).allowed


def test_words_of_effects_and_obligations_are_stable() -> None:
    assert (Effect.ALLOW, Effect.DENY, Obligation.INSPECT_IDENTIFIER) == ("allow", "deny", "inspect-identifier")
