"""A port that answers as a test wants, and remembers what it was told."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAbort, AAssociateRj
from tests.relay.wire import RELEASE_RP, a_associate_ac, a_associate_rq

ACCEPT = encode_pdu(a_associate_ac(a_associate_rq({1: "1.2.840.10008.1.1"})))
REJECT = encode_pdu(AAssociateRj(result=1, source=1, reason=3))
ABORT = encode_pdu(AAbort(source=0, reason=0))


class Listening:
    """What came to the port: the first bytes of each connection, and the addresses that they came from."""

    def __init__(self, answer: Callable[[bytes], bytes], context: ssl.SSLContext | None) -> None:
        self.heard: list[bytes] = []
        self.sources: list[str] = []
        self._answer = answer
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:
                return
            self.sources.append(address[0])
            with connection:
                try:
                    connection.settimeout(10)
                    sealed = self._context.wrap_socket(connection, server_side=True) if self._context else connection
                    self._converse(sealed)
                except OSError:
                    pass

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                self.heard.append(data)
                answer = RELEASE_RP if data[0] == 5 else self._answer(data)
                if not answer:
                    return
                connection.sendall(answer)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@contextmanager
def listening(answer: Callable[[bytes], bytes], context: ssl.SSLContext | None = None) -> Iterator[Listening]:
    made = Listening(answer, context)
    try:
        yield made
    finally:
        made.close()


def web(status: str) -> Callable[[bytes], bytes]:
    """Answer HTTP, and hang up on everything else."""

    def answer(data: bytes) -> bytes:
        return f"HTTP/1.1 {status}\r\nLocation: http://192.0.2.1/\r\n\r\n".encode() if data.startswith(b"GET ") else b""

    return answer


def dicom(pdu: bytes) -> Callable[[bytes], bytes]:
    """Answer an A-ASSOCIATE-RQ, and hang up on everything else."""
    return lambda data: pdu if data[:1] == b"\x01" else b""
