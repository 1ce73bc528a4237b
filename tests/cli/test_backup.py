"""`dicomward backup`: one file with everything, and a plain answer to whether it is whole."""

import stat
from pathlib import Path

import pytest

from dicomward.settings import Settings
from tests.cli.conftest import Run
from tests.io.audit_helpers import records_of


def actions(settings: Settings) -> list[tuple[object, object]]:
    return [
        (record.members.get("action"), record.members.get("operator"))
        for record in records_of(settings.audit.directory)
        if record.code == "DW-AUDIT-ACCESS"
    ]


def test_backup_is_written_recorded_and_verified(run: Run, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    made = run("backup", path)
    assert made.code == 0, made.err
    assert made.out.startswith(f"{path}: ")
    assert "it holds private keys" in made.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [action for action, _ in actions(settings)] == ["backup"]
    verified = run("backup", "verify", path)
    assert (verified.code, verified.err) == (0, "")
    assert verified.out.startswith(f"good: {path}: ")


def test_word_create_is_understood(run: Run, settings: Settings, tmp_path: Path) -> None:
    assert run("backup", "create", tmp_path / "b.tar").code == 0
    assert (tmp_path / "b.tar").exists()


def test_json_for_scripts(run: Run, settings: Settings, tmp_path: Path) -> None:
    made = run("backup", tmp_path / "b.tar", "--json").json
    verified = run("backup", "verify", tmp_path / "b.tar", "--json").json
    assert made.pop("left_out") == []
    assert verified.pop("good") is True
    assert made == verified
    assert made["audit_records"] >= 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("verify",), "dicomward backup verify FILE"),
        (("a.tar", "b.tar"), "one file too many"),
        (("backup.zip",), "ends in none of .tar"),
    ],
)
def test_wrong_words_are_usage_errors(run: Run, settings: Settings, words: tuple[str, ...], told: str) -> None:
    outcome = run("backup", *words)
    assert outcome.code == 2
    assert told in outcome.err


def test_what_is_there_is_not_overwritten(run: Run, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_text("mine")
    outcome = run("backup", tmp_path / "b.tar")
    assert outcome.code == 1
    assert "nothing is overwritten" in outcome.err


def test_place_that_cannot_be_written_is_said(run: Run, settings: Settings, tmp_path: Path) -> None:
    outcome = run("backup", tmp_path / "no" / "such" / "b.tar")
    assert outcome.code == 1
    assert "can't be written" in outcome.err


def test_what_is_left_out_is_said(run: Run, settings: Settings, tmp_path: Path) -> None:
    (settings.directory / "gone").symlink_to(tmp_path / "nowhere")
    outcome = run("backup", tmp_path / "b.tar")
    assert outcome.code == 0
    assert "not in the backup" in outcome.err


def test_gateway_with_a_broken_log_can_be_backed_up(run: Run, settings: Settings, tmp_path: Path) -> None:
    lock = settings.audit.directory / "lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    outcome = run("backup", tmp_path / "b.tar")
    assert outcome.code == 0
    assert "this backup is not in the audit log" in outcome.err


@pytest.mark.parametrize("data", [b"", b"nonsense" * 200])
def test_file_that_is_no_backup_is_not_good(run: Run, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b.tar").write_bytes(data)
    outcome = run("backup", "verify", tmp_path / "b.tar")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err


def test_file_that_is_missing_is_said(run: Run, tmp_path: Path) -> None:
    outcome = run("backup", "verify", tmp_path / "gone.tar")
    assert outcome.code == 1
    assert "gone.tar" in outcome.err


def test_viewer_may_not_take_the_keys_away(run: Run, settings: Settings, tmp_path: Path) -> None:
    (settings.directory / "operators.toml").write_text(
        'version = 1\n\n[operator.bert]\nrole = "administrator"\nunix_users = ["bert"]\n\n'
        '[operator.anna]\nrole = "viewer"\nunix_users = ["root", "anna"]\n'
    )
    outcome = run("backup", tmp_path / "b.tar")
    assert outcome.code != 0
    assert not (tmp_path / "b.tar").exists()
