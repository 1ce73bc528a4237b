"""What all sessions of a gateway share: snapshots, limits, correlations, TLS contexts, the audit log. Thread-safe.

It is the relay's `World`, with every port behind a lock, and the sessions' access to everything outside.
"""

import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from dicomward.audit.event import AuditEvent, DegradedEntered, SecurityAlert
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.registry import Archive, Device, Endpoint, RegistrySnapshot
from dicomward.io.correlations import CorrelationStore
from dicomward.io.tls import PeerCertificates
from dicomward.limits.book import LimitBook
from dicomward.limits.strangers import StrangerBook
from dicomward.policy.model import Policy
from dicomward.relay.correlations import PendingCommitment, PendingMove
from dicomward.relay.inputs import Listener
from dicomward.relay.world import RelaySettings
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

# A device's network may hold somebody who fails, but never makes its devices wait for long.
_HOLD_REGISTERED_SECONDS = 1.0
_MOST_HELD = 512
_MOST_UNPROVED_AN_ADDRESS = 256
_RESOLVED_SECONDS = 30.0


class Refused(Exception):
    """A peer that we call is not who it should be, or may not be called like this."""

    def __init__(self, reason: ReasonCode, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class AuditSink(Protocol):
    """The audit log."""

    def append(self, event: AuditEvent) -> object:
        """Write an event; durable within 100 ms."""

    def append_durable(self, event: AuditEvent, done: Callable[[bool], None]) -> object:
        """Write an event and call back when it is durable (True) or can't be written anywhere (False)."""


class UnprovedSession(Protocol):
    """What the gate needs of a session."""

    address: str
    association: str

    def end(self, reason: ReasonCode) -> bool:
        """End it."""


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """TLS of one listener."""

    context: ssl.SSLContext
    certificates: PeerCertificates


class LockedLimits:
    """`LimitBook` and `StrangerBook` behind one lock."""

    def __init__(self, book: LimitBook, strangers: StrangerBook) -> None:
        self._book = book
        self._strangers = strangers
        self._lock = threading.Lock()

    def known_devices(self, names: frozenset[str]) -> None:
        """Say which devices are registered."""
        with self._lock:
            self._book.known_devices(names)

    def admit_association(
        self, *, device: str, role: str, network: str, archive: str, floor: bool, now: float
    ) -> ReasonCode | None:
        """See LimitBook."""
        with self._lock:
            return self._book.admit_association(
                device=device, role=role, network=network, archive=archive, floor=floor, now=now
            )

    def release_association(self, *, device: str, network: str, archive: str, floor: bool) -> None:
        """See LimitBook."""
        with self._lock:
            self._book.release_association(device=device, network=network, archive=archive, floor=floor)

    def take_operation(
        self, *, device: str, role: str, network: str, operation: Operation, sop_class_uid: str, now: float
    ) -> ReasonCode | None:
        """See LimitBook."""
        with self._lock:
            return self._book.take_operation(
                device=device, role=role, network=network, operation=operation, sop_class_uid=sop_class_uid, now=now
            )

    def matches_allowed(self, role: str, floor: bool, device: str = "") -> int:
        """See LimitBook."""
        with self._lock:
            return self._book.matches_allowed(role, floor, device)

    def take_bytes(self, *, device: str, network: str, count: int, now: float, floor: bool = False) -> float:
        """See LimitBook."""
        with self._lock:
            return self._book.take_bytes(device=device, network=network, count=count, now=now, floor=floor)

    def note_certificate_failure(self, sha256: str, now: float) -> float:
        """See StrangerBook."""
        with self._lock:
            return self._strangers.note_certificate_failure(sha256, now)

    def certificate_back_off(self, sha256: str, now: float) -> float:
        """See StrangerBook."""
        with self._lock:
            return self._strangers.certificate_back_off(sha256, now)

    def note_stranger_failure(self, address: str, now: float) -> float:
        """See StrangerBook."""
        with self._lock:
            return self._strangers.note_stranger_failure(address, now)

    def note_success(self, address: str, now: float) -> None:
        """See StrangerBook."""
        with self._lock:
            self._strangers.note_success(address, now)


class Gate:
    """What is true now, for every relay and session."""

    def __init__(
        self,
        *,
        settings: RelaySettings,
        registry: RegistrySnapshot,
        policy: Policy,
        limits: LockedLimits,
        correlations: CorrelationStore,
        audit: AuditSink,
        device_tls: ListenerTls,
        archive_tls: ListenerTls | None,
        client_tls: ssl.SSLContext,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.policy = policy
        self.limits = limits
        self.correlations = correlations
        self._audit = audit
        self._tls = {Listener.DEVICE: device_tls, Listener.ARCHIVE: archive_tls}
        self._client_tls = client_tls
        self.upstream_certificates = PeerCertificates(None)
        self._lock = threading.Lock()
        self._unproved: dict[str, OrderedDict[str, UnprovedSession]] = {}
        self._held = 0
        self._floor_reason: ReasonCode | None = None
        self._sessions: dict[str, UnprovedSession] = {}
        self._empty = threading.Condition(self._lock)
        self._resolver = ThreadPoolExecutor(2, "dicomward-resolver")
        self._resolved: dict[tuple[str, int], tuple[float, tuple[int, tuple[object, ...]]]] = {}
        limits.known_devices(frozenset(device.name for device in registry.devices))

    # -- our own state ----------------------------------------------------------------------------------------------

    def floor_reason(self) -> ReasonCode | None:
        """Why only the clinical floor is left to everybody now, or None."""
        return self._floor_reason

    def narrow(self, reason: ReasonCode | None) -> None:
        """Enter (or leave, with None) the state in which only the clinical floor is left."""
        self._floor_reason = reason

    def use_registry(self, registry: RegistrySnapshot) -> None:
        """Swap the registry."""
        self.registry = registry
        self.limits.known_devices(frozenset(device.name for device in registry.devices))

    def component_failed(self, component: str, detail: str) -> None:
        """Record that something of ours doesn't work."""
        self.record(DegradedEntered(component=component, state="memory-only", detail=detail))

    # -- sessions ---------------------------------------------------------------------------------------------------

    def session_began(self, session: UnprovedSession) -> UnprovedSession | None:
        """Count a new connection; return one to end instead, if its address has too many that prove nothing."""
        with self._lock:
            self._sessions[session.association] = session
            of_address = self._unproved.setdefault(session.address, OrderedDict())
            of_address[session.association] = session
            if len(of_address) <= _MOST_UNPROVED_AN_ADDRESS:
                return None
            return of_address.popitem(last=False)[1]

    def key_proved(self, session: UnprovedSession) -> None:
        """Note that a connection has proved a key that our CA vouches for."""
        self._no_longer_unproved(session)
        self.limits.note_success(session.address, time.monotonic())

    def stranger_failed(self, session: UnprovedSession) -> float:
        """Return for how long the answer to a failed connection is held back."""
        seconds = self.limits.note_stranger_failure(session.address, time.monotonic())
        if self.registry.is_registered_address(session.address):
            seconds = min(seconds, _HOLD_REGISTERED_SECONDS)
        with self._lock:
            held = len(self._sessions)
        return seconds if held < _MOST_HELD else 0.0

    def relay_finished(self, session: UnprovedSession) -> None:
        """Note that a relay is over, though its connections may linger."""
        self._no_longer_unproved(session)

    def session_over(self, session: UnprovedSession) -> None:
        """Forget a session."""
        self._no_longer_unproved(session)
        with self._empty:
            self._sessions.pop(session.association, None)
            if not self._sessions:
                self._empty.notify_all()

    def sessions(self) -> list[UnprovedSession]:
        """Return the sessions that are open now."""
        with self._lock:
            return list(self._sessions.values())

    def wait_until_empty(self, seconds: float) -> bool:
        """Wait until no session is left; False if some are after so many seconds."""
        with self._empty:
            return self._empty.wait_for(lambda: not self._sessions, seconds)

    def _no_longer_unproved(self, session: UnprovedSession) -> None:
        with self._lock:
            of_address = self._unproved.get(session.address)
            if of_address is not None:
                of_address.pop(session.association, None)
                if not of_address:
                    del self._unproved[session.address]

    # -- audit and correlations -------------------------------------------------------------------------------------

    def record(self, event: AuditEvent) -> None:
        """Write an audit event."""
        self._audit.append(event)

    def record_durably(self, event: AuditEvent, done: Callable[[bool], None]) -> None:
        """Write an audit event and call back."""
        self._audit.append_durable(event, done)

    def defect(self, session: UnprovedSession) -> None:
        """Record that a defect of ours ended an association."""
        self.record(
            SecurityAlert(
                association=session.association,
                address=session.address,
                reason=ReasonCode.INTERNAL_ERROR,
                detail="a defect of the gateway ended this association; please report the traceback in its log",
            )
        )

    def register_move(self, move: PendingMove, done: Callable[[bool], None]) -> None:
        """See CorrelationStore."""
        self.correlations.register_move(move, done)

    def register_commitment(self, commitment: PendingCommitment, done: Callable[[bool], None]) -> None:
        """See CorrelationStore."""
        self.correlations.register_commitment(commitment, done)

    # -- upstream ---------------------------------------------------------------------------------------------------

    def listener_context(self, listener: Listener) -> ListenerTls | None:
        """TLS of a listener; None for a plaintext archive side."""
        return self._tls[listener]

    def upstream_context(self, target: Archive | Device) -> ssl.SSLContext | None:
        """TLS towards a target; None where plaintext is allowed. Raises Refused where neither is possible."""
        if isinstance(target, Device):
            return None if target.plain else self._client_tls
        if target.tls:
            return self._client_tls
        if target.dedicated_link or _is_loopback(target.endpoint.host):
            return None
        raise Refused(
            ReasonCode.UPSTREAM_NOT_TRUSTED,
            f"archive {target.name!r} has no TLS, isn't on loopback, and its link isn't declared as dedicated",
        )

    def judge_upstream(self, target: Archive | Device, certificate: PeerCertificate | None) -> None:
        """Compare the certificate of a peer that we have called with what the registry binds. Raises Refused."""
        shown = certificate.sha256 if certificate else "none"
        if isinstance(target, Archive):
            if certificate is None or certificate.sha256 != target.certificate_sha256:
                raise Refused(
                    ReasonCode.UPSTREAM_NOT_TRUSTED,
                    f"archive {target.name!r} shows certificate {shown}, not the pinned one",
                )
            return
        record = target.certificate(shown)
        if record is None or record.status != "active":
            raise Refused(
                ReasonCode.UPSTREAM_NOT_TRUSTED,
                f"device {target.name!r} shows certificate {shown}, which isn't bound to it, or is revoked",
            )

    def resolve(
        self,
        target: Archive | Device,
        dial: Callable[[int, tuple[object, ...]], None],
        failed: Callable[[str], None],
    ) -> None:
        """Find a target's address and dial; a name is looked up in a thread that may wait."""
        endpoint = target.endpoint if isinstance(target, Archive) else target.address
        if endpoint is None:
            failed(f"{target.name!r} has no address")
            return
        known = self._resolved.get((endpoint.host, endpoint.port))
        if known is not None and known[0] > time.monotonic():
            dial(*known[1])
        elif _is_numeric(endpoint.host):
            self._look_up(endpoint, dial, failed)
        else:
            self._resolver.submit(self._look_up, endpoint, dial, failed)

    def close(self) -> None:
        """Stop the resolver."""
        self._resolver.shutdown(cancel_futures=True)

    def _look_up(
        self,
        endpoint: Endpoint,
        dial: Callable[[int, tuple[object, ...]], None],
        failed: Callable[[str], None],
    ) -> None:
        try:
            family, _type, _protocol, _name, address = socket.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_STREAM
            )[0]
        except OSError as error:
            failed(f"{endpoint.host}: {error}")
            return
        found = (int(family), tuple(address))
        self._resolved[(endpoint.host, endpoint.port)] = (time.monotonic() + _RESOLVED_SECONDS, found)
        dial(*found)


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_numeric(host) and ipaddress.ip_address(host.partition("%")[0]).is_loopback)
