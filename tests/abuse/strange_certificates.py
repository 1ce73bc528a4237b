"""Certificates that no device of ours has: of strangers, too long, too many, out of date, of odd keys."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
# Makes key and certificates in a directory; returns what SSLContext.load_cert_chain takes.
Make = Callable[[Path], tuple[Path, Path]]

_DAY = datetime.timedelta(days=1)
_ODD_EXTENSION = ObjectIdentifier("1.2.3.4.5")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text, _validate=False)])


def _made(
    *,
    key: Callable[[], PrivateKey] = lambda: ec.generate_private_key(ec.SECP256R1()),
    subject: str = "CT1",
    extension: bytes = b"",
    names: Sequence[str] = (),
    begins: datetime.timedelta = -_DAY,
    ends: datetime.timedelta = _DAY,
    chain: int = 0,
) -> Make:
    """Describe one; `chain` is how many certificates of issuers come with it."""

    def make(directory: Path) -> tuple[Path, Path]:
        # The chain is made from its root, every certificate signed by the one before.
        issuer: x509.Name | None = None
        issuing: PrivateKey | None = None
        out: list[bytes] = []
        for depth in range(chain, -1, -1):
            private = key()
            title = _name(subject if not depth else f"Issuer {depth}")
            now = datetime.datetime.now(datetime.UTC)  # noqa: TID251  a real peer has a real clock
            builder = (
                x509.CertificateBuilder()
                .subject_name(title)
                .issuer_name(issuer or title)
                .public_key(private.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now + begins)
                .not_valid_after(now + ends)
                .add_extension(x509.BasicConstraints(ca=depth > 0, path_length=None), critical=True)
            )
            if extension:
                builder = builder.add_extension(x509.UnrecognizedExtension(_ODD_EXTENSION, extension), critical=False)
            if names:
                alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in names])
                builder = builder.add_extension(alternatives, critical=False)
            signing = issuing or private
            digest = None if isinstance(signing, ed25519.Ed25519PrivateKey) else hashes.SHA256()
            out.insert(0, builder.sign(signing, digest).public_bytes(serialization.Encoding.PEM))
            issuer, issuing = title, private
        assert issuing is not None
        files = directory / "cert.pem", directory / "key.pem"
        files[0].write_bytes(b"".join(out))
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        files[1].write_bytes(issuing.private_bytes(serialization.Encoding.PEM, *form))
        return files

    return make


STRANGE: Mapping[str, Make] = {
    "of-itself": _made(),
    "of-a-stranger": _made(chain=1),
    "chain-of-12": _made(chain=12),
    "chain-of-100": _made(chain=100),
    "of-90-kibibytes": _made(extension=bytes(90 << 10)),
    "of-500-kibibytes": _made(extension=bytes(500 << 10)),
    "with-5000-names": _made(names=[f"host{number}.example" for number in range(5000)]),
    "with-a-subject-of-60000-bytes": _made(subject="C" * 60000),
    "with-a-subject-of-control-characters": _made(subject="CT1\0\x1b[2J\n"),
    "expired": _made(begins=-2 * _DAY, ends=-_DAY),
    "not-yet-valid": _made(begins=_DAY, ends=2 * _DAY),
    "of-rsa-1024": _made(key=lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505  the point
    "of-p-521": _made(key=lambda: ec.generate_private_key(ec.SECP521R1())),
    "of-ed25519": _made(key=ed25519.Ed25519PrivateKey.generate),
}
