"""Asks archives now and then if they are there, so that a declared replica can stand in for one that is not.

A C-ECHO as the gateway itself. An archive that rejects it is there all the same: it answers. Two failures in a row make
an archive `down`, two successes `up` again; both are on record. A failed call of a device asks at once.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dicomward.audit.event import AuditEvent, DegradedEntered, DegradedLeft
from dicomward.identity.registry import Archive, RegistrySnapshot
from dicomward.io.echo import EchoFailed, EchoRejected, EchoSeconds, echo
from dicomward.io.gateway.gate import Gate, Refused
from dicomward.settings import Settings

_log = logging.getLogger(__name__)

DOWN: Final = "down"
_COMPONENT: Final = "archive"
_IN_A_ROW: Final = 2
# A failed call asks again at once, but a storm of them not more often than this.
_LEAST_SECONDS: Final = 1.0


class Check(StrEnum):
    """Which archives are asked: the values of `[health] check`."""

    REPLICAS = "replicas"
    ALL = "all"
    OFF = "off"


@dataclass(slots=True)
class _Standing:
    failures: int = 0
    successes: int = 0
    is_down: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSettings:
    """`interval` and `timeout` in seconds; `check`: who is asked."""

    interval: float
    timeout: float
    check: Check


def health_settings(settings: Settings) -> HealthSettings:
    """Return what is wanted of the settings."""
    health = settings.health
    return HealthSettings(interval=health.interval_seconds, timeout=health.timeout_seconds, check=Check(health.check))


def ask_archive(gate: Gate, settings: Settings, archive: Archive, timeout: float) -> None:
    """Send a C-ECHO as the gateway itself. Raises EchoFailed."""
    try:
        context = gate.upstream_context(archive)
    except Refused as refused:
        raise EchoFailed(refused.detail) from refused
    echo(
        archive.endpoint.host,
        archive.endpoint.port,
        calling_ae_title=settings.health.calling_ae_title,
        called_ae_title=archive.ae_title,
        context=context,
        seconds=EchoSeconds.alike(timeout),
    )


class ArchiveHealth:
    """One thread that asks one archive after the other. `ask` raises EchoFailed."""

    def __init__(
        self,
        *,
        registry: Callable[[], RegistrySnapshot],
        settings: Callable[[], HealthSettings],
        ask: Callable[[Archive, float], object],
        record: Callable[[AuditEvent], object],
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._ask = ask
        self._record = record
        self._standing: dict[str, _Standing] = {}
        self._wake = threading.Condition()
        self._is_stopping = False
        self._is_asked = False
        self._thread = threading.Thread(target=self._run, name="dicomward-health", daemon=True)

    def start(self) -> None:
        """Start to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the archive that is being asked."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(self._settings().timeout + 1.0)

    def is_down(self, archive: str) -> bool:
        """Say if an archive was not there when it was asked last; one that is never asked is up."""
        standing = self._standing.get(archive)
        return standing is not None and standing.is_down

    def states(self) -> dict[str, bool]:
        """Return for each archive that is asked if it is up, for metrics."""
        return {name: not standing.is_down for name, standing in list(self._standing.items())}

    def call_failed(self) -> None:
        """Note that a device's call to an archive has failed: ask soon."""
        with self._wake:
            self._is_asked = True
            self._wake.notify()

    def check(self) -> None:
        """Ask every archive once that is to be asked."""
        registry, settings = self._registry(), self._settings()
        asked = [
            archive
            for archive in registry.archives
            if settings.check is Check.ALL
            or (settings.check is Check.REPLICAS and (archive.replica_of or registry.replicas_of(archive.name)))
        ]
        for name in self._standing.keys() - {archive.name for archive in asked}:
            self._standing.pop(name)
        for archive in asked:
            if self._is_stopping:
                return
            self._judge(archive, settings.timeout)

    def _judge(self, archive: Archive, timeout: float) -> None:
        standing = self._standing.setdefault(archive.name, _Standing())
        problem = ""
        try:
            self._ask(archive, timeout)
        except EchoRejected:
            pass
        except EchoFailed as error:
            problem = str(error)
        if problem:
            standing.successes, standing.failures = 0, standing.failures + 1
        else:
            standing.successes, standing.failures = standing.successes + 1, 0
        if standing.failures >= _IN_A_ROW and not standing.is_down:
            standing.is_down = True
            _log.error("archive %s is down: %s", archive.name, problem)
            self._record(DegradedEntered(component=_COMPONENT, archive=archive.name, state=DOWN, detail=problem))
        elif standing.successes >= _IN_A_ROW and standing.is_down:
            standing.is_down = False
            _log.info("archive %s is up again", archive.name)
            self._record(DegradedLeft(component=_COMPONENT, archive=archive.name))

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self.check()
            except Exception:  # noqa: BLE001  a defect here must not end the asking
                _log.exception("archives could not be asked if they are there")
            if not self._wait(began):
                return

    def _wait(self, began: float) -> bool:
        """Wait for the next round; False when it is to end. One that has only begun to fail is asked again soon."""
        undecided = any(0 < each.failures < _IN_A_ROW and not each.is_down for each in self._standing.values())
        seconds = _LEAST_SECONDS if undecided else self._settings().interval
        with self._wake:
            self._wake.wait_for(
                lambda: self._is_stopping or self._is_asked, max(0.0, began + seconds - time.monotonic())
            )
            if self._is_asked and not self._is_stopping:
                self._is_asked = False
                left = began + _LEAST_SECONDS - time.monotonic()
                self._wake.wait_for(lambda: self._is_stopping, max(0.0, left))
            return not self._is_stopping
