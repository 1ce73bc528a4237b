"""A session's way to its acceptor: the addresses of its target, in turn, or reverse connections of a device.

Every method is called with the session's lock held.
"""

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol

from dicomward.identity.registry import Archive, Device
from dicomward.io.gateway.gate import Address, Gate, Refused
from dicomward.io.gateway.reverse_leg import ReverseLeg
from dicomward.io.gateway.wire import Wire
from dicomward.relay.inputs import Input, Leg, UpstreamFailed, UpstreamOpened
from dicomward.vocab.reason import ReasonCode


class UpstreamOwner(Protocol):
    """What a session does for its way upstream. All but `guarded` with the session's lock held."""

    association: str
    is_over: bool

    def guarded(self, call: Callable[[], None]) -> None:
        """Call something with the lock held."""

    def handle(self, happened: Input) -> None:
        """Give the relay an input."""

    def add_acceptor(self, wire: Wire, *, opening: bool) -> None:
        """Make a wire the acceptor's: one that is still to connect, or one whose handshake is done."""

    def watch_acceptor(self) -> bool:
        """Have the engine watch the acceptor's wire; say if it can be written to now. Raises OSError."""

    def forget(self, leg: Leg) -> None:
        """Close a wire, if there is one."""

    def write(self, leg: Leg, buffers: list[bytes | memoryview]) -> None:
        """Write to a leg, if it is there."""

    def acceptor_gone(self, detail: str) -> None:
        """Tell the relay that the acceptor has gone."""


class Upstream:
    """Where the acceptor is called, and what has become of it. A ReverseOwner."""

    __slots__ = ("_addresses", "_effect_id", "_gate", "_owner", "_target", "association", "reverse")

    def __init__(self, owner: UpstreamOwner, gate: Gate) -> None:
        self._owner = owner
        self._gate = gate
        self._addresses: list[Address] = []
        self._effect_id = 0
        self._target: Archive | Device | None = None
        self.association = owner.association
        self.reverse: ReverseLeg | None = None

    def open(self, effect_id: int, target: Archive | Device) -> None:
        """Call the target: UpstreamOpened or UpstreamFailed comes of it."""
        self._effect_id, self._target = effect_id, target
        if isinstance(target, Device) and target.reverse and self._gate.reverse is not None:
            self.reverse = ReverseLeg(self, self._gate.reverse, target)
            self.reverse.open()
            return
        self._gate.resolve(
            target,
            lambda addresses: self.guarded(lambda: self._resolved(addresses)),
            lambda detail: self.guarded(lambda: self.failed(detail)),
        )

    def give_up(self) -> None:
        """Call nobody any more: an address that is found too late is not called."""
        self._target = None

    def _resolved(self, addresses: Sequence[Address]) -> None:
        self._addresses = list(addresses)
        self.dial()

    def dial(self) -> None:
        """Connect to the next address of the target, unless the relay has given up meanwhile."""
        target = self._target
        if self._owner.is_over or target is None:
            return
        family, address = self._addresses.pop(0)
        try:
            context = self._gate.upstream_context(target)
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                wire = Wire(connection, context, server_side=False)
            except OSError:
                connection.close()
                raise
            self._owner.add_acceptor(wire, opening=True)
            try:
                connection.connect(address)
            except BlockingIOError:
                pass
            is_open = self._owner.watch_acceptor()
        except Refused as refused:
            self.failed(refused.detail, refused.reason)
        except OSError as error:
            self.not_connected(error.strerror or str(error))
        else:
            if is_open:
                self.opened()

    def not_connected(self, detail: str) -> None:
        """Try the target's next address; without one it can't be reached."""
        if self._addresses:
            self._owner.forget(Leg.ACCEPTOR)
            self.dial()
        else:
            self.failed(detail)

    def judge(self, tls: ssl.SSLObject) -> None:
        """Judge whose certificate the acceptor has shown. Raises Refused."""
        certificate = self._gate.upstream_certificates.read(tls)
        if self._target is None:  # INVARIANT: with it, the leg has been given up
            raise Refused(ReasonCode.INTERNAL_ERROR, "nobody knows whom this connection was meant for")
        self._gate.judge_upstream(self._target, certificate)

    def opened(self) -> None:
        """Say that the acceptor is there."""
        self._owner.handle(UpstreamOpened(self._effect_id))

    def failed(self, detail: str, reason: ReasonCode = ReasonCode.UPSTREAM_UNREACHABLE) -> None:
        """Say that there is no acceptor."""
        self._gate.call_failed()
        self._owner.forget(Leg.ACCEPTOR)
        self._owner.handle(UpstreamFailed(self._effect_id, reason, detail))

    def is_replaced(self, detail: str) -> bool:
        """Say if the acceptor's wire, which has ended, gets another one in its place."""
        if self.reverse is None or not self.reverse.is_replaceable(detail):
            return False
        self.reverse.open()
        return True

    def no_longer_allowed(self) -> ReasonCode | None:
        """Return why the registry, as it is now, doesn't allow its connection any more; None if it does."""
        return self.reverse.no_longer_allowed() if self.reverse is not None else None

    # -- ReverseOwner -----------------------------------------------------------------------------------------------

    def guarded(self, call: Callable[[], None]) -> None:
        """Call something with the session's lock held."""
        self._owner.guarded(call)

    def still_wants(self, leg: ReverseLeg) -> bool:
        """Say if the leg is still to be opened."""
        return not self._owner.is_over and self.reverse is leg and self._target is not None

    def use_wire(self, wire: Wire) -> None:
        """Make a wire whose handshake is done the acceptor's."""
        self._owner.add_acceptor(wire, opening=False)
        self._owner.watch_acceptor()

    def send_again(self, buffers: list[bytes | memoryview]) -> None:
        """Write to the acceptor."""
        self._owner.write(Leg.ACCEPTOR, buffers)

    def leg_opened(self) -> None:
        """Say that the acceptor is there."""
        self.opened()

    def leg_failed(self, detail: str, *, was_opened: bool) -> None:
        """Say that there is no acceptor; a relay that was told of one waits for an answer."""
        if was_opened:
            self._owner.acceptor_gone(detail)
        else:
            self.failed(detail)
