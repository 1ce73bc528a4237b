"""The long line of P6 delays, keeps to its rate, and loses what chance says; else the benchmark says nothing."""

import os
import socket
import threading
import time

import pytest

from tests.real.long_line import FAR, LongLine, LongLineError, Way


def deliver(way: Way, end: int, now: float) -> list[bytes]:
    way.deliver(now)
    os.set_blocking(end, False)
    try:
        return os.read(end, 65536).split(b"|")[:-1]
    except BlockingIOError:
        return []


def test_packet_comes_out_after_the_delay_and_its_turn_at_the_rate() -> None:
    end, to = os.pipe()
    way = Way(to, delay_seconds=1.0, bytes_per_second=10.0)
    assert way.next_due() is None
    for packet in (b"aaaa|", b"bbbb|"):
        way.take(packet, 100.0)
    assert way.next_due() == 101.5
    assert deliver(way, end, 101.4) == []
    assert deliver(way, end, 101.5) == [b"aaaa"]
    assert deliver(way, end, 101.9) == []
    assert deliver(way, end, 102.0) == [b"bbbb"]
    # What comes when nobody is before it waits for nobody.
    way.take(b"cccc|", 200.0)
    assert way.next_due() == 201.5
    os.close(end)
    os.close(to)


def send_over(line: LongLine, data: bytes) -> float:
    """Send to the far end and wait until all of it is there; return the seconds."""
    with line.far_end():
        listener = socket.create_server((FAR, 0))

    def read() -> None:
        connection, _peer = listener.accept()
        with connection:
            while connection.recv(65536):
                pass
            connection.sendall(b"\0")

    thread = threading.Thread(target=read)
    thread.start()
    began = time.monotonic()
    with socket.create_connection(listener.getsockname(), 20) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"\0"
    seconds = time.monotonic() - began
    thread.join()
    listener.close()
    return seconds


# In one test: there can be one line at a time in a namespace.
@pytest.mark.skipif(os.environ.get("DICOMWARD_LOOPBACK_ONLY") != "yes", reason="needs a network namespace of its own")
def test_line_takes_its_round_trips_and_the_time_of_the_bytes_and_loses_packets() -> None:
    try:
        line = LongLine(delay_seconds=0.02, bytes_per_second=1_000_000)
    except LongLineError as error:
        pytest.skip(f"no line here: {error}")
    # A round trip for the connection, and one for the answer.
    assert send_over(line, b"x") >= 4 * 0.02
    assert send_over(line, bytes(200_000)) >= 4 * 0.02 + 0.2
    assert line.close() == 0
    line = LongLine(delay_seconds=0.001, loss=0.05)
    send_over(line, bytes(500_000))
    assert line.close() > 0
