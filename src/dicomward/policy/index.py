"""A policy compiled for speed: for each dimension, a bit set of the rules that accept a value.

Bit i stands for rule i. A decision is then a handful of look-ups and ANDs, whatever the number of rules, and the number
of devices doesn't matter at all. Rules that are at fault set their bit in `broken`, and a policy with a broken rule
denies everything (architecture, trap 6: never skip a rule that fails).
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import compress
from typing import Final, Generic, TypeVar

from dicomward.policy.decision import AssociationDecision, Effect
from dicomward.policy.levels import QUERY_LEVELS, UNCLEAR
from dicomward.policy.rule import MINUTES_OF_DAY, Rule, find_faults
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance, Principal
from dicomward.vocab.services import Service

_K = TypeVar("_K", bound=Hashable)
_WEEK: Final = 7 * MINUTES_OF_DAY
_BITS: Final = bytes.maketrans(b"01", b"\0\1")
_ALL_LEVELS: Final = frozenset(QUERY_LEVELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension(Generic[_K]):
    """The rules that accept each value that some rule names, and (`open`) those that accept every other value."""

    named: Mapping[_K, int]
    open: int

    def accepting(self, value: _K) -> int:
        """Return the rules that accept the value."""
        return self.named.get(value, self.open)


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """The rules that hold at each minute of the week: `rules[i]` from minute `starts[i]` on."""

    starts: tuple[int, ...]
    rules: tuple[int, ...]

    def holding(self, at: datetime) -> int:
        """Return the rules whose windows contain the wall time. Raises ValueError for a naive time."""
        if at.tzinfo is None:
            raise ValueError("the time has no time zone, so the windows of the rules mean nothing")
        minute = at.weekday() * MINUTES_OF_DAY + at.hour * 60 + at.minute
        return self.rules[bisect_right(self.starts, minute) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The compiled rules; every `int` is a set of rules."""

    ids: tuple[str, ...]
    allows: int
    denies: int
    broken: int
    device: Dimension[str]
    role: Dimension[str]
    site: Dimension[str]
    person: Dimension[str]
    group: Dimension[str]
    assurance: Mapping[Assurance, int]
    operation: Dimension[Operation]
    sop_class: Dimension[str]
    service: Dimension[Service]
    archive: Dimension[str]
    destination: Dimension[str]
    to_self: int
    level: Dimension[str]
    week: Week | None
    with_level: int
    with_keys: int
    with_any_key: int
    needing: Mapping[int, int]
    satisfied_by: Mapping[int, int]
    needed_keys: frozenset[int]
    # What was decided for the same question: a policy that changes is another index. Its only writer bounds it.
    decided: dict[tuple[object, ...], AssociationDecision] = field(default_factory=dict, compare=False, repr=False)

    def ids_of(self, rules: int) -> tuple[str, ...]:
        """Return the ids of a set of rules, in the order of the policy."""
        if not rules:
            return ()
        # Lowest bit first, as one pass in C: a loop over the bits of 500 matching rules costs ten times more.
        return tuple(compress(self.ids, f"{rules:b}"[::-1].encode("ascii").translate(_BITS)))

    def of_principal(self, principal: Principal) -> int:
        """Return the rules that accept the caller, but for its assurance."""
        return (
            self.device.accepting(principal.device)
            & self.role.accepting(principal.role)
            & self.site.accepting(principal.site)
            & self.person.accepting(principal.person)
            & self.of_groups(principal.groups)
        )

    def of_groups(self, groups: frozenset[str]) -> int:
        """Return the rules that accept somebody in these groups."""
        rules = self.group.open
        if self.group.named:
            for group in groups:
                rules |= self.group.accepting(group)
        return rules

    def at(self, when: datetime) -> int:
        """Return the rules that hold at this time. Raises ValueError for a naive time where a rule has windows."""
        return -1 if self.week is None else self.week.holding(when)

    def failing_keys(self, keys: frozenset[int]) -> int:
        """Return the rules whose conditions on keys these keys do not fulfil."""
        failing = 0
        for tag in self.needed_keys - keys:
            failing |= self.needing[tag]
        satisfied = 0
        for tag in keys:
            satisfied |= self.satisfied_by.get(tag, 0)
        return failing | (self.with_any_key & ~satisfied)


def build_index(rules: tuple[Rule, ...]) -> Index:
    """Compile the rules; this never fails: what cannot be compiled is `broken`."""
    broken = 0
    seen: set[str] = set()
    for i, rule in enumerate(rules):
        if _is_broken(rule) or rule.id in seen:
            broken |= 1 << i
        seen.add(rule.id)
    sound = [(1 << i, rule) for i, rule in enumerate(rules) if not broken >> i & 1]
    needing = _bits((bit, all_keys(rule)) for bit, rule in sound)
    satisfied_by = _bits((bit, any_key(rule)) for bit, rule in sound)
    return Index(
        ids=tuple(rule.id for rule in rules),
        allows=sum(bit for bit, rule in sound if rule.effect is Effect.ALLOW),
        denies=sum(bit for bit, rule in sound if rule.effect is Effect.DENY),
        broken=broken,
        device=_dimension(sound, lambda rule: rule.devices),
        role=_dimension(sound, lambda rule: rule.roles),
        site=_dimension(sound, lambda rule: rule.sites),
        person=_dimension(sound, lambda rule: rule.people),
        group=_dimension(sound, lambda rule: rule.groups),
        assurance={level: sum(bit for bit, rule in sound if _assured(rule, level)) for level in Assurance},
        operation=_dimension(sound, lambda rule: rule.operations),
        sop_class=_dimension(sound, lambda rule: rule.sop_classes),
        service=_dimension(sound, lambda rule: rule.services),
        archive=_dimension(sound, lambda rule: rule.archives),
        destination=_dimension(sound, _destinations),
        to_self=sum(bit for bit, rule in sound if rule.move_to_self),
        level=_dimension(sound, _levels),
        week=_week(sound),
        with_level=sum(bit for bit, rule in sound if rule.query_levels is not None),
        with_keys=sum(bit for bit, rule in sound if rule.names_keys),
        with_any_key=sum(bit for bit, rule in sound if any_key(rule)),
        needing=needing,
        satisfied_by=satisfied_by,
        needed_keys=frozenset(needing),
    )


def _is_broken(rule: Rule) -> bool:
    try:
        return any(True for _ in find_faults(rule))
    except Exception:  # noqa: BLE001 - a rule that can't even be looked at must deny, not vanish (trap 6)
        return True


def _dimension(sound: list[tuple[int, Rule]], values: Callable[[Rule], frozenset[_K] | None]) -> Dimension[_K]:
    """Build one dimension; a rule without values accepts every value."""
    open_rules = sum(bit for bit, rule in sound if values(rule) is None)
    named: dict[_K, int] = {}
    for bit, rule in sound:
        for value in values(rule) or ():
            named[value] = named.get(value, open_rules) | bit
    return Dimension(named=named, open=open_rules)


def _bits(pairs: Iterable[tuple[int, frozenset[int]]]) -> dict[int, int]:
    table: dict[int, int] = {}
    for bit, tags in pairs:
        for tag in tags:
            table[tag] = table.get(tag, 0) | bit
    return table


def all_keys(rule: Rule) -> frozenset[int]:
    """Return the keys that an allow rule requires, or without one of which a deny rule applies."""
    return (rule.required_keys or frozenset()) | (rule.unless_keys or frozenset())


def any_key(rule: Rule) -> frozenset[int]:
    """Return the keys of which an allow rule requires one, or without all of which a deny rule applies."""
    return (rule.required_any_key or frozenset()) | (rule.unless_any_key or frozenset())


def _assured(rule: Rule, level: Assurance) -> bool:
    enough = rule.assurance is None or level >= rule.assurance
    return enough and (rule.assurance_below is None or level < rule.assurance_below)


def _destinations(rule: Rule) -> frozenset[str] | None:
    return rule.move_destinations or frozenset() if rule.names_destinations else None


def _levels(rule: Rule) -> frozenset[str] | None:
    """Return the levels; a deny rule for one of the query levels applies to an unclear level as well."""
    levels = rule.query_levels
    if levels is not None and rule.effect is Effect.DENY and levels & _ALL_LEVELS:
        return levels | {UNCLEAR}
    return levels


def _week(sound: list[tuple[int, Rule]]) -> Week | None:
    """Lay the windows of all rules along one week; None where no rule has any."""
    timed = [(bit, rule.times) for bit, rule in sound if rule.times is not None]
    if not timed:
        return None
    toggles: dict[int, int] = {0: 0}
    for bit, windows in timed:
        spans = [
            span
            for window in windows
            for day in window.days
            for span in _spans(day, window.start_minute, window.end_minute)
        ]
        for start, end in _merged(spans):
            toggles[start] = toggles.get(start, 0) ^ bit
            toggles[end] = toggles.get(end, 0) ^ bit
    holding = sum(bit for bit, rule in sound if rule.times is None)
    starts = tuple(sorted(toggles))
    rules = []
    for start in starts:
        holding ^= toggles[start]
        rules.append(holding)
    return Week(starts=starts, rules=tuple(rules))


def _spans(day: int, start_minute: int, end_minute: int) -> list[tuple[int, int]]:
    """Return the window as minutes of the week; Sunday night goes on on Monday morning."""
    start = day * MINUTES_OF_DAY + start_minute
    end = day * MINUTES_OF_DAY + end_minute + (MINUTES_OF_DAY if end_minute < start_minute else 0)
    return [(start, end)] if end <= _WEEK else [(start, _WEEK), (0, end - _WEEK)]


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
