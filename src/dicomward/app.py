"""The composition root: the only place that knows everybody. It builds the parts and passes them on; no logic."""

import os
import resource
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from dicomward import __version__
from dicomward.audit.event import (
    AuditEvent,
    DegradedEntered,
    DegradedLeft,
    GatewayStarted,
    GatewayStopped,
    SecurityAlert,
)
from dicomward.identity.network import NetworkSet
from dicomward.identity.registry import RegistryError, RegistrySnapshot
from dicomward.io.audit.files import wait_for_writer
from dicomward.io.audit.log import AuditHealth, AuditLog, AuditLogError, AuditState
from dicomward.io.audit.outlets import AuditOutlets
from dicomward.io.audit.second import Diverts, FileSink, StderrSink
from dicomward.io.control import ControlServer
from dicomward.io.gateway.commands import Commands
from dicomward.io.gateway.correlations import CorrelationStore
from dicomward.io.gateway.engine import Engine
from dicomward.io.gateway.gate import MOST_WAITING, Gate, ListenerTls, LockedLimits
from dicomward.io.gateway.listeners import NamedListener, listeners_of
from dicomward.io.gateway.policy_file import note_policy, read_policy, remember_policy
from dicomward.io.gateway.reload import Reloader
from dicomward.io.gateway.reload_parts import CertificatesPart, PolicyPart, RegistryPart
from dicomward.io.gateway.reverse import ReverseConnections
from dicomward.io.gateway.server import Acceptor, open_listener
from dicomward.io.monitoring.certificate_watch import CertificateWatch, device_ends
from dicomward.io.monitoring.health import ArchiveHealth, ask_archive, health_settings
from dicomward.io.monitoring.metrics_audit import outlet_families
from dicomward.io.monitoring.metrics_events import EventCounts
from dicomward.io.monitoring.metrics_protection import (
    budget_families,
    bypass_families,
    reverse_families,
    zone_families,
)
from dicomward.io.monitoring.state import Monitoring
from dicomward.io.people.sources import person_verifier
from dicomward.io.protection.budgets import BudgetStore
from dicomward.io.protection.bypass_commands import change_bypass
from dicomward.io.protection.bypass_keeper import BypassKeeper
from dicomward.io.protection.lockdown import lockdown_or_everything
from dicomward.io.protection.lockdown_keeper import LockdownKeeper
from dicomward.io.protection.moved import MOVED_NAME, MovedDevices
from dicomward.io.protection.zone_watch import CHECK_SECONDS, ZoneWatch
from dicomward.io.registry.file import read_registry
from dicomward.io.stop_signals import StopSignals
from dicomward.io.systemd import InheritedError, Notifier, assign_inherited, take_inherited
from dicomward.io.tls import (
    CaDates,
    CertificateFiles,
    PeerCertificates,
    TlsConfigurationError,
    client_context,
    minimum_version_of,
    server_context,
)
from dicomward.limits.book import LimitBook
from dicomward.limits.strangers import StrangerBook
from dicomward.policy.load import PolicyError
from dicomward.relay.canaries import Canaries, Canary
from dicomward.relay.inputs import Listener
from dicomward.relay.world import RelaySettings
from dicomward.settings import ListenAddress, Settings, load_settings
from dicomward.vocab.reason import ReasonCode

_CORRELATIONS = "correlations"
_BUDGETS = "budgets"
# One worker is the fastest: a second one makes each kernel call wait for the GIL (docs/adr/0002).
_WORKERS = 1
# A connection takes two descriptors: its own and the one towards the archive.
_DESCRIPTORS = 65_536
# When it drains, who has just connected gets so long to become an association; who says nothing isn't waited for.
_WAITING_SECONDS = 2.0
_STEP_SECONDS = 0.1
# What ending takes at most after the draining, and how long the next gateway waits for it.
_END_SECONDS = 10.0
_TAKE_OVER_SECONDS = 20.0
# How long a command takes at most to write its record while no gateway runs.
_COMMAND_SECONDS = 2.0


class StartError(Exception):
    """The gateway can't start; the message says what, why and what to do."""


class ConfigurationError(StartError):
    """The configuration can't be used."""


def _said(error: Exception) -> str:
    """Return what an error says, in words where the system says it in numbers."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename} can't be read: {error.strerror}"


class Gateway:
    """A running gateway: build it, `serve` it, and it ends by signals."""

    def __init__(self, settings: Settings, *, operator: str = "") -> None:
        self._settings = settings
        self._operator = operator
        self._control: ControlServer | None = None
        self._listeners = listeners_of(settings)
        self._sockets: dict[str, socket.socket] = {}
        self._acceptors: list[Acceptor] = []
        self._notifier = Notifier(os.environ)
        gateway = settings.gateway
        self._inherited, is_alone = _inherited_sockets(settings, self._listeners)
        try:
            registry = read_registry(settings.registry.snapshot)
            policy = read_policy(settings.policy.file)
            minimum = minimum_version_of(settings.tls.minimum_version)
            files = [CertificateFiles(pair.certificate, pair.key) for pair in settings.tls.certificates]
            tls_context = server_context(files, settings.tls.client_ca, minimum)
            client_tls = client_context(files, minimum)
        except (OSError, RegistryError, PolicyError, TlsConfigurationError) as error:
            raise ConfigurationError(f"{_said(error)}. `dicomward check-config` tells more") from error
        if not is_alone:
            raise StartError(
                f"another gateway runs on {settings.directory} and does not end; stop it first, or give this one a "
                "directory of its own (dicomward init)"
            )
        self._engine = Engine(gateway.workers or _WORKERS)
        state_directory = gateway.state_directory
        try:
            state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"gateway.state_directory can't be made: {error}") from error
        self._audit = AuditLog(
            settings.audit.directory,
            second_sink=FileSink(settings.audit.second_sink) if settings.audit.second_sink else StderrSink(),
            listener=self._audit_changed,
            on_diverted=self._audit_diverted,
        )
        self._counts = EventCounts()
        try:
            self._outlets = AuditOutlets(settings, record=self._record, record_durably=self._audit.append_durable)
        except TlsConfigurationError as error:
            raise ConfigurationError(str(error)) from error
        self._correlations = CorrelationStore(
            state_directory / "correlations.db",
            failed=lambda detail: self._record(
                DegradedEntered(component=_CORRELATIONS, state="memory-only", detail=detail)
            ),
            works=lambda: self._record(DegradedLeft(component=_CORRELATIONS)),
        )
        self._gate = Gate(
            settings=_relay_settings(settings),
            registry=registry,
            policy=policy,
            limits=LockedLimits(LimitBook(settings.limits), StrangerBook(settings.limits.strangers)),
            correlations=self._correlations,
            budgets=self._open_budgets(),
            audit=self._audit,
            server_tls=ListenerTls(tls_context, PeerCertificates(CaDates(tls_context))),
            client_tls=client_tls,
            persons=person_verifier(settings.people, self._record),
            most_waiting=min(MOST_WAITING, _raise_descriptors() // 4),
            counts=self._counts,
            zones=[each.zone for each in settings.legacy_zones],
            moved=MovedDevices(state_directory / MOVED_NAME),
        )
        self._certificate_watch = CertificateWatch(self._record)
        self._zone_watch = ZoneWatch([each.zone for each in settings.legacy_zones], self._record)
        self._monitoring = Monitoring(
            settings=settings,
            gate=self._gate,
            audit=self._audit,
            engine=self._engine,
            counts=self._counts,
            version=__version__,
            more={
                "audit outlets": lambda: outlet_families(self._outlets.status()),
                "reverse connections": lambda: reverse_families(self._reverse.counts(), self._gate.registry),
                "budgets": lambda: budget_families(self._gate.budgets, self._gate.registry),
                "bypass": lambda: bypass_families(self._bypasses.all()),
                "legacy zones": lambda: zone_families(
                    (each.zone for each in settings.legacy_zones),
                    datetime.now().astimezone(),  # noqa: TID251  the site's own time
                ),
            },
        )
        self._bypasses = BypassKeeper(
            state_directory, settings.audit.directory, self._gate.record_and_wait, self._gate.use_bypasses
        )
        self._gate.balancers = NetworkSet(gateway.proxy_protocol_from)
        self._health = ArchiveHealth(
            registry=lambda: self._gate.registry,
            settings=lambda: health_settings(self._reloader.settings),
            ask=lambda archive, timeout: ask_archive(self._gate, self._reloader.settings, archive, timeout),
            record=self._record,
        )
        self._gate.is_down, self._gate.call_failed = self._health.is_down, self._health.call_failed
        self._gate.reverse = self._reverse = ReverseConnections(
            self._engine,
            registry=lambda: self._gate.registry,
            expiry_grace=lambda: self._gate.settings.expiry_grace,
            clock=lambda: datetime.now().astimezone(),  # noqa: TID251  the clock is passed on
            record=self._gate.record,
        )
        self._commands = Commands(self._gate, self._read_registry)
        lockdown = LockdownKeeper(self._gate, state_directory)
        self._commands.add("lockdown-changed", lockdown.changed)
        self._commands.add("audit-status", self._outlets.answer_status)
        self._commands.add("audit-prune", self._outlets.answer_prune)
        self._reloader = Reloader(
            settings,
            lambda: load_settings(settings.path),
            apply=self._use_settings,
            parts=(
                PolicyPart(self._gate),
                CertificatesPart(
                    self._gate,
                    settings,
                    lambda: datetime.now(UTC),  # noqa: TID251  the clock is passed on
                    self._monitoring.certificates.read,
                ),
                RegistryPart(self._gate, self._commands.reload_registry),
            ),
            record=self._commands.record,
            revisions=lambda: (self._gate.policy.revision, self._gate.registry.revision),
        )
        self._commands.add("reload", self._reloader.answer)
        self._commands.add("bypass", partial(change_bypass, self._bypasses))

    def serve(self, listening: Callable[[str], None]) -> int:
        """Serve until a signal says otherwise; `listening` gets HOST:PORT of the device side. Returns an exit code."""
        with StopSignals() as signals:
            self.open()
            listening(self.address(Listener.DEVICE))
            self._notifier.ready()
            signals.wait(self._reload)
            self._notifier.stopping(self._reloader.settings.gateway.drain_seconds + _END_SECONDS)
            self.drain(lambda: signals.count > 1)
            self.close()
        return 0

    def open(self) -> None:
        """Start everything; when this returns, it serves. Raises StartError."""
        gateway = self._settings.gateway
        try:
            # First of all: whoever holds the log's lock is the gateway of this directory.
            self._outlets.tidy()
            self._audit.start()
            self._outlets.start()
            changed = note_policy(self._gate.policy, gateway.state_directory, self._operator)
            self._gate.lockdown, unreadable = lockdown_or_everything(gateway.state_directory)
            if unreadable is not None:
                self._record(SecurityAlert(reason=ReasonCode.SITE_LOCKDOWN, detail=unreadable))
            self._control = _open_control(gateway.state_directory, self._commands)
            self._engine.start()
            self._control.start()
            self._monitoring.start(self._record)
            # A change between the first reading and the socket was told to nobody.
            self._commands.reload_registry()
            self._bypasses.start()
            for listener in self._listeners:
                self._sockets[listener.name] = self._inherited.get(listener.name) or _listen(listener)
        except (StartError, AuditLogError, OSError, RegistryError) as error:
            self.close()
            raise StartError(_said(error)) from error
        if changed is not None and self._commands.record(changed).get("ok") is True:
            remember_policy(self._gate.policy, gateway.state_directory)
        self._record(
            GatewayStarted(
                version=__version__,
                policy_revision=self._gate.policy.revision,
                registry_revision=self._gate.registry.revision,
            )
        )
        for listener in self._listeners:
            acceptor = Acceptor(self._engine, self._gate, listener, self._sockets[listener.name], self._deadline)
            self._acceptors.append(acceptor)
            acceptor.start()
        self._watch_dates()
        self._monitoring.serves()
        self._watch_over()
        self._health.start()

    def address(self, listener: str) -> str:
        """Return where a listener listens, by its name, as HOST:PORT."""
        host, port = self._sockets[listener].getsockname()[:2]
        return str(ListenAddress(host=host, port=port))

    def drain(self, is_hurried: Callable[[], bool]) -> None:
        """Take nobody any more, and let associations end by themselves for a while, or until `is_hurried`."""
        self._monitoring.drains()
        for acceptor in self._acceptors:
            acceptor.stop()
        self._reverse.close()
        began = time.monotonic()
        drain_seconds = self._reloader.settings.gateway.drain_seconds
        while (waited := time.monotonic() - began) < drain_seconds and not is_hurried():
            if waited >= _WAITING_SECONDS:
                for session in self._gate.waiting():
                    session.end(ReasonCode.DRAINING)
            if self._gate.wait_until_empty(_STEP_SECONDS) and not any(each.is_announcing for each in self._acceptors):
                break
        else:
            self._end_all(ReasonCode.DRAINING)
            self._gate.wait_until_empty(1.0)
        self._record(GatewayStopped(version=__version__))

    def close(self) -> None:
        """Stop everything that `open` has started."""
        self._monitoring.stop()
        self._health.stop()
        if self._control is not None:
            self._control.stop()
        self._bypasses.stop()
        self._engine.stop()
        self._gate.stop_verifying()
        for opened in self._sockets.values():
            opened.close()
        self._correlations.close()
        self._gate.budgets.close()
        self._audit.close()
        self._outlets.stop()

    # -- small things -----------------------------------------------------------------------------------------------

    def _open_budgets(self) -> BudgetStore:
        return BudgetStore(
            self._settings.gateway.state_directory,
            self._settings.budgets,
            failed=lambda detail: self._record(
                DegradedEntered(component=_BUDGETS, state="clinical-floor", detail=detail)
            ),
            works=lambda: self._record(DegradedLeft(component=_BUDGETS)),
            record=self._record,
        )

    @property
    def monitoring(self) -> Monitoring:
        """Metrics and health; other parts register their sources with `monitoring.metrics`."""
        return self._monitoring

    def _record(self, event: AuditEvent) -> None:
        self._counts.count(event)
        self._audit.append(event)

    def _watch_dates(self) -> None:
        now = datetime.now().astimezone()  # noqa: TID251  the site's own time
        self._zone_watch.check(now)
        ends = {**self._monitoring.certificates.ends(), **device_ends(self._gate.registry)}
        self._certificate_watch.check(ends, now)
        self._engine.timers.after(CHECK_SECONDS, self._watch_dates)

    def _reload(self) -> None:
        self._notifier.reloading()
        self._reloader.reload("SIGHUP", unattended=True)
        self._notifier.ready()

    def _watch_over(self) -> None:
        """Tell the service manager's watchdog now and then that the worker still does what is posted to it."""
        if self._notifier.watchdog_seconds > 0:
            self._notifier.alive()
            self._engine.timers.after(self._notifier.watchdog_seconds / 2, self._watch_over)

    def _read_registry(self) -> RegistrySnapshot:
        return read_registry(self._reloader.settings.registry.snapshot)

    def _use_settings(self, settings: Settings) -> None:
        """Put reloaded settings in force: open associations wait by the new times from their next wait on."""
        self._gate.settings = _relay_settings(settings)
        self._gate.limits.use_settings(settings.limits, time.monotonic())
        self._gate.budgets.use_settings(settings.budgets)
        self._gate.balancers = NetworkSet(settings.gateway.proxy_protocol_from)

    def _deadline(self, address: str) -> float:
        gateway = self._reloader.settings.gateway
        if self._gate.registry.is_registered_address(address):
            return gateway.handshake_deadline_registered_seconds
        return gateway.handshake_deadline_unknown_seconds

    def _audit_changed(self, health: AuditHealth) -> None:
        """Narrow to the clinical floor while the log can't be written; end everything where no sink is left."""
        self._gate.narrow(None if health.state is AuditState.OK else ReasonCode.AUDIT_UNAVAILABLE)
        # A stalled disk may hold up the worker that was writing an operation's record.
        if health.reason is ReasonCode.AUDIT_STALLED:
            self._engine.relieve()
        else:
            self._engine.resume()
        if health.state is AuditState.NO_SINK:
            self._engine.post(lambda: self._end_all(ReasonCode.AUDIT_UNAVAILABLE))

    def _audit_diverted(self, records: Diverts) -> None:
        self._outlets.divert(records)

    def _end_all(self, reason: ReasonCode) -> None:
        for session in self._gate.sessions():
            session.end(reason)


def _inherited_sockets(
    settings: Settings, listeners: tuple[NamedListener, ...]
) -> tuple[dict[str, socket.socket], bool]:
    """Take the sockets that the service manager holds for us, and say if no other gateway runs. Raises StartError.

    They outlive a gateway: the one before may still drain, and nothing is read before it has ended. Without them it can
    only be a command that writes its record.
    """
    try:
        inherited = assign_inherited(take_inherited(os.environ, os.getpid()), listeners)
        seconds = settings.gateway.drain_seconds + _TAKE_OVER_SECONDS if inherited else _COMMAND_SECONDS
    except (InheritedError, OSError) as error:
        raise StartError(str(error)) from error
    return inherited, _is_alone(settings.audit.directory, seconds)


def _is_alone(directory: Path, seconds: float) -> bool:
    """Say if nobody else writes the log, or soon nobody does."""
    try:
        return wait_for_writer(directory, seconds)
    except OSError:
        # A log that can't be opened stops no gateway: the second sink takes its records.
        return True


def _relay_settings(settings: Settings) -> RelaySettings:
    gateway = settings.gateway
    return RelaySettings(
        limits=settings.dicom_limits,
        expiry_grace=timedelta(days=settings.tls.expired_certificate_grace_days),
        upstream_seconds=gateway.upstream_connect_seconds,
        answer_seconds=gateway.artim_seconds,
        release_seconds=gateway.artim_seconds,
        idle_seconds=gateway.idle_seconds,
        stalled_seconds=gateway.stalled_seconds,
        identify_patients=settings.audit.patients,
        most_nested_sequences=gateway.most_nested_sequences,
        person_seconds=settings.people.verify_seconds,
        canaries=Canaries(
            Canary(
                name=each.name,
                patient_ids=each.patient_ids,
                accession_numbers=each.accession_numbers,
                study_instance_uids=each.study_instance_uids,
            )
            for each in settings.canaries
        ),
    )


def _raise_descriptors() -> int:
    """Ask for as many file descriptors as there may be; return how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def _open_control(directory: Path, commands: Commands) -> ControlServer:
    try:
        return ControlServer(directory, commands.handle)
    except OSError as error:
        raise StartError(
            f"the control socket can't be made in {directory}: {error.strerror or error}. "
            "Commands such as `dicomward device suspend` need it; make the directory writable"
        ) from error


def _listen(listener: NamedListener) -> socket.socket:
    try:
        return open_listener(listener.address.host, listener.address.port)
    except OSError as error:
        advice = "Is another gateway running, or is the address not one of this machine?"
        if isinstance(error, PermissionError):
            advice = "Ports below 1024 are for root and for sockets of systemd (docs/packaging.md); take a higher one"
        raise StartError(
            f"can't listen on {listener.address} for {listener.kind.value}s: {error.strerror or error}. {advice}"
        ) from error
