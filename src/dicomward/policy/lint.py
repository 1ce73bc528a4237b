"""Oddities of a sound policy: rules about nobody, mostly typing errors, and rules that a deny rule makes void."""

from collections.abc import Iterator, Set
from dataclasses import dataclass

from dicomward.policy.decision import Effect
from dicomward.policy.model import Policy, Problem
from dicomward.policy.rule import Rule, operations_of_rule
from dicomward.vocab.services import service_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredNames:
    """What the registry knows. `targets` are archives, and devices that listen; `ae_titles` those of all of them."""

    devices: Set[str]
    sites: Set[str]
    targets: Set[str]
    ae_titles: Set[str]


def find_unknown_names(policy: Policy, names: RegisteredNames) -> tuple[Problem, ...]:
    """Return a warning for each name that the registry doesn't have. Such a rule is sound, it just matches nothing."""
    return tuple(_find(policy, names))


def find_void_rules(policy: Policy) -> tuple[Problem, ...]:
    """Return a warning for each allow rule of which one deny rule denies everything: the two contradict each other.

    A deny rule without any condition has a warning of its own.
    """
    denying = [rule for rule in policy.rules if rule.effect is Effect.DENY and not rule.is_unconditional]
    found = []
    for rule in policy.rules:
        if rule.effect is Effect.ALLOW and (by := next((each for each in denying if _covers(each, rule)), None)):
            found.append(
                Problem(
                    f'{policy.source}, rule "{rule.id}"',
                    f'rule "{by.id}" denies everything that this rule allows',
                    "a deny rule overrides every allow rule: narrow it, or take this one out",
                )
            )
    return tuple(found)


def _covers(denying: Rule, allowing: Rule) -> bool:
    """Say if each request that `allowing` matches is one of `denying`; False where that can't be told at a glance."""
    return (
        denying.assurance_below is None
        and denying.unless_keys is None
        and denying.unless_any_key is None
        and denying.times in (None, allowing.times)
        and (denying.operations is None or operations_of_rule(allowing) <= denying.operations)
        and _covers_destinations(denying, allowing)
        and _covers_services(denying, allowing)
        and all(
            wanted is None or (given is not None and given <= wanted)
            for wanted, given in (
                (denying.devices, allowing.devices),
                (denying.roles, allowing.roles),
                (denying.sites, allowing.sites),
                (denying.people, allowing.people),
                (denying.groups, allowing.groups),
                (denying.archives, allowing.archives),
                (denying.sop_classes, allowing.sop_classes),
                (denying.query_levels, allowing.query_levels),
            )
        )
    )


def _covers_destinations(denying: Rule, allowing: Rule) -> bool:
    if not denying.names_destinations:
        return True
    return (
        allowing.names_destinations
        and (allowing.move_destinations or frozenset()) <= (denying.move_destinations or frozenset())
        and (denying.move_to_self or not allowing.move_to_self)
    )


def _covers_services(denying: Rule, allowing: Rule) -> bool:
    if denying.services is None:
        return True
    if allowing.services is not None and allowing.services <= denying.services:
        return True
    return allowing.sop_classes is not None and {service_of(uid) for uid in allowing.sop_classes} <= denying.services


def _find(policy: Policy, names: RegisteredNames) -> Iterator[Problem]:
    for rule in policy.rules:
        named = (
            ("device", rule.devices, names.devices, "device or archive"),
            ("site", rule.sites, names.sites, "site"),
            ("archive", rule.archives, names.targets, "archive, or device with an address,"),
            ("move_destination", rule.move_destinations, names.ae_titles, "AE title"),
        )
        for field, wanted, known, what in named:
            for name in sorted((wanted or frozenset()) - known):
                message = f'the registry has no {what} "{name}"'
                yield Problem(f'{policy.source}, rule "{rule.id}", {field}', message, _hint(name, known))


def _hint(name: str, known: Set[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, sorted(known), n=1)
    return f'did you mean "{close[0]}"?' if close else "register it, or correct the rule"
