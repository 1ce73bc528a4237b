"""What a running gateway tells monitoring: its own state as metrics, whether it lives, whether it is ready."""

import logging
import os
import platform
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final

from dicomward.audit.event import AuditEvent, DegradedEntered
from dicomward.io.audit.log import AuditHealth, AuditLog, AuditState
from dicomward.io.gateway.engine import Engine
from dicomward.io.gateway.gate import Gate
from dicomward.io.monitoring.certificate_watch import CertificatesInForce, device_ends
from dicomward.io.monitoring.metrics import CONTENT_TYPE, Family, MetricKind, Metrics, Sample, Source, gauge, labelled
from dicomward.io.monitoring.metrics_events import MOST_NAMES, EventCounts
from dicomward.io.monitoring.server import MetricsServer, Page, Pages
from dicomward.settings import ListenAddress, Settings

_log = logging.getLogger(__name__)

COMPONENT: Final = "metrics"
# A worker that does nothing for so long is stuck: an ordinary input takes it less than a millisecond.
ALIVE_SECONDS: Final = 2.0


class Monitoring:
    """The metrics of one gateway and, where it is wanted, the listener that shows them."""

    def __init__(
        self,
        *,
        settings: Settings,
        gate: Gate,
        audit: AuditLog,
        engine: Engine,
        counts: EventCounts,
        version: str,
        more: Mapping[str, Source] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._audit = audit
        self._engine = engine
        self._version = version
        self._clock = clock
        self._started = clock()
        self._server: MetricsServer | None = None
        # Why the gateway is not ready; None once it serves.
        self._not_ready: str | None = "starting"
        self.certificates = CertificatesInForce(settings)
        self.metrics = Metrics()
        for name, source in (
            ("gateway", self._gateway_families),
            ("events", counts.families),
            ("associations", self._association_families),
            ("audit", self._audit_families),
            ("certificates", self._certificate_families),
            ("process", lambda: process_families(self._started)),
            *(more or {}).items(),
        ):
            self.metrics.register(name, source)

    # -- the listener -----------------------------------------------------------------------------------------------

    def start(self, record: Callable[[AuditEvent], object]) -> None:
        """Listen, if settings say so. Where that fails, the gateway goes on without, with an alarm on record."""
        where = self._settings.metrics.listen
        if where is None:
            return
        try:
            self._server = MetricsServer(where.host, where.port, self.pages())
        except OSError as error:
            detail = f"can't listen on {where} for monitoring: {error.strerror or error}; the gateway works without it"
            _log.error("%s", detail)
            record(DegradedEntered(component=COMPONENT, state="off", detail=detail))
            return
        self._server.start()
        _log.info("monitoring on http://%s/metrics", self.address)

    @property
    def address(self) -> ListenAddress | None:
        """Where it listens, None if it doesn't."""
        return None if self._server is None else ListenAddress(host=self._server.host, port=self._server.port)

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def serves(self) -> None:
        """Note that the gateway takes associations from now on."""
        self._not_ready = None

    def drains(self) -> None:
        """Note that the gateway takes no associations any more."""
        self._not_ready = "draining"

    # -- pages ------------------------------------------------------------------------------------------------------

    def pages(self) -> Pages:
        """Return what each path shows."""
        return {"/metrics": self._show_metrics, "/healthz": self._show_health, "/readyz": self._show_ready}

    def _show_metrics(self) -> Page:
        return Page(self.metrics.render(), content_type=CONTENT_TYPE)

    def _show_health(self) -> Page:
        """Liveness: a worker of the byte path does something when it is asked."""
        if self.is_alive():
            return Page("ok\n")
        return Page(f"the gateway has done nothing for {ALIVE_SECONDS:g} s\n", HTTPStatus.SERVICE_UNAVAILABLE)

    def _show_ready(self) -> Page:
        reason = self.not_ready()
        if reason is None:
            return Page("ready\n")
        return Page(f"not ready: {reason}\n", HTTPStatus.SERVICE_UNAVAILABLE)

    def is_alive(self) -> bool:
        """Say if the engine does what it is asked."""
        done = threading.Event()
        self._engine.post(done.set)
        return done.wait(ALIVE_SECONDS)

    def not_ready(self) -> str | None:
        """Return why new associations would not be taken now, None if they would. A degraded gateway is ready."""
        if self._not_ready is not None:
            return self._not_ready
        health: AuditHealth = self._audit.health
        if health.state is AuditState.NO_SINK:
            return f"no audit sink ({health.reason})"
        return None

    # -- sources ----------------------------------------------------------------------------------------------------

    def _gateway_families(self) -> Iterable[Family]:
        gate = self._gate
        yield gauge(
            "dicomward_build_info",
            "Always 1; the labels say what runs.",
            1,
            version=self._version,
            python=platform.python_version(),
        )
        yield gauge("dicomward_start_time_seconds", "When this gateway was started, Unix time.", self._started)
        yield gauge("dicomward_ready", "1 while new associations are taken.", self.not_ready() is None)
        yield gauge("dicomward_draining", "1 while open associations may end and no new ones come.", self._is_draining)
        floor = gate.floor_reason()
        yield gauge(
            "dicomward_floor_only",
            "1 while only the clinical floor is left to everybody.",
            floor is not None,
            reason=str(floor) if floor else "",
        )
        yield gauge(
            "dicomward_policy_info", "Always 1; the label is the policy in force.", 1, revision=gate.policy.revision
        )
        yield gauge("dicomward_registry_revision", "The revision of the registry in force.", gate.registry.revision)
        statuses = Counter(dict.fromkeys(("active", "suspended", "revoked"), 0))
        statuses.update(str(device.status) for device in gate.registry.devices)
        yield labelled(
            "dicomward_devices",
            MetricKind.GAUGE,
            "Registered devices by status.",
            "status",
            statuses,  # type: ignore[arg-type]
        )
        yield gauge("dicomward_archives", "Registered archives.", len(gate.registry.archives))

    @property
    def _is_draining(self) -> bool:
        return self._not_ready == "draining"

    def _association_families(self) -> Iterable[Family]:
        connections, waiting = len(self._gate.sessions()), len(self._gate.waiting())
        yield gauge("dicomward_connections_open", "Connections of both sides, associations among them.", connections)
        yield gauge("dicomward_connections_waiting", "Connections that are no association yet.", waiting)
        yield gauge("dicomward_associations_open", "Associations that are open.", max(0, connections - waiting))

    def _audit_families(self) -> Iterable[Family]:
        audit, health = self._audit, self._audit.health
        yield labelled(
            "dicomward_audit_state",
            MetricKind.GAUGE,
            "1 for the state that the audit log is in: ok, degraded (records go to the second sink) or no-sink.",
            "state",
            {str(state): float(state is health.state) for state in AuditState},
        )
        yield gauge("dicomward_audit_queue_records", "Records that wait to be written.", audit.waiting)
        yield gauge("dicomward_audit_queue_capacity_records", "Records that may wait.", audit.capacity)
        yield gauge("dicomward_audit_record_number", "The number of the newest durable record.", audit.durable_seq)
        yield gauge("dicomward_audit_signed_record_number", "The newest record that is signed.", audit.signed_seq)
        free = free_bytes(self._settings.audit.directory)
        if free is not None:
            yield gauge("dicomward_audit_disk_free_bytes", "What the disk of the audit log has left.", free)

    def _certificate_families(self) -> Iterable[Family]:
        now = self._clock()
        left = [
            Sample(end.timestamp() - now, {"kind": kind, "name": name})
            for (kind, name), end in self.certificates.ends().items()
        ]
        left += [
            Sample(end.timestamp() - now, {"kind": kind, "name": name})
            for (kind, name), end in device_ends(self._gate.registry, MOST_NAMES).items()
        ]
        yield Family(
            "dicomward_certificate_expires_in_seconds",
            MetricKind.GAUGE,
            "Seconds until a certificate or CRL ends, below 0 after it; each active device's newest.",
            left,
        )


def free_bytes(directory: Path) -> int | None:
    """Return what is left for us on the disk of a directory; None if that can't be known now."""
    try:
        status = os.statvfs(directory)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def process_families(started: float) -> Iterable[Family]:
    """Return what every exporter tells of its process, under the usual names."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield Family(
        "process_cpu_seconds_total",
        MetricKind.COUNTER,
        "CPU time of the process.",
        (Sample(usage.ru_utime + usage.ru_stime),),
    )
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    yield gauge("process_resident_memory_bytes", "Memory of the process.", pages * resource.getpagesize())
    yield gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd")))
    yield gauge("process_max_fds", "Most file descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield gauge("process_start_time_seconds", "When the process was started, Unix time.", started)
    yield gauge("dicomward_threads", "Threads of the process.", threading.active_count())
