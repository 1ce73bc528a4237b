"""Every budget with its default and reason: how much of the archive one device may take out in an hour, a day, 30 days.

What an administrator writes beats what is built in, and the narrower table beats the wider one:

    built-in default < built-in for the role < [budgets] < [budgets.role.NAME] < [budgets.device.NAME]

No number can be 0, so no budget can be switched off. docs/budgets.md is checked against this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from dicomward.limits.table_reader import TableReader
from dicomward.vocab.principal import Role

_CEILING: Final = 1_000_000_000_000_000
_GB: Final = 1_000_000_000


class AtEnd(StrEnum):
    """What happens to a device whose budget has ended."""

    SLOW = "slow"
    REFUSE = "refuse"


def _budget(default: int, unit: str, reason: str, *, ceiling: int = _CEILING) -> Any:
    return field(default=default, metadata={"unit": unit, "reason": reason, "ceiling": ceiling})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBudgets:
    """What one device may take out. Raises ValueError with the name, the value and the range.

    The defaults are for a role of your own; the ready roles have numbers in `ROLE_BUDGETS`.
    """

    patients_per_hour: int = _budget(200, "patients", "one every 18 s, for a whole hour: faster than a person reads")
    patients_per_day: int = _budget(500, "patients", "a full day's list of one department")
    patients_per_30_days: int = _budget(5_000, "patients", "a department's month; no list of a whole hospital")
    studies_per_hour: int = _budget(400, "studies", "two for each patient: the new one and a prior")
    studies_per_day: int = _budget(1_500, "studies", "three for each patient")
    studies_per_30_days: int = _budget(15_000, "studies", "three for each patient")
    matches_per_hour: int = _budget(20_000, "matches", "twenty lists with as many rows as one query may return")
    matches_per_day: int = _budget(100_000, "matches", "five such hours")
    matches_per_30_days: int = _budget(1_000_000, "matches", "ten such days; lists repeat the same patients")
    bytes_per_hour: int = _budget(100 * _GB, "bytes", "100 CT studies of 1 GB")
    bytes_per_day: int = _budget(500 * _GB, "bytes", "five such hours")
    bytes_per_30_days: int = _budget(5_000 * _GB, "bytes", "ten such days")
    warn_percent: int = _budget(80, "percent", "early enough to ask before it ends, late enough to be rare", ceiling=99)
    at_end: AtEnd = field(
        default=AtEnd.REFUSE,
        metadata={"unit": "", "reason": "who takes no part in an examination can wait for a person to look"},
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "at_end":
                if value not in tuple(AtEnd):
                    raise ValueError(f'at_end is {value!r}; write "{AtEnd.SLOW}" or "{AtEnd.REFUSE}"')
                object.__setattr__(self, "at_end", AtEnd(value))
                continue
            ceiling = item.metadata["ceiling"]
            if type(value) is not int or not 1 <= value <= ceiling:
                raise ValueError(
                    f"the budget {item.name} is {value!r}; it must be a whole number from 1 to {ceiling}: "
                    "a budget cannot be switched off"
                )


Overrides = Mapping[str, Any]

_READING: Final[Overrides] = MappingProxyType(
    {
        # A list of a large hospital's week has 5,000 rows, and viewers ask for it anew each minute.
        "patients_per_hour": 5_000,
        "patients_per_day": 10_000,
        "patients_per_30_days": 50_000,
        "studies_per_hour": 10_000,
        "studies_per_day": 20_000,
        "studies_per_30_days": 100_000,
        "matches_per_hour": 500_000,
        "matches_per_day": 5_000_000,
        "matches_per_30_days": 100_000_000,
        # A reader's line at full speed for seven minutes of each hour: 1,000 studies of 500 MB.
        "bytes_per_hour": 500 * _GB,
        "bytes_per_day": 2_000 * _GB,
        "bytes_per_30_days": 20_000 * _GB,
        "at_end": AtEnd.SLOW,
    }
)

ROLE_BUDGETS: Final[Mapping[str, Overrides]] = MappingProxyType(
    {
        # Priors of the day's patients; a scanner examines 30 to 60 a day.
        Role.MODALITY.value: MappingProxyType(
            {
                "patients_per_hour": 500,
                "patients_per_day": 1_000,
                "patients_per_30_days": 10_000,
                "studies_per_hour": 1_000,
                "studies_per_day": 3_000,
                "studies_per_30_days": 30_000,
                "at_end": AtEnd.SLOW,
            }
        ),
        Role.WORKSTATION.value: _READING,
        # Prefetching and synchronising for everybody: ten workstations. Raise it for a migration.
        Role.ARCHIVE.value: MappingProxyType(
            {name: value if isinstance(value, AtEnd) else value * 10 for name, value in _READING.items()}
        ),
        # It stores, and looks for what it has stored.
        Role.UPLOADER.value: MappingProxyType(
            {
                "patients_per_hour": 50,
                "patients_per_day": 200,
                "patients_per_30_days": 2_000,
                "studies_per_hour": 100,
                "studies_per_day": 400,
                "studies_per_30_days": 4_000,
                "matches_per_hour": 2_000,
                "matches_per_day": 10_000,
                "matches_per_30_days": 100_000,
                "bytes_per_hour": 10 * _GB,
                "bytes_per_day": 50 * _GB,
                "bytes_per_30_days": 500 * _GB,
            }
        ),
        # The night's emergencies of several hospitals, with priors, and the lists that they are chosen from.
        Role.TELERADIOLOGY.value: MappingProxyType(
            {
                "patients_per_hour": 500,
                "patients_per_day": 1_500,
                "patients_per_30_days": 15_000,
                "studies_per_hour": 1_000,
                "studies_per_day": 4_000,
                "studies_per_30_days": 40_000,
                "matches_per_hour": 60_000,
                "matches_per_day": 300_000,
                "matches_per_30_days": 3_000_000,
            }
        ),
        # A cohort is fetched overnight; a larger one is a project that somebody has approved, with a number.
        Role.RESEARCH.value: MappingProxyType({"patients_per_day": 2_000, "studies_per_day": 4_000}),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """All budgets: `device` is what is written in `[budgets]` itself, the mappings are the narrower tables."""

    device: Overrides = field(default_factory=dict)
    roles: Mapping[str, Overrides] = field(default_factory=dict)
    devices: Mapping[str, Overrides] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError (TypeError for a name that is no budget) now, not when a device first asks."""
        self.for_device("", "")
        for role in self.roles:
            self.for_device("", role)
        for device in self.devices:
            self.for_device(device, "")

    def for_device(self, device: str, role: str) -> DeviceBudgets:
        """Return the budgets of a device of that role; an unknown role has the defaults."""
        layers = (ROLE_BUDGETS.get(role, {}), self.device, self.roles.get(role, {}), self.devices.get(device, {}))
        return DeviceBudgets(**{name: value for layer in layers for name, value in layer.items()})


def parse_budgets(table: Mapping[str, object]) -> BudgetSettings:
    """Read the `[budgets]` table as a TOML parser gives it. Raises LimitSettingsError with every problem."""
    reader = TableReader("budget")
    own = {key: value for key, value in table.items() if key not in ("role", "device")}
    roles, devices = (
        reader.named(reader.table(table.get(key, {}), f"budgets.{key}"), f"budgets.{key}", DeviceBudgets)
        for key in ("role", "device")
    )
    device = reader.entries(own, "budgets", DeviceBudgets)
    reader.raise_problems()
    return BudgetSettings(device=device, roles=roles, devices=devices)
