"""Segments in order again: whatever way they come, the bytes are those that were sent; what is lost is a gap."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.io.capture import tcp_streams
from dicomward.io.capture.pcap import Segment
from dicomward.io.capture.tcp_streams import MOST_OUT_OF_ORDER_BYTES, Ends, Streams

CLIENT, SERVER = ("10.1.2.3", 40000), ("10.9.0.5", 104)


class Ear:
    """Keeps what it hears."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.heard: list[tuple[tuple[str, int], bytes | int]] = []
        self.is_over = False

    def data(self, source: tuple[str, int], payload: bytes) -> None:
        self.heard.append((source, payload))

    def gap(self, source: tuple[str, int], count: int) -> None:
        self.heard.append((source, count))

    def over(self) -> None:
        self.is_over = True

    def text(self, source: tuple[str, int] = CLIENT) -> bytes:
        return b"".join(each if isinstance(each, bytes) else b"?" for who, each in self.heard if who == source)


def segment(
    sequence: int, payload: bytes = b"", *, first: bool = False, last: bool = False, back: bool = False
) -> Segment:
    source, destination = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    return Segment(*source, *destination, sequence % 2**32, first, last, payload)


def hear(*segments: Segment) -> tuple[list[Ear], Counter[str]]:
    ears: list[Ear] = []

    def listen(ends: Ends) -> Ear:
        ears.append(Ear(ends))
        return ears[-1]

    counts: Counter[str] = Counter()
    Streams(listen, counts).read(segments)
    assert all(ear.is_over for ear in ears)
    return ears, counts


def test_both_directions_are_told_apart() -> None:
    (ear,), counts = hear(
        segment(9, first=True),
        segment(70, first=True, back=True),
        segment(10, b"ask"),
        segment(71, b"answer", back=True),
        segment(13, last=True),
        segment(77, last=True, back=True),
    )
    assert (ear.text(), ear.text(SERVER)) == (b"ask", b"answer")
    assert counts == {"connections": 1}
    assert ear.ends == (CLIENT, SERVER)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12), st.randoms(use_true_random=False), st.integers(0, 2**32 - 1)
)
def test_any_order_with_anything_sent_again_gives_the_bytes(sizes: list[int], random: object, start: int) -> None:
    data = bytes(range(65, 65 + sum(sizes) % 58)) * 2
    parts, at = [], 0
    for size in sizes:
        parts.append(segment(start + 1 + at, data[at : at + size]))
        at += size
    again = [segment(start + 1 + cut, data[cut : cut + 7]) for cut in range(0, at, 5) if cut + 7 <= at]
    shuffled = parts + again
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    (ear,), counts = hear(segment(start, first=True), *shuffled)
    assert ear.text() == data[:at]
    assert counts["gaps in connections"] == 0


def test_what_is_missing_at_the_end_is_a_gap() -> None:
    (ear,), counts = hear(segment(9, first=True), segment(10, b"abc"), segment(15, b"fgh"))
    assert ear.heard == [(CLIENT, b"abc"), (CLIENT, 2), (CLIENT, b"fgh")]
    assert counts["gaps in connections"] == 1


def test_what_waits_is_bounded() -> None:
    size = 60_000
    late = [segment(110 + size * number, bytes(size)) for number in range(MOST_OUT_OF_ORDER_BYTES // size + 3)]
    (ear,), counts = hear(segment(9, first=True), *late)
    assert ear.heard[0] == (CLIENT, 100)
    assert counts["gaps in connections"] == 1


def test_connection_that_began_before_the_capture_is_heard_from_there() -> None:
    (ear,), _ = hear(segment(500, b"middle"), segment(506, b"end"))
    assert ear.text() == b"middleend"


def test_port_that_is_used_again_is_another_connection() -> None:
    ears, _ = hear(
        segment(9, first=True),
        segment(9, first=True),
        segment(10, b"one"),
        segment(9, first=True),
        segment(9000, first=True),
        segment(9001, b"two"),
    )
    assert [ear.text() for ear in ears] == [b"one", b"two"]


def test_late_end_of_a_connection_is_no_new_one() -> None:
    ears, counts = hear(segment(9, last=True))
    assert ears == []
    assert counts == {}


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [Segment("10.1.2.3", 1000 + n, *SERVER, 5, False, n == 0, b"x") for n in range(4)]
    monkeypatch.setattr(tcp_streams, "MOST_CONNECTIONS", 2)
    ears, counts = hear(*many)
    assert len(ears) == 4
    # One of the two that had to go had ended.
    assert counts["connections that were given up: too many at a time"] == 1


def test_longer_copy_of_what_waits_replaces_it() -> None:
    (ear,), _ = hear(
        segment(9, first=True), segment(12, b"c"), segment(12, b"cde"), segment(12, b"cd"), segment(10, b"ab")
    )
    assert ear.text() == b"abcde"
