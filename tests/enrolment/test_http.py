"""HTTP of enrolment: what is read, and everything else refused with the right status."""

import base64
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.enrolment.http import (
    MOST_BODY_BYTES,
    MOST_HEAD_BYTES,
    Head,
    HttpError,
    Peer,
    Request,
    Response,
    Routes,
    decode_head,
    encode_response,
    text_response,
)


def head_of(*lines: str, first: str = "POST /.well-known/est/simpleenroll HTTP/1.1") -> Head:
    found = decode_head("\r\n".join([first, *lines, "", ""]).encode("latin-1"))
    assert found is not None
    return found[0]


def status_of(*lines: str, first: str = "GET / HTTP/1.1") -> HTTPStatus:
    with pytest.raises(HttpError) as caught:
        head_of(*lines, first=first)
    return caught.value.status


def basic(text: bytes) -> str:
    return f"Authorization: Basic {base64.b64encode(text).decode()}"


def request(method: str, path: str, *lines: str, body: bytes = b"") -> Request:
    return Request(head=head_of(*lines, first=f"{method} {path} HTTP/1.1"), body=body, peer=Peer(address="127.0.0.1"))


def test_head_is_read_and_the_rest_is_the_body() -> None:
    data = b"POST /a/b?x=1 HTTP/1.1\r\nHost: h\r\nContent-Type: Application/PKCS10; a=b\r\nContent-Length: 3\r\n\r\nabc"
    found = decode_head(data)
    assert found is not None
    head, count = found
    assert (head.method, head.path, head.query, head.length) == ("POST", "/a/b", "x=1", 3)
    assert head.content_type == "application/pkcs10"
    assert data[count:] == b"abc"


def test_more_is_needed_until_the_empty_line() -> None:
    assert decode_head(b"") is None
    assert decode_head(b"GET / HTTP/1.1\r\nHost: h\r\n") is None


def test_head_that_is_too_long_is_refused_before_its_end() -> None:
    with pytest.raises(HttpError) as caught:
        decode_head(b"x" * (MOST_HEAD_BYTES + 1))
    assert caught.value.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    assert status_of("A: " + "x" * MOST_HEAD_BYTES) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    assert status_of(*["a: b"] * 65) == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


@pytest.mark.parametrize(
    "first",
    [
        "",
        "GET /",
        "GET / HTTP/2",
        "G\xe9T / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET http://x/ HTTP/1.1",
        "GET /\x7f HTTP/1.1",
    ],
)
def test_what_is_no_request_is_bad(first: str) -> None:
    assert status_of(first=first) == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("line", ["no field", "na me: x", ": x", "a: b\rc", "a: b\0c", " folded: x"])
def test_what_is_no_field_is_bad(line: str) -> None:
    assert status_of(line) == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("name", ["Content-Length", "authorization", "Host"])
def test_trap_a_field_that_decides_comes_once(name: str) -> None:
    assert status_of(f"{name}: 1", f"{name}: 1") == HTTPStatus.BAD_REQUEST


def test_other_fields_may_come_twice() -> None:
    assert head_of("Accept: a", "accept: b").fields["accept"] == "a, b"


def test_length_must_be_known_and_bounded() -> None:
    assert head_of().length == 0
    assert head_of(f"Content-Length: {MOST_BODY_BYTES}").length == MOST_BODY_BYTES
    assert status_of(f"Content-Length: {MOST_BODY_BYTES + 1}") == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert status_of("Content-Length: -1") == HTTPStatus.BAD_REQUEST
    assert status_of("Content-Length: 1e3") == HTTPStatus.BAD_REQUEST
    assert status_of("Transfer-Encoding: chunked") == HTTPStatus.LENGTH_REQUIRED


def test_leave_to_send_the_body_is_asked_for_in_one_way() -> None:
    assert head_of("Expect: 100-Continue").expects_continue
    assert not head_of().expects_continue


def test_name_and_code_of_http_basic() -> None:
    assert head_of().basic is None
    assert head_of(basic(b"CT-1:a:b")).basic == ("CT-1", "a:b")
    assert head_of(basic(b":code").replace("Basic", "bAsIc")).basic == ("", "code")


@pytest.mark.parametrize(
    "line", ["Authorization: Digest x", "Authorization: Basic ???", basic(b"no colon"), basic(b"\xff\xfe:x")]
)
def test_other_credentials_are_bad(line: str) -> None:
    with pytest.raises(HttpError) as caught:
        assert head_of(line).basic
    assert caught.value.status == HTTPStatus.BAD_REQUEST


def test_answer_on_the_wire() -> None:
    data = encode_response(Response(content_type="a/b", body=b"xyz", fields={"Retry-After": "9"}))
    top, _, body = data.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 3\r\nRetry-After: 9\r\n")
    assert b"Connection: close" in top
    assert body == b"xyz"
    assert encode_response(Response(body=b"xyz"), head_only=True).endswith(b"\r\n\r\n")
    assert b"Content-" not in encode_response(Response(status=HTTPStatus.NO_CONTENT)).partition(b"X-Content")[0]


def _echo(each: Request) -> Response:
    return text_response(HTTPStatus.OK, each.head.path)


def test_routes() -> None:
    routes = Routes()
    routes.add("GET", "/a", _echo)
    routes.add("POST", "/b/", _echo)
    assert routes.answer(request("GET", "/a")).body == b"/a\n"
    assert routes.answer(request("HEAD", "/a")).status == HTTPStatus.OK
    assert routes.answer(request("POST", "/b/c/d")).body == b"/b/c/d\n"
    assert routes.answer(request("GET", "/c")).status == HTTPStatus.NOT_FOUND
    wrong = routes.answer(request("HEAD", "/b/c"))
    assert (wrong.status, wrong.fields["Allow"]) == (HTTPStatus.METHOD_NOT_ALLOWED, "POST")


@given(st.binary(max_size=400))
def test_any_bytes_give_a_head_or_a_wish_or_a_status(data: bytes) -> None:
    try:
        found = decode_head(data)
    except HttpError:
        found = None
    assert found is None or found[1] <= len(data)
