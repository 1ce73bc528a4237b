"""Compare the names in a policy with the names of the registry: a rule about nobody is almost always a typing error."""

from collections.abc import Iterator, Set
from dataclasses import dataclass

from dicomward.policy.model import Policy, Problem


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
