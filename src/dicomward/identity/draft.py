"""A registry draft: what somebody may want to register, as a TOML text that a person reads, corrects and loads.

Made by `dicomward inventory` (from a capture or the audit log) and by whatever else reads another system's
configuration; loaded by `dicomward device import`. docs/registry-draft.md has every field. Nothing here registers
anything, and no draft ever holds a value of a patient.
"""

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from dicomward.identity.registry import Archive, Device, Endpoint, RegistryError

DRAFT_FORMAT: Final = 1
REVERSE: Final = "reverse"
"""The address of a device that is reached over connections which it has opened itself."""

_DEVICE_KEYS: Final = (
    "name", "ae_titles", "role", "site", "networks", "address", "plain", "legacy_zone", "why", "seen",
)  # fmt: skip
_ARCHIVE_KEYS: Final = (
    "name", "ae_title", "called_ae_titles", "calling_ae_titles", "address", "networks", "certificate_sha256",
    "dedicated_link", "site", "why", "seen",
)  # fmt: skip
_ROOT_KEYS: Final = ("format", "source", "device", "archive", "notes")
_ADDRESS: Final = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})\Z", re.ASCII)
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]")
_MOST_NAME_CHARACTERS: Final = 64


class DraftError(ValueError):
    """The draft can't be used; `problems` holds every reason, each with its place and what to do."""

    def __init__(self, problems: Collection[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftDevice:
    """A device that may be registered. `role` is "" where nobody could say it: then it must be filled in.

    `why` gives the reasons for role and the rest; `seen` is what it did, for the reader alone: label → texts.
    """

    name: str
    ae_titles: tuple[str, ...]
    role: str = ""
    site: str = ""
    networks: tuple[str, ...] = ()
    address: Endpoint | None = None
    plain: bool = False
    reverse: bool = False
    legacy_zone: str = ""
    why: str = ""
    seen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftArchive:
    """An archive that may be registered; `certificate_sha256` is its pin where it speaks TLS, else ""."""

    name: str
    ae_title: str
    address: Endpoint
    called_ae_titles: tuple[str, ...] = ()
    calling_ae_titles: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    certificate_sha256: str = ""
    dedicated_link: bool = False
    site: str = ""
    why: str = ""
    seen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The whole draft: `source` says what it was made from, `notes` what its reader has to know."""

    source: str = ""
    devices: tuple[DraftDevice, ...] = ()
    archives: tuple[DraftArchive, ...] = ()
    notes: tuple[str, ...] = ()


def name_from(ae_title: str, taken: Collection[str] = ()) -> str:
    """Return a registry name for an AE title: what names can't hold becomes a dash; a number makes it unique."""
    name = _NOT_IN_NAMES.sub("-", ae_title).strip("._-")[:_MOST_NAME_CHARACTERS] or "device"
    unique, number = name, 2
    while unique in taken:
        unique = f"{name[: _MOST_NAME_CHARACTERS - 6]}-{number}"
        number += 1
    return unique


# --- to text ---------------------------------------------------------------------------------------------------------


def draft_text(draft: Draft) -> str:
    """Return the draft as TOML, with its notes and reasons as comments; `parse_draft` reads it back."""
    lines = ["# A registry draft. Review every line, then: dicomward device import THIS_FILE"]
    lines += [f"# {_one_line(note)}" for note in draft.notes]
    lines += [f"format = {DRAFT_FORMAT}", f"source = {toml_text(draft.source)}"]
    for archive in draft.archives:
        lines += ["", "[[archive]]", *_comment(archive.why), f"name = {toml_text(archive.name)}"]
        lines += [f"ae_title = {toml_text(archive.ae_title)}", f"address = {toml_text(_shown(archive.address))}"]
        lines += _lists(
            ("called_ae_titles", archive.called_ae_titles),
            ("calling_ae_titles", archive.calling_ae_titles),
            ("networks", archive.networks),
        )
        lines += _texts(("certificate_sha256", archive.certificate_sha256), ("site", archive.site))
        if not archive.certificate_sha256:
            lines.append(f"dedicated_link = {_boolean(archive.dedicated_link)}")
        lines += _seen_lines(archive.seen)
    for device in draft.devices:
        lines += ["", "[[device]]", *_comment(device.why), f"name = {toml_text(device.name)}"]
        lines += [f"ae_titles = {_list(device.ae_titles)}"]
        lines += [f"role = {toml_text(device.role)}" + ("" if device.role else "  # fill this in")]
        lines += [f"networks = {_list(device.networks)}"]
        if device.address is not None:
            lines += [f"address = {toml_text(_shown(device.address))}", f"plain = {_boolean(device.plain)}"]
        elif device.reverse:
            lines.append(f"address = {toml_text(REVERSE)}")
        lines += _texts(("legacy_zone", device.legacy_zone), ("site", device.site))
        lines += _seen_lines(device.seen)
    return "\n".join(lines) + "\n"


def toml_text(text: str) -> str:
    """Return a text as a TOML basic string, safe for whatever it holds."""
    escapes = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c) or (c if c.isprintable() else _escape(c)) for c in text) + '"'


def _escape(character: str) -> str:
    number = ord(character)
    # A lone surrogate is no character that TOML could name.
    return "?" if 0xD800 <= number <= 0xDFFF else f"\\U{number:08X}"


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _comment(why: str) -> list[str]:
    return [f"# {_one_line(line)}" for line in why.splitlines() if line.strip()]


def _list(values: Iterable[str]) -> str:
    return f"[{', '.join(map(toml_text, values))}]"


def _lists(*entries: tuple[str, tuple[str, ...]]) -> list[str]:
    return [f"{key} = {_list(values)}" for key, values in entries if values]


def _texts(*entries: tuple[str, str]) -> list[str]:
    return [f"{key} = {toml_text(value)}" for key, value in entries if value]


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _seen_lines(seen: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [f"seen.{toml_text(label)} = {_list(values)}" for label, values in seen.items()]


def _shown(address: Endpoint) -> str:
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


# --- to JSON ---------------------------------------------------------------------------------------------------------


def draft_to_json(draft: Draft) -> dict[str, object]:
    """Return the draft with the same names as the TOML text, reasons included."""
    return {
        "format": DRAFT_FORMAT,
        "source": draft.source,
        "notes": list(draft.notes),
        "archives": [
            {
                "name": each.name,
                "ae_title": each.ae_title,
                "address": _shown(each.address),
                "called_ae_titles": list(each.called_ae_titles),
                "calling_ae_titles": list(each.calling_ae_titles),
                "networks": list(each.networks),
                "certificate_sha256": each.certificate_sha256 or None,
                "dedicated_link": each.dedicated_link,
                "site": each.site,
                "why": each.why,
                "seen": {label: list(values) for label, values in each.seen.items()},
            }
            for each in draft.archives
        ],
        "devices": [
            {
                "name": each.name,
                "ae_titles": list(each.ae_titles),
                "role": each.role,
                "site": each.site,
                "networks": list(each.networks),
                "address": REVERSE if each.reverse else _shown(each.address) if each.address else None,
                "plain": each.plain,
                "legacy_zone": each.legacy_zone or None,
                "why": each.why,
                "seen": {label: list(values) for label, values in each.seen.items()},
            }
            for each in draft.devices
        ],
    }


# --- from text -------------------------------------------------------------------------------------------------------


def parse_draft(text: str) -> Draft:
    """Read the TOML text of a draft. Raises DraftError with every problem; `seen` and comments are for people."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DraftError((f"it is not TOML: {error}; correct the line",)) from error
    reader = _Reader()
    root = reader.table(document, "the draft", _ROOT_KEYS)
    if root.get("format", DRAFT_FORMAT) != DRAFT_FORMAT:
        reader.problems.append(f"format {root['format']!r} is not known; this program reads format = {DRAFT_FORMAT}")
    archives = [reader.archive(entry, f"archive {n}") for n, entry in enumerate(reader.tables(root, "archive"), 1)]
    devices = [reader.device(entry, f"device {n}") for n, entry in enumerate(reader.tables(root, "device"), 1)]
    source = reader.text(root, "source", "the draft")
    notes = reader.texts(root, "notes", "the draft")
    if reader.problems:
        raise DraftError(reader.problems)
    return Draft(
        source=source,
        notes=notes,
        devices=tuple(each for each in devices if each is not None),
        archives=tuple(each for each in archives if each is not None),
    )


class _Reader:
    """Collects the problems; what is wrong is left out of what it returns."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def table(self, value: object, where: str, known: tuple[str, ...]) -> Mapping[str, object]:
        if not isinstance(value, dict):
            self.problems.append(f"{where}: it is not a table")
            return {}
        for key in value:
            if key not in known:
                self.problems.append(f"{where}: {key!r} is not known; the fields are {', '.join(known)}")
        return value

    def tables(self, root: Mapping[str, object], key: str) -> list[object]:
        value = root.get(key, [])
        if not isinstance(value, list):
            self.problems.append(f"{key}: write [[{key}]] on a line of its own, once for each")
            return []
        return value

    def text(self, table: Mapping[str, object], key: str, where: str) -> str:
        value = table.get(key, "")
        if not isinstance(value, str):
            self.problems.append(f"{where}: {key} is not a text; write it in quotes")
            return ""
        return value

    def texts(self, table: Mapping[str, object], key: str, where: str) -> tuple[str, ...]:
        value = table.get(key, [])
        values = value if isinstance(value, list) else [value]
        texts = tuple(each for each in values if isinstance(each, str))
        if len(texts) != len(values):
            self.problems.append(f'{where}: {key} is not a list of texts; write it as ["A", "B"]')
        return texts

    def boolean(self, table: Mapping[str, object], key: str, where: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            self.problems.append(f"{where}: {key} is neither true nor false")
            return False
        return value

    def address(self, table: Mapping[str, object], where: str) -> Endpoint | None:
        text = self.text(table, "address", where)
        if not text:
            return None
        match = _ADDRESS.match(text)
        if match is None:
            self.problems.append(f"{where}: address {text!r} is not HOST:PORT")
            return None
        try:
            return Endpoint(host=match["v6"] or match["host"], port=int(match["port"]))
        except RegistryError as error:
            self.problems.append(f"{where}: {error}")
            return None

    def seen(self, table: Mapping[str, object], where: str) -> dict[str, tuple[str, ...]]:
        value = table.get("seen", {})
        if not isinstance(value, dict):
            self.problems.append(f"{where}: seen is not a table; it is for people, so it may be left out")
            return {}
        return {label: self.texts(value, label, f"{where}: seen") for label in value}

    def named(self, entry: object, kind: str, where: str) -> str:
        """Return how messages call an entry: by its name where it has one."""
        name = entry.get("name") if isinstance(entry, dict) else None
        return f"{kind} {name!r}" if isinstance(name, str) and name else where

    def device(self, entry: object, where: str) -> DraftDevice | None:
        where = self.named(entry, "device", where)
        table = self.table(entry, where, _DEVICE_KEYS)
        name = self.text(table, "name", where)
        is_reverse = table.get("address") == REVERSE
        drafted = DraftDevice(
            name=name,
            ae_titles=self.texts(table, "ae_titles", where),
            role=self.text(table, "role", where),
            site=self.text(table, "site", where),
            networks=self.texts(table, "networks", where),
            address=None if is_reverse else self.address(table, where),
            reverse=is_reverse,
            plain=self.boolean(table, "plain", where),
            legacy_zone=self.text(table, "legacy_zone", where),
            why=self.text(table, "why", where),
            seen=self.seen(table, where),
        )
        for key, value, hint in (
            ("name", name, "rules and the audit log call it so"),
            ("ae_titles", drafted.ae_titles, "name the AE titles that it calls with"),
            ("role", drafted.role, "write modality, workstation, uploader, teleradiology, research or your own"),
            ("networks", drafted.networks, "name where it may call from"),
        ):
            if not value:
                self.problems.append(f"{where}: {key} is missing; {hint}")
        return drafted

    def archive(self, entry: object, where: str) -> DraftArchive | None:
        where = self.named(entry, "archive", where)
        table = self.table(entry, where, _ARCHIVE_KEYS)
        name = self.text(table, "name", where)
        address = self.address(table, where)
        title = self.text(table, "ae_title", where)
        for key, value, hint in (
            ("name", name, "rules and the audit log call it so"),
            ("ae_title", title, "it is what the archive calls itself"),
            ("address", table.get("address"), "write HOST:PORT, where it listens"),
        ):
            if not value:
                self.problems.append(f"{where}: {key} is missing; {hint}")
        drafted = {
            "called_ae_titles": self.texts(table, "called_ae_titles", where),
            "calling_ae_titles": self.texts(table, "calling_ae_titles", where),
            "networks": self.texts(table, "networks", where),
        }
        pin, site, why = (self.text(table, key, where) for key in ("certificate_sha256", "site", "why"))
        dedicated, seen = self.boolean(table, "dedicated_link", where), self.seen(table, where)
        if address is None:
            return None
        return DraftArchive(
            name=name,
            ae_title=title,
            address=address,
            certificate_sha256=pin,
            dedicated_link=dedicated,
            site=site,
            why=why,
            seen=seen,
            **drafted,
        )


# --- to the registry -------------------------------------------------------------------------------------------------


def principals_of(draft: Draft) -> tuple[tuple[Device, ...], tuple[Archive, ...]]:
    """Return what the draft would register. Raises DraftError with everything that the registry refuses."""
    problems: list[str] = []
    devices: list[Device] = []
    archives: list[Archive] = []
    for drafted in draft.archives:
        try:
            archives.append(_archive_of(drafted))
        except RegistryError as error:
            problems.append(str(error))
    for each in draft.devices:
        try:
            devices.append(_device_of(each))
        except RegistryError as error:
            problems.append(str(error))
    if problems:
        raise DraftError(problems)
    return tuple(devices), tuple(archives)


def _device_of(drafted: DraftDevice) -> Device:
    return Device(
        name=drafted.name,
        ae_titles=drafted.ae_titles,
        role=drafted.role,
        site=drafted.site,
        networks=drafted.networks,
        address=drafted.address,
        plain=drafted.plain,
        reverse=drafted.reverse,
        legacy_zone=drafted.legacy_zone,
    )


def _archive_of(drafted: DraftArchive) -> Archive:
    pin = drafted.certificate_sha256 or None
    return Archive(
        name=drafted.name,
        ae_title=drafted.ae_title,
        called_ae_titles=drafted.called_ae_titles,
        calling_ae_titles=drafted.calling_ae_titles or (drafted.ae_title,),
        endpoint=drafted.address,
        networks=drafted.networks,
        tls=pin is not None,
        dedicated_link=drafted.dedicated_link,
        certificate_sha256=pin,
        site=drafted.site,
    )
