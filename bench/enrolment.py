"""Enrolments a second against SQLite, with a server that is killed and started again in between.

python bench/enrolment.py [--devices 2000] [--kills 2], or bench/run.py enrolment

Invites devices, enrols them all through EST over TLS from client processes, kills the server with SIGKILL in
between, and at the end holds the database against what the clients were given: none lost, no serial twice.
"""

import argparse
import base64
import json
import multiprocessing
import os
import resource
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dicomward.enrolment.est import decode_certificates
from dicomward.enrolment.grant import Grant
from dicomward.io.ca.directory import make_ca_directory
from dicomward.io.ca.local import load_certificates
from dicomward.io.ca.sign import der_of
from dicomward.io.enrolment.inviting import Wish, invite
from dicomward.io.enrolment.key import load_enrolment_key
from dicomward.io.registry.store import RegistryStore
from dicomward.settings import load_settings

if TYPE_CHECKING:
    from bench.plan import Bench

COMMAND = [sys.executable, "-m", "dicomward.cli.main"]
CLIENTS = 16
WANTED = 100


def make_place(directory: Path, devices: int) -> tuple[Path, int, list[tuple[str, str]]]:
    """Return the settings file, the port, and name and code of each device."""
    gateway = directory / "gateway"
    subprocess.run([*COMMAND, "init", gateway, "--pacs", "PACS@127.0.0.1:4242"], check=True, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = gateway / "dicomward.toml"
    path.write_text(path.read_text().replace("127.0.0.1:8443", f"127.0.0.1:{port}"))
    settings = load_settings(path)
    now = datetime.now(UTC)  # noqa: TID251
    anchors = load_certificates(settings.tls.client_ca)
    ca = make_ca_directory(
        settings.enrolment.ca, name="Bench", passphrase=b"bench", now=now - timedelta(days=1), more_anchors=anchors
    )
    wishes = [
        Wish(
            grant=Grant(
                device=f"dev{number}",
                ae_titles=(f"DEV{number}",),
                role="modality",
                networks=("127.0.0.0/8",),
                life=timedelta(days=90),
            ),
            expires_at=now + timedelta(hours=2),
        )
        for number in range(devices)
    ]
    key = load_enrolment_key(settings.enrolment.key, create=True)
    with RegistryStore.open(settings.registry.url) as store:
        handed = invite(store, wishes, by="bench", now=now, key=key, root=der_of(ca.root))
    return path, port, [(each.invitation.grant.device, each.code.text) for each in handed]


def start(path: Path, port: int, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        server = subprocess.Popen([*COMMAND, "enrolment", "serve", "--config", path], stderr=output)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server
        except OSError:
            if server.poll() is not None:
                raise SystemExit(log.read_text()) from None
            time.sleep(0.02)


def ask(context: ssl.SSLContext, port: int, name: str, code: str, body: bytes, *, repeats: bool) -> bytes:
    connection = HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
    try:
        basic = base64.b64encode(f"{name}:{code}".encode()).decode()
        fields = {"Authorization": f"Basic {basic}", "Content-Type": "application/pkcs10"}
        if repeats:
            fields["Dicomward-Repeat"] = "yes"
        connection.request("POST", "/.well-known/est/simpleenroll", body, fields)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status in (429, 503):
            raise ConnectionError(data.decode())
        if answer.status != 200:
            raise SystemExit(f"{name}: {answer.status} {data.decode()}")
        return decode_certificates(data)[0]
    finally:
        connection.close()


def client(port: int, root: Path, work: list[tuple[str, str]], results: Path) -> None:
    """Enrol one device after the other; after a lost answer ask again with the same key."""
    context = ssl.create_default_context(cafile=str(root))
    given = {}
    # Keys are the devices' own work: made before the clock counts them.
    for name, code in work:
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        body = base64.b64encode(request.public_bytes(serialization.Encoding.DER))
        repeats = False
        while True:
            try:
                certificate = ask(context, port, name, code, body, repeats=repeats)
                break
            except (OSError, HTTPException):
                repeats = True
                time.sleep(0.05)
        given[name] = f"{x509.load_der_x509_certificate(certificate).serial_number:x}"
    results.write_text(json.dumps(given))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run: how long, and what the database has against what the clients were given."""

    devices: int
    seconds: float
    down_seconds: float
    server_cpu_seconds: float
    client_cpu_seconds: float
    issued: int
    bound: int
    lost: int
    wrong: int
    twice: int

    @property
    def a_second(self) -> float:
        return self.devices / (self.seconds - self.down_seconds)

    @property
    def is_whole(self) -> bool:
        return not (self.lost or self.wrong or self.twice) and self.bound == self.devices


def measure(directory: Path, devices: int, kills: int) -> Measured:
    """Enrol so many devices; the server is killed so often in between."""
    path, port, invited = make_place(directory, devices)
    settings = load_settings(path)
    root = settings.enrolment.ca / "root.cert.pem"
    server = start(path, port, directory / "log")
    began = time.monotonic()
    clients = []
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    for number in range(CLIENTS):
        arguments = (port, root, invited[number::CLIENTS], directory / f"given-{number}.json")
        clients.append(multiprocessing.Process(target=client, args=arguments))
        clients[-1].start()
    down = cpu = 0.0
    for kill in range(kills):
        while _issued(settings.registry.url) < devices * (kill + 1) // (kills + 1):
            time.sleep(0.02)
        at = time.monotonic()
        os.kill(server.pid, signal.SIGKILL)
        cpu += _end(server)
        server = start(path, port, directory / "log")
        down += time.monotonic() - at
    for each in clients:
        each.join()
    seconds = time.monotonic() - began
    server.terminate()
    cpu += _end(server)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    given: dict[str, str] = {}
    for number in range(CLIENTS):
        given |= json.loads((directory / f"given-{number}.json").read_text())
    with closing(sqlite3.connect(settings.directory / "registry.db")) as database:
        rows = database.execute("SELECT device, serial FROM issued_certificates").fetchall()
        bound = database.execute("SELECT count(*) FROM devices").fetchone()[0]
    known = set(rows)
    return Measured(
        devices=devices,
        seconds=seconds,
        down_seconds=down,
        server_cpu_seconds=cpu,
        client_cpu_seconds=after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime - cpu,
        issued=len(rows),
        bound=bound,
        lost=sum(name not in given for name, _code in invited),
        wrong=sum(each not in known for each in given.items()),
        twice=len(rows) - len({serial for _device, serial in rows}),
    )


def enrolment(bench: "Bench") -> None:
    """Run it as a target of bench/run.py."""
    from bench.report import Section

    devices, kills = bench.plan.enrolments, bench.plan.enrolment_kills
    found = measure(bench.subdirectory("enrolment"), devices, kills)
    section = Section(
        target="enrolment",
        title="one-time codes, EST over TLS, SQLite",
        columns=("devices", "killed", "a second", "server CPU each", "clients' CPU each", "lost", "serials twice"),
    )
    section.lines.append(
        (
            str(devices),
            str(kills),
            f"{found.a_second:.0f}",
            f"{1000 * found.server_cpu_seconds / devices:.1f} ms",
            f"{1000 * found.client_cpu_seconds / devices:.1f} ms",
            str(found.lost + found.wrong),
            str(found.twice),
        )
    )
    section.notes.append("Server and clients share the machine. The time in which the server is down does not count.")
    section.samples["seconds"] = [found.seconds, found.down_seconds]
    section.require("at least 100 enrolments a second", f"{found.a_second:.0f}", found.a_second >= WANTED)
    section.require("none lost, no serial twice, all bound", f"{found.bound} bound", found.is_whole)
    bench.add(section)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicomward-bench-") as temporary:
        found = measure(Path(temporary), options.devices, options.kills)
    print(
        f"{found.devices} devices in {found.seconds:.1f} s, {found.down_seconds:.1f} s of it down "
        f"after {options.kills} kills"
    )
    print(f"{found.a_second:.0f} enrolments a second while the server ran; {os.cpu_count()} cores")
    print(
        f"{1000 * found.server_cpu_seconds / found.devices:.1f} ms of CPU for each in the server, its starts included; "
        f"{1000 * found.client_cpu_seconds / found.devices:.1f} ms in the clients"
    )
    print(
        f"issued {found.issued}, bound {found.bound}, lost {found.lost}, wrong {found.wrong}, "
        f"serials twice {found.twice}"
    )
    return 0 if found.is_whole else 1


def _end(server: "subprocess.Popen[bytes]") -> float:
    """Wait for the end; return the seconds of CPU that it took."""
    _pid, status, usage = os.wait4(server.pid, 0)
    server.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _issued(url: str) -> int:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        return int(database.execute("SELECT count(*) FROM issued_certificates").fetchone()[0])


if __name__ == "__main__":
    sys.exit(main())
