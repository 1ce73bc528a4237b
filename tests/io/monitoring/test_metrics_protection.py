"""Budgets, emergency bypasses and legacy zones in numbers."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from dicomward.identity.registry import Device, DeviceStatus, RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.io.monitoring import metrics_protection
from dicomward.io.monitoring.metrics import Metrics, Source
from dicomward.io.monitoring.metrics_protection import budget_families, bypass_families, reverse_families, zone_families
from dicomward.io.protection.budgets import BudgetStore
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.budgets import Charge, Holder
from dicomward.policy.bypass import Bypass
from tests.io.monitoring.test_metrics import values_of

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
EMPTY = RegistrySnapshot(revision=1, devices=(), archives=())


def told(source: Source) -> dict[str, float]:
    metrics = Metrics()
    metrics.register("one", source)
    found = values_of(metrics.render())
    return {
        f"{name.removeprefix('dicomward_')} {' '.join(value for _, value in labels)}".strip(): number
        for (name, labels), number in found.items()
        if "metrics" not in name
    }


def test_budget_is_told_by_the_period_that_is_nearest_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = BudgetSettings(device={"matches_per_hour": 10, "matches_per_day": 1000, "bytes_per_day": 400})
    store = BudgetStore(tmp_path, settings, failed=print, works=print, record=print)
    try:
        store.charge((Holder("read1", ""),), Charge(matches=4, bytes=100))
        store.charge((Holder("read2", ""),), Charge(matches=1))
        found = told(lambda: budget_families(store, EMPTY))
        assert found["budget_used_ratio read1 matches"] == 0.4
        assert found["budget_used_ratio read1 bytes"] == 0.25
        assert found["budget_used_ratio read2 matches"] == 0.1
        monkeypatch.setattr(metrics_protection, "MOST_NAMES", 1)
        assert len({name.split()[1] for name in told(lambda: budget_families(store, EMPTY))}) == 1
    finally:
        store.close()


def test_bypasses_are_counted_until_they_are_reviewed() -> None:
    bypass = Bypass(
        bypass_id="20270301-1",
        device="ct1",
        site=None,
        reason="night",
        operator="anna",
        minutes=30,
        opened_at=NOW,
        boot="b",
        boot_seconds=1.0,
    )
    ended = replace(bypass, ended_at=NOW)
    reviewed = replace(ended, reviewed_at=NOW)
    assert told(lambda: bypass_families([bypass, ended, ended, reviewed])) == {
        "bypass_open": 1,
        "bypass_not_reviewed": 2,
    }


def test_zone_counts_its_days() -> None:
    zone = LegacyZone(name="old", networks=("10.0.0.0/8",), end_date=date(2027, 3, 31))
    over = replace(zone, name="over", end_date=date(2027, 2, 26))
    assert told(lambda: zone_families([zone, over], NOW)) == {
        "legacy_zone_days_left old": 30,
        "legacy_zone_days_left over": -3,
    }


def test_device_that_can_not_be_called_counts_zero() -> None:
    behind = Device(name="ws1", ae_titles=("WS1",), role="workstation", networks=("10.0.0.1",), reverse=True)
    registry = RegistrySnapshot(
        revision=1,
        devices=(
            behind,
            replace(behind, name="ws2", ae_titles=("WS2",)),
            replace(behind, name="off", ae_titles=("OFF",), status=DeviceStatus.SUSPENDED),
            replace(behind, name="ct1", ae_titles=("CT1",), reverse=False),
        ),
        archives=(),
    )
    assert told(lambda: reverse_families({"ws1": 2}, registry)) == {"reverse_parked ws1": 2, "reverse_parked ws2": 0}
