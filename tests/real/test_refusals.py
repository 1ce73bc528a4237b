"""Who is kept out, in TLS and after it: each with what the peer sees and the reason in the audit log."""

import re
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.real.clients import Dcmjs, Dcmtk, Outcome, Pynetdicom, Route
from tests.real.gateway import probe_tls
from tests.real.hospital import Hospital, credentials_of, hospital
from tests.real.pki import Authority, Credentials, anonymous_context
from tests.real.processes import LOOPBACK, run
from tests.real.recording_archive import STUDY_FIND, VERIFICATION
from tests.real.samples import sample
from tests.real.servers import DCMTK, need

REJECTED_CALLING = "rejected 1/1/3"
REJECTED_CALLED = "rejected 1/1/7"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with hospital(tmp_path_factory.mktemp("refusals")) as running:
        yield running


@pytest.fixture(scope="module")
def scanner(here: Hospital) -> Route:
    return here.device("scanner", "SCANNER", "SCANNER2")


def _anonymous(route: Route) -> ssl.SSLContext:
    return anonymous_context(credentials_of(route).authority)


def _foreign(route: Route, authority: Authority, name: str) -> Credentials:
    """Return a certificate of another authority, with the gateway's own as the one to trust."""
    return replace(authority.issue(name), authority=credentials_of(route).authority)


def test_device_passes_under_each_of_its_titles(scanner: Route) -> None:
    assert Pynetdicom().echo(scanner).succeeded
    assert Pynetdicom().echo(replace(scanner, calling_ae_title="SCANNER2")).succeeded
    assert Dcmtk().echo(scanner).succeeded


def test_plaintext_is_refused(here: Hospital, scanner: Route) -> None:
    outcome = Pynetdicom().echo(replace(scanner, credentials=None))
    assert not outcome.succeeded
    assert "not-tls" in here.gateway.reasons()


def test_no_certificate_is_refused(here: Hospital, scanner: Route) -> None:
    association = Pynetdicom().associate(
        scanner, Pynetdicom().contexts(VERIFICATION), tls_args=(_anonymous(scanner), "localhost")
    )
    assert not association.is_established
    assert "no-certificate" in here.gateway.reasons()


def test_echoscu_without_a_certificate_is_refused(scanner: Route) -> None:
    tool = need(DCMTK / "echoscu", "dcmtk")
    titles = ["-aet", "SCANNER", "-aec", scanner.called_ae_title]
    trust: list[str | Path] = ["+tla", "+cf", credentials_of(scanner).authority]
    assert run([tool, *trust, *titles, LOOPBACK, str(scanner.port)]).returncode != 0


def test_foreign_certificate_is_refused(here: Hospital, scanner: Route, authority: Authority) -> None:
    stranger = replace(scanner, credentials=_foreign(scanner, authority, "foreign-1"))
    assert not Pynetdicom().echo(stranger).succeeded
    assert not Dcmtk().echo(stranger).succeeded
    assert not Dcmjs().echo(stranger).succeeded
    assert {"certificate-unknown", "tls-failed"} & here.gateway.reasons()


def test_title_of_another_device_is_rejected_with_the_standard_code(here: Hospital, scanner: Route) -> None:
    here.device("other", "OTHER")
    outcome = Pynetdicom().echo(replace(scanner, calling_ae_title="OTHER"))
    assert outcome == Outcome(succeeded=False, statuses=(REJECTED_CALLING,))
    assert "calling-ae-title-not-bound" in here.gateway.reasons()


def test_unknown_called_title_is_rejected_with_the_standard_code(here: Hospital, scanner: Route) -> None:
    outcome = Pynetdicom().echo(replace(scanner, called_ae_title="NOWHERE"))
    assert outcome == Outcome(succeeded=False, statuses=(REJECTED_CALLED,))
    assert "called-ae-title-unknown" in here.gateway.reasons()


def test_device_in_another_network_is_refused(here: Hospital) -> None:
    """The registry says 192.0.2.0/24; it calls from loopback."""
    elsewhere = here.device("elsewhere", "ELSEWHERE", network="192.0.2.0/24")
    assert not Pynetdicom().echo(elsewhere).succeeded
    assert "network-not-allowed" in here.gateway.reasons()


def test_old_tls_is_refused(scanner: Route) -> None:
    """SECLEVEL=0, or the client's own OpenSSL would refuse before the gateway could."""
    files = credentials_of(scanner)
    material = ["-cert", str(files.certificate), "-key", str(files.key), "-CAfile", str(files.authority)]
    for version in ("-tls1", "-tls1_1"):
        done = probe_tls(scanner.port, [version, "-cipher", "ALL:@SECLEVEL=0", *material])
        assert "Cipher is (NONE)" in done.stdout, done.stdout
        # The gateway's own alert, so it is not this client that has refused.
        assert "alert protocol version" in done.stdout, done.stdout
    for version in ("-tls1_2", "-tls1_3"):
        done = probe_tls(scanner.port, [version, *material])
        assert "Verify return code: 0 (ok)" in done.stdout, done.stdout


@pytest.mark.parametrize(
    ("suite", "signature"),
    [
        ("ECDHE-RSA-AES256-GCM-SHA384", "RSA"),
        ("ECDHE-RSA-AES128-GCM-SHA256", "RSA"),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDSA"),
        ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDSA"),
    ],
)
def test_both_certificates_serve_tls_1_2_side_by_side(scanner: Route, suite: str, signature: str) -> None:
    files = credentials_of(scanner)
    material = ["-cert", str(files.certificate), "-key", str(files.key), "-CAfile", str(files.authority)]
    done = probe_tls(scanner.port, ["-tls1_2", "-cipher", suite, *material])
    assert f"Cipher is {suite}" in done.stdout, done.stdout
    assert re.search(rf"Peer signature type: {signature}", done.stdout), done.stdout
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout


@pytest.mark.parametrize("suite", ["AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384", "DHE-RSA-AES256-GCM-SHA384", "NULL"])
def test_suites_against_bcp_195_are_refused(scanner: Route, suite: str) -> None:
    """RFC 9325 §4.1-2: no static RSA, no CBC, no finite-field DHE, nothing without encryption."""
    files = credentials_of(scanner)
    material = ["-cert", str(files.certificate), "-key", str(files.key), "-CAfile", str(files.authority)]
    done = probe_tls(scanner.port, ["-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0", *material])
    assert "Cipher is (NONE)" in done.stdout, done.stdout
    assert "alert handshake failure" in done.stdout, done.stdout


@pytest.mark.parametrize("profile", ["+pz", "+px", "+py"])
@pytest.mark.parametrize("key", ["ecdsa", "rsa"])
def test_dcmtk_profiles_with_both_kinds_of_keys(here: Hospital, profile: str, key: str) -> None:
    """+pz is TLS 1.2 only, and DCMTK 3.6.7 then needs the gateway's RSA certificate; +px and +py are TLS 1.3."""
    title = f"{profile[1:]}{key}".upper()
    route = here.device(title.lower(), title, key=key)
    stack = Dcmtk(profile)
    assert stack.echo(route).succeeded
    assert stack.store(route, [sample("CT_small.dcm")]).succeeded


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_python_with_each_tls_version(scanner: Route, version: ssl.TLSVersion) -> None:
    context = credentials_of(scanner).client_context(minimum=version, maximum=version)
    association = Pynetdicom().associate(scanner, Pynetdicom().contexts(VERIFICATION), tls_args=(context, "localhost"))
    assert association.is_established
    association.release()


def test_operation_outside_the_role_is_refused(here: Hospital) -> None:
    """A scanner has no business with the study index: it proposes nothing else, so it is told at once."""
    scanner = here.device("modality", "MODALITY", role="modality")
    outcome = Pynetdicom().find(scanner, {"QueryRetrieveLevel": "STUDY", "PatientID": "1CT1"})
    assert not outcome.succeeded
    assert outcome.statuses[0].startswith("rejected")
    assert "no-permitted-context" in here.gateway.reasons()


def test_context_outside_the_role_is_refused_and_the_rest_goes_on(here: Hospital) -> None:
    scanner = here.device("modality2", "MODALITY2", role="modality")
    client = Pynetdicom()
    association = client.associate(scanner, client.contexts(VERIFICATION, STUDY_FIND))
    assert association.is_established
    assert [context.abstract_syntax for context in association.accepted_contexts] == [VERIFICATION]
    # PS3.8 §9.3.3.2: 1 is user rejection.
    assert [context.result for context in association.rejected_contexts] == [1]
    association.release()
    requested = here.archive.associations.requested
    assert requested[-1] == ("MODALITY2", "ARCHIVE")


def test_user_identity_without_a_verifier_is_rejected(here: Hospital, scanner: Route) -> None:
    """Nobody is let in by a name and a passcode that nobody checks."""
    tool = need(DCMTK / "storescu", "dcmtk")
    secure = credentials_of(scanner).dcmtk()
    titles = ["-aet", "SCANNER", "-aec", scanner.called_ae_title]
    image = sample("CT_small.dcm").path
    done = run([tool, *secure, "-usr", "doctor", "-pwd", "secret", *titles, LOOPBACK, str(scanner.port), image])
    assert done.returncode != 0
    assert "user-identity-not-configured" in here.gateway.reasons()
    assert "secret" not in here.gateway.log()
