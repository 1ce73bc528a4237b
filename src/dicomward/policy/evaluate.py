"""Decide: default deny, deny overrides allow, every determining rule named, any error denies.

`evaluate` answers for one operation: first with what its command set says, and again with what its identifier says if
the first answer obliges to look at it. `evaluate_association` answers for presentation contexts: one is permitted if
and only if some operation in it could be allowed.
"""

from typing import NamedTuple

from dicomward.policy.association import decide_association
from dicomward.policy.decision import AssociationDecision, Decision, Effect, Obligation
from dicomward.policy.families import command_sop_classes
from dicomward.policy.index import Index
from dicomward.policy.levels import IDENTIFIER_OPERATIONS, level_of, possible_levels
from dicomward.policy.model import Policy
from dicomward.policy.request import AssociationRequest, IdentifierRequest, OperationRequest
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import is_left, operations_of, service_of, why_not_left

_INSPECT = frozenset({Obligation.INSPECT_IDENTIFIER})


def evaluate(policy: Policy, request: OperationRequest | IdentifierRequest) -> Decision:
    """Decide on one operation; never raises.

    With an OperationRequest the answer is exact: allowed if some identifier could be allowed, with the obligation
    INSPECT_IDENTIFIER if another one could be denied. With an IdentifierRequest it is final.
    """
    try:
        return _decide(policy.index, request)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong, the answer is deny and says so (trap 6)
        return _rule_error((), f"{type(error).__name__}: {error}")


def evaluate_association(policy: Policy, request: AssociationRequest) -> AssociationDecision:
    """Decide on an association and on each of its presentation contexts; never raises.

    The answer holds for the time in the request: a rule whose window opens later doesn't count.
    """
    index = policy.index
    try:
        if not index.broken:
            return decide_association(index, request)
        error = _broken(index)
    except Exception as problem:  # noqa: BLE001 - as above
        error = _rule_error((), f"{type(problem).__name__}: {problem}")
    return AssociationDecision(decision=error, permitted={context_id: error for context_id, _ in request.contexts})


def _rule_error(rule_ids: tuple[str, ...], detail: str) -> Decision:
    return Decision(effect=Effect.DENY, reason=ReasonCode.RULE_ERROR, rule_ids=rule_ids, detail=detail)


def _broken(index: Index) -> Decision:
    return _rule_error(index.ids_of(index.broken), "a rule is at fault, so nothing is allowed")


class _Parts(NamedTuple):
    """The rules that accept each part of the request."""

    fixed: int
    assurance: int
    time: int
    destination: int


def _decide(index: Index, request: OperationRequest) -> Decision:
    if index.broken:
        return _broken(index)
    early = _refuse_outside(request)
    if early is not None:
        return early
    parts = _match(index, request)
    matching = parts.fixed & parts.assurance & parts.time & parts.destination
    if request.operation not in IDENTIFIER_OPERATIONS:
        # Rules about identifiers never match here: `find_faults` holds them to the operations that have one.
        return _conclude(index, matching & index.allows, matching & index.denies) or _no_rule(index, request, parts)
    if isinstance(request, IdentifierRequest):
        matching &= index.level.accepting(level_of(request.sop_class_uid, request.query_level))
        failing = index.failing_keys(request.keys)
        allows = matching & index.allows & ~failing
        denies = matching & index.denies & (failing | ~index.with_keys)
        return _conclude(index, allows, denies) or _no_rule(index, request, parts)
    return _foresee(index, request.sop_class_uid, matching) or _no_rule(index, request, parts)


def _refuse_outside(request: OperationRequest) -> Decision | None:
    """Deny what no rule can allow."""
    operation, uid = request.operation, request.sop_class_uid
    if not is_left(request.principal.floor_only, operation, uid):
        return Decision(
            effect=Effect.DENY,
            reason=why_not_left(request.principal.floor_only),
            detail=f"because of {request.principal.floor_only}",
        )
    if operation not in operations_of(uid):
        return Decision(
            effect=Effect.DENY,
            reason=ReasonCode.OPERATION_NOT_OF_SOP_CLASS,
            detail=f"PS3.4 gives {uid} no {operation.label}",
        )
    context = request.context_sop_class_uid
    if context and context != uid and uid not in command_sop_classes(context):
        return Decision(
            effect=Effect.DENY,
            reason=ReasonCode.SOP_CLASS_MISMATCH,
            detail=f"a command in a context of {context} can't be about {uid}",
        )
    return None


def _match(index: Index, request: OperationRequest) -> _Parts:
    """Look up each dimension once. Raises ValueError for a C-MOVE without destination or a naive time."""
    principal, uid, context = request.principal, request.sop_class_uid, request.context_sop_class_uid
    by_class = index.sop_class.accepting(uid)
    if context and context != uid:
        by_class |= index.sop_class.accepting(context)
    return _Parts(
        by_class
        & index.of_principal(principal)
        & index.operation.accepting(request.operation)
        & index.service.accepting(service_of(uid))
        & index.archive.accepting(request.archive),
        index.assurance[principal.assurance],
        index.at(request.at),
        _to_destination(index, request) if request.operation is Operation.C_MOVE else -1,
    )


def _to_destination(index: Index, request: OperationRequest) -> int:
    title = request.move_destination
    if title is None:
        raise ValueError("a C-MOVE has a destination")
    accepting = index.destination.accepting(title)
    if title == request.principal.calling_ae_title or title in request.own_ae_titles:
        accepting |= index.to_self
    return accepting


def _conclude(index: Index, allows: int, denies: int) -> Decision | None:
    """Deny overrides allow; None where nothing matches."""
    if denies:
        return Decision(effect=Effect.DENY, reason=ReasonCode.DENIED_BY_RULE, rule_ids=index.ids_of(denies))
    if allows:
        return Decision(effect=Effect.ALLOW, reason=ReasonCode.ALLOWED, rule_ids=index.ids_of(allows))
    return None


def _foresee(index: Index, uid: str, matching: int) -> Decision | None:
    """Decide on a query or retrieval before its identifier is known; None where no rule allows it."""
    if not matching & (index.with_keys | index.with_level):
        return _conclude(index, matching & index.allows, matching & index.denies)
    levels = possible_levels(uid)
    at_level = [matching & index.level.accepting(level) for level in levels]
    matching = 0
    for rules in at_level:
        matching |= rules
    undecided = matching & (index.with_keys if len(levels) == 1 else index.with_keys | index.with_level)
    if not undecided:
        return _conclude(index, matching & index.allows, matching & index.denies)
    # More keys never make an identifier worse, so the best one has them all: only levels are left to try.
    firm_denies = index.denies & ~index.with_keys
    if any(rules & index.allows and not rules & firm_denies for rules in at_level):
        settled, doubts = matching & ~undecided & index.allows, undecided & index.denies
        if settled and not doubts:
            return _conclude(index, settled, 0)
        return Decision(
            effect=Effect.ALLOW,
            reason=ReasonCode.ALLOWED,
            rule_ids=index.ids_of(matching & index.allows | doubts),
            obligations=_INSPECT,
            detail="depends on the identifier",
        )
    denies = matching & ~undecided & index.denies
    for rules in at_level:
        if rules & index.allows:
            denies |= rules & firm_denies
    return _conclude(index, 0, denies)


def _no_rule(index: Index, request: OperationRequest, parts: _Parts) -> Decision:
    """Say which single condition kept the nearest allow rules from matching, if it is only one."""
    fixed, assurance, time, destination = parts
    allows = fixed & index.allows
    near: tuple[tuple[ReasonCode, int], ...] = (
        (ReasonCode.MOVE_DESTINATION_NOT_ALLOWED, assurance & time & ~destination),
        (ReasonCode.ASSURANCE_TOO_LOW, ~assurance & time & destination),
        (ReasonCode.OUTSIDE_PERMITTED_TIMES, assurance & ~time & destination),
    )
    if isinstance(request, IdentifierRequest):
        at_level = index.level.accepting(level_of(request.sop_class_uid, request.query_level))
        in_place = assurance & time & destination
        near = (
            (ReasonCode.REQUIRED_KEYS_MISSING, in_place & at_level),
            (ReasonCode.QUERY_LEVEL_NOT_ALLOWED, in_place & ~at_level),
            *near,
        )
    for reason, rules in near:
        if allows & rules:
            ids = ", ".join(index.ids_of(allows & rules))
            return Decision(effect=Effect.DENY, reason=reason, detail=f"without this condition {ids} would match")
    return Decision(effect=Effect.DENY, reason=ReasonCode.NO_MATCHING_RULE)
