"""Servers on loopback that do what no server should: they drip, flood, announce gigabytes, or say nothing."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

Handler = Callable[[socket.socket], None]


class StrangeServer:
    """Listens on a port of its own; each connection gets a thread that runs the handler. `calls` counts them."""

    def __init__(self, handler: Handler, *, host: str = "127.0.0.1") -> None:
        self._handler = handler
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._open: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.calls = 0
        self.stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> "StrangeServer":
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._handler(connection)


def chunks(connection: socket.socket) -> Iterator[bytes]:
    """Yield what comes until the peer hangs up."""
    while data := connection.recv(65536):
        yield data


def answering(*answers: bytes) -> Handler:
    """Return a handler that gives one answer to each thing that it hears, and then hangs up."""

    def handle(connection: socket.socket) -> None:
        for answer, _ in zip(answers, chunks(connection), strict=False):
            connection.sendall(answer)

    return handle


@contextmanager
def silent_port() -> Iterator[int]:
    """Yield a port that answers nothing: the queue of its listener is full, so the kernel drops what comes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
