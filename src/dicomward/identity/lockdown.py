"""Sites that only the clinical floor is left to, because an operator said so: their file as values.

A file that can't be read locks every site: nobody knows which were locked, and the floor goes on everywhere.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

LOCKDOWN_VERSION: Final = 1
EVERY_SITE: Final = "all"
"""The name that stands for every site, and for devices that have none."""

_MOST_CHARACTERS: Final = 256


class LockdownError(ValueError):
    """The file isn't one of ours; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedSite:
    """Who locked a site, when (UTC, ISO 8601), why."""

    since: str
    operator: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lockdown:
    """The sites that are locked; `everywhere` where the file is unreadable."""

    sites: Mapping[str, LockedSite] = field(default_factory=dict)
    everywhere: bool = False

    def covers(self, site: str) -> bool:
        """Say if only the clinical floor is left to this site."""
        return self.everywhere or site in self.sites or EVERY_SITE in self.sites

    def with_site(self, site: str, locked: LockedSite) -> "Lockdown":
        """Lock one more site; one that is locked stays as it is."""
        return replace(self, sites={site: locked, **self.sites})

    def without(self, site: str) -> "Lockdown":
        """Lift the lockdown of one site."""
        return replace(self, sites={name: each for name, each in self.sites.items() if name != site})


NO_LOCKDOWN: Final = Lockdown()


def encode_lockdown(lockdown: Lockdown) -> str:
    """Return the text of the file."""
    sites = {
        name: {"since": each.since, "operator": each.operator, "reason": each.reason}
        for name, each in sorted(lockdown.sites.items())
    }
    return json.dumps({"version": LOCKDOWN_VERSION, "sites": sites}, indent=2) + "\n"


def decode_lockdown(text: str) -> Lockdown:
    """Read the text of the file. Raises LockdownError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LockdownError(f"it is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("version") != LOCKDOWN_VERSION:
        raise LockdownError(f"it isn't a file of version {LOCKDOWN_VERSION}")
    sites = document.get("sites")
    if not isinstance(sites, dict):
        raise LockdownError("it has no sites")
    return Lockdown({_text(name): _locked_site(each) for name, each in sites.items()})


def _locked_site(value: object) -> LockedSite:
    if not isinstance(value, dict) or set(value) != {"since", "operator", "reason"}:
        raise LockdownError("a site has since, operator and reason, nothing else")
    return LockedSite(**{name: _text(each) for name, each in value.items()})


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MOST_CHARACTERS:
        raise LockdownError(f"{value!r} isn't a text of at most {_MOST_CHARACTERS} characters")
    return value
