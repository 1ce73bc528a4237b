"""A connection that is there is found, however busy the loop; what isn't there is said in its own words."""

import asyncio
import time

import pytest

from dicomward.io.assess.probe_connect import connect, connect_socket
from tests.io.strange_servers import StrangeServer, answering, silent_port


def test_open_port_is_found_though_the_loop_was_busy() -> None:
    async def work() -> None:
        task = asyncio.create_task(connect_socket("127.0.0.1", server.port, 0.05))
        await asyncio.sleep(0)
        # Far longer than the deadline: the timer and the connection are both due when the loop looks again.
        time.sleep(0.2)
        (await task).close()

    with StrangeServer(answering()) as server:
        asyncio.run(work())


def test_closed_port_is_refused() -> None:
    with StrangeServer(answering()) as server:
        port = server.port
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(connect_socket("127.0.0.1", port, 1))


def test_port_that_does_not_answer_is_silent() -> None:
    with silent_port() as port, pytest.raises(TimeoutError):
        asyncio.run(connect_socket("127.0.0.1", port, 0.1))


def test_streams() -> None:
    async def work() -> bytes:
        reader, writer = await connect("::1", server.port, 1)
        writer.write(b"hello")
        data = await reader.read()
        writer.close()
        await writer.wait_closed()
        return data

    with StrangeServer(answering(b"there"), host="::1") as server:
        assert asyncio.run(work()) == b"there"
