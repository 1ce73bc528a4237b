"""The strict JSON text of the registry."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.identity.registry import (
    Archive,
    CertificateRecord,
    Device,
    DeviceStatus,
    Endpoint,
    RegistryError,
    RegistrySnapshot,
)
from dicomward.identity.registry_json import decode_device, decode_snapshot, encode_device, encode_snapshot
from tests.identity.examples import (
    CT1,
    NOT_AFTER,
    PACS,
    SITE,
    device,
    fingerprint,
    record,
    snapshot,
)


def test_text_is_readable_and_stable() -> None:
    text = encode_snapshot(SITE)
    assert decode_snapshot(text) == SITE
    assert encode_snapshot(decode_snapshot(text)) == text
    document = json.loads(text)
    assert document["revision"] == 7
    assert document["devices"][1]["address"] == {"host": "10.1.3.7", "port": 11112}
    assert text.count("\n") < 15


def test_empty_registry_survives() -> None:
    assert decode_snapshot(encode_snapshot(snapshot())) == snapshot()


def _changed(path: tuple[str | int, ...], value: object) -> str:
    document = json.loads(encode_snapshot(SITE))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("format",), 2, "another format"),
        (("format",), True, "format is not an integer"),
        (("revision",), "7", "revision is not an integer"),
        (("revision",), 7.0, "revision is not an integer"),
        (("surprise",), 1, r"unknown keys \['surprise'\]"),
        (("devices",), {}, "devices is not a list"),
        (("devices", 0), "CT1", "a device is not an object"),
        (("devices", 0, "bypass"), True, r"unknown keys \['bypass'\]"),
        (("devices", 0, "name"), 5, "name is not a text"),
        (("devices", 0, "name"), None, "name is not a text"),
        (("devices", 0, "plain"), 0, "plain is neither true nor false"),
        (("devices", 0, "ae_titles"), "CT1", "ae_titles is not a list"),
        (("devices", 0, "ae_titles"), [1], "ae_titles holds something that is not a text"),
        (("devices", 0, "networks"), None, "networks is not a list"),
        (("devices", 0, "status"), "ACTIVE", "status 'ACTIVE' is not one of"),
        (("devices", 0, "address"), "h:1", "address is not an object"),
        (("devices", 0, "address"), {"host": "h"}, r"missing keys \['port'\]"),
        (("devices", 0, "certificates", 0, "status"), "unknown", "certificate status 'unknown'"),
        (("devices", 0, "certificates", 0, "not_after"), "soon", "is not a time"),
        (("devices", 0, "certificates", 0, "not_after"), "2027-01-01T00:00:00", "no time zone"),
        (("archives", 0, "called_ae_titles"), [], "called_ae_titles is empty"),
        (("archives", 0, "endpoint"), None, "endpoint is not an object"),
        (("archives", 0, "tls"), "yes", "tls is neither"),
        (("archives", 0, "sends_move_originator"), 1, "sends_move_originator is neither"),
    ],
)
def test_trap_snapshot_that_is_not_exactly_one_is_refused(path: tuple[str | int, ...], value: object, why: str) -> None:
    with pytest.raises(RegistryError, match=why):
        decode_snapshot(_changed(path, value))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "snapshot is not an object"),
        ('{"format": 1, "format": 1, "revision": 0, "devices": [], "archives": []}', "same key twice"),
        ('{"format": NaN, "revision": 0, "devices": [], "archives": []}', "NaN, which is not JSON"),
        ('{"format": 1, "revision": 0, "devices": []}', r"missing keys \['archives'\]"),
    ],
)
def test_text_that_is_no_snapshot_is_refused(text: str, why: str) -> None:
    with pytest.raises(RegistryError, match=why):
        decode_snapshot(text)


_TITLES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), min_size=1, max_size=16
)
_NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
_TIMES = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=2))]),
)
_ENDPOINTS = st.builds(Endpoint, host=st.sampled_from(["pacs", "10.0.0.1", "fe80::1%eth0"]), port=st.integers(1, 65535))
_NETWORKS = st.lists(st.sampled_from(["10.1.2.0/24", "2001:db8::/64", "10.0.0.9"]), unique=True, max_size=3).map(tuple)


@st.composite
def _snapshots(draw: st.DrawFn) -> RegistrySnapshot:
    names = draw(st.lists(_NAMES, unique=True, max_size=6))
    titles = draw(st.lists(_TITLES, unique=True, min_size=2 * len(names), max_size=2 * len(names)))
    principals: list[Device | Archive] = []
    for index, name in enumerate(names):
        own = tuple(titles[2 * index : 2 * index + 2])
        begin, end = sorted((draw(_TIMES), draw(_TIMES)))
        if draw(st.booleans()):
            principals.append(
                Device(
                    name=name,
                    ae_titles=own,
                    role=draw(_NAMES),
                    site=draw(st.sampled_from(["", "Nord, Haus 3", "Universit\u00e4t"])),
                    networks=draw(_NETWORKS) + draw(st.sampled_from([(), ("any",)])),
                    address=draw(st.none() | _ENDPOINTS),
                    plain=draw(st.booleans()),
                    status=draw(st.sampled_from(DeviceStatus)),
                    certificates=(
                        CertificateRecord(
                            sha256=fingerprint(name),
                            not_before=begin,
                            not_after=end,
                            status=draw(st.sampled_from(["active", "revoked"])),
                            serial="0a",
                        ),
                    ),
                )
            )
        else:
            pinned = draw(st.booleans())
            principals.append(
                Archive(
                    name=name,
                    ae_title=own[0],
                    called_ae_titles=own,
                    calling_ae_titles=draw(st.sampled_from([(), own])),
                    endpoint=draw(_ENDPOINTS),
                    networks=draw(_NETWORKS),
                    tls=pinned,
                    dedicated_link=draw(st.booleans()),
                    certificate_sha256=fingerprint(name) if pinned else None,
                    site="",
                    sends_move_originator=draw(st.none() | st.booleans()),
                )
            )
    return snapshot(*principals)


@given(_snapshots())
def test_every_snapshot_survives_its_text(registry: RegistrySnapshot) -> None:
    assert decode_snapshot(encode_snapshot(registry)) == registry


@given(st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_nothing_but_registry_error_leaves_decode(text: str) -> None:
    with pytest.raises(RegistryError):
        decode_snapshot(text)


def test_registry_of_5000_devices_is_read_well_within_the_start_up_budget() -> None:
    devices = [
        device(
            f"D{number}",
            ae_titles=(f"D{number}", f"D{number}_Q"),
            networks=(f"10.{number // 250}.{number % 250}.0/24",),
            certificates=(record(f"D{number}"),),
        )
        for number in range(5000)
    ]
    text = encode_snapshot(snapshot(*devices, PACS))
    began = time.process_time()
    registry = decode_snapshot(text)
    decoded = time.process_time() - began
    began = time.process_time()
    for number in range(1000):
        assert not registry.is_registered_address(f"192.0.2.{number % 256}")
    asked = (time.process_time() - began) / 1000
    assert registry.is_registered_address("10.19.249.1")
    # Measured 0.09 s and 3 µs on 2 cores; the room above is for a busy machine and for coverage.
    assert decoded < 1.0
    assert asked < 100e-6


def test_device_of_an_older_snapshot_has_no_reverse_connections() -> None:
    older = json.loads(encode_device(replace(CT1, reverse=True)))
    assert older.pop("reverse") is True
    assert decode_device(json.dumps(older)) == CT1


def test_device_survives_its_text() -> None:
    moving = replace(device(), legacy_zone="old", legacy_always=True, observe_until=NOT_AFTER)
    assert decode_device(encode_device(moving)) == moving
    assert decode_device(encode_device(replace(device(), reverse=True))).reverse
    for text in ("{", "[]", "{}"):
        with pytest.raises(RegistryError):
            decode_device(text)


def test_snapshot_of_0_1_0_is_read() -> None:
    document = json.loads(encode_snapshot(snapshot(device())))
    for key in ("legacy_zone", "legacy_always", "observe_until"):
        del document["devices"][0][key]
    assert decode_snapshot(json.dumps(document)).devices == (device(),)
