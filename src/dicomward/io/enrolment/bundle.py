"""PKCS#12 (RFC 7292): a key that is made here for a device that can't make one, and kept nowhere."""

from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES, serialize_key_and_certificates

from dicomward.enrolment.grant import Grant, Issued
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.enrolment.est import make_device_key


def make_bundle(
    issuer: CaIssuer, grant: Grant, now: datetime, passphrase: str, *, by: str, old: bool = False
) -> tuple[Issued, bytes]:
    """Make a key, let its certificate be issued, and return the bundle. `old`: 3DES and SHA-1 instead of AES.

    Raises EnrolmentRefusedError.
    """
    key = make_device_key(grant.key_kinds)
    public_key = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    issued = issuer.issue(public_key, grant, now, by=by)
    encryption: KeySerializationEncryption = BestAvailableEncryption(passphrase.encode("ascii"))
    if old:
        builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(50_000)
        algorithm = builder.key_cert_algorithm(PBES.PBESv1SHA1And3KeyTripleDESCBC)
        # Windows before 10 and Java before 8u301 read nothing else.
        encryption = algorithm.hmac_hash(hashes.SHA1()).build(passphrase.encode("ascii"))  # noqa: S303
    certificates = [x509.load_der_x509_certificate(each) for each in (*issued.chain, *issuer.anchors)]
    bundle = serialize_key_and_certificates(
        issued.device.encode("ascii"), key, x509.load_der_x509_certificate(issued.certificate), certificates, encryption
    )
    return issued, bundle
