"""Alarms of legacy zones: 30, 14, 7 and 1 days before the end, and when a zone has narrowed to the clinical floor."""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from dicomward.audit.event import AuditEvent, DegradedEntered, LegacyZoneAlarm
from dicomward.identity.zone import LegacyZone, alarm_of
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

CHECK_SECONDS = 600.0
"""A clock that jumps is noticed after so long; relays look at the clock themselves."""


class ZoneWatch:
    """Says each alarm once for as long as the gateway runs; a restart says the one that stands again."""

    def __init__(self, zones: Iterable[LegacyZone], record: Callable[[AuditEvent], None]) -> None:
        self._zones = tuple(zones)
        self._record = record
        self._said: dict[str, int | None] = {}

    def check(self, now: datetime) -> None:
        """Raise the alarms that are due; `now` is aware, in the site's own time."""
        for zone in self._zones:
            alarm = alarm_of(zone, now)
            if alarm == self._said.get(zone.name):
                continue
            self._said[zone.name] = alarm
            if alarm is None:
                continue
            left = zone.days_left(now)
            is_over = left < 0
            detail = (
                f"the legacy zone {zone.name!r} was over at the end of {zone.end_date}: only the clinical floor is "
                "left in it; give its devices TLS, or set a later end_date"
                if is_over
                else f"the legacy zone {zone.name!r} ends on {zone.end_date}, {left} days from now; then only the "
                "clinical floor is left in it"
            )
            _log.warning("%s", detail)
            self._record(
                LegacyZoneAlarm(
                    zone=zone.name,
                    site=zone.site or None,
                    count=max(left, 0),
                    reason=ReasonCode.LEGACY_ZONE_OVER if is_over else None,
                    detail=detail,
                )
            )
            if is_over:
                self._record(
                    DegradedEntered(component=f"legacy zone {zone.name}", state="clinical-floor", detail=detail)
                )
