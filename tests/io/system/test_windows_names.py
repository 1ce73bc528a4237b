"""What runs on Windows names nothing that Windows' Python does not have: mypy's stubs know."""

import subprocess
import sys
from pathlib import Path

import pytest
from tools import check_windows


def test_commands_of_an_agent_use_nothing_that_windows_lacks() -> None:
    done = subprocess.run(
        [sys.executable, "tools/check_windows.py"], cwd=check_windows.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_windows_lacks_is_found_also_behind_a_late_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "src" / "planted"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "first.py").write_text("def late() -> None:\n    from planted import second\n\n    second.lock()\n")
    (package / "second.py").write_text("import os\n\n\ndef lock() -> int:\n    return os.getuid()\n")
    (tmp_path / "pyproject.toml").write_text('[tool.mypy]\nmypy_path = "src"\n')
    monkeypatch.setattr(check_windows, "ROOT", tmp_path)
    monkeypatch.setattr(check_windows, "SOURCE", tmp_path / "src")
    monkeypatch.setattr(check_windows, "COMMANDS", ("planted.first",))
    assert check_windows.main() == 1
    assert 'has no attribute "getuid"' in capfd.readouterr().out


def test_every_exception_is_a_module_that_is_reached() -> None:
    assert check_windows.NOT_THERE.keys() <= check_windows.reachable().keys()


def test_agent_and_its_parts_are_reached() -> None:
    assert {
        "dicomward.io.edge.agent",
        "dicomward.io.edge.spool",
        "dicomward.io.gateway.engine",
        "dicomward.io.audit.files",
        "dicomward.io.enrolment.client",
    } <= check_windows.reachable().keys()
