"""What leaves the audit log of a running gateway, and what looks after it: receivers, heads, headroom, retention.

Nothing here is waited for by the gateway's own work: each receiver has a thread, the rest share one.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from dicomward.audit.encode_json import format_time
from dicomward.audit.event import AuditEvent, DegradedEntered, DegradedLeft, SecurityAlert
from dicomward.audit.headroom import THRESHOLD_HOURS, Headroom, HeadroomMeter
from dicomward.audit.standard import AuditSource
from dicomward.io.audit.engine import Clock, SystemClock
from dicomward.io.audit.files import AuditLogBusyError
from dicomward.io.audit.key import AuditKeyError
from dicomward.io.audit.prune import (
    COMMAND,
    RETENTION,
    PruneError,
    PrunePlan,
    plan_prune,
    prune,
    trim_checkpoints,
)
from dicomward.io.audit.second import Diverts
from dicomward.io.audit.ship import HEAD_SECONDS, ShipLimits, Shipper
from dicomward.io.audit.tail import last_checkpoint_line
from dicomward.io.control import Answer
from dicomward.settings import Settings
from dicomward.vocab.reason import ReasonCode

_log: Final = logging.getLogger(__name__)

_RETENTION_SECONDS: Final = 3600.0
_RECORD_SECONDS: Final = 5.0
_HEADS: Final = "file of signed heads"
_DISK: Final = "disk of the audit log"
_RETENTION: Final = "retention of the audit log"

RecordDurably = Callable[[AuditEvent, Callable[[bool], None]], object]


class AuditOutlets:
    """Built with the gateway; `start` after the log, `stop` after it too, so that its last records go out."""

    def __init__(
        self,
        settings: Settings,
        *,
        record: Callable[[AuditEvent], object],
        record_durably: RecordDurably,
        clock: Clock | None = None,
        limits: ShipLimits | None = None,
    ) -> None:
        """Prepare it. Raises TlsConfigurationError for a destination whose files can't be used."""
        self._settings = settings.audit
        self._record = record
        self._record_durably = record_durably
        self._clock = clock or SystemClock()
        source = AuditSource(self._settings.source_id, self._settings.enterprise_site_id)
        self._shippers = [
            Shipper(
                self._settings.directory,
                destination,
                source,
                host=socket.gethostname(),
                record=record,
                clock=clock,
                limits=limits,
            )
            for destination in self._settings.syslog
        ]
        self._meter = HeadroomMeter()
        self._headroom = Headroom(free_bytes=0, bytes_per_hour=0.0, hours=None)
        self._threshold: int | None = None
        self._last_head: bytes | None = None
        self._failing: set[str] = set()
        self._prune_at = self._clock.monotonic() + HEAD_SECONDS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="audit-keeper", daemon=True)

    def tidy(self) -> None:
        """Drop what nobody needs any more. Raises AuditLogBusyError if somebody has the log open."""
        try:
            trim_checkpoints(self._settings.directory)
        except AuditLogBusyError:
            raise
        except OSError as error:
            _log.warning("checkpoints of pruned records stay for now: %s", error)

    def start(self) -> None:
        """Start everything. Raises OSError."""
        for shipper in self._shippers:
            shipper.start()
        self._thread.start()

    def divert(self, records: Diverts) -> None:
        """Send what goes to the second sink to the receivers as well."""
        for shipper in self._shippers:
            shipper.divert(records)

    def stop(self) -> None:
        """Send what is left and stop; waits a few seconds at most for each receiver."""
        self._stopping.set()
        for shipper in self._shippers:
            shipper.stop()
        if self._thread.ident is not None:
            self._thread.join()
            self._guarded(_HEADS, self._write_head)

    # --- what others ask ---------------------------------------------------------------------------------------------

    @property
    def headroom(self) -> Headroom:
        """How it stands with the disk."""
        return self._headroom

    def answer_status(self, _request: Answer) -> Answer:
        """Answer `dicomward audit status`."""
        return {"ok": True, **self.status()}

    def status(self) -> dict[str, object]:
        """Return how everything stands, as `dicomward audit status` prints it and metrics count it."""
        headroom = self._headroom
        return {
            "free_bytes": headroom.free_bytes,
            "bytes_per_hour": round(headroom.bytes_per_hour),
            "headroom_hours": None if headroom.hours is None else round(headroom.hours, 1),
            "destinations": [
                {
                    "destination": each.destination,
                    "connected": each.connected,
                    "delivered": each.delivered,
                    "backlog": each.backlog,
                    "error": each.error,
                }
                for each in (shipper.status for shipper in self._shippers)
            ],
        }

    def answer_prune(self, request: Answer) -> Answer:
        """Answer `dicomward audit prune`: it has happened, and is on record."""
        days, audit = request.get("days"), request.get("audit")
        named = audit.get("operator") if isinstance(audit, dict) else None
        operator = named if isinstance(named, str) else None
        if not isinstance(days, int | float) or days <= 0:
            return {"ok": False, "error": "the number of days must be above zero"}
        try:
            plan = self.prune(days, operator=operator, action=COMMAND)
        except (PruneError, AuditKeyError, OSError) as error:
            return {"ok": False, "error": str(error)}
        return {"ok": True, "records": plan.records, "segments": len(plan.segments), "held": plan.held}

    def prune(self, days: float, *, operator: str | None, action: str) -> PrunePlan:
        """Remove segments older than so many days. Raises PruneError, AuditKeyError, OSError."""
        now = self._clock.time_ns()
        before = days_before(now, days)
        plan = plan_prune(self._settings.directory, before=before, destinations=self._settings.syslog)
        prune(
            self._settings.directory,
            plan,
            now=format_time(now),
            operator=operator,
            action=action,
            record=self._record_and_wait,
        )
        return plan

    def _record_and_wait(self, event: AuditEvent) -> bool:
        over, written = threading.Event(), []

        def done(is_written: bool) -> None:
            written.append(is_written)
            over.set()

        self._record_durably(event, done)
        over.wait(_RECORD_SECONDS)
        return written == [True]

    # --- the keeper's thread -----------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self.look()
            self._stopping.wait(HEAD_SECONDS)

    def look(self) -> None:
        """Do what is due: the head to its file, the headroom, the retention."""
        self._guarded(_HEADS, self._write_head)
        self._guarded(_DISK, self._measure)
        if self._settings.retention_days and self._clock.monotonic() >= self._prune_at:
            self._prune_at = self._clock.monotonic() + _RETENTION_SECONDS
            self._guarded(_RETENTION, self._retain)

    def _retain(self) -> None:
        self.prune(self._settings.retention_days, operator=None, action=RETENTION)

    def _write_head(self) -> None:
        """Append the newest signed head to the file that is on another machine."""
        path = self._settings.heads_file
        if path is None:
            return
        line = last_checkpoint_line(self._settings.directory)
        if line is None or line == self._last_head:
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._last_head = line

    def _measure(self) -> None:
        """Look at the disk, and raise or end the alarm of its headroom."""
        directory = self._settings.directory
        space = os.statvfs(directory)
        self._headroom = headroom = self._meter.measure(
            now=self._clock.monotonic(),
            log_bytes=_bytes_in(directory),
            free_bytes=space.f_bavail * space.f_frsize,
        )
        threshold = headroom.threshold
        if threshold == self._threshold:
            return
        was, self._threshold = self._threshold, threshold
        if threshold is None:
            self._record(DegradedLeft(component=_DISK, state="ok", reason=ReasonCode.AUDIT_HEADROOM))
            return
        detail = f"at this speed the disk is full in {headroom.hours:.0f} h: {headroom.free_bytes:,} bytes are free"
        self._record(
            DegradedEntered(
                component=_DISK, state=f"less than {threshold} h", reason=ReasonCode.AUDIT_HEADROOM, detail=detail
            )
        )
        if threshold == THRESHOLD_HOURS[-1] and was != threshold:
            self._record(SecurityAlert(reason=ReasonCode.AUDIT_HEADROOM, detail=detail))

    def _guarded(self, component: str, work: Callable[[], None]) -> None:
        """Do it; a failure is an alarm once, and it is tried again next time."""
        try:
            work()
        except (OSError, PruneError, AuditKeyError) as error:
            if component not in self._failing:
                self._failing.add(component)
                _log.warning("%s: %s", component, error)
                self._record(DegradedEntered(component=component, state="failing", detail=str(error)))
        else:
            if component in self._failing:
                self._failing.discard(component)
                self._record(DegradedLeft(component=component, state="ok"))


def days_before(time_ns: int, days: float) -> str:
    """Return the time so many days before, as the log writes it."""
    moment = datetime.fromtimestamp(time_ns / 1e9, UTC) - timedelta(days=days)
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def _bytes_in(directory: Path) -> int:
    """Return the size of all files of the log."""
    total = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    return total
