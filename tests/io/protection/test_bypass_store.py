"""The files of bypasses: whole, private, strict when read, and compared with the audit log."""

import json
import os
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.event import BypassReviewed, SecurityAlert
from dicomward.io.audit.log import append_offline
from dicomward.io.protection.bypass_store import (
    BypassFileError,
    Clocks,
    bypass_lock,
    decode_bypass,
    encode_bypass,
    find_contradictions,
    read_bypasses,
    state_digest,
    write_bypass,
)
from tests.policy.test_bypass import bypass, ended


def test_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    reviewed = ended(reviewed_at=bypass().opened_at, reviewed_by="bert", note="Ürgent")
    for each in (bypass(), replace(reviewed, bypass_id="20260302-2", device=None, site="north")):
        write_bypass(tmp_path, each)
        assert read_bypasses(tmp_path).bypasses[each.bypass_id] == each
    path = tmp_path / "bypass" / "20260302-1.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_no_directory_is_no_bypass(tmp_path: Path) -> None:
    assert read_bypasses(tmp_path).bypasses == {}


def test_what_changes_while_it_is_open_is_not_part_of_the_digest() -> None:
    assert state_digest(bypass()) == state_digest(
        bypass(leased_seconds=7.0, alarmed_at=None, boot="b", boot_seconds=1.0)
    )
    assert state_digest(bypass()) != state_digest(bypass(minutes=61))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": "60"}, "minutes can't be '60'"),
        ({"minutes": True}, "minutes can't be True"),
        ({"opened_at": "2026-03-02T12:00:00"}, "opened_at can't be"),
        ({"opened_at": None}, "opened_at can't be None"),
        ({"opened_at": "noon"}, "opened_at can't be 'noon'"),
        ({"ending": "somehow"}, "ending can't be 'somehow'"),
        ({"boot_seconds": "1"}, "boot_seconds can't be '1'"),
        ({"operator": 7}, "operator can't be 7"),
        ({"device": None}, "one device or one site"),
        ({"site": "north"}, "one device or one site"),
        ({"bypass_id": "other"}, "under its own name"),
        ({"more": 1}, "does not have the members"),
    ],
)
def test_file_that_is_not_as_it_must_be_is_no_bypass(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BypassFileError, match=message):
        decode_bypass(json.dumps({**encode_bypass(bypass()), **changes}), "20260302-1")
    write_bypass(tmp_path, bypass())
    path = tmp_path / "bypass" / "20260302-1.json"
    path.write_text(json.dumps({**encode_bypass(bypass()), **changes}))
    stored = read_bypasses(tmp_path)
    assert stored.bypasses == {}
    assert message in stored.problems[0]


def test_file_that_is_no_json_or_no_object_is_a_problem() -> None:
    with pytest.raises(BypassFileError, match="is not JSON"):
        decode_bypass("{", "x")
    with pytest.raises(BypassFileError, match="does not have the members"):
        decode_bypass("[]", "x")


def test_files_of_a_write_that_was_cut_are_passed_over(tmp_path: Path) -> None:
    write_bypass(tmp_path, bypass())
    (tmp_path / "bypass" / ".20260302-2.json.new").write_text("{")
    (tmp_path / "bypass" / ".x.json").write_text("{")
    assert read_bypasses(tmp_path).problems == ()


def test_directory_that_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_path: Path, _pattern: str) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", fails)
    assert read_bypasses(tmp_path).problems == (f"{tmp_path / 'bypass'}: Permission denied",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for others")
def test_what_root_writes_belongs_to_the_owner_of_the_state_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    write_bypass(tmp_path, bypass())
    with bypass_lock(tmp_path):
        pass
    assert {(each.stat().st_uid, each.stat().st_gid) for each in tmp_path.rglob("*")} == {(4711, 4712)}


def test_lock_lets_one_after_the_other(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with bypass_lock(tmp_path):
            order.append("second")

    with bypass_lock(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.05)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_clocks_are_those_of_the_machine() -> None:
    moment = Clocks().moment()
    assert moment.wall.tzinfo is not None
    assert len(moment.boot) == 36
    assert 0 <= Clocks().moment().boot_seconds - moment.boot_seconds < 10
    assert abs(Clocks().monotonic() - time.monotonic()) < 10


def test_without_a_boot_id_each_process_is_a_boot_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomward.io.protection.bypass_store._BOOT_ID", tmp_path / "none")
    clocks = Clocks()
    assert clocks.moment().boot == clocks.moment().boot
    assert clocks.moment().boot.startswith(f"process {os.getpid()} ")
    assert Clocks().moment().boot != clocks.moment().boot


def test_files_are_compared_with_what_the_log_has_last_said(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    digest = state_digest(bypass())
    append_offline(audit, SecurityAlert(bypass="20260302-1", state_sha256=digest))
    append_offline(audit, SecurityAlert(detail="about something else"))
    assert find_contradictions(audit, {"20260302-1": bypass()}) == []
    assert find_contradictions(audit, {"20260302-1": bypass(minutes=480)}) == [
        "the file of bypass 20260302-1 is not as the audit log has it"
    ]
    assert find_contradictions(audit, {}) == ["bypass 20260302-1 is in the audit log, but its file is gone"]
    append_offline(audit, BypassReviewed(bypass="20260302-1", state_sha256=digest))
    assert find_contradictions(audit, {}) == []
    segment = next(audit.glob("audit-*.jsonl"))
    segment.write_bytes(segment.read_bytes() + b'{"code":"DW-SEC-ALERT"}\n')
    assert find_contradictions(audit, {}) == []
