"""Answers over HTTP: bounded, read by their shape, and never kept."""

import pytest

from dicomward.io.assess.probe_http import HttpAnswer, is_whole, orthanc_version, parse_answer, qido_path, read_answer

SYSTEM = b'{"ApiVersion": 15, "DicomAet": "ORTHANC", "Version": "1.10.1"}'


def answer(status: int, body: bytes = b"", **headers: str) -> HttpAnswer:
    return HttpAnswer(
        status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=body
    )


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", False),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil it closes", False),
        (b"HTTP/1.1 200 OK\r\nX: ", False),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, True),
        (b"SSH-2.0", True),
        (b"HT", False),
    ],
)
def test_end_of_an_answer(data: bytes, whole: bool) -> None:
    assert is_whole(bytearray(data)) is whole


def test_chunks_are_joined() -> None:
    found = parse_answer(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "")
    assert (found.status, found.body) == (200, b"abcde")
    assert parse_answer(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz", "").body == b""


def test_what_is_no_http_has_no_status() -> None:
    assert parse_answer(b"\x02\x00", "").detail == "the answer is no HTTP"
    assert parse_answer(b"", "no whole answer").detail == "no whole answer"


@pytest.mark.parametrize(
    ("kind", "given", "right"),
    [
        ("dicomweb", answer(200, b" []", content_type="application/dicom+json; charset=utf-8"), True),
        ("dicomweb", answer(200, b"", content_type="application/json"), True),
        ("dicomweb", answer(204), True),
        ("dicomweb", answer(200, b"<html>", content_type="text/html"), False),
        ("dicomweb", answer(200, b"{}", content_type="application/json"), False),
        ("dicomweb", answer(401), False),
        ("orthanc", answer(200, SYSTEM), True),
        ("orthanc", answer(200, b"[]"), False),
        ("orthanc", answer(401, SYSTEM), False),
        ("admin", answer(200, b"[]", content_type="application/json"), True),
        ("admin", answer(200, b"[]", content_type="text/html"), False),
    ],
)
def test_what_looks_right(kind: str, given: HttpAnswer, right: bool) -> None:
    assert read_answer(kind, "/x?y", given).looks_right is right
    assert read_answer(kind, "/x?y", given).path == "/x"


def test_redirects_are_noted() -> None:
    assert read_answer("admin", "/x", answer(302, location="/login")).redirect == "/login"
    assert read_answer("admin", "/x", answer(200, location="/login")).redirect == ""


@pytest.mark.parametrize(
    ("body", "version"),
    [
        (SYSTEM, "1.10.1"),
        (SYSTEM.replace(b"1.10.1", b"<b>"), ""),
        (b"{}", None),
        (b"oops", None),
        (b"\xff", None),
    ],
)
def test_version_of_orthanc(body: bytes, version: str | None) -> None:
    assert orthanc_version(answer(200, body)) == version


def test_query_asks_for_nobody() -> None:
    assert qido_path("/rs/").startswith("/rs/studies?StudyInstanceUID=2.25.")
