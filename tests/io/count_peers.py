"""Servers to be counted, on loopback: good ones and hostile ones."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fleet.manifest import Server
from fleet.server import Acceptor

from dicomward.assess.count_query import Caller

CALLER = Caller(
    calling_ae_title="ASSESS", called_ae_title="PACS", implementation_class_uid="1.2.3", implementation_version_name="V"
)


def archive(**values: object) -> Server:
    """Make a simulated server; its address is chosen when it is served."""
    fields = {"address": "127.0.0.1", "port": 0, "country": "DE", "kind": "leaking", "product": 0, "storage": True}
    return Server(**{**fields, "patients": 7, "studies": 23, "days": 30, **values})  # type: ignore[arg-type]


@contextmanager
def serving(serve: Callable[[socket.socket], None], address: str = "127.0.0.1") -> Iterator[int]:
    """Give each connection to `serve` in a thread of its own; yield the port."""
    with socket.create_server((address, 0)) as listener:

        def run(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(20)
                serve(connection)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=run, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def simulated(server: Server, kind: type[Acceptor] = Acceptor) -> Callable[[socket.socket], None]:
    """Serve as a server of the fleet."""
    return lambda connection: kind(server, connection).run()
