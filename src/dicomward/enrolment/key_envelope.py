"""A private key made by the server, signed by it and encrypted for a key of the device (RFC 7030 §4.4.2, RFC 5958).

EnvelopedData (RFC 5652 §6) around SignedData (§5) around an AsymmetricKeyPackage: RSA-OAEP with SHA-256 (RFC 4055) and
AES-256-CBC. Random bytes are arguments.
"""

import hashlib
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from dicomward.enrolment import der

KEY_BYTES: Final = 32
IV_BYTES: Final = 16
_SIGNED_DATA: Final = der.encode_oid("1.2.840.113549.1.7.2")
_ENVELOPED_DATA: Final = der.encode_oid("1.2.840.113549.1.7.3")
_KEY_PACKAGE: Final = der.encode_oid("2.16.840.1.101.2.1.2.78.5")
_CONTENT_TYPE: Final = der.encode_oid("1.2.840.113549.1.9.3")
_MESSAGE_DIGEST: Final = der.encode_oid("1.2.840.113549.1.9.4")
_SHA256: Final = der.encode(der.SEQUENCE, der.encode_oid("2.16.840.1.101.3.4.2.1"))
_ECDSA_SHA256: Final = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.3.2"))
_MGF1_SHA256: Final = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.1.8"), _SHA256)
_OAEP_SHA256: Final = der.encode(
    der.SEQUENCE,
    der.encode_oid("1.2.840.113549.1.1.7"),
    # The third parameter, the label, has its default: none.
    der.encode(der.SEQUENCE, der.encode(0xA0, _SHA256), der.encode(0xA1, _MGF1_SHA256)),
)
_AES256_CBC: Final = der.encode_oid("2.16.840.1.101.3.4.1.42")
_BLOCK_BITS: Final = 128


def key_identifier(spki: bytes) -> bytes:
    """Return the key identifier of a public key: SHA-1 of its bits (RFC 5280 §4.2.1.2), which keeps no secret."""
    reader = der.only(spki, der.SEQUENCE).reader()
    reader.take(der.SEQUENCE)
    return hashlib.sha1(der.decode_bits(reader.take(der.BIT_STRING)), usedforsecurity=False).digest()


def can_be_encrypted_for(spki: bytes) -> bool:
    """Say if a key can be encrypted for the holder of this one: RSA."""
    return isinstance(load_der_public_key(spki), rsa.RSAPublicKey)


def encode_key_envelope(
    private_key: bytes,
    recipient: bytes,
    identifier: bytes,
    signer: tuple[ec.EllipticCurvePrivateKey, x509.Certificate],
    *,
    content_key: bytes,
    iv: bytes,
) -> bytes:
    """Return the message (DER) for a private key (PKCS#8, DER).

    `recipient` is the RSA key (SubjectPublicKeyInfo, DER) that decrypts it, `identifier` how the device names that one.
    Raises ValueError for a recipient that isn't RSA.
    """
    public = load_der_public_key(recipient)
    if not isinstance(public, rsa.RSAPublicKey):
        raise ValueError("a key can be encrypted for an RSA key only")
    wrapped = public.encrypt(
        content_key, rsa_padding.OAEP(rsa_padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=None)
    )
    receiver = der.encode(
        der.SEQUENCE,
        der.encode_integer(2),
        der.encode(0x80, identifier),
        _OAEP_SHA256,
        der.encode(der.OCTETS, wrapped),
    )
    padder = padding.PKCS7(_BLOCK_BITS).padder()
    clear = padder.update(_signed(private_key, *signer)) + padder.finalize()
    encryptor = Cipher(algorithms.AES(content_key), modes.CBC(iv)).encryptor()
    encrypted = encryptor.update(clear) + encryptor.finalize()
    content = der.encode(
        der.SEQUENCE,
        _SIGNED_DATA,
        der.encode(der.SEQUENCE, _AES256_CBC, der.encode(der.OCTETS, iv)),
        der.encode(0x80, encrypted),
    )
    enveloped = der.encode(der.SEQUENCE, der.encode_integer(2), der.encode(der.SET, receiver), content)
    return der.encode(der.SEQUENCE, _ENVELOPED_DATA, der.encode(0xA0, enveloped))


def _signed(private_key: bytes, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bytes:
    """Return SignedData: the key package, and the server's signature with its certificate."""
    package = der.encode(der.SEQUENCE, private_key)
    digest = hashlib.sha256(package).digest()
    attributes = [
        der.encode(der.SEQUENCE, _CONTENT_TYPE, der.encode(der.SET, _KEY_PACKAGE)),
        der.encode(der.SEQUENCE, _MESSAGE_DIGEST, der.encode(der.SET, der.encode(der.OCTETS, digest))),
    ]
    # A SET OF is sorted in DER; signed is the set itself, sent is [0] (RFC 5652 §5.4).
    ordered = sorted(attributes)
    signature = key.sign(der.encode(der.SET, *ordered), ec.ECDSA(hashes.SHA256()))
    signer = der.encode(
        der.SEQUENCE,
        der.encode_integer(1),
        der.encode(der.SEQUENCE, certificate.issuer.public_bytes(), der.encode_integer(certificate.serial_number)),
        _SHA256,
        der.encode(0xA0, *ordered),
        _ECDSA_SHA256,
        der.encode(der.OCTETS, signature),
    )
    return der.encode(
        der.SEQUENCE,
        der.encode_integer(3),
        der.encode(der.SET, _SHA256),
        der.encode(der.SEQUENCE, _KEY_PACKAGE, der.encode(0xA0, der.encode(der.OCTETS, package))),
        der.encode(0xA0, certificate.public_bytes(Encoding.DER)),
        der.encode(der.SET, signer),
    )


def spki_of(certificate: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo (DER) of a certificate (DER)."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
