"""Real clients against the enrolment server: strongSwan's pki, curl with openssl, our own with a gateway."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.io.enrolment_place import Place, enrolment_place
from tests.real.gateway import COMMAND, dicomward
from tests.real.hospital import Hospital, hospital
from tests.real.processes import LOOPBACK, Child, free_port
from tests.real.servers import need

PKI = Path("/usr/bin/pki")
CURL = Path("/usr/bin/curl")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("real") / "gateway") as made:
        yield made


def command(*arguments: object, data: bytes | None = None) -> bytes:
    done = subprocess.run([str(each) for each in arguments], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def subject(pem: bytes) -> str:
    return command("openssl", "x509", "-noout", "-subject", data=pem).decode().strip()


@pytest.mark.parametrize(("kind", "size"), [("ecdsa", "256"), ("rsa", "2048")])
def test_strongswan_enrols_and_renews(place: Place, tmp_path: Path, kind: str, size: str) -> None:
    need(PKI, "strongswan-pki")
    name = f"sw-{kind}"
    handed = place.invite(name)
    cas = ["--cacert", place.root, "--cacert", place.settings.enrolment.ca / "issuing-1.cert.pem"]
    command(
        PKI, "--estca", "--url", place.url, "--cacert", place.root, "--caout", tmp_path / "ca.pem", "--outform", "pem"
    )
    assert len(list(tmp_path.glob("ca*.pem"))) >= 2
    old: list[object] = []
    for step in ("first", "second"):
        key, request, certificate = (tmp_path / f"{step}.{each}" for each in ("key", "csr", "pem"))
        key.write_bytes(command(PKI, "--gen", "--type", kind, "--size", size, "--outform", "pem"))
        made = command(PKI, "--req", "--in", key, "--type", kind, "--dn", f"CN={name}", "--outform", "pem")
        request.write_bytes(made)
        who = old or ["--userpass", f"{name}:{handed.code.text}"]
        got = command(PKI, "--est", "--url", place.url, "--in", request, *cas, *who, "--outform", "pem")
        certificate.write_bytes(got)
        assert subject(got) == f"subject=CN = {name}"
        old = ["--cert", certificate, "--key", key]


def test_curl_and_openssl_enrol_and_renew(place: Place, tmp_path: Path) -> None:
    need(CURL, "curl")
    handed = place.invite("curl-1")
    base = f"{place.url}/.well-known/est"
    curl = [CURL, "-sS", "--fail-with-body", "--cacert", place.root]
    anchors = base64.b64decode(command(*curl, f"{base}/cacerts"))
    printed = command("openssl", "pkcs7", "-inform", "DER", "-print_certs", data=anchors)
    assert b"Test root CA" in printed
    who: list[object] = ["-u", f"curl-1:{handed.code.text}"]
    for step, operation in (("first", "simpleenroll"), ("second", "simplereenroll")):
        key, request = tmp_path / f"{step}.key", tmp_path / f"{step}.csr"
        options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=curl-1"]
        command("openssl", "req", *options, "-keyout", key, "-outform", "DER", "-out", request)
        # base64 with line breaks, as `openssl base64` writes it.
        body = command("openssl", "base64", "-in", request)
        sent = [*curl, *who, "-H", "Content-Type: application/pkcs10", "--data-binary", "@-", f"{base}/{operation}"]
        der = base64.b64decode(command(*sent, data=body))
        pem = command("openssl", "pkcs7", "-inform", "DER", "-print_certs", data=der)
        assert subject(pem) == "subject=CN = curl-1"
        (tmp_path / f"{step}.pem").write_bytes(pem)
        who = ["--cert", tmp_path / f"{step}.pem", "--key", key]


def test_curl_uploads_a_request_and_gets_the_chain(place: Place, tmp_path: Path) -> None:
    need(CURL, "curl")
    handed = place.invite("curl-2")
    request = tmp_path / "csr.pem"
    command(
        "openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/", "-keyout", tmp_path / "key", "-out", request
    )
    form = ["--data-urlencode", "name=curl-2", "--data-urlencode", f"code={handed.code.text}"]
    pem = command(
        CURL, "-sS", "--cacert", place.root, *form, "--data-urlencode", f"request@{request}", f"{place.url}/upload"
    )
    assert pem.count(b"BEGIN CERTIFICATE") == 2


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    with hospital(tmp_path_factory.mktemp("enrolment")) as running:
        yield running


def test_from_the_invitation_to_a_green_echo_in_one_command_at_the_device(here: Hospital, tmp_path: Path) -> None:
    passphrase, port = tmp_path / "passphrase", free_port()
    passphrase.write_text("correct horse battery staple\n")
    here.gateway.must("ca", "init", "--passphrase-file", passphrase)
    here.gateway.must("reload")
    configuration = here.gateway.configuration
    where = f'listen = "{LOOPBACK}:{port}"\ngateway = "{LOOPBACK}:{here.gateway.port}"'
    text = configuration.read_text()
    configuration.write_text(text.replace('listen = "127.0.0.1:8443"', where, 1))
    serve: list[str | Path] = [*COMMAND, "enrolment", "serve", "--config", configuration]
    server = Child("enrolment", serve, tmp_path / "server.log")
    try:
        server.wait_until_listening(port)
        invitation = json.loads(
            here.gateway.must(
                "device", "invite", "CT-ROOM-3", "--aet", "CT3", "--role", "modality", "--expires", "2h", "--json"
            )
        )
        done = dicomward(
            "enroll", "--server", invitation["server"], "--code", invitation["code"], "--out", tmp_path / "ct"
        )
        assert done.returncode == 0, done.stderr
        assert "Success" in done.stdout
    finally:
        server.stop()
