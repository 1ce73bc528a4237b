"""Watches over the spool's age: the status file, the metrics, and an alarm within a minute."""

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from dicomward.io.edge.gate import Credential
from dicomward.io.edge.sender import Senders
from dicomward.io.monitoring.server import MetricsServer, Page
from dicomward.io.tls import TlsConfigurationError
from dicomward.settings.edge import EdgeSettings

_log = logging.getLogger(__name__)

STATUS_NAME: Final = "status.json"
_PERIOD_SECONDS: Final = 1.0
_ALARM_AGAIN_SECONDS: Final = 60.0


class EdgeWatch:
    """Looks once a second."""

    def __init__(self, settings: EdgeSettings, senders: list[Senders], credentials: Mapping[str, Credential]) -> None:
        self._credentials = credentials
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
            try:
                self._look()
            except OSError as error:
                _log.error("the status file can't be written: %s", error)
            self._refresh()
            if self._stopping.wait(_PERIOD_SECONDS):
                return

    def _refresh(self) -> None:
        for name, credential in self._credentials.items():
            try:
                if credential.refresh():
                    _log.info("%s: a renewed certificate is in use from now on", name)
            except (OSError, TlsConfigurationError) as error:
                _log.warning("%s: the old certificate stays in use: %s", name, error)

    def _look(self) -> None:
        path = self._settings.state_directory / STATUS_NAME
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"time": time.time(), "devices": self.devices()}), "utf-8")
        new.replace(path)
        spool = self._settings.spool
        for senders in self._senders:
            age = self._age(senders)
            if spool is None or age < spool.alarm_minutes * 60:
                self._alarmed.pop(senders.name, None)
            elif time.monotonic() - self._alarmed.get(senders.name, float("-inf")) >= _ALARM_AGAIN_SECONDS:
                self._alarmed[senders.name] = time.monotonic()
                why = senders.problem or "the line is slow"
                _log.error(
                    "ALARM %s: %d objects wait, the oldest for %d s: %s", senders.name, senders.waiting, age, why
                )

    def _age(self, senders: Senders) -> float:
        oldest = senders.oldest()
        return max(time.time() - oldest, 0.0) if oldest is not None else 0.0

    def devices(self) -> dict[str, dict[str, object]]:
        """Return the numbers of each device since the start."""
        return {
            each.name: {
                "upstream": each.problem or "ok",
                "delivered": each.delivered,
                "delivered_bytes": each.delivered_bytes,
                "quarantined": each.set_aside,
                "waiting": each.waiting,
                "oldest_seconds": round(self._age(each), 1),
                "alarm": each.name in self._alarmed,
            }
            for each in self._senders
        }

    def _page(self) -> Page:
        families = (
            ("delivered", "dicomward_edge_delivered_total", "counter", "Objects that the archive has accepted."),
            ("delivered_bytes", "dicomward_edge_delivered_bytes_total", "counter", "Their bytes in the spool."),
            ("quarantined", "dicomward_edge_quarantined_total", "counter", "Objects that were refused for good."),
            ("waiting", "dicomward_edge_waiting", "gauge", "Objects that wait in the spool."),
            ("oldest_seconds", "dicomward_edge_oldest_seconds", "gauge", "Age of the oldest that waits."),
            ("alarm", "dicomward_edge_alarm", "gauge", "1 if the oldest waits for longer than alarm_minutes."),
        )
        devices = self.devices()
        lines: list[str] = []
        for key, name, kind, about in families:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            for device, numbers in devices.items():
                value = numbers[key]
                lines.append(f'{name}{{device="{device}"}} {int(value) if isinstance(value, bool) else value}')
        return Page("\n".join([*lines, ""]), content_type="text/plain; version=0.0.4; charset=utf-8")
