"""`dicomward echo`."""

import ssl
from pathlib import Path

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateRj, AAssociateRq
from dicomward.io.tls import CertificateFiles, server_context
from dicomward.settings import Settings
from tests.cli.conftest import Run
from tests.io.test_echo import accept, answer, playing
from tests.io.world import Credentials, Peer, issue, raw_archive
from tests.relay.wire import RELEASE_RP


@pytest.fixture
def scanner(settings: Settings) -> Credentials:
    return issue(settings, "ct1")


def server(settings: Settings) -> ssl.SSLContext:
    pairs = [CertificateFiles(pair.certificate, pair.key) for pair in settings.tls.certificates]
    return server_context(pairs, settings.tls.client_ca, ssl.TLSVersion.TLSv1_2)


def tls_options(scanner: Credentials) -> list[object]:
    return ["--ca", scanner.authority, "--cert", scanner.files.certificate, "--key", scanner.files.key]


def test_success_over_tls_is_told_with_protocol_and_time(run: Run, settings: Settings, scanner: Credentials) -> None:
    with raw_archive(context=server(settings)) as archive:
        where = (archive.endpoint.host, archive.endpoint.port)
        done = run("echo", *where, "-aet", "CT1", "-aec", "PACS", *tls_options(scanner))
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("C-ECHO CT1 -> PACS: status 0000H, ")
        assert done.out.endswith(" ms, TLSv1.3 TLS_AES_256_GCM_SHA384\n")
        told = run("echo", *where, *tls_options(scanner), "--json").json
    assert (told["ok"], told["status"], told["tls"]) == (True, "0000", "TLSv1.3 TLS_AES_256_GCM_SHA384")
    assert isinstance(told["milliseconds"], int)


def test_settings_of_a_gateway_say_whom_to_trust(run: Run, settings: Settings, scanner: Credentials) -> None:
    with raw_archive(context=server(settings)) as archive:
        where = (archive.endpoint.host, archive.endpoint.port)
        own = ["--cert", scanner.files.certificate, "--key", scanner.files.key]
        assert run("echo", *where, *own, "--config", settings.path).code == 0
        assert run("echo", *where, *own, "--config", settings.directory / "nothing.toml").code == 2


def test_success_over_plaintext_is_told_as_plaintext(run: Run) -> None:
    with raw_archive() as archive:
        done = run("echo", archive.endpoint.host, archive.endpoint.port, "--plain")
    assert done.code == 0
    assert done.out.startswith("C-ECHO DICOMWARD -> ANY-SCP: status 0000H, ")
    assert done.out.endswith(" ms, plaintext\n")


def test_peer_sees_the_titles_that_were_typed(run: Run) -> None:
    seen: list[AAssociateRq] = []

    def script(peer: Peer) -> None:
        seen.append(accept(peer))
        answer(peer)
        peer.next()
        peer.send(RELEASE_RP)

    with raw_archive(serves=False) as archive, playing(archive, script):
        run("echo", archive.endpoint.host, archive.endpoint.port, "--plain", "-aet", "CT 1", "-aec", "PACS2")
    assert (seen[0].calling_ae_title, seen[0].called_ae_title) == ("CT 1", "PACS2")


def test_status_that_is_no_success_is_exit_code_1(run: Run) -> None:
    def script(peer: Peer) -> None:
        accept(peer)
        answer(peer, status=0x0122)
        peer.next()
        peer.send(RELEASE_RP)

    with raw_archive(serves=False) as archive, playing(archive, script):
        done = run("echo", archive.endpoint.host, archive.endpoint.port, "--plain", "--json")
    assert done.code == 1
    assert (done.json["ok"], done.json["status"], done.json["tls"]) == (False, "0122", "")


@pytest.mark.parametrize("json", [False, True])
def test_failure_is_exit_code_1_with_its_reason_on_stderr(run: Run, json: bool) -> None:
    def script(peer: Peer) -> None:
        peer.next()

    with raw_archive(serves=False) as archive, playing(archive, script):
        done = run("echo", archive.endpoint.host, archive.endpoint.port, "--plain", *(["--json"] if json else []))
    error = "the peer closed the connection without an answer; its log says why"
    assert done.code == 1
    assert done.err == f"dicomward: {error}\n"
    if json:
        assert done.json == {"ok": False, "error": error}
    else:
        assert done.out == ""


def test_silent_peer_fails_after_the_time_that_was_given(run: Run) -> None:
    with raw_archive(serves=False) as archive:
        done = run("echo", archive.endpoint.host, archive.endpoint.port, "--plain", "-to", "0.05")
    assert done.code == 1
    assert "within 0.05 s" in done.err


@pytest.mark.parametrize("accepts", [False, True])
def test_each_step_has_a_time_of_its_own(run: Run, accepts: bool) -> None:
    def script(peer: Peer) -> None:
        if accepts:
            accept(peer)
        while not peer.is_gone():
            pass

    waits = ("-td", "0.06") if accepts else ("-ta", "0.06")
    with raw_archive(serves=False) as archive, playing(archive, script):
        done = run("echo", archive.endpoint.host, archive.endpoint.port, "--plain", "-to", "30", *waits)
    assert done.code == 1
    assert "within 0.06 s" in done.err


@pytest.mark.parametrize("option", ["-v", "--verbose", "-d", "--debug"])
def test_each_step_is_told_on_stderr_where_it_is_wanted(
    run: Run, settings: Settings, scanner: Credentials, option: str
) -> None:
    with raw_archive(context=server(settings)) as archive:
        where = (archive.endpoint.host, archive.endpoint.port)
        done = run("echo", option, *where, "-aet", "CT1", "-aec", "PACS", *tls_options(scanner))
    steps = done.err.splitlines()
    assert done.code == 0
    assert done.out.startswith("C-ECHO CT1 -> PACS: status 0000H, ")
    assert steps[0] == f"dicomward: connected to {archive.endpoint.host}:{archive.endpoint.port}"
    assert steps[1] == "dicomward: TLS: TLSv1.3 TLS_AES_256_GCM_SHA384"
    assert steps[2] == "dicomward: requesting an association: CT1 calls PACS"
    assert steps[3].startswith("dicomward: association accepted, by ")
    assert steps[4:] == ["dicomward: C-ECHO answered with status 0000H", "dicomward: association released"]


def test_quiet_success_says_nothing_and_a_failure_does(run: Run) -> None:
    def script(peer: Peer) -> None:
        accept(peer)
        answer(peer, status=0x0122)
        peer.next()
        peer.send(RELEASE_RP)

    with raw_archive() as archive:
        good = run("echo", "-q", archive.endpoint.host, archive.endpoint.port, "--plain")
    assert (good.code, good.out, good.err) == (0, "", "")
    with raw_archive(serves=False) as archive, playing(archive, script):
        bad = run("echo", "--quiet", archive.endpoint.host, archive.endpoint.port, "--plain")
    assert bad.code == 1
    assert "status 0122H" in bad.out


def test_host_that_the_certificate_does_not_name_fails_unless_it_is_not_compared(
    run: Run, settings: Settings, scanner: Credentials
) -> None:
    with raw_archive(context=server(settings), host="127.0.0.2") as archive:
        where = (archive.endpoint.host, archive.endpoint.port)
        refused = run("echo", *where, *tls_options(scanner))
        assert run("echo", *where, *tls_options(scanner), "--no-host-check").code == 0
    assert refused.code == 1
    assert "certificate is not valid for '127.0.0.2'" in refused.err


def test_title_that_is_no_ae_title_is_a_usage_error(run: Run) -> None:
    done = run("echo", "127.0.0.1", "104", "--plain", "-aet", "SEVENTEEN LETTERS")
    assert done.code == 2
    assert done.err.startswith("dicomward: ")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "--ca FILE is missing"),
        (["--plain", "--cert", "x.pem"], "--cert and --key belong together"),
        (["--plain", "--key", "x.pem"], "--cert and --key belong together"),
        (["--ca", "nothing.pem"], "the CA nothing.pem can't be read"),
    ],
)
def test_options_that_do_not_fit_are_a_usage_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("echo", "127.0.0.1", "104", *options)
    assert done.code == 2
    assert problem in done.err


@pytest.mark.parametrize("port", ["0", "65536", "-1", "dicom", "1.5", ""])
def test_port_that_is_none_is_a_usage_error(run: Run, port: str) -> None:
    done = run("echo", "--plain", "--", "127.0.0.1", port)
    assert done.code == 2
    assert f"'{port}' is no port; write a number from 1 to 65535" in done.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "3601", "soon"])
def test_time_that_nobody_can_wait_is_a_usage_error(run: Run, seconds: str) -> None:
    done = run("echo", "127.0.0.1", "104", "--plain", f"--timeout={seconds}")
    assert done.code == 2
    assert f"'{seconds}' is no time to wait; write seconds, up to 3600" in done.err


def test_rejection_is_explained(run: Run) -> None:
    def script(peer: Peer) -> None:
        peer.next()
        peer.send(encode_pdu(AAssociateRj(result=1, source=1, reason=3)))

    with raw_archive(serves=False) as archive, playing(archive, script):
        done = run("echo", archive.endpoint.host, archive.endpoint.port, "--plain")
    assert done.code == 1
    assert "not bound to this certificate" in done.err
