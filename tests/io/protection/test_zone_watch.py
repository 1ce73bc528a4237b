"""Alarms of legacy zones as the days go by; the time travels."""

from datetime import UTC, date, datetime, timedelta

from dicomward.audit.event import AuditEvent, DegradedEntered, LegacyZoneAlarm
from dicomward.identity.zone import LegacyZone
from dicomward.io.protection.zone_watch import ZoneWatch
from dicomward.vocab.reason import ReasonCode

END = date(2027, 3, 31)
ZONES = (
    LegacyZone(name="old", networks=("10.1.2.0/24",), end_date=END, site="main"),
    LegacyZone(name="later", networks=("10.1.3.0/24",), end_date=date(2030, 1, 1)),
)
NOON = datetime(2027, 3, 31, 12, tzinfo=UTC)


def test_each_alarm_is_raised_once_while_the_days_go_by() -> None:
    events: list[AuditEvent] = []
    watch = ZoneWatch(ZONES, events.append)
    for hours in range(-24 * 40, 24 * 5, 6):
        watch.check(NOON + timedelta(hours=hours))
    alarms = [event for event in events if isinstance(event, LegacyZoneAlarm)]
    assert [alarm.count for alarm in alarms] == [30, 14, 7, 1, 0]
    assert {alarm.zone for alarm in alarms} == {"old"}
    assert alarms[0].detail == (
        "the legacy zone 'old' ends on 2027-03-31, 30 days from now; then only the clinical floor is left in it"
    )
    assert [alarm.reason for alarm in alarms] == [None, None, None, None, ReasonCode.LEGACY_ZONE_OVER]
    (degraded,) = [event for event in events if isinstance(event, DegradedEntered)]
    assert (degraded.component, degraded.state) == ("legacy zone old", "clinical-floor")


def test_restart_says_the_alarm_that_stands_again() -> None:
    for days, count in ((20, 20), (-100, 0)):
        events: list[AuditEvent] = []
        ZoneWatch(ZONES, events.append).check(NOON - timedelta(days=days))
        assert isinstance(events[0], LegacyZoneAlarm)
        assert events[0].count == count


def test_nothing_is_said_long_before() -> None:
    events: list[AuditEvent] = []
    ZoneWatch(ZONES, events.append).check(NOON - timedelta(days=31))
    assert events == []
