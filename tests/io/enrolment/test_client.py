"""The device's side of EST: what is sent to whom, and what it says when something is wrong."""

import base64
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from dicomward.enrolment.code import make_code, parse_code
from dicomward.enrolment.est import encode_certificates
from dicomward.io.ca.local import KeyKind, LocalCa, load_certificates
from dicomward.io.ca.sign import Authority, der_of, make_root
from dicomward.io.enrolment.client import (
    ClientError,
    EstClient,
    LostAnswerError,
    RefusedByServerError,
    host_and_port,
    make_request,
)
from dicomward.io.enrolment.enrolled import make_key
from dicomward.io.enrolment.tls import ServerTls
from dicomward.io.tls import CertificateFiles
from tests.directory_helpers import now
from tests.io.enrolment_place import Place, enrolment_place, new_key, own_file

SECONDS = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("client") / "gateway") as made:
        yield made


def root_of(place: Place) -> bytes:
    return der_of(load_certificates(place.root)[0])


def test_enrols_tells_and_renews(place: Place, tmp_path: Path) -> None:
    handed = place.invite("ct1")
    client = EstClient.pinned(place.url.removeprefix("https://"), handed.code.pins)
    key = new_key()
    certificate = client.enrol("", handed.code, make_request(key, "ct1"))
    assert client.enrol("", handed.code, make_request(key, "ct1"), is_repeated=True) == certificate
    assert len(client.ca_certificates()) == 3
    own = own_file(tmp_path / "own.pem", certificate, key)
    known = EstClient(place.url, load_certificates(place.root), CertificateFiles(own, own))
    assert b'"device": "ct1"' in known.device()
    following = new_key()
    renewed = known.renew(make_request(following, "ct1"))
    assert renewed.public_key() == following.public_key()


def test_refusals_have_a_status_and_what_to_do(place: Place) -> None:
    code = parse_code(place.invite("ct2").code.text)
    other = make_code(bytes(16), root_of(place))
    client = EstClient.pinned(place.url, code.pins)
    with pytest.raises(RefusedByServerError, match="ask for a new one") as caught:
        client.enrol("ct2", other, make_request(new_key(), ""))
    assert (caught.value.status, caught.value.retry_seconds) == (401, None)
    with pytest.raises(RefusedByServerError) as caught:
        client.ask(make_request(new_key(), ""))
    assert caught.value.status == 401


def test_another_ca_is_not_spoken_to(place: Place) -> None:
    with pytest.raises(ClientError, match="does not have the CA that the code pins"):
        EstClient.pinned(place.url, make_code(bytes(16), b"another root").pins)
    stranger = LocalCa.make("Other", now()).certificate
    with pytest.raises(ClientError, match=r"has not proved.*is somebody in between"):
        EstClient(place.url, [stranger]).ca_certificates()


def test_name_that_the_certificate_does_not_have(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    port = place.server.http.port
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda _address, *rest: connect(("127.0.0.1", port), *rest))
    client = EstClient(f"https://enrol.invalid:{port}", load_certificates(place.root))
    with pytest.raises(ClientError, match=r"Hostname mismatch.*must be one of `enrolment.names`"):
        client.ca_certificates()


@contextmanager
def serving(context: ssl.SSLContext | None, answer: bytes) -> Iterator[str]:
    """Answer each connection with these bytes; without a context in plaintext. Yields the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            connection.settimeout(SECONDS)
            try:
                with connection, context.wrap_socket(connection, server_side=True) if context else connection as found:
                    found.recv(4096)
                    found.sendall(answer)
            except OSError:
                pass  # the client hears of it

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(SECONDS)


@pytest.fixture
def own_ca() -> Authority:
    key = make_key("ecdsa")
    return Authority(make_root("Test", key, now(), days=1), key)


def tls_of(ca: Authority, days: int = 0) -> ssl.SSLContext:
    return ServerTls(
        lambda: ca, lambda: [ca.certificate], ["127.0.0.1"], lambda: now() + timedelta(days=days)
    ).context()


def http(status: str, body: bytes = b"", *fields: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""])
    return head.encode() + body


def test_clock_that_is_wrong_is_told() -> None:
    key = make_key("ecdsa")
    ca = Authority(make_root("Test", key, now() - timedelta(days=30), days=90), key)
    for days, why in ((20, "not yet valid"), (-20, "expired")):
        with serving(tls_of(ca, days), b"") as url, pytest.raises(ClientError, match=rf"{why}.*if not, set it"):
            EstClient(url, [ca.certificate]).ca_certificates()


def test_something_else_that_listens_is_told(own_ca: Authority) -> None:
    with serving(None, b"HTTP/1.1 200 OK\r\n\r\n") as url, pytest.raises(ClientError, match="Something else listens"):
        EstClient(url, [own_ca.certificate]).ca_certificates()
    context = tls_of(own_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    # The alert that says so may be overtaken by the end of the connection.
    why = "wants a certificate first, as the gateway|may name another port, as the gateway's"
    with serving(context, b"") as url, pytest.raises(ClientError, match=why):
        EstClient.pinned(url, make_code(bytes(16), b"root").pins)


def test_answers_that_make_no_sense(own_ca: Authority) -> None:
    context, anchors = tls_of(own_ca), [own_ca.certificate]
    for answer, kind, why in (
        (b"", LostAnswerError, "gave no answer"),
        (http("200 OK", b"garbage!"), ClientError, "can't be read"),
        (http("202 Accepted", b"wait", "Retry-After: 7"), RefusedByServerError, "wait"),
    ):
        with serving(context, answer) as url, pytest.raises(kind, match=why) as caught:
            EstClient(url, anchors).ask(b"request")
        if isinstance(caught.value, RefusedByServerError):
            assert caught.value.retry_seconds == 7
    with (
        serving(context, http("404 Not Found")) as url,
        pytest.raises(ClientError, match="is this the enrolment server"),
    ):
        EstClient.pinned(url, make_code(bytes(16), b"root").pins)


def test_server_without_the_role_is_not_believed(tmp_path: Path) -> None:
    local = LocalCa.make("Local", now())
    issued = local.issue_gateway(KeyKind.ECDSA, ["127.0.0.1"], now())
    (tmp_path / "pair.pem").write_bytes(issued.key_pem + issued.certificate_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    body = encode_certificates([local.certificate.public_bytes(serialization.Encoding.DER)])
    with (
        serving(context, http("200 OK", body)) as url,
        pytest.raises(ClientError, match="not one of an enrolment server"),
    ):
        EstClient(url, [local.certificate]).ca_certificates()
    assert base64.b64decode(body)


def test_files_that_can_not_be_used(tmp_path: Path, place: Place) -> None:
    (tmp_path / "bad").write_text("bad")
    with pytest.raises(ClientError, match="can't be used"):
        EstClient(place.url, load_certificates(place.root), CertificateFiles(tmp_path / "bad", tmp_path / "bad"))


def test_urls() -> None:
    assert host_and_port("enrol.example:8443") == ("enrol.example", 8443)
    assert host_and_port("https://[::1]") == ("::1", 443)
    for url, why in (("http://x", "never sent in plaintext"), ("https://x:y", "is no URL"), ("https://", "no https")):
        with pytest.raises(ClientError, match=why):
            host_and_port(url)
    unknown = EstClient("https://nowhere.invalid:1", [LocalCa.make("x", now()).certificate])
    with pytest.raises(ClientError, match=r"the name nowhere\.invalid is not known here"):
        unknown.ca_certificates()
