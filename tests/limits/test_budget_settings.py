"""The tables of `[budgets]`, and docs/budgets.md."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from dicomward.limits import budgets
from dicomward.limits.budget_settings import ROLE_BUDGETS, AtEnd, BudgetSettings, DeviceBudgets, parse_budgets
from dicomward.limits.table_reader import LimitSettingsError
from dicomward.policy.strip import CLINICAL_ROLES
from dicomward.relay.pace import MOST_DELAY_SECONDS
from dicomward.vocab.principal import Role

TEXT = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text(encoding="utf-8")


def test_the_narrower_table_wins() -> None:
    settings = parse_budgets(
        {
            "patients_per_day": 7,
            "role": {"research": {"patients_per_day": 8, "studies_per_day": 9}},
            "device": {"r1": {"patients_per_day": 10, "at_end": "slow"}},
        }
    )
    assert settings.for_device("x", "uploader").patients_per_day == 7
    assert settings.for_device("x", "research").patients_per_day == 8
    assert settings.for_device("r1", "research").patients_per_day == 10
    assert settings.for_device("r1", "research").studies_per_day == 9
    assert settings.for_device("r1", "research").at_end is AtEnd.SLOW
    assert settings.for_device("x", "research").matches_per_hour == DeviceBudgets().matches_per_hour


@pytest.mark.parametrize("role", list(Role))
def test_clinical_roles_are_slowed_down_and_others_refused(role: Role) -> None:
    expected = AtEnd.SLOW if role.value in CLINICAL_ROLES else AtEnd.REFUSE
    assert BudgetSettings().for_device("", role.value).at_end is expected
    assert BudgetSettings().for_device("", "of-my-own").at_end is AtEnd.REFUSE


@pytest.mark.parametrize("role", [*Role, ""])
def test_longer_windows_have_larger_budgets(role: str) -> None:
    numbers = BudgetSettings().for_device("", role)
    for measure in budgets.Measure:
        hour, day, month = (getattr(numbers, f"{measure}_per_{span.label}") for span in budgets.Span)
        assert hour <= day <= month


@pytest.mark.parametrize("name", [item.name for item in fields(DeviceBudgets) if item.name != "at_end"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "7", 10**16])
def test_no_budget_can_be_switched_off(name: str, value: object) -> None:
    with pytest.raises(LimitSettingsError, match="cannot be switched off"):
        parse_budgets({name: value})


@pytest.mark.parametrize(
    ("table", "location", "message"),
    [
        ({"patients_per_hours": 1}, "budgets.patients_per_hours", "did you mean patients_per_hour?"),
        ({"zzz": 1}, "budgets.zzz", "the budgets are patients_per_hour"),
        ({"at_end": "stop"}, "budgets.at_end", 'write "slow" or "refuse"'),
        ({"at_end": ["slow"]}, "budgets.at_end", 'write "slow" or "refuse"'),
        ({"warn_percent": 100}, "budgets.warn_percent", "from 1 to 99"),
        ({"role": 5}, "budgets.role", "is not a table"),
        ({"role": {"research": 5}}, "budgets.role.research", "is not a table"),
        ({"device": {"r1": {"bytes_per_day": 0}}}, "budgets.device.r1.bytes_per_day", "cannot be switched off"),
    ],
)
def test_mistakes_are_located_and_explained(table: dict[str, object], location: str, message: str) -> None:
    with pytest.raises(LimitSettingsError) as caught:
        parse_budgets(table)
    (problem,) = caught.value.problems
    assert problem.location == location
    assert message in f"{problem.message}; {problem.hint}"


def test_settings_made_by_hand_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="cannot be switched off"):
        BudgetSettings(devices={"r1": {"patients_per_day": 0}})


# -- docs/budgets.md ---------------------------------------------------------------------------------------------------


def rows(columns: int) -> list[tuple[str, ...]]:
    lines = (line for line in TEXT.split("## The numbers", 1)[1].splitlines() if line.startswith("| `"))
    return [cells for line in lines if len(cells := tuple(c.strip() for c in line.strip("|").split("|"))) == columns]


def shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"`{value}`"


def test_every_budget_is_documented_with_its_default_unit_and_reason() -> None:
    assert rows(4) == [
        (f"`{item.name}`", shown(item.default), item.metadata["unit"], item.metadata["reason"])
        for item in fields(DeviceBudgets)
    ]


def test_every_built_in_number_of_a_role_is_documented() -> None:
    assert rows(3) == [
        (f"`{role}`", f"`{name}`", shown(value))
        for role, numbers in ROLE_BUDGETS.items()
        for name, value in numbers.items()
    ]


def test_the_example_can_be_read() -> None:
    (example,) = re.findall(r"```toml\n(\[budgets\].*?)```", TEXT, re.DOTALL)
    settings = parse_budgets(tomllib.loads(example)["budgets"])
    assert settings.for_device("cohort7", "research").bytes_per_day == 2_000_000_000_000


def test_constants_are_documented() -> None:
    for text in (
        f"{budgets.OVER_ITEM_SECONDS:g} s for each further patient or study",
        f"{budgets.OVER_MATCH_SECONDS:g} s for each match",
        f"{budgets.OVER_BYTES_PER_SECOND:,} bytes a second",
        f"at most {MOST_DELAY_SECONDS:g} s at a time",
        f"{budgets.LEASE_BYTES:,} bytes for each association",
    ):
        assert text in TEXT
