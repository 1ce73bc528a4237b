"""What all sessions of a gateway share: snapshots, limits, correlations, TLS contexts, the audit log. Thread-safe.

It is the relay's `World`, with every port behind a lock, and the sessions' access to everything outside.
"""

import ipaddress
import logging
import random
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from dicomward.audit.event import AssociationAllowed, AssociationEnded, AuditEvent, ConnectionFailed, SecurityAlert
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.lockdown import NO_LOCKDOWN
from dicomward.identity.network import NetworkSet
from dicomward.identity.person import PersonClaim, PersonUnavailable, Verdict
from dicomward.identity.registry import Archive, Device, Endpoint, RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.io.gateway.correlations import CorrelationStore
from dicomward.io.gateway.listeners import NamedListener
from dicomward.io.gateway.reverse import ReverseConnections
from dicomward.io.gateway.spare_memory import SpareMemory
from dicomward.io.monitoring.metrics_events import EventCounts
from dicomward.io.people.verifier import PersonVerifier
from dicomward.io.protection.address_watch import AddressWatch
from dicomward.io.protection.budgets import BudgetStore
from dicomward.io.protection.moved import MovedDevices
from dicomward.io.tls import PeerCertificates
from dicomward.limits.book import LimitBook
from dicomward.limits.early_drop import drops_early
from dicomward.limits.network import source_of
from dicomward.limits.settings import LimitSettings
from dicomward.limits.strangers import StrangerBook
from dicomward.policy.bypass import NO_BYPASS, BypassTable
from dicomward.policy.model import Policy
from dicomward.relay.correlations import PendingCommitment, PendingMove
from dicomward.relay.world import RelaySettings
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

# A device's network may hold somebody who fails, but never makes its devices wait for long.
_HOLD_REGISTERED_SECONDS = 1.0
_MOST_HELD = 512
# Connections that are no association yet: of one address before it proves a key, and of one certificate after that.
_MOST_IN_A_ROOM = 256
# All of them together; the application gives less where there are few file descriptors.
MOST_WAITING = 4096
_RESOLVED_SECONDS = 30.0
# How long a command waits for its record to be durable.
_DURABLE_SECONDS = 3.0

Address = tuple[int, tuple[object, ...]]
"""Family and address of a socket."""


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

    def write_now(self, event: AuditEvent) -> bool | None:
        """Write an event in the caller's thread; None, with nothing done, where that isn't possible at once."""

    def append_written(self, event: AuditEvent, done: Callable[[bool], None]) -> object:
        """Write an event and call back when the operating system has it (True), or nothing can keep it (False)."""

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
    """TLS of the listeners that have it: our certificates, and whose we believe."""

    context: ssl.SSLContext
    certificates: PeerCertificates


class LockedLimits:
    """`LimitBook` and `StrangerBook` behind one lock."""

    def __init__(self, book: LimitBook, strangers: StrangerBook) -> None:
        self._book = book
        self._strangers = strangers
        self._lock = threading.Lock()

    def use_settings(self, settings: LimitSettings, now: float) -> None:
        """See LimitBook, StrangerBook."""
        with self._lock:
            self._book.use_settings(settings, now)
            self._strangers.use_limits(settings.strangers)

    def known_devices(self, names: frozenset[str]) -> None:
        """Say which devices are registered."""
        with self._lock:
            self._book.known_devices(names)

    def admit_association(
        self,
        *,
        device: str,
        role: str,
        network: str,
        archive: str,
        floor: bool,
        now: float,
        lifted: bool = False,
        own_only: bool = False,
    ) -> ReasonCode | None:
        """See LimitBook."""
        with self._lock:
            return self._book.admit_association(
                device=device,
                role=role,
                network=network,
                archive=archive,
                floor=floor,
                now=now,
                lifted=lifted,
                own_only=own_only,
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
        budgets: BudgetStore,
        audit: AuditSink,
        server_tls: ListenerTls,
        client_tls: ssl.SSLContext,
        most_waiting: int = MOST_WAITING,
        counts: EventCounts | None = None,
        zones: Sequence[LegacyZone] = (),
        moved: MovedDevices | None = None,
        persons: PersonVerifier | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._persons = persons
        self.settings = settings
        self.registry = registry
        self.policy = policy
        self.bypasses: BypassTable = NO_BYPASS
        self.limits = limits
        self.correlations = correlations
        self.budgets = budgets
        self._audit = audit
        self._server_tls = server_tls
        # Load balancers, which say by the PROXY protocol for whom they speak.
        self.balancers = NetworkSet(())
        counts = counts or EventCounts()
        self._count, self.note_decision = counts.count, counts.note_decision
        # Which archives are known not to answer (io.monitoring.health), and who wants to hear of a call that failed.
        self.is_down: Callable[[str], bool] = lambda _archive: False
        self.call_failed: Callable[[], None] = lambda: None
        # Devices behind NAT (io.gateway.reverse); None where nobody opens associations to devices like that.
        self.reverse: ReverseConnections | None = None
        self._client_tls = client_tls
        self._zones = {zone.name: zone for zone in zones}
        self.moved = moved or MovedDevices()
        self.upstream_certificates = PeerCertificates(None)
        self._lock = threading.Lock()
        self._most_waiting = most_waiting
        self._draw = draw
        self._rooms: dict[str, OrderedDict[str, UnprovedSession]] = {}
        self._room_of: dict[str, str] = {}
        self._strangers: OrderedDict[str, UnprovedSession] = OrderedDict()
        self._floor_reason: ReasonCode | None = None
        self.lockdown = NO_LOCKDOWN
        self._sessions: dict[str, UnprovedSession] = {}
        self._addresses = AddressWatch(lambda association: association in self._sessions, time.monotonic)
        self._spare_memory = SpareMemory()
        self._empty = threading.Condition(self._lock)
        self._resolved: dict[Endpoint, tuple[float, tuple[Address, ...]]] = {}
        self._lookups: dict[Endpoint, list[tuple[Callable[[Sequence[Address]], None], Callable[[str], None]]]] = {}
        limits.known_devices(frozenset(device.name for device in registry.devices))

    # -- our own state ----------------------------------------------------------------------------------------------

    def floor_reason(self, site: str = "") -> ReasonCode | None:
        """Why only the clinical floor is left to everybody, or to this site, now; None if nothing is narrowed."""
        reason = self._floor_reason or self.budgets.lost
        if reason is not None:
            return reason
        return ReasonCode.SITE_LOCKDOWN if self.lockdown.covers(site) else None

    def legacy_zone(self, name: str) -> LegacyZone | None:
        """Return the legacy zone of that name."""
        return self._zones.get(name)

    def narrow(self, reason: ReasonCode | None) -> None:
        """Enter (or leave, with None) the state in which only the clinical floor is left."""
        self._floor_reason = reason

    def use_tls(self, server: ListenerTls, client: ssl.SSLContext) -> None:
        """Swap our certificates and the CAs; open connections keep what they have."""
        self._server_tls, self._client_tls = server, client

    def use_bypasses(self, bypasses: BypassTable) -> None:
        """Swap the emergency bypasses that are open."""
        self.bypasses = bypasses

    def use_registry(self, registry: RegistrySnapshot) -> None:
        """Swap the registry."""
        self.registry = registry
        self.limits.known_devices(frozenset(device.name for device in registry.devices))

    # -- sessions ---------------------------------------------------------------------------------------------------

    def session_began(self, session: UnprovedSession) -> UnprovedSession | None:
        """Count a new connection; return one to end, perhaps itself, if too many are open that prove nothing."""
        registered = self.registry.is_registered_address(session.address)
        with self._lock:
            self._sessions[session.association] = session
            if not registered:
                if drops_early(len(self._strangers), self._most_waiting, self._draw()):
                    return session
                self._strangers[session.association] = session
            return self._enter(session, f"address {source_of(session.address)}")

    def key_proved(self, session: UnprovedSession, sha256: str) -> UnprovedSession | None:
        """Note that a connection has proved a key that our CA vouches for; return one of that key to end, if any."""
        self.limits.note_success(session.address, time.monotonic())
        with self._lock:
            self._leave(session)
            return self._enter(session, f"certificate {sha256}")

    def associated(self, session: UnprovedSession) -> None:
        """Note that a connection has become an association, which the limits count."""
        with self._lock:
            self._leave(session)

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
        with self._lock:
            self._leave(session)

    def session_over(self, session: UnprovedSession) -> None:
        """Forget a session."""
        with self._empty:
            self._leave(session)
            self._spare_memory.is_due(len(self._sessions))
            self._sessions.pop(session.association, None)
            is_due = self._spare_memory.is_due(len(self._sessions))
            if not self._sessions:
                self._empty.notify_all()
        if is_due:
            self._spare_memory.give_back()

    def sessions(self) -> list[UnprovedSession]:
        """Return the sessions that are open now."""
        with self._lock:
            return list(self._sessions.values())

    def waiting(self) -> list[UnprovedSession]:
        """Return the connections that are no association yet."""
        with self._lock:
            return [self._sessions[association] for association in self._room_of]

    def wait_until_empty(self, seconds: float) -> bool:
        """Wait until no session is left; False if some are after so many seconds."""
        with self._empty:
            return self._empty.wait_for(lambda: not self._sessions, seconds)

    def _enter(self, session: UnprovedSession, room: str) -> UnprovedSession | None:
        """Let a connection wait in a room; return the one that has waited longest, if there is no place for both."""
        waiting = self._rooms.setdefault(room, OrderedDict())
        waiting[session.association] = session
        self._room_of[session.association] = room
        if len(waiting) > _MOST_IN_A_ROOM:
            evicted = next(iter(waiting.values()))
        elif len(self._room_of) > self._most_waiting:
            # Who calls from a registered network is the last to go.
            evicted = next(iter(self._strangers.values() or waiting.values()))
        else:
            return None
        self._leave(evicted)
        return evicted

    def _leave(self, session: UnprovedSession) -> None:
        self._strangers.pop(session.association, None)
        room = self._room_of.pop(session.association, None)
        if room is not None:
            self._rooms[room].pop(session.association)
            if not self._rooms[room]:
                del self._rooms[room]

    # -- persons ----------------------------------------------------------------------------------------------------

    def verifies_identity(self, identity_type: int) -> bool:
        """Say if there is a verifier for this type of user identity (58H)."""
        return self._persons is not None and self._persons.verifies(identity_type)

    def stop_verifying(self) -> None:
        """Verify nobody any more."""
        if self._persons is not None:
            self._persons.stop()

    def verify_person(self, claim: PersonClaim, done: Callable[[Verdict], None]) -> None:
        """Have a person verified, and call back from another thread."""
        if self._persons is None:  # INVARIANT: without a verifier no relay asks for one
            done(PersonUnavailable("nobody verifies persons"))
        else:
            self._persons.verify(claim, done)

    # -- audit and correlations -------------------------------------------------------------------------------------

    def record(self, event: AuditEvent) -> None:
        """Write an audit event."""
        self._count(event)
        self._audit.append(event)
        if type(event) is AssociationEnded:
            self._addresses.ended(event)

    def record_now(self, event: AuditEvent) -> bool | None:
        """Write an audit event at once: True if it outlives this process, False if it is kept nowhere.

        None, with nothing done, where somebody else is writing: then `record_written` is the way.
        """
        is_written = self._audit.write_now(event)
        if is_written is not None:
            self._count(event)
        return is_written

    def record_written(self, event: AuditEvent, done: Callable[[bool], None]) -> None:
        """Write an audit event and call back when it outlives this process; it is durable within 100 ms."""
        self._count(event)
        self._audit.append_written(event, done)

    def record_durably(self, event: AuditEvent, done: Callable[[bool], None]) -> None:
        """Write an audit event and call back."""
        self._count(event)
        self._audit.append_durable(event, done)
        if type(event) is AssociationAllowed and (alert := self._addresses.allowed(event)) is not None:
            self.record(alert)

    def record_and_wait(self, event: AuditEvent) -> bool:
        """Write an audit event durably, and so everything that was recorded before; say if it is kept."""
        over = threading.Event()
        written = []

        def done(is_written: bool) -> None:
            written.append(is_written)
            over.set()

        self.record_durably(event, done)
        over.wait(_DURABLE_SECONDS)
        return written == [True]

    def connection_failed(
        self, address: str, certificate: PeerCertificate | None, reason: ReasonCode, detail: str
    ) -> None:
        """Record that a connection has ended before an association; of whom, where a key was proved."""
        sha256 = certificate.sha256 if certificate is not None else None
        device = self.registry.device_by_certificate(sha256) if sha256 is not None else None
        self.record(
            ConnectionFailed(
                address=address,
                device=device.name if device is not None else None,
                certificate_sha256=sha256,
                reason=reason,
                detail=detail,
            )
        )

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

    def keep_charges(self, done: Callable[[], object]) -> None:
        """See BudgetStore.keep."""
        self.budgets.keep(done)

    def register_move(self, move: PendingMove, done: Callable[[bool], None]) -> None:
        """See CorrelationStore."""
        self.correlations.register_move(move, done)

    def register_commitment(self, commitment: PendingCommitment, done: Callable[[bool], None]) -> None:
        """See CorrelationStore."""
        self.correlations.register_commitment(commitment, done)

    # -- upstream ---------------------------------------------------------------------------------------------------

    def listener_context(self, listener: NamedListener) -> ListenerTls | None:
        """TLS of a listener; None for one without."""
        return self._server_tls if listener.tls else None

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
        if record is None or record.status == "revoked":
            raise Refused(
                ReasonCode.UPSTREAM_NOT_TRUSTED,
                f"device {target.name!r} shows certificate {shown}, which isn't bound to it, or is revoked",
            )

    def resolve(
        self,
        target: Archive | Device,
        found: Callable[[Sequence[Address]], None],
        failed: Callable[[str], None],
    ) -> None:
        """Find a target's addresses; a name is looked up in a thread of its own, once for all who ask meanwhile."""
        endpoint = target.endpoint if isinstance(target, Archive) else target.address
        if endpoint is None:
            failed(f"{target.name!r} has no address")
            return
        known = self._resolved.get(endpoint)
        if known is not None and known[0] > time.monotonic():
            found(known[1])
            return
        with self._lock:
            asking = self._lookups.setdefault(endpoint, [])
            asking.append((found, failed))
            is_first = len(asking) == 1
        if _is_numeric(endpoint.host):
            self._look_up(endpoint)
        elif is_first:
            threading.Thread(target=self._look_up, args=(endpoint,), name="dicomward-resolver", daemon=True).start()

    def _look_up(self, endpoint: Endpoint) -> None:
        addresses, problem = self._addresses_of(endpoint)
        with self._lock:
            asking = self._lookups.pop(endpoint, [])
        for found, failed in asking:
            if addresses:
                found(addresses)
            else:
                failed(problem)

    def _addresses_of(self, endpoint: Endpoint) -> tuple[Sequence[Address], str]:
        try:
            answers = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            # A name server that is away must not take archives away: where it was last is the best guess.
            known = self._resolved.get(endpoint)
            return (known[1] if known else ()), f"{endpoint.host}: {error}"
        addresses = tuple((int(answer[0]), tuple(answer[4])) for answer in answers)
        self._resolved[endpoint] = (time.monotonic() + _RESOLVED_SECONDS, addresses)
        return addresses, ""


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


@lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_numeric(host) and ipaddress.ip_address(host.partition("%")[0]).is_loopback)
