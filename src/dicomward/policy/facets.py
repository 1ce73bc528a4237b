"""The space of requests as rules see it: a few facets, each cut into finitely many atoms.

An atom stands for every value that no rule tells apart from it: each value that a rule names is an atom, and one more
stands for all the others. Times are cut at the edges of windows. What a rule accepts is read from the compiled index
that `evaluate` uses, so that the two can't drift apart.

A new field of a rule or a request belongs into the tables below: the tests compare them with the dataclasses.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, Final, Generic, NamedTuple, TypeVar

from dicomward.policy.families import command_sop_classes
from dicomward.policy.index import Dimension, Index
from dicomward.policy.levels import IDENTIFIER_OPERATIONS, level_of, possible_levels
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.policy.rule import MINUTES_OF_DAY
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Assurance
from dicomward.vocab.services import SERVICE_OF_SOP_CLASS, USUAL_SOP_CLASS, Service, operations_of, service_of

# Which facet each field of a rule belongs to; "" = it is no condition (what it does is compared in diff.py).
FACET_OF_RULE_FIELD: Final = {
    "id": "",
    "effect": "",
    "description": "",
    "devices": "device",
    "roles": "role",
    "sites": "site",
    "people": "person",
    "groups": "group",
    "assurance": "assurance",
    "assurance_below": "assurance",
    "operations": "what",
    "sop_classes": "what",
    "services": "what",
    "query_levels": "what",
    "archives": "archive",
    "required_keys": "keys",
    "required_any_key": "keys",
    "unless_keys": "keys",
    "unless_any_key": "keys",
    "move_destinations": "move_destination",
    "move_to_self": "move_destination",
    "times": "time",
    "strip": "",
}
# The same for requests. The clinical floor takes the same operations from every policy, so it makes no difference.
FACET_OF_REQUEST_FIELD: Final = {
    "principal.device": "device",
    "principal.role": "role",
    "principal.site": "site",
    "principal.assurance": "assurance",
    "principal.person": "person",
    "principal.groups": "group",
    "principal.person_until": "",
    "principal.calling_ae_title": "move_destination",
    "principal.address": "",
    "principal.certificate_sha256": "",
    "principal.floor_only": "",
    "own_ae_titles": "move_destination",
    "move_destination": "move_destination",
    "archive": "archive",
    "operation": "what",
    "sop_class_uid": "what",
    "context_sop_class_uid": "what",
    "query_level": "what",
    "keys": "keys",
    "at": "time",
}
# A Monday: minute 0 of the week.
_MONDAY: Final = datetime(2026, 1, 5, tzinfo=UTC)
_WEEK: Final = 7 * MINUTES_OF_DAY

_A = TypeVar("_A", bound=Hashable)


class What(NamedTuple):
    """What is asked for. `context` is "" where it is the same SOP class, `level` None where there is no identifier."""

    operation: Operation
    sop_class_uid: str
    context: str
    level: str | None


class Destination(NamedTuple):
    """Where a C-MOVE goes, and if that is the device itself."""

    title: str
    is_self: bool


class Span(NamedTuple):
    """Minutes of the week: the start is included, the end is not."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet(Generic[_A]):
    """One facet. `accepting` are the rules that accept each atom; `near` those that do but for the query level.

    `other` is the atom that stands for all values that no rule names; None where every value is an atom of its own.
    `read` returns the value of a request that knows it.
    """

    name: str
    atoms: tuple[_A, ...]
    accepting: tuple[int, ...]
    read: Callable[[OperationRequest], _A]
    other: _A | None = None
    near: tuple[int, ...] = ()
    _places: dict[_A, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {atom: place for place, atom in enumerate(self.atoms)})

    def place_of(self, request: OperationRequest) -> int | None:
        """Return the place of the atom that the request lies in; None where no rule is asked about it."""
        place = self._places.get(self.read(request))
        return self._places.get(self.other) if place is None and self.other is not None else place

    def chosen(self, atoms: int) -> tuple[_A, ...]:
        """Return the atoms of a set of places."""
        return tuple(atom for place, atom in enumerate(self.atoms) if atoms >> place & 1)

    @property
    def everything(self) -> int:
        """All atoms."""
        return (1 << len(self.atoms)) - 1


def build_facets(index: Index) -> tuple[Facet[Any], ...]:
    """Return the facets for the rules of an index, but for keys; the ones that divide rules best come first."""
    return (
        _what(index),
        _named("role", index.role, "other-role", lambda request: request.principal.role),
        _named("device", index.device, "other-device", lambda request: request.principal.device),
        _named("site", index.site, "", lambda request: request.principal.site),
        _named("person", index.person, "", lambda request: request.principal.person),
        _groups(index),
        _named("archive", index.archive, "other-archive", lambda request: request.archive),
        _destination(index),
        _assurance(index),
        _time(index),
    )


def _named(name: str, dimension: Dimension[str], other: str, read: Callable[[OperationRequest], str]) -> Facet[str]:
    fresh = _fresh(other, dimension)
    atoms = (*sorted(dimension.named), fresh)
    accepting = tuple(dimension.accepting(atom) for atom in atoms)
    return Facet(name=name, atoms=atoms, accepting=accepting, other=fresh, read=read)


def _groups(index: Index) -> Facet[frozenset[str]]:
    """Cut by the groups that rules name: nobody's, each one, and each two.

    More of them at once show nothing new: a change shows with one group that lets a rule allow and one that lets
    another deny, and without the others.
    """
    named = sorted(index.group.named)
    atoms = tuple(frozenset(chosen) for count in range(3) for chosen in combinations(named, count))
    known = frozenset(named)
    return Facet(
        name="group",
        atoms=atoms,
        accepting=tuple(index.of_groups(atom) for atom in atoms),
        read=lambda request: request.principal.groups & known,
    )


def _fresh(word: str, dimension: Dimension[str]) -> str:
    """Return a value that no rule names."""
    fresh, number = word, 1
    while fresh in dimension.named:
        number += 1
        fresh = f"{word or 'other-site'}-{number}"
    return fresh


def _assurance(index: Index) -> Facet[Assurance]:
    # The most usual one first: examples are made of it.
    atoms = tuple(sorted(Assurance, key=lambda level: level is not Assurance.TLS_DEVICE))
    return Facet(
        name="assurance",
        atoms=atoms,
        accepting=tuple(index.assurance[level] for level in atoms),
        read=lambda request: request.principal.assurance,
    )


def _destination(index: Index) -> Facet[Destination]:
    dimension = index.destination
    fresh = _fresh("OTHER-AET", dimension)
    atoms = tuple(
        Destination(title, is_self) for title in (*sorted(dimension.named), fresh) for is_self in (True, False)
    )

    def read(request: OperationRequest) -> Destination:
        title = request.move_destination or ""
        own = title == request.principal.calling_ae_title or title in request.own_ae_titles
        return Destination(title if title in dimension.named else fresh, own)

    return Facet(
        name="move_destination",
        atoms=atoms,
        accepting=tuple(dimension.accepting(title) | (index.to_self if own else 0) for title, own in atoms),
        read=read,
    )


def _time(index: Index) -> Facet[Span]:
    starts = (0,) if index.week is None else index.week.starts
    rules = (-1,) if index.week is None else index.week.rules
    edges = [start for start in starts if start < _WEEK]
    spans = tuple(Span(start, end) for start, end in zip(edges, (*edges[1:], _WEEK), strict=True))

    def read(request: OperationRequest) -> Span:
        minute = request.at.weekday() * MINUTES_OF_DAY + request.at.hour * 60 + request.at.minute
        return spans[bisect_right(edges, minute) - 1]

    return Facet(name="time", atoms=spans, accepting=rules[: len(spans)], read=read)


def moment_in(span: Span) -> datetime:
    """Return a time in the span: noon of its first day if it lies in it, else its first minute."""
    noon = span.start - span.start % MINUTES_OF_DAY + MINUTES_OF_DAY // 2
    return _MONDAY + timedelta(minutes=noon if span.start <= noon < span.end else span.start)


def _what(index: Index) -> Facet[What]:
    fresh = _fresh_uid(index)
    pairs = _sop_classes(index, fresh)
    atoms = tuple(
        What(operation, uid, context, level)
        for uid, context in pairs
        for operation in sorted(operations_of(uid))
        for level in _levels_of(operation, uid)
    )
    named = {uid for uid, _ in pairs}

    def read(request: OperationRequest) -> What:
        uid = request.sop_class_uid
        context = "" if request.context_sop_class_uid == uid else request.context_sop_class_uid
        level = request.query_level if isinstance(request, IdentifierRequest) else None
        return What(
            request.operation,
            uid if uid in named else fresh,
            context,
            level_of(uid, level) if request.operation in IDENTIFIER_OPERATIONS else None,
        )

    near = tuple(_accepting_what(index, atom) for atom in atoms)
    accepting = tuple(
        rules if atom.level is None else rules & index.level.accepting(atom.level)
        for atom, rules in zip(atoms, near, strict=True)
    )
    return Facet(name="what", atoms=atoms, accepting=accepting, near=near, read=read)


def _levels_of(operation: Operation, uid: str) -> tuple[str | None, ...]:
    """Return the levels, the most usual one first: examples are made of it."""
    if operation not in IDENTIFIER_OPERATIONS:
        return (None,)
    return tuple(sorted(possible_levels(uid), key=lambda level: level != "STUDY"))


def _accepting_what(index: Index, what: What) -> int:
    by_class = index.sop_class.accepting(what.sop_class_uid)
    if what.context:
        by_class |= index.sop_class.accepting(what.context)
    service = service_of(what.sop_class_uid)
    return by_class & index.operation.accepting(what.operation) & index.service.accepting(service)


def _fresh_uid(index: Index) -> str:
    """Return a private SOP class that no rule names."""
    number = 1
    while f"2.25.{number}" in index.sop_class.named:
        number += 1
    return f"2.25.{number}"


def _sop_classes(index: Index, fresh: str) -> list[tuple[str, str]]:
    """Return the pairs of SOP class and context ("" = the same) that a command can have, usual ones first."""
    known = dict.fromkeys((*USUAL_SOP_CLASS.values(), *SERVICE_OF_SOP_CLASS))
    del known[USUAL_SOP_CLASS[Service.OTHER]]
    uids = [*known, *sorted(set(index.sop_class.named) - set(known)), fresh]
    return [(uid, "") for uid in uids] + sorted(_other_contexts())


def _other_contexts() -> Iterator[tuple[str, str]]:
    for context in SERVICE_OF_SOP_CLASS:
        for uid in command_sop_classes(context) - {context}:
            yield uid, context
