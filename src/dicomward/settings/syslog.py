"""`[audit.syslog]`: where audit messages are sent. One table, or several as `[[audit.syslog]]`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomward.settings.kinds import Kind, ListenAddress, WrongValueError, nearest_of, parse_host_port

ENCODINGS: Final = ("dicom", "fhir", "ecs", "json")
_REQUIRED: Final = ("address", "ca")
_KEYS: Final = (*_REQUIRED, "server_name", "certificate", "key", "encoding", "from_start")
_HINT: Final = 'write [audit.syslog] with address = "HOST:6514", ca = "FILE", certificate = "FILE", key = "FILE"'


@dataclass(frozen=True, slots=True, kw_only=True)
class SyslogDestination:
    """One receiver of RFC 5425 syslog.

    `server_name` is the name that its certificate must have; `certificate` and `key` are ours, for mutual TLS, or both
    None; `from_start`: a destination that is new gets the whole log, not only what comes from now on.
    """

    address: ListenAddress
    ca: Path
    server_name: str
    certificate: Path | None = None
    key: Path | None = None
    encoding: str = "dicom"
    from_start: bool = False

    @property
    def name(self) -> str:
        """How it is called in messages and in the name of its cursor."""
        return f"{self.address} {self.encoding}"


def _parse(value: object, base: Path) -> object:
    tables = [value] if isinstance(value, dict) else value
    if not isinstance(tables, list):
        raise WrongValueError(f"{value!r} is not a table", _HINT)
    destinations: list[SyslogDestination] = []
    for number, table in enumerate(tables):
        inside = f"[{number}]" if isinstance(value, list) else ""
        if not isinstance(table, dict):
            raise WrongValueError(f"{table!r} is not a table", _HINT, inside)
        destinations.append(_destination(table, base, inside))
    names = [each.name for each in destinations]
    for name in names:
        if names.count(name) > 1:
            raise WrongValueError(f"{name} is there twice", "remove one of them")
    return tuple(destinations)


def _destination(table: Mapping[str, object], base: Path, inside: str) -> SyslogDestination:
    for key in table:
        if key not in _KEYS:
            raise WrongValueError("there is no such setting", nearest_of(key, _KEYS), f"{inside}.{key}")
    for key in _REQUIRED:
        if key not in table:
            raise WrongValueError(f"{key!r} is missing", _HINT, inside)
    texts = {key: _text(table, key, inside) for key in table if key != "from_start"}
    try:
        address = parse_host_port(texts["address"])
    except ValueError as error:
        raise WrongValueError(str(error), 'write it as "audit.hospital.example:6514"', f"{inside}.address") from error
    if ("certificate" in texts) is not ("key" in texts):
        raise WrongValueError("certificate and key belong together", "give both, or none of them", inside)
    encoding = texts.get("encoding", ENCODINGS[0])
    if encoding not in ENCODINGS:
        raise WrongValueError(f"{encoding!r} is not known", nearest_of(encoding, ENCODINGS), f"{inside}.encoding")
    from_start = table.get("from_start", False)
    if not isinstance(from_start, bool):
        hint = "write true or false, without quotes"
        raise WrongValueError(f"{from_start!r} is neither true nor false", hint, f"{inside}.from_start")
    return SyslogDestination(
        address=address,
        ca=base / texts["ca"],
        server_name=texts.get("server_name", address.host),
        certificate=base / texts["certificate"] if "certificate" in texts else None,
        key=base / texts["key"] if "key" in texts else None,
        encoding=encoding,
        from_start=from_start,
    )


def _text(table: Mapping[str, object], key: str, inside: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value or "\0" in value:
        raise WrongValueError(f"{value!r} is not a text", 'write it in quotes, as in "text"', f"{inside}.{key}")
    return value


SYSLOG_DESTINATIONS: Final = Kind("table, or list of tables", _parse)
