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
from typing import Any, Final

from dicomward.limits.network import parse_limit_network
from dicomward.limits.settings import ArchiveLimits, DeviceLimits, LimitSettings, NetworkLimits, StrangerLimits
from dicomward.limits.table_reader import LimitProblem, TableReader

_TABLES: Final = ("role", "device", "network", "archive", "strangers")


def parse_limits(table: Mapping[str, object]) -> LimitSettings:
    """Read the `[limits]` table as a TOML parser gives it. Raises LimitSettingsError."""
    reader = TableReader("limit")
    own = {key: value for key, value in table.items() if key not in _TABLES}
    network, networks = _split(reader, table, "network")
    archive, archives = _split(reader, table, "archive")
    strangers = reader.table(table.get("strangers", {}), "limits.strangers")
    numbers: dict[str, Any] = {
        "device": reader.entries(own, "limits", DeviceLimits),
        "roles": reader.named(reader.table(table.get("role", {}), "limits.role"), "limits.role", DeviceLimits),
        "devices": reader.named(reader.table(table.get("device", {}), "limits.device"), "limits.device", DeviceLimits),
        "networks": reader.named(_networks(reader, networks), "limits.network", NetworkLimits),
        "archives": reader.named(archives, "limits.archive", ArchiveLimits),
    }
    groups: dict[str, dict[str, Any]] = {
        "network": reader.entries(network, "limits.network", NetworkLimits),
        "archive": reader.entries(archive, "limits.archive", ArchiveLimits),
        "strangers": reader.entries(strangers, "limits.strangers", StrangerLimits),
    }
    reader.raise_problems()
    return LimitSettings(
        **numbers,
        network=NetworkLimits(**groups["network"]),
        archive=ArchiveLimits(**groups["archive"]),
        strangers=StrangerLimits(**groups["strangers"]),
    )


def _split(reader: TableReader, table: Mapping[str, object], key: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return the numbers and the tables of `[limits.key]`."""
    entries = reader.table(table.get(key, {}), f"limits.{key}")
    own = {name: value for name, value in entries.items() if not isinstance(value, Mapping)}
    return own, {name: value for name, value in entries.items() if name not in own}


def _networks(reader: TableReader, tables: Mapping[str, object]) -> dict[str, object]:
    """Return the tables by the name that `network_of` gives their network."""
    named: dict[str, object] = {}
    for name, entry in tables.items():
        try:
            named[parse_limit_network(name)] = entry
        except ValueError as error:
            hint = "limits count each /24 of IPv4 and each /64 of IPv6; name one of those"
            reader.problems.append(LimitProblem(f"limits.network.{name}", str(error), hint))
    return named
