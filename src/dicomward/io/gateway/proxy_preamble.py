"""Reads the PROXY protocol header of a connection that comes from a named load balancer."""

import socket
import threading
from collections.abc import Callable

from dicomward.dicom.proxy_protocol import ProxyProtocolError, ProxyReader, ProxySource
from dicomward.io.gateway.engine import READ, Engine


class ProxyPreamble:
    """A connection until its header is whole; a Channel of the engine.

    Exactly one is called: `announced` with the source (what comes next is read by others), or `refused` when it has
    been closed, with what was wrong, or None for a health check that has ended without a word.
    """

    def __init__(
        self,
        engine: Engine,
        connection: socket.socket,
        *,
        announced: Callable[[socket.socket, ProxySource], None],
        refused: Callable[[str | None], None],
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._announced = announced
        self._refused = refused
        self._reader = ProxyReader()
        self._source: ProxySource | None = None
        self._lock = threading.Lock()
        self._is_over = False
        self._timer = 0

    def start(self, seconds: float) -> None:
        """Begin to read; the header must be whole in so many seconds. Raises OSError."""
        with self._lock:
            self._connection.setblocking(False)
            self._timer = self._engine.timers.after(seconds, self._late)
            try:
                self._engine.watch(self._connection.fileno(), self, READ)
            except OSError:
                self._end()
                raise

    def ready(self, readable: bool, writable: bool) -> None:
        """Read what is there of the header."""
        with self._lock:
            if self._is_over:
                return
            try:
                goes_on = self._read()
            except ProxyProtocolError as error:
                self._close(str(error))
                return
            if goes_on is None:
                self._engine.arm(self._connection.fileno(), READ)
                return
            if not goes_on:
                self._close(None)
                return
            self._end()
        if self._source is not None:  # INVARIANT: without it, nothing goes on
            self._announced(self._connection, self._source)

    def failed(self) -> None:
        """Close everything: an event was not handled."""
        with self._lock:
            if not self._is_over:
                self._close("an error of ours")

    def _read(self) -> bool | None:
        """Read on. True: who calls is known, and goes on. False: it has left without a word. None: more has to come.

        Raises ProxyProtocolError.
        """
        try:
            while self._source is None:
                data = self._connection.recv(self._reader.wanted)
                if not data:
                    if self._reader.is_empty:
                        return False
                    raise ProxyProtocolError("closed in the middle of its header")
                self._source = self._reader.feed(data)
            # A health check that only connects ends here; what another one sends is left for TLS or DICOM.
            return self._source.address is not None or bool(self._connection.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return None
        except OSError as error:
            if self._source is not None or self._reader.is_empty:
                return False
            raise ProxyProtocolError(error.strerror or str(error)) from error

    def _late(self) -> None:
        with self._lock:
            if not self._is_over:
                self._close(None if self._source is not None else "no header before the deadline")

    def _close(self, problem: str | None) -> None:
        """End it; `problem` is None for a health check."""
        self._end()
        self._connection.close()
        self._refused(problem)

    def _end(self) -> None:
        self._is_over = True
        self._engine.timers.cancel(self._timer)
        self._engine.forget(self._connection.fileno())
