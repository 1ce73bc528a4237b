"""Reload without a restart: settings, policy, certificates and registry are read again.

Each replaces the old one whole, or not at all. What is broken is kept as it was, and said: in the answer, in the log,
in the audit log. Open associations go on: they see a new policy with their next operation, and new waiting times with
their next wait.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final, Protocol

from dicomward.audit.event import AuditEvent, ConfigurationReloaded, DegradedEntered, DegradedLeft
from dicomward.identity.operators import Permission, is_for_two
from dicomward.io.control import Answer
from dicomward.settings import SECTIONS, Settings, SettingsError

_log = logging.getLogger(__name__)

KEPT_OLD: Final = "kept-old"
"""The state of a component whose new version is broken."""
_SETTINGS: Final = "settings"
_SECOND_PERSON: Final = "second_person"
_LIMITS: Final = {
    "limits": "limits",
    "dicom_limits": "limits.dicom",
    "budgets": "budgets",
    "canaries": "canaries",
}


class ReloadError(Exception):
    """What should be loaded can't be used; the message says what, why and what to do."""


def needs_two(what: str) -> ReloadError:
    """Return the problem of what a signal can't bring into force, because it can't ask a second operator."""
    return ReloadError(f"{what}, and that needs a second operator, whom SIGHUP can't ask; type: dicomward reload")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What is in force now: `facts` for the answer, `event` for the audit log, `noted` to call when that is kept."""

    changed: bool
    facts: Mapping[str, object] = field(default_factory=dict)
    event: Callable[[str | None, str], AuditEvent] | None = None
    noted: Callable[[], None] | None = None


class Part(Protocol):
    """Something that can be loaded again."""

    @property
    def name(self) -> str:
        """What it is called in answers, and as a component in the audit log."""

    def load(self, settings: Settings, *, unattended: bool) -> Loaded:
        """Load it and put it in force. Raises ReloadError, and then nothing has changed.

        `unattended`: nobody was asked, so what two operators have to agree on stays as it is.
        """

    def facts(self) -> Mapping[str, object]:
        """Return what is in force."""


@dataclass(frozen=True, slots=True)
class _Report:
    parts: dict[str, dict[str, object]]
    events: list[AuditEvent]
    noted: list[Callable[[], None]]


class Reloader:
    """Loads everything again, one request after the other; `settings` are those in force."""

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        *,
        apply: Callable[[Settings], None],
        parts: Sequence[Part],
        record: Callable[[AuditEvent], Answer],
        revisions: Callable[[], tuple[str, int]],
    ) -> None:
        self.settings = settings
        self._read = read
        self._apply = apply
        self._parts = parts
        self._record = record
        self._revisions = revisions
        self._lock = threading.Lock()
        self._broken: dict[str, str] = {}

    @property
    def broken(self) -> Mapping[str, str]:
        """Which components are kept in an old version because the new one is broken, and why."""
        return dict(self._broken)

    def answer(self, request: Answer) -> Answer:
        """Answer a `reload` of the control socket."""
        audit = request.get("audit")
        operator = audit.get("operator") if isinstance(audit, dict) else None
        return self.reload("command", operator if isinstance(operator, str) else None)

    def reload(self, action: str, operator: str | None = None, *, unattended: bool = False) -> Answer:
        """Load everything; `ok` is true if nothing is broken and all of it is on record.

        `unattended`: a signal wants it, behind which no operator stands whose rights could have been looked at.
        """
        with self._lock:
            report = _Report({}, [], [])
            self._load_settings(report, unattended=unattended)
            for part in self._parts:
                self._load(part, report, action, operator, unattended=unattended)
            kept = {name: str(said["problem"]) for name, said in report.parts.items() if said["state"] == KEPT_OLD}
            self._note_broken(kept, report)
            recorded = self._record_all(report, action, operator)
        for name, problem in kept.items():
            _log.error("reload: %s: the old version is kept: %s", name, problem)
        _log.info("reload: %s", _summary(report.parts))
        answer: Answer = {"ok": not kept and recorded is None, **report.parts}
        return answer if recorded is None else {**answer, "error": recorded}

    def _load_settings(self, report: _Report, *, unattended: bool) -> None:
        try:
            new = self._read()
            in_force, changed, waiting = merge_settings(self.settings, new)
            if unattended and changed:
                self._verify_needs_nobody(changed)
        except (SettingsError, ReloadError) as error:
            report.parts[_SETTINGS] = {"state": KEPT_OLD, "problem": str(error), "changed": [], "needs_restart": []}
            return
        self.settings = in_force
        self._apply(in_force)
        report.parts[_SETTINGS] = {
            "state": "changed" if changed else "unchanged",
            "changed": list(changed),
            "needs_restart": list(waiting),
        }

    def _verify_needs_nobody(self, changed: Sequence[str]) -> None:
        """Raise ReloadError for a change that two operators have to agree on: also that they no longer have to."""
        second_person = self.settings.operators.second_person
        frees_itself = second_person and f"operators.{_SECOND_PERSON}" in changed
        if frees_itself or is_for_two(Permission.RELOAD, second_person):
            raise needs_two(f"{', '.join(changed)} changed")

    def _load(self, part: Part, report: _Report, action: str, operator: str | None, *, unattended: bool) -> None:
        try:
            loaded = part.load(self.settings, unattended=unattended)
        except ReloadError as error:
            report.parts[part.name] = {"state": KEPT_OLD, "problem": str(error), **part.facts()}
            return
        report.parts[part.name] = {"state": "changed" if loaded.changed else "unchanged", **loaded.facts}
        if loaded.event is not None:
            report.events.append(loaded.event(operator, f"reload by {action}"))
        if loaded.noted is not None:
            report.noted.append(loaded.noted)

    def _note_broken(self, kept: Mapping[str, str], report: _Report) -> None:
        """Enter and leave the degraded state of each component; a new problem of the same one is told again."""
        for name, problem in kept.items():
            if self._broken.get(name) != problem:
                report.events.append(DegradedEntered(component=name, state=KEPT_OLD, detail=problem))
        report.events.extend(DegradedLeft(component=name) for name in self._broken if name not in kept)
        self._broken = dict(kept)

    def _record_all(self, report: _Report, action: str, operator: str | None) -> str | None:
        """Record what has happened, durably; return what went wrong."""
        policy_revision, registry_revision = self._revisions()
        report.events.append(
            ConfigurationReloaded(
                operator=operator,
                action=action,
                state=KEPT_OLD if self._broken else "ok",
                policy_revision=policy_revision,
                registry_revision=registry_revision,
                detail=_summary(report.parts),
            )
        )
        answers = [self._record(event) for event in report.events]
        for answer in answers:
            if answer.get("ok") is not True:
                return str(answer.get("error"))
        for noted in report.noted:
            noted()
        return None


def merge_settings(old: Settings, new: Settings) -> tuple[Settings, tuple[str, ...], tuple[str, ...]]:
    """Return what is in force after a reload, the keys that have changed in it, and those that need a restart."""
    changed: list[str] = []
    waiting: list[str] = []
    sections = {}
    for name, kind in SECTIONS.items():
        before, after = getattr(old, name), getattr(new, name)
        live = {}
        for item in fields(kind):
            if getattr(before, item.name) == getattr(after, item.name):
                continue
            if item.metadata["reload"]:
                live[item.name] = getattr(after, item.name)
                changed.append(f"{name}.{item.name}")
            else:
                waiting.append(f"{name}.{item.name}")
        sections[name] = replace(before, **live)
    for item in fields(Settings):
        if item.name in (*SECTIONS, "path") or getattr(old, item.name) == getattr(new, item.name):
            continue
        (changed if item.name in _LIMITS else waiting).append(_LIMITS.get(item.name, item.name))
    live_tables = {name: getattr(new, name) for name in _LIMITS}
    merged = replace(old, **live_tables, **sections)
    return merged, tuple(changed), tuple(waiting)


def _summary(parts: Mapping[str, Mapping[str, object]]) -> str:
    return ", ".join(f"{name} {said['state']}" for name, said in parts.items())
