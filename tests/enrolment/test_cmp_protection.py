"""Protection of CMP messages: right is right, everything else is refused with its reason."""

import shutil
import subprocess
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicomward.enrolment import der
from dicomward.enrolment.cmp_message import Kind, decode_message
from dicomward.enrolment.cmp_protection import (
    ECDSA_SHA256,
    MOST_ITERATIONS,
    Pbmac1,
    decode_mac,
    is_mac_right,
    verify_signed,
)
from dicomward.enrolment.refusal import EnrolmentRefusedError
from tests.enrolment.cmp_client import HMAC_SHA1, PBM, SECRET, certificate, with_mac, with_signature

BODY = der.encode(der.SEQUENCE)
KEY = ec.generate_private_key(ec.SECP256R1())


def test_mac() -> None:
    message = decode_message(with_mac(Kind.GENM, BODY))
    pbm = decode_mac(message.header.algorithm)
    assert pbm == PBM
    assert is_mac_right(message, PBM, SECRET)
    assert not is_mac_right(message, PBM, "OTHER")
    assert not is_mac_right(replace(message, protection=b""), PBM, SECRET)


def test_mac_is_the_one_of_the_standard() -> None:
    # RFC 4211 §4.4, worked out with `openssl dgst` for 100 iterations: sha256 chained, then HMAC-SHA-1.
    assert PBM.compute(b"salt", SECRET, b"data").hex() == "bed386555136373fda05ea2d40e4ae75c4a8b194"


HMAC_SHA256 = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.2.9"))
PBMAC1 = Pbmac1(salt=b"salt", iterations=100, key_bytes=32, prf=HMAC_SHA256, mac=HMAC_SHA256)


def test_pbmac1() -> None:
    message = decode_message(with_mac(Kind.GENM, BODY, mac=PBMAC1))
    assert decode_mac(message.header.algorithm) == PBMAC1
    assert is_mac_right(message, PBMAC1, SECRET)
    assert not is_mac_right(message, PBMAC1, "OTHER")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl")
def test_pbmac1_is_the_one_of_the_standard() -> None:
    def openssl(*arguments: str) -> bytes:
        return subprocess.run(["openssl", *arguments], input=b"data", capture_output=True, check=True).stdout

    options = ("digest:SHA256", f"pass:{SECRET}", "salt:salt", "iter:100", "pkcs5:1")
    chosen = [part for each in options for part in ("-kdfopt", each)]
    key = openssl("kdf", "-keylen", "32", *chosen, "-binary", "PBKDF2")
    expected = openssl("dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key.hex()}", "-binary")
    assert PBMAC1.compute(b"salt", SECRET, b"data") == expected


@pytest.mark.parametrize(
    "algorithm",
    [
        replace(PBMAC1, iterations=MOST_ITERATIONS + 1).algorithm(b"s"),
        replace(PBMAC1, key_bytes=15).algorithm(b"s"),
        replace(PBMAC1, key_bytes=65).algorithm(b"s"),
        replace(PBMAC1, prf=HMAC_SHA1).algorithm(b"s"),
        replace(PBMAC1, prf=b"").algorithm(b"s"),
        replace(PBMAC1, mac=HMAC_SHA1).algorithm(b"s"),
        PBMAC1.algorithm(b"s").replace(
            der.encode_oid("1.2.840.113549.1.5.12"), der.encode_oid("1.2.840.113549.1.5.11")
        ),
        replace(PBM, iterations=99).algorithm(b"s"),
        replace(PBM, iterations=MOST_ITERATIONS + 1).algorithm(b"s"),
        PBM.algorithm(bytes(129)),
        replace(PBM, owf=HMAC_SHA1).algorithm(b"s"),
        replace(PBM, mac=ECDSA_SHA256).algorithm(b"s"),
        der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113533.7.66.13")),
    ],
)
def test_mac_that_is_not_taken(algorithm: bytes) -> None:
    with pytest.raises(EnrolmentRefusedError) as caught:
        decode_mac(algorithm)
    assert caught.value.reason == "cmp-algorithm"


def test_signatures() -> None:
    assert decode_mac(ECDSA_SHA256) is None
    for key in (KEY, rsa.generate_private_key(65537, 2048)):
        own = certificate(key)
        assert verify_signed(decode_message(with_signature(Kind.GENM, BODY, key, own))) == own


@pytest.mark.parametrize(
    ("own", "algorithm", "reason"),
    [
        (b"", ECDSA_SHA256, "cmp-protection-wrong"),
        (der.encode(der.SEQUENCE), ECDSA_SHA256, "cmp-unreadable"),
        (certificate(KEY).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"), ECDSA_SHA256, "cmp-unreadable"),
        (certificate(ec.generate_private_key(ec.SECP256R1())), ECDSA_SHA256, "cmp-protection-wrong"),
        (certificate(KEY), b"", "cmp-algorithm"),
        (certificate(KEY), der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.1.11")), "cmp-algorithm"),
    ],
)
def test_bad_signatures(own: bytes, algorithm: bytes, reason: str) -> None:
    message = decode_message(with_signature(Kind.GENM, BODY, KEY, own, algorithm=algorithm))
    with pytest.raises(EnrolmentRefusedError) as caught:
        verify_signed(message)
    assert caught.value.reason == reason
