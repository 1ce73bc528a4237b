"""A socket that listens, or an error that leaves nothing open."""

import os
import socket

import pytest

from dicomward.io.listening import bind_and_listen


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
