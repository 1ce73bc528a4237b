"""Studies behind DICOMweb are counted exactly page by page; what can't be counted so is a lower bound, or told."""

import contextlib
import json
import socket
import time
from collections.abc import Callable
from datetime import date
from urllib.parse import parse_qs, urlsplit

import pytest

from dicomward.assess.count_limits import CountLimits
from dicomward.assess.count_result import Shortfall
from dicomward.assess.countries import country_in
from dicomward.assess.observation import Count
from dicomward.io.assess import count_web
from dicomward.io.assess.count_server import ServerCount, count_server
from dicomward.io.assess.count_web import WebTarget
from dicomward.vocab.dimse import Status
from tests.io.count_peers import serving

QUICK = CountLimits(connect_seconds=2, idle_seconds=1, slice_seconds=2, server_seconds=4, unsliced_matches=500)


def http(status: str, body: bytes = b"") -> bytes:
    kind = "application/dicom+json"
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Archive:
    """Studies of consecutive days; `most` are given at once, `pages` says if it knows an offset."""

    def __init__(self, studies: int, *, most: int = 200, pages: bool = True, root: str = "/dicom-web") -> None:
        self.studies, self.most, self.pages, self.root = studies, most, pages, root
        self.requests: list[str] = []

    def __call__(self, connection: socket.socket) -> None:
        head = connection.recv(65_536).decode()
        self.requests.append(head)
        url = urlsplit(head.split(" ")[1])
        connection.sendall(self.answer(url.path, {name: value[0] for name, value in parse_qs(url.query).items()}))

    def answer(self, path: str, query: dict[str, str]) -> bytes:
        if path != f"{self.root}/studies":
            return http("404 Not Found")
        if "StudyInstanceUID" in query:
            return http("200 OK", b"[]")
        first, _, last = query.get("StudyDate", "19000101-99991231").partition("-")
        found = [n for n in range(self.studies) if first <= self.day(n) <= last]
        offset = int(query["offset"]) if self.pages else 0
        page = [self.study(n) for n in found[offset : offset + min(self.most, int(query["limit"]))]]
        return http("200 OK", json.dumps(page).encode()) if page else http("204 No Content")

    @staticmethod
    def day(number: int) -> str:
        return date.fromordinal(date(2020, 1, 1).toordinal() + number // 3).strftime("%Y%m%d")

    def study(self, number: int) -> dict[str, object]:
        return {
            "0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]},
            "00080020": {"vr": "DA", "Value": [self.day(number)]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"P^{number // 2}"}]},
            "00100020": {"vr": "LO", "Value": [f"{number // 2}"]},
        }


def count(port: int, limits: CountLimits = QUICK, stop: Callable[[], bool] = lambda: False) -> ServerCount:
    return count_server(
        WebTarget(address="127.0.0.1", port=port, host="", roots=("/none", "/dicom-web"), contact="it@clinic"),
        limits=limits,
        today=date(2026, 11, 25),
        key=b"k" * 32,
        country_of=country_in,
        is_stopped=stop,
    )


@pytest.mark.parametrize("studies", [0, 1, 200, 403, 1201])
def test_count_is_exact_in_pages_and_in_slices(studies: int) -> None:
    archive = Archive(studies)
    with serving(archive) as port:
        seen = count(port)
    assert seen.counts is not None
    assert seen.counts.studies == Count(value=studies)
    assert seen.counts.patients == Count(value=(studies + 1) // 2)
    assert seen.counts.open_to_tampering is None
    assert all("From: it@clinic" in each and "Accept: application/dicom+json" in each for each in archive.requests)


def test_server_that_gives_less_than_was_asked_for_is_asked_for_the_rest() -> None:
    with serving(Archive(130, most=50)) as port:
        seen = count(port)
    assert seen.counts is not None
    assert seen.counts.studies == Count(value=130)


def test_server_that_knows_no_offset_is_asked_by_days() -> None:
    with serving(Archive(130, most=50, pages=False)) as port:
        seen = count(port)
    assert seen.counts is not None
    assert seen.counts.studies == Count(value=130)


def answering(body: bytes, status: str = "200 OK") -> Callable[[socket.socket], None]:
    class One(Archive):
        def answer(self, path: str, query: dict[str, str]) -> bytes:
            return super().answer(path, query) if "StudyInstanceUID" in query else http(status, body)

    return One(1)


@pytest.mark.parametrize(
    ("status", "refused"), [("403 Forbidden", Status.REFUSED_NOT_AUTHORISED), ("500 Oops", Status.CANNOT_UNDERSTAND)]
)
def test_refusal_is_told(status: str, refused: int) -> None:
    with serving(answering(b"", status)) as port:
        seen = count(port)
    assert (seen.counts, seen.refused_status) == (None, refused)


def test_too_much_at_once_is_split() -> None:
    class TooMuch(Archive):
        def answer(self, path: str, query: dict[str, str]) -> bytes:
            if "limit" in query and "offset" in query and "StudyDate" not in query:
                return http("413 Too Large")
            return super().answer(path, query)

    with serving(TooMuch(40)) as port:
        seen = count(port)
    assert seen.counts is not None
    assert seen.counts.studies == Count(value=40)


@pytest.mark.parametrize("body", [b"<html>CANARY", b'{"CANARY": 2}'])
def test_what_is_no_answer_gives_a_lower_bound(body: bytes) -> None:
    with serving(answering(body)) as port:
        seen = count(port)
    assert seen.counts is not None
    assert seen.counts.studies == Count(value=0, is_lower_bound=True)
    assert "CANARY" not in repr(seen)


def test_page_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_web, "_MOST_PAGE_BYTES", 1000)
    with serving(answering(b"[" + b" " * 2000 + b"]")) as port:
        assert count(port).problem == "a page of answers is too long"


@pytest.mark.parametrize("data", [b"", b"SSH-2.0\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n"])
def test_what_is_no_dicomweb_is_told(data: bytes) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(data)

    with serving(serve) as port:
        seen = count(port)
    assert (seen.counts, seen.connected) == (None, True)
    assert seen.problem


def test_silent_and_dripping_servers_cost_a_bounded_time() -> None:
    def silent(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.recv(10_000)

    def drip(connection: socket.socket) -> None:
        connection.recv(10_000)
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 1_000_000:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)

    for serve, said in ((silent, "it fell silent"), (drip, "it took too long")):
        began = time.monotonic()
        with serving(serve) as port:
            assert count(port).problem == said
        assert time.monotonic() - began < 10


def test_closed_port_and_stop_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert count(port).problem.startswith("the connection failed")
    with serving(Archive(3)) as port:
        assert count(port, stop=lambda: True).problem == "it was stopped"
    archive = Archive(403)
    with serving(archive) as port:
        # Two for the roots, one for the first page; the second page is not waited for.
        seen = count(port, stop=lambda: len(archive.requests) > 3)
    assert seen.counts is not None
    assert Shortfall.STOPPED in seen.counts.problem
