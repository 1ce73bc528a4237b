"""A session's leg towards a device over reverse connections: until the device answers, a dead one is replaced."""

from collections.abc import Callable
from typing import Protocol

from dicomward.identity.registry import Device
from dicomward.io.gateway.reverse import WAIT_SECONDS, Parked, ReverseConnections
from dicomward.io.gateway.wire import Wire
from dicomward.relay.parked import MOST_OF_A_DEVICE
from dicomward.vocab.reason import ReasonCode


class ReverseOwner(Protocol):
    """What a session does for its reverse leg. All but `guarded` with the session's lock held."""

    association: str

    def guarded(self, call: Callable[[], None]) -> None:
        """Call something with the lock held."""

    def still_wants(self, leg: "ReverseLeg") -> bool:
        """Say if the leg is still to be opened."""

    def use_wire(self, wire: Wire) -> None:
        """Watch a wire as the acceptor's."""

    def send_again(self, buffers: list[bytes | memoryview]) -> None:
        """Write to the acceptor."""

    def leg_opened(self) -> None:
        """Say that the acceptor is there."""

    def leg_failed(self, detail: str, *, was_opened: bool) -> None:
        """Say that there is no acceptor."""


class ReverseLeg:
    """Which connection is used, and what was sent on it."""

    __slots__ = ("_owner", "_parked", "_reverse", "_sent", "_target", "_tries", "is_answered")

    def __init__(self, owner: ReverseOwner, reverse: ReverseConnections, target: Device) -> None:
        self._owner = owner
        self._reverse = reverse
        self._target = target
        self._parked: Parked | None = None
        self._tries = 0
        self._sent: list[bytes] = []
        self.is_answered = False

    def open(self) -> None:
        """Wait for a connection, and use it."""
        self._reverse.take(self._target.name, lambda parked: self._owner.guarded(lambda: self._taken(parked)))

    def _taken(self, parked: Parked | None) -> None:
        if not self._owner.still_wants(self):
            if parked is not None:
                self._reverse.give_back(parked)
            return
        is_first = self._parked is None
        if parked is None:
            detail = f"no reverse connection of {self._target.name!r} within {WAIT_SECONDS:g} s: does its agent run?"
            self._owner.leg_failed(detail, was_opened=not is_first)
            return
        self._parked = parked
        self._tries += 1
        self._owner.use_wire(parked.wire)
        self._reverse.used(parked, self._owner.association)
        if is_first:
            self._owner.leg_opened()
        else:
            sent, self._sent = self._sent, []
            self._owner.send_again([*sent])

    def wrote(self, buffers: list[bytes | memoryview]) -> None:
        """Keep what is sent before the answer: the A-ASSOCIATE-RQ."""
        if not self.is_answered:
            self._sent += [bytes(buffer) for buffer in buffers]

    def answered(self) -> None:
        """Note that something has come: whoever is there is alive."""
        if not self.is_answered and self._parked is not None:
            self.is_answered = True
            self._sent.clear()
            self._reverse.answered(self._parked)

    def is_replaceable(self, detail: str) -> bool:
        """Note that the connection has ended; say if that was before any answer, so that the next one may do."""
        if self.is_answered or self._parked is None:
            return False
        self._reverse.died(self._parked, self._owner.association, detail)
        return self._tries <= MOST_OF_A_DEVICE

    def no_longer_allowed(self) -> ReasonCode | None:
        """Return why the registry, as it is now, doesn't allow its connection any more; None if it does."""
        return self._reverse.why_not(self._parked) if self._parked is not None else None
