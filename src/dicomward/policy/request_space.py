"""The requests that two policies are asked about, as one space: the facets, the keys, and the rules of both.

A `Box` is a set of requests: for each facet a set of atoms (a bit for each), and the sets of keys that go with them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, NamedTuple

from dicomward.policy.facets import Destination, Facet, What, build_facets, moment_in
from dicomward.policy.index import Index, all_keys, any_key, build_index
from dicomward.policy.key_region import KeyRegion
from dicomward.policy.levels import IDENTIFIER_OPERATIONS, QUERY_LEVELS, possible_levels
from dicomward.policy.model import Policy
from dicomward.policy.request import IdentifierRequest, OperationRequest
from dicomward.policy.rule import Rule
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Principal

_CALLING_AE_TITLE: Final = "CALLING-AET"


class Box(NamedTuple):
    """A set of requests; `atoms` has a set of places for each facet, `keys` are disjoint."""

    atoms: tuple[int, ...]
    keys: tuple[KeyRegion, ...]

    def within(self, facet: int, atoms: int) -> "Box":
        """Return the part of the box in which a facet, by its place, has one of these atoms."""
        return Box((*self.atoms[:facet], self.atoms[facet] & atoms, *self.atoms[facet + 1 :]), self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSpace:
    """The table of rules, equal ones once, with what it makes of requests. Each `int` is a set of rules.

    `old` and `new` are the rules that each policy has; `keys` the query keys in the order of their bits.
    """

    rules: tuple[Rule, ...]
    index: Index
    old: int
    new: int
    facets: tuple[Facet[Any], ...]
    keys: tuple[int, ...]

    @property
    def bodies(self) -> tuple[Rule, ...]:
        """The rules without their numbers."""
        return tuple(body_of(rule) for rule in self.rules)

    @property
    def differing(self) -> int:
        """The rules that only one of the policies has."""
        return self.old ^ self.new

    def key_condition(self, place: int) -> tuple[int, int]:
        """Return the keys of a rule: all that it asks for, and those of which it asks for one; as bits."""
        rule = self.rules[place]
        return self._key_bits(all_keys(rule)), self._key_bits(any_key(rule))

    def contains(self, box: Box, request: OperationRequest) -> bool:
        """Say if the request, or some identifier of it where none is known, lies in the box."""
        for facet, atoms in zip(self.facets, box.atoms, strict=True):
            if not any((place := facet.place_of(asked)) is not None and atoms >> place & 1 for asked in _at(request)):
                return False
        if not isinstance(request, IdentifierRequest):
            return True
        keys = self._key_bits(request.keys)
        return any(region.contains(keys) for region in box.keys)

    def example_of(self, box: Box) -> OperationRequest:
        """Return a request of the box."""
        first: dict[str, Any] = {
            facet.name: facet.atoms[(atoms & -atoms).bit_length() - 1]
            for facet, atoms in zip(self.facets, box.atoms, strict=True)
        }
        what: What = first["what"]
        destination: Destination = first["move_destination"]
        moves = what.operation is Operation.C_MOVE
        request = OperationRequest(
            principal=Principal(
                device=first["device"],
                calling_ae_title=destination.title if moves and destination.is_self else _CALLING_AE_TITLE,
                role=first["role"],
                site=first["site"],
                assurance=first["assurance"],
                # Who is in a group is somebody.
                person=first["person"] or (self._somebody() if first["group"] else ""),
                groups=first["group"],
                address="",
            ),
            archive=first["archive"],
            operation=what.operation,
            sop_class_uid=what.sop_class_uid,
            context_sop_class_uid=what.context,
            move_destination=destination.title if moves else None,
            at=moment_in(first["time"]),
        )
        if what.operation not in IDENTIFIER_OPERATIONS:
            return request
        keys = box.keys[0].smallest()
        return IdentifierRequest.of(
            request,
            query_level=what.level if what.level in QUERY_LEVELS else None,
            keys=frozenset(tag for place, tag in enumerate(self.keys) if keys >> place & 1),
        )

    def _somebody(self) -> str:
        """Return a person that no rule names."""
        named = next(facet.atoms for facet in self.facets if facet.name == "person")
        return next(name for number in count(1) if (name := f"person-{number}") not in named)

    def _key_bits(self, tags: Iterable[int]) -> int:
        return sum(1 << self.keys.index(tag) for tag in tags if tag in self.keys)


def _at(request: OperationRequest) -> Iterable[OperationRequest]:
    """Return the request with each level that its identifier can have, if it is not known."""
    if isinstance(request, IdentifierRequest) or request.operation not in IDENTIFIER_OPERATIONS:
        return (request,)
    levels = possible_levels(request.sop_class_uid)
    return tuple(IdentifierRequest.of(request, query_level=level, keys=frozenset()) for level in levels)


def body_of(rule: Rule) -> Rule:
    """Return what decides: the rule without its name."""
    return replace(rule, id="", description="")


def build_space(old: Policy, new: Policy) -> RequestSpace:
    """Return the space of the requests that the rules of two policies tell apart.

    A policy with a rule at fault allows nothing (trap 6), as one without rules does.
    """
    bodies: dict[Rule, int] = {}
    members = [_enter(policy, bodies) for policy in (old, new)]
    rules = tuple(replace(body, id=str(place)) for body, place in bodies.items())
    index = build_index(rules)
    keys = sorted({tag for rule in rules for tag in all_keys(rule) | any_key(rule)})
    return RequestSpace(
        rules=rules, index=index, old=members[0], new=members[1], facets=build_facets(index), keys=tuple(keys)
    )


def _enter(policy: Policy, bodies: dict[Rule, int]) -> int:
    members = 0
    for rule in () if policy.index.broken else policy.rules:
        members |= 1 << bodies.setdefault(body_of(rule), len(bodies))
    return members
