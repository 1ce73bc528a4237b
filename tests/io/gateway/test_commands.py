"""What a running gateway does for commands, on real associations."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from dicomward.audit.event import (
    AssociationEnded,
    AuditAccessed,
    BudgetReset,
    EnrolmentRefused,
    IsolationVerified,
    OperatorRefused,
    RegistryChanged,
    SecurityAlert,
)
from dicomward.identity.registry import DeviceStatus, RegistryError, RegistrySnapshot
from dicomward.io.control import Answer
from dicomward.io.gateway import gate as gate_module
from dicomward.io.gateway.commands import Commands
from dicomward.io.protection.bypass_commands import change_bypass
from dicomward.io.protection.bypass_keeper import BypassKeeper
from dicomward.limits.budgets import Charge, Holder
from dicomward.vocab.reason import ReasonCode
from tests.io.world import SECONDS, World, archive_at, device, issue, raw_archive, running
from tests.relay.wire import a_associate_rq


class Registry:
    """What the gateway reads when it is told that the registry has changed."""

    def __init__(self, snapshot: RegistrySnapshot) -> None:
        self.snapshot = snapshot

    def read(self) -> RegistrySnapshot:
        return self.snapshot

    def suspend(self, name: str) -> None:
        self.snapshot = replace(
            self.snapshot,
            devices=tuple(
                replace(each, status=DeviceStatus.SUSPENDED) if each.name == name else each
                for each in self.snapshot.devices
            ),
            revision=self.snapshot.revision + 1,
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with raw_archive() as archive, running(tmp_path / "gateway", archive_at(archive.endpoint)) as running_world:
        yield running_world


@pytest.fixture
def registry(world: World) -> Registry:
    return Registry(world.gate.registry)


@pytest.fixture
def keeper(world: World) -> BypassKeeper:
    settings = world.settings
    return BypassKeeper(
        settings.gateway.state_directory,
        settings.audit.directory,
        world.gate.record_and_wait,
        world.gate.use_bypasses,
    )


@pytest.fixture
def commands(world: World, registry: Registry, keeper: BypassKeeper) -> Commands:
    made = Commands(world.gate, registry.read)
    made.add("bypass", partial(change_bypass, keeper))
    return made


def test_bypass_that_a_command_opens_is_in_force_and_on_record_with_the_answer(
    world: World, commands: Commands
) -> None:
    answer = commands.handle(
        {"do": "bypass", "action": "open", "device": "ct1", "minutes": 5, "reason": "night", "operator": "anna"}
    )
    assert answer["ok"] is True
    found = world.gate.bypasses.find("ct1", "", time.monotonic())
    assert found is not None
    (alert,) = world.audit.of(SecurityAlert)
    assert (alert.reason, alert.rule_ids) == (ReasonCode.BYPASS_OPENED, (found.rule_id,))


CHANGED: Answer = {
    "do": "registry-changed",
    "audit": {"operator": "anna", "action": "suspend", "device": "ct1", "detail": "lost"},
}


def test_association_of_a_suspended_device_is_over_when_the_answer_comes(
    world: World, registry: Registry, commands: Commands
) -> None:
    other = issue(world.settings, "mr1")
    registry.snapshot = replace(registry.snapshot, devices=(*registry.snapshot.devices, device("mr1", other)))
    assert commands.handle(CHANGED)["aborted"] == 0
    scanner = world.peer().established()
    bystander = world.peer(other.context()).established(a_associate_rq({1: "1.2.840.10008.1.1"}, calling="MR1"))
    registry.suspend("ct1")
    answer = commands.handle(CHANGED)
    assert answer == {"ok": True, "aborted": 1, "revision": registry.snapshot.revision}
    assert scanner.is_gone()
    ended = world.audit.wait_for(AssociationEnded)
    assert (ended.device, ended.reason) == ("ct1", ReasonCode.DEVICE_SUSPENDED)
    assert bystander.echo() == 0


def test_change_is_on_record_with_who_did_it_and_what_it_ended(
    world: World, registry: Registry, commands: Commands
) -> None:
    world.peer().established()
    registry.suspend("ct1")
    commands.handle({**CHANGED, "audit": {"operator": "anna", "action": "suspend", "archive": "pacs", "device": 7}})
    (event,) = world.audit.of(RegistryChanged)
    assert event == RegistryChanged(
        operator="anna", action="suspend", archive="pacs", count=1, registry_revision=registry.snapshot.revision
    )


def test_connection_that_is_no_association_yet_goes_on(world: World, registry: Registry, commands: Commands) -> None:
    peer = world.peer()
    world.until(lambda: len(world.gate.sessions()) == 1)
    assert commands.handle(CHANGED)["aborted"] == 0
    assert peer.established().echo() == 0


def test_registry_that_cannot_be_read_changes_nothing(world: World) -> None:
    def fails() -> RegistrySnapshot:
        raise RegistryError("registry.json is torn")

    before = world.gate.registry
    with pytest.raises(RegistryError, match="torn"):
        Commands(world.gate, fails).handle(CHANGED)
    assert world.gate.registry is before
    assert world.audit.of(RegistryChanged) == []


def test_registry_that_was_read_last_is_the_one_that_counts(world: World, registry: Registry) -> None:
    """Two commands at once: what the first has read must not replace what the second has."""
    second_has_read = threading.Event()
    reads: list[Callable[[], RegistrySnapshot]] = []

    def read_first() -> RegistrySnapshot:
        second.start()
        # The second waits for its turn; were it let through, it would be done long before this ends.
        second_has_read.wait(0.1)
        return registry.snapshot

    def read_second() -> RegistrySnapshot:
        second_has_read.set()
        return replace(registry.snapshot, revision=99)

    def read() -> RegistrySnapshot:
        return reads.pop()()

    reads += [read_second, read_first]
    commands = Commands(world.gate, read)
    second = threading.Thread(target=commands.reload_registry)
    commands.reload_registry()
    second.join(SECONDS)
    assert world.gate.registry.revision == 99


def test_access_to_the_audit_log_is_on_record(world: World, commands: Commands) -> None:
    audit = {"operator": "anna", "action": "search", "count": 12}
    assert commands.handle({"do": "audit-accessed", "audit": audit}) == {"ok": True}
    assert world.audit.of(AuditAccessed) == [AuditAccessed(operator="anna", action="search", count=12)]


@pytest.mark.parametrize("audit", [None, "anna", {}, {"operator": 1, "action": None, "count": "12"}])
def test_what_is_not_said_properly_is_left_out_of_the_record(world: World, commands: Commands, audit: object) -> None:
    assert commands.handle({"do": "audit-accessed", "audit": audit}) == {"ok": True}
    assert world.audit.of(AuditAccessed) == [AuditAccessed()]


def test_status_counts_connections(world: World, commands: Commands) -> None:
    assert commands.handle({"do": "status"}) == {"ok": True, "sessions": 0, "revision": 1}
    world.peer().established()
    assert commands.handle({"do": "status"}) == {"ok": True, "sessions": 1, "revision": 1}


@pytest.mark.parametrize(
    ("request_", "error"),
    [({"do": "dance"}, "unknown command 'dance'"), ({}, "unknown command None"), ({"do": []}, "unknown command []")],
)
def test_unknown_command_is_refused(commands: Commands, request_: dict[str, object], error: str) -> None:
    assert commands.handle(request_) == {"ok": False, "error": error}


def test_log_that_cannot_be_written_is_told_and_the_change_has_happened(
    world: World, registry: Registry, commands: Commands
) -> None:
    peer = world.peer().established()
    registry.suspend("ct1")
    world.audit.written = False
    answer = commands.handle(CHANGED)
    assert answer == {
        "ok": False,
        "error": "it has happened, but the audit log could not be written",
        "aborted": 1,
        "revision": registry.snapshot.revision,
    }
    assert peer.is_gone()


def test_log_that_does_not_answer_is_told_in_time(
    world: World, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "_DURABLE_SECONDS", 0.05)
    held: list[Callable[[bool], None]] = []
    world.audit.held = held
    assert commands.handle({"do": "audit-accessed"})["ok"] is False
    held.pop()(True)
    world.audit.held = None
    assert commands.handle({"do": "audit-accessed"}) == {"ok": True}


def test_what_a_command_has_done_is_recorded(world: World, commands: Commands) -> None:
    request: Answer = {"do": "record", "code": "DW-OPER-DENY", "audit": {"operator": "bert", "action": "device-change"}}
    assert commands.handle(request) == {"ok": True}
    (event,) = world.audit.of(OperatorRefused)
    assert (event.operator, event.action, event.reason) == ("bert", "device-change", ReasonCode.OPERATOR_NOT_PERMITTED)


def test_several_changes_are_recorded_after_one_look_at_the_registry(world: World, commands: Commands) -> None:
    earlier = [{"operator": "enrolment", "action": "enrol-device", "device": "d1", "registry_revision": 7}, "garbage"]
    audit = {"operator": "enrolment", "action": "enrol-device", "device": "d2", "registry_revision": 8}
    assert commands.handle({"do": "registry-changed", "audit": audit, "earlier": earlier})["ok"] is True
    first, last = world.audit.of(RegistryChanged)
    assert (first.device, first.registry_revision, first.count) == ("d1", 7, None)
    assert (last.device, last.count) == ("d2", 0)


def test_refusal_of_an_enrolment_is_recorded_with_its_reason(world: World, commands: Commands) -> None:
    audit = {"reason": "code-wrong", "action": "simpleenroll", "device": "ct1", "address": "10.0.0.7"}
    assert commands.handle({"do": "record", "code": "DW-ENROL-DENY", "audit": audit}) == {"ok": True}
    (event,) = world.audit.of(EnrolmentRefused)
    assert (event.reason, event.device, event.address) == (ReasonCode.CODE_WRONG, "ct1", "10.0.0.7")
    for strange in ({}, {"reason": "no such reason"}):
        request: Answer = {"do": "record", "code": "DW-ENROL-DENY", "audit": strange}
        assert commands.handle(request) == {"ok": False, "error": "a refusal needs its reason"}


def test_a_held_renewal_is_an_alert_and_the_only_one_from_outside(world: World, commands: Commands) -> None:
    audit = {"reason": "renewal-of-spent-generation", "device": "ct1", "address": "10.0.0.7", "detail": "twice"}
    assert commands.handle({"do": "record", "code": "DW-SEC-ALERT", "audit": audit}) == {"ok": True}
    (event,) = world.audit.of(SecurityAlert)
    assert (event.reason, event.device, event.detail) == (ReasonCode.RENEWAL_OF_SPENT_GENERATION, "ct1", "twice")
    other: Answer = {"do": "record", "code": "DW-SEC-ALERT", "audit": {**audit, "reason": "canary"}}
    assert commands.handle(other)["ok"] is False


def test_refused_when_a_command_would_record_what_only_the_gateway_may(commands: Commands) -> None:
    answer = commands.handle({"do": "record", "code": "DW-ASSOC-ALLOW", "audit": {}})
    assert answer == {"ok": False, "error": "events 'DW-ASSOC-ALLOW' are not for commands to record"}


def test_verdict_of_a_look_at_an_archive_is_recorded_with_its_reason(world: World, commands: Commands) -> None:
    texts = {"operator": "anna", "archive": "pacs", "state": "FAIL", "count": 10, "reason": "archive-not-isolated"}
    for audit in (texts, {**texts, "state": "PASS", "reason": None, "count": "x"}):
        assert commands.handle({"do": "record", "code": "DW-ISOLATION", "audit": audit}) == {"ok": True}
    failed, passed = world.audit.of(IsolationVerified)
    assert (failed.state, failed.count, failed.reason) == ("FAIL", 10, ReasonCode.ARCHIVE_NOT_ISOLATED)
    assert (passed.state, passed.count, passed.reason) == ("PASS", None, None)


# -- budgets -----------------------------------------------------------------------------------------------------------


def test_budgets_are_shown_and_reset(world: World, commands: Commands) -> None:
    world.budgets.charge((Holder("ct1", "scanner"), Holder("gone", "")), Charge(patients=(1,), matches=5))
    shown = commands.handle({"do": "budget-show", "device": None})
    assert shown["ok"] is True
    devices = shown["devices"]
    assert isinstance(devices, list)
    assert [(each["device"], each["role"]) for each in devices] == [("ct1", "scanner"), ("gone", "")]
    line = {"measure": "matches", "period": "hour", "used": 5, "budget": 20_000, "level": "free"}
    assert line in devices[0]["budgets"]
    answer = commands.handle({"do": "budget-reset", "device": "ct1", "audit": {"operator": "anna"}})
    assert answer == {"ok": True, "had_used": True}
    assert world.budgets.devices() == ["gone"]
    reset = world.audit.wait_for(BudgetReset)
    assert (reset.device, reset.operator, reset.action) == ("ct1", "anna", "reset")


def test_budgets_that_cannot_be_kept_cannot_be_reset(world: World, commands: Commands) -> None:
    world.budgets.lost = ReasonCode.BUDGETS_UNAVAILABLE
    answer = commands.handle({"do": "budget-reset", "device": "ct1"})
    assert answer["ok"] is False
    assert world.gate.floor_reason() is ReasonCode.BUDGETS_UNAVAILABLE
