"""An Orthanc configuration, to a registry draft and back: JSON with comments, one file or a folder of them.

Whatever a draft can't say becomes a note: nothing is dropped in silence.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from dicomward.identity.draft import Draft, DraftArchive, DraftDevice, name_from
from dicomward.identity.registry import Device, Endpoint, RegistryError
from dicomward.vocab.ae_title import AeTitleError, parse_ae_title

_DEFAULT_AE_TITLE: Final = "ORTHANC"
_DEFAULT_PORT: Final = 4242
_LOOPBACK: Final = "127.0.0.1"
_LOOPBACK_NETWORK: Final = "127.0.0.0/8"
_POSITIONS: Final = ("AET", "Host", "Port", "Manufacturer")
# What the draft takes from a modality; everything else in it is shown to its reader.
_TAKEN: Final = frozenset({"AET", "Host", "Port", "LocalAet"})
_READING: Final = ("AllowFind", "AllowGet", "AllowMove")
# What of the whole configuration decides who may do what, and how the gateway says it.
_GLOBAL_NOTES: Final[dict[tuple[str, object], str]] = {
    ("DicomModalitiesInDatabase", True): (
        "DicomModalitiesInDatabase is true: modalities that are only in Orthanc's database are not in this file; save "
        'what GET /modalities?expand answers as {"DicomModalities": ...} and import that too'
    ),
    ("DicomCheckCalledAet", False): (
        "DicomCheckCalledAet is false: devices may call Orthanc by any title; the gateway only knows the titles of the "
        "archive, so add those in use to called_ae_titles"
    ),
    ("StrictAetComparison", False): (
        "StrictAetComparison is false: Orthanc takes AE titles in any case; the gateway compares them exactly"
    ),
    ("DicomCheckModalityHost", False): (
        "DicomCheckModalityHost is false: Orthanc took these titles from every address; the gateway only from networks"
    ),
}
_ALWAYS: Final = re.compile(r"DicomAlwaysAllow([A-Za-z]+)\Z")
_OTHER_PEERS: Final = {
    "OrthancPeers": "HTTP peers",
    "DicomWeb": "DICOMweb servers",
    "Worklists": "a worklist plugin",
}
_LAST_COMMA: Final = re.compile(r",(?=\s*[}\]])")
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}")


class OrthancError(ValueError):
    """It is no Orthanc configuration that can be read; the message says where and why."""


# --- reading ---------------------------------------------------------------------------------------------------------


def read_orthanc(files: Sequence[tuple[str, str]], *, host: str = _LOOPBACK) -> Draft:
    """Return the draft of a configuration: `files` are names and texts, `host` is where Orthanc runs.

    Raises OrthancError.
    """
    reader = _Reader()
    whole: dict[str, object] = {}
    for name, text in files:
        for key, value in _document(name, text, reader.notes).items():
            if key in whole:
                reader.notes.append(f"{key} is in {name} again; Orthanc refuses that, this draft has both")
                whole[key] = _merged(whole[key], value)
            else:
                whole[key] = value
    if not whole:
        raise OrthancError("no configuration was found: name orthanc.json, or the folder that Orthanc is started with")
    modalities = whole.get("DicomModalities", {})
    if not isinstance(modalities, dict):
        raise OrthancError("DicomModalities is not an object of name and modality")
    for name, value in modalities.items():
        reader.modality(name, value)
    archive = reader.archive(whole, host)
    reader.leave_out(archive.ae_title)
    reader.global_notes(whole)
    return Draft(
        source=f"Orthanc: {', '.join(name for name, _text in files)}",
        archives=(archive,),
        devices=tuple(reader.devices()),
        notes=tuple(reader.notes),
    )


def _merged(one: object, other: object) -> object:
    return {**one, **other} if isinstance(one, dict) and isinstance(other, dict) else other


def _document(name: str, text: str, notes: list[str]) -> dict[str, object]:
    try:
        value = json.loads(strip_comments(text))
    except (ValueError, RecursionError) as error:
        raise OrthancError(f"{name}: it is not JSON with comments: {error}") from error
    if not isinstance(value, dict):
        raise OrthancError(f"{name}: it is not a JSON object")
    if value and "DicomModalities" not in value and all(_is_modality(each) for each in value.values()):
        notes.append(f"{name} holds only modalities, as GET /modalities?expand answers them")
        return {"DicomModalities": value}
    return value


def _is_modality(value: object) -> bool:
    return isinstance(value, dict) and "AET" in value and "Host" in value


def strip_comments(text: str) -> str:
    """Return JSON without // and /* */ comments and without commas before a closing bracket; positions stay."""
    out: list[str] = []
    at = 0
    while at < len(text):
        character = text[at]
        if character == '"':
            end = _string_end(text, at)
            out.append(text[at:end])
        elif text.startswith("//", at):
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            out.append(" " * (end - at))
        elif text.startswith("/*", at):
            close = text.find("*/", at + 2)
            end = len(text) if close < 0 else close + 2
            out.append(re.sub(r"[^\n]", " ", text[at:end]))
        else:
            end = at + 1
            out.append(character)
        at = end
    return _without_last_commas("".join(out))


def _string_end(text: str, start: int) -> int:
    at = start + 1
    while at < len(text) and text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return at + 1


def _without_last_commas(text: str) -> str:
    parts, at = [], 0
    while at < len(text):
        if text[at] == '"':
            end = _string_end(text, at)
            parts.append(text[at:end])
            at = end
        else:
            parts.append(" " if _LAST_COMMA.match(text, at) else text[at])
            at += 1
    return "".join(parts)


@dataclass(slots=True)
class _Modality:
    """One AE title, as one or several entries of DicomModalities have it."""

    name: str
    ae_title: str
    address: Endpoint
    networks: list[str]
    options: dict[str, object]
    names: list[str] = field(default_factory=list)


class _Reader:
    """Collects modalities by AE title, and notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._modalities: dict[str, _Modality] = {}
        self._local_titles: list[str] = []

    def modality(self, name: str, value: object) -> None:
        options = self._options(name, value)
        if options is None:
            return
        title, host, port = self._value(options.get("AET")), self._value(options.get("Host")), options.get("Port")
        try:
            ae_title = parse_ae_title(title)
            number = int(self._value(port)) if isinstance(port, str) else port
            address = Endpoint(host=host, port=number if type(number) is int else 0)
        except (AeTitleError, RegistryError, ValueError) as error:
            self.notes.append(f"modality {name!r} is left out: {error}")
            return
        if local := self._value(options.get("LocalAet")):
            self._local_titles.append(local)
        networks = _network_of(host)
        known = self._modalities.get(ae_title)
        if known is None:
            self._modalities[ae_title] = _Modality(name, ae_title, address, networks, options)
            return
        known.names.append(name)
        known.networks += [each for each in networks if each not in known.networks]
        self.notes.append(
            f"modality {name!r} has the AE title {ae_title} of {known.name!r}: the draft has one device that calls "
            f"from both, and listens at {known.address}; say which is right"
        )

    def _options(self, name: str, value: object) -> dict[str, object] | None:
        if isinstance(value, list) and len(value) in (3, 4):
            return dict(zip(_POSITIONS, value, strict=False))
        if isinstance(value, dict):
            return value
        self.notes.append(f"modality {name!r} is left out: it is neither [AET, host, port] nor an object")
        return None

    def _value(self, value: object) -> str:
        """Return a text, with the defaults of its environment variables."""
        if not isinstance(value, str):
            return "" if value is None else str(value)
        for match in _VARIABLE.finditer(value):
            self.notes.append(f"{match[0]} comes from Orthanc's environment; the draft has {match[3] or 'nothing'!r}")
        return _VARIABLE.sub(lambda match: match[3] or "", value)

    def leave_out(self, ae_title: str) -> None:
        """Leave out the modality that is Orthanc itself."""
        own = self._modalities.pop(ae_title, None)
        if own is not None:
            self.notes.append(f"modality {own.name!r} is left out: {ae_title} is Orthanc's own AE title")

    def devices(self) -> Iterable[DraftDevice]:
        """Return a device for each AE title."""
        taken: set[str] = set()
        for modality in self._modalities.values():
            name = name_from(modality.name, taken)
            taken.add(name)
            role, why = _role_of(modality.options)
            if not modality.networks:
                why += f"\n{modality.address.host} is a name: fill in the networks that it calls from"
            tls = modality.options.get("UseDicomTls") is True
            seen: dict[str, tuple[str, ...]] = {k: (_shown(v),) for k, v in modality.options.items() if k not in _TAKEN}
            if modality.names:
                seen["also called"] = tuple(modality.names)
            yield DraftDevice(
                name=name,
                ae_titles=(modality.ae_title,),
                role=role,
                networks=tuple(modality.networks),
                address=modality.address,
                plain=not tls,
                why=why,
                seen=seen,
            )

    def archive(self, whole: Mapping[str, object], host: str) -> DraftArchive:
        """Return Orthanc itself."""
        title = self._value(whole.get("DicomAet")) or _DEFAULT_AE_TITLE
        port = whole.get("DicomPort", _DEFAULT_PORT)
        try:
            number = int(self._value(port)) if isinstance(port, str) else port
            address = Endpoint(host=host, port=number if type(number) is int else 0)
            parse_ae_title(title)
        except (AeTitleError, RegistryError, ValueError) as error:
            raise OrthancError(f"DicomAet and DicomPort can't be used: {error}") from error
        why = f"Orthanc's own DicomAet and DicomPort; it runs on {host}"
        if whole.get("DicomTlsEnabled") is True:
            why += "\nDicomTlsEnabled is true: fill in certificate_sha256, the SHA-256 of DicomTlsCertificate"
            self.notes.append("Orthanc speaks TLS: pin its certificate (certificate_sha256) before you load this draft")
        if whole.get("DicomServerEnabled") is False:
            self.notes.append("DicomServerEnabled is false: Orthanc takes no associations")
        networks = _network_of(host)
        if not networks:
            why += f"\n{host} is a name: fill in the networks that Orthanc calls from"
        titles = dict.fromkeys([title, *self._local_titles])
        return DraftArchive(
            name=name_from(title, {each.name for each in self.devices()}),
            ae_title=title,
            address=address,
            calling_ae_titles=tuple(titles),
            networks=tuple(networks),
            why=why,
        )

    def global_notes(self, whole: Mapping[str, object]) -> None:
        """Say what the configuration as a whole allows, which the draft can't."""
        for (key, value), note in _GLOBAL_NOTES.items():
            if key in whole and whole[key] == value:
                self.notes.append(note)
        for key, value in whole.items():
            if (match := _ALWAYS.match(key)) and value is True:
                self.notes.append(f"{key} is true: every title could {match[1]}; behind the gateway rules say who may")
            if key in _OTHER_PEERS and value:
                self.notes.append(f"{key}: {_OTHER_PEERS[key]} are no DICOM devices, and not in this draft")


def _network_of(host: str) -> list[str]:
    try:
        address = ip_address(host)
    except ValueError:
        return [_LOOPBACK_NETWORK] if host == "localhost" else []
    if address.is_loopback and address.version == 4:
        return [_LOOPBACK_NETWORK]
    return [f"{address}/{address.max_prefixlen}"]


def _role_of(options: Mapping[str, object]) -> tuple[str, str]:
    """Guess a role from what Orthanc lets a modality do; flags that aren't written are true."""
    flags = {key: value for key, value in options.items() if key.startswith("Allow") and isinstance(value, bool)}
    if not any(key in flags for key in _READING):
        return "", "Orthanc's configuration does not say what it may do: fill in its role"
    reads = [key for key in _READING if flags.get(key, True)]
    if reads and flags.get("AllowStore", True) and flags.get("AllowFindWorklist", False):
        return "", f"{', '.join(reads)}, AllowStore and AllowFindWorklist are true: fill in its role"
    if reads:
        return "workstation", f"role workstation: {', '.join(reads)} {'is' if len(reads) == 1 else 'are'} true"
    if flags.get("AllowStore", True):
        return "modality", "role modality: it may store, and neither find, get nor move"
    return "", "it may neither read nor store: fill in its role, or take it out"


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# --- writing ---------------------------------------------------------------------------------------------------------

_RIGHTS: Final = (
    "AllowEcho", "AllowStore", "AllowFind", "AllowFindWorklist", "AllowGet", "AllowMove", "AllowStorageCommitment",
)  # fmt: skip
_SECURITY: Final = (
    "DicomCheckCalledAet", "DicomCheckModalityHost", "StrictAetComparison",
)  # fmt: skip
_CLOSED: Final = (
    "DicomAlwaysAllowEcho", "DicomAlwaysAllowStore", "DicomAlwaysAllowFind", "DicomAlwaysAllowFindWorklist",
    "DicomAlwaysAllowGet", "DicomAlwaysAllowMove", "DicomModalitiesInDatabase", "RemoteAccessAllowed",
)  # fmt: skip


def write_orthanc(devices: Iterable[Device], gateway: Endpoint, *, tls: bool) -> str:
    """Return the part of orthanc.json that lets only the gateway in, and sends to devices through it."""
    modalities: dict[str, object] = {}
    for device in devices:
        for number, title in enumerate(device.ae_titles):
            name = device.name if not number else name_from(f"{device.name}-{title}", modalities)
            modalities[name] = {
                "AET": title,
                "Host": gateway.host,
                "Port": gateway.port,
                **dict.fromkeys(_RIGHTS, True),
                **({"UseDicomTls": True} if tls else {}),
            }
    lines = json.dumps(
        {"DicomModalities": modalities, **dict.fromkeys(_SECURITY, True), **dict.fromkeys(_CLOSED, False)}, indent=2
    )
    return (
        "// For Orthanc: a file of its own beside orthanc.json. Take the same keys out of the other files.\n"
        "// Every device is reached at the gateway's archive side; who may do what is decided by the gateway.\n"
        f"{lines}\n"
    )
