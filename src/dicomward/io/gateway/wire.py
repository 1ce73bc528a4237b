"""One connection's bytes: non-blocking socket, TLS by MemoryBIO, what waits to be written.

Rules of this file: bytes only; who is behind them is for the session. Not thread-safe: the session's lock covers it.
"""

import socket
import ssl
import threading
from collections import deque
from typing import Final

from dicomward.dicom.framing import HEADROOM
from dicomward.io.system import calls

READ_BYTES: Final = 256 * 1024
# A memory BIO keeps the largest size that it ever had, so it is fed a record at a time, and emptied in slices.
_SLICE: Final = 17 * 1024
# RFC 5246 §6.2.3 and RFC 8446 §5.2: the header of a record, its longest body; what states more is an error at once.
_RECORD_HEADER: Final = 5
_LONGEST_RECORD: Final = _RECORD_HEADER + 16 * 1024 + 2048
_RECORDS: Final = 32 * 1024
# One TLS record may have been left over from the read before.
_PLAIN_BYTES: Final = HEADROOM + READ_BYTES + 2 * _SLICE
# A peer that was switched off, or that reads nothing, is noticed after five minutes: it holds a place at the archive
# until then. Toolkits' own send timeouts are a minute or so.
_KEEP_ALIVE_SECONDS: Final = 60
_UNREAD_MILLISECONDS: Final = 300_000
_QUICK_ACK: Final = calls.QUICK_ACK


class Scratch(threading.local):
    """Buffers of one worker, used by one connection after the other."""

    def __init__(self) -> None:
        self.plain = memoryview(bytearray(_PLAIN_BYTES))
        self.cipher = memoryview(bytearray(READ_BYTES))


SCRATCH: Final = Scratch()


class WireClosed(Exception):
    """The peer has closed or reset the connection."""


class Wire:
    """A connected (or connecting) socket, plaintext or TLS."""

    __slots__ = (
        "_header",
        "_in",
        "_out",
        "_record_left",
        "_waiting",
        "closing",
        "ended",
        "may_have_more",
        "socket",
        "tls",
        "waiting_bytes",
    )

    def __init__(self, connection: socket.socket, context: ssl.SSLContext | None, *, server_side: bool) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        calls.keep_alive(connection, idle_seconds=_KEEP_ALIVE_SECONDS)
        calls.give_up_after(connection, _UNREAD_MILLISECONDS)
        self.socket = connection
        self._waiting: deque[bytes | memoryview] = deque()
        self.waiting_bytes = 0
        self.closing = False
        self.ended = False
        self.may_have_more = False
        self.tls: ssl.SSLObject | None = None
        # Where the bytes so far have ended: in the header of a TLS record, or so many bytes before the end of one.
        self._header = b""
        self._record_left = 0
        if context is not None:
            self._in = ssl.MemoryBIO()
            self._out = ssl.MemoryBIO()
            self.tls = context.wrap_bio(self._in, self._out, server_side=server_side)

    @property
    def is_blocked(self) -> bool:
        """Say if bytes wait to be written."""
        return bool(self._waiting)

    @property
    def is_connected(self) -> bool:
        """Say if the connection was made and has not failed since."""
        try:
            self.socket.getpeername()
        except OSError:
            return False
        return True

    @property
    def is_broken(self) -> bool:
        """Say if the connection is gone for both directions: nothing can be read or written any more."""
        return calls.is_gone(self.socket)

    def handshake(self, scratch: Scratch, *, first: bool) -> bool:
        """Go on with the TLS handshake; True when it is done.

        `first`: nothing has been received yet, and a client starts. Raises ssl.SSLError (with the alert already
        waiting to be written), WireClosed.
        """
        tls = self.tls
        if tls is None:
            return True
        if not first:
            # A slice at a time: what a stranger sends before its handshake is over is not to fill our memory.
            count = self._receive(scratch.cipher[:_SLICE])
            if count < 0:
                return False
            self._in.write(scratch.cipher[:count])
            self._walk_records(scratch.cipher[:count])
        try:
            tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False
        finally:
            self._take_records()

    def read(self, scratch: Scratch) -> int:
        """Read plain bytes into `scratch.plain` from HEADROOM on; return the end, or -1 if there is nothing to read.

        An end of HEADROOM means that bytes came that hold no data yet. Raises WireClosed, ssl.SSLError.
        """
        if self.ended:
            raise WireClosed("TLS closed")
        if self.tls is None:
            count = self._receive(scratch.plain[HEADROOM : HEADROOM + READ_BYTES])
            return -1 if count < 0 else HEADROOM + count
        count = self._receive(scratch.cipher)
        if count < 0:
            return -1
        return self._decrypt(self.tls, scratch, scratch.cipher[:count])

    def first_byte(self) -> int | None:
        """Return the byte that is to be read next, and leave it there; None if there is none yet. Raises WireClosed."""
        try:
            first = self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        if not first:
            raise WireClosed("connection closed")
        return first[0]

    def pending(self, scratch: Scratch) -> int:
        """Return what the handshake's last read has already brought, as `read` does."""
        if self.tls is None:
            return -1
        end = HEADROOM
        while (count := self._read_record(self.tls, scratch.plain, end)) > 0:
            end += count
        return self._ended_at(end) if count == 0 else end

    def write(self, buffers: list[bytes | memoryview]) -> None:
        """Encrypt and send; what the socket can't take now is copied and waits. Raises WireClosed."""
        if self.tls is not None:
            tls, out = self.tls, self._out
            sealed: list[bytes | memoryview] = []
            for buffer in buffers:
                view = memoryview(buffer)
                for at in range(0, len(view), _RECORDS):
                    try:
                        tls.write(view[at : at + _RECORDS])
                    except ssl.SSLError as error:
                        raise WireClosed(f"TLS: {error.reason or error}") from error
                    sealed.append(out.read())
            buffers = sealed
        if self._waiting:
            self._keep(buffers)
        else:
            self._send(buffers)

    def flush(self, *, more: bool = False) -> None:
        """Send what waits; with `more` it may go in one packet with what is sent next. Raises WireClosed."""
        self._take_records()
        if self._waiting:
            waiting = list(self._waiting)
            self._waiting.clear()
            self.waiting_bytes = 0
            self._send(waiting, more=more)

    def end(self) -> None:
        """Say goodbye after the last byte: close_notify, then no more writing."""
        if self.tls is not None:
            try:
                self.tls.unwrap()
            except (ssl.SSLError, ValueError, OSError):
                pass
            self._take_records()
        try:
            self.flush()
            if not self._waiting:
                self.socket.shutdown(socket.SHUT_WR)
        except (OSError, WireClosed):
            pass

    # -- inside -----------------------------------------------------------------------------------------------------

    def _receive(self, into: memoryview) -> int:
        try:
            count = self.socket.recv_into(into)
            if _QUICK_ACK is not None:
                self.socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        except BlockingIOError:
            return -1
        except OSError as error:
            raise WireClosed(error.strerror or str(error)) from error
        if not count:
            raise WireClosed("connection closed")
        self.may_have_more = count == len(into)
        return count

    def _decrypt(self, tls: ssl.SSLObject, scratch: Scratch, data: memoryview) -> int:
        """Decrypt record by record: a read that finds half of one raises, which costs more than the read."""
        feed, plain = self._in.write, scratch.plain
        left, at, size, end = self._record_left, 0, len(data), HEADROOM
        while at < size:
            if not left:
                left = self._begin_record(data, at)
                if not left:
                    feed(data[at:])
                    break
            stop = at + left
            if stop > size:
                feed(data[at:])
                left = stop - size
                break
            feed(data[at:stop])
            at, left = stop, 0
            count = self._read_record(tls, plain, end)
            if not count:
                return self._ended_at(end)
            if count > 0:
                end += count
        self._record_left = left
        if self._out.pending:
            self._take_records()
        return end

    def _begin_record(self, data: memoryview, at: int) -> int:
        """Return how many bytes from `at` on belong to the record that begins there; 0 if its header is not whole.

        A record longer than any may be is taken for as long as its header, so that TLS looks at it now.
        """
        known = len(self._header)
        header = self._header + bytes(data[at : at + _RECORD_HEADER - known])
        if len(header) < _RECORD_HEADER:
            self._header = header
            return 0
        self._header = b""
        length = _RECORD_HEADER + (header[3] << 8 | header[4])
        return (length if length <= _LONGEST_RECORD else _RECORD_HEADER) - known

    def _walk_records(self, data: memoryview) -> None:
        """Follow the records of a handshake, which takes them as they come."""
        at, left, size = 0, self._record_left, len(data)
        while at < size:
            left = left or self._begin_record(data, at)
            if not left:
                break
            at, left = (at + left, 0) if at + left <= size else (size, at + left - size)
        self._record_left = left

    def _read_record(self, tls: ssl.SSLObject, plain: memoryview, end: int) -> int:
        """Return how many bytes one record holds; 0 for close_notify, -1 for a record without data."""
        try:
            # With a buffer, `read` returns a count, which typeshed doesn't know.
            return tls.read(_SLICE, plain[end : end + _SLICE])  # type: ignore[return-value]
        except ssl.SSLWantReadError:
            return -1
        except ssl.SSLZeroReturnError:
            return 0

    def _ended_at(self, end: int) -> int:
        """Answer for a close_notify: what came before it counts, and the next read finds the end."""
        if end == HEADROOM:
            raise WireClosed("TLS closed")
        # The peer may wait for our end before it closes, so no event would come for its own.
        self.ended = self.may_have_more = True
        return end

    def _take_records(self) -> None:
        if self.tls is not None and self._out.pending:
            self._keep([self._out.read()])

    def _send(self, buffers: list[bytes | memoryview], *, more: bool = False) -> None:
        total = sum(len(buffer) for buffer in buffers)
        if not total:
            return
        if more or len(buffers) > calls.MOST_BUFFERS:
            buffers = [b"".join(buffers)]
        try:
            if len(buffers) > 1:
                sent = calls.send_buffers(self.socket, buffers)
            else:
                sent = self.socket.send(buffers[0], calls.MORE if more else 0)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise WireClosed(error.strerror or str(error)) from error
        if sent < total:
            for buffer in buffers:
                if sent >= len(buffer):
                    sent -= len(buffer)
                    continue
                self._keep([memoryview(buffer)[sent:]])
                sent = 0

    def _keep(self, buffers: list[bytes | memoryview]) -> None:
        for buffer in buffers:
            # A view belongs to a worker's buffer, which the next connection overwrites.
            self._waiting.append(bytes(buffer) if isinstance(buffer, memoryview) else buffer)
            self.waiting_bytes += len(buffer)
