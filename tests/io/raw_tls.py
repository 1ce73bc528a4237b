"""A TLS client through libssl itself, for what Python's ssl module has no name for: KeyUpdate and renegotiation."""

import ctypes
import ctypes.util
import socket
from functools import cache

from tests.io.world import Credentials

_WANT_READ = 2
_WANT_WRITE = 3
_UPDATE_REQUESTED = 1
_FILETYPE_PEM = 1
_CTRL_SET_MAX_PROTO_VERSION = 124
_TLS_1_2 = 0x0303


@cache
def _library() -> ctypes.CDLL:
    name = ctypes.util.find_library("ssl")
    assert name is not None, "libssl is missing"
    library = ctypes.CDLL(name)
    for function in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
        getattr(library, function).restype = ctypes.c_void_p
    return library


class RawTls:
    """A connected client over a non-blocking socket."""

    def __init__(self, connection: socket.socket, credentials: Credentials, *, tls12: bool = False) -> None:
        self._ssl = library = _library()
        self._socket = connection
        context = ctypes.c_void_p(library.SSL_CTX_new(ctypes.c_void_p(library.TLS_client_method())))
        if tls12:
            library.SSL_CTX_ctrl(context, _CTRL_SET_MAX_PROTO_VERSION, ctypes.c_long(_TLS_1_2), None)
        files = credentials.files
        assert library.SSL_CTX_use_certificate_chain_file(context, str(files.certificate).encode()) == 1
        assert library.SSL_CTX_use_PrivateKey_file(context, str(files.key).encode(), _FILETYPE_PEM) == 1
        self._handle = ctypes.c_void_p(library.SSL_new(context))
        library.SSL_CTX_free(context)
        assert library.SSL_set_fd(self._handle, connection.fileno()) == 1
        connection.setblocking(True)
        assert library.SSL_connect(self._handle) == 1
        connection.setblocking(False)

    def write(self, data: bytes) -> bool:
        """Write; False where the socket takes no more now."""
        return self._done(self._ssl.SSL_write(self._handle, data, len(data)))

    def update_key(self) -> bool:
        """Send a KeyUpdate that asks for one in return; False where the socket takes no more now."""
        assert self._ssl.SSL_key_update(self._handle, _UPDATE_REQUESTED) == 1
        return self._done(self._ssl.SSL_do_handshake(self._handle))

    def read(self) -> bytes:
        """Wait for some data."""
        buffer = ctypes.create_string_buffer(65536)
        self._socket.setblocking(True)
        count = self._ssl.SSL_read(self._handle, buffer, len(buffer))
        self._socket.setblocking(False)
        return buffer.raw[: max(count, 0)]

    def renegotiate(self) -> bool:
        """Send a ClientHello on the running connection; say if the peer goes along."""
        assert self._ssl.SSL_renegotiate(self._handle) == 1
        self._socket.setblocking(True)
        agreed = bool(self._ssl.SSL_do_handshake(self._handle) == 1)
        self._socket.setblocking(False)
        return agreed

    def close(self) -> None:
        self._ssl.SSL_free(self._handle)
        self._socket.close()

    def _done(self, returned: int) -> bool:
        if returned > 0:
            return True
        error = self._ssl.SSL_get_error(self._handle, returned)
        assert error in (_WANT_READ, _WANT_WRITE), error
        return False
