"""The kinds of values that settings have: how each is read from TOML, and how docs call it."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from dicomward.identity.network import NetworkError, parse_network
from dicomward.vocab.nearest import nearest_name

STANDARD_ERROR: Final = "stderr"


class SettingsProblem(NamedTuple):
    """Something wrong in the settings: where (file, line and key), what, and what to do."""

    location: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message}; {self.hint}"


class SettingsError(ValueError):
    """The settings can't be used; `problems` holds every reason."""

    def __init__(self, problems: tuple[SettingsProblem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenAddress:
    """Where we listen: `host` without brackets; port 0 lets the system choose one (tests)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatePair:
    """Files of a certificate chain and its private key, both PEM."""

    certificate: Path
    key: Path


_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[A-Za-z0-9_.-]+)):(?P<port>[0-9]{1,5})\Z", re.ASCII
)


def parse_host_port(text: str) -> ListenAddress:
    """Read `HOST:PORT`, an IPv6 address in brackets. Raises ValueError."""
    match = _HOST_PORT.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not HOST:PORT (an IPv6 address stands in brackets: [::1]:11112)")
    if int(match["port"]) > 0xFFFF:
        raise ValueError(f"port {match['port']} of {text!r} is above 65535")
    return ListenAddress(host=match["v6"] or match["host"], port=int(match["port"]))


class WrongValueError(Exception):
    """A value that can't be used: what is wrong, what to do, and where inside the value."""

    def __init__(self, message: str, hint: str, inside: str = "") -> None:
        super().__init__(message)
        self.message, self.hint, self.inside = message, hint, inside


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: how docs call it, and how it is read (with the directory that relative paths start from)."""

    name: str
    parse: Callable[[object, Path], object]


def whole_number(minimum: int, maximum: int) -> Kind:
    """Return the kind of a whole number in a range."""

    def parse(value: object, _base: Path) -> object:
        # True is an int for isinstance.
        if type(value) is not int or not minimum <= value <= maximum:
            raise WrongValueError(f"{value!r} is not a whole number", f"write one from {minimum} to {maximum}")
        return value

    return Kind(f"whole number, {minimum} to {maximum}", parse)


def number(minimum: float, maximum: float) -> Kind:
    """Return the kind of a number in a range."""

    def parse(value: object, _base: Path) -> object:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not minimum <= value <= maximum:  # type: ignore[operator]
            raise WrongValueError(f"{value!r} is not a number in range", f"write one from {minimum:g} to {maximum:g}")
        return float(value)  # type: ignore[arg-type]

    return Kind(f"number, {minimum:g} to {maximum:g}", parse)


def _alternatives(choices: Iterable[str]) -> str:
    return " or ".join(f'"{choice}"' for choice in choices)


def choice(*choices: str) -> Kind:
    """Return the kind of one of some words."""

    def parse(value: object, _base: Path) -> object:
        if value not in choices:
            raise WrongValueError(f"{value!r} is not known", f"write {_alternatives(choices)}")
        return value

    return Kind(_alternatives(choices), parse)


def words(*choices: str) -> Kind:
    """Return the kind of a list of some words, each at most once; it may be empty."""

    def parse(value: object, _base: Path) -> object:
        if not isinstance(value, list):
            raise WrongValueError(f"{value!r} is not a list", f'write ["{choices[0]}"], or [] for none')
        for position, each in enumerate(value):
            if each not in choices:
                raise WrongValueError(f"{each!r} is not known", nearest_of(str(each), choices), f"[{position}]")
        return tuple(dict.fromkeys(value))

    return Kind(f"list of words: {', '.join(choices)}", parse)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise WrongValueError(f"{value!r} is not a text", 'write it in quotes, as in "text", and not empty')
    return value


def _parse_boolean(value: object, _base: Path) -> object:
    if not isinstance(value, bool):
        raise WrongValueError(f"{value!r} is neither true nor false", "write true or false, without quotes")
    return value


def _parse_path(value: object, base: Path) -> object:
    return base / _text(value)


def _parse_optional_path(value: object, base: Path) -> object:
    return None if value == "" else base / _text(value)


def _parse_text(value: object, _base: Path) -> object:
    return _text(value)


def _parse_optional_text(value: object, _base: Path) -> object:
    return "" if value == "" else _text(value)


def _parse_sink(value: object, base: Path) -> object:
    return None if value == STANDARD_ERROR else base / _text(value)


def _parse_listen_address(value: object, _base: Path) -> object:
    try:
        return parse_host_port(_text(value))
    except ValueError as error:
        raise WrongValueError(str(error), 'write it as "127.0.0.1:11112"') from error


OFF: Final = "off"


def _parse_listen_or_off(value: object, base: Path) -> object:
    return None if value == OFF else _parse_listen_address(value, base)


_SQLITE_URL: Final = re.compile(r"(sqlite(?:\+\w+)?:///)(.*)\Z", re.DOTALL)
_POSTGRESQL_URL: Final = re.compile(r"postgresql(?:\+\w+)?://.+", re.DOTALL)


def _parse_database_url(value: object, base: Path) -> object:
    url = _text(value)
    sqlite = _SQLITE_URL.match(url)
    if sqlite is not None and sqlite[2] not in ("", ":memory:"):
        return f"{sqlite[1]}{base / sqlite[2]}"
    if _POSTGRESQL_URL.match(url):
        return url
    # The text may hold a password, so it isn't repeated.
    raise WrongValueError(
        "this is not the URL of a database that we can use",
        'write "sqlite:///registry.db" or "postgresql+psycopg://USER@HOST/NAME"',
    )


_PAIR_KEYS: Final = ("certificate", "key")


def _parse_certificates(value: object, base: Path) -> object:
    hint = 'write [[tls.certificates]] with certificate = "FILE" and key = "FILE" for each'
    if not isinstance(value, list) or not value:
        raise WrongValueError("this is not a list with at least one certificate", hint)
    pairs: list[CertificatePair] = []
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise WrongValueError(f"{entry!r} is not a table", hint, f"[{number}]")
        for key in entry:
            if key not in _PAIR_KEYS:
                raise WrongValueError("there is no such setting", nearest_of(key, _PAIR_KEYS), f"[{number}].{key}")
        paths: list[Path] = []
        for key in _PAIR_KEYS:
            if key not in entry:
                raise WrongValueError(f"{key!r} is missing", hint, f"[{number}]")
            try:
                paths.append(base / _text(entry[key]))
            except WrongValueError as error:
                raise WrongValueError(error.message, error.hint, f"[{number}].{key}") from error
        pairs.append(CertificatePair(certificate=paths[0], key=paths[1]))
    return tuple(pairs)


def _parse_networks(value: object, _base: Path) -> object:
    hint = 'write a list of networks, as in ["10.1.2.0/24", "192.0.2.7"]'
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise WrongValueError(f"{value!r} is not a list of networks", hint)
    for each in value:
        try:
            network = parse_network(each)
        except NetworkError as error:
            raise WrongValueError(str(error), hint) from error
        if network is None:
            raise WrongValueError("'any' would let everybody name any address", hint)
    return tuple(value)


BOOLEAN: Final = Kind("true or false", _parse_boolean)
NETWORKS: Final = Kind("list of networks", _parse_networks)
PATH: Final = Kind("path", _parse_path)
OPTIONAL_PATH: Final = Kind('path, or "" for none', _parse_optional_path)
TEXT: Final = Kind("text", _parse_text)
OPTIONAL_TEXT: Final = Kind('text, or "" for none', _parse_optional_text)
SINK: Final = Kind('path, or "stderr"', _parse_sink)
LISTEN_ADDRESS: Final = Kind("HOST:PORT", _parse_listen_address)
LISTEN_OR_OFF: Final = Kind('HOST:PORT, or "off"', _parse_listen_or_off)
DATABASE_URL: Final = Kind("URL", _parse_database_url)
CERTIFICATES: Final = Kind("list of {certificate, key}", _parse_certificates)


def setting(kind: Kind, default: object, unit: str, reason: str, *, secret: bool = False, reload: bool = False) -> Any:
    """Declare one setting. `default` is what TOML would hold; docs are generated from the rest.

    `reload`: a running gateway takes a new value at a reload; without it, a restart is needed.
    """
    return field(
        default_factory=lambda: kind.parse(default, Path()),
        repr=not secret,
        metadata={"kind": kind, "default": default, "unit": unit, "reason": reason, "reload": reload},
    )


def nearest_of(name: str, known: Iterable[str]) -> str:
    """Return a hint: the known name that is nearest to a wrong one."""
    names = list(known)
    near = nearest_name(name, names)
    return f"did you mean {near!r}?" if near else f"the known ones are {', '.join(names)}"
