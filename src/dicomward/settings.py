"""The settings: one frozen tree, read once from TOML. Every problem is located; an unknown key is an error.

A relative path is relative to the directory of the file. docs/settings.md lists every setting and is checked against
this file. The limits keep their defaults and reasons in `dicomward.limits` and `dicomward.dicom.limits`.
"""
# ruff: noqa: RUF009  (_setting is dataclasses.field with our metadata)

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from dicomward.dicom.limits import Limits
from dicomward.limits.settings import LimitSettings
from dicomward.limits.tables import LimitSettingsError, parse_limits

CONFIG_NAME: Final = "dicomward.toml"
DICOM_LIMITS_TABLE: Final = "dicom"
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


# --- kinds of values -------------------------------------------------------------------------------------------------


class _WrongValueError(Exception):
    """A value that can't be used: what is wrong, what to do, and where inside the value."""

    def __init__(self, message: str, hint: str, inside: str = "") -> None:
        super().__init__(message)
        self.message, self.hint, self.inside = message, hint, inside


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: how docs call it, and how it is read (with the directory that relative paths start from)."""

    name: str
    parse: Callable[[object, Path], object]


def _whole_number(minimum: int, maximum: int) -> Kind:
    def parse(value: object, _base: Path) -> object:
        # True is an int for isinstance.
        if type(value) is not int or not minimum <= value <= maximum:
            raise _WrongValueError(f"{value!r} is not a whole number", f"write one from {minimum} to {maximum}")
        return value

    return Kind(f"whole number, {minimum} to {maximum}", parse)


def _number(minimum: float, maximum: float) -> Kind:
    def parse(value: object, _base: Path) -> object:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not minimum <= value <= maximum:  # type: ignore[operator]
            raise _WrongValueError(f"{value!r} is not a number in range", f"write one from {minimum:g} to {maximum:g}")
        return float(value)  # type: ignore[arg-type]

    return Kind(f"number, {minimum:g} to {maximum:g}", parse)


def _alternatives(choices: Iterable[str]) -> str:
    return " or ".join(f'"{choice}"' for choice in choices)


def _choice(*choices: str) -> Kind:
    def parse(value: object, _base: Path) -> object:
        if value not in choices:
            raise _WrongValueError(f"{value!r} is not known", f"write {_alternatives(choices)}")
        return value

    return Kind(_alternatives(choices), parse)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise _WrongValueError(f"{value!r} is not a text", 'write it in quotes, as in "text", and not empty')
    return value


def _parse_boolean(value: object, _base: Path) -> object:
    if not isinstance(value, bool):
        raise _WrongValueError(f"{value!r} is neither true nor false", "write true or false, without quotes")
    return value


def _parse_path(value: object, base: Path) -> object:
    return base / _text(value)


def _parse_sink(value: object, base: Path) -> object:
    return None if value == STANDARD_ERROR else base / _text(value)


def _parse_listen_address(value: object, _base: Path) -> object:
    try:
        return parse_host_port(_text(value))
    except ValueError as error:
        raise _WrongValueError(str(error), 'write it as "127.0.0.1:11112"') from error


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
    raise _WrongValueError(
        "this is not the URL of a database that we can use",
        'write "sqlite:///registry.db" or "postgresql+psycopg://USER@HOST/NAME"',
    )


_PAIR_KEYS: Final = ("certificate", "key")


def _parse_certificates(value: object, base: Path) -> object:
    hint = 'write [[tls.certificates]] with certificate = "FILE" and key = "FILE" for each'
    if not isinstance(value, list) or not value:
        raise _WrongValueError("this is not a list with at least one certificate", hint)
    pairs: list[CertificatePair] = []
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise _WrongValueError(f"{entry!r} is not a table", hint, f"[{number}]")
        for key in entry:
            if key not in _PAIR_KEYS:
                raise _WrongValueError("there is no such setting", _nearest(key, _PAIR_KEYS), f"[{number}].{key}")
        paths: list[Path] = []
        for key in _PAIR_KEYS:
            if key not in entry:
                raise _WrongValueError(f"{key!r} is missing", hint, f"[{number}]")
            try:
                paths.append(base / _text(entry[key]))
            except _WrongValueError as error:
                raise _WrongValueError(error.message, error.hint, f"[{number}].{key}") from error
        pairs.append(CertificatePair(certificate=paths[0], key=paths[1]))
    return tuple(pairs)


_BOOLEAN: Final = Kind("true or false", _parse_boolean)
_PATH: Final = Kind("path", _parse_path)
_SINK: Final = Kind('path, or "stderr"', _parse_sink)
_LISTEN_ADDRESS: Final = Kind("HOST:PORT", _parse_listen_address)
_DATABASE_URL: Final = Kind("URL", _parse_database_url)
_CERTIFICATES: Final = Kind("list of {certificate, key}", _parse_certificates)


def _setting(kind: Kind, default: object, unit: str, reason: str, *, secret: bool = False) -> Any:
    """Declare one setting. `default` is what TOML would hold; docs are generated from the rest."""
    return field(
        default_factory=lambda: kind.parse(default, Path()),
        repr=not secret,
        metadata={"kind": kind, "default": default, "unit": unit, "reason": reason},
    )


# --- the tree --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """`[gateway]`: where it listens, how long it waits."""

    listen: ListenAddress = _setting(
        _LISTEN_ADDRESS, "127.0.0.1:11112", "", "where devices connect (TLS); loopback until you decide otherwise"
    )
    archive_listen: ListenAddress = _setting(
        _LISTEN_ADDRESS,
        "127.0.0.1:11113",
        "",
        "where archives connect: C-STORE of a C-MOVE, and results of Storage Commitment",
    )
    archive_listen_tls: bool = _setting(
        _BOOLEAN, False, "", "most archives can't do TLS; without it, use loopback or a link of its own"
    )
    handshake_deadline_unknown_seconds: float = _setting(
        _number(0.1, 60),
        5,
        "s",
        "TLS handshake and A-ASSOCIATE-RQ together, from an address in no registered network; longer feeds scanners",
    )
    handshake_deadline_registered_seconds: float = _setting(
        _number(0.1, 300), 30, "s", "the same from a registered network: old scanners take 10 s for an RSA handshake"
    )
    artim_seconds: float = _setting(
        _number(0.1, 300),
        30,
        "s",
        "PS3.8 §9.1.5: how long an archive may take to answer an A-ASSOCIATE-RQ, and any peer to answer a release",
    )
    idle_seconds: float = _setting(
        _number(1, 86_400),
        600,
        "s",
        "an association with nothing outstanding; a C-MOVE that runs for hours isn't idle; ultrasound pauses minutes",
    )
    stalled_seconds: float = _setting(
        _number(60, 604_800),
        14_400,
        "s",
        "an operation is outstanding and nothing at all has moved: a C-MOVE without pending responses takes hours",
    )
    upstream_connect_seconds: float = _setting(
        _number(0.1, 120), 5, "s", "TCP and TLS to an archive; the device waits meanwhile, most give up after 10 s"
    )
    drain_seconds: float = _setting(
        _number(0, 3_600), 30, "s", "how long open associations may go on after SIGTERM; a large study takes longer"
    )
    workers: int = _setting(
        _whole_number(0, 256), 0, "threads", "0 = automatic: one, since a second waits for the first (docs/adr/0002)"
    )
    state_directory: Path = _setting(
        _PATH, "run", "", "control socket of the running gateway; only its user may enter (mode 0700)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """`[tls]`: our own certificates, and who we believe."""

    certificates: tuple[CertificatePair, ...] = _setting(
        _CERTIFICATES,
        [
            {"certificate": "tls/gateway-ecdsa.cert.pem", "key": "tls/gateway-ecdsa.key.pem"},
            {"certificate": "tls/gateway-rsa.cert.pem", "key": "tls/gateway-rsa.key.pem"},
        ],
        "",
        "ECDSA for those who can, RSA for old DCMTK, which can do TLS 1.2 with RSA only",
    )
    client_ca: Path = _setting(_PATH, "ca/ca.cert.pem", "", "the CAs that device certificates chain to (PEM)")
    minimum_version: str = _setting(
        _choice("1.2", "1.3"), "1.2", "TLS version", "PS3.15 B.12 wants 1.2; below it nothing is possible"
    )
    expired_certificate_grace_days: float = _setting(
        _number(0, 30),
        7,
        "days",
        "a bound certificate that has just expired keeps the clinical floor, so that no examination stops; 0 = none",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """`[registry]`: the database, and what is compiled from it."""

    url: str = _setting(
        _DATABASE_URL,
        "sqlite:///registry.db",
        "",
        "SQLite needs no server; PostgreSQL for several gateways (its password belongs into ~/.pgpass)",
        secret=True,
    )
    snapshot: Path = _setting(
        _PATH, "registry.json", "", "what the gateway reads, so that it starts and runs without the database"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """`[policy]`: the rules."""

    file: Path = _setting(_PATH, "policy.toml", "", "the rules; docs/policy.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """`[audit]`: where records go. `second_sink` is None for standard error."""

    directory: Path = _setting(_PATH, "audit", "", "the hash-chained log (mode 0700)")
    second_sink: Path | None = _setting(
        _SINK,
        STANDARD_ERROR,
        "",
        "records go here while the log can't be written: the service manager's journal, or a file on another disk",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole tree. `path` is the file that it came from."""

    path: Path
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    tls: TlsSettings = field(default_factory=TlsSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    policy: PolicySettings = field(default_factory=PolicySettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    dicom_limits: Limits = field(default_factory=Limits)

    @property
    def directory(self) -> Path:
        """The directory that relative paths start from."""
        return self.path.parent


SECTIONS: Final[dict[str, type]] = {
    "gateway": GatewaySettings,
    "tls": TlsSettings,
    "registry": RegistrySettings,
    "policy": PolicySettings,
    "audit": AuditSettings,
}


# --- reading ---------------------------------------------------------------------------------------------------------


def load_settings(path: Path) -> Settings:
    """Read the file. Raises SettingsError."""
    path = path.absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = "name it with --config FILE, or make one with: dicomward init DIR --pacs AET@HOST:PORT"
        raise SettingsError((SettingsProblem(str(path), "there is no such file", hint),)) from error
    except OSError as error:
        problem = SettingsProblem(str(path), f"it can't be read ({error.strerror})", "check the file and its rights")
        raise SettingsError((problem,)) from error
    except UnicodeDecodeError as error:
        raise SettingsError((SettingsProblem(str(path), "it is not UTF-8 text", "save it as UTF-8"),)) from error
    return parse_settings(text, path=path)


def parse_settings(text: str, *, path: Path) -> Settings:
    """Read the text of the file `path`, which is not opened. Raises SettingsError with all problems."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = SettingsProblem(path.name, f"it is not TOML: {error}", "correct the line that it names")
        raise SettingsError((problem,)) from error
    reader = _Reader(text, path)
    reader.check_known(document, "", (*SECTIONS, "limits"))
    sections = {name: reader.section(name, kind, document.get(name, {})) for name, kind in SECTIONS.items()}
    limits, dicom_limits = reader.limits(document.get("limits", {}))
    settings = Settings(path=path, limits=limits, dicom_limits=dicom_limits, **sections)
    reader.check_together(settings)
    if reader.problems:
        raise SettingsError(tuple(reader.problems))
    return settings


class _Reader:
    """Collects the problems; what is wrong keeps its default, so that the rest can be checked too."""

    def __init__(self, text: str, path: Path) -> None:
        self.problems: list[SettingsProblem] = []
        self._text = text
        self._path = path
        self._lines: dict[str, int] | None = None

    def problem(self, key: str, message: str, hint: str) -> None:
        """Note a problem of a key, with the line of the key or of the table around it."""
        if self._lines is None:
            self._lines = _lines_of_keys(self._text)
        nearest = key
        while nearest and nearest not in self._lines:
            nearest = nearest[: max(nearest.rfind("."), nearest.rfind("["), 0)]
        line = f":{self._lines[nearest]}" if nearest else ""
        self.problems.append(SettingsProblem(f"{self._path.name}{line}: {key}", message, hint))

    def table(self, value: object, name: str) -> Mapping[str, object]:
        """Return the table, or an empty one after noting that it is none."""
        if isinstance(value, dict):
            return value
        self.problem(name, f"{value!r} is not a table", f"write [{name}] on a line of its own, its settings below")
        return {}

    def check_known(self, table: Mapping[str, object], prefix: str, known: Iterable[str]) -> None:
        """Note every key that isn't known."""
        for key in table:
            if key not in known:
                self.problem(f"{prefix}{key}", "there is no such setting", _nearest(key, known))

    def section(self, name: str, kind: type, value: object) -> Any:
        """Return the section as its dataclass."""
        table = self.table(value, name)
        known = {item.name: item.metadata for item in fields(kind)}
        self.check_known(table, f"{name}.", known)
        values: dict[str, object] = {}
        for key, metadata in known.items():
            try:
                values[key] = metadata["kind"].parse(table.get(key, metadata["default"]), self._path.parent)
            except _WrongValueError as error:
                self.problem(f"{name}.{key}{error.inside}", error.message, error.hint)
        return kind(**values)

    def limits(self, value: object) -> tuple[LimitSettings, Limits]:
        """Return the rates and caps of `[limits]`, and the sizes of `[limits.dicom]`."""
        table = dict(self.table(value, "limits"))
        prefix = f"limits.{DICOM_LIMITS_TABLE}"
        sizes = self._sizes(self.table(table.pop(DICOM_LIMITS_TABLE, {}), prefix), f"{prefix}.")
        try:
            return parse_limits(table), sizes
        except LimitSettingsError as error:
            for problem in error.problems:
                self.problem(problem.location, problem.message, problem.hint)
            return LimitSettings(), sizes

    def _sizes(self, table: Mapping[str, object], prefix: str) -> Limits:
        known = {item.name: item.metadata["ceiling"] for item in fields(Limits)}
        self.check_known(table, prefix, known)
        good: dict[str, Any] = {}
        for key in table.keys() & known.keys():
            value: Any = table[key]
            try:
                Limits(**{key: value})
            except ValueError as error:
                self.problem(f"{prefix}{key}", str(error), f"write a whole number from 1 to {known[key]}")
            else:
                good[key] = value
        return Limits(**good)

    def check_together(self, settings: Settings) -> None:
        """Note values that are right alone and wrong together."""
        gateway = settings.gateway
        if gateway.listen == gateway.archive_listen and gateway.listen.port:
            self.problem(
                "gateway.archive_listen",
                f"it is the same as listen ({gateway.listen})",
                "give archives a port of their own: devices need TLS, archives often can't",
            )
        if gateway.handshake_deadline_unknown_seconds > gateway.handshake_deadline_registered_seconds:
            self.problem(
                "gateway.handshake_deadline_unknown_seconds",
                "strangers would get more time than registered devices",
                "make it at most handshake_deadline_registered_seconds",
            )


_KEY: Final = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED_KEY: Final = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER_LINE: Final = re.compile(rf"\s*(\[\[?)\s*({_DOTTED_KEY})\s*\]")
_KEY_LINE: Final = re.compile(rf"\s*({_DOTTED_KEY})\s*=")


def _lines_of_keys(text: str) -> dict[str, int]:
    """Return the line of each key, written `table.key`; `[[list]]` entries are numbered `list[0]`.

    A good guess is enough: it only helps people to find the line.
    """
    lines: dict[str, int] = {}
    entries: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER_LINE.match(line):
            name = _plain_key(header[2])
            lines.setdefault(name, number)
            table = f"{name}."
            if header[1] == "[[":
                entry = entries[name] = entries.get(name, -1) + 1
                table = f"{name}[{entry}]."
                lines.setdefault(table[:-1], number)
        elif key := _KEY_LINE.match(line):
            lines.setdefault(f"{table}{_plain_key(key[1])}", number)
    return lines


def _plain_key(dotted: str) -> str:
    return ".".join(part.strip("\"'") for part in re.findall(_KEY, dotted))


def _nearest(name: str, known: Iterable[str]) -> str:
    # difflib is slow to import, and only a mistake needs it.
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"the known ones are {', '.join(known)}"
