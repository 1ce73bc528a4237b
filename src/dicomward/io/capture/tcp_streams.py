"""TCP segments put in order again, in bounded memory: late, doubled and overlapping ones; what is missing is a gap."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from dicomward.io.capture.pcap import Segment

MOST_OUT_OF_ORDER_BYTES: Final = 512 * 1024
"""Bytes of one direction that wait for what is missing; then it counts as lost."""
MOST_CONNECTIONS: Final = 20_000
"""Connections that are followed at a time; the one that was quiet longest is given up."""

_WRAP: Final = 1 << 32
_HALF: Final = 1 << 31

Ends = tuple[tuple[str, int], tuple[str, int]]
"""Source and destination of a direction, each an address and a port."""


class Listener(Protocol):
    """Who hears one connection; `source` tells the directions apart."""

    def data(self, source: tuple[str, int], payload: bytes) -> None:
        """Hear the next bytes of a direction."""

    def gap(self, source: tuple[str, int], count: int) -> None:
        """Hear that so many bytes of a direction are missing."""

    def over(self) -> None:
        """Hear that nothing more comes."""


@dataclass(slots=True)
class _Direction:
    """One direction: `first` is the number of its SYN, `next_sequence` is None before its first segment."""

    first: int | None = None
    next_sequence: int | None = None
    waiting: dict[int, bytes] = field(default_factory=dict)
    waiting_bytes: int = 0


@dataclass(slots=True)
class _Connection:
    listener: Listener
    directions: dict[tuple[str, int], _Direction] = field(default_factory=dict)
    ended: set[tuple[str, int]] = field(default_factory=set)


class Streams:
    """Puts segments in order; each connection has a listener of its own."""

    def __init__(self, listen: Callable[[Ends], Listener], counts: Counter[str]) -> None:
        """`listen` is called with the ends of the first segment of a connection."""
        self._listen = listen
        self._counts = counts
        self._connections: OrderedDict[frozenset[tuple[str, int]], _Connection] = OrderedDict()

    def read(self, segments: Iterable[Segment]) -> None:
        """Read all segments, and end what is open."""
        for segment in segments:
            self._take(segment)
        for key in list(self._connections):
            self._end(key)

    def _take(self, segment: Segment) -> None:
        source = (segment.source, segment.source_port)
        destination = (segment.destination, segment.destination_port)
        key = frozenset((source, destination))
        connection = self._connections.get(key)
        if connection is not None and segment.is_first and self._is_new(connection, source, segment):
            # The port is used again.
            self._end(key)
            connection = None
        if connection is None:
            if segment.is_last and not segment.payload:
                return
            self._counts["connections"] += 1
            connection = _Connection(self._listen((source, destination)))
            self._connections[key] = connection
            if len(self._connections) > MOST_CONNECTIONS:
                self._give_up()
        self._connections.move_to_end(key)
        self._order(connection, source, segment)
        if segment.is_last:
            connection.ended.add(source)

    def _give_up(self) -> None:
        """Make place: the connection that was quiet longest is over, whether it has ended or not."""
        key, connection = next(iter(self._connections.items()))
        if not connection.ended:
            self._counts["connections that were given up: too many at a time"] += 1
        self._end(key)

    def _is_new(self, connection: _Connection, source: tuple[str, int], segment: Segment) -> bool:
        known = connection.directions.get(source)
        return known is not None and known.next_sequence is not None and known.first != segment.sequence

    def _order(self, connection: _Connection, source: tuple[str, int], segment: Segment) -> None:
        direction = connection.directions.setdefault(source, _Direction())
        sequence, payload = segment.sequence, segment.payload
        if segment.is_first:
            # A SYN takes a number of its own.
            direction.first = sequence
            sequence = (sequence + 1) % _WRAP
            if direction.next_sequence is None:
                direction.next_sequence = sequence
        if not payload:
            return
        if direction.next_sequence is None:
            direction.next_sequence = sequence
        ahead = (sequence - direction.next_sequence) % _WRAP
        if ahead >= _HALF:
            # Sent again: what is known of it is dropped.
            payload = payload[_WRAP - ahead :]
            ahead = 0
        if ahead == 0:
            self._deliver(connection, source, direction, payload)
        elif sequence not in direction.waiting or len(direction.waiting[sequence]) < len(payload):
            direction.waiting_bytes += len(payload) - len(direction.waiting.get(sequence, b""))
            direction.waiting[sequence] = payload
            if direction.waiting_bytes > MOST_OUT_OF_ORDER_BYTES:
                self._skip_gap(connection, source, direction)

    def _deliver(self, connection: _Connection, source: tuple[str, int], direction: _Direction, payload: bytes) -> None:
        """Pass bytes on, and what has waited for them."""
        while payload and direction.next_sequence is not None:
            connection.listener.data(source, payload)
            direction.next_sequence = (direction.next_sequence + len(payload)) % _WRAP
            payload = self._next_waiting(direction)

    def _next_waiting(self, direction: _Direction) -> bytes:
        """Return what goes on at the next number, without what is known already; empty if nothing does."""
        for sequence in sorted(direction.waiting, key=lambda number: (number - (direction.next_sequence or 0)) % _WRAP):
            behind = ((direction.next_sequence or 0) - sequence) % _WRAP
            if behind >= _HALF:
                continue
            payload = direction.waiting.pop(sequence)
            direction.waiting_bytes -= len(payload)
            if len(payload) > behind:
                return payload[behind:]
        return b""

    def _skip_gap(self, connection: _Connection, source: tuple[str, int], direction: _Direction) -> None:
        """Take what is missing as lost, and go on behind it."""
        first = min(direction.waiting, key=lambda number: (number - (direction.next_sequence or 0)) % _WRAP)
        missing = (first - (direction.next_sequence or 0)) % _WRAP
        self._counts["gaps in connections"] += 1
        connection.listener.gap(source, missing)
        direction.next_sequence = first
        self._deliver(connection, source, direction, self._next_waiting(direction))

    def _end(self, key: frozenset[tuple[str, int]]) -> None:
        connection = self._connections.pop(key)
        for source, direction in connection.directions.items():
            while direction.waiting:
                self._skip_gap(connection, source, direction)
        connection.listener.over()
