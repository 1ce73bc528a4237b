"""Watches over the spool's age: the status file, the metrics, and an alarm within a minute."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from dicomward import __version__
from dicomward.io.edge.gate import Credential
from dicomward.io.edge.keeper import Keeper
from dicomward.io.edge.reverse import ReverseLine
from dicomward.io.edge.sender import Senders
from dicomward.io.edge.spool import Spool
from dicomward.io.monitoring.server import MetricsServer, Page
from dicomward.io.system import calls
from dicomward.io.tls import TlsConfigurationError
from dicomward.settings.edge import EdgeSettings

_log = logging.getLogger(__name__)

STATUS_NAME: Final = "status.json"
_PERIOD_SECONDS: Final = 1.0
_ALARM_AGAIN_SECONDS: Final = 60.0


def _age(oldest: float | None) -> float:
    return max(time.time() - oldest, 0.0) if oldest is not None else 0.0


class EdgeWatch:
    """Looks once a second."""

    def __init__(
        self,
        settings: EdgeSettings,
        senders: list[Senders],
        credentials: Mapping[str, Credential],
        spool: Spool | None,
        reverse: Mapping[str, ReverseLine],
        keepers: Mapping[str, Keeper],
    ) -> None:
        self._keepers = keepers
        self._reverse = reverse
        self._credentials = credentials
        self._spool = spool
        self._overdue: dict[str, int] = {}
        self._settings = settings
        self._senders = senders
        self._stopping = threading.Event()
        self._alarmed: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="dicomward-edge-watch", daemon=True)
        self._server: MetricsServer | None = None
        if settings.metrics is not None:
            self._server = MetricsServer(settings.metrics.host, settings.metrics.port, {"/metrics": self._page})

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        if self._server is not None:
            self._server.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()
        if self._server is not None:
            self._server.stop()

    def _run(self) -> None:
        while True:
            for look in (self._retry, self._quarantine, self._look):
                try:
                    look()
                except OSError as error:
                    _log.error("the spool or the status file can't be written: %s", error)
            self._refresh()
            if self._stopping.wait(_PERIOD_SECONDS):
                return

    def _refresh(self) -> None:
        for name, credential in list(self._credentials.items()):
            try:
                if credential.refresh():
                    _log.info("%s: a renewed certificate is in use from now on", name)
            except (OSError, TlsConfigurationError) as error:
                _log.warning("%s: the old certificate stays in use: %s", name, error)

    def _retry(self) -> None:
        """Send again what was refused, if an operator has asked for it. Raises OSError."""
        taken_back = self._spool.retry_if_asked() if self._spool is not None else None
        if taken_back is None:
            return
        for senders in list(self._senders):
            mine = [waiting for device, waiting in taken_back if device == senders.name]
            _log.info("%s: %d objects that were refused are sent again", senders.name, len(mine))
            senders.retry(mine)

    def _quarantine(self) -> None:
        """Mark what waits for too long. Raises OSError."""
        if self._settings.spool is not None:
            before = time.time() - self._settings.spool.alarm_minutes * 60
            for senders in list(self._senders):
                self._overdue[senders.name] = senders.mark_overdue(before)

    def _look(self) -> None:
        path = self._settings.state_directory / STATUS_NAME
        new = path.with_suffix(".new")
        told = {
            "time": time.time(),
            "version": __version__,
            "devices": self.devices(),
            "reverse": self.reverse(),
            "certificates": self.certificates(),
        }
        new.write_text(json.dumps(told), "utf-8")
        calls.replace(new, path)
        for senders in list(self._senders):
            name, committer = senders.name, senders.committer
            text = "%d objects wait (%d of them in quarantine), the oldest for %d s: %s"
            age = _age(senders.oldest())
            overdue = self._overdue.get(name, 0)
            self._judge(name, age, text, senders.waiting, overdue, int(age), senders.problem or "the line is slow")
            if committer is not None:
                text = "%d objects are stored and not committed to, the oldest for %d s: %s"
                age, why = _age(committer.oldest()), committer.problem or "the archive has not reported yet"
                self._judge(f"{name} (commitment)", age, text, committer.waiting, int(age), why)

    def _judge(self, what: str, age: float, text: str, *numbers: object) -> None:
        """Raise an alarm if something is too old, once a minute."""
        spool = self._settings.spool
        if spool is None or age < spool.alarm_minutes * 60:
            self._alarmed.pop(what, None)
        elif time.monotonic() - self._alarmed.get(what, float("-inf")) >= _ALARM_AGAIN_SECONDS:
            self._alarmed[what] = time.monotonic()
            _log.error("ALARM %s: " + text, what, *numbers)

    def devices(self) -> dict[str, dict[str, object]]:
        """Return the numbers of each device since the start."""
        return {
            each.name: {
                "upstream": each.problem or "ok",
                "delivered": each.delivered,
                "delivered_bytes": each.delivered_bytes,
                "quarantined": each.set_aside,
                "waiting": each.waiting,
                "overdue": self._overdue.get(each.name, 0),
                "committed": each.committer.committed if each.committer is not None else 0,
                "uncommitted": each.committer.waiting if each.committer is not None else 0,
                "commitment": (each.committer.problem or "ok") if each.committer is not None else "off",
                "oldest_seconds": round(max(_age(each.oldest()), self._uncommitted_age(each)), 1),
                "alarm": any(key in self._alarmed for key in (each.name, f"{each.name} (commitment)")),
            }
            for each in list(self._senders)
        }

    def reverse(self) -> dict[str, dict[str, object]]:
        """Return how each device's reverse connections stand, of those that have some."""
        return {name: line.status() for name, line in list(self._reverse.items())}

    def certificates(self) -> dict[str, dict[str, object]]:
        """Return how each device stands whose certificate the agent gets and renews by itself."""
        return {name: keeper.status() for name, keeper in self._keepers.items()}

    def _uncommitted_age(self, senders: Senders) -> float:
        return _age(senders.committer.oldest()) if senders.committer is not None else 0.0

    def _page(self) -> Page:
        families = (
            ("delivered", "dicomward_edge_delivered_total", "counter", "Objects that the archive has accepted."),
            ("delivered_bytes", "dicomward_edge_delivered_bytes_total", "counter", "Their bytes in the spool."),
            ("quarantined", "dicomward_edge_quarantined_total", "counter", "Objects that were refused for good."),
            ("waiting", "dicomward_edge_waiting", "gauge", "Objects that wait in the spool."),
            ("overdue", "dicomward_edge_overdue", "gauge", "Objects in quarantine because they wait for too long."),
            ("committed", "dicomward_edge_committed_total", "counter", "Objects that the archive has committed to."),
            ("uncommitted", "dicomward_edge_uncommitted", "gauge", "Objects stored, and not committed to yet."),
            ("oldest_seconds", "dicomward_edge_oldest_seconds", "gauge", "Age of the oldest that waits."),
            ("alarm", "dicomward_edge_alarm", "gauge", "1 if the oldest waits for longer than alarm_minutes."),
        )
        of_reverse = (
            ("parked", "dicomward_edge_reverse_parked", "gauge", "Reverse connections that wait for the gateway."),
            ("used", "dicomward_edge_reverse_used_total", "counter", "Reverse connections that it has used."),
        )
        of_certificates = (
            (
                "seconds_left",
                "dicomward_edge_certificate_seconds",
                "gauge",
                "How long the device's certificate is good.",
            ),
            ("renewals", "dicomward_edge_certificate_renewals_total", "counter", "Renewals of its certificate."),
            ("problem", "dicomward_edge_certificate_problem", "gauge", "1 if its certificate needs a person."),
        )
        lines: list[str] = []
        groups = ((families, self.devices()), (of_reverse, self.reverse()), (of_certificates, self.certificates()))
        for group, devices in groups:
            for key, name, kind, about in group:
                lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
                for device, numbers in devices.items():
                    value = numbers[key]
                    lines.append(f'{name}{{device="{device}"}} {int(value) if isinstance(value, bool) else value}')
        return Page("\n".join([*lines, ""]), content_type="text/plain; version=0.0.4; charset=utf-8")
