"""`make demo`, with Orthanc and with the embedded archive."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def _interruptible() -> Iterator[None]:
    """What is started here heeds SIGINT: a shell lets what it starts in the background, as tests may be, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _running(directory: Path) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """Run the demonstration until it has said what to type next; give the process and what it has printed."""
    with (
        _interruptible(),
        subprocess.Popen(
            [sys.executable, DEMO, "--embedded", "--directory", directory],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        try:
            assert process.stdout is not None
            printed = ""
            for line in process.stdout:
                printed += line
                if "device suspend" in line:
                    break
            yield process, printed
        finally:
            process.terminate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_every_child(number: signal.Signals, tmp_path: Path) -> None:
    """No gateway and no archive stays behind."""
    with _running(tmp_path / "run") as (process, printed):
        children = _children_of(process.pid)
        assert len(children) >= 2, printed
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30)
        assert process.returncode == 0, printed + rest
        assert "Stopped." in rest
        assert [pid for pid in children if (Path("/proc") / str(pid)).exists()] == []


def test_what_it_says_to_type_next_works_as_it_stands(tmp_path: Path) -> None:
    with _running(tmp_path / "run") as (_, printed):
        commands = _commands_in(printed)
        assert len(commands) >= 5, printed
        for command in commands:
            done = run(["sh", "-c", command])
            assert done.returncode == 0, f"{command}\n{done.stdout}"
        # The last one has shut the scanner out, at once.
        assert run(["sh", "-c", commands[0]]).returncode == 1


def _commands_in(printed: str) -> list[str]:
    """Return the commands that it says to type: indented lines after the last empty one, continued by backslashes."""
    lines = printed.split("another terminal, in this directory:", 1)[1].replace("\\\n", " ").splitlines()
    commands = [line.strip() for line in lines if line.startswith("  ") and not line.startswith("  #")]
    ours = Path(sys.executable).with_name("dicomward")
    if not ours.exists():
        # An environment without the package installed, as some of us develop in.
        commands = [command.replace(str(ours), f"{sys.executable} -m dicomward.cli.main") for command in commands]
    return commands


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
