"""What is seen of a port: DICOM, HTTP, both inside TLS, nothing; and what is sent to it, which is no more than said."""

import errno
import socket
import ssl

import pytest

from dicomward.assess.isolation import Observation, Seen
from dicomward.io.protection.isolation import WEB_ROOTS, NotResolvedError, addresses_of, is_own_address, look_at
from dicomward.io.tls import CertificateFiles, server_context
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory
from tests.io.listening import ABORT, ACCEPT, REJECT, dicom, listening, web


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return copy_directory(tmp_path_factory.mktemp("isolation") / "gateway")


def server(settings: Settings, *, wants_certificate: bool) -> ssl.SSLContext:
    pair = settings.tls.certificates[0]
    if wants_certificate:
        return server_context(
            [CertificateFiles(pair.certificate, pair.key)], settings.tls.client_ca, ssl.TLSVersion.TLSv1_2
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def look(port: int, *, source: str = "", timeout: float = 5.0) -> Observation:
    (seen,) = look_at(["127.0.0.1"], [port], called_ae_title="PACS", source=source, timeout=timeout)
    return seen


@pytest.mark.parametrize(("pdu", "seen"), [(ACCEPT, Seen.ACCEPTED), (REJECT, Seen.REJECTED), (ABORT, Seen.ABORTED)])
def test_dicom_is_seen_by_its_first_answer_and_an_association_is_released(pdu: bytes, seen: Seen) -> None:
    with listening(dicom(pdu)) as peer:
        observation = look(peer.port)
    assert (observation.seen, observation.is_tls) == (seen, False)
    assert peer.heard[0][0] == 1
    assert b"PACS" in peer.heard[0]
    assert b"DW-ISOLATION" in peer.heard[0]
    assert [each[0] for each in peer.heard[1:]] == ([5] if seen is Seen.ACCEPTED else [])


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "302 Found", "400 Bad Request"])
def test_web_is_seen_by_any_status_of_its_roots_and_no_redirect_is_followed(status: str) -> None:
    with listening(web(status)) as peer:
        observation = look(peer.port)
    assert observation.seen is Seen.HTTP
    assert observation.detail == ", ".join(f"{root} {status[:3]}" for root in WEB_ROOTS)
    requests = [each for each in peer.heard if each.startswith(b"GET ")]
    assert [each.split()[1].decode() for each in requests] == list(WEB_ROOTS)
    assert len(peer.heard) == 1 + len(WEB_ROOTS)


def test_web_server_that_answers_bad_request_to_dicom_is_a_web_server() -> None:
    with listening(lambda _data: b"HTTP/1.1 400 Bad Request\r\n\r\n") as peer:
        assert look(peer.port).seen is Seen.HTTP


def test_tls_that_wants_a_certificate_is_told_from_tls_that_takes_anybody(settings: Settings) -> None:
    with listening(dicom(ACCEPT), server(settings, wants_certificate=True)) as peer:
        assert look(peer.port).seen is Seen.CERTIFICATE_WANTED
    with listening(dicom(ACCEPT), server(settings, wants_certificate=False)) as peer:
        observation = look(peer.port)
        assert (observation.seen, observation.is_tls) == (Seen.ACCEPTED, True)
    with listening(web("403 Forbidden"), server(settings, wants_certificate=False)) as peer:
        observation = look(peer.port)
        assert (observation.seen, observation.is_tls) == (Seen.HTTP, True)
    with listening(lambda _data: b"220 hello\r\n", server(settings, wants_certificate=False)) as peer:
        observation = look(peer.port)
        assert (observation.seen, observation.is_tls) == (Seen.OPEN, True)


def test_port_that_says_something_else_or_nothing_is_open() -> None:
    with listening(lambda _data: b"220 hello\r\n") as peer:
        assert look(peer.port).seen is Seen.OPEN
    with listening(lambda _data: b"") as peer:
        assert look(peer.port).seen is Seen.OPEN
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert look(silent.getsockname()[1], timeout=0.1).seen is Seen.OPEN


def test_port_that_resets_tls_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def resets(*_arguments: object, **_options: object) -> ssl.SSLSocket:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", resets)
    with listening(lambda _data: b"") as peer:
        observation = look(peer.port)
    assert (observation.seen, observation.detail) == (Seen.OPEN, "Connection reset by peer")


def test_closed_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    assert look(port).seen is Seen.REFUSED


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (TimeoutError(), Seen.SILENT),
        (OSError(errno.EHOSTUNREACH, "No route to host"), Seen.UNREACHABLE),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), Seen.NOT_TRIED),
    ],
)
def test_what_the_network_says_is_told_apart(error: OSError, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_arguments: object) -> socket.socket:
        raise error

    monkeypatch.setattr(socket, "create_connection", fails)
    assert look(104, source="127.0.0.2").seen is seen


def test_it_calls_from_the_address_that_was_named() -> None:
    with listening(dicom(REJECT)) as peer:
        look(peer.port, source="127.0.0.2")
    assert peer.sources == ["127.0.0.2"]


def test_every_port_of_every_address_is_looked_at() -> None:
    seen = look_at(["127.0.0.1", "127.0.0.2"], [1, 2], called_ae_title="PACS", source="", timeout=5)
    assert [(each.address, each.port) for each in seen] == [
        ("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.2", 1), ("127.0.0.2", 2),
    ]  # fmt: skip


def test_ipv6_is_named_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(web("200 OK")) as peer:
        real = socket.create_connection
        monkeypatch.setattr(
            socket, "create_connection", lambda _address, timeout, source: real(("127.0.0.1", peer.port), timeout)
        )
        (seen,) = look_at(["::1"], [peer.port], called_ae_title="PACS", source="", timeout=5)
    assert seen.seen is Seen.HTTP
    assert f"Host: [::1]:{peer.port}".encode() in peer.heard[1]


def test_addresses_are_found_without_sending_anything() -> None:
    assert addresses_of("127.0.0.1") == ("127.0.0.1",)
    with pytest.raises(NotResolvedError, match="can't be resolved here"):
        addresses_of("no such host")
    assert is_own_address("127.0.0.1")
    assert not is_own_address("192.0.2.1")
    assert not is_own_address("2001:db8::1")
