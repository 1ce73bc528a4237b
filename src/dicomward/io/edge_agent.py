"""A running edge agent: listeners for its devices, the pass-through, the spool and its senders."""

import logging
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

from dicomward.identity.registry import RegistryError
from dicomward.io.audit_log import AuditLog, AuditLogError
from dicomward.io.edge_gate import EdgeGate
from dicomward.io.engine import Engine
from dicomward.io.gateway import Acceptor, open_listener
from dicomward.io.listeners import NamedListener
from dicomward.io.tls import TlsConfigurationError
from dicomward.relay.inputs import Listener
from dicomward.settings.edge import EdgeDevice, EdgeSettings
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_REQUEST_SECONDS: Final = 30.0
_DRAIN_SECONDS: Final = 5.0


class EdgeStartError(Exception):
    """The agent can't start; the message says what, why and what to do."""


class EdgeAgent:
    """Build it, `open` it, and `close` it. `addresses` tells where it listens, by device."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._settings = settings
        self._engine = Engine(1)
        self._gates: list[EdgeGate] = []
        self._closing = ExitStack()
        self.addresses: dict[str, tuple[str, int]] = {}

    def open(self) -> None:
        """Start everything; when this returns, it serves. Raises EdgeStartError."""
        try:
            self._open()
        except (OSError, RegistryError, TlsConfigurationError, AuditLogError) as error:
            self._closing.close()
            raise EdgeStartError(str(error)) from error

    def _open(self) -> None:
        self._settings.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        audit = AuditLog(self._settings.state_directory / "audit")
        audit.start()
        self._closing.callback(audit.close)
        self._engine.start()
        self._closing.callback(self._engine.stop)
        for device in self._settings.devices:
            self._listen(device, audit)

    def _listen(self, device: EdgeDevice, audit: AuditLog) -> None:
        gate = EdgeGate(device, self._settings, audit)
        self._gates.append(gate)
        self._closing.callback(gate.close)
        try:
            listening = open_listener(device.listen.host, device.listen.port)
        except OSError as error:
            raise EdgeStartError(
                f"can't listen on {device.listen} for {device.name}: {error.strerror or error}. "
                "Does another agent run, or is the address not one of this machine?"
            ) from error
        self.addresses[device.name] = listening.getsockname()[:2]
        acceptor = self._acceptor(device, gate, listening)
        acceptor.start()
        self._closing.callback(acceptor.stop)

    def _acceptor(self, device: EdgeDevice, gate: EdgeGate, listening: socket.socket) -> Acceptor:
        listener = NamedListener(name=device.name, kind=Listener.LEGACY, address=device.listen, tls=False)
        return Acceptor(self._engine, gate, listener, listening, lambda _address: _REQUEST_SECONDS)

    def close(self, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """End associations, and everything else."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        for gate in self._gates:
            while time.monotonic() < deadline and not is_hurried():
                if gate.wait_until_empty(0.1):
                    break
            for session in gate.sessions():
                self._engine.post(partial(session.end, ReasonCode.DRAINING))
            gate.wait_until_empty(1.0)
        self._closing.close()
