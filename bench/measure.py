"""What a process tree costs: CPU seconds and peak memory, read from /proc while others work."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

SAMPLE_SECONDS = 0.05
_TICK = os.sysconf("SC_CLK_TCK")
_next_port = 11_000


class BenchError(Exception):
    """A benchmark could not be run; the text says what happened and what to do."""


def free_port() -> int:
    """Return a loopback port that nobody uses now, below the ports that the kernel gives to clients."""
    global _next_port  # noqa: PLW0603 - one counter a run, so that no two servers get the same port
    while _next_port < 15_000:
        _next_port += 1
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", _next_port))
            return _next_port
    raise BenchError("no free port between 11000 and 15000: stop what listens there")


def process_tree(pid: int) -> list[int]:
    """Return the process and all its living descendants."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{current}/task"):
                with contextlib.suppress(OSError):
                    waiting += map(int, Path(f"/proc/{current}/task/{task}/children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of the tree so far, with those of the children that it has waited for."""
    total = 0.0
    for member in process_tree(pid):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The CPU clock of another process (clock_getcpuclockid(3)): exact, and with the threads that have ended.
            total += time.clock_gettime((~member << 3) | 2)
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[13]) + int(fields[14])) / _TICK
    return total


def memory_bytes(pid: int) -> int:
    """Return the proportional set size of the tree: pages that processes share are counted once."""
    total = 0
    for member in process_tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
                    break
    return total


class Meter:
    """CPU seconds and peak memory of one tree while the `with` block runs; without a pid it reads zero."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.cpu_seconds = 0.0
        self.peak_bytes = 0

    def _sample(self) -> None:
        while self._pid is not None and not self._stop.wait(SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, memory_bytes(self._pid))

    def __enter__(self) -> "Meter":
        if self._pid is not None:
            self.peak_bytes = memory_bytes(self._pid)
            self.cpu_seconds = -cpu_seconds(self._pid)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pid is not None:
            self.cpu_seconds += cpu_seconds(self._pid)
            self._stop.set()
            self._thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A started server: its process and the loopback port where it listens."""

    name: str
    process: subprocess.Popen[bytes]
    port: int

    @property
    def pid(self) -> int:
        return self.process.pid


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str], *, grace_seconds: float = 5) -> None:
    """End a process that we started, and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            continue
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 15) -> None:
    """Wait until something accepts at the port. Raises BenchError with the end of the log if it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise BenchError(f"nothing listens on 127.0.0.1:{port}; the end of {log.name}:\n{log.read_text()[-2000:]}")


@contextlib.contextmanager
def server(
    name: str, command: Sequence[str], *, port: int, directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server for the length of the block, in a process group of its own.

    `environment` is the whole environment of the server besides PATH and LANG, so that a setting of the shell
    (TCP_NODELAY above all) cannot change what is measured.
    """
    log = directory / f"{name.replace(' ', '-')}-{port}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(command), stdout=stream, stderr=stream, cwd=directory, env=clean_environment(environment),
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_for_port(port, process, log)
        yield Server(name=name, process=process, port=port)
    except BenchError as error:
        if process.poll() is None:
            raise
        # Whoever failed, failed because of this.
        said = log.read_text(errors="replace")[-1000:]
        raise BenchError(f"{error}\n{name} has ended with {process.returncode} meanwhile: {said}") from error
    finally:
        stop(process)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a measured process: PATH, a fixed language, and `extra`."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8", **(extra or {})}


def loopback_bytes() -> int:
    """Return how many bytes this network namespace has sent over loopback so far."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    raise BenchError("no loopback interface in /proc/self/net/dev")
