"""What stands in a certificate, and which keys may."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from dicomward.enrolment.profile import (
    BACKDATED,
    CertificateProfile,
    KeyKind,
    profile_of,
    uris_of,
    verify_key_granted,
    verify_public_key,
)
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.identity.registry import Endpoint
from dicomward.vocab.reason import ReasonCode
from tests.enrolment.test_grant import grant

NOW = datetime(2027, 3, 1, tzinfo=UTC)
BEGIN, END = NOW - timedelta(days=100), NOW + timedelta(days=1000)


def profile(now: datetime = NOW, kind: KeyKind = KeyKind.ECDSA, **changed: object) -> CertificateProfile:
    return profile_of(grant(**changed), kind, now, ca_not_before=BEGIN, ca_not_after=END)


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def reason_of(public_key: bytes) -> ReasonCode:
    with pytest.raises(EnrolmentRefusedError) as caught:
        verify_public_key(public_key)
    return caught.value.reason


def test_the_san_names_device_and_ae_titles() -> None:
    assert uris_of(grant(ae_titles=("CT3", "CT 3"))) == (
        "urn:dicomward:device:CT-ROOM-3",
        "urn:dicom:ae:CT3",
        "urn:dicom:ae:CT%203",
    )


def test_a_device_that_only_calls_is_a_client() -> None:
    made = profile()
    assert (made.dns_names, made.ip_addresses, made.server_auth) == ((), (), False)
    assert made.common_name == "CT-ROOM-3"


def test_a_device_that_listens_is_a_server_too() -> None:
    assert profile(address=Endpoint(host="ct3.example", port=104)).dns_names == ("ct3.example",)
    listens = profile(address=Endpoint(host="fe80::1%eth0", port=104))
    assert (listens.ip_addresses, listens.server_auth) == (("fe80::1",), True)
    assert not profile(address=Endpoint(host="ct3.example", port=104), plain=True).server_auth


def test_it_begins_earlier_for_slow_clocks_and_lives_as_granted() -> None:
    assert (profile().not_before, profile().not_after) == (NOW - BACKDATED, NOW + timedelta(days=90))


def test_it_stays_inside_the_life_of_its_ca() -> None:
    young = profile(now=BEGIN + timedelta(minutes=1))
    assert young.not_before == BEGIN
    assert profile(now=END - timedelta(days=1)).not_after == END


@pytest.mark.parametrize("now", [BEGIN - timedelta(seconds=1), END])
def test_a_ca_that_is_not_valid_issues_nothing(now: datetime) -> None:
    with pytest.raises(EnrolmentRefusedError) as caught:
        profile(now=now)
    assert caught.value.reason is ReasonCode.CA_NOT_VALID


def test_keys_of_the_profile_are_taken() -> None:
    assert verify_public_key(spki(ec.generate_private_key(ec.SECP256R1()).public_key())) is KeyKind.ECDSA
    assert verify_public_key(spki(rsa.generate_private_key(65537, 2048).public_key())) is KeyKind.RSA
    assert profile(kind=KeyKind.RSA).key_encipherment
    assert not profile(kind=KeyKind.ECDSA).key_encipherment


def test_weak_and_odd_keys_are_refused() -> None:
    big = 1 << 16383 | 1
    for key in (
        rsa.RSAPublicNumbers(65537, 1 << 1023 | 1).public_key(),
        rsa.RSAPublicNumbers(65537, big).public_key(),
        rsa.RSAPublicNumbers(3, 1 << 2047 | 1).public_key(),
        rsa.RSAPublicNumbers(1 << 80 | 1, 1 << 2047 | 1).public_key(),
        ec.generate_private_key(ec.SECP192R1()).public_key(),
        ed25519.Ed25519PrivateKey.generate().public_key(),
    ):
        assert reason_of(spki(key)) is ReasonCode.KEY_TOO_WEAK
    assert reason_of(b"garbage") is ReasonCode.KEY_UNREADABLE


def test_only_granted_kinds_of_keys_are_taken() -> None:
    verify_key_granted(KeyKind.RSA, grant(key_kinds=("rsa",)))
    with pytest.raises(EnrolmentRefusedError) as caught:
        verify_key_granted(KeyKind.ECDSA, grant(key_kinds=("rsa",)))
    assert caught.value.reason is ReasonCode.KEY_KIND_NOT_GRANTED
