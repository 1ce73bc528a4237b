"""The HTTP server of monitoring: right answers to right requests, and no harm from any other."""

import logging
import socket
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPConnection

import pytest

from dicomward.io.monitoring import server as metrics_server
from dicomward.io.monitoring.server import MOST_CONNECTIONS, MetricsServer, Page
from tests.io.world import SECONDS


def _broken() -> Page:
    raise ValueError("secret detail")


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    made = MetricsServer(
        "127.0.0.1",
        0,
        {
            "/metrics": lambda: Page("x 1\n"),
            "/readyz": lambda: Page("not ready\n", HTTPStatus.SERVICE_UNAVAILABLE),
            "/broken": _broken,
        },
    )
    made.start()
    yield made
    made.stop()


def ask(server: MetricsServer, method: str, path: str) -> tuple[int, str, dict[str, str]]:
    connection = HTTPConnection(server.host, server.port, timeout=SECONDS)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def raw(server: MetricsServer, data: bytes, *, ends: bool = False) -> bytes:
    with socket.create_connection((server.host, server.port), SECONDS) as connection:
        connection.sendall(data)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        answer = bytearray()
        try:
            while chunk := connection.recv(65_536):
                answer += chunk
        except ConnectionResetError:
            pass
        return bytes(answer)


def test_page_is_answered(server: MetricsServer) -> None:
    status, body, headers = ask(server, "GET", "/metrics")
    assert (status, body) == (200, "x 1\n")
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-length"] == "4"
    assert headers["connection"] == "close"


def test_query_is_ignored(server: MetricsServer) -> None:
    assert ask(server, "GET", "/metrics?name[]=x")[0] == 200


def test_head_has_no_body(server: MetricsServer) -> None:
    status, body, headers = ask(server, "HEAD", "/metrics")
    assert (status, body, headers["content-length"]) == (200, "", "4")


def test_page_says_its_own_status(server: MetricsServer) -> None:
    assert ask(server, "GET", "/readyz")[:2] == (503, "not ready\n")


def test_other_methods_are_refused(server: MetricsServer) -> None:
    status, _body, headers = ask(server, "POST", "/metrics")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_unknown_page_names_the_known_ones(server: MetricsServer) -> None:
    status, body, _headers = ask(server, "GET", "/metrix")
    assert status == 404
    assert "/metrics, /readyz" in body


def test_defect_is_answered_without_its_detail(server: MetricsServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status, body, _headers = ask(server, "GET", "/broken")
    assert status == 500
    assert "secret" not in body
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("line", [b"nonsense", b"GET /metrics", b"GET /metrics SPDY/3", b"\x16\x03\x01\x02\x00", b""])
def test_what_is_no_request_is_told_so(server: MetricsServer, line: bytes) -> None:
    assert raw(server, line + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_request_without_end_is_cut(server: MetricsServer) -> None:
    assert b" 431 " in raw(server, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000)


def test_connection_that_is_closed_early_disturbs_nobody(server: MetricsServer) -> None:
    assert raw(server, b"GET /met", ends=True) == b""
    assert ask(server, "GET", "/metrics")[0] == 200


def test_slow_request_is_ended_and_others_are_answered_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "REQUEST_SECONDS", 0.3)
    server = MetricsServer("127.0.0.1", 0, {"/metrics": lambda: Page("x 1\n")})
    server.start()
    try:
        with socket.create_connection((server.host, server.port), SECONDS) as slow:
            slow.sendall(b"GET ")
            assert ask(server, "GET", "/metrics")[0] == 200
            assert slow.recv(100) == b""
    finally:
        server.stop()


def test_bytes_that_trickle_do_not_buy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "REQUEST_SECONDS", 0.0)
    server = MetricsServer("127.0.0.1", 0, {})
    server.start()
    try:
        assert raw(server, b"G") == b""
    finally:
        server.stop()


def test_more_connections_than_there_are_places_are_closed_at_once() -> None:
    held, asked = threading.Event(), threading.Semaphore(0)

    def page() -> Page:
        asked.release()
        held.wait(SECONDS)
        return Page("late\n")

    server = MetricsServer("127.0.0.1", 0, {"/slow": page})
    server.start()
    threads = [threading.Thread(target=ask, args=(server, "GET", "/slow")) for _ in range(MOST_CONNECTIONS)]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            assert asked.acquire(timeout=SECONDS)
        assert raw(server, b"") == b""
    finally:
        held.set()
        for thread in threads:
            thread.join()
        server.stop()


def test_without_threads_it_goes_on(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start
    failures = [RuntimeError("can't start new thread")]

    def start(thread: threading.Thread) -> None:
        if thread.name == "dicomward-metrics-request" and failures:
            raise failures.pop()
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert raw(server, b"") == b""
    assert ask(server, "GET", "/metrics")[0] == 200


def test_address_that_is_taken_is_an_error_and_leaves_nothing_open(server: MetricsServer) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsServer("127.0.0.1", server.port, {})


def test_stop_before_start_is_possible() -> None:
    MetricsServer("127.0.0.1", 0, {}).stop()


def test_accept_that_fails_is_tried_again(server: MetricsServer) -> None:
    real = server._reception._listener

    class Stubborn:
        failed = 0

        def accept(self) -> tuple[socket.socket, object]:
            if not Stubborn.failed:
                Stubborn.failed += 1
                raise OSError(24, "Too many open files")
            return real.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    server._reception._listener = Stubborn()  # type: ignore[assignment]
    # The first goes to the accept that was already under way.
    for _ in range(3):
        assert ask(server, "GET", "/metrics")[0] == 200
    assert Stubborn.failed == 1
