"""The [limits] tables: read as an administrator writes them, every mistake named with what to do."""

import tomllib

import pytest

from dicomward.limits.settings import ArchiveLimits, LimitSettings, NetworkLimits, StrangerLimits
from dicomward.limits.table_reader import LimitSettingsError
from dicomward.limits.tables import parse_limits

WRITTEN = """
queries_per_minute = 30

[role.workstation]
queries_per_minute = 90

[device.CT1]
stores_per_minute = 5
associations = 2

[network]
associations = 50

[network."198.51.100.0/24"]
associations = 500

[network."2001:0db8::/64"]
associations = 60

[archive]
reserve_per_device = 2

[archive.PACS]
associations = 10

[strangers]
address_max_delay_seconds = 5.5
"""


def test_read_as_written() -> None:
    assert parse_limits(tomllib.loads(WRITTEN)) == LimitSettings(
        device={"queries_per_minute": 30},
        roles={"workstation": {"queries_per_minute": 90}},
        devices={"CT1": {"stores_per_minute": 5, "associations": 2}},
        network=NetworkLimits(associations=50),
        networks={"198.51.100.0/24": {"associations": 500}, "2001:db8::/64": {"associations": 60}},
        archive=ArchiveLimits(reserve_per_device=2),
        archives={"PACS": {"associations": 10}},
        strangers=StrangerLimits(address_max_delay_seconds=5.5),
    )


def test_nothing_written_gives_the_defaults() -> None:
    assert parse_limits({}) == LimitSettings()


@pytest.mark.parametrize(
    ("text", "location", "message", "hint"),
    [
        ("query_per_minute = 1", "limits.query_per_minute", "no such limit", "did you mean queries_per_minute?"),
        ("xyzzy = 1", "limits.xyzzy", "no such limit", "the limits are associations, "),
        ("associations = 0", "limits.associations", "cannot be switched off", "correct the value"),
        ("associations = '9'", "limits.associations", "'9'", "correct the value"),
        ("role = 1", "limits.role", "1 is not a table", "write [limits.role]"),
        ("role.workstation = 1", "limits.role.workstation", "not a table", "write [limits.role.workstation]"),
        ("device.CT1.associations = 0", "limits.device.CT1.associations", "switched off", "correct"),
        ("device = []", "limits.device", "not a table", "write [limits.device]"),
        ("network = 5", "limits.network", "not a table", "write [limits.network]"),
        ("network.matches_per_query = 5", "limits.network.matches_per_query", "no such limit", "the limits are"),
        ("network.'10.0.0.0/8'.associations = 5", "limits.network.10.0.0.0/8", "not a /24", "name one of those"),
        ("network.ward3.associations = 5", "limits.network.ward3", "ward3", "name one of those"),
        ("archive.asociations = 5", "limits.archive.asociations", "no such", "did you mean associations?"),
        ("archive.PACS.associations = 0", "limits.archive.PACS.associations", "switched off", "correct"),
        ("archive = 'x'", "limits.archive", "not a table", "write [limits.archive]"),
        ("strangers = 1", "limits.strangers", "not a table", "write [limits.strangers]"),
        ("strangers.tracked_addresses = 0.5", "limits.strangers.tracked_addresses", "whole", "correct"),
        ("strangers.x.y = 1", "limits.strangers.x", "no such limit", "the limits are"),
    ],
)
def test_trap_each_mistake_is_named_with_its_place_and_what_to_do(
    text: str, location: str, message: str, hint: str
) -> None:
    with pytest.raises(LimitSettingsError) as raised:
        parse_limits(tomllib.loads(text))
    (problem,) = raised.value.problems
    assert problem.location == location
    assert message in problem.message
    assert hint in problem.hint


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(LimitSettingsError) as raised:
        parse_limits({"x": 1, "associations": 0, "role": {"a": {"y": 1}}})
    assert [problem.location for problem in raised.value.problems] == [
        "limits.x",
        "limits.associations",
        "limits.role.a.y",
    ]
    assert str(raised.value).count("\n") == 2
