"""HTTP/1.1 as far as enrolment needs it: one request with a body of known length, one answer (RFC 9112).

What a stranger may send is bounded before it is read; whatever else HTTP could do is refused with the right status.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

MOST_HEAD_BYTES: Final = 8 * 1024
# A CMP message with a chain of RSA-4096 certificates has 10 KiB.
MOST_BODY_BYTES: Final = 64 * 1024
_MOST_FIELDS: Final = 64
_END: Final = b"\r\n\r\n"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}\Z")
_TARGET: Final = re.compile(r"/[!-~]{0,1023}\Z")
_LENGTH: Final = re.compile(r"[0-9]{1,10}\Z")


class HttpError(Exception):
    """A request can't be answered; `status` and the text are for the peer."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who asks: its IP address, and the certificate (DER) that it has proved the key of, if it showed one."""

    address: str
    certificate_der: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a request. Names of fields are lower-case; a field that came twice is joined with commas."""

    method: str
    path: str
    query: str = ""
    fields: Mapping[str, str]
    length: int

    @property
    def content_type(self) -> str:
        """The media type without parameters, lower-case."""
        return self.fields.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def expects_continue(self) -> bool:
        """Say if the peer waits for leave to send the body."""
        return self.fields.get("expect", "").lower() == "100-continue"

    @property
    def basic(self) -> tuple[str, str] | None:
        """The name and the password of HTTP Basic (RFC 7617). Raises HttpError for what is none."""
        scheme, _, value = self.fields.get("authorization", "").strip().partition(" ")
        if not scheme:
            return None
        try:
            if scheme.lower() != "basic":
                raise ValueError(scheme)
            name, colon, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
            if not colon:
                raise ValueError(name)
        except (ValueError, binascii.Error) as error:
            raise HttpError(
                HTTPStatus.BAD_REQUEST, "the Authorization field is no HTTP Basic with a name and a code"
            ) from error
        return name, password


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A whole request and who sent it."""

    head: Head
    body: bytes
    peer: Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer. `fields` are more fields of the head."""

    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"
    body: bytes = b""
    fields: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Response]


def text_response(status: HTTPStatus, text: str, **fields: str) -> Response:
    """Return an answer for people; `fields` with underscores for hyphens."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Response(status=status, body=f"{text}\n".encode(), fields=named)


def decode_head(data: bytes) -> tuple[Head, int] | None:
    """Read the head of a request; return it and the number of its bytes, None if more is needed. Raises HttpError."""
    end = data.find(_END)
    if end > MOST_HEAD_BYTES or (end < 0 and len(data) > MOST_HEAD_BYTES):
        raise HttpError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head of the request has more than {MOST_HEAD_BYTES} bytes"
        )
    if end < 0:
        return None
    lines = data[:end].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0") or not _TOKEN.match(words[0]):
        raise HttpError(HTTPStatus.BAD_REQUEST, "this is no request of HTTP/1.1")
    if not _TARGET.match(words[1]):
        raise HttpError(HTTPStatus.BAD_REQUEST, "the address of the request is no path")
    path, _, query = words[1].partition("?")
    fields = _decode_fields(lines[1:])
    return Head(method=words[0], path=path, query=query, fields=fields, length=_length_of(fields)), end + len(_END)


def _decode_fields(lines: list[str]) -> dict[str, str]:
    if len(lines) > _MOST_FIELDS:
        raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head has more than {_MOST_FIELDS} fields")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.match(name) or "\n" in value or "\r" in value or "\0" in value:
            raise HttpError(HTTPStatus.BAD_REQUEST, "the head of the request has a line that is no field")
        key = name.lower()
        # Two lengths, or two credentials, are how requests are smuggled.
        if key in fields and key in ("content-length", "authorization", "host"):
            raise HttpError(HTTPStatus.BAD_REQUEST, f"the head of the request has {name} twice")
        fields[key] = f"{fields[key]}, {value.strip()}" if key in fields else value.strip()
    return fields


def _length_of(fields: Mapping[str, str]) -> int:
    if "transfer-encoding" in fields:
        raise HttpError(HTTPStatus.LENGTH_REQUIRED, "send the body with Content-Length, not in chunks")
    text = fields.get("content-length", "0")
    if not _LENGTH.match(text):
        raise HttpError(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
    if int(text) > MOST_BODY_BYTES:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {MOST_BODY_BYTES} bytes")
    return int(text)


def encode_response(response: Response, *, head_only: bool = False) -> bytes:
    """Return the bytes of an answer, after which the connection ends."""
    lines = [f"HTTP/1.1 {response.status.value} {response.status.phrase}"]
    # RFC 9110 §8.6: 204 has neither a length nor a type.
    if response.status is not HTTPStatus.NO_CONTENT:
        lines += [f"Content-Type: {response.content_type}", f"Content-Length: {len(response.body)}"]
    lines += [f"{name}: {value}" for name, value in response.fields.items()]
    lines += ["Cache-Control: no-store", "X-Content-Type-Options: nosniff", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + (b"" if head_only else response.body)


class Routes:
    """Which handler answers which path: an exact path, or all below one that ends in a slash."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Handler]] = {}
        self._below: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Let a handler answer a path, or with a slash at its end everything below it."""
        table = self._below if path.endswith("/") and path != "/" else self._exact
        table.setdefault(path, {})[method] = handler

    def answer(self, request: Request) -> Response:
        """Let the right handler answer; 404 and 405 are answered here."""
        path = request.head.path
        methods = self._exact.get(path)
        if methods is None:
            methods = next((table for base, table in self._below.items() if path.startswith(base)), None)
        if methods is None:
            return text_response(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        method = "GET" if request.head.method == "HEAD" and "GET" in methods else request.head.method
        handler = methods.get(method)
        if handler is None:
            return text_response(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"use {' or '.join(sorted(methods))} here",
                Allow=", ".join(sorted(methods)),
            )
        return handler(request)
