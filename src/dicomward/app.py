"""The composition root: the only place that knows everybody. It builds the parts and passes them on; no logic."""

import logging
import signal
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from ssl import TLSVersion

from dicomward import __version__
from dicomward.audit.event import GatewayStarted, GatewayStopped
from dicomward.identity.registry import RegistryError, RegistrySnapshot, decode_snapshot
from dicomward.io.audit_log import AuditHealth, AuditLog, AuditLogError, AuditState
from dicomward.io.audit_second import FileSink, StderrSink
from dicomward.io.commands import Commands
from dicomward.io.control import ControlServer
from dicomward.io.correlations import CorrelationStore
from dicomward.io.engine import Engine
from dicomward.io.gate import Gate, ListenerTls, LockedLimits
from dicomward.io.gateway import Acceptor, open_listener
from dicomward.io.tls import (
    CaDates,
    CertificateFiles,
    PeerCertificates,
    TlsConfigurationError,
    client_context,
    server_context,
)
from dicomward.limits.book import LimitBook
from dicomward.limits.strangers import StrangerBook
from dicomward.policy.load import PolicyError, load_policy
from dicomward.policy.model import Policy
from dicomward.relay.inputs import Listener
from dicomward.relay.world import RelaySettings
from dicomward.settings import ListenAddress, Settings
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

# One worker is the fastest: a second one makes each kernel call wait for the GIL (docs/adr/0002).
_WORKERS = 1
_MINIMUM_VERSIONS = {"1.2": TLSVersion.TLSv1_2, "1.3": TLSVersion.TLSv1_3}


class StartError(Exception):
    """The gateway can't start; the message says what, why and what to do."""


class ConfigurationError(StartError):
    """The configuration can't be used."""


class Gateway:
    """A running gateway: build it, `serve` it, and it ends by signals."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._drain = threading.Event()
        gateway = settings.gateway
        try:
            registry = self._read_registry()
            policy = _read_policy(settings)
            minimum = _MINIMUM_VERSIONS[settings.tls.minimum_version]
            files = [CertificateFiles(pair.certificate, pair.key) for pair in settings.tls.certificates]
            tls_context = server_context(files, settings.tls.client_ca, minimum)
            client_tls = client_context(files, minimum)
        except (OSError, RegistryError, PolicyError, TlsConfigurationError) as error:
            raise ConfigurationError(f"{error}. `dicomward check-config` tells more") from error
        device_tls = ListenerTls(tls_context, PeerCertificates(CaDates(tls_context)))
        self._engine = Engine(gateway.workers or _WORKERS)
        state_directory = gateway.state_directory
        state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._audit = AuditLog(
            settings.audit.directory,
            second_sink=FileSink(settings.audit.second_sink) if settings.audit.second_sink else StderrSink(),
            listener=self._audit_changed,
        )
        self._correlations = CorrelationStore(
            state_directory / "correlations.db",
            failed=lambda detail: self._gate.component_failed("correlations", detail),
        )
        self._gate = Gate(
            settings=RelaySettings(
                limits=settings.dicom_limits,
                expiry_grace=timedelta(days=settings.tls.expired_certificate_grace_days),
                upstream_seconds=gateway.upstream_connect_seconds,
                release_seconds=gateway.artim_seconds,
                idle_seconds=gateway.idle_seconds,
                stalled_seconds=gateway.stalled_seconds,
            ),
            registry=registry,
            policy=policy,
            limits=LockedLimits(LimitBook(settings.limits), StrangerBook(settings.limits.strangers)),
            correlations=self._correlations,
            audit=self._audit,
            device_tls=device_tls,
            archive_tls=device_tls if gateway.archive_listen_tls else None,
            client_tls=client_tls,
        )

    def serve(self, listening: Callable[[str], None]) -> int:
        """Serve until a signal says otherwise; `listening` gets HOST:PORT of the device side. Returns an exit code."""
        gateway = self._settings.gateway
        try:
            self._audit.start()
        except (AuditLogError, OSError) as error:
            raise StartError(str(error)) from error
        commands = Commands(self._gate, self._read_registry)
        control = ControlServer(gateway.state_directory, commands.handle)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        self._engine.start()
        control.start()
        # A change between the first reading and the socket was told to nobody.
        commands.reload_registry()
        acceptors = []
        sockets = []
        try:
            # The device side comes last: who can reach it finds everything else at work.
            for listener, where in ((Listener.ARCHIVE, gateway.archive_listen), (Listener.DEVICE, gateway.listen)):
                sockets.append(_listen(where, listener))
        except StartError:
            control.stop()
            self._close()
            raise
        host, port = sockets[-1].getsockname()[:2]
        listening(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        for listener, opened in zip((Listener.ARCHIVE, Listener.DEVICE), sockets, strict=True):
            acceptors.append(Acceptor(self._engine, self._gate, listener, opened, self._deadline))
            acceptors[-1].start()
        self._audit.append(
            GatewayStarted(
                version=__version__,
                policy_revision=self._gate.policy.revision,
                registry_revision=self._gate.registry.revision,
            )
        )
        self._wait(self._drain)
        for acceptor in acceptors:
            acceptor.stop()
        self._drain_sessions()
        control.stop()
        self._audit.append(GatewayStopped(version=__version__))
        self._close()
        return 0

    def _close(self) -> None:
        self._engine.stop()
        self._gate.close()
        self._correlations.close()
        self._audit.close()

    # -- signals and draining ---------------------------------------------------------------------------------------

    def _signalled(self, number: int, _frame: object) -> None:
        if self._drain.is_set():
            self._stop.set()
        self._drain.set()

    def _wait(self, event: threading.Event) -> None:
        # A bounded wait lets the interpreter run its signal handlers.
        while not event.wait(1.0):
            pass

    def _drain_sessions(self) -> None:
        """Let associations end by themselves for a while; a second signal, or the end of the time, ends them."""
        waited, step = 0.0, 0.1
        while waited < self._settings.gateway.drain_seconds and not self._stop.is_set():
            if self._gate.wait_until_empty(step):
                return
            waited += step
        self._end_all(ReasonCode.DRAINING)
        self._gate.wait_until_empty(1.0)

    # -- small things -----------------------------------------------------------------------------------------------

    def _read_registry(self) -> RegistrySnapshot:
        return decode_snapshot(self._settings.registry.snapshot.read_text(encoding="utf-8"))

    def _deadline(self, address: str) -> float:
        gateway = self._settings.gateway
        if self._gate.registry.is_registered_address(address):
            return gateway.handshake_deadline_registered_seconds
        return gateway.handshake_deadline_unknown_seconds

    def _audit_changed(self, health: AuditHealth) -> None:
        """Narrow to the clinical floor while the log can't be written; end everything where no sink is left."""
        self._gate.narrow(None if health.state is AuditState.OK else ReasonCode.AUDIT_UNAVAILABLE)
        if health.state is AuditState.NO_SINK:
            self._engine.post(lambda: self._end_all(ReasonCode.AUDIT_UNAVAILABLE))

    def _end_all(self, reason: ReasonCode) -> None:
        for session in self._gate.sessions():
            session.end(reason)


def _listen(where: ListenAddress, listener: Listener) -> socket.socket:
    try:
        return open_listener(where.host, where.port)
    except OSError as error:
        raise StartError(
            f"can't listen on {where} for {listener.value}s: {error.strerror or error}. "
            "Is another gateway running, or is the address not one of this machine?"
        ) from error


def _read_policy(settings: Settings) -> Policy:
    path = settings.policy.file
    return load_policy(path.read_text(encoding="utf-8"), source=str(path))
