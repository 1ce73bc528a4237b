"""Reload: everything that is good replaces the old one, everything that is broken is kept and said."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.event import (
    AuditEvent,
    ConfigurationReloaded,
    DegradedEntered,
    DegradedLeft,
    PolicyChanged,
)
from dicomward.io.control import Answer
from dicomward.io.gateway.reload import KEPT_OLD, Loaded, Reloader, ReloadError, merge_settings
from dicomward.settings import Settings, SettingsError, parse_settings

PATH = Path("/somewhere/dicomward.toml")


def settings(text: str = "") -> Settings:
    return parse_settings(text, path=PATH)


class Rules:
    """A part that has a number, and a file of which a test says what is in it."""

    name = "rules"

    def __init__(self) -> None:
        self.number = 1
        self.on_disk: int | str = 1
        self.noted: list[int] = []
        self.unattended = False

    def load(self, settings: Settings, *, unattended: bool) -> Loaded:
        assert settings.path == PATH
        self.unattended = unattended
        if isinstance(self.on_disk, str):
            raise ReloadError(self.on_disk)
        if self.on_disk == self.number:
            return Loaded(changed=False, facts=self.facts())
        self.number = self.on_disk
        return Loaded(
            changed=True,
            facts=self.facts(),
            event=lambda operator, action: PolicyChanged(operator=operator, action=action, policy_revision="2"),
            noted=lambda: self.noted.append(self.number),
        )

    def facts(self) -> Mapping[str, object]:
        return {"number": self.number}


class Here:
    """A reloader with one part, its settings file and its audit log in memory."""

    def __init__(self) -> None:
        self.file: Settings | SettingsError = settings()
        self.rules = Rules()
        self.applied: list[Settings] = []
        self.events: list[AuditEvent] = []
        self.recorded: Answer = {"ok": True}
        self.reloader = Reloader(
            settings(),
            self.read,
            apply=self.applied.append,
            parts=(self.rules,),
            record=self.record,
            revisions=lambda: ("policy-1", 7),
        )

    def read(self) -> Settings:
        if isinstance(self.file, SettingsError):
            raise self.file
        return self.file

    def record(self, event: AuditEvent) -> Answer:
        self.events.append(event)
        return self.recorded


@pytest.fixture
def here() -> Here:
    return Here()


def test_nothing_new_is_unchanged_and_on_record(here: Here) -> None:
    assert here.reloader.reload("SIGHUP") == {
        "ok": True,
        "settings": {"state": "unchanged", "changed": [], "needs_restart": []},
        "rules": {"state": "unchanged", "number": 1},
    }
    assert here.events == [
        ConfigurationReloaded(
            action="SIGHUP",
            state="ok",
            policy_revision="policy-1",
            registry_revision=7,
            detail="settings unchanged, rules unchanged",
        )
    ]


def test_new_part_is_in_force_and_remembered_once_it_is_on_record(here: Here) -> None:
    here.rules.on_disk = 2
    answer = here.reloader.answer({"do": "reload", "audit": {"operator": "anna"}})
    assert answer["ok"] is True
    assert answer["rules"] == {"state": "changed", "number": 2}
    assert here.rules.noted == [2]
    change, summary = here.events
    assert (change, summary) == (
        PolicyChanged(operator="anna", action="reload by command", policy_revision="2"),
        replace(summary, operator="anna", action="command"),  # type: ignore[call-arg]
    )


@pytest.mark.parametrize("request_", [{}, {"audit": "anna"}, {"audit": {"operator": 7}}])
def test_operator_that_is_not_said_properly_is_nobody(here: Here, request_: Answer) -> None:
    here.reloader.answer(request_)
    (event,) = here.events
    assert isinstance(event, ConfigurationReloaded)
    assert (event.operator, event.action) == (None, "command")


def test_broken_part_is_kept_and_said_once_until_it_is_good_again(here: Here) -> None:
    here.rules.on_disk = "line 3 is torn"
    answer = here.reloader.reload("SIGHUP")
    assert answer["ok"] is False
    assert answer["rules"] == {"state": KEPT_OLD, "problem": "line 3 is torn", "number": 1}
    assert here.reloader.broken == {"rules": "line 3 is torn"}
    entered = DegradedEntered(component="rules", state=KEPT_OLD, detail="line 3 is torn")
    assert here.events[0] == entered
    assert here.reloader.reload("SIGHUP")["ok"] is False
    assert here.events.count(entered) == 1
    here.rules.on_disk = "line 4 is torn"
    here.reloader.reload("SIGHUP")
    assert replace(entered, detail="line 4 is torn") in here.events
    here.rules.on_disk = 2
    assert here.reloader.reload("SIGHUP")["ok"] is True
    assert DegradedLeft(component="rules") in here.events
    assert here.reloader.broken == {}


def test_broken_settings_are_kept_and_the_rest_is_loaded_all_the_same(here: Here) -> None:
    with pytest.raises(SettingsError) as broken:
        settings("[gateway]\nidle_second = 5\n")
    here.file, here.rules.on_disk = broken.value, 2
    answer = here.reloader.reload("SIGHUP")
    assert answer["ok"] is False
    assert "idle_seconds" in str(answer["settings"])
    assert answer["rules"] == {"state": "changed", "number": 2}
    assert here.applied == []


def test_new_settings_are_applied_but_for_those_that_need_a_restart(here: Here) -> None:
    here.file = settings('[gateway]\nidle_seconds = 5\nlisten = "127.0.0.1:1"\n[limits]\nassociations = 3\n')
    answer = here.reloader.reload("SIGHUP")
    assert answer["settings"] == {
        "state": "changed",
        "changed": ["gateway.idle_seconds", "limits"],
        "needs_restart": ["gateway.listen"],
    }
    (applied,) = here.applied
    assert applied == here.reloader.settings
    assert applied.gateway.idle_seconds == 5
    assert applied.gateway.listen == settings().gateway.listen
    assert applied.limits.device == {"associations": 3}
    again = here.reloader.reload("SIGHUP")["settings"]
    assert again == {"state": "unchanged", "changed": [], "needs_restart": ["gateway.listen"]}


def test_sizes_of_dicom_are_named_apart() -> None:
    merged, changed, waiting = merge_settings(settings(), settings("[limits.dicom]\nmax_operations_window = 2\n"))
    assert (changed, waiting) == (("limits.dicom",), ())
    assert merged.dicom_limits.max_operations_window == 2


def test_what_could_not_be_recorded_is_said_and_not_remembered(here: Here) -> None:
    here.rules.on_disk = 2
    here.recorded = {"ok": False, "error": "the audit log could not be written"}
    answer = here.reloader.reload("SIGHUP")
    assert (answer["ok"], answer["error"]) == (False, "the audit log could not be written")
    assert here.rules.noted == []


@pytest.mark.parametrize(
    ("words", "change", "is_kept"),
    [
        ("[]", "[limits]\nqueries_per_minute = 9\n", False),
        ('["policy-change"]', "[limits]\nqueries_per_minute = 9\n", False),
        ('["reload"]', "[limits]\nqueries_per_minute = 9\n", True),
        ('["all"]', "[limits]\nqueries_per_minute = 9\n", True),
        ('["all"]', "", False),
        ('["policy-change"]', "[operators]\nsecond_person = []\n", True),
        ("[]", "[operators]\nsecond_person = ['all']\n", False),
    ],
)
def test_a_signal_changes_no_setting_that_two_operators_have_to_agree_on(
    here: Here, words: str, change: str, is_kept: bool
) -> None:
    first = f"[operators]\nsecond_person = {words}\n"
    here.reloader.settings = settings(first)
    here.file = settings(change if change.startswith("[operators]") else first + change)
    answer = here.reloader.reload("SIGHUP", unattended=True)
    assert here.rules.unattended
    assert answer["ok"] is not is_kept
    if is_kept:
        assert here.reloader.settings == settings(first)
        assert "needs a second operator, whom SIGHUP can't ask" in str(answer["settings"])
    # An operator who was asked is another matter.
    assert here.reloader.reload("command", "anna")["ok"] is True
    assert here.reloader.settings == here.file
