"""The requestor of a session until it is identified: is it TLS, has it proved a key, and how it is sent away.

Every method is called with the session's lock held.
"""

import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Protocol

from dicomward.dicom.framing import HEADROOM
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.identify import IdentityError
from dicomward.io.gateway.engine import Engine
from dicomward.io.gateway.gate import Gate, UnprovedSession
from dicomward.io.gateway.listeners import NamedListener
from dicomward.io.gateway.wire import SCRATCH, Wire, WireClosed
from dicomward.relay.inputs import Listener
from dicomward.vocab.reason import ReasonCode

_TLS_HANDSHAKE = 0x16


class StrangerOwner(UnprovedSession, Protocol):
    """What a session does for its requestor before it is identified. All but `guarded` with the session's lock held."""

    is_over: bool

    def guarded(self, call: Callable[[], None]) -> None:
        """Call something with the lock held."""

    def part_with_requestor(self) -> None:
        """Stop the deadline, and watch the requestor's wire no more; it stays open."""

    def over(self) -> None:
        """Be over."""


class Stranger:
    """A connection to a listener, of which nobody knows yet whose it is."""

    __slots__ = ("_engine", "_first_byte_seen", "_gate", "_held", "_is_dropped", "_listener", "_owner", "_tls", "wire")

    def __init__(
        self,
        owner: StrangerOwner,
        engine: Engine,
        gate: Gate,
        listener: NamedListener,
        connection: socket.socket | Wire,
    ) -> None:
        """Take a socket, or a wire whose handshake is done."""
        self._owner = owner
        self._engine = engine
        self._gate = gate
        self._listener = listener
        self._tls = tls = gate.listener_context(listener)
        if isinstance(connection, Wire):
            self.wire = connection
        else:
            self.wire = Wire(connection, tls.context if tls else None, server_side=True)
        self._first_byte_seen = self.wire.tls is None
        self._is_dropped = False
        self._held: int | None = None

    def has_begun_tls(self) -> bool:
        """Tell TLS from plaintext, which is dropped, by the first byte, so that the log can say so.

        False also while nothing has come. True where the listener has no TLS.
        """
        if self._first_byte_seen:
            return True
        first = self.wire.first_byte()
        if first is None:
            return False
        self._first_byte_seen = True
        if first == _TLS_HANDSHAKE:
            return True
        kind = "a plaintext DICOM association" if first == 1 else "no TLS"
        self.drop(ReasonCode.NOT_TLS, f"{kind}: first byte {first:02X}H", hold=True)
        return False

    def certificate(self, tls: ssl.SSLObject) -> PeerCertificate | None:
        """Return the certificate that was shown in a handshake that is done."""
        return self._tls.certificates.read(tls) if self._tls else None

    def key_proved(self, certificate: PeerCertificate) -> None:
        """Note that it has a key that our CA vouches for."""
        evicted = self._gate.key_proved(self._owner, certificate.sha256)
        if evicted is not None:
            # Its lock may be held by somebody who waits for ours.
            self._engine.post(partial(evicted.end, ReasonCode.ADDRESS_DELAY))

    def park(self, certificate: PeerCertificate | None) -> None:
        """Give the wire to those that wait for associations to their device: that is the end of this session."""
        if certificate is not None:
            self.key_proved(certificate)
        try:
            if self._listener.kind is not Listener.DEVICE or certificate is None:
                raise IdentityError(ReasonCode.REVERSE_NOT_REGISTERED, "reverse connections are of devices")
            if self.wire.pending(SCRATCH) > HEADROOM:
                raise IdentityError(ReasonCode.UNEXPECTED_PDU, "it said something before it was asked")
            reverse = self._gate.reverse
            if reverse is None:
                raise IdentityError(ReasonCode.REVERSE_NOT_REGISTERED, "nobody is called over them here")
            reverse.judge(certificate, self._owner.address)
            self._owner.part_with_requestor()
            reverse.park(self.wire, certificate, self._owner.address)
        except IdentityError as error:
            self.drop(error.reason, f"reverse connection: {error.detail}", hold=False, certificate=certificate)
            return
        self._owner.over()

    def drop(self, reason: ReasonCode, detail: str, *, hold: bool, certificate: PeerCertificate | None = None) -> None:
        """End the connection, and with it the session; the answer may be held back for a while."""
        if self._is_dropped:
            # It is held back already, and whoever asks now doesn't want to wait for it.
            self._let_go()
            return
        self._is_dropped = True
        self._gate.connection_failed(self._owner.address, certificate, reason, detail)
        seconds = self._gate.stranger_failed(self._owner) if hold else 0.0
        self._owner.part_with_requestor()
        if seconds > 0:
            self._held = self._engine.timers.after(seconds, lambda: self._owner.guarded(self._let_go))
        else:
            self._let_go()

    def _let_go(self) -> None:
        """Send the alert, if there is one, and close."""
        if self._owner.is_over:
            return
        self._stop_holding()
        try:
            self.wire.flush()
            self.wire.socket.shutdown(socket.SHUT_WR)
        except (OSError, WireClosed):
            pass
        self.wire.socket.close()
        self._owner.over()

    def _stop_holding(self) -> None:
        if self._held is not None:
            self._engine.timers.cancel(self._held)
            self._held = None

    def failed(self) -> None:
        """Close what was dropped and is still held back, after a defect of ours."""
        if self._is_dropped:
            self._stop_holding()
            self.wire.socket.close()
