"""Put the cases of policy tests to a policy, and say which rules they determine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dicomward.policy.case_file import Case
from dicomward.policy.decision import Decision
from dicomward.policy.diff import strip_of
from dicomward.policy.evaluate import evaluate
from dicomward.policy.model import Policy
from dicomward.policy.strip import attribute_name
from dicomward.policy.values import nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the policy made of a case; `failures` say in words what was expected otherwise, none if it passes."""

    case: Case
    decision: Decision
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Say if everything is as expected."""
        return not self.failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Which rules of a policy determine the decision of a case, and which don't; in the order of the policy."""

    determined: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def percent(self) -> float:
        """How many of the rules are determined; 100 for a policy without rules."""
        total = len(self.determined) + len(self.missing)
        return 100 * len(self.determined) / total if total else 100.0


def judge(policy: Policy, case: Case) -> Verdict:
    """Decide on one case."""
    decision = evaluate(policy, case.request)
    return Verdict(case=case, decision=decision, failures=tuple(_find_failures(policy, case, decision)))


def _find_failures(policy: Policy, case: Case, decision: Decision) -> Iterator[str]:
    if decision.effect is not case.effect:
        yield f"expected {case.effect}, the decision is {decision.effect}"
    elif case.reason is not None and decision.reason is not case.reason:
        yield f"expected the reason {case.reason}, it is {decision.reason}"
    strip = strip_of(policy, case.request, decision)
    if case.strip is not None and case.strip != strip:
        yield f"expected {_attributes(case.strip)} to be stripped from matches, it is {_attributes(strip)}"
    if case.rule_ids is None:
        return
    known = [rule.id for rule in policy.rules]
    for rule_id in sorted(case.rule_ids - set(known)):
        yield f"the policy has no rule {rule_id}: {nearest(rule_id, known)}"
    if case.rule_ids != set(decision.rule_ids):
        wanted = ", ".join(sorted(case.rule_ids)) or "no rule"
        yield f"expected to be determined by {wanted}, it is by {', '.join(decision.rule_ids) or 'no rule'}"


def _attributes(tags: frozenset[int]) -> str:
    return ", ".join(sorted(map(attribute_name, tags))) or "nothing"


def cover(policy: Policy, verdicts: Iterable[Verdict]) -> Coverage:
    """Say which rules the cases determine. Where the identifier is still to be looked at, nothing is determined yet."""
    found = {
        rule_id for verdict in verdicts if not verdict.decision.obligations for rule_id in verdict.decision.rule_ids
    }
    ids = [rule.id for rule in policy.rules]
    return Coverage(
        determined=tuple(rule_id for rule_id in ids if rule_id in found),
        missing=tuple(rule_id for rule_id in ids if rule_id not in found),
    )
