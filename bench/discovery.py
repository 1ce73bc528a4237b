"""P7: discovery of 50 DICOM servers among 1,000 addresses with 2 ports each; closed ports, and silently dropped.

Ours is the whole command: scope, audit log of every probe, store, one association with each server and what it says of
its AE titles. nmap runs dicom-ping with its defaults, and tuned. Five more servers speak TLS only: nmap's script knows
nothing of them. What is dropped is dropped by nftables; it needs a network namespace of its own.
"""

import asyncio  # noqa: TID251  (servers that cost little; docs/adr/0012)
import contextlib
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.measure import BenchError
from bench.pki import Pki
from bench.plan import Bench
from bench.report import Section, say
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateRj

ROOT = Path(__file__).resolve().parent.parent
ADDRESSES = 1000
PORTS = (104, 11112)
SERVERS = 50
TLS_SERVERS = 5
TUNED = ("-T5", "--max-retries", "0", "--min-parallelism", "512", "--min-rate", "20000")
# What -T5 begins with; the rest of the pace is that of a scan, not of a clinic.
PACE = "[pace]\nhosts_at_once = 1024\nconnections_per_second = 100000\nconnect_timeout = 0.25\nrate_probe = 0\n"
REJECT = encode_pdu(AAssociateRj(result=1, source=1, reason=3))


class Run(NamedTuple):
    """One run of a program: seconds, what it printed, CPU seconds, and its largest size in MiB."""

    seconds: float
    output: str
    cpu: float
    mebibytes: int


def p7(bench: Bench) -> None:
    """Measure both kinds of networks, in turns."""
    if not bench.isolated:
        raise BenchError("addresses can be dropped only in a network namespace of its own (run it as root)")
    if shutil.which("nmap") is None or shutil.which("nft") is None:
        raise BenchError("nmap and nftables are needed: make setup-rivals")
    section = Section(
        target="P7",
        title=f"{SERVERS} DICOM servers among {ADDRESSES:,} addresses with {len(PORTS)} ports each",
        columns=("network", "way", "seconds", "found", "CPU s"),
    )
    for kind, first in (("closed", ip_address("127.1.0.0")), ("dropped", ip_address("127.2.0.0"))):
        with _network(kind, first, bench.pki) as network:
            _measure(section, kind, network, 3 if bench.plan.quick else 7)
    few, many = (_assess(f"127.128.0.0/{prefix}", PORTS[:1]) for prefix in (22, 18 if bench.plan.quick else 15))
    section.notes.append(
        f"Memory: {few.mebibytes} MiB for 1,022 addresses, {many.mebibytes} MiB for "
        f"{16_382 if bench.plan.quick else 131_070:,}, which took {many.seconds:.0f} s."
    )
    section.notes.append(
        f"Ours finds {TLS_SERVERS} more, which speak TLS only, and says of each one whether it checks AE titles; "
        "nmap's dicom-ping does neither."
    )
    bench.add(section)


def _measure(section: Section, kind: str, network: str, rounds: int) -> None:
    ways = {
        "dicomward assess": lambda: ours(network),
        "nmap dicom-ping": lambda: nmap(network),
        "nmap dicom-ping, tuned": lambda: nmap(network, *TUNED),
    }
    # Once before it counts: Python keeps what it has compiled, as an installation has.
    ours(network)
    taken: dict[str, list[tuple[float, int, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    seconds = {}
    for name, runs in taken.items():
        times = [each for each, _, _ in runs]
        seconds[name] = median(times)
        section.samples[f"{kind}: {name}"] = times
        found, cpu = min(each for _, each, _ in runs), median(each for _, _, each in runs)
        section.lines.append((kind, name, f"{seconds[name]:.2f}", str(found), f"{cpu:.2f}"))
    ours_found = min(found for _, found, _ in taken["dicomward assess"])
    default, tuned = (seconds[name] / seconds["dicomward assess"] for name in list(ways)[1:])
    wanted = 1.3 if kind == "closed" else 10
    section.require(f"{kind}: ≥ {wanted} times as fast as nmap's default", f"{default:.2f} times", default >= wanted)
    section.require(f"{kind}: ≥ 1.0 times as fast as nmap tuned", f"{tuned:.2f} times", tuned >= 1.0)
    every = SERVERS + TLS_SERVERS
    section.require(f"{kind}: all {every} found, with TLS and AE titles", f"{ours_found}", ours_found == every)
    say(f"P7 {kind}: {default:.2f} times nmap, {tuned:.2f} times tuned")


@contextmanager
def _network(kind: str, first: IPv4Address, pki: Pki) -> Iterator[str]:
    """Serve, drop what is to be dropped, and yield the network."""
    step = ADDRESSES // SERVERS
    plain = [str(first + 5 + number * step) for number in range(SERVERS)]
    in_tls = [str(first + 9 + number * step) for number in range(TLS_SERVERS)]
    network = f"{first}/{32 - (ADDRESSES - 1).bit_length()}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server_certificate, pki.server_key)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(_serve(plain, in_tls, context, ready, stop)))
    thread.start()
    ready.wait()
    try:
        if kind == "dropped":
            _nft("add table inet bench_discovery")
            _nft("add chain inet bench_discovery in { type filter hook input priority 0; }")
            _nft(f"add rule inet bench_discovery in ip daddr {{ {', '.join(plain + in_tls)} }} accept")
            _nft(f"add rule inet bench_discovery in ip daddr {network} drop")
        yield network
    finally:
        if kind == "dropped":
            subprocess.run(["nft", "delete table inet bench_discovery"], check=False)
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _nft(rule: str) -> None:
    subprocess.run(["nft", rule], check=True)


async def _serve(
    plain: Sequence[str], in_tls: Sequence[str], context: ssl.SSLContext, ready: threading.Event, stop: asyncio.Event
) -> None:
    """Reject every association, because the calling AE title is not known: an answer, and a policy."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if await reader.read(65536):
                writer.write(REJECT)
                await writer.drain()
            writer.close()

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    servers = [await asyncio.start_server(handle, each, PORTS[1]) for each in plain]
    servers += [await asyncio.start_server(handle, each, PORTS[0], ssl=context) for each in in_tls]
    ready.set()
    await stop.wait()
    for each in servers:
        each.close()


def ours(network: str) -> tuple[float, int, float]:
    """Return the seconds of the whole command, how many servers it found and judged, and its CPU seconds."""
    run = _assess(network, PORTS)
    return run.seconds, sum(_is_judged(each) for each in json.loads(run.output)["servers"]), run.cpu


def _assess(network: str, ports: Sequence[int]) -> Run:
    with tempfile.TemporaryDirectory(prefix="dicomward-bench-") as place:
        directory = Path(place)
        scope = directory / "scope.toml"
        scope.write_text(
            'owner = "bench"\nauthorisation = "own namespace"\ncontact = "bench"\nvalid_from = 2026-01-01\n'
            f"valid_until = 2099-01-01\ndimse_ports = {list(ports)}\nweb_ports = []\n"
            f'[[network]]\ncidr = "{network}"\n{PACE}'
        )
        digest = hashlib.sha256(scope.read_bytes()).hexdigest()
        command = [sys.executable, "-m", "dicomward.cli.main", "assess", scope, "--out", directory / "out"]
        return _timed([*command, "--confirm", digest, "--json"])


def _is_judged(server: dict[str, Any]) -> bool:
    """Say if it was found, with its policy for AE titles; one in TLS with its TLS too."""
    verdicts = {each["control"]: each["verdict"] for each in server["controls"]}
    is_tls = server["protocol"] == "dimse-tls"
    return verdicts.get("calling-ae-title") == "PASS" and (not is_tls or bool(server["tls"]["version"]))


def nmap(network: str, *options: str) -> tuple[float, int, float]:
    """Return the seconds of nmap's dicom-ping, how many servers it found, and its CPU seconds."""
    ports = ",".join(map(str, PORTS))
    command = ["nmap", "-n", "-Pn", "-sT", "-p", ports, *options, "--script", "+dicom-ping", network]
    run = _timed(command)
    return run.seconds, run.output.count("DICOM Service Provider discovered"), run.cpu


def _timed(command: Sequence[str | Path]) -> Run:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "dicomward-bench-pycache")
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, env=environment)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise BenchError(f"{command[0]} ended with {child.returncode}")
        output.seek(0)
        text = output.read()
    return Run(seconds, text, used.ru_utime + used.ru_stime, used.ru_maxrss // 1024)
