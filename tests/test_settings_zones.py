"""`[[legacy_zones]]` of the settings: read, and refused with the place and what to do."""

from datetime import date
from pathlib import Path

import pytest

from dicomward.settings import ZONE_KEYS, ListenAddress, Settings, SettingsError, parse_settings

GOOD = """
[[legacy_zones]]
name = "radiology"
listen = "10.1.2.1:104"
networks = ["10.1.2.0/24"]
end_date = 2027-03-31
site = "main"
"""


def read(text: str) -> Settings:
    return parse_settings(text, path=Path("/etc/dicomward.toml"))


def test_zone_is_read() -> None:
    (zone,) = read(GOOD).legacy_zones
    assert zone.listen == ListenAddress(host="10.1.2.1", port=104)
    assert (zone.zone.name, zone.zone.networks, zone.zone.site) == ("radiology", ("10.1.2.0/24",), "main")
    assert zone.zone.end_date == date(2027, 3, 31)
    assert set(ZONE_KEYS) == {"name", "listen", "networks", "end_date", "site"}


def test_there_is_none_without_being_asked_for() -> None:
    assert read("").legacy_zones == ()


def test_day_may_be_a_text() -> None:
    assert read(GOOD.replace("2027-03-31", '"2027-03-31"')).legacy_zones[0].zone.end_date == date(2027, 3, 31)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "radiology"\n', "", "legacy_zones[0]: 'name' is missing"),
        ('listen = "10.1.2.1:104"\n', "", "'listen' is missing"),
        ('networks = ["10.1.2.0/24"]\n', "", "'networks' is missing; must be named"),
        ("end_date = 2027-03-31\n", "", "'end_date' is missing; its last day"),
        ("end_date = 2027-03-31", "end_date = 2027-03-31T10:00:00", "is not a day; write it as 2027-03-31"),
        ("end_date = 2027-03-31", 'end_date = "soon"', "'soon' is not a day"),
        ("end_date = 2027-03-31", "end_date = 5", "5 is not a day"),
        ('"10.1.2.1:104"', '"10.1.2.1"', "legacy_zones[0].listen: '10.1.2.1' is not HOST:PORT"),
        ('"10.1.2.1:104"', "104", "104 is not HOST:PORT"),
        ('["10.1.2.0/24"]', '["any"]', "everybody could call in plaintext"),
        ('["10.1.2.0/24"]', '["10.1.2.1/24"]', "is not a network"),
        ('["10.1.2.0/24"]', "[]", "must name its networks"),
        ('["10.1.2.0/24"]', '"10.1.2.0/24"', "is not a list of networks"),
        ('"main"', "7", "legacy_zones[0].site: 7 is not a text"),
        ('site = "main"', "sites = 1", "dicomward.toml:7: legacy_zones[0].sites: there is no such setting"),
        ('"radiology"', '"device"', "the name 'device' is taken"),
        ('"10.1.2.1:104"', '"127.0.0.1:11112"', "something else listens on 127.0.0.1:11112"),
    ],
)
def test_mistake_is_said(old: str, new: str, problem: str) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert problem in str(caught.value)


def test_two_zones_need_two_names_and_ports() -> None:
    with pytest.raises(SettingsError) as caught:
        read(GOOD + GOOD)
    assert "the name 'radiology' is taken" in str(caught.value)
    assert "something else listens on 10.1.2.1:104" in str(caught.value)


@pytest.mark.parametrize("text", ["legacy_zones = 3", "legacy_zones = [3]"])
def test_list_of_tables_is_asked_for(text: str) -> None:
    with pytest.raises(SettingsError, match=r"write \[\[legacy_zones\]\]"):
        read(text)
