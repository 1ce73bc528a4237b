"""Operators and approvals on disk, and who runs a command."""

import os
import pwd
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.audit.chain import Record
from dicomward.audit.event import ApprovalChanged, OperatorsChanged
from dicomward.audit.search import Query
from dicomward.identity.approvals import ApprovalError, ApprovalStatus
from dicomward.identity.operators import Caller, Operator, OperatorError, OperatorRole, Operators, Permission
from dicomward.io.audit.read import find_records
from dicomward.io.people import operators as module
from dicomward.io.people.operators import (
    change_operators,
    decide_approval,
    read_approvals,
    read_operators,
    record_event,
    take_approval,
    unix_caller,
)
from dicomward.settings import Settings
from tests.directory_helpers import copy_directory, running_gateway

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
ANNA = Operator(name="anna", role=OperatorRole.ADMINISTRATOR, unix_users=("anna",))
BERT = Operator(name="bert", role=OperatorRole.ADMINISTRATOR, unix_users=("bert",))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return copy_directory(tmp_path / "gateway")


@pytest.fixture
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_login_uid", lambda: None)


@pytest.mark.usefixtures("no_login")
def test_sudo_is_believed_for_root_and_the_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"SUDO_USER": "anna"}
    anna = Caller(unix_user="anna", is_root=False)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert unix_caller(tmp_path, environment) == anna
    assert unix_caller(tmp_path, {"SUDO_USER": "root"}) == Caller(unix_user="root", is_root=True)
    assert unix_caller(tmp_path, {}) == Caller(unix_user="root", is_root=True)
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid)
    assert unix_caller(tmp_path, environment) == anna
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    assert unix_caller(tmp_path, environment) == Caller(unix_user="uid-54321", is_root=False)
    assert unix_caller(tmp_path / "not there", environment).unix_user == "uid-54321"


def test_who_has_logged_in_stays_that_through_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid != 0)
    monkeypatch.setattr(module, "_login_uid", lambda: other.pw_uid)
    found = unix_caller(tmp_path, {"SUDO_USER": "anna"})
    assert found == Caller(unix_user=other.pw_name, is_root=False)


def test_the_kernel_tells_the_login_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("1000", 1000), ("4294967295", None), ("", None)):
        monkeypatch.setattr(Path, "read_text", lambda *_args, text=text, **_kwargs: text)
        assert module._login_uid() == expected


def test_without_a_file_nobody_is_named(settings: Settings, tmp_path: Path) -> None:
    assert read_operators(settings) is None
    text = settings.path.read_text(encoding="utf-8").replace("[operators]", '[operators]\nsecond_person = ["all"]')
    settings.path.write_text(text, encoding="utf-8")
    from dicomward.settings import load_settings

    with pytest.raises(OperatorError, match="second_person is set"):
        read_operators(load_settings(settings.path))


def test_changed_operators_are_read_again(settings: Settings) -> None:
    operators = Operators((ANNA, BERT))
    change_operators(settings, operators)
    assert read_operators(settings) == operators
    settings.operators.file.write_bytes(b"\xff")
    with pytest.raises(OperatorError, match="can't be read"):
        read_operators(settings)


def take(settings: Settings) -> ApprovalStatus:
    return take_approval(settings, ANNA, Permission.DEVICE_CHANGE, command="device add", digest="d", now=NOW).status


def test_an_approval_lets_one_command_through(settings: Settings) -> None:
    assert take(settings) is ApprovalStatus.PENDING
    assert take(settings) is ApprovalStatus.PENDING
    (asked,) = read_approvals(settings).entries
    decided = decide_approval(settings, asked.id, BERT, approve=True, now=NOW)
    assert decided.decided_by == "bert"
    assert take(settings) is ApprovalStatus.USED
    assert take(settings) is ApprovalStatus.PENDING
    assert len(read_approvals(settings).entries) == 2


def test_broken_approvals_are_refused(settings: Settings) -> None:
    with pytest.raises(ApprovalError, match="nor any other"):
        decide_approval(settings, "x", BERT, approve=True, now=NOW)
    settings.gateway.state_directory.mkdir(exist_ok=True)
    (settings.gateway.state_directory / module.APPROVALS_NAME).write_bytes(b"\xff")
    with pytest.raises(ApprovalError, match="is not text"):
        read_approvals(settings)


def test_events_are_recorded_without_a_gateway(settings: Settings) -> None:
    assert record_event(settings, OperatorsChanged(operator="anna", action="add-operator")) is None
    (found,) = find_records(settings.audit.directory, Query(code="DW-OPER-CHANGE"), None)
    assert isinstance(found, Record)
    assert found.members["operator"] == "anna"


def test_a_problem_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from dicomward.io.audit import log as audit_log

    def busy(*_args: object) -> None:
        raise audit_log.AuditLogBusyError("busy")

    event = ApprovalChanged(operator="anna", action="requested")
    with monkeypatch.context() as patched:
        patched.setattr(audit_log, "append_offline", busy)
        assert record_event(settings, event) == "no gateway answered"
        with running_gateway(settings, {"ok": True}, {"ok": False, "error": "no"}) as asked:
            assert record_event(settings, event) is None
            assert record_event(settings, event) == "no"
        assert asked[0]["do"] == "record"
        assert asked[0]["code"] == "DW-APPROVAL"

    def failed(*_args: object) -> None:
        raise audit_log.AuditLogError("full")

    monkeypatch.setattr(audit_log, "append_offline", failed)
    assert record_event(settings, event) == "full"
