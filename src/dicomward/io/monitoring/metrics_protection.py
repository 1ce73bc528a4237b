"""What budgets, emergency bypasses and legacy zones tell monitoring: how near an end is, what waits for a person."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from dicomward.identity.registry import RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.io.monitoring.metrics import Family, MetricKind, gauge, labelled
from dicomward.io.monitoring.metrics_events import MOST_NAMES
from dicomward.io.protection.budget_view import holder_of
from dicomward.io.protection.budgets import BudgetStore
from dicomward.policy.bypass import Bypass


def budget_families(store: BudgetStore, registry: RegistrySnapshot) -> Iterable[Family]:
    """Return how much of its budgets each device has used: of each measure the period that is nearest its end."""
    used: dict[object, float] = {}
    for name in store.devices()[:MOST_NAMES]:
        for each in store.usage(holder_of(registry, name)):
            key = (name, each.measure.value)
            used[key] = max(used.get(key, 0.0), each.used / each.budget)
    yield labelled(
        "dicomward_budget_used_ratio",
        MetricKind.GAUGE,
        "What a device has used of a budget, of the period that is nearest its end; 1 is all of it.",
        ("device", "measure"),
        used,
    )


def bypass_families(bypasses: Iterable[Bypass]) -> Iterable[Family]:
    """Return how many bypasses are open, and how many have ended and wait for their review."""
    known = tuple(bypasses)
    is_open = sum(each.is_open for each in known)
    waiting = sum(not each.is_open and not each.is_reviewed for each in known)
    yield gauge("dicomward_bypass_open", "Emergency bypasses that are open.", is_open)
    yield gauge("dicomward_bypass_not_reviewed", "Emergency bypasses that have ended and nobody has reviewed.", waiting)


def reverse_families(parked: Mapping[str, int], registry: RegistrySnapshot) -> Iterable[Family]:
    """Return how many reverse connections each device has that may have some: none means that its agent is away."""
    registered = [device.name for device in registry.devices if device.reverse and device.is_active]
    counts: Mapping[object, float] = {name: parked.get(name, 0) for name in registered[:MOST_NAMES]}
    yield labelled(
        "dicomward_reverse_parked",
        MetricKind.GAUGE,
        "Reverse connections of a device that wait to be used; 0 means that it can't be called.",
        "device",
        counts,
    )


def zone_families(zones: Iterable[LegacyZone], now: datetime) -> Iterable[Family]:
    """Return the days that each legacy zone has left; `now` is aware, in the site's own time."""
    left: Mapping[object, float] = {zone.name: zone.days_left(now) for zone in zones}
    yield labelled(
        "dicomward_legacy_zone_days_left",
        MetricKind.GAUGE,
        "Days until the last day of a legacy zone, below 0 after it: then only the clinical floor is left in it.",
        "zone",
        left,
    )
