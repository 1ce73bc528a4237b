"""`dicomward user`: persons of the passcode file."""

import getpass
import io
import sys
from pathlib import Path

import pytest

from dicomward.identity.passcodes import is_passcode
from dicomward.io.people import operators as io_operators
from dicomward.io.people.file import read_passcodes
from dicomward.settings import Settings
from tests.cli.conftest import Run


@pytest.fixture
def passcode_file(tmp_path: Path) -> Path:
    path = tmp_path / "passcode.txt"
    path.write_text("correct horse\n", encoding="utf-8")
    return path


def fits(settings: Settings, name: str, passcode: bytes) -> bool:
    record = read_passcodes(settings.people.passcodes).named(name)
    assert record is not None
    return is_passcode(record.hash, passcode)


def test_persons_come_change_and_go(settings: Settings, run: Run, passcode_file: Path) -> None:
    added = run("user", "add", "anna", "--group", "readers", "--passcode-file", passcode_file)
    assert (added.code, added.out) == (0, "person anna added; open associations go on\n")
    assert fits(settings, "anna", b"correct horse")
    assert run("user", "list", "--json").json == [{"name": "anna", "groups": ["readers"]}]
    assert "anna  readers" in run("user", "list").out
    passcode_file.write_text("another one", encoding="utf-8")
    assert run("user", "passcode", "anna", "--passcode-file", passcode_file, "--json").json["name"] == "anna"
    assert fits(settings, "anna", b"another one")
    assert run("user", "remove", "anna").code == 0
    assert run("user", "list", "--json").json == []
    assert "action=remove-user" in run("audit", "search", "--code", "DW-OPER-CHANGE").out


def test_the_passcode_is_typed_twice(settings: Settings, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["correct horse", "correct horse", "correct horse", "correct hors"])
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: next(typed))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert run("user", "add", "anna").code == 0
    different = run("user", "passcode", "anna")
    assert different.code == 1
    assert "not the same; nothing was changed" in different.err


def test_the_passcode_may_come_on_standard_input(settings: Settings, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\n"))
    assert run("user", "add", "anna").code == 0
    assert fits(settings, "anna", b"correct horse")


def test_refused_with_a_reason(settings: Settings, run: Run, passcode_file: Path) -> None:
    add = ("user", "add", "anna", "--passcode-file", passcode_file)
    assert run(*add).code == 0
    twice = run(*add)
    assert twice.code == 1
    assert "'anna' is there twice" in twice.err
    assert "did you mean 'anna'?" in run("user", "remove", "ana").err
    assert "can't be a person's name" in run("user", "add", " x", "--passcode-file", passcode_file).err
    passcode_file.write_text("short", encoding="utf-8")
    assert "at least 8 characters" in run("user", "passcode", "anna", "--passcode-file", passcode_file).err
    missing = run("user", "passcode", "anna", "--passcode-file", passcode_file.with_name("none"))
    assert missing.code == 2
    settings.people.passcodes.write_text("version =", encoding="utf-8")
    assert run("user", "list").code == 2


def test_what_can_not_be_recorded_is_told(
    settings: Settings, run: Run, passcode_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_operators, "record_event", lambda *_args: "disk full")
    done = run("user", "add", "anna", "--passcode-file", passcode_file)
    assert done.code == 1
    assert "not in the audit log: disk full" in done.err
