"""Every rate and cap with its default, unit and reason.

No number can be 0, so none can be switched off. What an administrator writes (`tables.py` reads it) beats what is
built in, and the narrower table beats the wider one:

    built-in default < built-in for the role < [limits] < [limits.role.NAME] < [limits.device.NAME]

docs/limits.md is checked against this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final

from dicomward.vocab.principal import Role

# No setting may grow so large that it stops being a limit.
_CEILING: Final = 1_000_000_000_000
# Below this, one read of 256 KiB would pause for longer than peers wait for an answer.
LEAST_BYTES_PER_SECOND: Final = 65_536

Overrides = Mapping[str, float]


def _limit(default: float, unit: str, reason: str, *, least: float | None = None) -> Any:
    """Declare one limit; the docs are checked against `unit`, `reason` and `least` (1, or above 0 for seconds)."""
    return field(default=default, metadata={"unit": unit, "reason": reason, "least": least or _least(default)})


def _least(default: float) -> float:
    return 1 if isinstance(default, int) else 0.001


def _check(limits: Any) -> None:
    """Raise ValueError for a number that is none, or that would switch its limit off."""
    for item in fields(limits):
        value, least = getattr(limits, item.name), item.metadata["least"]
        whole = isinstance(item.default, int)
        if type(value) not in ((int,) if whole else (int, float)) or not least <= value <= _CEILING:
            raise ValueError(
                f"the limit {item.name} is {value!r}; it must be a {'whole ' if whole else ''}number from {least} to "
                f"{_CEILING}: a limit cannot be switched off"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLimits:
    """What one device may use. Raises ValueError with the name, the value and the range.

    A bucket "a minute" holds one minute's worth: in t minutes at most its number × (t + 1) gets through. "Floor" is the
    clinical floor (docs/patient-safety.md): C-STORE, Modality Worklist, C-ECHO, MPPS and Storage Commitment count in
    buckets of their own, so that nothing else can use them up.
    """

    associations: int = _limit(
        64, "open at once", "a workstation opens 20 at once to fetch a study, and again for the next patient"
    )
    floor_associations: int = _limit(
        64, "open at once", "a scanner opens 1 to 8; apart, so that stuck queries never keep images from being stored"
    )
    associations_per_minute: int = _limit(
        600,
        "a minute",
        "a viewer that opens one for each query and series opens 5 a second at its worst, and as much again",
    )
    floor_associations_per_minute: int = _limit(
        6_000, "a minute", "old scanners open one for each image: 3,000 slices in a minute, and as much again"
    )
    operations_per_minute: int = _limit(
        1_200, "a minute", "everything outside the floor, queries included: 20 a second is a busy viewer, not a person"
    )
    queries_per_minute: int = _limit(
        60, "a minute", "C-FIND without Modality Worklist: one a second; roles that read for a living get more below"
    )
    stores_per_minute: int = _limit(
        120_000,
        "a minute",
        "a CT sends 3,000 slices in a minute; the fastest sender on one association does 1,200 a second",
    )
    worklist_queries_per_minute: int = _limit(
        600, "a minute", "scanners ask every 10 s to 60 s or on a key press; apart, so that a loop never stops images"
    )
    floor_operations_per_minute: int = _limit(
        6_000, "a minute", "C-ECHO, MPPS and Storage Commitment: two or three for each examination"
    )
    matches_per_query: int = _limit(
        1_000, "matches", "a day's studies of a large hospital; a query that finds more was not meant for a screen"
    )
    worklist_matches_per_query: int = _limit(
        5_000,
        "matches",
        "the whole worklist of all scanners for several days; a scanner that asks too widely still works",
    )
    bytes_per_second: int = _limit(
        1_250_000_000,
        "bytes a second",
        "the fastest network card on a device (10 Gbit/s); above it we pause, we never refuse",
        least=LEAST_BYTES_PER_SECOND,
    )
    floor_bytes_per_second: int = _limit(
        1_250_000_000,
        "bytes a second",
        "the same, apart: reading in the same network never slows images down",
        least=LEAST_BYTES_PER_SECOND,
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkLimits:
    """What all devices of one network (`network_of`) may use together. Raises ValueError as DeviceLimits does.

    A site behind one address (NAT) is one network: raise the numbers for it in `[limits.network."198.51.100.0/24"]`.
    """

    associations: int = _limit(1_024, "open at once", "16 devices at their own limit, or 250 with 4 each")
    floor_associations: int = _limit(1_024, "open at once", "the same, apart")
    associations_per_minute: int = _limit(6_000, "a minute", "10 devices at their own limit")
    floor_associations_per_minute: int = _limit(60_000, "a minute", "10 devices at their own limit")
    operations_per_minute: int = _limit(12_000, "a minute", "10 devices at their own limit")
    queries_per_minute: int = _limit(1_200, "a minute", "10 workstations at their own limit")
    stores_per_minute: int = _limit(1_200_000, "a minute", "10 devices at their own limit")
    worklist_queries_per_minute: int = _limit(6_000, "a minute", "10 devices at their own limit")
    floor_operations_per_minute: int = _limit(60_000, "a minute", "10 devices at their own limit")
    bytes_per_second: int = _limit(
        2_500_000_000,
        "bytes a second",
        "two devices at the full speed of their cards; lower it for a site's thin line",
        least=LEAST_BYTES_PER_SECOND,
    )
    floor_bytes_per_second: int = _limit(
        2_500_000_000, "bytes a second", "the same, apart", least=LEAST_BYTES_PER_SECOND
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """What goes to one target (an archive, or a device that listens) from everybody. Raises ValueError."""

    associations: int = _limit(
        128,
        "open at once",
        "archives take 4 (Orthanc 1.10), 10 (pynetdicom) or a few hundred; ask the vendor and write the number",
    )
    reserve_per_device: int = _limit(
        1, "places", "free places kept for each device that has none open, up to half of `associations`"
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrangerLimits:
    """How failures slow their author down. Delays hold failing connections only, never one that proves its key.

    Raises ValueError.
    """

    address_first_delay_seconds: float = _limit(
        0.25, "s", "after the first failure of an address: nobody who mistypes once notices"
    )
    address_max_delay_seconds: float = _limit(
        30.0, "s", "each failure doubles the delay up to this: from 8 failures on, two tries a minute for a connection"
    )
    address_half_life_seconds: float = _limit(
        60.0, "s", "a quiet minute halves the delay: a repaired device is forgiven within 8 minutes"
    )
    tracked_addresses: int = _limit(
        65_536, "addresses", "about 16 MB; when full, the address that failed longest ago is forgotten"
    )
    certificate_first_seconds: float = _limit(
        0.1, "s", "after the first failure of a known key: one mistyped title goes unnoticed, the fifth costs 1.6 s"
    )
    certificate_max_seconds: float = _limit(
        300.0, "s", "each failure doubles the back-off up to this: long enough to stop guessing, short enough to repair"
    )
    certificate_half_life_seconds: float = _limit(600.0, "s", "ten quiet minutes halve what the next failure costs")
    tracked_certificates: int = _limit(
        65_536, "certificates", "more than a registry has; when full, the one that failed longest ago is forgotten"
    )

    def __post_init__(self) -> None:
        _check(self)


# Built-in numbers of the ready roles, where they differ from the default of every device.
ROLE_LIMITS: Final[Mapping[str, Overrides]] = MappingProxyType(
    {
        # People read: a query for every keystroke of a search, and lists of a whole day.
        Role.WORKSTATION.value: MappingProxyType({"queries_per_minute": 120, "matches_per_query": 5_000}),
        # An archive prefetches, synchronises and sends whole studies for everybody.
        Role.ARCHIVE.value: MappingProxyType(
            {
                "associations": 256,
                "floor_associations": 256,
                "associations_per_minute": 6_000,
                "operations_per_minute": 12_000,
                "queries_per_minute": 600,
                "stores_per_minute": 600_000,
                "matches_per_query": 100_000,
            }
        ),
        # It stores; it has no reason to read fast.
        Role.UPLOADER.value: MappingProxyType({"queries_per_minute": 12, "matches_per_query": 100}),
        # One site over one line: a thousandth of a hospital's studies at a time, at most 1 Gbit/s.
        Role.TELERADIOLOGY.value: MappingProxyType({"matches_per_query": 500, "bytes_per_second": 125_000_000}),
        # A cohort is fetched overnight: few queries, no hurry.
        Role.RESEARCH.value: MappingProxyType({"queries_per_minute": 30, "bytes_per_second": 125_000_000}),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """All rates and caps: `device` is what is written in `[limits]` itself, the mappings are the narrower tables."""

    device: Overrides = field(default_factory=dict)
    network: NetworkLimits = NetworkLimits()
    archive: ArchiveLimits = ArchiveLimits()
    strangers: StrangerLimits = StrangerLimits()
    roles: Mapping[str, Overrides] = field(default_factory=dict)
    devices: Mapping[str, Overrides] = field(default_factory=dict)
    networks: Mapping[str, Overrides] = field(default_factory=dict)
    archives: Mapping[str, Overrides] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError (TypeError for a name that is no limit) now, not when a device first calls."""
        self.for_device("", "")
        for role in self.roles:
            self.for_device("", role)
        for device in self.devices:
            self.for_device(device, "")
        for network in self.networks:
            self.for_network(network)
        for archive in self.archives:
            self.for_archive(archive)

    def for_device(self, device: str, role: str) -> DeviceLimits:
        """Return the limits of a device of that role; an unknown role has the defaults."""
        layers = (ROLE_LIMITS.get(role, {}), self.device, self.roles.get(role, {}), self.devices.get(device, {}))
        merged: dict[str, Any] = {name: value for layer in layers for name, value in layer.items()}
        return DeviceLimits(**merged)

    def for_network(self, network: str) -> NetworkLimits:
        """Return the limits of a network as `network_of` names it."""
        overrides: dict[str, Any] = dict(self.networks.get(network, {}))
        return replace(self.network, **overrides)

    def for_archive(self, archive: str) -> ArchiveLimits:
        """Return the cap and the reserve of a target."""
        overrides: dict[str, Any] = dict(self.archives.get(archive, {}))
        return replace(self.archive, **overrides)
