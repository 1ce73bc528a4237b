"""The registry: consistent or refused, and its indexes."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from datetime import datetime, timedelta

import pytest

from dicomward.identity.registry import (
    Archive,
    Device,
    DeviceStatus,
    Endpoint,
    RegistryError,
    RegistrySnapshot,
)
from dicomward.identity.registry_json import decode_snapshot, encode_snapshot
from tests.identity.examples import (
    BROKER,
    CT1,
    NOT_AFTER,
    NOT_BEFORE,
    PACS,
    SITE,
    WORKSTATION,
    archive,
    device,
    fingerprint,
    record,
    snapshot,
)

# --- values that can't be right --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Endpoint(host="", port=104), "not a host name"),
        (lambda: Endpoint(host="a b", port=104), "not a host name"),
        (lambda: Endpoint(host="[::1]", port=104), "not a host name"),
        (lambda: Endpoint(host="h\n", port=104), "not a host name"),
        (lambda: Endpoint(host="h", port=0), "port 0"),
        (lambda: Endpoint(host="h", port=65536), "port 65536"),
        (lambda: replace(record("x"), sha256=fingerprint("x").upper()), "lower-case hex"),
        (lambda: replace(record("x"), sha256="ab"), "64"),
        (lambda: replace(record("x"), not_before=datetime(2026, 1, 1)), "no time zone"),  # noqa: DTZ001
        (lambda: replace(record("x"), not_after=datetime(2026, 1, 1)), "no time zone"),  # noqa: DTZ001
        (lambda: replace(record("x"), not_after=NOT_BEFORE - timedelta(seconds=1)), "end before it begins"),
        (
            lambda: replace(record("x"), status="Active"),  # type: ignore[arg-type]
            "status 'Active' is not known",
        ),
        (lambda: replace(record("x"), serial=""), "serial"),
        (lambda: replace(CT1, name=""), "is not a name"),
        (lambda: replace(CT1, name="../CT1"), "is not a name"),
        (lambda: replace(CT1, name="CT1\n"), "is not a name"),
        (lambda: replace(CT1, name="x" * 65), "is not a name"),
        (lambda: replace(CT1, role="a role"), "role 'a role' is not a name"),
        (lambda: replace(CT1, site="a\nb"), "a site has at most 64 printable characters"),
        (lambda: replace(CT1, site="x" * 65), "a site has at most 64"),
        (lambda: replace(CT1, ae_titles=()), "no AE title"),
        (lambda: replace(CT1, ae_titles=("",)), "must not be empty"),
        (lambda: replace(CT1, ae_titles=("CT 1 ",)), "spaces around it"),
        (lambda: replace(CT1, ae_titles=("A" * 17,)), "at most 16"),
        (lambda: replace(CT1, ae_titles=("A\\B",)), "no backslash"),
        (lambda: replace(CT1, ae_titles=("A", "A")), "listed twice"),
        (lambda: replace(CT1, networks=("10.1.2.3/24",)), "CT1: .* has host bits set"),
        (lambda: replace(CT1, networks=("0.0.0.0/0",)), 'write "any"'),
        (
            lambda: replace(CT1, status="active"),  # type: ignore[arg-type]
            "status 'active' is not one of",
        ),
        (lambda: replace(PACS, name="P/S"), "is not a name"),
        (lambda: replace(PACS, site="\x00"), "a site has"),
        (lambda: replace(PACS, ae_title=""), "must not be empty"),
        (lambda: replace(PACS, called_ae_titles=("PACS", "PACS")), "listed twice"),
        (lambda: replace(PACS, calling_ae_titles=("\u00c9",)), "printable ASCII"),
        (lambda: replace(PACS, networks=("nowhere",)), "is not a network"),
        (lambda: replace(PACS, certificate_sha256="short"), "fingerprint"),
        (lambda: replace(PACS, certificate_sha256=None), "belong together"),
        (lambda: replace(PACS, tls=False), "belong together"),
        (lambda: replace(BROKER, networks=("any",)), "pinned certificate only"),
        (lambda: RegistrySnapshot(devices=(), archives=(), revision=-1), "revision -1"),
    ],
)
def test_refused_with_the_reason(make: Callable[[], object], why: str) -> None:
    with pytest.raises(RegistryError, match=why):
        make()


def test_trap_archive_without_a_key_must_have_its_network_named() -> None:
    assert replace(PACS, networks=("any",)).networks == ("any",)
    with pytest.raises(RegistryError, match='"any" is for archives with a pinned certificate only'):
        archive(networks=("any",))


@pytest.mark.parametrize("title", ["CT 1", "a.b", "#1", "x" * 16])
def test_unusual_ae_titles_of_the_standard_are_accepted(title: str) -> None:
    assert replace(CT1, ae_titles=(title,)).ae_titles == (title,)


def test_called_ae_title_is_the_archives_own_by_default() -> None:
    assert archive("PACS").called_ae_titles == ("PACS",)


def test_values_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        CT1.networks = ("any",)  # type: ignore[misc]


def test_device_knows_its_certificates_and_if_it_may_be_used() -> None:
    assert CT1.is_active
    assert not replace(CT1, status=DeviceStatus.SUSPENDED).is_active
    assert CT1.certificate(fingerprint("CT1")) == record("CT1")
    assert CT1.certificate(fingerprint("other")) is None


# --- consistency -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("principals", "why"),
    [
        ((CT1, replace(device("CT1", ae_titles=("X",)), certificates=())), "name 'CT1' is used twice"),
        ((CT1, archive("CT1")), "name 'CT1' is used twice"),
        ((PACS, PACS), "name 'PACS' is used twice"),
        ((CT1, device("CT2", ae_titles=("CT2",), certificates=(record("CT1"),))), "is bound twice"),
        ((device(certificates=(record("a"), record("a"))),), "is bound twice"),
        ((CT1, device("CT2", ae_titles=("CT1",))), "AE title 'CT1' belongs to 'CT1'"),
        ((PACS, archive("P2", called_ae_titles=("ARCHIVE",))), "'ARCHIVE' leads to 'PACS' and to 'P2'"),
        (
            (PACS, device("D", ae_titles=("PACS",), address=Endpoint(host="h", port=1))),
            "'PACS' leads to 'PACS' and to 'D'",
        ),
    ],
)
def test_ambiguous_registry_is_refused(principals: tuple[Device | Archive, ...], why: str) -> None:
    with pytest.raises(RegistryError, match=why):
        snapshot(*principals)


def test_replaced_device_passes_its_title_on() -> None:
    old = device("OLD", ae_titles=("CT1",), status=DeviceStatus.REVOKED)
    registry = snapshot(old, CT1)
    assert registry.device_by_ae_title("CT1") is CT1
    assert registry.device_by_certificate(fingerprint("OLD")) is old


def test_archive_may_be_a_device_with_the_same_title_if_only_one_listens() -> None:
    caller = device("PACS_AS_DEVICE", ae_titles=("PACS",))
    registry = snapshot(PACS, caller)
    assert registry.route("PACS") is PACS
    assert registry.device_by_ae_title("PACS") is caller


# --- indexes ---------------------------------------------------------------------------------------------------------


def test_found_by_name_certificate_and_title() -> None:
    assert SITE.device_by_name("CT1") is CT1
    assert SITE.archive_by_name("PACS") is PACS
    assert SITE.device_by_certificate(fingerprint("WS1")) is WORKSTATION
    assert SITE.device_by_ae_title("WS1_MOVE") is WORKSTATION
    assert SITE.archives_calling("PACS_MOVE") == (PACS,)


def test_trap_unknown_is_nothing() -> None:
    assert SITE.device_by_name("PACS") is None
    assert SITE.device_by_name("X") is None
    assert SITE.archive_by_name("CT1") is None
    assert SITE.archive_by_name("X") is None
    assert SITE.device_by_certificate("") is None
    assert SITE.device_by_ae_title("ws1") is None
    assert SITE.archives_calling("RIS") == ()
    assert SITE.route("") is None


def test_archives_that_call_with_one_title_are_all_returned() -> None:
    north, south = archive("NORTH"), archive("SOUTH")
    assert snapshot(north, south).archives_calling("PACS") == (north, south)


@pytest.mark.parametrize(
    ("called", "target"),
    [("PACS", PACS), ("ARCHIVE", PACS), ("RIS", BROKER), ("WS1", WORKSTATION), ("WS1_MOVE", WORKSTATION)],
)
def test_called_ae_title_leads_to_archive_or_listening_device(called: str, target: Archive | Device) -> None:
    assert SITE.route(called) is target


def test_trap_called_ae_title_of_a_device_that_does_not_listen_or_is_not_active_leads_nowhere() -> None:
    assert SITE.route("CT1") is None
    for status in (DeviceStatus.SUSPENDED, DeviceStatus.REVOKED):
        assert snapshot(replace(WORKSTATION, status=status)).route("WS1") is None


def test_device_with_reverse_connections_is_called_without_an_address() -> None:
    behind = replace(CT1, reverse=True)
    assert snapshot(behind).route("CT1") is behind
    assert (behind.is_destination, CT1.is_destination, WORKSTATION.is_destination) == (True, False, True)
    assert snapshot(replace(behind, status=DeviceStatus.SUSPENDED)).route("CT1") is None


def test_reverse_connections_and_an_address_exclude_each_other() -> None:
    with pytest.raises(RegistryError, match="an address or reverse connections, not both"):
        replace(CT1, reverse=True, address=Endpoint(host="h", port=104))
    with pytest.raises(RegistryError, match="reverse connections are never plaintext"):
        replace(CT1, reverse=True, plain=True)


def test_suspended_device_keeps_its_title_and_revoked_one_loses_it() -> None:
    assert snapshot(replace(CT1, status=DeviceStatus.SUSPENDED)).device_by_ae_title("CT1") is not None
    assert snapshot(replace(CT1, status=DeviceStatus.REVOKED)).device_by_ae_title("CT1") is None


@pytest.mark.parametrize(
    ("address", "registered"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("10.1.3.9", True),
        ("10.9.0.5", True),
        ("10.9.0.6", False),
        ("203.0.113.9", False),
        ("2001:db8::1", False),
        ("", False),
    ],
)
def test_registered_addresses_are_those_of_named_networks(address: str, registered: bool) -> None:
    assert SITE.is_registered_address(address) is registered


def test_trap_any_makes_no_address_a_registered_one() -> None:
    assert not snapshot(device(networks=("any",))).is_registered_address("10.1.2.3")


def test_networks_of_suspended_and_revoked_devices_are_not_registered() -> None:
    for status in (DeviceStatus.SUSPENDED, DeviceStatus.REVOKED):
        assert not snapshot(device(status=status)).is_registered_address("10.1.2.3")


def test_trap_empty_registry_has_no_registered_address() -> None:
    assert not snapshot().is_registered_address("127.0.0.1")


# -- replicas ----------------------------------------------------------------------------------------------------------


def test_replica_may_have_the_titles_of_the_archive_and_they_lead_to_that_one() -> None:
    primary = archive("PACS")
    replica = replace(primary, name="stand-in", called_ae_titles=("PACS", "STAND_IN"), replica_of=primary.name)
    found = RegistrySnapshot(devices=(), archives=(replica, primary), revision=1)
    assert found.route("PACS") == primary
    assert found.route("STAND_IN") == replica
    assert found.replicas_of(primary.name) == (replica,)
    assert found.replicas_of("stand-in") == ()
    assert decode_snapshot(encode_snapshot(found)) == found


def test_replica_of_nobody_is_refused() -> None:
    with pytest.raises(RegistryError, match="there is no such archive"):
        RegistrySnapshot(devices=(), archives=(replace(archive("PACS"), replica_of="gone"),), revision=1)


def test_replica_of_a_replica_is_refused() -> None:
    primary = archive("PACS")
    second = replace(primary, name="second", replica_of=primary.name)
    third = replace(primary, name="third", replica_of="second")
    with pytest.raises(RegistryError, match="name that one for both"):
        RegistrySnapshot(devices=(), archives=(primary, second, third), revision=1)


# --- moving over from plaintext ---


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"legacy_zone": "old zone"}, "'old zone' is not a name"),
        ({"legacy_zone": "old", "networks": ("any",)}, '"any" is not for a legacy zone'),
        ({"legacy_always": True}, "plaintext beside TLS needs a legacy zone"),
        ({"observe_until": NOT_AFTER.replace(tzinfo=None)}, "the end of observing has no time zone"),
    ],
)
def test_what_can_not_be_right_while_moving_over_is_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(RegistryError, match=why):
        replace(device(), **changes)  # type: ignore[arg-type]


def test_device_is_observed_until_its_time() -> None:
    observed = replace(device(), observe_until=NOT_AFTER)
    assert observed.is_observed(NOT_BEFORE)
    assert not observed.is_observed(NOT_AFTER)
    assert not device().is_observed(NOT_BEFORE)
