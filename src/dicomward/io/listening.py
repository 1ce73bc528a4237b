"""Opening a socket that listens, the same for DICOM, enrolment and monitoring."""

import socket


def bind_and_listen(host: str, port: int, backlog: int) -> socket.socket:
    """Return a socket that listens on the first address of a host; "" is every address. Raises OSError."""
    family, kind, protocol, _name, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener
