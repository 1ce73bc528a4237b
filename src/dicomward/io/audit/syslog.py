"""One connection to a syslog receiver: TLS as RFC 5425 wants it, the receiver's name checked, ours shown."""

import fcntl
import select
import socket
import ssl
import struct
import termios

from dicomward.io.tls import TlsConfigurationError
from dicomward.settings.syslog import SyslogDestination

CONNECT_SECONDS = 10.0
SEND_SECONDS = 30.0
_CLOSE_SECONDS = 2.0


def syslog_context(destination: SyslogDestination) -> ssl.SSLContext:
    """Return the TLS context for a destination. Raises TlsConfigurationError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(destination.ca)
        if destination.certificate is not None:
            context.load_cert_chain(destination.certificate, destination.key)
    except (OSError, ssl.SSLError) as error:
        shown = error.strerror or error
        raise TlsConfigurationError(
            f"audit.syslog {destination.name}: {destination.ca}, {destination.certificate} and {destination.key} "
            f"must be readable PEM files that belong together ({shown})"
        ) from error
    return context


class SyslogConnection:
    """A connection that stands. Every method raises OSError when it is lost."""

    def __init__(self, destination: SyslogDestination, context: ssl.SSLContext) -> None:
        """Connect, and check the receiver's name and certificate."""
        address = (destination.address.host, destination.address.port)
        plain = socket.create_connection(address, timeout=CONNECT_SECONDS)
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_SECONDS * 1000))
            self._socket = context.wrap_socket(plain, server_hostname=destination.server_name)
        except OSError:
            plain.close()
            raise
        self._socket.settimeout(SEND_SECONDS)

    def send(self, data: bytes) -> None:
        """Hand the data to the operating system."""
        self._socket.sendall(data)

    def is_settled(self) -> bool:
        """Say if the other machine has everything that was sent; and notice when it has hung up."""
        ready, _, _ = select.select([self._socket], [], [], 0)
        # A receiver never says anything but that it closes, or which TLS alert it has.
        while ready or self._socket.pending():
            self._socket.settimeout(0.0)
            try:
                if not self._socket.recv(4096):
                    raise ConnectionResetError("the receiver closed the connection")
            except ssl.SSLWantReadError:
                break
            finally:
                self._socket.settimeout(SEND_SECONDS)
            ready, _, _ = select.select([self._socket], [], [], 0)
        unsent = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, bytes(4))
        return bool(struct.unpack("=i", unsent)[0] == 0)

    def close(self) -> None:
        """Say goodbye, and wait a moment until the receiver has read all that was sent before."""
        try:
            self._socket.settimeout(_CLOSE_SECONDS)
            self._socket.unwrap()
        except (OSError, ValueError):
            pass  # many receivers just close, and that is an answer too
        finally:
            self._socket.close()
