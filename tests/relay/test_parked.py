"""Who may park a reverse connection, how many there may be, and who gets which."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.identify import IdentityError
from dicomward.identity.registry import CertificateRecord, Device, DeviceStatus, RegistrySnapshot
from dicomward.relay.parked import A_MINUTE, MOST, MOST_OF_A_DEVICE, MOST_OF_A_NETWORK, Parking, Place, judge_parking
from dicomward.vocab.reason import ReasonCode

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)
RECORD = CertificateRecord(sha256="a" * 64, not_before=NOW - DAY, not_after=NOW + DAY, status="active", serial="1")
DEVICE = Device(
    name="ws1", ae_titles=("WS1",), role="workstation", networks=("192.0.2.0/24",), reverse=True, certificates=(RECORD,)
)
SHOWN = PeerCertificate(sha256=RECORD.sha256, not_before=RECORD.not_before, not_after=RECORD.not_after, subject="")
NETWORK = "192.0.2.0/24"


def judged(device: Device, *, address: str = "192.0.2.7", now: datetime = NOW) -> Device | ReasonCode:
    registry = RegistrySnapshot(devices=(device,), archives=(), revision=1)
    try:
        return judge_parking(registry, SHOWN, address, now, expiry_grace=3 * DAY)
    except IdentityError as error:
        return error.reason


def test_device_of_the_certificate_may_park() -> None:
    assert judged(DEVICE) == DEVICE


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        (replace(DEVICE, reverse=False), ReasonCode.REVERSE_NOT_REGISTERED),
        (replace(DEVICE, status=DeviceStatus.SUSPENDED), ReasonCode.DEVICE_SUSPENDED),
        (replace(DEVICE, status=DeviceStatus.REVOKED), ReasonCode.DEVICE_REVOKED),
        (replace(DEVICE, certificates=(replace(RECORD, status="revoked"),)), ReasonCode.CERTIFICATE_REVOKED),
        (replace(DEVICE, certificates=(replace(RECORD, status="unconfirmed"),)), ReasonCode.NOT_CONFIRMED),
        (replace(DEVICE, certificates=()), ReasonCode.CERTIFICATE_UNKNOWN),
    ],
    ids=["not-reverse", "suspended", "revoked", "certificate-revoked", "unconfirmed", "unknown"],
)
def test_others_may_not(device: Device, reason: ReasonCode) -> None:
    assert judged(device) is reason


def test_not_from_another_network() -> None:
    assert judged(DEVICE, address="198.51.100.1") is ReasonCode.NETWORK_NOT_ALLOWED


def test_just_expired_still_may_because_reports_belong_to_the_floor() -> None:
    assert judged(DEVICE, now=NOW + 2 * DAY) == DEVICE
    assert judged(DEVICE, now=NOW + 5 * DAY) is ReasonCode.CERTIFICATE_EXPIRED


def test_newest_is_taken_first_and_nobody_elses() -> None:
    parking = Parking()
    for key, device in ((1, "a"), (2, "a"), (3, "b")):
        assert parking.offer(key, device, NETWORK, 0.0) == Place()
    assert parking.counts() == {"a": 2, "b": 1}
    assert [parking.take("a"), parking.take("a"), parking.take("a")] == [2, 1, None]
    assert parking.counts() == {"b": 1}


def test_oldest_of_a_device_gives_way() -> None:
    parking = Parking()
    places = [parking.offer(key, "a", NETWORK, 0.0) for key in range(MOST_OF_A_DEVICE + 2)]
    assert [place.evicted for place in places[MOST_OF_A_DEVICE:]] == [0, 1]
    assert parking.counts() == {"a": MOST_OF_A_DEVICE}


def test_network_and_the_gateway_have_an_end() -> None:
    parking, key = Parking(), 0
    refused: dict[str, int] = {}
    for network in range(MOST // MOST_OF_A_NETWORK + 1):
        for number in range(MOST_OF_A_NETWORK + 1):
            place = parking.offer(key, f"d{network}-{number}", str(network), 0.0)
            key += 1
            if place.refusal is ReasonCode.REVERSE_CONNECTIONS:
                refused[str(network)] = refused.get(str(network), 0) + 1
    assert sum(parking.counts().values()) == MOST
    assert refused == {**{str(n): 1 for n in range(MOST // MOST_OF_A_NETWORK)}, "4": MOST_OF_A_NETWORK + 1}
    # A device that has its places already keeps them: only the oldest of its own goes.
    assert parking.take("d0-0") is not None
    assert parking.offer(key, "new", "0", 0.0) == Place()


def test_rate_of_a_device_has_an_end_and_comes_back() -> None:
    parking = Parking()
    for key in range(A_MINUTE):
        assert parking.offer(key, "a", NETWORK, 0.0).refusal is None
    assert parking.offer(A_MINUTE, "a", NETWORK, 0.0).refusal is ReasonCode.REVERSE_CONNECTIONS
    assert parking.offer(A_MINUTE, "b", NETWORK, 0.0).refusal is None
    assert parking.offer(A_MINUTE + 1, "a", NETWORK, 1.0).refusal is None


def test_who_waits_longest_gets_the_next_one_of_its_device() -> None:
    parking = Parking()
    for waiter in (1, 2, 3):
        parking.wait(waiter, "a")
    assert parking.stop_waiting(1, "a")
    assert parking.offer(7, "b", NETWORK, 0.0) == Place()
    assert parking.offer(8, "a", NETWORK, 0.0) == Place(waiter=2)
    assert parking.offer(9, "a", NETWORK, 0.0) == Place(waiter=3)
    assert not parking.stop_waiting(3, "a")
    assert parking.offer(10, "a", NETWORK, 0.0) == Place()
    parking.wait(4, "c")
    assert parking.stop_waiting(4, "c")
    assert not parking.stop_waiting(4, "c")


def test_what_is_gone_is_nobodys() -> None:
    parking = Parking()
    parking.offer(1, "a", NETWORK, 0.0)
    assert parking.remove(1)
    assert not parking.remove(1)
    assert parking.take("a") is None
    assert parking.counts() == {}
