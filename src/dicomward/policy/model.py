"""A policy: an immutable snapshot of rules, compiled when it is made."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dicomward.policy.index import Index, build_index
from dicomward.policy.rule import Rule, TimeWindow
from dicomward.policy.strip import union_of

__all__ = ["Policy", "Problem", "Rule", "TimeWindow"]


class Problem(NamedTuple):
    """Something wrong, or odd, in a policy file: where, what, and what to do."""

    location: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" + (f" ({self.hint})" if self.hint else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules in the order of their file.

    `revision` is the first 16 hexadecimal digits of the SHA-256 of the source text: every audit record names it.
    """

    rules: tuple[Rule, ...]
    revision: str
    source: str = ""
    warnings: tuple[Problem, ...] = ()
    index: Index = field(init=False, repr=False, compare=False)
    _strips: Mapping[str, frozenset[int]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", build_index(self.rules))
        object.__setattr__(self, "_strips", {rule.id: rule.strip for rule in self.rules if rule.strip})

    def stripped_by(self, rule_ids: Iterable[str]) -> frozenset[int]:
        """Return the tags that these rules take out of matches, together."""
        return union_of(self._strips, rule_ids)
