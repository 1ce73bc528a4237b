"""Certificate, network and calling AE title → principal: each reason, their order, and that unknown is deny."""

from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.identify import (
    Identified,
    IdentityError,
    bind,
    identify_archive,
    identify_device,
    identify_legacy_device,
)
from dicomward.identity.registry import Device, DeviceStatus, RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.vocab.principal import Assurance, Principal
from dicomward.vocab.reason import ReasonCode
from tests.identity.examples import (
    GRACE,
    NOON,
    NOT_AFTER,
    NOT_BEFORE,
    archive,
    device,
    fingerprint,
    peer,
    record,
    snapshot,
)

INSIDE = "10.1.2.3"
SECOND = timedelta(seconds=1)


def _identify(
    registry: RegistrySnapshot,
    certificate: PeerCertificate,
    address: str = INSIDE,
    now: datetime = NOON,
    grace: timedelta = GRACE,
) -> Identified:
    return identify_device(registry, certificate, address, now, expiry_grace=grace)


def _reason(
    registry: RegistrySnapshot, certificate: PeerCertificate, address: str = INSIDE, now: datetime = NOON
) -> str:
    with pytest.raises(IdentityError) as raised:
        _identify(registry, certificate, address, now)
    assert raised.value.detail
    return raised.value.reason


# --- devices ---------------------------------------------------------------------------------------------------------


def test_identified_when_bound_valid_and_inside() -> None:
    ct1 = device()
    assert _identify(snapshot(ct1), peer("CT1")) == Identified(device=ct1, floor_only=None)


def test_trap_certificate_that_chains_to_the_ca_but_is_bound_to_nobody_is_unknown() -> None:
    assert _reason(snapshot(device()), peer("stranger")) == ReasonCode.CERTIFICATE_UNKNOWN


def test_trap_empty_registry_knows_nobody() -> None:
    assert _reason(snapshot(), peer("CT1")) == ReasonCode.CERTIFICATE_UNKNOWN


def test_denied_when_certificate_revoked_and_the_device_has_another() -> None:
    ct1 = device(certificates=(record("old", "revoked"), record("new")))
    assert _reason(snapshot(ct1), peer("old")) == ReasonCode.CERTIFICATE_REVOKED
    assert _identify(snapshot(ct1), peer("new")).device is ct1


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (DeviceStatus.SUSPENDED, ReasonCode.DEVICE_SUSPENDED),
        (DeviceStatus.REVOKED, ReasonCode.DEVICE_REVOKED),
    ],
)
def test_denied_when_device_not_active(status: DeviceStatus, reason: ReasonCode) -> None:
    assert _reason(snapshot(device(status=status)), peer("CT1")) == reason


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (DeviceStatus.REVOKED, ReasonCode.DEVICE_REVOKED),
        (DeviceStatus.SUSPENDED, ReasonCode.CERTIFICATE_REVOKED),
        (DeviceStatus.ACTIVE, ReasonCode.CERTIFICATE_REVOKED),
    ],
)
def test_widest_reason_is_named_first(status: DeviceStatus, reason: ReasonCode) -> None:
    everything_wrong = device(status=status, networks=(), certificates=(record("CT1", "revoked"),))
    assert _reason(snapshot(everything_wrong), peer("CT1"), now=NOT_AFTER + 2 * GRACE) == reason


@pytest.mark.parametrize(
    ("now", "floor_only"),
    [
        (NOT_BEFORE, None),
        (NOT_AFTER, None),
        (NOT_AFTER + SECOND, ReasonCode.CERTIFICATE_JUST_EXPIRED),
        (NOT_AFTER + GRACE, ReasonCode.CERTIFICATE_JUST_EXPIRED),
    ],
)
def test_identified_within_validity_and_narrowed_to_the_floor_within_the_grace(
    now: datetime, floor_only: ReasonCode | None
) -> None:
    assert _identify(snapshot(device()), peer("CT1"), now=now).floor_only == floor_only


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (NOT_BEFORE - SECOND, ReasonCode.CERTIFICATE_NOT_YET_VALID),
        (NOT_AFTER + GRACE + SECOND, ReasonCode.CERTIFICATE_EXPIRED),
    ],
)
def test_denied_outside_validity_and_grace(now: datetime, reason: ReasonCode) -> None:
    assert _reason(snapshot(device()), peer("CT1"), now=now) == reason


def test_trap_just_expired_never_helps_a_revoked_certificate() -> None:
    ct1 = device(certificates=(record("CT1", "revoked"),))
    assert _reason(snapshot(ct1), peer("CT1"), now=NOT_AFTER + SECOND) == ReasonCode.CERTIFICATE_REVOKED


def test_new_certificate_is_narrowed_until_its_device_is_confirmed() -> None:
    ct1 = device(certificates=(record("CT1", "unconfirmed"),))
    assert _identify(snapshot(ct1), peer("CT1")).floor_only is ReasonCode.NOT_CONFIRMED


def test_denied_at_once_when_no_grace_is_given() -> None:
    registry = snapshot(device())
    assert _identify(registry, peer("CT1"), now=NOT_AFTER, grace=timedelta(0)).floor_only is None
    with pytest.raises(IdentityError) as raised:
        _identify(registry, peer("CT1"), now=NOT_AFTER + SECOND, grace=timedelta(0))
    assert raised.value.reason == ReasonCode.CERTIFICATE_EXPIRED


def test_negative_grace_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        _identify(snapshot(device()), peer("CT1"), grace=-SECOND)


@pytest.mark.parametrize("address", ["10.1.3.3", "2001:db8::1", "", "10.1.2"])
def test_denied_when_address_not_in_the_networks(address: str) -> None:
    assert _reason(snapshot(device()), peer("CT1"), address) == ReasonCode.NETWORK_NOT_ALLOWED


def test_trap_empty_networks_never_mean_everywhere() -> None:
    assert _reason(snapshot(device(networks=())), peer("CT1")) == ReasonCode.NETWORK_NOT_ALLOWED


def test_any_must_be_typed_and_then_allows_every_address() -> None:
    registry = snapshot(device(networks=("any",)))
    assert _identify(registry, peer("CT1"), "203.0.113.9").floor_only is None
    assert _reason(registry, peer("CT1"), "no address") == ReasonCode.NETWORK_NOT_ALLOWED


def test_ipv4_peer_of_a_dual_stack_listener_is_judged_as_ipv4() -> None:
    assert _identify(snapshot(device()), peer("CT1"), "::ffff:10.1.2.3").device.name == "CT1"


def test_detail_says_what_to_repair() -> None:
    with pytest.raises(
        IdentityError, match=r"network-not-allowed: device 'CT1' may call from 10\.1\.2\.0/24, not from 10\.1\.3\.3"
    ):
        _identify(snapshot(device()), peer("CT1"), "10.1.3.3")


# --- the calling AE title --------------------------------------------------------------------------------------------


def _bind(calling_ae_title: str, floor_only: ReasonCode | None = None, address: str = INSIDE) -> Principal:
    pacs = device(ae_titles=("CT1", "CT1_QUERY"))
    return bind(Identified(device=pacs, floor_only=floor_only), calling_ae_title, peer("CT1"), address)


@pytest.mark.parametrize("title", ["CT1", "CT1_QUERY", "CT1             ", "  CT1 "])
def test_bound_to_each_of_its_titles_without_padding(title: str) -> None:
    assert _bind(title) == Principal(
        device="CT1",
        calling_ae_title=title.strip(),
        role="modality",
        site="main",
        assurance=Assurance.TLS_DEVICE,
        address=INSIDE,
        certificate_sha256=fingerprint("CT1"),
        floor_only=None,
    )


@pytest.mark.parametrize("title", ["ct1", "CT1_QUER", "CT1\0", "CT 1", "", "   ", "CT2", "*"])
def test_denied_when_calling_ae_title_not_bound(title: str) -> None:
    with pytest.raises(IdentityError) as raised:
        _bind(title)
    assert raised.value.reason == ReasonCode.CALLING_AE_TITLE_NOT_BOUND


def test_principal_carries_why_only_the_floor_is_left() -> None:
    assert _bind("CT1", ReasonCode.CERTIFICATE_JUST_EXPIRED).floor_only == ReasonCode.CERTIFICATE_JUST_EXPIRED


def test_principal_has_the_ipv4_address_of_a_mapped_peer() -> None:
    assert _bind("CT1", address="::ffff:10.1.2.3").address == INSIDE


def test_trap_certificate_of_another_device_does_not_bind() -> None:
    with pytest.raises(IdentityError) as raised:
        bind(Identified(device=device(), floor_only=None), "CT1", peer("CT2"), INSIDE)
    assert raised.value.reason == ReasonCode.CERTIFICATE_UNKNOWN


@given(st.text(max_size=20))
def test_no_title_binds_but_the_registered_ones(title: str) -> None:
    try:
        principal = _bind(title)
    except IdentityError:
        assert title.strip(" ") not in {"CT1", "CT1_QUERY"}
    else:
        assert principal.calling_ae_title == title.strip(" ")


# --- archives --------------------------------------------------------------------------------------------------------

PACS_ADDRESS = "10.9.0.5"


def test_archive_on_a_plaintext_link_is_known_by_title_and_network() -> None:
    pacs = archive()
    found, principal = identify_archive(
        snapshot(pacs), calling_ae_title="PACS  ", address=PACS_ADDRESS, certificate=None
    )
    assert found is pacs
    assert principal == Principal(
        device="PACS",
        calling_ae_title="PACS",
        role="archive",
        site="main",
        assurance=Assurance.NETWORK_PIN,
        address=PACS_ADDRESS,
        certificate_sha256="",
    )


def test_archive_with_a_pinned_certificate_is_known_by_it() -> None:
    pacs = archive(pinned="pacs-key")
    found, principal = identify_archive(
        snapshot(pacs), calling_ae_title="PACS", address="::ffff:10.9.0.5", certificate=peer("pacs-key")
    )
    assert found is pacs
    assert principal.assurance is Assurance.TLS_DEVICE
    assert principal.certificate_sha256 == fingerprint("pacs-key")
    assert principal.address == PACS_ADDRESS


@pytest.mark.parametrize(
    ("title", "address", "shown", "pinned", "reason"),
    [
        ("OTHER", PACS_ADDRESS, None, None, ReasonCode.ARCHIVE_UNKNOWN),
        ("pacs", PACS_ADDRESS, None, None, ReasonCode.ARCHIVE_UNKNOWN),
        ("PACS", "10.9.0.6", None, None, ReasonCode.NETWORK_NOT_ALLOWED),
        ("PACS", "nowhere", None, None, ReasonCode.NETWORK_NOT_ALLOWED),
        ("PACS", PACS_ADDRESS, None, "pacs-key", ReasonCode.NO_CERTIFICATE),
        ("PACS", PACS_ADDRESS, "other-key", "pacs-key", ReasonCode.CERTIFICATE_UNKNOWN),
        ("PACS", "10.9.0.6", "pacs-key", "pacs-key", ReasonCode.NETWORK_NOT_ALLOWED),
    ],
)
def test_archive_denied(title: str, address: str, shown: str | None, pinned: str | None, reason: ReasonCode) -> None:
    with pytest.raises(IdentityError) as raised:
        identify_archive(
            snapshot(archive(pinned=pinned)),
            calling_ae_title=title,
            address=address,
            certificate=peer(shown) if shown else None,
        )
    assert raised.value.reason == reason


def test_trap_archive_without_networks_cannot_call() -> None:
    with pytest.raises(IdentityError) as raised:
        identify_archive(
            snapshot(archive(networks=())), calling_ae_title="PACS", address=PACS_ADDRESS, certificate=None
        )
    assert raised.value.reason == ReasonCode.NETWORK_NOT_ALLOWED


def test_certificate_that_nobody_asked_for_gives_no_assurance() -> None:
    _, principal = identify_archive(
        snapshot(archive()), calling_ae_title="PACS", address=PACS_ADDRESS, certificate=peer("whatever")
    )
    assert principal.assurance is Assurance.NETWORK_PIN
    assert not principal.certificate_sha256


def test_archives_with_one_title_are_told_apart_by_network_or_certificate() -> None:
    north = archive("NORTH", networks=("10.9.1.0/24",))
    south = archive("SOUTH", networks=("10.9.2.0/24",))
    pinned = archive("PINNED", networks=("10.9.1.0/24",), pinned="key")
    registry = snapshot(north, south, pinned)
    cases = ((north, "10.9.1.1", None), (south, "10.9.2.1", None), (pinned, "10.9.1.1", peer("key")))
    for expected, address, certificate in cases:
        found, _ = identify_archive(registry, calling_ae_title="PACS", address=address, certificate=certificate)
        assert found is expected


def test_trap_two_archives_that_fit_are_never_guessed() -> None:
    registry = snapshot(archive("A", networks=("10.9.0.0/16",)), archive("B", networks=("10.9.0.5/32",)))
    with pytest.raises(IdentityError, match="could be A, B") as raised:
        identify_archive(registry, calling_ae_title="PACS", address=PACS_ADDRESS, certificate=None)
    assert raised.value.reason == ReasonCode.ARCHIVE_UNKNOWN


# --- properties ------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(list(DeviceStatus)),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["10.1.2.3", "10.1.3.3", "::ffff:10.1.2.255", "?"]),
    st.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=800)),
)
def test_identified_only_if_everything_fits(
    status: DeviceStatus, revoked: bool, bound: bool, address: str, offset: timedelta
) -> None:
    now = NOT_BEFORE + offset
    ct1 = device(status=status, certificates=(record("CT1", "revoked" if revoked else "active"),))
    certificate = peer("CT1" if bound else "CT2")
    fits = (
        bound
        and status is DeviceStatus.ACTIVE
        and not revoked
        and address in {"10.1.2.3", "::ffff:10.1.2.255"}
        and NOT_BEFORE <= now <= NOT_AFTER + GRACE
    )
    try:
        identified = _identify(snapshot(ct1), certificate, address, now)
    except IdentityError:
        assert not fits
    else:
        assert fits
        assert (identified.floor_only is None) is (now <= NOT_AFTER)


def test_error_shows_reason_and_detail() -> None:
    error = IdentityError(ReasonCode.CERTIFICATE_UNKNOWN, "because")
    assert str(error) == "certificate-unknown: because"


def test_dates_are_those_of_the_certificate_that_was_shown() -> None:
    expired = replace(peer("CT1"), not_after=NOON - GRACE - SECOND)
    assert _reason(snapshot(device()), expired) == ReasonCode.CERTIFICATE_EXPIRED


# -- legacy zones ------------------------------------------------------------------------------------------------------

ZONE = LegacyZone(name="old", networks=("10.1.0.0/16",), end_date=date(2026, 6, 1), site="annex")
PLAIN = replace(device("CT1", certificates=()), legacy_zone="old", networks=("10.1.2.3/32",))


def legacy(
    known: Device = PLAIN, *, title: str = "CT1", address: str = "10.1.2.3", moved: bool = False, now: datetime = NOON
) -> Principal:
    found, principal = identify_legacy_device(
        snapshot(known), ZONE, calling_ae_title=title, address=address, has_moved=moved, now=now
    )
    assert found == known
    return principal


def test_device_in_plaintext_is_known_by_title_and_address() -> None:
    principal = legacy(title="CT1  ")
    assert (principal.device, principal.calling_ae_title, principal.site) == ("CT1", "CT1", "main")
    assert (principal.assurance, principal.certificate_sha256) == (Assurance.NETWORK_PIN, "")
    assert principal.floor_only is None
    assert legacy(replace(PLAIN, site="")).site == "annex"


def test_only_the_floor_is_left_after_the_last_day() -> None:
    assert legacy(now=NOON + timedelta(days=1)).floor_only == ReasonCode.LEGACY_ZONE_OVER


@pytest.mark.parametrize(
    ("known", "title", "address", "moved", "reason"),
    [
        (PLAIN, "CT1", "10.2.2.3", False, ReasonCode.NETWORK_NOT_ALLOWED),
        (PLAIN, "CT1", "10.1.2.4", False, ReasonCode.NETWORK_NOT_ALLOWED),
        (PLAIN, "CT2", "10.1.2.3", False, ReasonCode.CALLING_AE_TITLE_NOT_BOUND),
        (replace(PLAIN, status=DeviceStatus.SUSPENDED), "CT1", "10.1.2.3", False, ReasonCode.DEVICE_SUSPENDED),
        (
            replace(PLAIN, status=DeviceStatus.REVOKED),
            "CT1",
            "10.1.2.3",
            False,
            ReasonCode.CALLING_AE_TITLE_NOT_BOUND,
        ),
        (replace(PLAIN, legacy_zone=""), "CT1", "10.1.2.3", False, ReasonCode.NOT_IN_LEGACY_ZONE),
        (replace(PLAIN, legacy_zone="other"), "CT1", "10.1.2.3", False, ReasonCode.NOT_IN_LEGACY_ZONE),
        (PLAIN, "CT1", "10.1.2.3", True, ReasonCode.MOVED_TO_TLS),
    ],
)
def test_plaintext_is_refused(known: Device, title: str, address: str, moved: bool, reason: ReasonCode) -> None:
    with pytest.raises(IdentityError) as caught:
        legacy(known, title=title, address=address, moved=moved)
    assert caught.value.reason is reason


def test_device_that_moved_is_accepted_where_it_was_asked_for() -> None:
    assert legacy(replace(PLAIN, legacy_always=True), moved=True).device == "CT1"
