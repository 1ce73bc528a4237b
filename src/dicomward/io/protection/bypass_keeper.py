"""Opens, watches, closes and has reviewed the emergency bypasses: in the gateway, or for a command while none runs.

Order of every step: the audit record first, durably (in the second sink while the log is degraded), then the file, then
the effect. A file that can't be written doesn't keep a bypass from opening; the record and the answer say so.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dicomward.audit.event import AuditEvent, BypassReviewed, SecurityAlert
from dicomward.io.private_file import FileBusyError
from dicomward.io.protection.bypass_store import (
    Clocks,
    bypass_lock,
    find_contradictions,
    read_bypasses,
    state_digest,
    write_bypass,
)
from dicomward.policy.bypass import (
    MOST_MINUTES,
    Bypass,
    BypassTable,
    Due,
    Ending,
    ReviewRefused,
    compile_table,
    judge_due,
    verify_review,
)
from dicomward.vocab.reason import ReasonCode

_log = logging.getLogger(__name__)

_CHANGES: Final = (ReasonCode.BYPASS_OPENED, ReasonCode.BYPASS_ENDED)
_OPEN_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 30.0


class BypassError(Exception):
    """A bypass can't be opened, closed or reviewed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A bypass after a change; `problem` says what did not go as it should, though the change is in force."""

    bypass: Bypass
    problem: str = ""


class BypassKeeper:
    """The bypasses of one state directory. Thread-safe.

    `record` writes an event durably and says if it is kept anywhere; `publish` gets each new table.
    """

    def __init__(
        self,
        state_directory: Path,
        audit_directory: Path,
        record: Callable[[AuditEvent], bool],
        publish: Callable[[BypassTable], None],
        *,
        clocks: Clocks | None = None,
    ) -> None:
        self._state_directory = state_directory
        self._audit_directory = audit_directory
        self._record = record
        self._publish = publish
        self._clocks = clocks or Clocks()
        self._lock = threading.Lock()
        self._bypasses: dict[str, Bypass] = {}
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._watch, name="dicomward-bypass", daemon=True)

    # -- life -------------------------------------------------------------------------------------------------------

    def load(self) -> tuple[str, ...]:
        """Read the files and put in force what is still open; return what can't be read."""
        stored = read_bypasses(self._state_directory)
        with self._lock:
            self._bypasses = dict(stored.bypasses)
            self._put_in_force()
        return stored.problems

    def start(self) -> None:
        """Load, and from now on end what is over and raise the alarms; both start with what is found now."""
        try:
            # A command may be about to open one.
            with bypass_lock(self._state_directory):
                problems = self.load()
        except (OSError, FileBusyError):
            problems = self.load()
        for problem in problems:
            self._alarm_wrong(problem)
        with self._lock:
            # An alarm at each start: whoever reads the log of a start must see what is open or not reviewed.
            for bypass in list(self._bypasses.values()):
                if not bypass.is_reviewed:
                    _log.warning("%s", describe(bypass))
                    self._bypasses[bypass.bypass_id] = replace(bypass, alarmed_at=None)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; what is open stays open for the next start."""
        self._is_stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        self._check_evidence()
        while not self._is_stopping:
            self.tick()
            is_any_open = any(bypass.is_open for bypass in self.all())
            self._wake.wait(_OPEN_SECONDS if is_any_open else _IDLE_SECONDS)
            self._wake.clear()

    def _check_evidence(self) -> None:
        """Compare what is open or not reviewed with the audit log."""
        bypasses = {bypass.bypass_id: bypass for bypass in self.all()}
        try:
            contradictions = find_contradictions(self._audit_directory, bypasses)
        except OSError as error:
            contradictions = [f"the audit log can't be read, so bypasses could not be compared with it: {error}"]
        for contradiction in contradictions:
            self._alarm_wrong(contradiction)

    def tick(self) -> None:
        """Do what is due now."""
        with self._lock:
            now = self._clocks.moment()
            for bypass in list(self._bypasses.values()):
                match judge_due(bypass, now):
                    case Due.END:
                        self._end(bypass, Ending.TIME, None)
                    case Due.ALARM_OPEN:
                        self._alarm(bypass, ReasonCode.BYPASS_OPEN, describe(bypass), None)
                        self._keep(replace(bypass.leased(now), alarmed_at=now.wall))
                    case Due.ALARM_UNREVIEWED:
                        self._alarm(bypass, ReasonCode.BYPASS_NOT_REVIEWED, describe(bypass), None)
                        self._keep(replace(bypass, alarmed_at=now.wall))
                    case None:
                        if bypass.is_open and (leased := bypass.leased(now)) is not bypass:
                            self._keep(leased)
            self._put_in_force()

    # -- changes ----------------------------------------------------------------------------------------------------

    def open(self, *, device: str | None, site: str | None, minutes: int, reason: str, operator: str) -> Changed:
        """Open a bypass for a device or a site; in force when this returns. Raises BypassError."""
        if (device is None) == (site is None) or not 1 <= minutes <= MOST_MINUTES or not reason.strip():
            raise BypassError("a bypass needs one device or one site, 1 to 480 minutes, and a reason")
        with self._lock:
            now = self._clocks.moment()
            day = f"{now.wall:%Y%m%d}"
            number = 1
            while f"{day}-{number}" in self._bypasses:
                number += 1
            bypass = Bypass(
                bypass_id=f"{day}-{number}",
                device=device,
                site=site,
                reason=reason,
                operator=operator,
                minutes=minutes,
                opened_at=now.wall,
                boot=now.boot,
                boot_seconds=now.boot_seconds,
                alarmed_at=now.wall,
            )
            self._must(self._alarm(bypass, ReasonCode.BYPASS_OPENED, describe(bypass), operator))
            problem = self._keep(bypass)
            self._put_in_force()
        self._wake.set()
        return Changed(bypass, problem)

    def close(self, bypass_id: str, operator: str) -> Changed:
        """End a bypass before its time. Raises BypassError."""
        with self._lock:
            bypass = self._find(bypass_id)
            if not bypass.is_open:
                raise BypassError(f"bypass {bypass_id} has ended already, at {_time(bypass)}")
            changed = self._end(bypass, Ending.CLOSED, operator)
            self._put_in_force()
        return changed

    def review(self, bypass_id: str, reviewer: str, note: str, *, is_only_operator: bool = False) -> Changed:
        """Note that somebody has looked at what was done. Raises BypassError."""
        with self._lock:
            bypass = self._find(bypass_id)
            now = self._clocks.moment()
            if judge_due(bypass, now) is Due.END:
                bypass = self._end(bypass, Ending.TIME, None).bypass
            try:
                verify_review(bypass, reviewer, is_only_operator=is_only_operator)
            except ReviewRefused as error:
                raise BypassError(str(error)) from error
            reviewed = replace(bypass, reviewed_at=now.wall, reviewed_by=reviewer, note=note)
            self._must(
                self._record(
                    BypassReviewed(
                        device=bypass.device,
                        site=bypass.site,
                        operator=reviewer,
                        bypass=bypass_id,
                        state_sha256=state_digest(reviewed),
                        detail=note,
                    )
                )
            )
            return Changed(reviewed, self._keep(reviewed))

    def all(self) -> list[Bypass]:
        """Return all bypasses, the oldest first."""
        with self._lock:
            return sorted(self._bypasses.values(), key=lambda each: each.opened_at)

    # -- small things -----------------------------------------------------------------------------------------------

    def _find(self, bypass_id: str) -> Bypass:
        bypass = self._bypasses.get(bypass_id)
        if bypass is None:
            known = ", ".join(self._bypasses) or "none"
            raise BypassError(f"there is no bypass {bypass_id!r}; the known ones: {known}")
        return bypass

    def _end(self, bypass: Bypass, ending: Ending, operator: str | None) -> Changed:
        now = self._clocks.moment()
        ended = replace(bypass, ended_at=now.wall, ending=ending, ended_by=operator, alarmed_at=now.wall)
        is_kept = self._alarm(ended, ReasonCode.BYPASS_ENDED, describe(ended), operator)
        # Ending is never refused: less is lifted without a record than with one.
        problem = self._keep(ended)
        return Changed(ended, problem if is_kept else "the audit log could not be written")

    def _alarm(self, bypass: Bypass, reason: ReasonCode, detail: str, operator: str | None) -> bool:
        return self._record(
            SecurityAlert(
                device=bypass.device,
                site=bypass.site,
                reason=reason,
                rule_ids=(bypass.rule_id,),
                operator=operator or bypass.operator,
                bypass=bypass.bypass_id,
                # A reminder proves nothing: it must not make a file good that somebody else has written.
                state_sha256=state_digest(bypass) if reason in _CHANGES else None,
                detail=detail,
            )
        )

    def _alarm_wrong(self, problem: str) -> None:
        _log.error("emergency bypass: %s", problem)
        self._record(SecurityAlert(reason=ReasonCode.BYPASS_RECORD_WRONG, detail=problem))

    def _must(self, is_kept: bool) -> None:
        if not is_kept:
            raise BypassError("nothing was done: neither the audit log nor its second sink can be written")

    def _keep(self, bypass: Bypass) -> str:
        """Remember a bypass, in its file as well; return what is wrong if the file can't be written."""
        self._bypasses[bypass.bypass_id] = bypass
        try:
            write_bypass(self._state_directory, bypass)
        except OSError as error:
            problem = f"its file can't be written ({error.strerror or error}), so a restart of the gateway forgets it"
            _log.error("bypass %s: %s", bypass.bypass_id, problem)
            return problem
        return ""

    def _put_in_force(self) -> None:
        self._publish(compile_table(self._bypasses.values(), self._clocks.moment(), self._clocks.monotonic()))


def describe(bypass: Bypass) -> str:
    """Say how it stands with a bypass, for alarms and logs."""
    opened = f"emergency bypass {bypass.bypass_id} for {bypass.target}, opened by {bypass.operator} ({bypass.reason})"
    if bypass.is_open:
        return f"{opened}: open until {bypass.ends_at:%Y-%m-%d %H:%M} UTC at the latest"
    how = f"closed by {bypass.ended_by}" if bypass.ending is Ending.CLOSED else "ended by time"
    if bypass.is_reviewed:
        return f"{opened}: {how}, reviewed by {bypass.reviewed_by}"
    return f"{opened}: {how} at {_time(bypass)}, not reviewed (dicomward bypass review {bypass.bypass_id} --note TEXT)"


def _time(bypass: Bypass) -> str:
    return f"{bypass.ended_at:%Y-%m-%d %H:%M} UTC" if bypass.ended_at is not None else "an unknown time"
