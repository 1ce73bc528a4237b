"""The registry as JSON text: what the stores compile and the gateway reads, so that its start needs no database."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from dicomward.identity.registry import (
    CERTIFICATE_STATUSES,
    Archive,
    CertificateRecord,
    Device,
    DeviceStatus,
    Endpoint,
    RegistryError,
    RegistrySnapshot,
)

SNAPSHOT_FORMAT: Final = 1


def encode_snapshot(snapshot: RegistrySnapshot) -> str:
    """Return the JSON text, one principal a line, in the snapshot's order: the same snapshot gives the same text."""
    devices = ",\n".join(_dump(_device_to_json(device)) for device in snapshot.devices)
    archives = ",\n".join(_dump(_archive_to_json(archive)) for archive in snapshot.archives)
    return (
        f'{{"format": {SNAPSHOT_FORMAT}, "revision": {snapshot.revision},\n'
        f'"devices": [\n{devices}\n],\n"archives": [\n{archives}\n]}}\n'
    )


def decode_snapshot(text: str) -> RegistrySnapshot:
    """Read the JSON text of `encode_snapshot`. Raises RegistryError for anything else, as unknown or doubled keys."""
    try:
        document: object = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RegistryError(f"the registry snapshot is not JSON ({error}); compile it anew") from error
    root = _Fields(document, "snapshot", _SNAPSHOT_KEYS)
    if root.integer("format") != SNAPSHOT_FORMAT:
        raise RegistryError(f"the registry snapshot has another format than {SNAPSHOT_FORMAT}; compile it anew")
    return RegistrySnapshot(
        devices=tuple(_device_from_json(entry) for entry in root.entries("devices")),
        archives=tuple(_archive_from_json(entry) for entry in root.entries("archives")),
        revision=root.integer("revision"),
    )


_SNAPSHOT_KEYS: Final = frozenset({"format", "revision", "devices", "archives"})
_ENDPOINT_KEYS: Final = frozenset({"host", "port"})
_CERTIFICATE_KEYS: Final = frozenset({"sha256", "not_before", "not_after", "status", "serial"})
_DEVICE_KEYS: Final = frozenset(
    {"name", "ae_titles", "role", "site", "networks", "address", "plain", "status", "certificates"}
)
# What snapshots of 0.1.0 don't have: an upgraded gateway starts with them.
_LATER_DEVICE_KEYS: Final[Mapping[str, object]] = {
    "reverse": False,
    "legacy_zone": "",
    "legacy_always": False,
    "observe_until": None,
}
_ARCHIVE_KEYS: Final = frozenset(
    {
        "name",
        "ae_title",
        "called_ae_titles",
        "calling_ae_titles",
        "endpoint",
        "networks",
        "tls",
        "dedicated_link",
        "certificate_sha256",
        "site",
        "sends_move_originator",
    }
)


_LATER_ARCHIVE_KEYS: Final[Mapping[str, object]] = {"replica_of": ""}


class _Fields:
    """One JSON object with exactly the keys that it must have; each getter checks the type."""

    __slots__ = ("_values", "_where")

    def __init__(
        self, value: object, where: str, keys: frozenset[str], later: Mapping[str, object] | None = None
    ) -> None:
        if not isinstance(value, dict):
            raise RegistryError(f"{where} is not an object")
        if later:
            value = {**later, **value}
            keys |= later.keys()
        if value.keys() != keys:
            unknown, missing = sorted(value.keys() - keys), sorted(keys - value.keys())
            raise RegistryError(f"{where}: unknown keys {unknown}, missing keys {missing}")
        self._values: Mapping[str, object] = value
        self._where = where

    def text(self, key: str) -> str:
        value = self._values[key]
        if not isinstance(value, str):
            raise RegistryError(f"{self._where}: {key} is not a text")
        return value

    def integer(self, key: str) -> int:
        value = self._values[key]
        # True is an int for isinstance.
        if not isinstance(value, int) or isinstance(value, bool):
            raise RegistryError(f"{self._where}: {key} is not an integer")
        return value

    def boolean(self, key: str) -> bool:
        value = self._values[key]
        if not isinstance(value, bool):
            raise RegistryError(f"{self._where}: {key} is neither true nor false")
        return value

    def is_null(self, key: str) -> bool:
        return self._values[key] is None

    def entries(self, key: str) -> list[object]:
        value = self._values[key]
        if not isinstance(value, list):
            raise RegistryError(f"{self._where}: {key} is not a list")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        entries = self.entries(key)
        texts = tuple([entry for entry in entries if isinstance(entry, str)])
        if len(texts) != len(entries):
            raise RegistryError(f"{self._where}: {key} holds something that is not a text")
        return texts

    def time(self, key: str) -> datetime:
        text = self.text(key)
        try:
            return datetime.fromisoformat(text)
        except ValueError as error:
            raise RegistryError(f"{self._where}: {key} {text!r} is not a time of ISO 8601") from error

    def endpoint(self, key: str) -> Endpoint:
        fields = _Fields(self._values[key], f"{self._where}: {key}", _ENDPOINT_KEYS)
        return Endpoint(host=fields.text("host"), port=fields.integer("port"))


def _dump(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise RegistryError("the registry snapshot has the same key twice in one object")
    return values


def _refuse_constant(name: str) -> object:
    raise RegistryError(f"the registry snapshot holds {name}, which is not JSON")


def _endpoint_to_json(endpoint: Endpoint) -> dict[str, object]:
    return {"host": endpoint.host, "port": endpoint.port}


def _device_to_json(device: Device) -> dict[str, object]:
    return {
        "name": device.name,
        "ae_titles": device.ae_titles,
        "role": device.role,
        "site": device.site,
        "networks": device.networks,
        "address": _endpoint_to_json(device.address) if device.address else None,
        "plain": device.plain,
        "reverse": device.reverse,
        "status": device.status.value,
        "certificates": [
            {
                "sha256": record.sha256,
                "not_before": record.not_before.isoformat(),
                "not_after": record.not_after.isoformat(),
                "status": record.status,
                "serial": record.serial,
            }
            for record in device.certificates
        ],
        "legacy_zone": device.legacy_zone,
        "legacy_always": device.legacy_always,
        "observe_until": device.observe_until.isoformat() if device.observe_until else None,
    }


def encode_device(device: Device) -> str:
    """Return one device as JSON text, as a snapshot has it."""
    return _dump(_device_to_json(device))


def decode_device(text: str) -> Device:
    """Read the JSON text of `encode_device`. Raises RegistryError."""
    try:
        return _device_from_json(json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant))
    except (json.JSONDecodeError, RecursionError) as error:
        raise RegistryError(f"a stored device is not JSON ({error})") from error


def _device_from_json(value: object) -> Device:
    fields = _Fields(value, "a device", _DEVICE_KEYS, _LATER_DEVICE_KEYS)
    name, status = fields.text("name"), fields.text("status")
    if status not in _DEVICE_STATUSES:
        raise RegistryError(f"{name}: status {status!r} is not one of {sorted(_DEVICE_STATUSES)}")
    return Device(
        name=name,
        ae_titles=fields.texts("ae_titles"),
        role=fields.text("role"),
        site=fields.text("site"),
        networks=fields.texts("networks"),
        address=None if fields.is_null("address") else fields.endpoint("address"),
        plain=fields.boolean("plain"),
        reverse=fields.boolean("reverse"),
        status=_DEVICE_STATUSES[status],
        certificates=tuple(_certificate_from_json(entry, name) for entry in fields.entries("certificates")),
        legacy_zone=fields.text("legacy_zone"),
        legacy_always=fields.boolean("legacy_always"),
        observe_until=None if fields.is_null("observe_until") else fields.time("observe_until"),
    )


_DEVICE_STATUSES: Final = {status.value: status for status in DeviceStatus}


def _certificate_from_json(value: object, device: str) -> CertificateRecord:
    fields = _Fields(value, f"a certificate of device {device!r}", _CERTIFICATE_KEYS)
    status = fields.text("status")
    if status not in CERTIFICATE_STATUSES:
        raise RegistryError(f"{device}: certificate status {status!r} is not one of {sorted(CERTIFICATE_STATUSES)}")
    return CertificateRecord(
        sha256=fields.text("sha256"),
        not_before=fields.time("not_before"),
        not_after=fields.time("not_after"),
        status=CERTIFICATE_STATUSES[status],
        serial=fields.text("serial"),
    )


def _archive_to_json(archive: Archive) -> dict[str, object]:
    return {
        "name": archive.name,
        "ae_title": archive.ae_title,
        "called_ae_titles": archive.called_ae_titles,
        "calling_ae_titles": archive.calling_ae_titles,
        "endpoint": _endpoint_to_json(archive.endpoint),
        "networks": archive.networks,
        "tls": archive.tls,
        "dedicated_link": archive.dedicated_link,
        "certificate_sha256": archive.certificate_sha256,
        "site": archive.site,
        "sends_move_originator": archive.sends_move_originator,
        "replica_of": archive.replica_of,
    }


def _archive_from_json(value: object) -> Archive:
    fields = _Fields(value, "an archive", _ARCHIVE_KEYS, _LATER_ARCHIVE_KEYS)
    called = fields.texts("called_ae_titles")
    if not called:
        raise RegistryError("an archive: called_ae_titles is empty")
    return Archive(
        name=fields.text("name"),
        ae_title=fields.text("ae_title"),
        called_ae_titles=called,
        calling_ae_titles=fields.texts("calling_ae_titles"),
        endpoint=fields.endpoint("endpoint"),
        networks=fields.texts("networks"),
        tls=fields.boolean("tls"),
        dedicated_link=fields.boolean("dedicated_link"),
        certificate_sha256=None if fields.is_null("certificate_sha256") else fields.text("certificate_sha256"),
        site=fields.text("site"),
        sends_move_originator=None
        if fields.is_null("sends_move_originator")
        else fields.boolean("sends_move_originator"),
        replica_of=fields.text("replica_of"),
    )
