"""Mutual TLS for clients that have none: a plaintext port on loopback whose every connection goes on over TLS."""

import contextlib
import selectors
import socket
import ssl
import threading

from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK


class Tunnel:
    """A forwarder in this process; context manager. DCMTK's movescu, gdcmscu and odil reach the gateway by it."""

    def __init__(self, port: int, credentials: Credentials) -> None:
        self._target = port
        self._context = credentials.client_context()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> "Tunnel":
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        # shutdown wakes the accept; close alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client:
            try:
                with (
                    socket.create_connection((LOOPBACK, self._target), timeout=20) as plain,
                    self._context.wrap_socket(plain, server_hostname="localhost") as server,
                ):
                    for each in (client, plain):
                        if each.fileno() >= 0:
                            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    _pump(client, server)
            except OSError:
                return


def _pump(client: socket.socket, server: ssl.SSLSocket) -> None:
    """Copy both ways until either side ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ)
        selector.register(server, selectors.EVENT_READ)
        while True:
            # What TLS has decrypted already is not seen by select.
            ready = [server] if server.pending() else [key.fileobj for key, _ in selector.select(timeout=60)]
            if not ready:
                return
            for source in ready:
                data = client.recv(65536) if source is client else _decrypted(server)
                if data is None:
                    continue
                if not data:
                    return
                (server if source is client else client).sendall(data)


def _decrypted(server: ssl.SSLSocket) -> bytes | None:
    """Return what has come; None where that was no data: a TLS 1.3 ticket, or less than a record."""
    seconds = server.gettimeout()
    server.settimeout(0)
    try:
        return server.recv(65536)
    except ssl.SSLWantReadError:
        return None
    finally:
        server.settimeout(seconds)
