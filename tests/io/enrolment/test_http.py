"""The HTTPS server of enrolment: right answers, bounded everything, and no harm from any peer."""

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import pytest

from dicomward.enrolment.http import MOST_BODY_BYTES, MOST_HEAD_BYTES, HttpError, Request, Response, text_response
from dicomward.io.ca.local import KeyKind, LocalCa
from dicomward.io.enrolment import http as enrolment_http
from dicomward.io.enrolment.http import MOST_OF_AN_ADDRESS, EnrolmentHttpServer
from tests.io.world import SECONDS


class Place:
    """A server with a certificate, and a device's credentials."""

    def __init__(self, directory: Path) -> None:
        now = datetime.now(UTC)  # noqa: TID251
        ca = LocalCa.make("Test", now)
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(ca.certificate_pem)
        for name, issued in (
            ("server", ca.issue_gateway(KeyKind.ECDSA, ["127.0.0.1"], now)),
            ("device", ca.issue_device("CT", ["CT"], KeyKind.ECDSA, now)),
        ):
            (directory / f"{name}.pem").write_bytes(issued.key_pem + issued.certificate_pem)
        self.device = directory / "device.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "server.pem")
        context.load_verify_locations(self.ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.release = threading.Event()
        self.seen: list[Request] = []
        self.server = EnrolmentHttpServer("127.0.0.1", 0, lambda: context, self.answer)

    def answer(self, request: Request) -> Response:
        self.seen.append(request)
        match request.head.path:
            case "/broken":
                raise ValueError("secret detail")
            case "/refused":
                raise HttpError(HTTPStatus.FORBIDDEN, "not you")
            case "/slow":
                self.release.wait(SECONDS)
        return text_response(HTTPStatus.OK, f"{len(request.body)} bytes")

    def connect(self, *, certificate: bool = False) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.ca))
        if certificate:
            context.load_cert_chain(self.device)
        plain = socket.create_connection((self.server.host, self.server.port), SECONDS)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def ask(self, data: bytes, *, certificate: bool = False) -> bytes:
        with self.connect(certificate=certificate) as connection:
            connection.sendall(data)
            return rest_of(connection)


def rest_of(connection: ssl.SSLSocket) -> bytes:
    answer = b""
    while chunk := connection.recv(65_536):
        answer += chunk
    return answer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("http"))
    made.server.start()
    yield made
    made.server.stop()


@pytest.fixture
def place(running: Place) -> Place:
    running.seen.clear()
    running.release.clear()
    return running


def post(path: str, length: int, *lines: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", f"Content-Length: {length}", *lines, "", ""]).encode()


def test_request_is_answered_and_the_peer_is_known(place: Place) -> None:
    assert b"\r\n\r\n3 bytes\n" in place.ask(post("/", 3) + b"abc")
    assert place.seen[0].peer.address == "127.0.0.1"
    assert place.seen[0].peer.certificate_der is None
    place.ask(post("/", 0), certificate=True)
    assert place.seen[1].peer.certificate_der is not None


def test_body_may_wait_for_leave(place: Place) -> None:
    with place.connect() as connection:
        connection.sendall(post("/", 3, "Expect: 100-continue"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert b"3 bytes" in rest_of(connection)


def test_head_request_has_no_body(place: Place) -> None:
    assert place.ask(b"HEAD / HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_large_head_and_body_are_refused_with_an_answer(place: Place) -> None:
    assert b" 413 " in place.ask(post("/", MOST_BODY_BYTES + 1) + b"x" * 200_000)
    assert b" 431 " in place.ask(b"GET / HTTP/1.1\r\nA: " + b"x" * (MOST_HEAD_BYTES * 2))
    assert not place.seen


def test_defect_is_answered_without_its_details(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = place.ask(post("/broken", 0))
    assert b" 500 " in answer
    assert b"secret" not in answer
    assert "secret detail" in caplog.text


def test_handler_may_refuse(place: Place) -> None:
    assert b" 403 " in place.ask(post("/refused", 0))


def test_peers_that_talk_nonsense_or_leave_do_no_harm(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_connection((place.server.host, place.server.port), SECONDS) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert place.server.port
    with place.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
    monkeypatch.setattr(enrolment_http, "REQUEST_SECONDS", 0.2)
    with place.connect() as connection:
        connection.sendall(b"GET / HT")
        # Closed by the deadline, without an answer: cleanly or not.
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert rest_of(connection) == b""
    monkeypatch.undo()
    assert b" 200 " in place.ask(post("/", 0))


def test_one_address_has_a_bounded_number_of_connections(place: Place) -> None:
    held = [
        socket.create_connection((place.server.host, place.server.port), SECONDS) for _ in range(MOST_OF_AN_ADDRESS)
    ]
    try:
        with socket.create_connection((place.server.host, place.server.port), SECONDS) as one_more:
            assert one_more.recv(1) == b""
    finally:
        for each in held:
            each.close()


def test_stop_waits_for_what_is_being_answered(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.server.start()
    with place.connect() as connection:
        connection.sendall(post("/slow", 0))
        while not place.seen:
            pass
        stopper = threading.Thread(target=place.server.stop)
        stopper.start()
        place.release.set()
        assert b" 200 " in rest_of(connection)
        stopper.join(SECONDS)
        assert not stopper.is_alive()


def test_address_that_is_taken_is_an_error(place: Place) -> None:
    with pytest.raises(OSError, match="in use"):
        EnrolmentHttpServer(
            "127.0.0.1", place.server.port, lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), place.answer
        )
