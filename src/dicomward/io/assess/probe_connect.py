"""Opening a TCP connection to a host that is assessed, so that a busy machine never makes an open port look silent.

When the time is over the kernel is asked once more: a thousand connections at once can keep the loop from hearing of
one that is there. One socket each, without the streams that most of them never need.
"""

import asyncio
import errno
import os
import socket
from typing import Final

_IN_PROGRESS: Final = (errno.EINPROGRESS, errno.EWOULDBLOCK)


async def connect_socket(address: str, port: int, timeout: float) -> socket.socket:
    """Return a connected, non-blocking socket. Raises TimeoutError after `timeout` seconds, or OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = connection.connect_ex((address, port))
        if code in _IN_PROGRESS:
            await _writable(connection, timeout)
            code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if not _is_connected(connection):
            raise TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout:g} s")
    except BaseException:
        connection.close()
        raise
    return connection


async def _writable(connection: socket.socket, timeout: float) -> None:
    """Return when the kernel has an answer, or the time is over."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not heard.done():
            heard.set_result(None)

    descriptor = connection.fileno()
    loop.add_writer(descriptor, settle)
    timer = loop.call_later(timeout, settle)
    try:
        await heard
    finally:
        timer.cancel()
        loop.remove_writer(descriptor)


def _is_connected(connection: socket.socket) -> bool:
    try:
        connection.getpeername()
    except OSError:
        return False
    return True


async def connect(address: str, port: int, timeout: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return the streams of a connection. Raises TimeoutError, OSError."""
    return await asyncio.open_connection(sock=await connect_socket(address, port, timeout))
