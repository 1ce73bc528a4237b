"""A small HTTP server for monitoring: a few fixed pages, GET and HEAD only, everything bounded.

It has a listener and threads of its own, so that whoever asks for metrics takes nothing from an association.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from dicomward.io.listening import Reception, bind_and_listen

_log = logging.getLogger(__name__)

MOST_REQUEST_BYTES: Final = 8 * 1024
REQUEST_SECONDS: Final = 5.0
MOST_CONNECTIONS: Final = 8
_PLAIN: Final = "text/plain; charset=utf-8"
_METHODS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    text: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = _PLAIN


Pages = Mapping[str, Callable[[], Page]]


class MetricsServer:
    """Answers on one address until it is stopped."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        """Bind and listen. Raises OSError."""
        self._pages = pages
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._reception = Reception(
            bind_and_listen(host, port, MOST_CONNECTIONS),
            "dicomward-metrics",
            enter=lambda _address: self._places.acquire(blocking=False),
            answer=self._answer,
            leave=lambda _address: self._places.release(),
        )
        self.host, self.port = self._reception.host, self._reception.port

    def start(self) -> None:
        """Start to answer."""
        self._reception.start()

    def stop(self) -> None:
        """Stop; what is being answered ends within its time."""
        self._reception.stop()

    def _answer(self, connection: socket.socket, address: str) -> None:
        try:
            with connection:
                deadline = time.monotonic() + REQUEST_SECONDS
                page, is_head = self._page_for(_read_request(connection, deadline))
                connection.settimeout(max(0.1, deadline - time.monotonic()))
                connection.sendall(_encode(page, is_head=is_head))
                connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            _log.debug("a request for metrics from %s went away: %s", address, error)

    def _page_for(self, request: bytes | None) -> tuple[Page, bool]:
        if request is None:
            return Page("the request is too long\n", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), False
        words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Page("this is not an HTTP/1.1 request\n", HTTPStatus.BAD_REQUEST), False
        method, target, _version = words
        is_head = method == "HEAD"
        if method not in _METHODS:
            return Page("only GET and HEAD are possible here\n", HTTPStatus.METHOD_NOT_ALLOWED), is_head
        make = self._pages.get(target.partition("?")[0])
        if make is None:
            known = ", ".join(self._pages)
            return Page(f"there is no such page; there are {known}\n", HTTPStatus.NOT_FOUND), is_head
        try:
            return make(), is_head
        except Exception:  # noqa: BLE001  a defect is answered and logged, and the server goes on
            _log.exception("the page %s could not be made", target.partition("?")[0])
            return Page("an internal error; the log says more\n", HTTPStatus.INTERNAL_SERVER_ERROR), is_head


def _read_request(connection: socket.socket, deadline: float) -> bytes | None:
    """Return the head of a request, None if it is too long. Raises OSError, TimeoutError for one that is too slow."""
    data = bytearray()
    while b"\r\n\r\n" not in data:
        if len(data) > MOST_REQUEST_BYTES:
            return None
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        connection.settimeout(left)
        chunk = connection.recv(MOST_REQUEST_BYTES)
        if not chunk:
            raise ConnectionError("closed before its end")
        data += chunk
    return bytes(data)


def _encode(page: Page, *, is_head: bool) -> bytes:
    body = page.text.encode()
    head = [
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if page.status is HTTPStatus.METHOD_NOT_ALLOWED:
        head.append(f"Allow: {', '.join(_METHODS)}")
    return "\r\n".join([*head, "", ""]).encode() + (b"" if is_head else body)
