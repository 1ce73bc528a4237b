"""Go through every request that the rules of two policies tell apart.

Facet by facet (facets.py) the walk keeps the set of rules that still match, and treats all atoms that leave the same
set as one: a decision diagram, whose equal branches are walked once. Where no rule is left that only one policy has, or
no allow rule at all, both policies decide alike, and the walk turns back.

Reasons depend on more: which rules match but for one condition (evaluate._no_rule). For them the walk keeps such rules,
and what each of these conditions leaves, apart.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from dicomward.policy.decision import Effect
from dicomward.policy.facets import Facet
from dicomward.policy.key_region import KeyRegion, covers_everything, split
from dicomward.policy.request_space import Box, RequestSpace

# Beyond so many cases the comparison of reasons stops, and says so. Decisions are always compared to the end.
MOST_REASON_CASES: Final = 20_000
# The conditions but for which a rule is near.
_NEAR_FACETS: Final = frozenset({"what", "move_destination", "assurance", "time"})


class Outcome(NamedTuple):
    """What one policy decides, and the rules that determine it."""

    allowed: bool
    rules: int


class Leaf(NamedTuple):
    """Requests that no rule tells apart.

    `causes` are the rules of one policy only that count here; `near` is what else the reasons depend on.
    """

    old: Outcome
    new: Outcome
    causes: int
    near: tuple[int, ...]


# For each kind of leaf its boxes, still without the facets in front of the present one.
_Tails = dict[Leaf, list[tuple[tuple[int, ...], tuple[KeyRegion, ...]]]]


class _State(NamedTuple):
    """The rules that match so far, but for near conditions, and what each near condition leaves of them."""

    rules: int
    near: tuple[int, ...]


class Walk:
    """One walk; with `reasons` it finds the leaves whose reasons may differ as well."""

    def __init__(self, space: RequestSpace, *, reasons: bool = False) -> None:
        self.reasons = reasons
        self.cut_short = False
        self._space = space
        self._groups = tuple(_group(facet, near=reasons and facet.name in _NEAR_FACETS) for facet in space.facets)
        self._is_near = tuple(reasons and facet.name in _NEAR_FACETS for facet in space.facets)
        self._known: dict[tuple[int, _State], _Tails] = {}
        self._cases = 0

    def find_leaves(self) -> dict[Leaf, list[Box]]:
        """Return every leaf where the policies may differ, with the boxes of its requests."""
        everything = _State((1 << len(self._space.rules)) - 1, ())
        return {leaf: [Box(*tail) for tail in tails] for leaf, tails in self._visit(0, everything).items()}

    def _visit(self, depth: int, state: _State) -> _Tails:
        if self._decide_alike(state.rules):
            return {}
        if depth == len(self._groups):
            return self._divide_by_keys(state)
        known = self._known.get((depth, state))
        if known is None:
            known = self._known[depth, state] = self._descend(depth, state)
        return known

    def _descend(self, depth: int, state: _State) -> _Tails:
        children: dict[_State, int] = {}
        for (hard, near), atoms in self._groups[depth].items():
            child = _narrow(state, hard, near if self._is_near[depth] else None)
            children[child] = children.get(child, 0) | atoms
        found: dict[Leaf, dict[tuple[tuple[int, ...], tuple[KeyRegion, ...]], int]] = {}
        for child, atoms in children.items():
            for leaf, tails in self._visit(depth + 1, child).items():
                fronts = found.setdefault(leaf, {})
                for tail in tails:
                    fronts[tail] = fronts.get(tail, 0) | atoms
        return {
            leaf: [((atoms, *rest), keys) for (rest, keys), atoms in fronts.items()] for leaf, fronts in found.items()
        }

    def _divide_by_keys(self, state: _State) -> _Tails:
        """Cut the sets of query keys by the conditions of the rules that are left."""
        cells = [(KeyRegion(), -1)]
        for place in _places(state.rules & self._space.index.with_keys):
            cells = [piece for cell in cells for piece in self._cut(cell, place)]
        found: dict[Leaf, list[KeyRegion]] = {}
        for region, holding in cells:
            leaf = self._leaf(state, state.rules & holding)
            if leaf is not None:
                found.setdefault(leaf, []).append(region)
        return {leaf: [((), tuple(regions))] for leaf, regions in found.items()}

    def _cut(self, cell: tuple[KeyRegion, int], place: int) -> Iterable[tuple[KeyRegion, int]]:
        region, holding = cell
        having, lacking = split(region, *self._space.key_condition(place))
        failing = holding & ~(1 << place)
        if self._space.rules[place].effect is Effect.ALLOW:
            return [*((piece, holding) for piece in having), *((piece, failing) for piece in lacking)]
        return [*((piece, failing) for piece in having), *((piece, holding) for piece in lacking)]

    def _leaf(self, state: _State, at_keys: int) -> Leaf | None:
        matching = at_keys
        for left in state.near:
            matching &= left
        old, new = self._outcome(matching & self._space.old), self._outcome(matching & self._space.new)
        differing = self._space.differing
        if not self.reasons:
            return None if old == new else Leaf(old, new, (old.rules | new.rules) & differing, ())
        if old.allowed != new.allowed or self.cut_short:
            return None
        self._cases += 1
        self.cut_short = self._cases > MOST_REASON_CASES
        return Leaf(old, new, state.rules & differing, (state.rules, *state.near, at_keys))

    def _outcome(self, matching: int) -> Outcome:
        denies = matching & self._space.index.denies
        if denies:
            return Outcome(False, denies)
        return Outcome(bool(matching), matching)

    def _decide_alike(self, rules: int) -> bool:
        if not rules & self._space.differing:
            return True
        return not self.reasons and not rules & self._space.index.allows


def _narrow(state: _State, hard: int, near: int | None) -> _State:
    rules = state.rules & hard
    nears = state.near if near is None else (*state.near, near)
    return _State(rules, tuple(left & rules for left in nears))


def _group(facet: Facet[object], *, near: bool) -> dict[tuple[int, int], int]:
    """Return the atoms of a facet by the rules that accept them: without condition, and in `near` with it."""
    groups: dict[tuple[int, int], int] = {}
    for place, accepting in enumerate(facet.accepting):
        hard = accepting
        if near:
            hard = facet.near[place] if facet.near else -1
        key = (hard, accepting)
        groups[key] = groups.get(key, 0) | 1 << place
    return groups


def _places(rules: int) -> Iterable[int]:
    return (place for place in range(rules.bit_length()) if rules >> place & 1)


def merge_boxes(boxes: Iterable[Box]) -> list[Box]:
    """Join boxes that differ in one facet only, until none do."""
    merged = list(dict.fromkeys(boxes))
    while True:
        before = len(merged)
        for place in range(len(merged[0].atoms) + 1):
            merged = _merge_along(merged, place)
        if len(merged) == before:
            return merged


def _merge_along(boxes: list[Box], place: int) -> list[Box]:
    joined: dict[tuple[object, ...], Box] = {}
    for box in boxes:
        atoms, keys = box
        by_keys = place == len(atoms)
        rest: tuple[object, ...] = atoms if by_keys else (*atoms[:place], *atoms[place + 1 :], keys)
        other = joined.get(rest)
        if other is None:
            joined[rest] = box
        elif by_keys:
            joined[rest] = Box(atoms, _join_keys(other.keys, keys))
        else:
            both = atoms[place] | other.atoms[place]
            joined[rest] = Box((*atoms[:place], both, *atoms[place + 1 :]), keys)
    return list(joined.values())


def _join_keys(some: tuple[KeyRegion, ...], more: tuple[KeyRegion, ...]) -> tuple[KeyRegion, ...]:
    joined = tuple(sorted({*some, *more}))
    return (KeyRegion(),) if covers_everything(joined) else joined
