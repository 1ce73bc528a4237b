"""A small CMP client and the ports of a server, in memory: no clock, no network, no database."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from dicomward.enrolment import der
from dicomward.enrolment.cmp import Invited, Signer
from dicomward.enrolment.cmp_message import CmpHeader, Kind, encode_message, encode_protected
from dicomward.enrolment.cmp_protection import ECDSA_SHA256, Mac, Pbm
from dicomward.enrolment.cmp_transactions import Pending, Polling, Transactions
from dicomward.enrolment.grant import Grant, Issued
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import CertificationRequest
from dicomward.vocab.reason import ReasonCode

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
GRANT = Grant(device="CT", ae_titles=("CT",), role="modality", networks=("any",), life=timedelta(days=90))
SECRET = "S3CRET"
RSA_SHA256 = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.113549.1.1.11"), der.encode(der.NULL))
SHA256 = der.encode(der.SEQUENCE, der.encode_oid("2.16.840.1.101.3.4.2.1"))
HMAC_SHA1 = der.encode(der.SEQUENCE, der.encode_oid("1.3.6.1.5.5.8.1.2"))
PBM = Pbm(salt=b"salt", owf=SHA256, iterations=100, mac=HMAC_SHA1)
EMPTY_NAME = der.encode(0xA4, der.encode(der.SEQUENCE))
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def spki(key: Key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate(key: Key, name: str = "CT", serial: int = 1) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def sign(key: Key, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def algorithm_of(key: Key) -> bytes:
    return RSA_SHA256 if isinstance(key, rsa.RSAPrivateKey) else ECDSA_SHA256


def template(key: Key, name: str = "CT", extensions: bytes = b"") -> bytes:
    """Return the content of a CertTemplate."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []).public_bytes()
    public_key = der.encode(0xA6, der.only(spki(key), der.SEQUENCE).content)
    return der.encode(0xA5, subject) + public_key + (der.encode(0xA9, extensions) if extensions else b"")


def crmf(key: Key, inner: bytes | None = None, *, signer: Key | None = None, number: int = 0) -> bytes:
    """Return the body of an ir, cr or kur."""
    content = template(key) if inner is None else inner
    asked = der.encode(der.SEQUENCE, der.encode_integer(number), der.encode(der.SEQUENCE, content))
    signer = signer or key
    bits = der.encode(der.BIT_STRING, b"\0", sign(signer, asked))
    proof = der.encode(0xA1, algorithm_of(signer), bits)
    return der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, asked, proof))


def header(**changed: object) -> CmpHeader:
    made = CmpHeader(
        sender=EMPTY_NAME, recipient=EMPTY_NAME, transaction_id=bytes(16), sender_nonce=bytes(16), sender_key_id=b"CT"
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def with_mac(kind: Kind, body: bytes, secret: str = SECRET, mac: Mac = PBM, **changed: object) -> bytes:
    protected, parts = encode_protected(header(algorithm=mac.algorithm(mac.salt), **changed), kind, body, NOW)
    return encode_message(parts, mac.compute(mac.salt, secret, protected), ())


def bare(kind: Kind, body: bytes, **changed: object) -> bytes:
    """Return a message without protection."""
    _protected, parts = encode_protected(header(**changed), kind, body, NOW)
    return der.encode(der.SEQUENCE, parts)


def with_signature(kind: Kind, body: bytes, key: Key, own: bytes, **changed: object) -> bytes:
    changed = {"algorithm": algorithm_of(key), **changed}
    protected, parts = encode_protected(header(**changed), kind, body, NOW)
    return encode_message(parts, sign(key, protected), (own,) if own else ())


@dataclass
class MemoryPorts:
    """One invitation (CT, with SECRET) and one certificate of a device (`bound`)."""

    bound: bytes = b""
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    transactions: Transactions = field(default_factory=Transactions)
    done: list[str] = field(default_factory=list)
    count: int = 0
    has_queue: bool = False
    is_approved: bool = False

    def ask(self, request: CertificationRequest, address: str, now: datetime) -> Issued | str:
        self.done.append("ask")
        return self._issued() if self.is_approved else "wait"

    def invited(self, reference: str, address: str, now: datetime) -> Invited:
        if reference != "CT":
            raise EnrolmentRefusedError(ReasonCode.INVITATION_UNKNOWN, reference)
        return Invited(id="ID", grant=GRANT, secret=SECRET)

    def wrong_guess(self, invitation: str, address: str, now: datetime) -> None:
        self.done.append(f"wrong {invitation}")

    def enrol(self, invitation: str, request: CertificationRequest, address: str, now: datetime) -> Issued:
        self.done.append(f"enrol {invitation}")
        return self._issued()

    def renewable(self, certificate: bytes) -> Grant:
        if certificate != self.bound:
            raise EnrolmentRefusedError(ReasonCode.NOT_A_DEVICE_CERTIFICATE, "nobody")
        return GRANT

    def renew(self, request: CertificationRequest, certificate: bytes, now: datetime) -> Issued:
        self.done.append("renew")
        return self._issued()

    def revoke(self, certificate: bytes, now: datetime, *, detail: str) -> None:
        self.done.append("revoke")

    def begin(self, transaction: bytes, now: datetime, *, is_stranger: bool = False) -> None:
        self.transactions.begin(transaction, now, is_stranger=is_stranger)

    def wait(self, transaction: bytes, pending: Pending | Polling, now: datetime) -> None:
        self.transactions.wait(transaction, pending, now)

    def polling(self, transaction: bytes, now: datetime) -> Polling:
        return self.transactions.polling(transaction, now)

    def pending(self, transaction: bytes, now: datetime) -> Pending:
        return self.transactions.pending(transaction, now)

    def close(self, transaction: bytes, now: datetime) -> None:
        self.transactions.close(transaction, now)

    def signer(self) -> Signer:
        own = certificate(self.key, "server")
        return Signer(certificate=own, chain=(own,), anchors=(own,), sign=lambda data: sign(self.key, data))

    def random(self, count: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(count, "big")

    def _issued(self) -> Issued:
        return Issued(
            certificate=certificate(self.key, "CT", 7),
            chain=(),
            serial=7,
            generation=1,
            device="CT",
            sha256="",
            not_before=NOW,
            not_after=NOW,
            revision=1,
        )
