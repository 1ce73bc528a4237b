"""Peers as child processes: free ports, readiness by connecting, and an end for each of them."""

import itertools
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

LOOPBACK: Final = "127.0.0.1"
REPOSITORY: Final = Path(__file__).resolve().parents[2]

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a port between choice and use;
# each xdist worker has a range of its own.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_RANGE = 2000
_PORTS: Final[Iterator[int]] = itertools.cycle(
    (offset + os.getpid()) % _RANGE + 20000 + _RANGE * (_WORKER % 6) for offset in range(_RANGE)
)


class PeerError(Exception):
    """A peer did not start; the message holds the end of its own log."""


def free_port() -> int:
    """Return a port that nobody on this machine listens on."""
    for port in _PORTS:
        try:
            with socket.socket() as probe:
                # DCMTK and Orthanc bind every address, so every address must be free.
                probe.bind(("0.0.0.0", port))
        except OSError:
            continue
        return port
    raise PeerError("no free port")


class Child:
    """A process of ours in a session of its own, with its output in a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TCP_NODELAY": "1", **(environment or {})},
                start_new_session=True,
                pass_fds=pass_fds,
            )

    def tail(self) -> str:
        """Return the end of the log, for messages."""
        return self.log.read_text("utf-8", "replace")[-3000:]

    def wait_until_listening(self, port: int, *, host: str = LOOPBACK, seconds: float = 30.0) -> None:
        """Return when a connection succeeds; raise PeerError when the process ends or time is up."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection((host, port), timeout=1.0).close()
            except OSError:
                pass
            else:
                return
            try:
                # Waiting for its end is the pause between two attempts.
                code = self.process.wait(timeout=0.02)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                self.stop()
                raise PeerError(f"{self.name} does not listen on port {port}:\n{self.tail()}") from None
            raise PeerError(f"{self.name} ended with code {code}:\n{self.tail()}")

    def wait_until_it_says(self, pattern: "re.Pattern[str]", *, seconds: float = 30.0) -> None:
        """Return when its output matches; raise PeerError when the process ends or time is up."""
        deadline = time.monotonic() + seconds
        while pattern.search(self.tail()) is None:
            try:
                # Waiting for its end is the pause between two looks.
                code = self.process.wait(timeout=0.02)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                self.stop()
                raise PeerError(f"{self.name} does not say {pattern.pattern!r}:\n{self.tail()}") from None
            raise PeerError(f"{self.name} ended with code {code}:\n{self.tail()}")

    def stop(self, *, seconds: float = 10.0) -> int:
        """End it and everything that it started; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self.process.wait(timeout=seconds)


def run(
    command: Sequence[str | Path], *, seconds: float = 60.0, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a tool to its end; its output is text, stderr included in stdout."""
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
        env={**os.environ, "TCP_NODELAY": "1", **(environment or {})},
    )
