"""A running edge agent: listeners for its devices, the pass-through, the spool and its senders."""

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import date
from functools import partial
from typing import Final

from dicomward.enrolment.code import Code
from dicomward.identity.registry import RegistryError
from dicomward.identity.zone import LegacyZone
from dicomward.io.audit.log import AuditLog, AuditLogError
from dicomward.io.edge.codes import CodeBook
from dicomward.io.edge.commit_link import CommitLink
from dicomward.io.edge.committer import Committer, transaction_key
from dicomward.io.edge.front import EdgeFront
from dicomward.io.edge.gate import Credential, EdgeGate
from dicomward.io.edge.keeper import Keeper, NotServed
from dicomward.io.edge.learned import Learned
from dicomward.io.edge.link import Link
from dicomward.io.edge.report_front import ReportFront
from dicomward.io.edge.reverse import ReverseLine
from dicomward.io.edge.reverse_gate import ReverseGate
from dicomward.io.edge.scp import StoreScp
from dicomward.io.edge.sender import Line, Senders
from dicomward.io.edge.spool import Found, Spool, SpoolError, alone_in
from dicomward.io.edge.spool_keys import SpoolKeys, open_keys
from dicomward.io.edge.waiting_room import WaitingRoom
from dicomward.io.edge.watch import EdgeWatch
from dicomward.io.enrolment.client import ClientError
from dicomward.io.enrolment.enrolled import DeviceDirectory
from dicomward.io.gateway.engine import Engine
from dicomward.io.gateway.listeners import NamedListener
from dicomward.io.gateway.server import Acceptor, open_listener
from dicomward.io.tls import TlsConfigurationError
from dicomward.relay.inputs import Listener
from dicomward.settings.edge import N_EVENT_REPORT, NEWEST, OFF, EdgeDevice, EdgeSettings
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_REQUEST_SECONDS: Final = 30.0
_DRAIN_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 3600.0
_FAILURES: Final = (OSError, RegistryError, TlsConfigurationError, SpoolError)


class EdgeStartError(Exception):
    """The agent can't start; the message says what, why and what to do."""


class EdgeAgent:
    """Build it, `open` it, and `close` it. `addresses` tells where it listens, by device.

    `codes`: with which devices enrol. `served` is told the name of each device when it is served, from any thread.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        codes: Mapping[str, Code] | None = None,
        served: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._settings = settings
        self._codes = codes or {}
        self._served = served
        self._at_once: list[str] = []
        self._lock = threading.Lock()
        self._is_closed = False
        self._keepers: dict[str, Keeper] = {}
        self._engine = Engine(1)
        self._gates: list[EdgeGate | ReverseGate] = []
        self._credentials: dict[str, Credential] = {}
        self._closing = ExitStack()
        self._spool: Spool | None = None
        self._keys: SpoolKeys | None = None
        windows = [(each.begin_minute, each.end_minute, each.bytes_per_second) for each in settings.bandwidth]
        self._line = Line(tuple(windows))
        self.senders: list[Senders] = []
        self._reverse: dict[str, ReverseLine] = {}
        self.addresses: dict[str, tuple[str, int]] = {}

    def open(self) -> None:
        """Start everything; when this returns, it serves. Raises EdgeStartError."""
        try:
            self._open()
            for name in self._at_once:
                self._served(name)
        except EdgeStartError:
            self._closing.close()
            raise
        except (*_FAILURES, AuditLogError, ClientError) as error:
            self._closing.close()
            raise EdgeStartError(str(error)) from error

    def _open(self) -> None:
        self._settings.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._settings.spool is not None:
            self._closing.enter_context(alone_in(self._settings.spool.directory))
        audit = AuditLog(self._settings.state_directory / "audit")
        audit.start()
        self._closing.callback(audit.close)
        self._engine.start()
        self._closing.callback(self._engine.stop)
        found: dict[str, Found] = {}
        if self._settings.spool is not None:
            self._keys = open_keys(self._settings.spool, self._settings.devices, self._settings.state_directory)
            self._spool = Spool(self._settings.spool, self._keys.of)
            found = self._spool.open()
        for name in found.keys() - {each.name for each in self._settings.devices}:
            raise EdgeStartError(
                f"{len(found[name])} objects of {name!r} wait in the spool, and no device is called so"
            )
        for device in self._settings.devices:
            self._begin(device, audit, found.get(device.name, Found()))
        if self._keepers and len(self._keepers) == len(self._settings.devices):
            self._refuse_if_helpless()
        self._watch = EdgeWatch(
            self._settings, self.senders, self._credentials, self._spool, self._reverse, self._keepers
        )
        self._watch.start()
        self._closing.callback(self._watch.stop)
        for keeper in self._keepers.values():
            keeper.start()

    def _refuse_if_helpless(self) -> None:
        if all(keeper.is_helpless for keeper in self._keepers.values()):
            name = next(iter(self._keepers))
            raise EdgeStartError(
                f"there is no certificate for {', '.join(self._keepers)}, and no code to get one with: start once with "
                f"--code {name}=CODE; `dicomward device invite` on the gateway gives one"
            )

    def _begin(self, device: EdgeDevice, audit: AuditLog, found: Found) -> None:
        """Listen for a device; serve it at once if there is a certificate for it."""
        listening = self._listen(device)
        serve = partial(self._serve, device, audit, found, listening)
        if device.own is None or self._settings.enrolment is None:
            serve(lambda: None)
            self._at_once.append(device.name)
            return
        state = self._settings.state_directory / device.name
        keeper = Keeper(
            name=device.name,
            directory=DeviceDirectory(device.own.directory),
            enrolment=self._settings.enrolment,
            codes=CodeBook(device.name, state, self._codes.get(device.name), device.own.code_file),
            ready=lambda: self._serve_later(device, serve, room),
            audit=audit,
        )
        self._keepers[device.name] = keeper
        zone = LegacyZone(name=device.name, networks=device.networks, end_date=date.max)
        room = WaitingRoom(zone, listening)
        if keeper.load():
            try:
                serve(lambda: None)
            except _FAILURES as error:
                _log.error("%s can't be served yet, and is tried again: %s", device.name, error)
            else:
                keeper.is_served = True
                self._at_once.append(device.name)
                return
        room.start()
        self._closing.callback(room.stop)

    def _serve_later(self, device: EdgeDevice, serve: Callable[[Callable[[], None]], None], room: WaitingRoom) -> None:
        """Serve a device whose certificate has come. Raises NotServed."""
        with self._lock:
            if self._is_closed:
                raise NotServed("the agent ends")
            try:
                serve(room.stop)
            except _FAILURES as error:
                raise NotServed(str(error)) from error
        self._served(device.name)

    def _call_back(
        self, device: EdgeDevice, audit: AuditLog, context: ssl.SSLContext, committer: Committer | None
    ) -> None:
        """Let the gateway reach the device, and the agent with reports, over connections that we open."""
        reports = None
        if committer is not None:
            # What the device may not receive, it does not get from us either.
            is_device_told = N_EVENT_REPORT in device.receives
            front = ReportFront(device.name, device.address, committer.take, is_device_told=is_device_told)
            front.start()
            self._closing.callback(front.stop)
            reports = front.address
        gate = ReverseGate(device, self._settings, audit, reports)
        self._gates.append(gate)
        self._closing.callback(gate.close)
        line = self._reverse[device.name] = ReverseLine(
            self._engine,
            name=device.name,
            listen=device.listen,
            wanted=device.reverse_connections,
            upstream=self._settings.upstream,
            context=context,
            gate=gate,
            draw=random.random,
        )
        self._closing.callback(line.stop)
        line.start()

    def _listen(self, device: EdgeDevice) -> socket.socket:
        try:
            listening = open_listener(device.listen.host, device.listen.port)
        except OSError as error:
            raise EdgeStartError(
                f"can't listen on {device.listen} for {device.name}: {error.strerror or error}. "
                "Does another agent run, or is the address not one of this machine?"
            ) from error
        self._closing.callback(listening.close)
        self.addresses[device.name] = listening.getsockname()[:2]
        return listening

    def _serve(
        self,
        device: EdgeDevice,
        audit: AuditLog,
        found: Found,
        listening: socket.socket,
        before: Callable[[], None],
    ) -> None:
        """Serve a device with its certificate; `before` is called when nothing stands in the way any more."""
        if self._keys is not None and (device.spools or found):
            self._keys.open(device.name)
        gate = EdgeGate(device, self._settings, audit)
        self._gates.append(gate)
        self._credentials[gate.name] = gate.credential
        self._closing.callback(gate.close)
        before()
        listener = NamedListener(name=device.name, kind=Listener.LEGACY, address=device.listen, tls=False)
        acceptor = Acceptor(self._engine, gate, listener, listening, lambda _address: _REQUEST_SECONDS)
        call_back = partial(self._call_back, device, audit, gate.reverse_context)
        if self._spool is None or (not device.spools and not found):
            if device.reverse_connections:
                call_back(None)
            acceptor.start()
            self._closing.callback(acceptor.stop)
            return
        senders, scp = self._store_and_forward(device, gate, self._spool, acceptor.admit)
        if device.reverse_connections:
            call_back(senders.committer)
        senders.start(found)
        self._closing.callback(senders.stop, _DRAIN_SECONDS)
        if device.spools:
            front = EdgeFront(listening, acceptor, scp, _REQUEST_SECONDS)
            front.start()
            self._closing.callback(front.stop)
        else:
            acceptor.start()
            self._closing.callback(acceptor.stop)

    def _store_and_forward(
        self, device: EdgeDevice, gate: EdgeGate, spool: Spool, admit: Callable[[socket.socket, str], None]
    ) -> tuple[Senders, StoreScp]:
        upstream, keys = self._settings.upstream, self._keys
        prepare = partial(keys.prepare, device.name) if keys is not None else _nothing
        connect = partial(Link, upstream, gate.client_context)
        learned = Learned(self._settings.state_directory / device.name / "accepted.json", connect)
        senders = Senders(
            name=device.name,
            spool=spool,
            learned=learned,
            connect=connect,
            prepare=prepare,
            line=self._line,
            associations=upstream.associations,
            newest_first=self._settings.spool is not None and self._settings.spool.order == NEWEST,
        )
        self.senders.append(senders)
        mode = self._settings.spool.commitment if self._settings.spool is not None else OFF
        if mode != OFF:
            senders.committer = Committer(
                name=device.name,
                spool=spool,
                connect=partial(CommitLink, upstream, gate.client_context),
                prepare=prepare,
                mode=mode,
                key=transaction_key(self._settings.state_directory / device.name),
                send_again=senders.send_again,
            )
        scp = StoreScp(
            name=device.name,
            registry=gate.registry,
            zone=LegacyZone(name=device.name, networks=device.networks, end_date=date.max),
            spool=spool,
            learned=learned,
            accepted=senders.add,
            delivered=senders.wait_until_delivered,
            admit=admit,
            idle_seconds=_IDLE_SECONDS,
        )
        return senders, scp

    def close(self, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """End associations, and everything else."""
        with self._lock:
            self._is_closed = True
        for keeper in self._keepers.values():
            keeper.stop()
        for line in self._reverse.values():
            line.stop()
        deadline = time.monotonic() + _DRAIN_SECONDS
        for gate in self._gates:
            while time.monotonic() < deadline and not is_hurried():
                if gate.wait_until_empty(0.1):
                    break
            for session in gate.sessions():
                self._engine.post(partial(session.end, ReasonCode.DRAINING))
            gate.wait_until_empty(1.0)
        self._closing.close()


def _nothing() -> None:
    """Without a spool nothing has to be prepared."""
