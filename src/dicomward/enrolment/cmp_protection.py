"""How CMP messages are protected: a MAC under a secret (PBM or PBMAC1, RFC 9481 §6.1), or a signature (RFC 9481 §3)."""

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
_PBMAC1: Final = der.encode_oid("1.2.840.113549.1.5.14")
_PBKDF2: Final = der.encode_oid("1.2.840.113549.1.5.12")
ECDSA_SHA256: Final = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.3.2"))
# A stranger chooses the count, and we do the work.
LEAST_ITERATIONS: Final = 100
MOST_ITERATIONS: Final = 100_000
_MOST_SALT_BYTES: Final = 128
_LEAST_KEY_BYTES: Final = 16
_MOST_KEY_BYTES: Final = 64
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

    def compute(self, salt: bytes, secret: str, protected: bytes) -> bytes:
        """Return the MAC of a message (RFC 4211 §4.4)."""
        owf = _HASHES[_oid_of(self.owf)]
        key = secret.encode("utf-8") + salt
        for _ in range(self.iterations):
            key = hashlib.new(owf, key).digest()
        return hmac.digest(key, protected, _MACS[_oid_of(self.mac)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Pbmac1:
    """The parameters of PBMAC1 with PBKDF2 (RFC 9481 §6.1.2); `prf` and `mac` are AlgorithmIdentifiers (DER)."""

    salt: bytes
    iterations: int
    key_bytes: int
    prf: bytes
    mac: bytes

    def algorithm(self, salt: bytes) -> bytes:
        """Return the AlgorithmIdentifier of the same protection under another salt."""
        derivation = der.encode(
            der.SEQUENCE,
            der.encode(der.OCTETS, salt),
            der.encode_integer(self.iterations),
            der.encode_integer(self.key_bytes),
            self.prf,
        )
        parameters = der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, _PBKDF2, derivation), self.mac)
        return der.encode(der.SEQUENCE, _PBMAC1, parameters)

    def compute(self, salt: bytes, secret: str, protected: bytes) -> bytes:
        """Return the MAC of a message (RFC 8018 §7.1)."""
        prf = _MACS[_oid_of(self.prf)]
        key = hashlib.pbkdf2_hmac(prf, secret.encode("utf-8"), salt, self.iterations, self.key_bytes)
        return hmac.digest(key, protected, _MACS[_oid_of(self.mac)])


Mac = Pbm | Pbmac1


def decode_mac(algorithm: bytes) -> Mac | None:
    """Return the parameters of a MAC; None if this is no MAC. Raises EnrolmentRefusedError for one that isn't taken."""
    name = _oid_of(algorithm)
    if name not in (_PBM, _PBMAC1):
        return None
    try:
        reader = der.only(algorithm, der.SEQUENCE).reader()
        reader.item()
        inner = reader.take(der.SEQUENCE).reader()
        mac = _pbm(inner) if name == _PBM else _pbmac1(inner)
    except DerError as error:
        raise _not_taken(f"the parameters of the MAC can't be read: {error}") from error
    if not LEAST_ITERATIONS <= mac.iterations <= MOST_ITERATIONS or len(mac.salt) > _MOST_SALT_BYTES:
        raise _not_taken(f"a MAC with {mac.iterations} iterations, or too much salt")
    return mac


def _pbm(inner: Reader) -> Pbm:
    pbm = Pbm(
        salt=inner.take(der.OCTETS).content,
        owf=inner.take(der.SEQUENCE).encoded,
        iterations=der.decode_integer(inner.take(der.INTEGER)),
        mac=inner.take(der.SEQUENCE).encoded,
    )
    if _oid_of(pbm.owf) not in _HASHES or _oid_of(pbm.mac) not in _MACS:
        raise DerError("a hash that isn't taken")
    return pbm


def _pbmac1(inner: Reader) -> Pbmac1:
    derivation = inner.take(der.SEQUENCE).reader()
    if derivation.take(der.OID).encoded != _PBKDF2:
        raise DerError("a key derivation other than PBKDF2")
    values = derivation.take(der.SEQUENCE).reader()
    pbmac1 = Pbmac1(
        salt=values.take(der.OCTETS).content,
        iterations=der.decode_integer(values.take(der.INTEGER)),
        # RFC 9579 §4: it has to be there. So has the PRF, whose default is HMAC with SHA-1.
        key_bytes=der.decode_integer(values.take(der.INTEGER)),
        prf=values.take(der.SEQUENCE).encoded,
        mac=inner.take(der.SEQUENCE).encoded,
    )
    if not _LEAST_KEY_BYTES <= pbmac1.key_bytes <= _MOST_KEY_BYTES:
        raise DerError(f"a key of {pbmac1.key_bytes} bytes")
    if any(_MACS.get(_oid_of(each), "sha1") == "sha1" for each in (pbmac1.prf, pbmac1.mac)):
        raise DerError("a hash that isn't SHA-2")
    return pbmac1


def is_mac_right(message: CmpMessage, mac: Mac, secret: str) -> bool:
    """Say if a message is protected with this secret."""
    return hmac.compare_digest(mac.compute(mac.salt, secret, message.protected), message.protection)


def verify_signed(message: CmpMessage) -> bytes:
    """Return the certificate (DER) that has signed a message; nothing else is known of it.

    Raises EnrolmentRefusedError.
    """
    if _oid_of(message.header.algorithm) not in _ECDSA | _RSA:
        raise _not_taken("the protection is neither PBM nor PBMAC1 nor a signature by ECDSA or RSA with SHA-2")
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
