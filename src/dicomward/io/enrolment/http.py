"""The HTTPS server of enrolment: a listener of its own, a thread for each connection, everything bounded.

TLS 1.2 or later with our own certificate; a client certificate is asked for and optional. One request for each
connection: enrolment is rare, and what is closed can't be kept open.
"""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from dicomward.enrolment.http import (
    Handler,
    Head,
    HttpError,
    Peer,
    Request,
    Response,
    decode_head,
    encode_response,
    text_response,
)
from dicomward.io.listening import Reception, bind_and_listen

_log = logging.getLogger(__name__)

# Handshake, request and answer together: an old scanner takes seconds for an RSA handshake.
REQUEST_SECONDS: Final = 20.0
MOST_CONNECTIONS: Final = 128
# One address is one device, or a bridge in front of a few.
MOST_OF_AN_ADDRESS: Final = 32
BACKLOG: Final = 256
_CHUNK: Final = 16 * 1024
# How long a peer that still sends what was refused is listened to, so that it gets to read the answer.
_LINGER_SECONDS: Final = 1.0


class EnrolmentHttpServer:
    """Answers on one address until it is stopped. `context` is asked for each connection: certificates change."""

    def __init__(self, host: str, port: int, context: Callable[[], ssl.SSLContext], handler: Handler) -> None:
        """Bind and listen. Raises OSError."""
        self._context, self._handler = context, handler
        self._idle = threading.Condition()
        self._open: dict[str, int] = {}
        self._reception = Reception(
            bind_and_listen(host, port, BACKLOG),
            "dicomward-enrolment",
            enter=self._enter,
            answer=self._connection,
            leave=self._leave,
        )
        self.host, self.port = self._reception.host, self._reception.port

    def start(self) -> None:
        """Start to answer."""
        self._reception.start()

    def stop(self) -> None:
        """Stop to accept, and wait until what is being answered has ended; each has a deadline."""
        self._reception.stop()
        with self._idle:
            self._idle.wait_for(lambda: not self._open, REQUEST_SECONDS)

    def _enter(self, address: str) -> bool:
        with self._idle:
            count = self._open.get(address, 0)
            if count >= MOST_OF_AN_ADDRESS or sum(self._open.values()) >= MOST_CONNECTIONS:
                return False
            self._open[address] = count + 1
            return True

    def _leave(self, address: str) -> None:
        with self._idle:
            count = self._open[address] - 1
            if count:
                self._open[address] = count
            else:
                del self._open[address]
            self._idle.notify_all()

    def _connection(self, plain: socket.socket, address: str) -> None:
        deadline = time.monotonic() + REQUEST_SECONDS
        try:
            with plain:
                plain.settimeout(REQUEST_SECONDS)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._context().wrap_socket(plain, server_side=True) as sealed:
                    peer = Peer(address=_plain_address(address), certificate_der=sealed.getpeercert(binary_form=True))
                    self._converse(sealed, peer, deadline)
        except OSError as error:
            # Also TLS: a peer that doesn't trust us, speaks plaintext or goes away.
            _log.info("a connection from %s ended early: %s", address, error)

    def _converse(self, connection: ssl.SSLSocket, peer: Peer, deadline: float) -> None:
        is_head, is_read = False, False
        try:
            head, body = _read_head(connection, deadline)
            is_head = head.method == "HEAD"
            if head.expects_continue:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = _read_body(connection, deadline, head, body)
            is_read = True
            response = self._answer(Request(head=head, body=body, peer=peer))
        except HttpError as error:
            response = text_response(error.status, str(error))
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        connection.sendall(encode_response(response, head_only=is_head))
        if not is_read:
            _linger(connection)
        try:
            # Both sides say that this was all: else a cut could pass for the end.
            connection.settimeout(_LINGER_SECONDS)
            connection.unwrap()
        except OSError:
            pass  # the peer is content, and has gone

    def _answer(self, request: Request) -> Response:
        try:
            return self._handler(request)
        except HttpError as error:
            return text_response(error.status, str(error))
        except Exception:  # noqa: BLE001  a defect is answered without its details and logged; the server goes on
            _log.exception("a request for %s could not be answered", request.head.path)
            return text_response(HTTPStatus.INTERNAL_SERVER_ERROR, "an internal error; try again later")


def _plain_address(address: str) -> str:
    """Return an IPv4 address that came over an IPv6 socket as itself, and no zone of an interface."""
    return address.removeprefix("::ffff:").partition("%")[0]


def _receive(connection: ssl.SSLSocket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the request took too long")
    connection.settimeout(left)
    chunk = connection.recv(_CHUNK)
    if not chunk:
        raise ConnectionError("closed before the end of the request")
    return chunk


def _read_head(connection: ssl.SSLSocket, deadline: float) -> tuple[Head, bytes]:
    """Return the head, and what has come of the body. Raises HttpError, OSError."""
    data = b""
    while (found := decode_head(data)) is None:
        data += _receive(connection, deadline)
    head, count = found
    return head, data[count:]


def _read_body(connection: ssl.SSLSocket, deadline: float, head: Head, data: bytes) -> bytes:
    while len(data) < head.length:
        data += _receive(connection, deadline)
    return data[: head.length]


def _linger(connection: ssl.SSLSocket) -> None:
    """Take what is still on its way: a close with unread bytes would be a reset that overtakes the answer."""
    deadline = time.monotonic() + _LINGER_SECONDS
    try:
        while True:
            _receive(connection, deadline)
    except OSError:
        pass  # the end, or long enough
