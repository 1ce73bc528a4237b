"""`dicomward renew-gateway`."""

from cryptography import x509

from dicomward.io.ca.local import load_certificates
from dicomward.settings import Settings
from tests.cli.conftest import Run


def test_certificates_are_renewed_and_the_operator_is_told_to_reload(run: Run, settings: Settings) -> None:
    pair = settings.tls.certificates[0]
    before = load_certificates(pair.certificate)[0]
    done = run("renew-gateway", "--days", "90", "--host", "dicom.example")
    assert done.code == 0
    assert f"{pair.certificate} is valid until" in done.out
    assert "for localhost, 127.0.0.1, ::1, dicom.example" in done.out
    assert done.err == "dicomward: a running gateway takes them with: dicomward reload\n"
    after = load_certificates(pair.certificate)[0]
    assert after.serial_number != before.serial_number
    assert run("check-config").code == 0


def test_json_names_each_certificate(run: Run, settings: Settings) -> None:
    done = run("renew-gateway", "--json")
    assert [entry["certificate"] for entry in done.json] == [
        str(pair.certificate) for pair in settings.tls.certificates
    ]
    assert done.json[0]["hosts"] == ["localhost", "127.0.0.1", "::1"]
    certificate = load_certificates(settings.tls.certificates[0].certificate)[0]
    assert done.json[0]["not_after"] == certificate.not_valid_after_utc.isoformat()
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_authority_that_is_elsewhere_is_refused(run: Run, settings: Settings) -> None:
    (settings.directory / "ca" / "ca.key.pem").unlink()
    done = run("renew-gateway")
    assert done.code == 1
    assert "ca.key.pem can't be read" in done.err


def test_impossible_life_is_refused(run: Run, settings: Settings) -> None:
    done = run("renew-gateway", "--days", "0")
    assert done.code == 2
    assert "--days 0: a life of so many days is not possible; choose 1 to 3650" in done.err
