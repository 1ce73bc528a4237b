"""What policy answers: an effect, a stable reason, and the rules that determined it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dicomward.vocab.reason import ReasonCode


class Effect(StrEnum):
    """What a rule, or a decision, does."""

    ALLOW = "allow"
    DENY = "deny"


class Obligation(StrEnum):
    """What the caller must do before an allow takes effect."""

    INSPECT_IDENTIFIER = "inspect-identifier"


_NONE: frozenset[Obligation] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision.

    `rule_ids`, in the order of the policy: on allow, the allow rules that match; on deny, the deny rules that match, so
    none where nothing matched. With an obligation: all rules on which the outcome still depends. `detail` is for the
    audit record and never for the peer.
    """

    effect: Effect
    reason: ReasonCode
    rule_ids: tuple[str, ...] = ()
    obligations: frozenset[Obligation] = _NONE
    detail: str = ""

    @property
    def allowed(self) -> bool:
        """Say if the effect is allow; obligations may remain."""
        return self.effect is Effect.ALLOW


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationDecision:
    """The decision on an association, and in `permitted` one decision for *every* proposed context, by context ID."""

    decision: Decision
    permitted: Mapping[int, Decision]

    @property
    def allowed(self) -> bool:
        """Say if at least one context is permitted."""
        return self.decision.allowed

    @property
    def permitted_ids(self) -> frozenset[int]:
        """The IDs of the contexts that are permitted."""
        return frozenset(context_id for context_id, decision in self.permitted.items() if decision.allowed)
