"""`[[legacy_zones]]`: plaintext listeners for devices that can't do TLS yet. docs/moving-over.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from dicomward.identity.zone import LegacyZone, ZoneError
from dicomward.settings.kinds import ListenAddress, nearest_of, parse_host_port

ZONES_KEY: Final = "legacy_zones"
ZONE_KEYS: Final[Mapping[str, tuple[str, str]]] = {
    "name": ("name", "devices are registered for it by this name"),
    "listen": ("HOST:PORT", "where its devices connect, without TLS; a port of its own"),
    "networks": (
        "list of networks",
        'must be named, as ["10.1.2.0/24"]; nobody else is listened to, and "any" is refused',
    ),
    "end_date": ("day, as 2027-03-31", "its last day; after it the zone narrows to the clinical floor"),
    "site": ("text", "optional: the site of its devices that have none of their own"),
}
_NEEDED: Final = ("name", "listen", "networks", "end_date")
_HINT: Final = (
    'write [[legacy_zones]] with name, listen = "HOST:PORT", networks = ["10.1.2.0/24"], end_date = 2027-03-31'
)
# Names that the other listeners have.
_TAKEN: Final = ("device", "archive")


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyZoneSettings:
    """One zone, and where it listens."""

    zone: LegacyZone
    listen: ListenAddress


def parse_zones(value: object, problem: Callable[[str, str, str], None]) -> tuple[LegacyZoneSettings, ...]:
    """Read the list; what is wrong is told to `problem` (key, message, hint) and left out."""
    if not isinstance(value, list):
        problem(ZONES_KEY, "it is not a list of tables", _HINT)
        return ()
    zones: list[LegacyZoneSettings] = []
    for number, entry in enumerate(value):
        where = f"{ZONES_KEY}[{number}]"
        zone = _parse_zone(entry, where, problem)
        if zone is None:
            continue
        name = zone.zone.name
        if name in _TAKEN or any(name == each.zone.name for each in zones):
            problem(f"{where}.name", f"the name {name!r} is taken", "give each zone a name of its own")
        zones.append(zone)
    return tuple(zones)


def _parse_zone(entry: object, where: str, problem: Callable[[str, str, str], None]) -> LegacyZoneSettings | None:
    if not isinstance(entry, dict):
        problem(where, f"{entry!r} is not a table", _HINT)
        return None
    for key in entry:
        if key not in ZONE_KEYS:
            problem(f"{where}.{key}", "there is no such setting", nearest_of(key, ZONE_KEYS))
    missing = [key for key in _NEEDED if key not in entry]
    for key in missing:
        problem(where, f"{key!r} is missing", f"{ZONE_KEYS[key][1]}; {_HINT}")
    name, networks, site = entry.get("name", "?"), entry.get("networks"), entry.get("site", "")
    for key, value in (("name", name), ("site", site)):
        if not isinstance(value, str) or not value.isprintable():
            problem(f"{where}.{key}", f"{value!r} is not a text", 'write it in quotes, as in "text"')
            missing.append(key)
    if "networks" in entry and not (isinstance(networks, list) and all(isinstance(each, str) for each in networks)):
        problem(f"{where}.networks", f"{networks!r} is not a list of networks", 'write it as ["10.1.2.0/24"]')
        missing.append("networks")
    end = _end_date(entry.get("end_date", date.min))
    if end is None:
        problem(f"{where}.end_date", f"{entry['end_date']!r} is not a day", "write it as 2027-03-31")
    listen = _listen(entry.get("listen", "127.0.0.1:0"))
    if listen is None:
        problem(f"{where}.listen", f"{entry['listen']!r} is not HOST:PORT", 'write it as "10.1.2.1:104"')
    if missing or end is None or listen is None or not isinstance(networks, list):
        return None
    try:
        zone = LegacyZone(name=name, networks=tuple(networks), end_date=end, site=site)
    except ZoneError as error:
        problem(f"{where}.networks", str(error), 'write the networks of its devices, as ["10.1.2.0/24"]')
        return None
    return LegacyZoneSettings(zone=zone, listen=listen)


def _end_date(value: object) -> date | None:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            return None
    # A datetime is a date for isinstance.
    return value if isinstance(value, date) and not isinstance(value, datetime) else None


def _listen(value: object) -> ListenAddress | None:
    try:
        return parse_host_port(value) if isinstance(value, str) else None
    except ValueError:
        return None
