"""The `[limits]` tables of the configuration, read into `LimitSettings`; all problems are reported at once.

[limits]                              # numbers of every device
[limits.role.workstation]             # of the devices of one role
[limits.device.CT1]                   # of one device
[limits.network]                      # of every network
[limits.network."198.51.100.0/24"]    # of one network
[limits.archive]                      # of every target
[limits.archive.PACS]                 # of one target
[limits.strangers]                    # the delays
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from dicomward.limits.network import parse_limit_network
from dicomward.limits.settings import ArchiveLimits, DeviceLimits, LimitSettings, NetworkLimits, StrangerLimits
from dicomward.vocab.nearest import nearest_name

_TABLES: Final = ("role", "device", "network", "archive", "strangers")

_Kind = type[DeviceLimits] | type[NetworkLimits] | type[ArchiveLimits] | type[StrangerLimits]


@dataclass(frozen=True, slots=True)
class LimitProblem:
    """One thing that is wrong in the `[limits]` tables: where, what, and what to do."""

    location: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}; {self.hint}"


class LimitSettingsError(ValueError):
    """The `[limits]` tables can't be used; `problems` holds every reason."""

    def __init__(self, problems: tuple[LimitProblem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def parse_limits(table: Mapping[str, object]) -> LimitSettings:
    """Read the `[limits]` table as a TOML parser gives it. Raises LimitSettingsError."""
    reader = _Reader()
    own = {key: value for key, value in table.items() if key not in _TABLES}
    network, networks = reader.split(table, "network")
    archive, archives = reader.split(table, "archive")
    strangers = reader.table(table.get("strangers", {}), "limits.strangers")
    numbers: dict[str, Any] = {
        "device": reader.numbers(own, "limits", DeviceLimits),
        "roles": reader.named(reader.table(table.get("role", {}), "limits.role"), "limits.role", DeviceLimits),
        "devices": reader.named(reader.table(table.get("device", {}), "limits.device"), "limits.device", DeviceLimits),
        "networks": reader.named(reader.networks(networks), "limits.network", NetworkLimits),
        "archives": reader.named(archives, "limits.archive", ArchiveLimits),
    }
    groups: dict[str, dict[str, Any]] = {
        "network": reader.numbers(network, "limits.network", NetworkLimits),
        "archive": reader.numbers(archive, "limits.archive", ArchiveLimits),
        "strangers": reader.numbers(strangers, "limits.strangers", StrangerLimits),
    }
    if reader.problems:
        raise LimitSettingsError(tuple(reader.problems))
    return LimitSettings(
        **numbers,
        network=NetworkLimits(**groups["network"]),
        archive=ArchiveLimits(**groups["archive"]),
        strangers=StrangerLimits(**groups["strangers"]),
    )


class _Reader:
    """Collects the problems; what is wrong is left out of what it returns."""

    __slots__ = ("problems",)

    def __init__(self) -> None:
        self.problems: list[LimitProblem] = []

    def table(self, value: object, location: str) -> Mapping[str, object]:
        if isinstance(value, Mapping):
            return value
        self.problems.append(
            LimitProblem(location, f"{value!r} is not a table", f"write [{location}] with numbers in it")
        )
        return {}

    def split(self, table: Mapping[str, object], key: str) -> tuple[dict[str, object], dict[str, object]]:
        """Return the numbers and the tables of `[limits.key]`."""
        entries = self.table(table.get(key, {}), f"limits.{key}")
        own = {name: value for name, value in entries.items() if not isinstance(value, Mapping)}
        return own, {name: value for name, value in entries.items() if name not in own}

    def numbers(self, values: Mapping[str, object], location: str, kind: _Kind) -> dict[str, object]:
        """Return the entries that are limits of that kind."""
        known = tuple(item.name for item in fields(kind))
        good: dict[str, object] = {}
        for name, value in values.items():
            if name not in known:
                self.problems.append(
                    LimitProblem(f"{location}.{name}", "there is no such limit", _nearest(name, known))
                )
                continue
            entry: dict[str, Any] = {name: value}
            try:
                kind(**entry)
            except ValueError as error:
                self.problems.append(LimitProblem(f"{location}.{name}", str(error), "correct the number"))
            else:
                good[name] = value
        return good

    def named(self, tables: Mapping[str, object], location: str, kind: _Kind) -> dict[str, dict[str, object]]:
        """Return the numbers of each named table."""
        places = {name: f"{location}.{name}" for name in tables}
        return {
            name: self.numbers(self.table(entry, places[name]), places[name], kind) for name, entry in tables.items()
        }

    def networks(self, tables: Mapping[str, object]) -> dict[str, object]:
        """Return the tables by the name that `network_of` gives their network."""
        named: dict[str, object] = {}
        for name, entry in tables.items():
            try:
                named[parse_limit_network(name)] = entry
            except ValueError as error:
                hint = "limits count each /24 of IPv4 and each /64 of IPv6; name one of those"
                self.problems.append(LimitProblem(f"limits.network.{name}", str(error), hint))
        return named


def _nearest(name: str, known: tuple[str, ...]) -> str:
    near = nearest_name(name, known)
    return f"did you mean {near}?" if near else f"the limits are {', '.join(known)}"
