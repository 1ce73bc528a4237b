"""`edge.toml`: the settings of an edge agent. docs/edge.md."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from dicomward.identity.network import ANY, NetworkError, NetworkSet
from dicomward.settings.kinds import (
    ListenAddress,
    SettingsError,
    SettingsProblem,
    nearest_of,
    parse_host_port,
)

SPOOL, PASS_THROUGH = "spool", "pass-through"
OLDEST, NEWEST = "oldest", "newest"
OFF, IF_OFFERED, REQUIRED = "off", "if-offered", "required"
CREDENTIAL: Final = "credential:"
SEALED: Final = "dpapi:"
FETCHED: Final = "https://"
# What an enrolled device's directory has: io/enrolment/enrolled.py.
CREDENTIAL_FILES: Final = ("cert.pem", "key.pem", "ca.pem")
_OPERATIONS: Final = ("c-echo", "c-store", "c-find", "c-get", "c-move", "n-create", "n-set", "n-get", "n-action")
N_EVENT_REPORT: Final = "n-event-report"
RECEIVED: Final = ("c-echo", "c-store", N_EVENT_REPORT)
_LEAST_RATE: Final = 65_536
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")
_AE_TITLE: Final = re.compile(r"[!-~]([ -~]{0,14}[!-~])?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeEnrolment:
    """Where the agent gets credentials by itself: the enrolment server, and the kind of key.

    Without a code an operator approves the request; then `ca` or `ca_sha256` says which root the server has.
    """

    server: str
    ca: Path | None
    ca_sha256: str
    key_kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCredential:
    """The credential that the agent gets for a device by itself: its directory, and the one-time code, if any."""

    directory: Path
    code: str = field(repr=False)
    code_file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeDevice:
    """One device: where the agent listens for it, who it is, and whose credential it has upstream.

    `authority`: the CAs of which the upstream's certificate must be. `own`: the agent gets the credential by itself.
    `store`: "spool" or "pass-through". `link`: "loopback", or "point-to-point" for a cable that nobody else is on.
    `address`: where it listens as an SCP; the gateway reaches it over `reverse_connections` of the agent's own, by
    the AE titles of `callers` and for the operations of `receives` only. Without an address they bring only reports of
    Storage Commitment for the agent itself; 0 for none.
    """

    name: str
    ae_titles: tuple[str, ...]
    listen: ListenAddress
    networks: tuple[str, ...]
    certificate: Path
    key: Path
    authority: Path
    store: str
    operations: tuple[str, ...]
    own: OwnCredential | None = None
    address: ListenAddress | None = None
    reverse_connections: int = 0
    callers: tuple[str, ...] = ()
    receives: tuple[str, ...] = RECEIVED

    @property
    def spools(self) -> bool:
        """Say if what it stores goes to the spool; what it may not do, the relay refuses."""
        return self.store == SPOOL and "c-store" in self.operations


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The gateway, or any DICOM archive with TLS: its address, and the name in its certificate."""

    address: ListenAddress
    name: str
    ae_titles: tuple[str, ...]
    certificate_sha256: str
    associations: int
    window: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BandwidthRule:
    """So many bytes a second between two minutes of the day, the second excluded; over midnight if `end` is less."""

    begin_minute: int
    end_minute: int
    bytes_per_second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolSettings:
    """Where what was accepted waits, its key, and how much may wait.

    `key` is a file, "credential:NAME", "dpapi:FILE", or the "https://…" URL of an enrolment server, which `key_ca`
    vouches for (None: who vouches for the upstream): then each device has a key of its own, fetched over mutual TLS.

    `commitment`: whether it is deleted when the archive has committed to it: "if-offered", "required", or "off".
    """

    directory: Path
    key: str
    key_ca: Path | None
    quota_bytes: int
    free_bytes: int
    order: str
    alarm_minutes: float
    commitment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """Everything that an agent is told. `spool` is None if no device stores into it."""

    path: Path
    state_directory: Path
    metrics: ListenAddress | None
    log_format: str
    log_level: str
    devices: tuple[EdgeDevice, ...]
    upstream: Upstream
    enrolment: EdgeEnrolment | None
    spool: SpoolSettings | None
    bandwidth: tuple[BandwidthRule, ...]


class _Table:
    """One table of the file; each problem is noted and the default taken, so that all are told at once."""

    def __init__(self, name: str, value: object, base: Path, problem: Callable[[str, str, str], None]) -> None:
        self._name = name
        self._base = base
        self._problem = problem
        if not isinstance(value, dict):
            problem(name, f"{value!r} is not a table", f"write [{name}] on a line of its own, its settings below")
            value = {}
        self._values: Mapping[str, Any] = value
        self._known: list[str] = []

    def wrong(self, key: str, message: str, hint: str) -> None:
        self._problem(f"{self._name}.{key}", message, hint)

    def _get(self, key: str, default: object) -> Any:
        self._known.append(key)
        if key not in self._values and default is None:
            self.wrong(key, "it is missing", f"write {key} = … below [{self._name}]")
        return self._values.get(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if value is None:
            return ""
        if not isinstance(value, str) or not value.isprintable():
            self.wrong(key, f"{value!r} is not a text", 'write it in quotes, as in "text"')
            return default or ""
        return value

    def choice(self, key: str, default: str, *choices: str) -> str:
        value = self.text(key, default)
        if value not in choices:
            self.wrong(key, f"{value!r} is none of {', '.join(choices)}", nearest_of(value, choices))
            return default
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self._get(key, list(default) if default is not None else None)
        if isinstance(value, str):
            value = [value]
        if value is None:
            return ()
        if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
            self.wrong(key, f"{value!r} is not a list of texts with at least one", 'write it as ["one", "two"]')
            return default or ()
        return tuple(value)

    def number(self, key: str, default: float, least: float, most: float) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            self.wrong(key, f"{value!r} is not a number from {least:g} to {most:g}", "it can't be switched off")
            return default
        return value

    def whole(self, key: str, default: int, least: int, most: int) -> int:
        value = self.number(key, default, least, most)
        if not isinstance(value, int):
            self.wrong(key, f"{value!r} is not a whole number", f"write one from {least} to {most}")
            return default
        return value

    def path(self, key: str, default: str | None = None) -> Path:
        return self._base / self.text(key, default)

    def below(self, text: str) -> Path:
        """Return a path; a relative one is relative to the file."""
        return self._base / text

    def address(self, key: str, default: str | None = None) -> ListenAddress:
        text = self.text(key, default)
        try:
            return parse_host_port(text)
        except ValueError:
            if text:
                self.wrong(key, f"{text!r} is not HOST:PORT", 'write it as "127.0.0.1:11112"')
            return ListenAddress(host="127.0.0.1", port=0)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def finish(self) -> None:
        """Note what nobody has asked for."""
        for key in self._values:
            if key not in self._known:
                self.wrong(key, "there is no such setting", nearest_of(key, self._known))


def load_edge_settings(path: Path) -> EdgeSettings:
    """Read edge.toml. Raises SettingsError with every problem."""
    path = path.absolute()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = "name it with --config FILE; docs/edge.md has an example"
        raise SettingsError((SettingsProblem(str(path), f"it can't be read ({error.strerror})", hint),)) from error
    except UnicodeDecodeError as error:
        raise SettingsError((SettingsProblem(str(path), "it is not UTF-8 text", "save it as UTF-8"),)) from error
    return parse_edge_settings(text, path)


def parse_edge_settings(text: str, path: Path) -> EdgeSettings:
    """Read the text of `path`. Raises SettingsError with every problem."""
    problems: list[SettingsProblem] = []
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problem = SettingsProblem(path.name, f"it is not TOML: {error}", "correct the line that it names")
        raise SettingsError((problem,)) from error

    def note(key: str, message: str, hint: str) -> None:
        problems.append(SettingsProblem(f"{path.name}: {key}", message, hint))

    base = path.parent
    known = ("edge", "enrolment", "upstream", "devices", "spool", "bandwidth")
    for key in document:
        if key not in known:
            note(key, "there is no such setting", nearest_of(key, known))
    edge = _Table("edge", document.get("edge", {}), base, note)
    state_directory = edge.path("state_directory", "state")
    metrics = edge.text("metrics", "off")
    metrics_address = None if metrics == "off" else edge.address("metrics", "off")
    log_format = edge.choice("log_format", "text", "text", "json")
    log_level = edge.choice("log_level", "info", "debug", "info", "warning", "error")
    edge.finish()
    enrolment = None
    if "enrolment" in document:
        enrolment = _enrolment(_Table("enrolment", document["enrolment"], base, note))
    upstream_table = _Table("upstream", document.get("upstream", {}), base, note)
    # Without one, the CAs that came with each device's credential.
    authority = None if enrolment is not None and "ca" not in upstream_table else upstream_table.path("ca")
    upstream = _upstream(upstream_table)
    given = _Given(upstream.ae_titles, authority, state_directory if enrolment is not None else None)
    devices = _devices(document.get("devices", []), base, note, given)
    spool = None
    if "spool" in document or any(each.store == SPOOL for each in devices):
        spool = _spool(_Table("spool", document.get("spool", {}), base, note))
    bandwidth = _bandwidth(document.get("bandwidth", []), base, note)
    if problems:
        raise SettingsError(tuple(problems))
    return EdgeSettings(
        path=path,
        state_directory=state_directory,
        metrics=metrics_address,
        log_format=log_format,
        log_level=log_level,
        devices=devices,
        upstream=upstream,
        enrolment=enrolment,
        spool=spool,
        bandwidth=bandwidth,
    )


def _titles(table: _Table, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
    titles = table.texts(key, default)
    for title in titles:
        if not _AE_TITLE.match(title) or "\\" in title:
            table.wrong(key, f"{title!r} is not an AE title", "1 to 16 characters, no backslash, no space at its ends")
    return titles


def _fingerprint(table: _Table, key: str) -> str:
    text = table.text(key, "").replace(":", "").lower()
    if text and not _SHA256.match(text):
        table.wrong(key, "it is not a SHA-256 fingerprint", "write 64 hexadecimal digits")
    return text


def _enrolment(table: _Table) -> EdgeEnrolment:
    server = table.text("server")
    if server and "://" not in server:
        server = f"{FETCHED}{server}"
    if server and not (server.startswith(FETCHED) and _is_url(server)):
        table.wrong("server", f"{server!r} is no https:// URL", "write it as https://HOST:PORT, as the invitation does")
    found = EdgeEnrolment(
        server=server,
        ca=table.path("ca") if "ca" in table else None,
        ca_sha256=_fingerprint(table, "ca_sha256"),
        key_kind=table.choice("key_kind", "ecdsa", "ecdsa", "rsa"),
    )
    table.finish()
    return found


def _upstream(table: _Table) -> Upstream:
    address = table.address("address")
    pin = _fingerprint(table, "certificate_sha256")
    found = Upstream(
        address=address,
        name=table.text("name", address.host),
        ae_titles=_titles(table, "ae_titles"),
        certificate_sha256=pin,
        associations=table.whole("associations", 8, 1, 32),
        window=table.whole("window", 16, 1, 1024),
        seconds=table.number("seconds", 30, 1, 3600),
    )
    table.finish()
    return found


@dataclass(frozen=True, slots=True)
class _Given:
    """What other tables say for devices. `state_directory`: where credentials go that the agent gets by itself."""

    archives: tuple[str, ...]
    authority: Path | None
    state_directory: Path | None


def _devices(value: object, base: Path, note: Callable[[str, str, str], None], given: _Given) -> tuple[EdgeDevice, ...]:
    hint = "write [[devices]] with name, ae_titles, listen, networks, and certificate and key (or [enrolment])"
    if not isinstance(value, list) or not value:
        note("devices", "there is no device", hint)
        return ()
    devices: list[EdgeDevice] = []
    for number, entry in enumerate(value):
        table = _Table(f"devices[{number}]", entry, base, note)
        name, archives = table.text("name"), given.archives
        own = _own_credential(table, given.state_directory, name)
        in_own = str(own.directory) if own is not None else None
        if own is None and given.authority is None:
            note(
                "upstream.ca",
                "it is missing",
                f"{name or 'a device'} has files of its own: write ca = … below [upstream]",
            )
        device = EdgeDevice(
            name=name,
            ae_titles=_titles(table, "ae_titles"),
            listen=table.address("listen"),
            networks=table.texts("networks", ("127.0.0.1/32",)),
            certificate=table.path("certificate") if in_own is None else Path(in_own, CREDENTIAL_FILES[0]),
            key=table.path("key") if in_own is None else Path(in_own, CREDENTIAL_FILES[1]),
            authority=given.authority or Path(in_own or "", CREDENTIAL_FILES[2]),
            own=own,
            store=table.choice("store", SPOOL, SPOOL, PASS_THROUGH),
            operations=tuple(each.lower() for each in table.texts("operations", _OPERATIONS)),
            address=table.address("address") if "address" in table else None,
            reverse_connections=_reverse_connections(table),
            callers=_titles(table, "callers", archives) if archives or "callers" in table else (),
            receives=tuple(each.lower() for each in table.texts("receives", RECEIVED)),
        )
        _check_device(table, device, table.choice("link", "loopback", "loopback", "point-to-point"))
        for other in devices:
            if device.name == other.name:
                table.wrong("name", f"the name {device.name!r} is taken", "give each device a name of its own")
            if device.listen == other.listen and device.listen.port:
                table.wrong("listen", f"{device.listen} is taken", "give each device a port of its own")
        table.finish()
        devices.append(device)
    return tuple(devices)


def _reverse_connections(table: _Table) -> int:
    """Return how many are kept: none where neither they nor an address are named."""
    if "address" in table or "reverse_connections" in table:
        return table.whole("reverse_connections", 2, 1, 8)
    return 0


def _own_credential(table: _Table, state_directory: Path | None, name: str) -> OwnCredential | None:
    """Return how the agent gets the credential; None if files were named, or there is no enrolment server."""
    asked = [key for key in ("credential", "code", "code_file") if key in table]
    named = [key for key in ("certificate", "key") if key in table]
    if state_directory is None:
        for key in asked:
            table.wrong(key, "there is no enrolment server", "write [enrolment] with server = …")
            table.text(key, "")
        return None
    if named:
        for key in asked:
            table.wrong(key, f"{named[0]} is there too", f"write {', '.join(named)}, or {key}, but not both")
            table.text(key, "")
        return None
    if "code" in table and "code_file" in table:
        table.wrong("code_file", "code is there too", "write one of the two")
    return OwnCredential(
        directory=table.path("credential", str(state_directory / (name or "device") / "credential")),
        code=table.text("code", ""),
        code_file=table.path("code_file") if "code_file" in table else None,
    )


def _check_device(table: _Table, device: EdgeDevice, link: str) -> None:
    if device.name and not _NAME.match(device.name):
        table.wrong("name", f"{device.name!r} is not a name", "1 to 32 letters, digits, - and _")
    received = (*_OPERATIONS, N_EVENT_REPORT)
    for key, operations, known in (
        ("operations", device.operations, _OPERATIONS),
        ("receives", device.receives, received),
    ):
        for operation in operations:
            if operation not in known:
                table.wrong(key, f"there is no operation {operation!r}", nearest_of(operation, known))
    if link == "loopback" and not _is_loopback(device.listen.host):
        table.wrong(
            "listen",
            f"{device.listen} is not loopback, and what comes there is not encrypted",
            'listen on 127.0.0.1, or write link = "point-to-point" if nobody else is on that cable',
        )
    if link == "loopback" and device.address is not None and not _is_loopback(device.address.host):
        table.wrong(
            "address",
            f"{device.address} is not loopback, and what goes there is not encrypted",
            'let the device listen on 127.0.0.1, or write link = "point-to-point" if nobody else is on that cable',
        )
    if device.reverse_connections and device.address is None and not device.spools:
        hint = "name where the device listens, as address; without it they are for the agent's own spool"
        table.wrong("reverse_connections", "nobody could be reached over them", hint)
    if device.address is not None and device.address.port == 0:
        table.wrong("address", "port 0 is none that a device listens on", "write the port of its SCP")
    if device.address is not None and device.address == device.listen:
        table.wrong("address", f"{device.address} is where the agent listens", "name where the device itself listens")
    try:
        if ANY in device.networks:
            raise NetworkError("anybody could speak as the device")
        NetworkSet(device.networks)
    except NetworkError as error:
        table.wrong("networks", str(error), 'write the address of the device, as ["192.0.2.7/32"]')


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _spool(table: _Table) -> SpoolSettings:
    spool = SpoolSettings(
        directory=table.path("directory", "spool"),
        key=table.text("key"),
        key_ca=table.path("key_ca") if "key_ca" in table else None,
        quota_bytes=table.whole("quota_bytes", 100 * 1024**3, 1024**2, 1024**5),
        free_bytes=table.whole("free_bytes", 1024**3, 0, 1024**5),
        order=table.choice("order", OLDEST, OLDEST, NEWEST),
        alarm_minutes=table.number("alarm_minutes", 15, 0.01, 1440),
        commitment=table.choice("commitment", IF_OFFERED, IF_OFFERED, REQUIRED, OFF),
    )
    if spool.key.startswith(FETCHED):
        if not _is_url(spool.key):
            table.wrong("key", f"{spool.key!r} is no URL", "write it as https://HOST:PORT")
    elif spool.key and not spool.key.startswith(CREDENTIAL):
        sealed, text = spool.key.startswith(SEALED), spool.key.removeprefix(SEALED)
        key = table.below(text)
        spool_directory = spool.directory.resolve()
        if spool_directory in (key.resolve().parent, *key.resolve().parents):
            table.wrong("key", "the key would lie beside the data", "keep it elsewhere: docs/edge.md")
        spool = replace(spool, key=f"{SEALED if sealed else ''}{key}")
    table.finish()
    return spool


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and parts.path in ("", "/") and (parts.port or 443) > 0
    except ValueError:
        return False


def _bandwidth(value: object, base: Path, note: Callable[[str, str, str], None]) -> tuple[BandwidthRule, ...]:
    if not isinstance(value, list):
        note("bandwidth", "it is not a list of tables", "write [[bandwidth]] with from, to and bytes_per_second")
        return ()
    rules: list[BandwidthRule] = []
    for number, entry in enumerate(value):
        table = _Table(f"bandwidth[{number}]", entry, base, note)
        rules.append(
            BandwidthRule(
                begin_minute=_minute(table, "from"),
                end_minute=_minute(table, "to"),
                bytes_per_second=table.whole("bytes_per_second", _LEAST_RATE, _LEAST_RATE, 1024**4),
            )
        )
        table.finish()
    return tuple(rules)


def _minute(table: _Table, key: str) -> int:
    text = table.text(key, "00:00")
    match = _TIME.match(text)
    if match is None:
        table.wrong(key, f"{text!r} is not a time of the day", 'write it as "07:30"')
        return 0
    return int(match[1]) * 60 + int(match[2])
