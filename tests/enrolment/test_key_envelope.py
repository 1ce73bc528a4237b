"""A key in an envelope: OpenSSL opens it, verifies who made it, and nobody else can read it."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from dicomward.enrolment import der
from dicomward.enrolment.key_envelope import (
    IV_BYTES,
    KEY_BYTES,
    can_be_encrypted_for,
    encode_key_envelope,
    key_identifier,
    spki_of,
)
from dicomward.io.ca.sign import Authority, make_root, pem_of
from dicomward.io.enrolment.tls import make_server_certificate
from tests.io.ca_helpers import rsa_key, spki

NOW = datetime.now(UTC)  # noqa: TID251  OpenSSL has no other clock
ROOT_KEY = ec.generate_private_key(ec.SECP256R1())
ROOT = Authority(key=ROOT_KEY, certificate=make_root("Test", ROOT_KEY, NOW, days=30))
SIGNER = make_server_certificate(ROOT, ["localhost"], NOW)
NEW = ec.generate_private_key(ec.SECP256R1())
NEW_DER = NEW.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def envelope() -> bytes:
    recipient = spki(rsa_key())
    return encode_key_envelope(
        NEW_DER,
        recipient,
        key_identifier(recipient),
        SIGNER,
        content_key=bytes(range(KEY_BYTES)),
        iv=bytes(IV_BYTES),
    )


def openssl(*arguments: object, data: bytes) -> bytes:
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_device_opens_it_and_verifies_the_server(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made = envelope()
    assert NEW_DER not in made
    # CMS identifies the recipient by the key; -inkey alone tries it.
    signed = openssl("cms", "-decrypt", "-inform", "DER", "-inkey", key, data=made)
    wrapped = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.7.2"), der.encode(0xA0, signed))
    root = tmp_path / "root.pem"
    root.write_bytes(pem_of(ROOT.certificate))
    package = openssl("cms", "-verify", "-inform", "DER", "-binary", "-CAfile", root, "-purpose", "any", data=wrapped)
    inner = der.only(package, der.SEQUENCE).reader().item().encoded
    found = load_der_private_key(inner, None)
    assert isinstance(found, ec.EllipticCurvePrivateKey)
    assert found.private_numbers() == NEW.private_numbers()


def test_another_key_does_not_open_it(tmp_path: Path) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key = tmp_path / "key.pem"
    key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", str(key)]
    done = subprocess.run(command, input=envelope(), capture_output=True, check=False)
    assert NEW_DER not in done.stdout


def test_only_an_rsa_key_can_be_the_recipient() -> None:
    assert can_be_encrypted_for(spki(rsa_key()))
    assert not can_be_encrypted_for(spki())
    with pytest.raises(ValueError, match="RSA key only"):
        encode_key_envelope(NEW_DER, spki(), b"id", SIGNER, content_key=bytes(KEY_BYTES), iv=bytes(IV_BYTES))


def test_identifier_is_that_of_certificates() -> None:
    certificate = SIGNER[1]
    found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert key_identifier(spki_of(certificate.public_bytes(Encoding.DER))) == found
    assert spki_of(certificate.public_bytes(Encoding.DER)) == SIGNER[0].public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
