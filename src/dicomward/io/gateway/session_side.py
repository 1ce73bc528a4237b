"""One of the wires of a session, as the engine sees it."""

from typing import Final, Protocol

from dicomward.io.gateway.wire import Wire
from dicomward.relay.inputs import Leg

DISARMED: Final = -1
"""What an engine that watches nothing was asked for."""


class SideOwner(Protocol):
    """The session."""

    def ready(self, side: "Side", readable: bool, writable: bool) -> None:
        """Handle an event on one of the wires."""

    def failed(self) -> None:
        """Close everything after a defect of ours."""


class Side:
    """One wire of a session, and what the engine was last asked to watch it for. A Channel of the engine."""

    __slots__ = ("armed", "descriptor", "handshaking", "leg", "linger", "opening", "paused", "session", "wire")

    def __init__(self, session: "SideOwner", leg: Leg, wire: Wire) -> None:
        self.session = session
        self.leg = leg
        self.wire = wire
        self.descriptor = wire.socket.fileno()
        self.armed = DISARMED
        self.paused = False
        self.handshaking = wire.tls is not None
        self.opening = False
        self.linger: int | None = None

    def ready(self, readable: bool, writable: bool) -> None:
        """Handle an event of the engine."""
        self.session.ready(self, readable, writable)

    def failed(self) -> None:
        """Close everything: an event was not handled."""
        self.session.failed()
