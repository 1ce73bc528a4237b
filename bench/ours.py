"""Our gateway, driven by its command line only, as its users do: init, device add, a policy of 50 rules, gateway.

Mutual TLS, registry, policy, limits and audit are on, and nothing is switched off. Where a default rate would cap a
benchmark, the settings raise it, and the table says so.
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from bench.measure import BenchError, clean_environment, free_port, process_tree, stop
from bench.pki import Credentials
from bench.policies import BenchRule, make_rules
from bench.rivals import Door

NAME = "dicomward"
ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "dicomward.cli.main")
RULES = 50
START_SECONDS = 30
ARCHIVE_AE_TITLE, DEVICE_AE_TITLE, DEVICE = "ARCHIVE", "BENCH", "bench"

# One device that opens hundreds of associations a second is no hospital: these settings let the benchmark through.
RATES_RAISED = f"""
[limits.device.{DEVICE}]
floor_associations_per_minute = 10000000
floor_operations_per_minute = 10000000
[limits.network]
floor_associations_per_minute = 10000000
floor_operations_per_minute = 10000000
"""
MANY_OPEN = f"""
[limits.device.{DEVICE}]
floor_associations = 2000
floor_associations_per_minute = 1000000
floor_operations_per_minute = 1000000
[limits.network]
floor_associations = 2000
floor_associations_per_minute = 1000000
floor_operations_per_minute = 1000000
[limits.archive]
associations = 2000
"""
GREEDY = "greedy"
AT_ITS_LIMITS = f"""
[limits.device.{GREEDY}]
floor_associations = 4
floor_bytes_per_second = 20000000
"""
RAISED_NOTES = {
    "": "every setting at its default",
    RATES_RAISED: "raised for this table: associations and C-ECHOs a minute of the one device",
    AT_ITS_LIMITS: "lowered for this table: 4 associations and 20 MB/s for the device beside",
    MANY_OPEN: "raised for this table: associations open at once and a minute, of the one device and of the archive",
}


def policy_text(count: int = RULES) -> str:
    """Return `count` rules: those of a group of hospitals, and last the one that lets this device work."""
    mine = BenchRule(id="bench", allow=True, role="modality", services=["verification", "storage"])
    return "version = 1\n\n" + "\n".join(rule.toml() for rule in (*make_rules(count - 1), mine))


def _environment() -> dict[str, str]:
    return clean_environment({"PYTHONPATH": str(ROOT / "src")})


def command(*arguments: str | Path) -> None:
    """Run one command that has to succeed. Raises BenchError with what it said."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, env=_environment()
    )
    if done.returncode:
        said = (done.stdout + done.stderr)[-1500:]
        raise BenchError(f"dicomward {' '.join(map(str, arguments[:3]))} ended with {done.returncode}: {said}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A directory made by `dicomward init`, with one registered device."""

    directory: Path
    port: int
    credentials: Credentials

    @property
    def configuration(self) -> Path:
        return self.directory / "dicomward.toml"


def prepare(
    directory: Path, upstream_port: int, *, rules: int = RULES, limits: str = "", network: str = "127.0.0.0/8"
) -> Site:
    """Make a site in `directory` in front of the archive at `upstream_port`."""
    home, out, port = directory / "site", directory / "device", free_port()
    command("init", home, "--pacs", f"{ARCHIVE_AE_TITLE}@127.0.0.1:{upstream_port}", "--listen", f"127.0.0.1:{port}",
            "--archive-listen", f"127.0.0.1:{free_port()}")  # fmt: skip
    command("device", "add", DEVICE, "--aet", DEVICE_AE_TITLE, "--role", "modality", "--network", network,
            "--key", "ecdsa", "--out", out, "--config", home / "dicomward.toml")  # fmt: skip
    (home / "policy.toml").write_text(policy_text(rules))
    with (home / "dicomward.toml").open("a") as stream:
        stream.write(limits)
    command("check-config", "--config", home / "dicomward.toml")
    credentials = Credentials(key=out / "key.pem", certificate=out / "cert.pem", ca=out / "ca.pem")
    return Site(directory=home, port=port, credentials=credentials)


def add_device(site: Site, name: str, title: str, *, network: str) -> Credentials:
    """Register one more device, of the same role."""
    out = site.directory.parent / name
    command("device", "add", name, "--aet", title, "--role", "modality", "--network", network, "--out", out,
            "--config", site.configuration)  # fmt: skip
    return Credentials(key=out / "key.pem", certificate=out / "cert.pem", ca=out / "ca.pem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A gateway that listens; `start_seconds` is the time from its start to its own word that it does."""

    process: subprocess.Popen[str]
    start_seconds: float


@contextlib.contextmanager
def run(site: Site) -> Iterator[Running]:
    """Run the gateway of a site for the length of the block."""
    log = site.directory.parent / "gateway.log"
    lines: Queue[str | None] = Queue()
    with log.open("ab") as stream:
        began = time.monotonic()
        process = subprocess.Popen(
            [*COMMAND, "gateway", "--config", str(site.configuration)], stdout=subprocess.PIPE, stderr=stream,
            env=_environment(), start_new_session=True, text=True,
        )  # fmt: skip

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while True:
            line = lines.get(timeout=START_SECONDS)
            if line is None:
                raise BenchError(f"the gateway ended: {log.read_text(errors='replace')[-1500:]}")
            if line.startswith("listening on"):
                break
        yield Running(process=process, start_seconds=time.monotonic() - began)
    except BenchError as error:
        state = "runs" if process.poll() is None else f"ended with {process.returncode}"
        raise BenchError(f"{error}\nthe gateway {state}; its log: {log.read_text(errors='replace')[-3000:]}") from error
    except Empty:
        raise BenchError(f"the gateway did not say `listening on` within {START_SECONDS} s") from None
    finally:
        stop(process)
        reader.join()
        if process.stdout:
            process.stdout.close()


@contextlib.contextmanager
def gateway(directory: Path, upstream_port: int, *, limits: str = "") -> Iterator[Door]:
    """Prepare and run a gateway in front of an archive."""
    site = prepare(directory, upstream_port, limits=limits)
    with run(site) as running:
        yield door_of(site, running, limits=limits)


def door_of(site: Site, running: Running, *, limits: str) -> Door:
    """Return the way through a running gateway for the device of the site."""
    found = len(process_tree(running.process.pid))
    return Door(
        name=NAME,
        port=site.port,
        pid=running.process.pid,
        credentials=site.credentials,
        calling_ae_title=DEVICE_AE_TITLE,
        called_ae_title=ARCHIVE_AE_TITLE,
        configuration=f"mutual TLS, registry, policy of {RULES} rules, limits and audit on, {found} process"
        f"{'es' if found > 1 else ''}; {RAISED_NOTES[limits]}",
    )


def processes(door: Door) -> int:
    """Return how many processes serve: haproxy gets as many threads, and never more than there are cores."""
    count = len(process_tree(door.pid)) if door.pid else 1
    return min(count, os.cpu_count() or 1)
