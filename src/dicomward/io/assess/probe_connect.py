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


class Attempt:
    """A connection that was begun. Where the other end answers at once (this machine, a close switch) nothing waits."""

    __slots__ = ("code", "socket")

    def __init__(self, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        try:
            self.code = self.socket.connect_ex((address, port))
            if self.code in _IN_PROGRESS:
                self.code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or self.code
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Give up."""
        self.socket.close()

    @property
    def is_pending(self) -> bool:
        """Say if the other end has not answered yet."""
        return self.code in _IN_PROGRESS and not _is_connected(self.socket)

    async def wait(self, timeout: float) -> None:
        """Return when the other end has answered, or the time is over."""
        try:
            await _writable(self.socket, timeout)
        except BaseException:
            self.socket.close()
            raise

    def result(self, timeout: float) -> socket.socket:
        """Return the connected, non-blocking socket. Raises TimeoutError, OSError."""
        code = self.code
        if code in _IN_PROGRESS:
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and _is_connected(self.socket):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self.socket
        self.socket.close()
        if code:
            raise OSError(code, os.strerror(code))
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout:g} s")


async def connect_socket(address: str, port: int, timeout: float) -> socket.socket:
    """Return a connected, non-blocking socket. Raises TimeoutError after `timeout` seconds, or OSError."""
    attempt = Attempt(address, port)
    if attempt.is_pending:
        await attempt.wait(timeout)
    return attempt.result(timeout)


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
