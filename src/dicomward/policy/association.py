"""Decide on presentation contexts: which of them could carry an operation that would be allowed."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from dicomward.policy.decision import AssociationDecision, Decision, Effect
from dicomward.policy.families import command_sop_classes
from dicomward.policy.index import Index
from dicomward.policy.levels import IDENTIFIER_OPERATIONS, possible_levels
from dicomward.policy.request import AssociationRequest
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import is_left, operations_of, service_of, why_not_left

# An answer for 128 contexts takes some 30 KB; most are for one to four.
_REMEMBERED = 256


@dataclass(slots=True)
class _Outcome:
    """What was found for one context: the allow rules that could apply, and the deny rules that stood in the way."""

    allows: int = 0
    denies: int = 0
    by_get: int = 0
    tried: bool = False

    def add(self, other: "_Outcome") -> None:
        self.allows |= other.allows
        self.denies |= other.denies


@dataclass(slots=True)
class _Caller:
    """What is the same for every context of one association."""

    index: Index
    request: AssociationRequest
    rules: int
    destinations: tuple[int, ...]
    known: dict[tuple[int, tuple[str, ...], bool], _Outcome] = field(default_factory=dict)


def decide_association(index: Index, request: AssociationRequest) -> AssociationDecision:
    """Decide with sound rules. Raises ValueError for a naive time where a rule has windows.

    A device asks the same many times a day: all that the answer depends on is the key of what was decided before.
    """
    principal, timed = request.principal, index.at(request.at)
    key = (
        timed,
        request.archive,
        request.contexts,
        request.scp_role_sop_classes,
        request.own_ae_titles,
        principal.device,
        principal.calling_ae_title,
        principal.role,
        principal.site,
        principal.person,
        principal.groups,
        principal.assurance,
        principal.floor_only,
    )
    decision = index.decided.get(key)
    if decision is None:
        decision = _decide(index, request, timed)
        if len(index.decided) >= _REMEMBERED:
            index.decided.clear()
        index.decided[key] = decision
    return decision


def _decide(index: Index, request: AssociationRequest, timed: int) -> AssociationDecision:
    principal = request.principal
    who = index.of_principal(principal) & index.archive.accepting(request.archive)
    assured = index.assurance[principal.assurance]
    caller = _Caller(
        index=index, request=request, rules=who & assured & timed, destinations=_destinations(index, request)
    )
    outcomes = {context_id: _try_context(caller, uid) for context_id, uid in request.contexts}
    _permit_get_sub_operations(request, outcomes)
    near = ((ReasonCode.ASSURANCE_TOO_LOW, who & timed), (ReasonCode.OUTSIDE_PERMITTED_TIMES, who & assured))
    permitted: dict[int, Decision] = {}
    for context_id, uid in request.contexts:
        outcome = outcomes[context_id]
        permitted[context_id] = _judge(index, outcome) or _explain_denial(caller, uid, outcome, near)
    return AssociationDecision(decision=_sum_up(index, tuple(outcomes.values()), permitted), permitted=permitted)


def _destinations(index: Index, request: AssociationRequest) -> tuple[int, ...]:
    """Return, for each C-MOVE destination that makes a difference, the rules that accept it."""
    own = request.own_ae_titles | {request.principal.calling_ae_title}
    accepting = {index.destination.accepting(title) | index.to_self for title in own}
    accepting |= {rules for title, rules in index.destination.named.items() if title not in own}
    # No rule names this one; AE titles are endless, so there is always such a destination.
    accepting.add(index.destination.open)
    return tuple(accepting)


def _try_context(caller: _Caller, abstract_syntax: str, rules: int | None = None) -> _Outcome:
    """Try every operation that commands in this context can ask for."""
    index = caller.index
    floor_only = caller.request.principal.floor_only
    by_context = index.sop_class.accepting(abstract_syntax)
    base = caller.rules if rules is None else rules
    total = _Outcome()
    for uid in command_sop_classes(abstract_syntax):
        matching = base & (by_context | index.sop_class.accepting(uid)) & index.service.accepting(service_of(uid))
        for operation in operations_of(uid):
            if not is_left(floor_only, operation, uid):
                continue
            total.tried = True
            found = _try_operation(caller, operation, uid, matching & index.operation.accepting(operation))
            total.add(found)
            if operation is Operation.C_GET:
                total.by_get |= found.allows
    return total


def _try_operation(caller: _Caller, operation: Operation, uid: str, matching: int) -> _Outcome:
    index = caller.index
    if operation not in IDENTIFIER_OPERATIONS:
        return _clash(index, matching, matching & index.denies)
    levels = possible_levels(uid)
    key = (matching, levels, operation is Operation.C_MOVE)
    found = caller.known.get(key)
    if found is None:
        found = caller.known[key] = _Outcome()
        destinations = caller.destinations if operation is Operation.C_MOVE else (-1,)
        for rules in _each_identifier(index, matching, levels, destinations):
            # As in evaluate: the best identifier has every key, so conditions on keys deny nothing here.
            found.add(_clash(index, rules, rules & index.denies & ~index.with_keys))
    return found


def _each_identifier(
    index: Index, matching: int, levels: tuple[str, ...], destinations: tuple[int, ...]
) -> Iterator[int]:
    for level in levels:
        at_level = matching & index.level.accepting(level)
        for accepting in destinations:
            yield at_level & accepting


def _clash(index: Index, matching: int, denies: int) -> _Outcome:
    if denies:
        return _Outcome(denies=denies)
    return _Outcome(allows=matching & index.allows)


def _permit_get_sub_operations(request: AssociationRequest, outcomes: dict[int, _Outcome]) -> None:
    """Let the archive's C-STORE sub-operations of an allowed C-GET have their contexts."""
    by_get = 0
    for outcome in outcomes.values():
        by_get |= outcome.by_get
    for context_id, uid in request.contexts:
        if by_get and uid in request.scp_role_sop_classes and Operation.C_STORE in operations_of(uid):
            outcomes[context_id].allows |= by_get


def _judge(index: Index, outcome: _Outcome) -> Decision | None:
    """Permit where any allow is left, name the deny rules where they were in the way; None where no rule matched."""
    if outcome.allows:
        return Decision(effect=Effect.ALLOW, reason=ReasonCode.ALLOWED, rule_ids=index.ids_of(outcome.allows))
    if outcome.denies:
        return Decision(effect=Effect.DENY, reason=ReasonCode.DENIED_BY_RULE, rule_ids=index.ids_of(outcome.denies))
    return None


def _explain_denial(caller: _Caller, uid: str, outcome: _Outcome, near: tuple[tuple[ReasonCode, int], ...]) -> Decision:
    if not outcome.tried:
        return Decision(effect=Effect.DENY, reason=why_not_left(caller.request.principal.floor_only))
    for reason, rules in near:
        if _try_context(caller, uid, rules).allows:
            return Decision(effect=Effect.DENY, reason=reason)
    return Decision(effect=Effect.DENY, reason=ReasonCode.NO_MATCHING_RULE)


def _sum_up(index: Index, outcomes: tuple[_Outcome, ...], permitted: dict[int, Decision]) -> Decision:
    allows = denies = 0
    for outcome in outcomes:
        allows |= outcome.allows
        denies |= outcome.denies
    if allows:
        return Decision(effect=Effect.ALLOW, reason=ReasonCode.ALLOWED, rule_ids=index.ids_of(allows))
    reasons = {decision.reason for decision in permitted.values()} - {ReasonCode.NO_MATCHING_RULE}
    reason = reasons.pop() if len(reasons) == 1 else ReasonCode.NO_PERMITTED_CONTEXT
    return Decision(effect=Effect.DENY, reason=reason, rule_ids=index.ids_of(denies))
