"""The archives and senders of the field: DCMTK, Orthanc, and the light archive of P4."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.datasets import Folder
from bench.measure import BenchError, Meter, Server, clean_environment, free_port, server
from bench.rivals import Door

# Debian's own paths: an activated Python environment with pynetdicom has programs of the same names.
STORESCP = "/usr/bin/storescp"
STORESCU = "/usr/bin/storescu"
ORTHANC = "/usr/sbin/Orthanc"
ROOT = Path(__file__).resolve().parent.parent

STOCK: Mapping[str, str] = {}
TUNED: Mapping[str, str] = {"TCP_NODELAY": "1"}
RUN_SECONDS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured run: `amount` is bytes or associations, the rest belongs to the tree between (zero without one)."""

    seconds: float
    amount: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def per_second(self) -> float:
        return self.amount / self.seconds

    @property
    def cpu_per_gigabyte(self) -> float:
        return self.cpu_seconds / (self.amount / 1e9)


@contextlib.contextmanager
def storescp(directory: Path, *, pdu_bytes: int | None, environment: Mapping[str, str]) -> Iterator[Server]:
    """Run DCMTK's storescp, which takes everything and keeps nothing."""
    port = free_port()
    size = ["-pdu", str(pdu_bytes)] if pdu_bytes else []
    command = [STORESCP, "-q", "--ignore", "--fork", *size, str(port)]
    with server("storescp", command, port=port, directory=directory, environment=environment) as running:
        yield running


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc:
    """A running Orthanc and its REST port."""

    server: Server
    http_port: int

    def _call(self, method: str, path: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            content: bytes = answer.read()
        return content

    def instances(self) -> int:
        """Return how many objects it holds."""
        return int(json.loads(self._call("GET", "/statistics"))["CountInstances"])

    def empty(self) -> None:
        """Delete everything: it skips what it already has, and a skipped object would be a gift to who comes second."""
        for patient in json.loads(self._call("GET", "/patients")):
            self._call("DELETE", f"/patients/{patient}")


@contextlib.contextmanager
def orthanc(directory: Path, *, environment: Mapping[str, str]) -> Iterator[Orthanc]:
    """Run Orthanc with its default settings; only ports and folders are ours."""
    if not Path(ORTHANC).exists():
        raise BenchError(f"{ORTHANC} is missing: install the package orthanc")
    port, http_port = free_port(), free_port()
    home = directory / f"orthanc-{port}"
    home.mkdir()
    settings = {
        "Name": "bench",
        "StorageDirectory": str(home / "storage"),
        "IndexDirectory": str(home / "storage"),
        "DicomPort": port,
        "HttpPort": http_port,
        "Plugins": [],
    }
    (home / "orthanc.json").write_text(json.dumps(settings))
    command = [ORTHANC, str(home / "orthanc.json")]
    with server("orthanc", command, port=port, directory=home, environment=environment) as running:
        yield Orthanc(server=running, http_port=http_port)


@contextlib.contextmanager
def echo_archive(directory: Path) -> Iterator[Server]:
    """Run the light archive that only answers C-ECHO."""
    port = free_port()
    command = [sys.executable, "-m", "bench.echo_archive", str(port)]
    environment = {"PYTHONPATH": str(ROOT)}
    with server("echo archive", command, port=port, directory=directory, environment=environment) as running:
        yield running


def send(
    door: Door,
    folder: Folder,
    *,
    parallel: int = 1,
    repeat: int = 1,
    max_send_pdu_bytes: int | None = None,
    environment: Mapping[str, str],
) -> Run:
    """Send the folder with `parallel` storescu at once, `repeat` times each; wall time of all, process starts included.

    storescu stops with a code at the first C-STORE that is not a success, and that makes the run void.
    """
    command = [STORESCU, "-ll", "error", "-R", "+sd", "--repeat", str(repeat), "-aet", door.calling_ae_title]
    command += ["-aec", door.called_ae_title]
    if max_send_pdu_bytes:
        command += ["--max-send-pdu", str(max_send_pdu_bytes)]
    if door.credentials:
        command += ["+tls", str(door.credentials.key), str(door.credentials.certificate)]
        command += ["+cf", str(door.credentials.ca)]
    command += ["127.0.0.1", str(door.port), str(folder.path)]
    with Meter(door.pid) as meter:
        began = time.monotonic()
        senders = [
            subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=clean_environment(environment)
            )
            for _ in range(parallel)
        ]
        _wait_for(senders, door)
        seconds = time.monotonic() - began
    return Run(
        seconds=seconds,
        amount=folder.size * parallel * repeat,
        cpu_seconds=meter.cpu_seconds,
        peak_bytes=meter.peak_bytes,
    )


def _wait_for(senders: Sequence[subprocess.Popen[bytes]], door: Door) -> None:
    deadline = time.monotonic() + RUN_SECONDS
    try:
        for sender in senders:
            _, errors = sender.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if sender.returncode:
                said = errors.decode(errors="replace")[-1000:]
                raise BenchError(f"storescu to {door.name} ended with {sender.returncode}: {said}")
    except subprocess.TimeoutExpired:
        raise BenchError(f"storescu to {door.name} took more than {RUN_SECONDS} s") from None
    finally:
        for sender in senders:
            sender.kill()
            sender.wait()


def load_command(door: Door, what: str, *extra: str) -> list[str]:
    """Return the command line of the load client for this door."""
    command = [sys.executable, "-m", "bench.load_client", what, "--port", str(door.port)]
    command += ["--called", door.called_ae_title, "--calling", door.calling_ae_title]
    if door.credentials:
        command += ["--key", str(door.credentials.key), "--certificate", str(door.credentials.certificate)]
        command += ["--ca", str(door.credentials.ca)]
    return [*command, *extra]


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoRun:
    """A run of the load client: associations with C-ECHO, and what TLS did."""

    run: Run
    resumed: int
    protocol: str


def associate(door: Door, *, threads: int, seconds: float, resume: bool) -> EchoRun:
    """Open, C-ECHO and release for `seconds`. Raises BenchError on any failure, or if resumption is not as asked."""
    extra = ["--threads", str(threads), "--seconds", str(seconds), *(["--resume"] if resume else [])]
    with Meter(door.pid) as meter:
        done = subprocess.run(
            load_command(door, "rate", *extra), capture_output=True, timeout=seconds + 120, check=False,
            env=clean_environment({"PYTHONPATH": str(ROOT)}), cwd=ROOT,
        )  # fmt: skip
    if done.returncode:
        raise BenchError(f"the load client failed at {door.name}: {(done.stdout + done.stderr).decode()[-1500:]}")
    result = json.loads(done.stdout)
    expected = result["associations"] if resume else 0
    # A few may fall back to a full handshake when a ticket key rotates; more means that another thing is measured.
    if abs(result["resumed"] - expected) > 0.01 * max(expected, 1):
        raise BenchError(
            f"{door.name}: {result['resumed']} of {result['associations']} handshakes were resumed, {expected} expected"
        )
    run = Run(
        seconds=result["seconds"],
        amount=result["associations"],
        cpu_seconds=meter.cpu_seconds,
        peak_bytes=meter.peak_bytes,
    )
    return EchoRun(run=run, resumed=result["resumed"], protocol=result["protocol"])
