"""Compare two policies: every request that becomes allowed or denied, in classes, each with a concrete request.

Nothing is sampled: diff_walk.py goes through all requests that any rule tells apart. Each class that it finds is put to
`evaluate` as well, and the tests look for requests that escape it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from dicomward.policy.decision import Decision
from dicomward.policy.diff_walk import Leaf, Walk, merge_boxes
from dicomward.policy.evaluate import evaluate
from dicomward.policy.model import Policy
from dicomward.policy.request import OperationRequest
from dicomward.policy.request_space import Box, RequestSpace, body_of, build_space
from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import Service, service_of


class ChangeKind(StrEnum):
    """What changes for a class of requests; "shows" is about matches of queries, from which rules strip attributes."""

    BECOMES_ALLOWED = "becomes-allowed"
    SHOWS_MORE = "shows-more"
    BECOMES_DENIED = "becomes-denied"
    SHOWS_LESS = "shows-less"
    REASON_ONLY = "reason-only"

    @property
    def widens(self) -> bool:
        """Say if somebody may do or see more than before."""
        return self in (ChangeKind.BECOMES_ALLOWED, ChangeKind.SHOWS_MORE)


class RuleChange(NamedTuple):
    """A rule that was "added", "removed", "changed" or "renamed"; one of the ids is "" where it was not there."""

    action: str
    old_id: str
    new_id: str

    def __str__(self) -> str:
        if self.action == "renamed":
            return f"{self.old_id} renamed to {self.new_id}"
        return f"{self.new_id or self.old_id} {self.action}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A class of requests whose answer changes, and in `request` one of them, with both answers.

    `because_of` are the rules that make the difference, `old_strip` and `new_strip` what is taken out of matches.
    """

    kind: ChangeKind
    because_of: tuple[RuleChange, ...]
    old_strip: frozenset[int]
    new_strip: frozenset[int]
    request: OperationRequest
    old: Decision
    new: Decision
    box: Box
    space: RequestSpace

    def contains(self, request: OperationRequest) -> bool:
        """Say if the request, or some identifier of it where none is known, is of this class."""
        return self.space.contains(self.box, request)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDiff:
    """What the way from one policy to another means. `reasons_complete` is False if there were too many to list all."""

    rules: tuple[RuleChange, ...]
    changes: tuple[Change, ...]
    reasons_complete: bool = True

    def of_kind(self, kind: ChangeKind) -> tuple[Change, ...]:
        """Return the changes of one kind."""
        return tuple(change for change in self.changes if change.kind is kind)

    @property
    def widens(self) -> bool:
        """Say if somebody may do or see more than before."""
        return any(change.kind.widens for change in self.changes)


class DiffError(Exception):
    """The comparison contradicts the evaluator: a defect of this program, so nothing is said about the policies."""


def diff_policies(old: Policy, new: Policy) -> PolicyDiff:
    """Compare two policies completely. Raises DiffError."""
    comparison = _Comparison(old, new)
    reasons = Walk(comparison.space, reasons=True)
    changes = [*comparison.judge(Walk(comparison.space)), *comparison.judge(reasons)]
    order = tuple(ChangeKind)
    changes.sort(key=lambda change: (order.index(change.kind), change.because_of, change.box))
    return PolicyDiff(rules=comparison.rules, changes=tuple(changes), reasons_complete=not reasons.cut_short)


def widens(old: Policy, new: Policy) -> bool:
    """Say if `new` allows any request that `old` does not, or shows more in a match. Raises DiffError."""
    comparison = _Comparison(old, new)
    return any(change.kind.widens for change in comparison.judge(Walk(comparison.space)))


class _Comparison:
    """Two policies, and what their rules have in common."""

    def __init__(self, old: Policy, new: Policy) -> None:
        self.old, self.new = old, new
        self.space = build_space(old, new)
        self.rules = tuple(_compare_rules(old, new))
        self._changes_of = self._find_changes()

    def judge(self, walk: Walk) -> Iterator[Change]:
        """Yield the changes that a walk finds, in boxes as large as they go."""
        classes: dict[tuple[ChangeKind, int, str, tuple[frozenset[int], frozenset[int]]], list[Box]] = {}
        for leaf, boxes in self._cases(walk):
            request = self.space.example_of(boxes[0])
            old, new = evaluate(self.old, request), evaluate(self.new, request)
            if (old.allowed, new.allowed) != (leaf.old.allowed, leaf.new.allowed):
                raise DiffError(f"the comparison and the evaluator disagree on {request}")
            strips = strip_of(self.old, request, old), strip_of(self.new, request, new)
            kind = _kind_of(leaf, old, new, *strips)
            if kind is not None and (kind is ChangeKind.REASON_ONLY) == walk.reasons:
                reasons = f"{old.reason} {new.reason}" if walk.reasons else ""
                classes.setdefault((kind, leaf.causes, reasons, strips), []).extend(boxes)
        for (kind, causes, _, (old_strip, new_strip)), boxes in classes.items():
            for box in merge_boxes(boxes):
                request = self.space.example_of(box)
                yield Change(
                    kind=kind,
                    because_of=self._rules_of(causes),
                    old_strip=old_strip,
                    new_strip=new_strip,
                    request=request,
                    old=evaluate(self.old, request),
                    new=evaluate(self.new, request),
                    box=box,
                    space=self.space,
                )

    def _cases(self, walk: Walk) -> Iterator[tuple[Leaf, list[Box]]]:
        """Yield the leaves of a walk; matches are stripped of queries only, so these are apart where both allow."""
        what = next(place for place, facet in enumerate(self.space.facets) if facet.name == "what")
        queries = sum(1 << place for place, atom in enumerate(self.space.facets[what].atoms) if _is_stripped(*atom[:2]))
        for leaf, boxes in walk.find_leaves().items():
            if not (leaf.old.allowed and leaf.new.allowed):
                yield leaf, boxes
                continue
            for atoms in (queries, ~queries):
                part = [box.within(what, atoms) for box in boxes if box.atoms[what] & atoms]
                if part:
                    yield leaf, part

    def _rules_of(self, causes: int) -> tuple[RuleChange, ...]:
        found = {change for place, changes in self._changes_of.items() if causes >> place & 1 for change in changes}
        return tuple(change for change in self.rules if change in found)

    def _find_changes(self) -> dict[int, list[RuleChange]]:
        """Return the changes that each row of the table is part of."""
        places = {body: place for place, body in enumerate(self.space.bodies)}
        found: dict[int, list[RuleChange]] = {}
        for policy, field in ((self.old, "old_id"), (self.new, "new_id")):
            by_id = {getattr(change, field): change for change in self.rules}
            for rule in policy.rules:
                if rule.id in by_id and body_of(rule) in places:
                    found.setdefault(places[body_of(rule)], []).append(by_id[rule.id])
        return found


def strip_of(policy: Policy, request: OperationRequest, decision: Decision) -> frozenset[int]:
    """Return what is taken out of the matches: of queries only, and never of the worklist."""
    if decision.allowed and _is_stripped(request.operation, request.sop_class_uid):
        return policy.stripped_by(decision.rule_ids)
    return frozenset()


def _is_stripped(operation: Operation, sop_class_uid: str) -> bool:
    return operation is Operation.C_FIND and service_of(sop_class_uid) is not Service.WORKLIST


def _kind_of(
    leaf: Leaf, old: Decision, new: Decision, old_strip: frozenset[int], new_strip: frozenset[int]
) -> ChangeKind | None:
    if old.allowed != new.allowed:
        return ChangeKind.BECOMES_ALLOWED if new.allowed else ChangeKind.BECOMES_DENIED
    if old_strip != new_strip:
        return ChangeKind.SHOWS_MORE if old_strip - new_strip else ChangeKind.SHOWS_LESS
    # A rule that has only got another name, or stands there twice, is no change; nor is another text of the same rule.
    if old.reason != new.reason or (leaf.old != leaf.new and set(old.rule_ids) != set(new.rule_ids)):
        return ChangeKind.REASON_ONLY
    return None


def _compare_rules(old: Policy, new: Policy) -> Iterator[RuleChange]:
    before, after = ({rule.id: body_of(rule) for rule in policy.rules} for policy in (old, new))
    gone = {rule_id: body for rule_id, body in before.items() if rule_id not in after}
    for rule_id, body in after.items():
        if rule_id in before:
            if before[rule_id] != body:
                yield RuleChange("changed", rule_id, rule_id)
            continue
        same = next((old_id for old_id, old_body in gone.items() if old_body == body), None)
        if same is None:
            yield RuleChange("added", "", rule_id)
        else:
            del gone[same]
            yield RuleChange("renamed", same, rule_id)
    for rule_id in gone:
        yield RuleChange("removed", rule_id, "")
