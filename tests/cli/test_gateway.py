"""`dicomward gateway`: starts, says where it listens, and ends by a signal."""

import io
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import dicomward
from dicomward.cli.main import main
from dicomward.io.control import SOCKET_NAME
from dicomward.settings import Settings
from tests.cli.conftest import Run

SECONDS = 20.0
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dicomward.__file__).parents[1])}


class Terminal(io.StringIO):
    """A stdout that stops the gateway as soon as it says that it listens."""

    def write(self, text: str) -> int:
        if text.startswith("listening on "):
            signal.raise_signal(signal.SIGTERM)
        return super().write(text)


def test_gateway_says_where_it_listens_and_a_signal_ends_it_well(
    settings: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    handler = signal.getsignal(signal.SIGTERM)
    assert main(["gateway", "--operator", "berta"]) == 0
    where = terminal.getvalue()
    assert where.startswith("listening on 127.0.0.1:")
    assert int(where.rpartition(":")[2]) > 0
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not (settings.gateway.state_directory / SOCKET_NAME).exists()


@pytest.mark.parametrize("verbose", [False, True])
def test_process_serves_until_sigterm_and_logs_to_stderr_only(settings: Settings, verbose: bool) -> None:
    command = [sys.executable, "-m", "dicomward.cli.main", "gateway", *(["-v"] if verbose else [])]
    environment = {**ENVIRONMENT, "DICOMWARD_CONFIG": str(settings.path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            host, _, port = line.removeprefix("listening on ").strip().rpartition(":")
            with socket.create_connection((host, int(port)), SECONDS):
                process.terminate()
                out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, ""), err
    assert "Traceback" not in err


def test_settings_that_cannot_be_read_are_exit_code_2(run: Run, tmp_path: Path) -> None:
    done = run("gateway", "--config", tmp_path / "nothing.toml")
    assert done.code == 2
    assert "nothing.toml" in done.err


def test_configuration_that_cannot_be_used_is_exit_code_2(run: Run, settings: Settings) -> None:
    settings.policy.file.write_text("version = 99\n")
    done = run("gateway")
    assert (done.code, done.out) == (2, "")
    assert "`dicomward check-config` tells more" in done.err


def test_operator_without_a_proper_name_is_exit_code_2(run: Run, settings: Settings) -> None:
    done = run("gateway", "--operator", "")
    assert (done.code, done.out) == (2, "")
    assert "the operator's name must have 1 to 64 printable characters" in done.err


def test_port_that_is_taken_is_exit_code_1(run: Run, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = settings.path.read_text()
        assert text.count('\nlisten = "127.0.0.1:0"') == 1
        settings.path.write_text(text.replace('\nlisten = "127.0.0.1:0"', f'\nlisten = "127.0.0.1:{port}"'))
        done = run("gateway")
    assert (done.code, done.out) == (1, "")
    assert f"can't listen on 127.0.0.1:{port} for devices: Address already in use" in done.err
