"""Processes of the demonstration: each in a session of its own, with a log, and all ended at the end."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"


class DemoError(Exception):
    """The demonstration can't go on; the message says why and where to look."""


def free_port(preferred: int = 0) -> int:
    """Return the preferred port of loopback if nobody has it, else one that the system chooses."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                # Orthanc binds every address, so every address must be free.
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no free port on loopback")


class Children:
    """Starts processes, waits for their ports, and ends them in the reverse order."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def log_of(self, name: str) -> Path:
        """Return where a process writes."""
        return self._logs / f"{name}.log"

    def start(self, name: str, command: Sequence[str | Path], *, port: int, seconds: float = 30.0) -> int:
        """Start a process and return its id when it accepts connections; raise DemoError when it does not."""
        log = self.log_of(name)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._running.append((name, process))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection((LOOPBACK, port), timeout=1.0).close()
                return process.pid
            # Waiting for its end is the pause between two attempts.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.05)
                raise DemoError(f"{name} ended with code {code}; its log says:\n{self.tail(name)}")
        raise DemoError(f"{name} does not listen on port {port}; its log says:\n{self.tail(name)}")

    def tail(self, name: str) -> str:
        """Return the end of a log."""
        return self.log_of(name).read_text("utf-8", "replace")[-2000:]

    def wait_for(self, name: str) -> int:
        """Wait until a process ends by itself; return its exit code."""
        return next(process for own, process in self._running if own == name).wait()

    def stop_all(self) -> None:
        """Ask each to end, then make it."""
        for _, process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5.0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()
