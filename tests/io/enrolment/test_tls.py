"""The enrolment server's own certificate: its names, its role, and that it never ends unnoticed."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from dicomward.enrolment.est import CMC_RA
from dicomward.io.ca.sign import Authority
from dicomward.io.ca.terms import CaError
from dicomward.io.enrolment.tls import LIFE, ServerTls, make_server_certificate
from tests.io.ca_helpers import NOW, PASSPHRASE, make_ca


def test_certificate_has_the_names_and_speaks_for_the_ca(tmp_path: Path) -> None:
    _key, certificate = make_server_certificate(make_ca(tmp_path / "ca").open(), ["enrol.example", "10.0.0.1"], NOW)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each.value) for each in names] == ["enrol.example", "10.0.0.1"]
    assert CMC_RA in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert certificate.not_valid_after_utc == NOW + LIFE


def test_certificate_is_made_anew_in_the_middle_of_its_life(tmp_path: Path) -> None:
    moment = [NOW]
    ca = make_ca(tmp_path / "ca")
    authority = ca.open()
    tls = ServerTls(lambda: authority, ca.anchors, ["x.example"], lambda: moment[0])
    first = tls.context()
    assert tls.context() is first
    _key, certificate = tls.credential()
    moment[0] = NOW + LIFE / 2 - timedelta(seconds=1)
    assert tls.context() is first
    moment[0] = NOW + LIFE / 2
    assert tls.context() is not first
    assert tls.credential()[1].serial_number != certificate.serial_number


def test_certificate_is_made_anew_by_the_next_issuing_ca_and_stays_if_that_one_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = make_ca(tmp_path / "ca")
    found = [ca.open()]

    def authority() -> Authority:
        if not found:
            raise CaError("the token is away")
        return found[0]

    tls = ServerTls(authority, ca.anchors, ["x.example"], lambda: NOW)
    first = tls.context()
    found[0] = ca.roll_over(ca.open_root(PASSPHRASE), NOW).open()
    second = tls.context()
    assert second is not first
    assert tls.credential()[1].issuer == found[0].certificate.subject
    found.clear()
    assert tls.context() is second
    assert "the token is away" in caplog.text
