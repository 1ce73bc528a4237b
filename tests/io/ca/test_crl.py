"""CRLs: what they hold, when a new one is due; the time travels."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from dicomward.identity.registry import DeviceStatus
from dicomward.io.ca.crl import CrlKeeper, crl_path, is_due, read_crl, renew_crls, write_root_crl
from dicomward.io.ca.directory import CaDirectory
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.ca.local import CA_KEY_NAME, KeyKind, LocalCa
from dicomward.io.ca.terms import CaError
from dicomward.io.registry.store import RegistryStore
from tests.io.ca_helpers import NOW, PASSPHRASE, grant, issuer, make_ca, spki

DAY = timedelta(days=1)
WEEK = 7 * DAY


@dataclass
class Place:
    store: RegistryStore
    ca: CaDirectory
    issuer: CaIssuer

    def entries(self, now: datetime, name: str = "issuing-1") -> dict[int, tuple[datetime, str]]:
        """Sign the CRLs and return what one says."""
        renew_crls(self.store, self.ca, now, life=WEEK)
        crl = read_crl(crl_path(self.ca, name))
        assert crl is not None
        return {
            each.serial_number: (
                each.revocation_date_utc,
                each.extensions.get_extension_for_class(x509.CRLReason).value.reason.value,
            )
            for each in crl
        }


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    ca = make_ca(tmp_path / "ca")
    with RegistryStore.open(f"sqlite:///{tmp_path / 'r.db'}", create=True) as store:
        yield Place(store, ca, issuer(store, ca))


def test_revoked_devices_are_listed_with_the_time_of_their_first_crl(place: Place) -> None:
    issued = place.issuer.issue(spki(), grant(), NOW)
    assert place.entries(NOW) == {}
    place.store.set_device_status("ct3", DeviceStatus.REVOKED, by="anna", at=NOW)
    assert place.entries(NOW + DAY) == {issued.serial: (NOW + DAY, "cessationOfOperation")}
    assert place.entries(NOW + 2 * DAY) == {issued.serial: (NOW + DAY, "cessationOfOperation")}
    # It is over: RFC 5280 §3.3 lets it go.
    assert place.entries(NOW + 91 * DAY) == {}


def test_a_suspended_device_is_on_hold_and_comes_back(place: Place) -> None:
    issued = place.issuer.issue(spki(), grant(), NOW)
    place.store.set_device_status("ct3", DeviceStatus.SUSPENDED, by="anna", at=NOW)
    assert place.entries(NOW) == {issued.serial: (NOW, "certificateHold")}
    place.store.set_device_status("ct3", DeviceStatus.ACTIVE, by="anna", at=NOW)
    assert place.entries(NOW + DAY) == {}


def test_each_issuing_ca_has_its_own(place: Place) -> None:
    first = place.issuer.issue(spki(), grant(), NOW)
    place.ca = place.ca.roll_over(place.ca.open_root(PASSPHRASE), NOW)
    second = issuer(place.store, place.ca).issue(spki(), grant("ct4"), NOW)
    for name in ("ct3", "ct4"):
        place.store.set_device_status(name, DeviceStatus.REVOKED, by="anna", at=NOW)
    assert list(place.entries(NOW)) == [first.serial]
    assert list(place.entries(NOW, "issuing-2")) == [second.serial]


def test_a_new_one_is_due_at_half_of_its_life(place: Place) -> None:
    assert is_due(place.ca, NOW)
    (written,) = renew_crls(place.store, place.ca, NOW, life=WEEK)
    assert (written.entries, written.next_update) == (0, NOW + WEEK)
    assert not is_due(place.ca, NOW + 3 * DAY)
    assert is_due(place.ca, NOW + 4 * DAY)


def test_a_ca_that_is_over_signs_no_more(place: Place) -> None:
    assert renew_crls(place.store, place.ca, NOW + 1827 * DAY, life=WEEK) == ()


def test_the_root_lists_compromised_issuing_cas(place: Place) -> None:
    old = place.ca.open().certificate
    root = place.ca.open_root(PASSPHRASE)
    assert write_root_crl(place.ca, root, NOW).entries == 0
    rolled = place.ca.roll_over(root, NOW, compromised=True)
    assert write_root_crl(rolled, root, NOW).entries == 1
    crl = read_crl(crl_path(rolled, "root"))
    assert crl is not None
    (entry,) = crl
    assert entry.serial_number == old.serial_number
    assert crl.is_signature_valid(root.key.public_key())


def test_a_damaged_crl_is_told(place: Place) -> None:
    crl_path(place.ca, "issuing-1").write_bytes(b"garbage")
    with pytest.raises(CaError, match="make it anew"):
        is_due(place.ca, NOW)


def test_a_server_renews_them_in_time_and_tries_again(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    key = place.ca.path / "issuing-1.key.pem"
    key.rename(key.with_suffix(".away"))
    keeper = CrlKeeper(place.store, place.ca.path, WEEK, lambda: NOW, look_seconds=0.01)
    keeper.start()
    try:
        wait_until(lambda: "can't be renewed" in caplog.text)
        key.with_suffix(".away").rename(key)
        wait_until(lambda: not is_due(place.ca, NOW))
    finally:
        keeper.stop()


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        threading.Event().wait(0.005)


def test_an_adopted_ca_lists_what_it_has_issued_before(place: Place, tmp_path: Path) -> None:
    local = LocalCa.make("Local", NOW)
    made = {name: local.issue_device(name, [name.upper()], KeyKind.ECDSA, NOW).record for name in ("ct8", "ct9")}
    for name, record in made.items():
        device = grant(name).as_device((record,))
        place.store.add_device(device, by="anna", at=NOW)
    # Another PKI's certificate, whose serial has another spelling.
    foreign = replace(made["ct8"], sha256="ab" * 32, serial="no-number")
    place.store.add_device(grant("ct7").as_device((foreign,)), by="anna", at=NOW)
    ours = place.issuer.issue(spki(), grant("ct1"), NOW)
    (tmp_path / "local").mkdir()
    local.save(tmp_path / "local")
    key = (tmp_path / "local" / CA_KEY_NAME).read_bytes()
    place.ca = place.ca.adopt("local", local.certificate_pem, key, NOW)
    assert place.entries(NOW, "local") == {}
    place.store.set_device_status("ct8", DeviceStatus.REVOKED, by="anna", at=NOW)
    place.store.set_device_status("ct9", DeviceStatus.SUSPENDED, by="anna", at=NOW)
    place.store.set_device_status("ct7", DeviceStatus.REVOKED, by="anna", at=NOW)
    place.store.set_device_status("ct1", DeviceStatus.REVOKED, by="anna", at=NOW)
    serials = {name: int(record.serial, 16) for name, record in made.items()}
    for days in (1, 2):
        assert place.entries(NOW + days * DAY, "local") == {
            serials["ct8"]: (NOW + DAY, "cessationOfOperation"),
            serials["ct9"]: (NOW + DAY, "certificateHold"),
        }
    place.store.set_device_status("ct9", DeviceStatus.ACTIVE, by="anna", at=NOW)
    assert list(place.entries(NOW + 3 * DAY, "local")) == [serials["ct8"]]
    assert list(place.entries(NOW + 3 * DAY)) == [ours.serial]
