"""A CA and a gateway directory for tests, and keys that stand for devices."""

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from dicomward.enrolment.grant import Grant
from dicomward.io.ca.directory import CaDirectory, make_ca_directory
from dicomward.io.ca.issuer import CaIssuer, IssuingTerms
from dicomward.io.registry.store import RegistryStore

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
PASSPHRASE = b"correct horse battery staple"
TERMS = IssuingTerms(life=timedelta(days=90), backdated=timedelta(hours=1))


def spki(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> bytes:
    """Return the SubjectPublicKeyInfo of a key, by default of a new one."""
    public = (key or ec.generate_private_key(ec.SECP256R1())).public_key()
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def grant(name: str = "ct3", *titles: str, **changed: object) -> Grant:
    values: dict[str, object] = {
        "device": name,
        "ae_titles": titles or (name.upper(),),
        "role": "modality",
        "networks": ("127.0.0.0/8",),
        "life": timedelta(days=90),
    }
    return Grant(**(values | changed))  # type: ignore[arg-type]


def make_ca(path: Path, now: datetime = NOW, **changed: object) -> CaDirectory:
    return make_ca_directory(path, name="Test", passphrase=PASSPHRASE, now=now, **changed)  # type: ignore[arg-type]


def issuer(store: RegistryStore, ca: CaDirectory) -> CaIssuer:
    return CaIssuer(store, ca, TERMS)
