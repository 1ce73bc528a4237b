"""One rule: who × what × where × how × when. A dimension that is None is open; a named one must match.

Allow rules and deny rules have different words for some conditions, so that none reads both ways: an allow rule
*requires* keys and a least assurance, a deny rule applies *unless* keys are there and *below* an assurance.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from dicomward.policy.decision import Effect
from dicomward.policy.levels import IDENTIFIER_OPERATIONS, possible_levels
from dicomward.policy.strip import CLINICAL_ROLES, CLINICAL_TAGS, attribute_name
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.services import OPERATIONS_OF_SERVICE, SERVICE_OF_SOP_CLASS, Service, operations_of, service_of

MINUTES_OF_DAY: Final = 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeWindow:
    """A window of local wall time; `days` (0 = Monday) are the days on which it starts.

    Minutes of the day, start included, end excluded. An end before the start lies on the next day.
    """

    days: frozenset[int]
    start_minute: int
    end_minute: int

    def contains(self, at: datetime) -> bool:
        """Say if the wall time of `at` lies in the window."""
        minute = at.hour * 60 + at.minute
        today, yesterday = at.weekday(), (at.weekday() - 1) % 7
        if self.start_minute < self.end_minute:
            return today in self.days and self.start_minute <= minute < self.end_minute
        return (today in self.days and minute >= self.start_minute) or (
            yesterday in self.days and minute < self.end_minute
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of a policy; the field names of the TOML are in docs/policy.md.

    `required_keys` (all) and `required_any_key` (one of them), `unless_keys` and `unless_any_key` are 32-bit tags.
    `move_to_self` stands for the word "self" in `move_destinations`. `strip` is no condition: it holds the tags of the
    attributes that are taken out of the matches of queries that the rule allows.
    """

    id: str
    effect: Effect
    description: str = ""
    devices: frozenset[str] | None = None
    roles: frozenset[str] | None = None
    sites: frozenset[str] | None = None
    people: frozenset[str] | None = None
    groups: frozenset[str] | None = None
    assurance: Assurance | None = None
    assurance_below: Assurance | None = None
    operations: frozenset[Operation] | None = None
    sop_classes: frozenset[str] | None = None
    services: frozenset[Service] | None = None
    archives: frozenset[str] | None = None
    query_levels: frozenset[str] | None = None
    required_keys: frozenset[int] | None = None
    required_any_key: frozenset[int] | None = None
    unless_keys: frozenset[int] | None = None
    unless_any_key: frozenset[int] | None = None
    move_destinations: frozenset[str] | None = None
    move_to_self: bool = False
    times: tuple[TimeWindow, ...] | None = None
    strip: frozenset[int] | None = None

    @property
    def is_unconditional(self) -> bool:
        """Say if the rule matches everything."""
        return self == Rule(id=self.id, effect=self.effect, description=self.description)

    @property
    def names_destinations(self) -> bool:
        """Say if the rule looks at the C-MOVE destination."""
        return self.move_destinations is not None or self.move_to_self

    @property
    def names_keys(self) -> bool:
        """Say if the rule looks at the keys of an identifier."""
        return any(
            keys is not None
            for keys in (self.required_keys, self.required_any_key, self.unless_keys, self.unless_any_key)
        )

    @property
    def names_identifier(self) -> bool:
        """Say if the rule looks at the identifier of a C-FIND, C-GET or C-MOVE."""
        return self.query_levels is not None or self.names_keys


class Fault(NamedTuple):
    """What is wrong with a rule: the field as TOML names it ("" = the whole rule), what, and what to do."""

    field: str
    message: str
    hint: str


_SETS: Final = {
    "device": "devices",
    "role": "roles",
    "site": "sites",
    "person": "people",
    "group": "groups",
    "operation": "operations",
    "sop_class": "sop_classes",
    "service": "services",
    "archive": "archives",
    "query_level": "query_levels",
    "required_keys": "required_keys",
    "required_any_key": "required_any_key",
    "unless_keys": "unless_keys",
    "unless_any_key": "unless_any_key",
    "time": "times",
    "strip": "strip",
}
_IDENTIFIER_FIELDS: Final = ("query_level", "required_keys", "required_any_key", "unless_keys", "unless_any_key")
_ALLOW_ONLY: Final = {
    "assurance": "assurance_below",
    "required_keys": "unless_keys",
    "required_any_key": "unless_any_key",
}


def find_faults(rule: Rule) -> Iterator[Fault]:
    """Yield each reason for which the rule must not be used.

    A rule that could never match is a fault too: a deny rule that silently does nothing is worse than none.
    """
    yield from _find_empty(rule)
    yield from _find_wrong_words(rule)
    yield from _find_too_broad(rule)
    yield from _find_bad_times(rule)
    yield from _find_dead(rule)
    yield from _find_bad_strip(rule)


def _find_empty(rule: Rule) -> Iterator[Fault]:
    if not rule.id:
        yield Fault("id", "the id is empty", "give the rule a name of its own")
    for field, attribute in _SETS.items():
        value = getattr(rule, attribute)
        if value is not None and not value:
            yield Fault(field, "the list is empty, so the rule could never match", "name a value, or leave it out")
    if rule.move_destinations is not None and not rule.move_destinations and not rule.move_to_self:
        yield Fault(
            "move_destination", "the list is empty, so the rule could never match", "name an AE title, or leave it out"
        )


def _find_wrong_words(rule: Rule) -> Iterator[Fault]:
    for allow_word, deny_word in _ALLOW_ONLY.items():
        wrong, right = (deny_word, allow_word) if rule.effect is Effect.ALLOW else (allow_word, deny_word)
        if getattr(rule, wrong) is not None:
            yield Fault(wrong, f"{wrong} has no meaning in {rule.effect} rules", f"{rule.effect} rules have {right}")


def _find_too_broad(rule: Rule) -> Iterator[Fault]:
    if rule.effect is Effect.DENY:
        return
    if all(each is None for each in (rule.devices, rule.roles, rule.sites, rule.people, rule.groups)):
        yield Fault(
            "", "the rule would allow this to everybody", "name at least one device, role, site, person or group"
        )
    if rule.operations is None and rule.services is None and rule.sop_classes is None:
        yield Fault("", "the rule would allow every operation", "name at least one operation, service or sop_class")


def _find_bad_times(rule: Rule) -> Iterator[Fault]:
    for window in rule.times or ():
        if not window.days or not window.days <= frozenset(range(7)):
            yield Fault("time", "a window has no day, or one that is not in the week", "name days from mon to sun")
        if not 0 <= window.start_minute < MINUTES_OF_DAY or not 0 < window.end_minute <= MINUTES_OF_DAY:
            yield Fault("time", "a window lies outside the day", "from is 00:00 to 23:59, to is 00:01 to 24:00")
        if window.start_minute == window.end_minute:
            yield Fault("time", "a window starts and ends at the same minute", "leave out from and to for a whole day")


def _services_of(rule: Rule) -> frozenset[Service]:
    services = frozenset(Service) if rule.services is None else rule.services
    if rule.sop_classes is not None:
        services &= {service_of(uid) for uid in rule.sop_classes}
    return services


def operations_of_rule(rule: Rule) -> frozenset[Operation]:
    """Return the operations that a rule can match at all."""
    services = _services_of(rule)
    if rule.sop_classes is None:
        possible = frozenset().union(*(OPERATIONS_OF_SERVICE[service] for service in services))
    else:
        possible = frozenset().union(*(operations_of(uid) for uid in rule.sop_classes if service_of(uid) in services))
    return possible if rule.operations is None else possible & rule.operations


def _find_dead(rule: Rule) -> Iterator[Fault]:
    operations = operations_of_rule(rule)
    if not operations:
        yield Fault(
            "",
            "operation, service and sop_class exclude each other, so the rule could never match",
            "all fields of a rule must hold together; write a rule for each combination",
        )
        return
    if rule.names_destinations and operations != {Operation.C_MOVE}:
        yield Fault(
            "move_destination",
            "only C-MOVE has a destination, and the rule is about other operations too",
            'add operation = ["c-move"], and write another rule for the others',
        )
    if rule.names_identifier and not operations <= IDENTIFIER_OPERATIONS:
        yield Fault(
            next(field for field in _IDENTIFIER_FIELDS if getattr(rule, _SETS[field]) is not None),
            "only C-FIND, C-GET and C-MOVE have a level and keys, and the rule is about other operations too",
            "name the operations, and write another rule for the others",
        )
    if rule.query_levels is not None and rule.query_levels.isdisjoint(_levels_of(rule)):
        yield Fault(
            "query_level",
            "identifiers of this service or SOP class never have this level, so the rule could never match",
            'worklist and UPS have the level "WORKLIST" only, Query/Retrieve has the others',
        )


def _find_bad_strip(rule: Rule) -> Iterator[Fault]:
    if not rule.strip:
        return
    if rule.effect is Effect.DENY:
        yield Fault("strip", "strip has no meaning in deny rules", "what is denied has no matches; use an allow rule")
        return
    services = _services_of(rule) - {Service.WORKLIST}
    if Operation.C_FIND not in operations_of_rule(rule) or not any(
        Operation.C_FIND in OPERATIONS_OF_SERVICE[service] for service in services
    ):
        yield Fault(
            "strip",
            "only matches of C-FIND are stripped, never those of the worklist, and the rule allows no such query",
            'write it into the rule that allows operation = "c-find" with service = "query"',
        )
    clinical = CLINICAL_ROLES if rule.roles is None else rule.roles & CLINICAL_ROLES
    kept = sorted(rule.strip & CLINICAL_TAGS.keys())
    if clinical and kept:
        names = ", ".join(CLINICAL_TAGS[tag] for tag in kept)
        yield Fault(
            "strip",
            f"{names} can't be stripped for the clinical role{'s' if len(clinical) > 1 else ''} "
            f"{', '.join(sorted(clinical))}: patients would be mistaken for each other",
            "leave it in, or write a rule that names roles which take no part in an examination",
        )
    asked = rule.strip & ((rule.required_keys or frozenset()) | (rule.required_any_key or frozenset()))
    if asked:
        names = ", ".join(attribute_name(tag) for tag in sorted(asked))
        yield Fault(
            "strip",
            f"the rule requires {names} as a key and strips it, so it could never match",
            "nobody may search by what is kept from them; take it out of one of the two",
        )


def _levels_of(rule: Rule) -> frozenset[str]:
    services = _services_of(rule)
    uids = rule.sop_classes if rule.sop_classes is not None else SERVICE_OF_SOP_CLASS
    levels = frozenset().union(*(possible_levels(uid) for uid in uids if service_of(uid) in services))
    if rule.sop_classes is None and Service.OTHER in services:
        # A private SOP class may have any level.
        levels |= frozenset(possible_levels("1.2.3"))
    return levels
