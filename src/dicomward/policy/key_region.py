"""Sets of sets of query keys, without listing them: `lacks` some keys, and has at least one key of each of `clauses`.

Two conditions of rules cut such a region in two, and the pieces are regions again. A region is empty only if a clause
has no key left that it may have: so 40 keys are no harder than 4, although they have 2^40 sets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class KeyRegion:
    """All sets of keys that hold no key of `lacks` and meet every clause; keys are bits."""

    lacks: int = 0
    clauses: tuple[int, ...] = ()

    def contains(self, keys: int) -> bool:
        """Say if the set of keys is one of the region."""
        return not keys & self.lacks and all(keys & clause for clause in self.clauses)

    def smallest(self) -> int:
        """Return a small set of keys of the region."""
        keys = 0
        for clause in sorted(self.clauses, key=int.bit_count):
            if not keys & clause:
                keys |= clause & -clause
        return keys

    def having(self, clause: int) -> "KeyRegion | None":
        """Return what has at least one of these keys as well; None if nothing has."""
        clause &= ~self.lacks
        if not clause:
            return None
        if any(known & ~clause == 0 for known in self.clauses):
            return self
        kept = [known for known in self.clauses if clause & ~known]
        return KeyRegion(self.lacks, tuple(sorted((*kept, clause))))

    def lacking(self, keys: int) -> "KeyRegion | None":
        """Return what has none of these keys as well; None if nothing has."""
        region: KeyRegion | None = KeyRegion(self.lacks | keys)
        for clause in self.clauses:
            if region is not None:
                region = region.having(clause)
        return region


def split(region: KeyRegion, all_of: int, any_of: int) -> tuple[list[KeyRegion], list[KeyRegion]]:
    """Cut the region: what has all keys of `all_of` and one of `any_of` (0: no condition), and the rest; disjoint."""
    rest: list[KeyRegion] = []
    inside: KeyRegion | None = region
    for key in _bits(all_of):
        if inside is not None:
            rest += _some(inside.lacking(key))
            inside = inside.having(key)
    if any_of and inside is not None:
        rest += _some(inside.lacking(any_of))
        inside = inside.having(any_of)
    return _some(inside), rest


def covers_everything(regions: Iterable[KeyRegion]) -> bool:
    """Say if every set of keys lies in one of the regions."""
    left = [KeyRegion()]
    for region in regions:
        left = [piece for rest in left for piece in _without(rest, region)]
    return not left


def _without(region: KeyRegion, other: KeyRegion) -> Iterator[KeyRegion]:
    """Yield what the region has and the other one hasn't, in disjoint pieces."""
    inside: KeyRegion | None = region
    if other.lacks:
        yield from _some(region.having(other.lacks))
        inside = region.lacking(other.lacks)
    for clause in other.clauses:
        if inside is not None:
            yield from _some(inside.lacking(clause))
            inside = inside.having(clause)


def _some(region: KeyRegion | None) -> list[KeyRegion]:
    return [] if region is None else [region]


def _bits(mask: int) -> Iterator[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit
