"""P7: discovery of 50 DICOM servers among 1,000 addresses with 2 ports each; closed ports, and silently dropped.

python bench/discovery.py [--addresses N]     runs itself in a network namespace of its own (root, or user namespaces)

Ours is the whole command: scope, audit log of every probe, store, one association with each server. nmap, where it is
installed, runs dicom-ping with its defaults, and tuned. Addresses that drop are those behind an interface without ARP.
"""

import argparse
import asyncio  # noqa: TID251  (servers that cost little; docs/adr/0012)
import contextlib
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateRj

INSIDE = "DICOMWARD_BENCH_DISCOVERY"
PORTS = (104, 11112)
SERVERS = 50
TUNED = ("-T5", "--max-retries", "0", "--min-parallelism", "512", "--min-rate", "20000")


def isolate() -> None:
    """Run this program again in a network namespace of its own."""
    command = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    os.environ[INSIDE] = "1"
    os.execvp(command[0], [*command, sys.executable, *sys.argv])


def ip(*words: str) -> None:
    """Change the network of the namespace."""
    subprocess.run(["ip", *words], check=True)


async def serve(addresses: list[str], ready: threading.Event) -> None:
    """Reject every association, which is an answer."""
    answer = encode_pdu(AAssociateRj(result=1, source=1, reason=3))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if await reader.read(65536):
                writer.write(answer)
                await writer.drain()
            writer.close()

    for address in addresses:
        await asyncio.start_server(handle, address, PORTS[1])
    ready.set()
    await asyncio.Event().wait()


def ours(network: str, expected: int) -> tuple[float, int]:
    """Return the seconds of the whole command, and how many servers it found."""
    with tempfile.TemporaryDirectory() as directory:
        scope = Path(directory) / "scope.toml"
        scope.write_text(
            'owner = "bench"\nauthorisation = "own namespace"\ncontact = "bench"\nvalid_from = 2026-01-01\n'
            f"valid_until = 2099-01-01\ndimse_ports = {list(PORTS)}\nweb_ports = []\n"
            f'[[network]]\ncidr = "{network}"\n'
            "[pace]\nhosts_at_once = 1000\nconnections_per_second = 100000\nconnect_timeout = 0.3\nrate_probe = 0\n"
        )
        digest = hashlib.sha256(scope.read_bytes()).hexdigest()
        out = Path(directory) / "out"
        command = [sys.executable, "-m", "dicomward.cli.main", "assess", scope, "--out", out, "--confirm", digest]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.monotonic() - began
    return seconds, expected if f", {expected} servers" in done.stdout else -1


def nmap(network: str, *options: str) -> tuple[float, int]:
    """Return the seconds of nmap's dicom-ping, and how many servers it found."""
    ports = ",".join(map(str, PORTS))
    command = ["nmap", "-n", "-Pn", "-sT", "-p", ports, *options, "--script", "+dicom-ping", network]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.monotonic() - began, done.stdout.count("DICOM Service Provider discovered")


def networks(addresses: int) -> Iterator[tuple[str, str, list[str]]]:
    """Yield what stands for closed and for dropped, with the servers in it."""
    prefix = 32 - (addresses - 1).bit_length()
    step = addresses // SERVERS
    yield "closed", f"127.1.0.0/{prefix}", [str(ip_address("127.1.0.5") + n * step) for n in range(SERVERS)]
    # Without ARP every packet gets the wrong hardware address, and the other end drops it.
    ip("link", "add", "drop0", "type", "veth", "peer", "name", "drop1")
    ip("link", "set", "drop1", "up")
    ip("link", "set", "drop0", "arp", "off", "up")
    ip("addr", "add", "10.200.255.254/9", "dev", "drop0")
    servers = [str(ip_address("10.128.0.5") + n * step) for n in range(SERVERS)]
    for each in servers:
        ip("addr", "add", f"{each}/32", "dev", "lo")
    yield "dropped", f"10.128.0.0/{prefix}", servers


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addresses", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if INSIDE not in os.environ:
        isolate()
    ip("link", "set", "lo", "up")
    for kind, network, servers in networks(arguments.addresses):
        ready = threading.Event()
        threading.Thread(target=lambda at=servers, on=ready: asyncio.run(serve(at, on)), daemon=True).start()
        ready.wait()
        for number in range(arguments.rounds):
            rows = [("dicomward assess", *ours(network, SERVERS))]
            if shutil.which("nmap"):
                rows += [("nmap dicom-ping", *nmap(network)), ("nmap tuned", *nmap(network, *TUNED))]
            for name, seconds, found in rows:
                print(f"{kind:8} {network:16} round {number + 1}  {name:17} {seconds:7.2f} s  {found} of {SERVERS}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"peak memory of a child: {peak / 1024:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
