"""Legacy zones: a plaintext listener for devices that can't do TLS yet, in named networks and until a day.

Rules of this file: values and arithmetic; the time is an argument. After its last day a zone is never closed, it
narrows to the clinical floor: docs/moving-over.md.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from ipaddress import ip_network
from typing import Final

from dicomward.identity.network import ANY, NetworkError, NetworkSet, parse_network

ALARM_DAYS: Final = (30, 14, 7, 1)
"""So many days before its end a zone raises an alarm."""


class ZoneError(ValueError):
    """The zone can't be right; the message says what and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyZone:
    """One zone. `end_date` is its last day, in the site's own time; `site` goes to devices that have none."""

    name: str
    networks: tuple[str, ...]
    end_date: date
    site: str = ""
    _set: NetworkSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise ZoneError for networks that aren't named."""
        if not self.networks:
            raise ZoneError("a legacy zone must name its networks")
        if ANY in self.networks:
            raise ZoneError('"any" is not for a legacy zone: everybody could call in plaintext; name its networks')
        try:
            # Frozen: an index derived from the fields can't be set any other way.
            object.__setattr__(self, "_set", NetworkSet(self.networks))
        except NetworkError as error:
            raise ZoneError(str(error)) from error

    def allows(self, address: str) -> bool:
        """Say if an address is in one of its networks."""
        return self._set.allows(address)

    def holds(self, network: str) -> bool:
        """Say if a whole network lies in one of its networks. Raises NetworkError for what is none."""
        if parse_network(network) is None:
            return False
        inner = ip_network(network)
        return any(
            inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
            for outer in map(ip_network, self.networks)
        )

    def ends(self, now: datetime) -> datetime:
        """Return the first moment after its last day, in the time zone of `now` (aware)."""
        after = self.end_date + timedelta(days=1)
        return datetime(after.year, after.month, after.day, tzinfo=now.tzinfo)

    def is_over(self, now: datetime) -> bool:
        """Say if its last day has passed; `now` is aware, in the site's own time zone."""
        return now.date() > self.end_date

    def days_left(self, now: datetime) -> int:
        """Return the days until its last day: 0 on that day, negative after it."""
        return (self.end_date - now.date()).days


def alarm_of(zone: LegacyZone, now: datetime) -> int | None:
    """Return which alarm the zone is in: the least of ALARM_DAYS that has been reached, -1 when it is over, or None."""
    left = zone.days_left(now)
    if left < 0:
        return -1
    return min((days for days in ALARM_DAYS if left <= days), default=None)


def is_one_address(network: str) -> bool:
    """Say if a network that `parse_network` reads holds a single address."""
    parsed = parse_network(network)
    return parsed is not None and parsed.host_bits == 0
