"""PKCS#12 bundles: key, certificate and chain, readable with the passphrase only."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.enrolment.bundle import make_bundle
from dicomward.io.registry.store import RegistryStore
from tests.io.ca_helpers import NOW, grant, issuer, make_ca


@pytest.fixture
def issuing(tmp_path: Path) -> Iterator[CaIssuer]:
    with RegistryStore.open(f"sqlite:///{tmp_path / 'r.db'}", create=True) as store:
        yield issuer(store, make_ca(tmp_path / "ca"))


@pytest.mark.parametrize(
    ("kinds", "kind"), [(("ecdsa", "rsa"), ec.EllipticCurvePrivateKey), (("rsa",), rsa.RSAPrivateKey)]
)
@pytest.mark.parametrize("old", [False, True])
def test_bundle_holds_what_a_device_needs(issuing: CaIssuer, kinds: tuple[str, ...], kind: type, old: bool) -> None:
    wanted = grant("ct3", key_kinds=kinds)
    issued, data = make_bundle(issuing, wanted, NOW, "a passphrase", by="anna", old=old)
    bundle = load_pkcs12(data, b"a passphrase")
    assert isinstance(bundle.key, kind)
    assert bundle.key is not None
    assert bundle.cert is not None
    assert bundle.cert.friendly_name == b"ct3"
    assert bundle.cert.certificate.public_key() == bundle.key.public_key()
    assert f"{bundle.cert.certificate.serial_number:x}" == f"{issued.serial:x}"
    names = [each.certificate.subject.rfc4514_string() for each in bundle.additional_certs]
    assert names == ["CN=Test issuing CA 1", "CN=Test root CA"]
    with pytest.raises(ValueError, match="password"):
        load_pkcs12(data, b"another passphrase")


def test_what_is_not_issued_makes_no_bundle(issuing: CaIssuer) -> None:
    make_bundle(issuing, grant("ct3"), NOW, "a passphrase", by="anna")
    with pytest.raises(EnrolmentRefusedError, match="belongs to 'ct3'"):
        make_bundle(issuing, grant("ct4", "CT3"), NOW, "a passphrase", by="anna")
