"""An independent oracle: policies in Cedar's language, decided by Cedar's engine.

What is shared with the evaluator is the vocabulary only: the service of a SOP class, and the operations it has.
"""

import json
from collections.abc import Sequence

import cedarpy

from dicomward.policy.decision import Effect
from dicomward.policy.model import Policy
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.policy.rule import Rule
from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import SERVICE_OF_SOP_CLASS, Service, service_of

_ENTITIES = cedarpy.Entities.from_json_str("[]")
_LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE", "FRAME")


class CedarOracle:
    """One policy, parsed once."""

    def __init__(self, policy: Policy) -> None:
        self._policies = cedarpy.PolicySet.from_str("".join(_to_cedar(rule) for rule in policy.rules))

    def decide(self, requests: Sequence[OperationRequest]) -> list[tuple[bool, frozenset[str]]]:
        """Return for each request if Cedar allows it, and the ids of the determining policies."""
        asked = [
            {"principal": 'P::"p"', "action": 'A::"a"', "resource": 'R::"r"', "context": _context(request)}
            for request in requests
        ]
        results = cedarpy.is_authorized_batch(asked, self._policies, _ENTITIES)
        assert not any(result.diagnostics.errors for result in results)
        return [(result.allowed, frozenset(result.diagnostics.id_annotations_by_reason.values())) for result in results]


def _to_cedar(rule: Rule) -> str:
    conditions = [
        _in("device", rule.devices),
        _in("role", rule.roles),
        _in("site", rule.sites),
        _in("archive", rule.archives),
        _in("operation", None if rule.operations is None else {operation.label for operation in rule.operations}),
        _in("service", rule.services),
    ]
    if rule.sop_classes is not None:
        conditions.append(f"({_in('uid', rule.sop_classes)} || {_in('context_uid', rule.sop_classes)})")
    if rule.assurance is not None:
        conditions.append(f"context.assurance >= {int(rule.assurance)}")
    if rule.assurance_below is not None:
        conditions.append(f"context.assurance < {int(rule.assurance_below)}")
    if rule.move_destinations is not None or rule.move_to_self:
        titles = _in("destination", rule.move_destinations or set())
        conditions.append(f"({titles}{' || context.to_self' if rule.move_to_self else ''})")
    if rule.query_levels is not None:
        unclear = rule.effect is Effect.DENY and not rule.query_levels.isdisjoint(_LEVELS)
        conditions.append(_in("level", rule.query_levels | {"unclear"} if unclear else rule.query_levels))
    conditions += _keys(rule)
    if rule.query_levels is not None or rule.names_keys:
        conditions.append("context.has_identifier")
    if rule.times is not None:
        conditions.append("(" + " || ".join(_window(day, w.start_minute, w.end_minute)
                                            for w in rule.times for day in w.days) + ")")  # fmt: skip
    effect = "permit" if rule.effect is Effect.ALLOW else "forbid"
    when = " && ".join(condition for condition in conditions if condition) or "true"
    return f"@id({json.dumps(rule.id)}) {effect} (principal, action, resource) when {{ {when} }};\n"


def _in(name: str, values: set[str] | frozenset[str] | frozenset[Service] | None) -> str:
    return "" if values is None else f"{json.dumps(sorted(values))}.contains(context.{name})"


def _keys(rule: Rule) -> list[str]:
    def has_all(keys: frozenset[int] | None) -> str:
        return "true" if keys is None else f"context.keys.containsAll({sorted(keys)})"

    def has_any(keys: frozenset[int] | None) -> str:
        return "true" if keys is None else f"context.keys.containsAny({sorted(keys)})"

    if rule.effect is Effect.ALLOW:
        return [has_all(rule.required_keys), has_any(rule.required_any_key)]
    if rule.unless_keys is None and rule.unless_any_key is None:
        return []
    return [f"!({has_all(rule.unless_keys)} && {has_any(rule.unless_any_key)})"]


def _window(day: int, start: int, end: int) -> str:
    if start < end:
        return f"(context.day == {day} && context.minute >= {start} && context.minute < {end})"
    evening = f"(context.day == {day} && context.minute >= {start})"
    return f"({evening} || (context.day == {(day + 1) % 7} && context.minute < {end}))"


def _context(request: OperationRequest) -> dict[str, object]:
    principal, uid = request.principal, request.sop_class_uid
    moves = request.operation is Operation.C_MOVE
    known = isinstance(request, IdentifierRequest)
    return {
        "device": principal.device,
        "role": principal.role,
        "site": principal.site,
        "assurance": int(principal.assurance),
        "archive": request.archive,
        "operation": request.operation.label,
        "uid": uid,
        "context_uid": request.context_sop_class_uid or uid,
        "service": str(service_of(uid)),
        "destination": request.move_destination if moves else "",
        "to_self": moves and request.move_destination in {principal.calling_ae_title, *request.own_ae_titles},
        "has_identifier": known,
        "level": _level(uid, request.query_level) if isinstance(request, IdentifierRequest) else "none",
        "keys": sorted(request.keys) if isinstance(request, IdentifierRequest) else [],
        "day": request.at.weekday(),
        "minute": request.at.hour * 60 + request.at.minute,
    }


def _level(uid: str, typed: str | None) -> str:
    if service_of(uid) in (Service.WORKLIST, Service.UPS):
        return "WORKLIST"
    if uid in SERVICE_OF_SOP_CLASS and not uid.startswith("1.2.840.10008.5.1.4.1.2."):
        return "none"
    level = typed.strip().upper() if typed else ""
    return level if level in _LEVELS else "unclear"
