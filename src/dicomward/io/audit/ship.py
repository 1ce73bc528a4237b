"""Sends the audit log to one syslog receiver: in order, each record at least once, however long the receiver is away.

The log itself is the spool: a cursor says how far the receiver has it. So nothing is written twice, nothing is lost in
a crash, and the gateway's own work never waits for a receiver. Syslog has no answers: what was sent counts as
delivered once the other machine has acknowledged it and the connection has stood for a while after that; what was in
doubt when a connection broke is sent again.
"""

import logging
import os
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dicomward.audit.chain import GENESIS, Record, decode_record
from dicomward.audit.encode_dicom import encode_dicom
from dicomward.audit.encode_ecs import encode_ecs
from dicomward.audit.encode_fhir import encode_fhir
from dicomward.audit.encode_json import MemberValue, RecordError, encode_canonical, event_members, format_time
from dicomward.audit.event import AuditEvent, AuditRecordsLost, DegradedEntered, DegradedLeft
from dicomward.audit.standard import AuditSource, Outcome, StandardMessage
from dicomward.audit.syslog import MESSAGE_IDS, NOTICE, WARNING, encode_message, frame
from dicomward.audit.translate import Translator
from dicomward.io.audit.cursor import Cursor, cursor_path
from dicomward.io.audit.engine import Clock, SystemClock
from dicomward.io.audit.second import Diverts
from dicomward.io.audit.syslog import SyslogConnection, syslog_context
from dicomward.io.audit.tail import LogTail, last_checkpoint_line, last_seq
from dicomward.settings.syslog import SyslogDestination
from dicomward.vocab.reason import ReasonCode

_log: Final = logging.getLogger(__name__)

HEAD_SECONDS: Final = 60.0
"""Between two signed heads: what root can rewrite unnoticed is at most so young."""

_BATCH: Final = 64
# Between two batches others run: a backlog of hours must not take the interpreter from the byte path.
_PAUSE_SECONDS: Final = 0.002
_MOST_DIVERTED: Final = 8192
_SETTLE_STEP_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipLimits:
    """When a shipper looks, tells, trusts and tries again; seconds."""

    look_seconds: float = 0.5
    collect_seconds: float = 60.0
    settle_seconds: float = 2.0
    alarm_seconds: float = 10.0
    first_retry_seconds: float = 1.0
    longest_retry_seconds: float = 30.0
    stop_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShipStatus:
    """How one destination stands."""

    destination: str
    connected: bool
    delivered: int
    backlog: int
    error: str


def encode_record(record: Record, encoding: str, translator: Translator) -> list[tuple[bytes, int]]:
    """Return the messages that a record completes, each with its severity."""
    if encoding == "ecs":
        return [(encode_ecs(record), NOTICE)]
    if encoding == "json":
        members = {**record.members, "seq": record.seq, "time": record.time, "prev": record.prev, "hash": record.hash}
        return [(encode_canonical(members), NOTICE)]
    return encode_messages(translator.take(record), encoding)


def encode_messages(messages: Sequence[StandardMessage], encoding: str) -> list[tuple[bytes, int]]:
    """Return standard messages in DICOM's or FHIR's encoding, each with its severity."""
    encode = encode_fhir if encoding == "fhir" else encode_dicom
    return [(encode(each), NOTICE if each.outcome is Outcome.SUCCESS else WARNING) for each in messages]


class Shipper:
    """One destination; a thread of its own. `record` writes to the audit log and must not block."""

    def __init__(
        self,
        directory: Path,
        destination: SyslogDestination,
        source: AuditSource,
        *,
        host: str,
        record: Callable[[AuditEvent], object],
        clock: Clock | None = None,
        limits: ShipLimits | None = None,
    ) -> None:
        """Prepare it. Raises TlsConfigurationError."""
        self._directory = directory
        self._destination = destination
        self._source = source
        self._host = host
        self._record = record
        self._clock = clock or SystemClock()
        self._limits = limits or ShipLimits()
        self._context = syslog_context(destination)
        self._process_id = str(os.getpid())
        self._cursor: Cursor | None = None
        self._stopping = threading.Event()
        self._stop_at = 0.0
        self._woken = threading.Event()
        self._diverted: deque[tuple[str, dict[str, MemberValue]]] = deque()
        self._diverted_lost = 0
        self._diverted_lock = threading.Lock()
        # What was sent and isn't trusted yet: when, and up to which record.
        self._in_doubt: deque[tuple[float, int]] = deque()
        self._connected = False
        self._lost_at: float | None = None
        self._is_alarmed = False
        self._error = ""
        self._head_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"audit-syslog {destination.address}", daemon=True)

    @property
    def status(self) -> ShipStatus:
        """How it stands now."""
        delivered = self._cursor.seq if self._cursor is not None else 0
        try:
            backlog = max(0, last_seq(self._directory) - delivered)
        except OSError:
            backlog = 0
        return ShipStatus(
            destination=self._destination.name,
            connected=self._connected,
            delivered=delivered,
            backlog=backlog,
            error="" if self._connected else self._error,
        )

    def start(self) -> None:
        """Begin to send. Raises OSError where the cursor can't be kept."""
        start = 0 if self._destination.from_start else last_seq(self._directory)
        path = cursor_path(self._directory, self._destination)
        self._cursor = Cursor(path, self._destination.name, start=start)
        self._thread.start()

    def divert(self, records: Diverts) -> None:
        """Send records that the log can't take; as many as there is room for in memory."""
        with self._diverted_lock:
            room = max(0, _MOST_DIVERTED - len(self._diverted))
            self._diverted.extend((moment, dict(members)) for moment, members in records[:room])
            self._diverted_lost += len(records) - min(room, len(records))
        self._woken.set()

    def stop(self) -> None:
        """Send what is left, if the receiver takes it within a few seconds, and stop."""
        self._stop_at = self._clock.monotonic() + self._limits.stop_seconds
        self._stopping.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join(self._limits.stop_seconds + 2.0)
        if self._cursor is not None and not self._thread.is_alive():
            self._cursor.close()

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Connect, send until the connection is lost, wait, and again."""
        wait = self._limits.first_retry_seconds
        while True:
            try:
                if self._serve():
                    return
            except (OSError, ssl.SSLError) as error:
                self._lost(error)
            except Exception as error:  # noqa: BLE001  a defect of ours must not end what the security office relies on
                _log.exception("sending audit messages to %s failed", self._destination.name)
                self._lost(error)
            if self._in_doubt or self._connected:
                wait = self._limits.first_retry_seconds
            self._connected = False
            self._in_doubt.clear()
            if self._stopping.wait(wait):
                return
            wait = min(2 * wait, self._limits.longest_retry_seconds)

    def _serve(self) -> bool:
        """Send over one connection; True when it was told to stop and everything is sent. Raises OSError."""
        cursor = self._cursor
        if cursor is None:
            return True
        connection = SyslogConnection(self._destination, self._context)
        try:
            connection.is_settled()
            tail, translator = LogTail(self._directory, after=cursor.seq), Translator(self._source)
            self._head_at = 0.0
            while True:
                is_last = self._stopping.is_set()
                sent = self._send_batch(connection, tail, translator, is_last)
                self._trust(connection, cursor)
                if is_last and (not sent or self._clock.monotonic() > self._stop_at):
                    self._settle(connection, cursor)
                    return True
                if sent:
                    self._stopping.wait(_PAUSE_SECONDS)
                else:
                    self._woken.wait(self._limits.look_seconds)
                    self._woken.clear()
        finally:
            connection.close()

    def _send_batch(self, connection: SyslogConnection, tail: LogTail, translator: Translator, is_last: bool) -> bool:
        """Send what is there, a batch at most; say if there was anything."""
        before = tail.seq
        encoding = self._destination.encoding
        bodies = self._take_diverted(translator)
        lines = list(tail.read(_BATCH))
        for seq, line in lines:
            if seq > before + 1:
                lost = AuditRecordsLost(count=seq - before - 1, detail="pruned or removed before they were sent")
                bodies += self._own(lost, translator)
            before = seq
            try:
                bodies += encode_record(decode_record(line), encoding, translator)
            except RecordError as error:
                lost = AuditRecordsLost(count=1, reason=ReasonCode.INTERNAL_ERROR, detail=f"record {seq}: {error}")
                bodies += self._own(lost, translator)
        if not lines:
            # All that there is was read: what has been collected for long enough is told, at the end everything.
            cutoff = None if is_last else self._moment(-self._limits.collect_seconds)
            bodies += encode_messages(translator.flush(cutoff), encoding)
        frames = [self._frame(body, MESSAGE_IDS[encoding], severity) for body, severity in bodies]
        if self._clock.monotonic() >= self._head_at or (is_last and not lines):
            frames += self._head()
        if frames:
            connection.send(b"".join(frames))
        told = tail.seq if translator.untold is None else translator.untold - 1
        if self._cursor is not None and told > (self._in_doubt[-1][1] if self._in_doubt else self._cursor.seq):
            self._in_doubt.append((self._clock.monotonic(), told))
        return bool(lines)

    def _settle(self, connection: SyslogConnection, cursor: Cursor) -> None:
        """At the end: wait until the other machine has acknowledged everything, as long as there is time for it."""
        while self._in_doubt and self._clock.monotonic() <= self._stop_at:
            self._trust(connection, cursor, all_of_it=True)
            if self._in_doubt:
                time.sleep(_SETTLE_STEP_SECONDS)

    def _trust(self, connection: SyslogConnection, cursor: Cursor, *, all_of_it: bool = False) -> None:
        """Note what has arrived. Raises OSError where the receiver has hung up."""
        is_settled = connection.is_settled()
        if not self._connected:
            self._found()
        trusted = None
        limit = self._clock.monotonic() - self._limits.settle_seconds
        while self._in_doubt and is_settled and (self._in_doubt[0][0] <= limit or all_of_it):
            trusted = self._in_doubt.popleft()[1]
        if trusted is not None:
            cursor.save(trusted)

    def _head(self) -> list[bytes]:
        """Return the newest signed head as a message."""
        self._head_at = self._clock.monotonic() + HEAD_SECONDS
        line = last_checkpoint_line(self._directory)
        return [] if line is None else [self._frame(line, MESSAGE_IDS["head"], NOTICE)]

    def _frame(self, body: bytes, message_id: str, severity: int) -> bytes:
        message = encode_message(
            body,
            time=self._moment(),
            host=self._host,
            process_id=self._process_id,
            message_id=message_id,
            severity=severity,
        )
        return frame(message)

    def _moment(self, seconds: float = 0.0) -> str:
        return format_time(self._clock.time_ns() + int(seconds * 1e9))

    # --- what isn't in the log ---------------------------------------------------------------------------------------

    def _take_diverted(self, translator: Translator) -> list[tuple[bytes, int]]:
        """Return the messages of records that the log could not take."""
        with self._diverted_lock:
            records, lost = list(self._diverted), self._diverted_lost
            self._diverted.clear()
            self._diverted_lost = 0
        bodies: list[tuple[bytes, int]] = []
        for moment, members in records:
            own = Record(seq=0, time=moment, prev=GENESIS.hash, hash=GENESIS.hash, members=members)
            bodies += encode_record(own, self._destination.encoding, translator)
        if lost:
            bodies += self._own(AuditRecordsLost(count=lost, reason=ReasonCode.AUDIT_QUEUE_FULL), translator)
        return bodies

    def _own(self, event: AuditEvent, translator: Translator) -> list[tuple[bytes, int]]:
        """Return the message of something that the shipper itself has noticed."""
        members = event_members(event)
        own = Record(seq=0, time=self._moment(), prev=GENESIS.hash, hash=GENESIS.hash, members=members)
        return encode_record(own, self._destination.encoding, translator)

    # --- alarms ------------------------------------------------------------------------------------------------------

    @property
    def _component(self) -> str:
        return f"syslog {self._destination.name}"

    def _lost(self, error: Exception) -> None:
        """Note that the receiver can't be reached; an alarm if that lasts."""
        now = self._clock.monotonic()
        self._error = str(error) or type(error).__name__
        if self._lost_at is None:
            self._lost_at = now
        if not self._is_alarmed and now - self._lost_at >= self._limits.alarm_seconds:
            self._is_alarmed = True
            _log.warning("%s can't be reached: %s; the log keeps what it has to get", self._component, self._error)
            self._record(DegradedEntered(component=self._component, state="spooling", detail=self._error))

    def _found(self) -> None:
        """Note that the receiver is there."""
        self._connected, self._lost_at = True, None
        if self._is_alarmed:
            self._is_alarmed = False
            self._record(DegradedLeft(component=self._component, state="ok"))
