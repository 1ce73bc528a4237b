"""Issuing and renewing: recorded, bound and spent together, or not at all; the time travels."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from sqlalchemy import Connection, event

from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.renewal import RenewalState
from dicomward.identity.registry import CertificateRecord, Device, DeviceStatus, Endpoint, RegistrySnapshot
from dicomward.io.ca.directory import CaDirectory
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.ca.store import issued_of_device, renewal_of
from dicomward.io.registry.store import RegistryStore
from dicomward.vocab.reason import ReasonCode
from tests.io.ca_helpers import NOW, grant, issuer, make_ca, rsa_key, spki

DAY = timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RegistryStore]:
    with RegistryStore.open(f"sqlite:///{tmp_path / 'registry.db'}", create=True) as opened:
        yield opened


@pytest.fixture
def ca(tmp_path: Path) -> CaDirectory:
    return make_ca(tmp_path / "ca")


@pytest.fixture
def issuing(store: RegistryStore, ca: CaDirectory) -> CaIssuer:
    return issuer(store, ca)


def device(store: RegistryStore, name: str = "ct3") -> Device:
    found = store.read().device_by_name(name)
    assert found is not None
    return found


def refused(call: object, *args: object, **named: object) -> ReasonCode:
    assert callable(call)
    with pytest.raises(EnrolmentRefusedError) as caught:
        call(*args, **named)
    return caught.value.reason


def state(store: RegistryStore, name: str = "ct3") -> RenewalState | None:
    with store.reading() as connection:
        row = renewal_of(connection, name)
    return row.state if row is not None else None


def test_the_certificate_says_what_the_profile_says(issuing: CaIssuer, ca: CaDirectory) -> None:
    issued = issuing.issue(spki(), grant("ct3", "CT3", address=Endpoint(host="10.1.2.3", port=104)), NOW)
    certificate = x509.load_der_x509_certificate(issued.certificate)
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(issued.chain[0]))
    ca.certificate_of(ca.state.active).verify_directly_issued_by(ca.root)
    assert certificate.subject.rfc4514_string() == "CN=ct3"
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (NOW - DAY / 24, NOW + 90 * DAY)
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "urn:dicomward:device:ct3",
        "urn:dicom:ae:CT3",
    ]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3"]
    usages = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usages == [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_encipherment
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert issued.serial == certificate.serial_number
    assert issued.serial.bit_length() == 128


def test_an_old_device_gets_its_rsa_key_certified(issuing: CaIssuer) -> None:
    issued = issuing.issue(spki(rsa_key()), grant(key_kinds=("rsa",)), NOW)
    usage = x509.load_der_x509_certificate(issued.certificate).extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_encipherment
    assert refused(issuing.issue, spki(), grant("ct4", key_kinds=("rsa",)), NOW) is ReasonCode.KEY_KIND_NOT_GRANTED


def test_the_device_is_registered_with_its_certificate(issuing: CaIssuer, store: RegistryStore) -> None:
    issued = issuing.issue(spki(), grant(site="north"), NOW, by="anna")
    registered = device(store)
    assert (registered.role, registered.site, registered.networks) == ("modality", "north", ("127.0.0.0/8",))
    assert [each.sha256 for each in registered.certificates] == [issued.sha256]
    assert store.read().revision == issued.revision == 1
    (change,) = store.unaudited_changes()
    assert (change.operator, change.action, change.device) == ("anna", "enrol-device", "ct3")


def test_a_second_invitation_adds_a_certificate_or_replaces_the_old_ones(
    issuing: CaIssuer, store: RegistryStore
) -> None:
    first = issuing.issue(spki(), grant(), NOW)
    second = issuing.issue(spki(), grant(), NOW + DAY)
    assert [each.status for each in device(store).certificates] == ["active", "active"]
    third = issuing.issue(spki(), grant(revoke_others=True), NOW + 2 * DAY)
    assert {each.sha256: each.status for each in device(store).certificates} == {
        first.sha256: "revoked",
        second.sha256: "revoked",
        third.sha256: "active",
    }
    assert [first.generation, second.generation, third.generation] == [1, 2, 3]
    assert refused(issuing.renew, spki(), first.sha256, NOW) is ReasonCode.NOT_A_DEVICE_CERTIFICATE


def test_what_spends_the_code_and_the_certificate_are_one_transaction(issuing: CaIssuer, store: RegistryStore) -> None:
    def spend(_connection: Connection) -> None:
        raise EnrolmentRefusedError(ReasonCode.REGISTRATION_REFUSED, "used already")

    assert refused(issuing.issue, spki(), grant(), NOW, spend=spend) is ReasonCode.REGISTRATION_REFUSED
    assert store.read() == RegistrySnapshot(devices=(), archives=(), revision=0)


def test_a_database_that_fails_at_the_last_write_leaves_nothing(issuing: CaIssuer, store: RegistryStore) -> None:
    # The change is the last row that is written: what was before it must not stay.
    def fail(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("INSERT INTO changes"):
            raise event_error

    import sqlite3

    from sqlalchemy.exc import OperationalError

    event_error = OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))
    event.listen(store._engine, "before_cursor_execute", fail)
    try:
        assert refused(issuing.issue, spki(), grant(), NOW) is ReasonCode.CA_UNAVAILABLE
    finally:
        event.remove(store._engine, "before_cursor_execute", fail)
    assert store.read().devices == ()
    with store.reading() as connection:
        assert issued_of_device(connection, "ct3") == ()
    assert issuing.issue(spki(), grant(), NOW).generation == 1


def test_a_key_belongs_to_one_device(issuing: CaIssuer) -> None:
    key = spki()
    issuing.issue(key, grant(), NOW)
    assert refused(issuing.issue, key, grant("ct4"), NOW) is ReasonCode.KEY_IN_USE
    other = issuing.issue(spki(), grant("ct4"), NOW)
    assert refused(issuing.renew, key, other.sha256, NOW) is ReasonCode.KEY_IN_USE


def test_what_can_not_be_registered_is_refused(issuing: CaIssuer, store: RegistryStore) -> None:
    from tests.directory_helpers import PACS

    store.add_archive(PACS, by="anna", at=NOW)
    issuing.issue(spki(), grant(), NOW)
    for wanted in (grant("ct4", "CT3"), grant("PACS", "X"), grant("ct5", "PACS"), grant("ct3", "OTHER")):
        assert refused(issuing.issue, spki(), wanted, NOW) is ReasonCode.REGISTRATION_REFUSED
    store.set_device_status("ct3", DeviceStatus.REVOKED, by="anna", at=NOW)
    assert refused(issuing.issue, spki(), grant(), NOW) is ReasonCode.REGISTRATION_REFUSED
    # A revoked device frees its title.
    assert issuing.issue(spki(), grant("ct6", "CT3"), NOW).device == "ct6"


def test_old_and_new_overlap(issuing: CaIssuer, store: RegistryStore) -> None:
    first = issuing.issue(spki(), grant(life=30 * DAY), NOW)
    later = NOW + 20 * DAY
    second = issuing.renew(spki(), first.sha256, later)
    assert (second.generation, second.not_after) == (2, later + 30 * DAY)
    assert [each.status for each in device(store).certificates] == ["active", "active"]


def test_a_lost_answer_is_given_once_more(issuing: CaIssuer, store: RegistryStore) -> None:
    first = issuing.issue(spki(), grant(), NOW)
    key = spki()
    second = issuing.renew(key, first.sha256, NOW)
    again = issuing.renew(key, first.sha256, NOW + DAY)
    assert (again.certificate, again.is_repeated, second.is_repeated) == (second.certificate, True, False)
    assert state(store) is RenewalState.OPEN


def test_a_copied_credential_holds_the_device_and_both_keep_what_they_have(
    issuing: CaIssuer, store: RegistryStore
) -> None:
    first = issuing.issue(spki(), grant(), NOW)
    thief = issuing.renew(spki(), first.sha256, NOW)
    assert refused(issuing.renew, spki(), first.sha256, NOW + DAY) is ReasonCode.RENEWAL_OF_SPENT_GENERATION
    assert state(store) is RenewalState.HELD
    assert refused(issuing.renew, spki(), thief.sha256, NOW + DAY) is ReasonCode.RENEWAL_HELD
    assert [each.status for each in device(store).certificates] == ["active", "active"]
    # A new invitation is a person's decision.
    issuing.issue(spki(), grant(revoke_others=True), NOW + 2 * DAY)
    assert state(store) is RenewalState.OPEN


def test_a_certificate_that_was_bound_by_registration_becomes_ours(issuing: CaIssuer, store: RegistryStore) -> None:
    record = CertificateRecord(
        sha256=hashlib.sha256(b"hospital").hexdigest(),
        not_before=NOW,
        not_after=NOW + DAY,
        status="active",
        serial="1",
    )
    store.add_device(grant().as_device([record]), by="anna", at=NOW)
    issued = issuing.renew(spki(), record.sha256, NOW)
    assert (issued.generation, issued.not_after) == (1, NOW + 90 * DAY)
    assert refused(issuing.renew, spki(), record.sha256, NOW) is ReasonCode.RENEWAL_OF_SPENT_GENERATION


def test_expired_ones_are_renewed_for_14_days(issuing: CaIssuer) -> None:
    first = issuing.issue(spki(), grant(life=2 * DAY), NOW)
    assert refused(issuing.renew, spki(), first.sha256, NOW + 17 * DAY) is ReasonCode.RENEWAL_TOO_LATE
    assert issuing.renew(spki(), first.sha256, NOW + 15 * DAY).generation == 2


def test_suspended_and_unknown_devices_renew_nothing(issuing: CaIssuer, store: RegistryStore) -> None:
    first = issuing.issue(spki(), grant(), NOW)
    store.set_device_status("ct3", DeviceStatus.SUSPENDED, by="anna", at=NOW)
    assert refused(issuing.renew, spki(), first.sha256, NOW) is ReasonCode.NOT_A_DEVICE_CERTIFICATE
    assert refused(issuing.renew, spki(), "f" * 64, NOW) is ReasonCode.NOT_A_DEVICE_CERTIFICATE


def test_a_holder_revokes_its_certificate(issuing: CaIssuer, store: RegistryStore) -> None:
    first = issuing.issue(spki(), grant(), NOW)
    issuing.revoke(first.sha256, NOW, detail="taken out of use")
    assert [each.status for each in device(store).certificates] == ["revoked"]
    assert refused(issuing.renew, spki(), first.sha256, NOW) is ReasonCode.NOT_A_DEVICE_CERTIFICATE
    assert refused(issuing.revoke, "f" * 64, NOW, detail="") is ReasonCode.NOT_A_DEVICE_CERTIFICATE


def test_an_enrolment_whose_answer_was_lost_is_found_again(issuing: CaIssuer) -> None:
    key = spki()
    assert issuing.find_issued("ct3", key) is None
    issued = issuing.issue(key, grant(), NOW)
    found = issuing.find_issued("ct3", key)
    assert found is not None
    assert (found.certificate, found.is_repeated) == (issued.certificate, True)
    issuing.revoke(issued.sha256, NOW, detail="")
    assert issuing.find_issued("ct3", key) is None


def test_nothing_is_issued_after_the_end_of_the_ca(issuing: CaIssuer) -> None:
    assert refused(issuing.issue, spki(), grant(), NOW + 1826 * DAY) is ReasonCode.CA_NOT_VALID
    short = issuing.issue(spki(), grant(), NOW + 1800 * DAY)
    assert short.not_after == NOW + 1826 * DAY


def test_after_a_rollover_the_fleet_moves_with_its_renewals(
    store: RegistryStore, ca: CaDirectory, issuing: CaIssuer
) -> None:
    from tests.io.ca_helpers import PASSPHRASE

    key = spki()
    first = issuing.issue(spki(), grant(), NOW)
    second = issuing.renew(key, first.sha256, NOW)
    rolled = ca.roll_over(ca.open_root(PASSPHRASE), NOW + DAY)
    after = issuer(store, rolled)
    third = after.renew(spki(), second.sha256, NOW + DAY)
    assert third.chain != second.chain
    x509.load_der_x509_certificate(third.certificate).verify_directly_issued_by(
        x509.load_der_x509_certificate(third.chain[0])
    )
    # A lost answer from before the rollover comes with the chain that it had.
    assert after.renew(key, first.sha256, NOW + DAY).chain == second.chain
