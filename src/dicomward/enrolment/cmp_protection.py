"""How CMP messages are protected: a MAC under a secret (PBM, RFC 9481 §6.1.1), or a signature (RFC 9481 §3)."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from dicomward.enrolment import der
from dicomward.enrolment.cmp_message import CmpMessage
from dicomward.enrolment.der import DerError, Reader
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.vocab.reason import ReasonCode

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_PBM: Final = der.encode_oid("1.2.840.113533.7.66.13")
ECDSA_SHA256: Final = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.3.2"))
# A stranger chooses the count, and we do the work.
LEAST_ITERATIONS: Final = 100
MOST_ITERATIONS: Final = 100_000
_MOST_SALT_BYTES: Final = 128
SALT_BYTES: Final = 16
_HASHES: Final = {
    der.encode_oid("1.3.14.3.2.26"): "sha1",
    der.encode_oid("2.16.840.1.101.3.4.2.1"): "sha256",
    der.encode_oid("2.16.840.1.101.3.4.2.2"): "sha384",
    der.encode_oid("2.16.840.1.101.3.4.2.3"): "sha512",
}
_MACS: Final = {
    der.encode_oid("1.3.6.1.5.5.8.1.2"): "sha1",
    der.encode_oid("1.2.840.113549.2.7"): "sha1",
    der.encode_oid("1.2.840.113549.2.9"): "sha256",
    der.encode_oid("1.2.840.113549.2.10"): "sha384",
    der.encode_oid("1.2.840.113549.2.11"): "sha512",
}
_ECDSA: Final[dict[bytes, hashes.HashAlgorithm]] = {
    der.encode_oid("1.2.840.10045.4.3.2"): hashes.SHA256(),
    der.encode_oid("1.2.840.10045.4.3.3"): hashes.SHA384(),
    der.encode_oid("1.2.840.10045.4.3.4"): hashes.SHA512(),
}
_RSA: Final[dict[bytes, hashes.HashAlgorithm]] = {
    der.encode_oid("1.2.840.113549.1.1.11"): hashes.SHA256(),
    der.encode_oid("1.2.840.113549.1.1.12"): hashes.SHA384(),
    der.encode_oid("1.2.840.113549.1.1.13"): hashes.SHA512(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pbm:
    """The parameters of a password-based MAC; `owf` and `mac` are AlgorithmIdentifiers (DER)."""

    salt: bytes
    owf: bytes
    iterations: int
    mac: bytes

    def algorithm(self, salt: bytes) -> bytes:
        """Return the AlgorithmIdentifier of the same protection under another salt."""
        return der.encode(
            der.SEQUENCE,
            _PBM,
            der.encode(
                der.SEQUENCE, der.encode(der.OCTETS, salt), self.owf, der.encode_integer(self.iterations), self.mac
            ),
        )


def decode_pbm(algorithm: bytes) -> Pbm | None:
    """Return the parameters of a MAC; None if this is no MAC. Raises EnrolmentRefusedError for one that isn't taken."""
    if not is_mac(algorithm):
        return None
    try:
        reader = der.only(algorithm, der.SEQUENCE).reader()
        reader.item()
        inner = reader.take(der.SEQUENCE).reader()
        pbm = Pbm(
            salt=inner.take(der.OCTETS).content,
            owf=inner.take(der.SEQUENCE).encoded,
            iterations=der.decode_integer(inner.take(der.INTEGER)),
            mac=inner.take(der.SEQUENCE).encoded,
        )
        names = _oid_of(pbm.owf) in _HASHES and _oid_of(pbm.mac) in _MACS
    except DerError as error:
        raise _not_taken(f"the parameters of the MAC can't be read: {error}") from error
    if not names or not LEAST_ITERATIONS <= pbm.iterations <= MOST_ITERATIONS or len(pbm.salt) > _MOST_SALT_BYTES:
        raise _not_taken(f"a MAC with hashes that aren't taken, or {pbm.iterations} iterations")
    return pbm


def is_mac(algorithm: bytes) -> bool:
    """Say if a protection algorithm is the password-based MAC."""
    return _oid_of(algorithm) == _PBM


def mac_of(pbm: Pbm, salt: bytes, secret: str, protected: bytes) -> bytes:
    """Return the MAC of a message."""
    owf = _HASHES[_oid_of(pbm.owf)]
    key = secret.encode("utf-8") + salt
    for _ in range(pbm.iterations):
        key = hashlib.new(owf, key).digest()
    return hmac.digest(key, protected, _MACS[_oid_of(pbm.mac)])


def is_mac_right(message: CmpMessage, pbm: Pbm, secret: str) -> bool:
    """Say if a message is protected with this secret."""
    return hmac.compare_digest(mac_of(pbm, pbm.salt, secret, message.protected), message.protection)


def verify_signed(message: CmpMessage) -> bytes:
    """Return the certificate (DER) that has signed a message; nothing else is known of it.

    Raises EnrolmentRefusedError.
    """
    if _oid_of(message.header.algorithm) not in _ECDSA | _RSA:
        raise _not_taken("the protection is neither PBM nor a signature by ECDSA or RSA with SHA-2")
    if not message.certificates:
        raise EnrolmentRefusedError(ReasonCode.CMP_PROTECTION_WRONG, "signed, but without the signer's certificate")
    certificate = message.certificates[0]
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (x509.InvalidVersion, ValueError, UnsupportedAlgorithm, TypeError) as error:
        raise EnrolmentRefusedError(
            ReasonCode.CMP_UNREADABLE, f"the signer's certificate can't be read: {error}"
        ) from error
    if not is_signature_right(key, message.header.algorithm, message.protection, message.protected):
        raise EnrolmentRefusedError(ReasonCode.CMP_PROTECTION_WRONG, "the signature of the message is wrong")
    return certificate


def is_signature_right(key: object, algorithm: bytes, signature: bytes, data: bytes) -> bool:
    """Say if a signature is right. Raises EnrolmentRefusedError for an algorithm that isn't taken."""
    name = _oid_of(algorithm)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey) and name in _ECDSA:
            key.verify(signature, data, ec.ECDSA(_ECDSA[name]))
        elif isinstance(key, rsa.RSAPublicKey) and name in _RSA:
            key.verify(signature, data, padding.PKCS1v15(), _RSA[name])
        else:
            raise _not_taken("it doesn't fit the key")
    except InvalidSignature:
        return False
    return True


def _oid_of(algorithm: bytes) -> bytes:
    try:
        return Reader(algorithm).take(der.SEQUENCE).reader().take(der.OID).encoded
    except DerError:
        return b""


def _not_taken(detail: str) -> EnrolmentRefusedError:
    return EnrolmentRefusedError(ReasonCode.CMP_ALGORITHM, f"an algorithm that isn't taken: {detail}")
