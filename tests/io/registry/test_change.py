"""A change from end to end: it is in force when the call returns, or the operator hears that it may not be."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.identity.registry import Device, DeviceStatus, RegistryError, RegistrySnapshot
from dicomward.identity.registry_json import decode_snapshot
from dicomward.io import control
from dicomward.io.audit.log import AuditLog, AuditLogError
from dicomward.io.registry import change as registry_change
from dicomward.io.registry.change import NotInForceError, apply_change
from dicomward.io.registry.store import RegistryStore
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory, now, running_gateway

WORKSTATION = Device(name="ws1", ae_titles=("WS1",), role="workstation", networks=("10.0.0.0/8",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


def add(store: RegistryStore) -> RegistrySnapshot:
    return store.add_device(WORKSTATION, by="anna", at=now())


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def set_status(status: DeviceStatus) -> Callable[[RegistryStore], RegistrySnapshot]:
    return lambda store: store.set_device_status("ws1", status, by="bert", at=now())


def records(settings: Settings) -> list[dict[str, object]]:
    lines = [
        line
        for path in sorted(settings.audit.directory.glob("audit-*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [record for line in lines if (record := json.loads(line))["code"] == "DW-REG-CHANGE"]


def unaudited(settings: Settings) -> list[int]:
    with RegistryStore.open(settings.registry.url) as store:
        return [change.revision for change in store.unaudited_changes()]


def written(settings: Settings) -> RegistrySnapshot:
    return decode_snapshot(settings.registry.snapshot.read_text())


def test_without_a_gateway_the_change_is_compiled_and_recorded(settings: Settings) -> None:
    applied = apply_change(settings, add)
    assert (applied.gateway_runs, applied.aborted) == (False, 0)
    assert applied.snapshot.revision == 2
    assert written(settings) == applied.snapshot
    last = records(settings)[-1]
    assert last["operator"] == "anna"
    assert last["action"] == "add-device"
    assert last["device"] == "ws1"
    assert last["registry_revision"] == 2
    assert "archive" not in last
    assert unaudited(settings) == []


def test_running_gateway_is_asked_before_it_returns(settings: Settings) -> None:
    apply_change(settings, add)
    before = len(records(settings))
    with running_gateway(settings, {"ok": True, "aborted": 3}) as asked:
        applied = apply_change(settings, set_status(DeviceStatus.REVOKED))
    assert (applied.gateway_runs, applied.aborted) == (True, 3)
    assert asked == [
        {
            "do": "registry-changed",
            "audit": {
                "operator": "bert",
                "action": "revoke-device",
                "device": "ws1",
                "archive": None,
                "detail": None,
                "registry_revision": 3,
            },
        }
    ]
    # The gateway is the only writer of its log.
    assert len(records(settings)) == before
    assert unaudited(settings) == []


def test_gateway_sees_the_new_snapshot_when_it_is_asked(settings: Settings) -> None:
    seen: list[int] = []
    real = control.call

    def look(*arguments: object) -> object:
        seen.append(written(settings).revision)
        return real(*arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, running_gateway(settings, {"ok": True}):
        patch.setattr(registry_change, "call", look)
        applied = apply_change(settings, add)
    assert seen == [2]
    assert applied.aborted == 0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"ok": False, "error": "RegistryError: broken"}, "the gateway answered: RegistryError: broken"),
        ({"what": 1}, "the gateway answered: {'what': 1}"),
        ({"ok": "yes"}, "the gateway answered: {'ok': 'yes'}"),
    ],
)
def test_gateway_that_does_not_agree_makes_it_fail_until_it_does(
    settings: Settings, answer: dict[str, object], why: str
) -> None:
    with running_gateway(settings, answer, {"ok": True, "aborted": 1}) as asked:
        with pytest.raises(NotInForceError) as caught:
            apply_change(settings, add)
        assert "the change is stored (revision 2), but it may not be in force: " + why in str(caught.value)
        assert "Repeat the command" in str(caught.value)
        assert written(settings).revision == 2
        assert unaudited(settings) == [2]
        applied = apply_change(settings, set_status(DeviceStatus.SUSPENDED))
    # The change that failed is delivered first.
    audits = [each for request in asked for each in (*_listed(request.get("earlier")), request["audit"])]
    assert [audit["registry_revision"] for audit in audits if isinstance(audit, dict)] == [2, 2, 3]
    assert applied.aborted == 1
    assert unaudited(settings) == []


def test_gateway_that_does_not_answer_makes_it_fail(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(registry_change, "ANSWER_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        directory = os.open(settings.gateway.state_directory, os.O_RDONLY)
        try:
            silent.bind(f"/proc/self/fd/{directory}/control.sock")
            silent.listen(1)
            with pytest.raises(NotInForceError, match="it may not be in force: the gateway did not answer"):
                apply_change(settings, add)
        finally:
            os.close(directory)
    assert unaudited(settings) == [2]


def test_gateway_that_is_just_starting_makes_it_fail(settings: Settings) -> None:
    log = AuditLog(settings.audit.directory)
    log.start()
    try:
        with pytest.raises(NotInForceError, match="a gateway is starting or stopping just now"):
            apply_change(settings, add)
    finally:
        log.close()
    applied = apply_change(settings, set_status(DeviceStatus.SUSPENDED))
    assert applied.snapshot.revision == 3
    assert [record["registry_revision"] for record in records(settings)][-2:] == [2, 3]


def test_trap_failed_audit_record_is_no_success(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 8: a failed audit write that is only logged."""

    def fail(*_arguments: object) -> None:
        raise AuditLogError("disk full")

    monkeypatch.setattr(registry_change, "append_offline", fail)
    with pytest.raises(NotInForceError, match=r"it is not in the audit log: disk full. Repair that, then repeat"):
        apply_change(settings, add)
    assert unaudited(settings) == [2]
    assert written(settings).revision == 2


def test_snapshot_that_cannot_be_written_is_no_success(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(registry_change, "write_snapshot", fail)
    with pytest.raises(NotInForceError, match=r"is not in force: .*registry.json can't be written \(No space left"):
        apply_change(settings, add)
    monkeypatch.undo()
    apply_change(settings, set_status(DeviceStatus.SUSPENDED))
    assert written(settings).revision == 3
    assert unaudited(settings) == []


def test_refused_change_tells_nobody(settings: Settings) -> None:
    before = settings.registry.snapshot.read_bytes()
    with running_gateway(settings, {"ok": True}) as asked:  # noqa: SIM117  who raises must be plain
        with pytest.raises(RegistryError, match="belongs to the archive 'PACS'"):
            apply_change(
                settings, lambda store: store.add_device(replace(WORKSTATION, ae_titles=("PACS",)), by="a", at=now())
            )
    assert asked == []
    assert settings.registry.snapshot.read_bytes() == before


def test_what_is_asked_is_json(settings: Settings) -> None:
    with running_gateway(settings, {"ok": True}) as asked:
        apply_change(settings, add)
    assert json.loads(json.dumps(asked)) == asked
