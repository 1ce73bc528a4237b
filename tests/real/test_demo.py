"""`make demo`, with Orthanc and with the embedded archive."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.processes import REPOSITORY, run
from tests.real.servers import ORTHANC, need

DEMO = REPOSITORY / "demo" / "demo.py"
# What each line of the demonstration is about; the first three pass, the others are refused.
LINES = (
    "C-ECHO",
    "C-STORE",
    "C-GET",
    "plaintext",
    "without a certificate",
    "foreign authority",
    "role may not do",
    "title of another device",
    "too many queries",
)


def _check(printed: str) -> None:
    for words in LINES:
        line = next((line for line in printed.splitlines() if words in line), "")
        assert line.startswith("✓"), printed
    assert "✗" not in printed, printed


def test_every_line_holds_with_the_embedded_archive() -> None:
    done = run([sys.executable, DEMO, "--once", "--embedded"], seconds=100)
    assert done.returncode == 0, done.stdout
    assert "embedded archive" in done.stdout
    _check(done.stdout)


def test_every_line_holds_with_orthanc() -> None:
    need(ORTHANC, "orthanc")
    done = run([sys.executable, DEMO, "--once"], seconds=100)
    assert done.returncode == 0, done.stdout
    assert "Orthanc" in done.stdout
    _check(done.stdout)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_every_child(number: signal.Signals, tmp_path: Path) -> None:
    """No gateway and no archive stays behind."""
    process = subprocess.Popen(
        [sys.executable, DEMO, "--embedded", "--directory", tmp_path / "run"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if "device suspend" in line:
            break
    children = _children_of(process.pid)
    assert len(children) >= 2, printed
    process.send_signal(number)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0, printed + rest
    assert "device add" in printed
    assert "Stopped." in rest
    assert [pid for pid in children if (Path("/proc") / str(pid)).exists()] == []


def _children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found
