"""A socket that listens, or an error that leaves nothing open; who calls is answered; what is open is ended."""

import errno
import os
import socket
import threading
from typing import cast

import pytest

from dicomward.io.listening import OpenConnections, Reception, bind_and_listen


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_listens_and_says_where(host: str) -> None:
    with bind_and_listen(host, 0, 4) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((host, port), 10):
            connection, _address = listener.accept()
            connection.close()


def test_a_taken_port_is_an_error_that_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="Address already in use"):
            bind_and_listen("127.0.0.1", taken.getsockname()[1], 4)
        assert len(os.listdir("/proc/self/fd")) == before


def test_who_calls_is_answered_until_it_stops() -> None:
    answered: list[str] = []
    done = threading.Event()

    def answer(connection: socket.socket, address: str) -> None:
        answered.append(address)
        connection.close()

    reception = Reception(
        bind_and_listen("127.0.0.1", 0, 4), "here", enter=lambda _: True, answer=answer, leave=lambda _: done.set()
    )
    reception.start()
    with socket.create_connection((reception.host, reception.port), 10) as caller:
        assert caller.recv(1) == b""
    assert done.wait(10)
    reception.stop()
    assert answered == ["127.0.0.1"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((reception.host, reception.port), 10)


def test_one_that_never_began_stops_too() -> None:
    listener = bind_and_listen("127.0.0.1", 0, 4)
    Reception(listener, "here", enter=lambda _: True, answer=lambda *_: None, leave=lambda _: None).stop()
    assert listener.fileno() == -1


def test_a_connection_that_cannot_be_accepted_is_told_and_the_next_one_is(caplog: pytest.LogCaptureFixture) -> None:
    left = threading.Event()
    with bind_and_listen("127.0.0.1", 0, 4) as listener:
        scarce = Scarce(listener)
        reception = Reception(
            cast(socket.socket, scarce),
            "here",
            enter=lambda _: True,
            answer=lambda connection, _: connection.close(),
            leave=lambda _: left.set(),
        )
        reception.start()
        with socket.create_connection((reception.host, reception.port), 10) as caller:
            assert caller.recv(1) == b""
        assert left.wait(10)
        reception.stop()
    assert caplog.messages == ["here: a connection can't be accepted: [Errno 24] too many open files"]


class Scarce:
    """A listener that fails once."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._is_first = True

    def accept(self) -> tuple[socket.socket, object]:
        if self._is_first:
            self._is_first = False
            raise OSError(errno.EMFILE, "too many open files")
        return self._listener.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._listener, name)


def test_connections_are_ended_also_one_that_comes_too_late() -> None:
    opened = OpenConnections()
    pairs = [socket.socketpair() for _ in range(3)]
    (early, _), (gone, _), (late, _) = pairs
    opened.add(early)
    opened.add(gone)
    opened.discard(gone)
    opened.end()
    opened.add(late)
    for (_, peer), is_ended in zip(pairs, (True, False, True), strict=True):
        peer.settimeout(0 if not is_ended else 10)
        if is_ended:
            assert peer.recv(1) == b""
        else:
            with pytest.raises(BlockingIOError):
                peer.recv(1)
    # Once more is no error.
    opened.end()
    for each in (end for pair in pairs for end in pair):
        each.close()
