"""Say why: the decision, each condition of each rule that did not hold, and what would have to change.

`find_mismatches` reads one rule against one request in the plainest way. It shares nothing with the compiled index, and
the tests hold the two against each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from dicomward.policy.decision import Decision, Effect, Obligation
from dicomward.policy.evaluate import evaluate
from dicomward.policy.keys import key_name
from dicomward.policy.levels import (
    IDENTIFIER_OPERATIONS,
    NO_LEVEL,
    QUERY_LEVELS,
    UNCLEAR,
    level_of,
    possible_levels,
)
from dicomward.policy.model import Policy
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.policy.rule import Rule, TimeWindow, find_faults
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import service_of
from dicomward.vocab.uid import uid_keyword

_NEAREST_RULES: Final = 3
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Mismatch(NamedTuple):
    """A condition of a rule that does not hold: the field, what the rule wants, what the request has."""

    field: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.field}: the rule wants {self.wanted}, the request has {self.found}"


class NearRule(NamedTuple):
    """An allow rule that did not match, with what kept it from matching."""

    rule_id: str
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A decision with its story.

    `near_rules` are the allow rules with the fewest failed conditions, `changes` what would have to change for the
    opposite, in sentences; `identifier_conditions` what the identifier must fulfil where the decision obliges to look.
    """

    decision: Decision
    near_rules: tuple[NearRule, ...]
    identifier_conditions: tuple[str, ...]
    changes: tuple[str, ...]


def explain(policy: Policy, request: OperationRequest | IdentifierRequest) -> Explanation:
    """Explain the decision of `evaluate` on the request."""
    decision = evaluate(policy, request)
    return Explanation(
        decision=decision,
        near_rules=() if decision.allowed else _find_near_rules(policy, request),
        identifier_conditions=tuple(_identifier_conditions(policy, decision)),
        changes=tuple(_plan_changes(policy, request, decision)),
    )


def find_mismatches(rule: Rule, request: OperationRequest | IdentifierRequest) -> tuple[Mismatch, ...]:
    """Return the conditions of the rule that do not hold.

    Conditions on an identifier that is not known yet count as held.
    """
    return (*_principal_mismatches(rule, request), *_operation_mismatches(rule, request), *_identifier(rule, request))


def _principal_mismatches(rule: Rule, request: OperationRequest) -> Iterator[Mismatch]:
    principal = request.principal
    named = (("device", rule.devices, principal.device), ("role", rule.roles, principal.role))
    person = principal.person or "nobody"
    for field, wanted, found in (*named, ("site", rule.sites, principal.site), ("person", rule.people, person)):
        if wanted is not None and found not in wanted:
            yield Mismatch(field, _list(wanted), found)
    if rule.groups is not None and rule.groups.isdisjoint(principal.groups):
        yield Mismatch("group", _list(rule.groups), _list(principal.groups))
    if rule.assurance is not None and principal.assurance < rule.assurance:
        yield Mismatch("assurance", f"at least {rule.assurance.label}", principal.assurance.label)
    if rule.assurance_below is not None and principal.assurance >= rule.assurance_below:
        yield Mismatch("assurance_below", f"less than {rule.assurance_below.label}", principal.assurance.label)
    if rule.times is not None and not any(window.contains(request.at) for window in rule.times):
        wanted_times = " or ".join(_window(window) for window in rule.times)
        yield Mismatch("time", wanted_times, f"{_DAYS[request.at.weekday()]} {request.at:%H:%M}")


def _operation_mismatches(rule: Rule, request: OperationRequest) -> Iterator[Mismatch]:
    uid = request.sop_class_uid
    service = service_of(uid)
    if rule.operations is not None and request.operation not in rule.operations:
        yield Mismatch("operation", _list(operation.label for operation in rule.operations), request.operation.label)
    if rule.services is not None and service not in rule.services:
        yield Mismatch("service", _list(rule.services), service)
    if rule.sop_classes is not None and rule.sop_classes.isdisjoint({uid, request.context_sop_class_uid}):
        yield Mismatch("sop_class", _list(uid_keyword(wanted) for wanted in rule.sop_classes), uid_keyword(uid))
    if rule.archives is not None and request.archive not in rule.archives:
        yield Mismatch("archive", _list(rule.archives), request.archive)
    if rule.names_destinations and not _goes_where(rule, request):
        titles = set(rule.move_destinations or ()) | ({"self"} if rule.move_to_self else set())
        yield Mismatch("move_destination", _list(titles), request.move_destination or "none")


def _goes_where(rule: Rule, request: OperationRequest) -> bool:
    if request.operation is not Operation.C_MOVE:
        return False
    title = request.move_destination
    own = request.own_ae_titles | {request.principal.calling_ae_title}
    return title in (rule.move_destinations or ()) or (rule.move_to_self and title in own)


def _identifier(rule: Rule, request: OperationRequest) -> Iterator[Mismatch]:
    if not rule.names_identifier:
        return
    if request.operation not in IDENTIFIER_OPERATIONS:
        yield Mismatch("operation", "a C-FIND, C-GET or C-MOVE", request.operation.label)
        return
    yield from _level_mismatches(rule, request)
    if not isinstance(request, IdentifierRequest):
        return
    required = _missing(rule.required_keys, rule.required_any_key, request.keys)
    if required:
        yield Mismatch("required_keys", required, _list(key_name(tag) for tag in request.keys))
    if (rule.unless_keys is not None or rule.unless_any_key is not None) and not _missing(
        rule.unless_keys, rule.unless_any_key, request.keys
    ):
        yield Mismatch("unless_keys", "a query without its keys", _list(key_name(tag) for tag in request.keys))


def _level_mismatches(rule: Rule, request: OperationRequest) -> Iterator[Mismatch]:
    if rule.query_levels is None:
        return
    if isinstance(request, IdentifierRequest):
        levels = {level_of(request.sop_class_uid, request.query_level)}
    else:
        levels = set(possible_levels(request.sop_class_uid))
    accepted = set(rule.query_levels)
    if rule.effect is Effect.DENY and accepted & set(QUERY_LEVELS):
        accepted.add(UNCLEAR)
    if levels.isdisjoint(accepted):
        shown = {NO_LEVEL: "no level", UNCLEAR: "no known level"}
        yield Mismatch("query_level", _list(rule.query_levels), _list(shown.get(level, level) for level in levels))


def _missing(all_of: frozenset[int] | None, any_of: frozenset[int] | None, keys: frozenset[int]) -> str:
    """Return in words which keys are missing, "" if none is."""
    wanted = []
    if all_of and not all_of <= keys:
        wanted.append(f"all of {_list(key_name(tag) for tag in all_of)}")
    if any_of and any_of.isdisjoint(keys):
        wanted.append(f"one of {_list(key_name(tag) for tag in any_of)}")
    return " and ".join(wanted)


def _list(values: Iterator[str] | frozenset[str] | set[str] | frozenset[Operation]) -> str:
    return ", ".join(sorted(str(value) for value in values)) or "none"


def _window(window: TimeWindow) -> str:
    days = ", ".join(_DAYS[day] for day in sorted(window.days))
    start, end = divmod(window.start_minute, 60), divmod(window.end_minute, 60)
    return f"{days} {start[0]:02}:{start[1]:02} to {end[0]:02}:{end[1]:02}"


def _find_near_rules(policy: Policy, request: OperationRequest) -> tuple[NearRule, ...]:
    near = [
        NearRule(rule.id, mismatches)
        for rule in policy.rules
        if rule.effect is Effect.ALLOW and (mismatches := find_mismatches(rule, request))
    ]
    near.sort(key=lambda rule: len(rule.mismatches))
    return tuple(rule for rule in near[:_NEAREST_RULES] if len(rule.mismatches) <= len(near[0].mismatches) + 1)


def _identifier_conditions(policy: Policy, decision: Decision) -> Iterator[str]:
    if Obligation.INSPECT_IDENTIFIER not in decision.obligations:
        return
    for rule in policy.rules:
        if rule.id not in decision.rule_ids:
            continue
        verb = "allows it" if rule.effect is Effect.ALLOW else "denies it"
        conditions = []
        if rule.query_levels is not None:
            conditions.append(f"the level is {_list(rule.query_levels)}")
        required = _missing(rule.required_keys, rule.required_any_key, frozenset())
        if required:
            conditions.append(f"the query has {required}")
        unless = _missing(rule.unless_keys, rule.unless_any_key, frozenset())
        if unless:
            conditions.append(f"the query lacks {unless}")
        yield f"rule {rule.id} {verb}" + (f" if {' and '.join(conditions)}" if conditions else " in any case")


def _plan_changes(policy: Policy, request: OperationRequest, decision: Decision) -> Iterator[str]:
    match decision.reason:
        case ReasonCode.ALLOWED:
            return
        case ReasonCode.RULE_ERROR:
            yield from _plan_repairs(policy, decision)
        case ReasonCode.CLINICAL_FLOOR_ONLY:
            yield (
                f"only the clinical floor is left to {request.principal.device} ({request.principal.floor_only}): "
                "remove the cause; no rule can allow this"
            )
        case ReasonCode.NOT_CONFIRMED:
            yield (
                f"only C-ECHO is left to {request.principal.device} until a second person has confirmed it: "
                f"dicomward device confirm {request.principal.device}; no rule can allow this"
            )
        case ReasonCode.OPERATION_NOT_OF_SOP_CLASS | ReasonCode.SOP_CLASS_MISMATCH:
            yield f"no rule can allow this: {decision.detail}; check the SOP class and the operation"
        case _:
            for rule_id in decision.rule_ids:
                yield f"rule {rule_id} denies this and overrides every allow: narrow it, or take it out"
            if not decision.rule_ids or not any(_may_allow(rule, request) for rule in policy.rules):
                yield from _plan_grants(policy, request)


def _may_allow(rule: Rule, request: OperationRequest) -> bool:
    return rule.effect is Effect.ALLOW and not find_mismatches(rule, request)


def _plan_repairs(policy: Policy, decision: Decision) -> Iterator[str]:
    for rule in policy.rules:
        for fault in find_faults(rule):
            yield f"correct rule {rule.id}: {fault.message} ({fault.hint})"
    yield f"nothing is allowed until this is corrected: {decision.detail}"


def _plan_grants(policy: Policy, request: OperationRequest) -> Iterator[str]:
    for rule_id, mismatches in _find_near_rules(policy, request):
        yield f"rule {rule_id} would allow it, but {'; '.join(str(mismatch) for mismatch in mismatches)}"
    service = service_of(request.sop_class_uid)
    yield (
        f'or write an allow rule that fits, for example for role "{request.principal.role}", '
        f'operation "{request.operation.label}", service "{service}"'
    )
