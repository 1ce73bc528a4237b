"""`dicomward restore`: a directory that runs, or nothing at all."""

import re
from pathlib import Path

import pytest

from dicomward.io.audit.verify import verify_directory
from dicomward.settings import Settings
from tests.cli.conftest import Run
from tests.io.audit_helpers import records_of


def test_restored_directory_is_ready_and_says_what_to_type_next(run: Run, settings: Settings, tmp_path: Path) -> None:
    run("backup", tmp_path / "b.tar")
    outcome = run("restore", tmp_path / "b.tar", tmp_path / "new")
    assert outcome.code == 0, outcome.err
    (check,) = re.findall(r"dicomward (check-config --config \S+)", outcome.out)
    assert run(*check.split()).code == 0
    assert verify_directory(tmp_path / "new" / "audit").report.findings == ()
    last = list(records_of(tmp_path / "new" / "audit"))[-1]
    assert (last.code, last.members["action"]) == ("DW-AUDIT-ACCESS", "restore")
    assert run("device", "list", "--config", tmp_path / "new" / "dicomward.toml").code == 0


def test_json_for_scripts(run: Run, settings: Settings, tmp_path: Path) -> None:
    run("backup", tmp_path / "b.tar")
    told = run("restore", tmp_path / "b.tar", tmp_path / "new", "--json").json
    assert told["configuration"] == str(tmp_path / "new" / "dicomward.toml")
    assert told["files"] > 5
    assert told["outside"] == {}


def test_directory_that_holds_something_is_refused(run: Run, settings: Settings, tmp_path: Path) -> None:
    run("backup", tmp_path / "b.tar")
    outcome = run("restore", tmp_path / "b.tar", settings.directory)
    assert outcome.code == 1
    assert "nothing is overwritten" in outcome.err


def test_missing_backup_is_said(run: Run, tmp_path: Path) -> None:
    outcome = run("restore", tmp_path / "gone.tar", tmp_path / "new")
    assert outcome.code == 1
    assert "gone.tar" in outcome.err
    assert not (tmp_path / "new").exists()


def test_what_was_outside_is_named(run: Run, settings: Settings, tmp_path: Path) -> None:
    audit = tmp_path / "log"
    settings.audit.directory.rename(audit)
    text = settings.path.read_text("utf-8").replace('directory = "audit"', f'directory = "{audit}"')
    settings.path.write_text(text, "utf-8")
    assert run("backup", tmp_path / "b.tar").code == 0
    before = len(list(records_of(audit)))
    outcome = run("restore", tmp_path / "b.tar", tmp_path / "new")
    assert outcome.code == 0
    assert f"{audit} is outside of the gateway's directory" in outcome.err
    # The log there belongs to the gateway that is still in its place.
    assert len(list(records_of(audit))) == before


def test_settings_of_another_release_are_restored_and_said(run: Run, settings: Settings, tmp_path: Path) -> None:
    with settings.path.open("a", encoding="utf-8") as file:
        file.write("\n[tomorrow]\nx = 1\n")
    from dicomward.io.installation.backup import make_backup
    from tests.directory_helpers import now

    make_backup(settings, tmp_path / "b.tar", now())
    outcome = run("restore", tmp_path / "b.tar", tmp_path / "new")
    assert outcome.code == 0
    assert "the settings can't be used" in outcome.err
    assert (tmp_path / "new" / "dicomward.toml").exists()


def test_log_that_cannot_take_the_record_is_said(
    run: Run, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup", tmp_path / "b.tar")
    monkeypatch.setattr("dicomward.io.people.operators.record_event", lambda _settings, _event: "the disk is full")
    outcome = run("restore", tmp_path / "b.tar", tmp_path / "new")
    assert outcome.code == 0
    assert "not in the restored audit log: the disk is full" in outcome.err
