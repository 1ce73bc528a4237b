"""A gateway in this process for the tests of the executor: real sockets on loopback, peers that do as they are told.

Nobody sleeps: peers block on sockets with a deadline, and what happens inside is awaited on conditions.
"""

import queue
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from dicomward.audit.event import AuditEvent
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAssociateAc, AAssociateRj, AAssociateRq, ControlPdu
from dicomward.identity.registry import Archive, CertificateRecord, Device, Endpoint, RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.io.ca.local import KeyKind, LocalCa
from dicomward.io.gateway.correlations import CorrelationStore
from dicomward.io.gateway.engine import Engine
from dicomward.io.gateway.gate import Gate, ListenerTls, LockedLimits
from dicomward.io.gateway.listeners import NamedListener
from dicomward.io.gateway.reverse import ReverseConnections
from dicomward.io.gateway.server import Acceptor, open_listener
from dicomward.io.gateway.session import Session
from dicomward.io.listening import shut
from dicomward.io.protection.budgets import BudgetStore
from dicomward.io.tls import CaDates, CertificateFiles, PeerCertificates, client_context, server_context
from dicomward.limits.book import LimitBook
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.settings import LimitSettings
from dicomward.limits.strangers import StrangerBook
from dicomward.policy.load import load_policy
from dicomward.relay.inputs import Listener
from dicomward.relay.world import RelaySettings
from dicomward.settings import ListenAddress, Settings
from tests.directory_helpers import copy_directory, now
from tests.relay.wire import (
    CT_IMAGE,
    RELEASE_RP,
    RELEASE_RQ,
    STUDY_FIND,
    VERIFICATION,
    WORKLIST,
    Message,
    Reader,
    a_associate_ac,
    a_associate_rq,
    c_echo_rq,
    message,
    response_to,
)

SECONDS = 20.0
ALL = {1: VERIFICATION, 3: CT_IMAGE, 5: STUDY_FIND, 7: WORKLIST}
POLICY = """
version = 1

[[rule]]
id = "scanner"
effect = "allow"
role = "scanner"
operation = ["c-echo", "c-store", "c-find", "c-get", "c-move", "n-action", "n-event-report"]
"""

_Event = TypeVar("_Event", bound=AuditEvent)


class GoneError(Exception):
    """The peer has closed or reset the connection."""


class Audit:
    """An audit log in memory. `written` answers durable records; `held` keeps their answers back while it is a list."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.written = True
        self.held: list[Callable[[bool], None]] | None = None
        self._turn = False
        self._changed = threading.Condition()

    def append(self, event: AuditEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def write_now(self, event: AuditEvent) -> bool | None:
        """Half of the world's writes find somebody else writing; so both ways are tried wherever a session is."""
        self._turn = not self._turn
        if self.held is not None or self._turn:
            return None
        self.append(event)
        return self.written

    def append_written(self, event: AuditEvent, done: Callable[[bool], None]) -> None:
        self.append_durable(event, done)

    def append_durable(self, event: AuditEvent, done: Callable[[bool], None]) -> None:
        if self.held is None:
            done(self.written)
        else:
            self.held.append(done)
        self.append(event)

    def of(self, kind: type[_Event]) -> list[_Event]:
        with self._changed:
            return [event for event in self.events if isinstance(event, kind)]

    def wait_for(self, kind: type[_Event], count: int = 1) -> _Event:
        """Return the event of a kind, when there are so many of it."""
        with self._changed:
            found: list[_Event] = []

            def enough() -> bool:
                found[:] = [event for event in self.events if isinstance(event, kind)]
                return len(found) >= count

            assert self._changed.wait_for(enough, SECONDS), f"no {kind.__name__}: {self.events}"
            return found[count - 1]


class Peer:
    """One end of a connection, blocking, with a deadline on everything."""

    def __init__(self, connection: socket.socket, *, reader: Reader | None = None) -> None:
        connection.settimeout(SECONDS)
        self.socket = connection
        self.reader = reader or Reader()
        self._items: deque[ControlPdu | Message] = deque()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def next(self) -> ControlPdu | Message:
        """Return the next PDU or whole message. Raises GoneError."""
        while not self._items:
            try:
                data = self.socket.recv(1 << 16)
            except (ConnectionError, ssl.SSLError) as error:
                raise GoneError(str(error)) from error
            if not data:
                raise GoneError("closed")
            self._items.extend(self.reader.read(data))
        return self._items.popleft()

    def next_message(self) -> Message:
        item = self.next()
        assert isinstance(item, Message), item
        return item

    def is_gone(self) -> bool:
        """Read until the end, whatever comes before it."""
        try:
            while True:
                self.next()
        except GoneError:
            return True

    def associate(self, request: AAssociateRq | None = None) -> ControlPdu | Message:
        """Ask for an association; return the answer."""
        self.send(encode_pdu(request or a_associate_rq(ALL)))
        return self.next()

    def established(self, request: AAssociateRq | None = None) -> "Peer":
        answer = self.associate(request)
        assert isinstance(answer, AAssociateAc), answer
        return self

    def echo(self, message_id: int = 1) -> int | None:
        """Send a C-ECHO; return the status of the answer."""
        self.send(message(1, c_echo_rq(message_id)))
        return self.next_message().command.status

    def release(self) -> None:
        self.send(RELEASE_RQ)
        self.next()

    def close(self) -> None:
        self.socket.close()

    def hang_up(self) -> None:
        """Close while another thread may be reading, which would keep the connection open until its deadline."""
        shut(self.socket)
        self.socket.close()

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def rejection(answer: ControlPdu | Message) -> tuple[int, int, int]:
    """Return result, source and reason of an A-ASSOCIATE-RJ."""
    assert isinstance(answer, AAssociateRj), answer
    return answer.result, answer.source, answer.reason


class RawArchive:
    """An acceptor. A test takes each connection and plays the archive, or lets it `serve` by itself."""

    def __init__(self, context: ssl.SSLContext | None = None, *, serves: bool = True, host: str = "127.0.0.1") -> None:
        self._context = context
        self._serves = serves
        self._listener = socket.create_server((host, 0))
        self.endpoint = Endpoint(host=host, port=self._listener.getsockname()[1])
        self._taken: queue.Queue[Peer] = queue.Queue()
        self.peers: list[Peer] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def take(self) -> Peer:
        """Return the next connection of the gateway (`serves` must be off)."""
        return self._taken.get(timeout=SECONDS)

    def take_association(self) -> tuple[Peer, AAssociateRq]:
        """Take a connection and accept everything that is asked for on it."""
        peer = self.take()
        request = peer.next()
        assert isinstance(request, AAssociateRq), request
        peer.send(encode_pdu(a_associate_ac(request)))
        return peer, request

    def close(self) -> None:
        if self._listener.fileno() < 0:
            return
        # shutdown wakes the accept; close alone would not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(SECONDS)
        for peer in self.peers:
            peer.hang_up()
        while not self._taken.empty():
            self._taken.get().close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._connected, args=(connection,), daemon=True).start()

    def _connected(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(SECONDS)
            peer = Peer(self._context.wrap_socket(connection, server_side=True) if self._context else connection)
        except OSError:
            connection.close()
            return
        self.peers.append(peer)
        if not self._serves:
            self._taken.put(peer)
            return
        try:
            serve(peer)
        except (GoneError, OSError):
            pass
        finally:
            peer.close()


def serve(peer: Peer) -> None:
    """Accept everything and answer everything with Success, until the association ends."""
    while True:
        item = peer.next()
        match item:
            case AAssociateRq():
                peer.send(encode_pdu(a_associate_ac(item)))
            case Message(context_id=context_id, command=command) if command.is_request:
                peer.send(message(context_id, response_to(command)))
            case Message():
                continue
            case _ if encode_pdu(item) == RELEASE_RQ:
                peer.send(RELEASE_RP)
            case _:
                return


@dataclass(frozen=True, slots=True)
class Credentials:
    """A device's files, and what the registry knows of its certificate."""

    files: CertificateFiles
    record: CertificateRecord
    authority: Path

    def context(self, *, maximum: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority)
        context.load_cert_chain(self.files.certificate, self.files.key)
        if maximum is not None:
            context.maximum_version = maximum
        return context

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files.certificate, self.files.key)
        return context


def issue(settings: Settings, name: str, *, born: datetime | None = None, days: int = 30) -> Credentials:
    """Issue a certificate of the gateway directory's own CA, valid for so many days from `born`."""
    authority = settings.directory / "ca" / "ca.cert.pem"
    issued = LocalCa.load(settings.directory / "ca").issue_device(
        name, (name.upper(),), KeyKind.ECDSA, born or now(), host="127.0.0.1", days=days
    )
    folder = settings.directory / "issued" / name
    folder.mkdir(parents=True)
    files = CertificateFiles(folder / "cert.pem", folder / "key.pem")
    files.certificate.write_bytes(issued.certificate_pem)
    files.key.write_bytes(issued.key_pem)
    return Credentials(files, issued.record, authority)


def device(name: str, credentials: Credentials | None, **changes: object) -> Device:
    values: dict[str, object] = {
        "name": name,
        "ae_titles": (name.upper(),),
        "role": "scanner",
        "networks": ("127.0.0.1/32",),
        "certificates": () if credentials is None else (credentials.record,),
        **changes,
    }
    return Device(**values)  # type: ignore[arg-type]


def archive_at(endpoint: Endpoint, **changes: object) -> Archive:
    values: dict[str, object] = {
        "name": "pacs",
        "ae_title": "PACS",
        "calling_ae_titles": ("PACS",),
        "endpoint": endpoint,
        "networks": ("127.0.0.1/32",),
        **changes,
    }
    return Archive(**values)  # type: ignore[arg-type]


RELAY = RelaySettings(
    limits=Limits(),
    expiry_grace=timedelta(days=7),
    upstream_seconds=5.0,
    answer_seconds=30,
    release_seconds=5.0,
    idle_seconds=600.0,
    stalled_seconds=600.0,
)


ZONE = LegacyZone(name=Listener.LEGACY.value, networks=("127.0.0.1/32",), end_date=date(2099, 12, 31))


class World:
    """Engine, gate and listeners, built as the application builds them, on an audit log in memory."""

    def __init__(
        self,
        directory: Path,
        archive: Archive,
        *,
        archive_tls: bool = False,
        deadline: float = SECONDS,
        limits: LimitSettings | None = None,
        workers: int = 2,
        **relay: object,
    ) -> None:
        self.settings = copy_directory(directory)
        self.scanner = issue(self.settings, "ct1")
        self.audit = Audit()
        self.engine = Engine(workers)
        tls = self.settings.tls
        self.files = [CertificateFiles(pair.certificate, pair.key) for pair in tls.certificates]
        context = server_context(self.files, tls.client_ca, ssl.TLSVersion.TLSv1_2)
        listener_tls = ListenerTls(context, PeerCertificates(CaDates(context)))
        self.degraded: list[str] = []
        self.correlations = CorrelationStore(
            directory / "correlations.db", failed=self.degraded.append, works=self.degraded.clear
        )
        self.budgets = BudgetStore(
            directory,
            BudgetSettings(),
            failed=self.degraded.append,
            works=self.degraded.clear,
            record=self.audit.append,
        )
        settings = limits or LimitSettings()
        self.book = LimitBook(settings)
        self.gate = Gate(
            settings=replace(RELAY, **relay),  # type: ignore[arg-type]
            registry=RegistrySnapshot(devices=(device("ct1", self.scanner),), archives=(archive,), revision=1),
            policy=load_policy(POLICY, source="policy"),
            limits=LockedLimits(self.book, StrangerBook(settings.strangers)),
            correlations=self.correlations,
            budgets=self.budgets,
            audit=self.audit,
            server_tls=listener_tls,
            client_tls=client_context(self.files, ssl.TLSVersion.TLSv1_2),
            zones=[ZONE],
        )
        self.gate.reverse = self.reverse = self.new_reverse()
        self.acceptors: dict[Listener, Acceptor] = {}
        self.ports: dict[Listener, int] = {}
        self.listeners: dict[Listener, NamedListener] = {}
        for listener in Listener:
            opened = open_listener("127.0.0.1", 0)
            self.ports[listener] = opened.getsockname()[1]
            self.listeners[listener] = NamedListener(
                name=listener.value,
                kind=listener,
                address=ListenAddress(host="127.0.0.1", port=self.ports[listener]),
                tls=listener is Listener.DEVICE or archive_tls,
            )
            self.acceptors[listener] = Acceptor(
                self.engine, self.gate, self.listeners[listener], opened, lambda _address: deadline
            )
        self._peers: list[Peer] = []

    def new_reverse(self) -> ReverseConnections:
        return ReverseConnections(
            self.engine,
            registry=lambda: self.gate.registry,
            expiry_grace=lambda: self.gate.settings.expiry_grace,
            clock=now,
            record=self.gate.record,
        )

    def start(self) -> None:
        self.engine.start()
        for acceptor in self.acceptors.values():
            acceptor.start()

    def stop(self) -> None:
        for acceptor in self.acceptors.values():
            acceptor.stop()
        self.reverse.close()
        for peer in self._peers:
            peer.close()
        for session in self.gate.sessions():
            if isinstance(session, Session):
                session.failed()
        self.engine.stop()
        self.correlations.close()
        self.budgets.close()

    # -- peers ------------------------------------------------------------------------------------------------------

    def connect(
        self, listener: Listener = Listener.DEVICE, *, source: str = "127.0.0.1", receive_buffer: int = 0
    ) -> socket.socket:
        """Connect without a word."""
        connection = socket.socket()
        self._peers.append(Peer(connection))
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.bind((source, 0))
        connection.settimeout(SECONDS)
        connection.connect(("127.0.0.1", self.ports[listener]))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def peer(
        self,
        context: ssl.SSLContext | None = None,
        *,
        listener: Listener = Listener.DEVICE,
        source: str = "127.0.0.1",
        session: ssl.SSLSession | None = None,
        receive_buffer: int = 0,
    ) -> Peer:
        """Connect over TLS on the device side (as ct1 unless told otherwise), plainly on the archive side."""
        connection = self.connect(listener, source=source, receive_buffer=receive_buffer)
        if listener is Listener.DEVICE or context is not None:
            context = context or self.scanner.context()
            connection = context.wrap_socket(connection, server_hostname="127.0.0.1", session=session)
        peer = Peer(connection)
        self._peers.append(peer)
        return peer

    def send_to_archive_side(self, request: AAssociateRq) -> Peer:
        peer = self.peer(listener=Listener.ARCHIVE)
        peer.send(encode_pdu(request))
        return peer

    # -- the inside -------------------------------------------------------------------------------------------------

    def the_session(self) -> Session:
        (session,) = self.gate.sessions()
        assert isinstance(session, Session)
        return session

    def the_limits_are_free(self) -> bool:
        """Say if no association is counted any more, at any target."""
        return not any(target.open for target in self.book._targets.values())

    def barrier(self) -> None:
        """Return when what was posted before has been done."""
        over = threading.Event()
        self.engine.post(over.set)
        assert over.wait(SECONDS)

    def until(self, holds: Callable[[], bool]) -> None:
        """Return when something holds; each look is after what was posted before."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, "it never happened"
            self.barrier()


@contextmanager
def running(directory: Path, archive: Archive, **options: object) -> Iterator[World]:
    world = World(directory, archive, **options)  # type: ignore[arg-type]
    world.start()
    try:
        yield world
    finally:
        world.stop()


@contextmanager
def raw_archive(**options: object) -> Iterator[RawArchive]:
    archive = RawArchive(**options)  # type: ignore[arg-type]
    try:
        yield archive
    finally:
        archive.close()
