"""Legacy zones: named networks, a last day, alarms before it; the time travels."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from dicomward.identity.network import NetworkError
from dicomward.identity.zone import ALARM_DAYS, LegacyZone, ZoneError, alarm_of, is_one_address

END = date(2027, 3, 31)
ZONE = LegacyZone(name="old", networks=("10.1.2.0/24", "2001:db8::/64"), end_date=END)


def at(days: int, hour: int = 12) -> datetime:
    """So many days before the end date."""
    return datetime(2027, 3, 31, hour, tzinfo=UTC) - timedelta(days=days)


@pytest.mark.parametrize(
    ("networks", "message"),
    [((), "must name its networks"), (("any",), "everybody could call"), (("10.1.2.3/24",), "is not a network")],
)
def test_networks_must_be_named(networks: tuple[str, ...], message: str) -> None:
    with pytest.raises(ZoneError, match=message):
        LegacyZone(name="old", networks=networks, end_date=END)


def test_addresses_outside_are_refused() -> None:
    assert ZONE.allows("10.1.2.3")
    assert ZONE.allows("::ffff:10.1.2.3")
    assert not ZONE.allows("10.1.3.3")


def test_networks_inside_are_held() -> None:
    assert ZONE.holds("10.1.2.3")
    assert ZONE.holds("10.1.2.0/25")
    assert ZONE.holds("2001:db8::1")
    assert not ZONE.holds("10.1.0.0/16")
    assert not ZONE.holds("any")
    with pytest.raises(NetworkError):
        ZONE.holds("here")


def test_last_day_belongs_to_the_zone_in_the_sites_own_time() -> None:
    assert not ZONE.is_over(at(0, 23))
    assert ZONE.is_over(at(-1, 0))
    tokyo = timezone(timedelta(hours=9))
    assert ZONE.is_over(datetime(2027, 4, 1, 0, 0, tzinfo=tokyo))
    assert ZONE.ends(datetime(2027, 1, 1, tzinfo=tokyo)) == datetime(2027, 4, 1, tzinfo=tokyo)


@pytest.mark.parametrize(
    ("days", "alarm"),
    [(31, None), (30, 30), (29, 30), (15, 30), (14, 14), (8, 14), (7, 7), (2, 7), (1, 1), (0, 1), (-1, -1), (-400, -1)],
)
def test_alarm_is_the_least_that_was_reached(days: int, alarm: int | None) -> None:
    assert alarm_of(ZONE, at(days)) == alarm
    assert ZONE.days_left(at(days)) == days


def test_each_alarm_comes_once_on_the_way() -> None:
    seen = [alarm_of(ZONE, at(days)) for days in range(60, -10, -1)]
    changes = [alarm for alarm, before in zip(seen[1:], seen, strict=False) if alarm != before]
    assert changes == [*ALARM_DAYS, -1]


def test_single_addresses_are_told_from_networks() -> None:
    assert is_one_address("10.1.2.3")
    assert is_one_address("2001:db8::1/128")
    assert not is_one_address("10.1.2.0/30")
    assert not is_one_address("any")
