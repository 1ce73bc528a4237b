"""The numbers: none can be switched off, and the narrower table beats the wider one."""

import math
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest

from dicomward.limits.settings import (
    LEAST_BYTES_PER_SECOND,
    ROLE_LIMITS,
    ArchiveLimits,
    DeviceLimits,
    LimitSettings,
    NetworkLimits,
    StrangerLimits,
)
from dicomward.vocab.principal import Role

GROUPS: tuple[Any, ...] = (DeviceLimits(), NetworkLimits(), ArchiveLimits(), StrangerLimits())
EVERY_LIMIT = [
    pytest.param(group, item.name, id=f"{type(group).__name__}.{item.name}")
    for group in GROUPS
    for item in fields(group)
]


@pytest.mark.parametrize(("group", "name"), EVERY_LIMIT)
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, None, "100", True, 10**13])
def test_trap_no_limit_can_be_switched_off(group: Any, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"the limit {name} is .* cannot be switched off"):
        replace(group, **{name: value})


@pytest.mark.parametrize(("group", "name"), EVERY_LIMIT)
def test_every_limit_can_be_set_to_the_least_and_has_unit_and_reason(group: Any, name: str) -> None:
    item = next(item for item in fields(group) if item.name == name)
    assert getattr(replace(group, **{name: item.metadata["least"]}), name) == item.metadata["least"]
    assert item.metadata["unit"]
    assert len(item.metadata["reason"]) > 5


def test_counts_are_whole_numbers_and_seconds_may_be_fractions() -> None:
    with pytest.raises(ValueError, match="whole number"):
        DeviceLimits(associations=1.5)  # type: ignore[arg-type]
    assert StrangerLimits(address_first_delay_seconds=1).address_first_delay_seconds == 1


def test_bytes_a_second_stay_above_what_peers_wait_for() -> None:
    with pytest.raises(ValueError, match=f"from {LEAST_BYTES_PER_SECOND}"):
        DeviceLimits(bytes_per_second=LEAST_BYTES_PER_SECOND - 1)


def test_limits_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        DeviceLimits().associations = 10**6  # type: ignore[misc]


# --- defaults that fit a hospital ------------------------------------------------------------------------------------


def test_default_lets_a_ct_send_3000_slices_in_a_minute_even_with_an_association_for_each() -> None:
    modality = LimitSettings().for_device("CT1", Role.MODALITY)
    assert modality.stores_per_minute >= 3_000
    assert modality.floor_associations_per_minute >= 3_000


def test_default_lets_a_workstation_open_20_associations_at_once() -> None:
    assert LimitSettings().for_device("WS1", Role.WORKSTATION).associations >= 20


def test_default_lets_a_workstation_ask_120_times_a_minute() -> None:
    assert LimitSettings().for_device("WS1", Role.WORKSTATION).queries_per_minute == 120


@pytest.mark.parametrize("role", [*Role, "", "unknown"])
def test_every_role_has_limits_with_room_for_queries_among_the_operations(role: str) -> None:
    limits = LimitSettings().for_device("X", role)
    assert limits.queries_per_minute < limits.operations_per_minute


def test_trap_unknown_role_has_no_more_than_the_default() -> None:
    assert LimitSettings().for_device("X", "administrator") == DeviceLimits()


def test_network_has_room_for_several_devices() -> None:
    of_network, of_device = LimitSettings().for_network("10.1.2.0/24"), DeviceLimits()
    for item in fields(of_network):
        assert getattr(of_network, item.name) >= 2 * getattr(of_device, item.name)


def test_built_in_roles_name_real_limits() -> None:
    assert set(ROLE_LIMITS) <= {role.value for role in Role}
    for role in ROLE_LIMITS:
        assert LimitSettings().for_device("X", role) != DeviceLimits()


# --- which table wins ------------------------------------------------------------------------------------------------

WRITTEN = LimitSettings(
    device={"queries_per_minute": 30, "associations": 10},
    roles={"workstation": {"queries_per_minute": 90}},
    devices={"WS1": {"queries_per_minute": 200}},
    network=NetworkLimits(queries_per_minute=500),
    networks={"10.1.2.0/24": {"associations": 7}},
    archive=ArchiveLimits(associations=20),
    archives={"PACS": {"associations": 8}},
)


@pytest.mark.parametrize(
    ("device", "role", "queries"),
    [
        ("WS1", "workstation", 200),
        ("WS1", "modality", 200),
        ("WS2", "workstation", 90),
        ("CT1", "modality", 30),
        ("UP1", "uploader", 30),
    ],
)
def test_narrower_table_beats_wider_one_and_written_beats_built_in(device: str, role: str, queries: int) -> None:
    limits = WRITTEN.for_device(device, role)
    assert limits.queries_per_minute == queries
    assert limits.associations == 10
    assert limits.stores_per_minute == DeviceLimits().stores_per_minute


def test_built_in_number_of_a_role_stays_where_nothing_is_written() -> None:
    assert WRITTEN.for_device("P", "archive").matches_per_query == ROLE_LIMITS["archive"]["matches_per_query"]


def test_networks_and_targets_have_their_own_numbers() -> None:
    assert WRITTEN.for_network("10.1.2.0/24") == NetworkLimits(queries_per_minute=500, associations=7)
    assert WRITTEN.for_network("10.1.3.0/24") == NetworkLimits(queries_per_minute=500)
    assert WRITTEN.for_archive("PACS") == ArchiveLimits(associations=8)
    assert WRITTEN.for_archive("RIS") == ArchiveLimits(associations=20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": {"associations": 0}},
        {"roles": {"workstation": {"associations": 0}}},
        {"devices": {"WS1": {"associations": 0}}},
        {"networks": {"10.1.2.0/24": {"associations": 0}}},
        {"archives": {"PACS": {"associations": 0}}},
    ],
)
def test_trap_wrong_number_is_found_at_start_and_not_when_a_device_calls(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be switched off"):
        LimitSettings(**wrong)


def test_name_that_is_no_limit_is_found_at_start() -> None:
    with pytest.raises(TypeError, match="bypass"):
        LimitSettings(device={"bypass": 1})
