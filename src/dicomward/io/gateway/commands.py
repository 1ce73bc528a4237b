"""What a running gateway does for the command line: each request comes over the control socket (io.control)."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

from dicomward.audit.event import (
    ApprovalChanged,
    AuditAccessed,
    AuditEvent,
    BudgetReset,
    CaChanged,
    EnrolmentChanged,
    EnrolmentRefused,
    IsolationVerified,
    OperatorRefused,
    OperatorsChanged,
    RegistryChanged,
    SecurityAlert,
)
from dicomward.identity.registry import RegistrySnapshot
from dicomward.io.control import Answer
from dicomward.io.gateway.gate import Gate
from dicomward.io.gateway.session import Session
from dicomward.io.protection.budget_view import show_budgets
from dicomward.vocab.reason import ReasonCode

# What commands may have recorded through the running gateway, with `io.people.operators.record_event`.
RECORDABLE: dict[str, type[OperatorsChanged | OperatorRefused | ApprovalChanged | EnrolmentChanged | CaChanged]] = {
    each.code: each for each in (OperatorsChanged, OperatorRefused, ApprovalChanged, EnrolmentChanged, CaChanged)
}

# A reset is written in milliseconds; a disk that hangs is noticed by then.
_KEPT_SECONDS = 3.0


class Commands:
    """Answers requests; when an answer says ok, what was asked has happened and is on record."""

    def __init__(self, gate: Gate, read_registry: Callable[[], RegistrySnapshot]) -> None:
        self._gate = gate
        self._read_registry = read_registry
        self._lock = threading.Lock()
        self._handlers: dict[str, Callable[[Answer], Answer]] = {}

    def add(self, name: str, handle: Callable[[Answer], Answer]) -> None:
        """Let another part of the gateway answer the command of that name."""
        self._handlers[name] = handle

    def handle(self, request: Answer) -> Answer:
        """Do what is asked."""
        audit = request.get("audit")
        texts: Mapping[str, object] = audit if isinstance(audit, dict) else {}
        match request.get("do"):
            case "registry-changed":
                return self._registry_changed(texts, request.get("earlier"))
            case "audit-accessed":
                count = texts.get("count")
                return self.record(
                    AuditAccessed(
                        operator=_text(texts, "operator"),
                        action=_text(texts, "action"),
                        count=count if isinstance(count, int) else None,
                        detail=_text(texts, "detail"),
                    )
                )
            case "record":
                return self._recorded(request.get("code"), texts)
            case "budget-show":
                return show_budgets(self._gate.budgets, self._gate.registry, _text(request, "device"))
            case "budget-reset":
                return self._reset_budget(_text(request, "device") or "", texts)
            case "status":
                return {"ok": True, "sessions": len(self._gate.sessions()), "revision": self._gate.registry.revision}
            case str(name) if name in self._handlers:
                return self._handlers[name](request)
        return {"ok": False, "error": f"unknown command {request.get('do')!r}"}

    def reload_registry(self) -> int:
        """Read the registry, end what it no longer allows, and return how many associations that were."""
        with self._lock:
            # One after the other, or what was read first could replace what is newer.
            self._gate.use_registry(self._read_registry())
        if self._gate.reverse is not None:
            self._gate.reverse.reconsider()
        aborted = 0
        for session in self._gate.sessions():
            if isinstance(session, Session) and (reason := session.no_longer_allowed()) is not None:
                aborted += session.end(reason)
        return aborted

    def _reset_budget(self, device: str, texts: Mapping[str, object]) -> Answer:
        if self._gate.budgets.lost is not None:
            return {"ok": False, "error": "the budgets can't be kept now, so they can't be reset; see the log"}
        over = threading.Event()
        had_used = self._gate.budgets.reset(device, over.set)
        over.wait(_KEPT_SECONDS)
        answer = self.record(BudgetReset(operator=_text(texts, "operator"), action="reset", device=device))
        return {**answer, "had_used": had_used}

    def _registry_changed(self, texts: Mapping[str, object], earlier: object) -> Answer:
        """Use the registry as it is now, and record each change that led there; the last one stands for all."""
        aborted = self.reload_registry()
        for each in earlier if isinstance(earlier, list) else ():
            if isinstance(each, dict):
                self._gate.record(_registry_change(each))
        last = replace(_registry_change(texts), count=aborted, registry_revision=self._gate.registry.revision)
        return {**self.record(last), "aborted": aborted, "revision": self._gate.registry.revision}

    def _recorded(self, code: object, texts: Mapping[str, object]) -> Answer:
        """Record what a command has done by itself."""
        if code == IsolationVerified.code:
            return self.record(_isolation_verified(texts))
        if code == EnrolmentRefused.code:
            return self._enrolment_refused(texts)
        if code == SecurityAlert.code:
            return self._renewal_held(texts)
        event_class = RECORDABLE.get(str(code))
        if event_class is None:
            return {"ok": False, "error": f"events {code!r} are not for commands to record"}
        return self.record(
            event_class(
                operator=_text(texts, "operator"),
                action=_text(texts, "action"),
                device=_text(texts, "device"),
                address=_text(texts, "address"),
                detail=_text(texts, "detail"),
                reason=ReasonCode.OPERATOR_NOT_PERMITTED if event_class is OperatorRefused else None,
            )
        )

    def _enrolment_refused(self, texts: Mapping[str, object]) -> Answer:
        try:
            reason = ReasonCode(_text(texts, "reason") or "")
        except ValueError:
            return {"ok": False, "error": "a refusal needs its reason"}
        return self.record(
            EnrolmentRefused(
                reason=reason,
                action=_text(texts, "action"),
                device=_text(texts, "device"),
                address=_text(texts, "address"),
                detail=_text(texts, "detail"),
            )
        )

    def _renewal_held(self, texts: Mapping[str, object]) -> Answer:
        """Record the one alert that comes from outside: others belong to the gateway itself."""
        if _text(texts, "reason") != ReasonCode.RENEWAL_OF_SPENT_GENERATION:
            return {"ok": False, "error": "this alert is not for commands to record"}
        return self.record(
            SecurityAlert(
                device=_text(texts, "device"),
                address=_text(texts, "address"),
                reason=ReasonCode.RENEWAL_OF_SPENT_GENERATION,
                detail=_text(texts, "detail"),
            )
        )

    def record(self, event: AuditEvent) -> Answer:
        """Record durably, and so everything that was recorded before."""
        if self._gate.record_and_wait(event):
            return {"ok": True}
        return {"ok": False, "error": "it has happened, but the audit log could not be written"}


def _registry_change(texts: Mapping[str, object]) -> RegistryChanged:
    revision = texts.get("registry_revision")
    return RegistryChanged(
        operator=_text(texts, "operator"),
        action=_text(texts, "action"),
        device=_text(texts, "device"),
        archive=_text(texts, "archive"),
        detail=_text(texts, "detail"),
        registry_revision=revision if isinstance(revision, int) else None,
    )


def _isolation_verified(texts: Mapping[str, object]) -> IsolationVerified:
    count, reason = texts.get("count"), ReasonCode.ARCHIVE_NOT_ISOLATED
    return IsolationVerified(
        operator=_text(texts, "operator"),
        archive=_text(texts, "archive"),
        state=_text(texts, "state"),
        count=count if isinstance(count, int) else None,
        reason=reason if texts.get("reason") == reason else None,
        detail=_text(texts, "detail"),
    )


def _text(texts: Mapping[str, object], key: str) -> str | None:
    value = texts.get(key)
    return value if isinstance(value, str) else None
