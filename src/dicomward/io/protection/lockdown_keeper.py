"""The lockdown in a running gateway: put in force at once, and on record before the command is answered."""

from pathlib import Path

from dicomward.audit.event import LockdownChanged
from dicomward.io.control import Answer
from dicomward.io.gateway.gate import Gate
from dicomward.io.gateway.session import Session
from dicomward.io.protection.lockdown import lockdown_or_everything
from dicomward.vocab.reason import ReasonCode


class LockdownKeeper:
    """Answers `dicomward lockdown`."""

    def __init__(self, gate: Gate, state_directory: Path) -> None:
        self._gate = gate
        self._state_directory = state_directory

    def changed(self, request: Answer) -> Answer:
        """Read what is locked now: what reads at a locked site ends, what is of the floor goes on."""
        lockdown, _unreadable = lockdown_or_everything(self._state_directory)
        self._gate.lockdown = lockdown
        if self._gate.reverse is not None:
            self._gate.reverse.end_at(lockdown.covers)
        aborted = 0
        for session in self._gate.sessions():
            if isinstance(session, Session) and session.reads_at(lockdown.covers):
                aborted += session.end(ReasonCode.SITE_LOCKDOWN)
        audit = request.get("audit")
        texts = {str(k): v for k, v in audit.items() if isinstance(v, str)} if isinstance(audit, dict) else {}
        event = LockdownChanged(
            operator=texts.get("operator"),
            action=texts.get("action"),
            site=texts.get("site"),
            detail=texts.get("detail") or None,
            count=aborted,
        )
        if not self._gate.record_and_wait(event):
            return {"ok": False, "error": "it is in force, but the audit log could not be written", "aborted": aborted}
        return {"ok": True, "aborted": aborted}
