"""Certificates and CRLs are what openssl takes for good ones."""

import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from dicomward.enrolment.revocations import HOLD, Revocation
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.ca.sign import make_crl, new_serial, pem_of
from dicomward.io.registry.store import RegistryStore
from tests.io.ca_helpers import NOW, TERMS, grant, make_ca, spki


def test_serials_have_128_bits_and_fit_into_20_octets() -> None:
    serials = {new_serial() for _ in range(1000)}
    assert len(serials) == 1000
    assert {each.bit_length() for each in serials} == {128}


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_openssl_verifies_chain_and_crl(tmp_path: Path, kind: str) -> None:
    ca = make_ca(tmp_path / "ca", kind=kind)
    with RegistryStore.open(f"sqlite:///{tmp_path / 'r.db'}", create=True) as store:
        issued = CaIssuer(store, ca, TERMS).issue(spki(), grant(), NOW)
    (tmp_path / "leaf.pem").write_bytes(pem_of(x509.load_der_x509_certificate(issued.certificate)))

    def verify(*more: str) -> str:
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "ca/root.cert.pem"]
        command += ["-untrusted", "ca/issuing-1.cert.pem", "-attime", str(int(NOW.timestamp()) + 9), *more, "leaf.pem"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    assert verify() == "leaf.pem: OK\n"
    authority = ca.open()
    good = make_crl(authority, [], NOW, life=timedelta(days=7))
    revoked = Revocation(serial=issued.serial, revoked_at=NOW, reason=HOLD)
    bad = make_crl(authority, [revoked], NOW + timedelta(seconds=1), life=timedelta(days=7))
    for crl, said in ((good, "leaf.pem: OK"), (bad, "certificate revoked")):
        (tmp_path / "crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))
        assert said in verify("-crl_check", "-CRLfile", "crl.pem")
    numbers = [each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for each in (good, bad)]
    assert numbers[0] < numbers[1]


def test_the_crl_is_named_in_the_certificate_where_it_is_published(tmp_path: Path) -> None:
    from dataclasses import replace

    ca = make_ca(tmp_path / "ca")
    with RegistryStore.open(f"sqlite:///{tmp_path / 'r.db'}", create=True) as store:
        terms = replace(TERMS, crl_url="http://pki.example/issuing.crl")
        issued = CaIssuer(store, ca, terms).issue(spki(), grant(), NOW)
    points = x509.load_der_x509_certificate(issued.certificate).extensions.get_extension_for_class(
        x509.CRLDistributionPoints
    )
    (name,) = points.value[0].full_name or []
    assert name.value == "http://pki.example/issuing.crl"
