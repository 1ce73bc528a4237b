"""The lockdown on disk and in the running gateway's place: stored, told, recorded, and never in silence."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomward.identity.lockdown import LockdownError
from dicomward.io.audit.store import AuditStore
from dicomward.io.control import Answer, ControlServer
from dicomward.io.protection.lockdown import (
    LOCKDOWN_NAME,
    LockdownApplied,
    LockdownNotInForceError,
    change_lockdown,
    lockdown_or_everything,
    read_lockdown,
)
from dicomward.settings import Settings, parse_settings
from tests.io.audit_helpers import records_of

NOW = "2026-01-31T12:00:00Z"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return parse_settings("", path=tmp_path / "dicomward.toml")


def change(settings: Settings, *, lift: bool = False, site: str = "main") -> LockdownApplied:
    return change_lockdown(settings, site, "anna", reason="why", now=NOW, lift=lift)


def test_without_a_gateway_it_is_stored_and_recorded(settings: Settings) -> None:
    assert change(settings) == LockdownApplied(changed=True, gateway_runs=False, aborted=0)
    locked = read_lockdown(settings.gateway.state_directory).sites["main"]
    assert (locked.operator, locked.reason, locked.since) == ("anna", "why", NOW)
    assert not change(settings).changed
    assert change(settings, lift=True).changed
    assert read_lockdown(settings.gateway.state_directory).sites == {}
    told = [(each.members["action"], each.members["site"]) for each in records_of(settings.audit.directory)]
    assert told == [("lock", "main"), ("lock", "main"), ("lift", "main")]


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Callable[[Answer], list[Answer]]]:
    """A gateway that answers in one way, and what it was asked."""
    servers: list[ControlServer] = []

    def start(answer: Answer) -> list[Answer]:
        asked: list[Answer] = []

        def handle(request: Answer) -> Answer:
            asked.append(request)
            return answer

        settings.gateway.state_directory.mkdir(exist_ok=True)
        servers.append(ControlServer(settings.gateway.state_directory, handle))
        servers[-1].start()
        return asked

    yield start
    for server in servers:
        server.stop()


def test_a_running_gateway_is_told_and_records(settings: Settings, gateway: Callable[[Answer], list[Answer]]) -> None:
    asked = gateway({"ok": True, "aborted": 2})
    assert change(settings) == LockdownApplied(changed=True, gateway_runs=True, aborted=2)
    (request,) = asked
    assert request["do"] == "lockdown-changed"
    assert request["audit"] == {"operator": "anna", "action": "lock", "site": "main", "detail": "why"}


def test_a_gateway_that_says_no_is_no_success(settings: Settings, gateway: Callable[[Answer], list[Answer]]) -> None:
    gateway({"ok": False, "error": "not now"})
    with pytest.raises(LockdownNotInForceError, match="not now"):
        change(settings)


def test_a_gateway_that_starts_just_now_is_no_success(settings: Settings) -> None:
    store = AuditStore(settings.audit.directory)
    store.open()
    with pytest.raises(LockdownNotInForceError, match="starting or stopping"):
        change(settings)
    store.close()


def test_what_can_not_be_recorded_is_told(settings: Settings) -> None:
    settings.audit.directory.write_text("a file, not a directory")
    with pytest.raises(LockdownNotInForceError, match="not in the audit log"):
        change(settings)


def test_a_file_that_can_not_be_read_locks_everything(settings: Settings) -> None:
    directory = settings.gateway.state_directory
    directory.mkdir()
    assert lockdown_or_everything(directory)[1] is None
    (directory / LOCKDOWN_NAME).write_text("{")
    lockdown, why = lockdown_or_everything(directory)
    assert lockdown.covers("any")
    assert "can't be used" in str(why)
    with pytest.raises(LockdownError):
        change(settings)
