"""Reverse connections in a running gateway: devices behind NAT open them, and associations to these devices use them.

A parked connection is a socket, its TLS state and a timer: no thread, no buffer. Lock order: a session's own lock may
be held when one of these methods is called; callbacks are posted, never called from here.
"""

import itertools
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from dicomward.audit.event import AuditEvent, ReverseConnection
from dicomward.dicom.framing import HEADROOM
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.identify import IdentityError
from dicomward.identity.registry import Device, RegistrySnapshot
from dicomward.io.gateway.engine import READ, WRITE, Engine
from dicomward.io.gateway.wire import SCRATCH, Wire, WireClosed
from dicomward.io.system import calls
from dicomward.limits.network import network_of
from dicomward.relay.parked import MOST_OF_A_DEVICE, Parking, judge_parking
from dicomward.vocab.reason import ReasonCode

# Who calls a device whose agent has just lost its line waits so long for the next connection.
WAIT_SECONDS: Final = 5.0
# Nothing stands for ever: its certificate and its place are judged anew every hour.
MOST_SECONDS: Final = 3_600.0
# A connection that was taken shows within so long that somebody is at its other end.
_ALIVE_MILLISECONDS: Final = 5_000
_PARKED_MILLISECONDS: Final = 60_000
_USED_MILLISECONDS: Final = 300_000
_KEEP_ALIVE_SECONDS: Final = 20


def keep_parked(connection: socket.socket) -> None:
    """Have TCP look after a connection on which nothing is said: within a minute it notices a dead line."""
    calls.keep_alive(connection, idle_seconds=_KEEP_ALIVE_SECONDS)
    keep_alive(connection, _PARKED_MILLISECONDS)


def keep_alive(connection: socket.socket, milliseconds: int) -> None:
    """Have TCP give up what nobody has acknowledged for so long; a connection that is gone already has no options."""
    try:
        calls.give_up_after(connection, milliseconds)
    except OSError:
        pass


class Parked:
    """One parked connection. A Channel of the engine."""

    __slots__ = ("_owner", "address", "certificate", "device", "key", "role", "site", "timer", "wire")

    def __init__(
        self,
        owner: "ReverseConnections",
        key: int,
        wire: Wire,
        device: Device,
        certificate: PeerCertificate,
        address: str,
    ) -> None:
        self._owner = owner
        self.key = key
        self.wire = wire
        self.device = device.name
        self.role, self.site = device.role, device.site
        self.certificate = certificate
        self.address = address
        self.timer: int | None = None

    def ready(self, readable: bool, writable: bool) -> None:
        """Look what has come, or what has ended."""
        self._owner.look(self, readable)

    def failed(self) -> None:
        """Close it: an event was not handled."""
        self._owner.end(self, ReasonCode.INTERNAL_ERROR, "an event could not be handled")


class ReverseConnections:
    """All that are parked, and who waits for one."""

    def __init__(
        self,
        engine: Engine,
        *,
        registry: Callable[[], RegistrySnapshot],
        expiry_grace: Callable[[], timedelta],
        clock: Callable[[], datetime],
        record: Callable[[AuditEvent], None],
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._expiry_grace = expiry_grace
        self._clock = clock
        self._record = record
        self._lock = threading.RLock()
        self._keys = itertools.count(1)
        self._parking = Parking()
        self._parked: dict[int, Parked] = {}
        self._waiting: dict[int, Callable[[Parked | None], None]] = {}
        self._is_closed = False

    # -- from the device --------------------------------------------------------------------------------------------

    def judge(self, certificate: PeerCertificate, address: str) -> Device:
        """Return the device that may have a connection parked. Raises IdentityError."""
        return judge_parking(self._registry(), certificate, address, self._clock(), expiry_grace=self._expiry_grace())

    def park(self, wire: Wire, certificate: PeerCertificate, address: str) -> None:
        """Take over a connection whose handshake is done, and that nobody watches. Raises IdentityError."""
        device = self.judge(certificate, address)
        parked = Parked(self, next(self._keys), wire, device, certificate, address)
        with self._lock:
            if self._is_closed:
                raise IdentityError(ReasonCode.DRAINING, "the gateway stops")
            place = self._parking.offer(parked.key, device.name, network_of(address), time.monotonic())
            if place.refusal is not None:
                raise IdentityError(place.refusal, "too many reverse connections of its network, or of all")
            if place.evicted is not None:
                self.end(self._parked[place.evicted], ReasonCode.REVERSE_CONNECTIONS, f"more than {MOST_OF_A_DEVICE}")
            self._tell(parked, "parked")
            if place.waiter is not None:
                self._give(parked, self._waiting.pop(place.waiter))
                return
            self._parked[parked.key] = parked
            try:
                keep_parked(wire.socket)
                self._engine.watch(wire.socket.fileno(), parked, READ | WRITE if wire.is_blocked else READ)
            except OSError as error:
                self.end(parked, ReasonCode.PEER_CLOSED, error.strerror or str(error))
                return
            parked.timer = self._engine.timers.after(MOST_SECONDS, lambda: self.end(parked, None, "its time is over"))

    def look(self, parked: Parked, readable: bool) -> None:
        """Find out why the engine has told of a parked connection: it has ended, or says what it should not."""
        with self._lock:
            if parked.key not in self._parked:
                return
            wire = parked.wire
            try:
                if wire.is_blocked:
                    wire.flush()
                if readable and wire.read(SCRATCH) > HEADROOM:
                    self.end(parked, ReasonCode.UNEXPECTED_PDU, "it said something before it was asked")
                    return
            except (WireClosed, OSError) as error:
                self.end(parked, ReasonCode.PEER_CLOSED, str(error))
                return
            self._engine.arm(wire.socket.fileno(), READ | WRITE if wire.is_blocked else READ)

    # -- to the device ----------------------------------------------------------------------------------------------

    def take(self, device: str, use: Callable[[Parked | None], None]) -> None:
        """Post `use` with a connection of the device, as soon as there is one; with None if there is none for long."""
        with self._lock:
            while (key := self._parking.take(device)) is not None:
                parked = self._parked[key]
                if (reason := self.why_not(parked)) is None:
                    self._forget(parked)
                    self._give(parked, use)
                    return
                self.end(parked, reason, "judged anew before its use")
            if self._is_closed:
                self._engine.post(partial(use, None))
                return
            waiter = next(self._keys)
            self._parking.wait(waiter, device)
            self._waiting[waiter] = use
            self._engine.timers.after(WAIT_SECONDS, lambda: self._waited(waiter, device))

    def _waited(self, waiter: int, device: str) -> None:
        with self._lock:
            if not self._parking.stop_waiting(waiter, device):
                return
            use = self._waiting.pop(waiter)
        use(None)

    def _give(self, parked: Parked, use: Callable[[Parked | None], None]) -> None:
        # If nobody is there any more, its kernel doesn't acknowledge what it is sent.
        keep_alive(parked.wire.socket, _ALIVE_MILLISECONDS)
        self._engine.post(partial(use, parked))

    def give_back(self, parked: Parked) -> None:
        """Park a connection again that nobody wanted in the end."""
        try:
            self.park(parked.wire, parked.certificate, parked.address)
        except IdentityError:
            parked.wire.socket.close()

    def used(self, parked: Parked, association: str) -> None:
        """Note for which association a connection is used."""
        self._tell(parked, "used", association=association)

    def answered(self, parked: Parked) -> None:
        """Note that its device has answered: from now on it is a connection like any other."""
        keep_alive(parked.wire.socket, _USED_MILLISECONDS)

    def died(self, parked: Parked, association: str, detail: str) -> None:
        """Note that a connection which was taken turned out to be dead."""
        self._tell(parked, "closed", association=association, reason=ReasonCode.PEER_CLOSED, detail=detail)

    # -- the registry, lockdown, the end ----------------------------------------------------------------------------

    def why_not(self, parked: Parked) -> ReasonCode | None:
        """Return why the registry, as it is now, doesn't allow a connection any more; None if it does."""
        try:
            device = self.judge(parked.certificate, parked.address)
        except IdentityError as error:
            return error.reason
        return None if device.name == parked.device else ReasonCode.CERTIFICATE_UNKNOWN

    def reconsider(self) -> None:
        """Close what the registry, as it is now, doesn't allow any more."""
        with self._lock:
            for parked in list(self._parked.values()):
                if (reason := self.why_not(parked)) is not None:
                    self.end(parked, reason, "")

    def end_at(self, covers: Callable[[str], bool]) -> None:
        """Close those of the sites that are covered by a lockdown: what is opened anew is judged anew."""
        with self._lock:
            for parked in list(self._parked.values()):
                if covers(parked.site):
                    self.end(parked, ReasonCode.SITE_LOCKDOWN, "")

    def close(self) -> None:
        """Park nothing any more, close all, and let nobody wait."""
        with self._lock:
            self._is_closed = True
            for parked in list(self._parked.values()):
                self.end(parked, ReasonCode.DRAINING, "")
            waiting, self._waiting = self._waiting, {}
            self._parking = Parking()
        for use in waiting.values():
            self._engine.post(partial(use, None))

    def end(self, parked: Parked, reason: ReasonCode | None, detail: str) -> None:
        """Close a parked connection; nothing if it isn't parked any more."""
        with self._lock:
            if parked.key not in self._parked:
                return
            self._parking.remove(parked.key)
            self._forget(parked)
            self._tell(parked, "closed", reason=reason, detail=detail)
            parked.wire.end()
            parked.wire.socket.close()

    def counts(self) -> dict[str, int]:
        """Return how many are parked, by device."""
        with self._lock:
            return self._parking.counts()

    def _forget(self, parked: Parked) -> None:
        del self._parked[parked.key]
        self._engine.forget(parked.wire.socket.fileno())
        if parked.timer is not None:
            self._engine.timers.cancel(parked.timer)

    def _tell(
        self,
        parked: Parked,
        action: str,
        *,
        association: str | None = None,
        reason: ReasonCode | None = None,
        detail: str = "",
    ) -> None:
        self._record(
            ReverseConnection(
                association=association,
                device=parked.device,
                role=parked.role,
                site=parked.site,
                address=parked.address,
                certificate_sha256=parked.certificate.sha256,
                action=action,
                reason=reason,
                detail=detail or None,
            )
        )
