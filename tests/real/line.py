"""A line between two ports of this machine: it can be cut, and it can be long. In user space: no netem."""

import heapq
import socket
import threading
import time
from itertools import count

from tests.real.processes import LOOPBACK, free_port

_READ_BYTES = 64 * 1024


class Line:
    """Connections to `port` go to `target`; each byte arrives `delay_seconds` later, each way."""

    def __init__(self, target: int, *, delay_seconds: float = 0.0) -> None:
        self.port = free_port()
        self.connections = 0
        self._target = target
        self._delay = delay_seconds
        self._up = True
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._ways: list[_Way] = []
        self._listener = socket.create_server((LOOPBACK, self.port), backlog=128)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """End every connection, and accept none until `mend`."""
        with self._lock:
            self._up = False
            for each in self._open:
                _end(each)

    def mend(self) -> None:
        """Accept connections again."""
        with self._lock:
            self._up = True

    def close(self) -> None:
        """End it."""
        self.cut()
        _end(self._listener)
        self._listener.close()
        self._thread.join()
        for way in self._ways:
            way.join()
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _peer = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._up:
                    near.close()
                    continue
            try:
                far = socket.create_connection((LOOPBACK, self._target))
            except OSError:
                near.close()
                continue
            self.connections += 1
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ways.append(_Way(source, sink, self._delay))


class _Way:
    """One direction."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay: float) -> None:
        self._source, self._sink, self._delay = source, sink, delay
        self._queue: list[tuple[float, int, bytes]] = []
        self._serial = count()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._read, self._write)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until nothing comes any more."""
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        data = b"more"
        while data:
            try:
                data = self._source.recv(_READ_BYTES)
            except OSError:
                data = b""
            with self._changed:
                heapq.heappush(self._queue, (time.monotonic() + self._delay, next(self._serial), data))
                self._changed.notify()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                due, _serial, data = heapq.heappop(self._queue)
            time.sleep(max(due - time.monotonic(), 0.0))
            try:
                if not data:
                    self._sink.shutdown(socket.SHUT_WR)
                    return
                self._sink.sendall(data)
            except OSError:
                _end(self._source)
                return


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
