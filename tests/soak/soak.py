"""Mixed traffic while everything around the gateway fails at random; then what must hold is counted.

    make soak SECONDS=3600

Faults: the archive, the gateway, syslog and the registry's database are killed or taken away; connections to the
archive are cut, delayed and half-closed, their packets lost and in disorder; devices reset in the middle of an object;
the audit log's disk is full; the clock jumps; the policy, the gateway's certificates and a device's are exchanged.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from tests.abuse.hold import CT
from tests.abuse.memory import resident_mib
from tests.abuse.run import good_echo
from tests.abuse.tap import Permitted, Tap
from tests.real import raw_peer as raw
from tests.real.clients import Route
from tests.real.gateway import Gateway
from tests.real.hospital import credentials_of
from tests.real.pki import Authority, Credentials
from tests.real.processes import LOOPBACK, PeerError, free_port
from tests.real.recording_archive import STUDY_FIND, VERIFICATION
from tests.real.rsyslog import Rsyslog
from tests.real.samples import read_sample
from tests.real.servers import StoreScp
from tests.real.site import ARCHIVE
from tests.real.test_syslog import send_to
from tests.soak.disorder import OTHER_SIDE, OUR_SIDE, Disorder, is_possible

DEVICES = ("ct1", "ct2", "ct3")
CONTEXTS: raw.Contexts = {
    1: (VERIFICATION, [raw.IMPLICIT]),
    3: (CT.sop_class_uid, [CT.transfer_syntax_uid]),
    5: (STUDY_FIND, [raw.IMPLICIT]),
}
PERMITTED = Permitted(
    titles={*(name.upper() for name in DEVICES), "VISITOR"},
    sop_classes={VERIFICATION, CT.sop_class_uid},
    commands={1, 0x30},
)
FAKETIME = next(iter(glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
# In the last part nothing kills the gateway, so that the slope of its memory can be seen.
QUIET_PART = 0.3
SLOPE_MIB = 12.0
DISK_MIB = 800
# Every so many objects, a device resets its connection in the middle of one.
TORN = 97
# What visitors may by one policy, and by the other.
VISITORS_ECHO, VISITORS_ASK = (
    f'\n[[rule]]\nid = "visitors"\neffect = "allow"\nrole = ["visitor"]\noperation = ["{operation}"]\n'
    for operation in ("c-echo", "c-find")
)
# What is reloaded is in force after this.
RELOAD_SECONDS = 20.0
# An hour's log is long.
READ_SECONDS = 900.0


@dataclass(slots=True)
class Counts:
    """What happened."""

    stored: list[str] = field(default_factory=list)
    failed: int = 0
    echoes: int = 0
    torn: int = 0
    queries_let_through: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)
    # What was not in force after a reload, or what was still in force.
    stale: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """What must hold: every list is empty, every number is in its bounds."""

    stored: int
    failed: int
    torn: int
    echoes: int
    records: int
    faults: dict[str, int]
    disorder: str
    missing: list[str]
    unrecorded: list[str]
    undecided: list[str]
    breaches: list[str]
    stale: list[str]
    queries_let_through: int
    memory_mib: tuple[float, float, float]
    slope_mib: float
    verified: bool
    serves: bool

    @property
    def is_good(self) -> bool:
        """Say if everything held."""
        wrong = [*self.missing, *self.unrecorded, *self.undecided, *self.breaches, *self.stale]
        return (
            not wrong
            and not self.queries_let_through
            and self.slope_mib <= SLOPE_MIB
            and self.verified
            and self.serves
            and self.stored > 0
        )


class Soak:
    """One run."""

    def __init__(self, directory: Path, stack: ExitStack, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.counts = Counts()
        self.over = threading.Event()
        self.disorder = stack.enter_context(Disorder(seed)) if is_possible() else None
        near, far = (LOOPBACK, LOOPBACK) if self.disorder is None else (OUR_SIDE, OTHER_SIDE)
        link = [] if self.disorder is None else ["--dedicated-link"]
        self.tap = stack.enter_context(Tap(PERMITTED, address=near))
        self.archive_directory = directory / "archive"
        self.archive_port = free_port()
        self.tap.target = self.archive_port
        self.archive = self._start_archive()
        stack.callback(self._stop_archive)
        home = directory / "disk"
        home.mkdir()
        # A disk of its own, which can be filled; only root may mount one.
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "tmpfs", str(home)]
        self.has_disk = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
        if self.has_disk:
            stack.callback(subprocess.run, ["umount", "-l", str(home)], check=False)
        self.gateway = Gateway(
            home / "gateway", archive=ARCHIVE, archive_port=self.tap.port, archive_host=far, options=link
        )
        policy = self.gateway.directory / "policy.toml"
        self.policy = policy.read_text("utf-8")
        policy.write_text(self.policy + VISITORS_ECHO, "utf-8")
        self.visitor = self.gateway.route(self.gateway.add_device("visitor", "VISITOR", role="visitor"), "VISITOR")
        self.second = directory / "second.jsonl"
        self.gateway.configure("audit", second_sink=str(self.second))
        authority = Authority("Audit CA", directory / "pki")
        self.rsyslog = Rsyslog(directory / "rsyslog", authority.issue("receiver", key="rsa"))
        self.rsyslog.start()
        stack.callback(self.rsyslog.stop)
        send_to(self.gateway, self.rsyslog, authority.issue("sender"))
        self.offset = directory / "offset"
        self.offset.write_text("+0")
        if FAKETIME is not None:
            self.gateway.environment = {
                "LD_PRELOAD": FAKETIME,
                "FAKETIME_TIMESTAMP_FILE": str(self.offset),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        self.routes: dict[str, Route] = {}
        for name in DEVICES:
            credentials = self.gateway.add_device(name, name.upper(), role="modality")
            self.routes[name] = self.gateway.route(credentials, name.upper())
        stack.callback(self.gateway.stop)
        self.gateway.start()

    def _stop_archive(self) -> None:
        self.archive.stop()

    def _start_archive(self) -> StoreScp:
        return StoreScp(ARCHIVE, self.archive_directory, port=self.archive_port)

    # -- traffic ---------------------------------------------------------------------------------------------------

    def device(self, name: str, number: int) -> None:
        """Store, echo and ask for what is not permitted, association after association, whatever happens."""
        serial = 0
        while not self.over.is_set():
            try:
                with raw.connect(self.routes[name]) as peer:
                    peer.socket.settimeout(15)
                    peer.send(raw.request_on(self.routes[name], CONTEXTS))
                    results = raw.results_of(peer.expect(raw.ASSOCIATE_AC))
                    if results[2:3] == [0]:
                        self.counts.queries_let_through += 1
                    for _ in range(5):
                        serial += 1
                        self._store(peer, f"1.2.826.0.1.3680043.10.543.{number}.1{serial:06}", serial)
                    peer.send(raw.echo_rq(1, 60001))
                    self.counts.echoes += peer.message()[raw.STATUS] == 0
                    peer.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
                    peer.expect(raw.RELEASE_RP)
            except (OSError, AssertionError, KeyError):
                self.counts.failed += 1
                self.over.wait(0.2)
            self.over.wait(0.05)

    def _store(self, peer: raw.Connection, uid: str, message_id: int) -> None:
        values: dict[int, raw.Value] = {
            raw.AFFECTED_SOP_CLASS_UID: CT.sop_class_uid,
            raw.COMMAND_FIELD: raw.C_STORE,
            raw.MESSAGE_ID: message_id % 60000 + 1,
            raw.PRIORITY: 0,
            raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
            raw.AFFECTED_SOP_INSTANCE_UID: uid,
        }
        peer.send(raw.command(3, values))
        data = data_set_of(uid)
        if message_id % TORN == 0:
            peer.send(raw.p_data(3, data[:9000], command=False, last=False))
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.counts.torn += 1
            raise ConnectionResetError("this device tears its object")
        for at in range(0, len(data), 16000):
            peer.send(raw.p_data(3, data[at : at + 16000], command=False, last=at + 16000 >= len(data)))
        if peer.message()[raw.STATUS] == 0:
            self.counts.stored.append(uid)
        else:
            self.counts.failed += 1

    # -- faults ----------------------------------------------------------------------------------------------------

    def kill_archive(self) -> None:
        """Kill it and start it again."""
        self.archive.child.process.send_signal(signal.SIGKILL)
        self.archive.stop()
        self.over.wait(0.3)
        self.archive = self._start_archive()

    def kill_gateway(self) -> None:
        """Kill it and start it again."""
        self.gateway.signal(signal.SIGKILL)
        self.gateway.stop()
        self.gateway.start()

    def kill_syslog(self) -> None:
        """Stop the receiver for a moment."""
        self.rsyslog.stop()
        self.over.wait(1.0)
        self.rsyslog.start()

    def take_database(self) -> None:
        """Take the registry's database away for a moment."""
        database = self.gateway.directory / "registry.db"
        away = database.with_name("away.db")
        database.rename(away)
        self.over.wait(1.0)
        away.rename(database)

    def fill_disk(self) -> None:
        """Fill the disk of the log for a moment."""
        filler = self.gateway.directory / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        self.over.wait(2.0)
        filler.unlink()

    def jump(self) -> None:
        """Let the clock of the gateway jump an hour ahead, and back."""
        self.offset.write_text("+3600")
        self.over.wait(1.0)
        self.offset.write_text("+0")

    def delay(self) -> None:
        """Hold back what goes to the archive."""
        self.tap.delay = 0.2
        self.over.wait(1.0)
        self.tap.delay = 0.0

    def reorder(self) -> None:
        """Lose and delay packets to and from the archive, and let them overtake each other."""
        assert self.disorder is not None
        self.disorder.share = 0.1
        self.over.wait(2.0)
        self.disorder.share = 0.0

    def change_policy(self) -> None:
        """Let visitors in, or no more: what the reload has brought is in force, also for the devices that go on."""
        path = self.gateway.directory / "policy.toml"
        is_open = path.read_text("utf-8").endswith(VISITORS_ECHO)
        path.write_text(self.policy + (VISITORS_ASK if is_open else VISITORS_ECHO), "utf-8")
        self.gateway.signal(signal.SIGHUP)
        context = credentials_of(self.visitor).client_context()
        self._expect(
            "visitors are let in" if is_open else "visitors are kept out",
            lambda: (good_echo(self.visitor, context) is None) is is_open,
        )

    def change_certificates(self) -> None:
        """Exchange the gateway's certificates: whoever connects is shown the new ones."""
        before = self._shown()
        self.gateway.must("renew-gateway")
        self.gateway.signal(signal.SIGHUP)
        self._expect("the old certificate is shown", lambda: self._shown() not in {before, None})

    def change_device(self) -> None:
        """Give a device another key and certificate in the middle of its work; the old one lets nobody in any more."""
        name = self.random.choice(DEVICES)
        old = self.routes[name]
        out = self.directory / f"{name}-{self.counts.faults['certificate of a device changed']}"
        self.gateway.must("device", "renew", name, "--out", out, "--revoke-old")
        new = Credentials(key=out / "key.pem", certificate=out / "cert.pem", authority=out / "ca.pem")
        self.routes[name] = self.gateway.route(new, name.upper())
        context = credentials_of(old).client_context()
        self._expect(f"{name}'s revoked certificate lets in", lambda: good_echo(old, context) is None)

    def _shown(self) -> bytes | None:
        """Return the certificate that the gateway shows, None if it shows none just now."""
        context = credentials_of(self.routes[DEVICES[0]]).client_context()
        try:
            plain = socket.create_connection((LOOPBACK, self.gateway.port), timeout=5)
            with context.wrap_socket(plain, server_hostname="localhost") as secure:
                return secure.getpeercert(binary_form=True)
        except (OSError, ssl.SSLError):
            return None

    def _expect(self, otherwise: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + RELOAD_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                self.counts.stale.append(otherwise)
                return
            self.over.wait(0.2)

    def faults(self) -> dict[str, Callable[[], None]]:
        """Return those that this machine allows."""
        found: dict[str, Callable[[], None]] = {
            "archive killed": self.kill_archive,
            "gateway killed": self.kill_gateway,
            "syslog stopped": self.kill_syslog,
            "database away": self.take_database,
            "connections cut": self.tap.cut,
            "connections half-closed": lambda: self.tap.cut(1),
            "connections delayed": self.delay,
            "policy changed": self.change_policy,
            "certificates of the gateway changed": self.change_certificates,
            "certificate of a device changed": self.change_device,
        }
        if self.disorder is not None:
            found["packets in disorder"] = self.reorder
        if self.has_disk:
            found["disk full"] = self.fill_disk
        if FAKETIME is not None:
            found["clock jumps"] = self.jump
        return found

    def run(self, seconds: float) -> Report:
        """Run for so long."""
        threads = [
            threading.Thread(target=self.device, args=(name, number), daemon=True)
            for number, name in enumerate(DEVICES, 1)
        ]
        for thread in threads:
            thread.start()
        started = time.monotonic()
        faults = self.faults()
        waiting: list[str] = []
        while (gone := time.monotonic() - started) < seconds:
            quiet = gone > seconds * (1 - QUIET_PART)
            if not waiting:
                # Each of them once, in another order each time.
                waiting = self.random.sample(sorted(faults), len(faults))
            name = waiting.pop()
            if not (quiet and name == "gateway killed"):
                faults[name]()
                self.counts.faults[name] += 1
            if quiet:
                self.counts.memory.append(resident_mib(self.gateway.child.process.pid))
            self.over.wait(self.random.uniform(0.2, 1.5))
        self.over.set()
        for thread in threads:
            thread.join(timeout=30)
        return self.report()

    def _kept(self) -> Iterator[tuple[str, bytes]]:
        """Yield what the archive has, a digest of each: an hour's objects are more than memory should hold."""
        for path in self.archive_directory.rglob("*"):
            if path.is_file() and (found := read_sample(path)) is not None:
                yield found.sop_instance_uid, _digest(found.data_set)

    def report(self) -> Report:
        """Look at what is left."""
        route = self.routes[DEVICES[0]]
        context = credentials_of(route).client_context()
        serves = any(good_echo(route, context, seconds=10) is not None for _ in range(3))
        self.gateway.stop()
        found = self.gateway.run("audit", "search", "--json", "--code", "DW-OP-ALLOW", seconds=READ_SECONDS)
        recorded = {str(json.loads(line).get("sop_instance_uid")) for line in found.stdout.splitlines()} - {"None"}
        if self.second.exists():
            for line in self.second.read_text("utf-8", "replace").splitlines():
                with contextlib.suppress(ValueError):
                    recorded.add(str(json.loads(line).get("sop_instance_uid")))
        kept = dict(self._kept())
        stored = self.counts.stored
        memory = self.counts.memory or [0.0]
        half = len(memory) // 2
        slope = max(memory[half:]) - max(memory[:half]) if half else 0.0
        disorder = self.disorder
        # A gateway that is killed in the middle of a PDU leaves half of it, once for each association that was open.
        cut = "the connection ended inside a PDU"
        return Report(
            stored=len(stored),
            failed=self.counts.failed,
            torn=self.counts.torn,
            echoes=self.counts.echoes,
            records=len(recorded),
            faults=dict(self.counts.faults),
            disorder="" if disorder is None else f"{disorder.late} late, {disorder.twice} twice, {disorder.lost} lost",
            missing=[uid for uid in stored if kept.get(uid) != _digest(data_set_of(uid))],
            unrecorded=[uid for uid in stored if uid not in recorded],
            undecided=[uid for uid in kept if uid not in recorded],
            breaches=[breach for breach in self.tap.breaches if not breach.startswith(cut)],
            stale=self.counts.stale,
            queries_let_through=self.counts.queries_let_through,
            memory_mib=(round(memory[0], 1), round(max(memory), 1), round(memory[-1], 1)),
            slope_mib=round(slope, 1),
            verified=self.gateway.run("audit", "verify", seconds=READ_SECONDS).returncode == 0,
            serves=serves,
        )


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def data_set_of(uid: str) -> bytes:
    """Return the sample with another SOP Instance UID of the same length."""
    length = len(CT.sop_instance_uid) + len(CT.sop_instance_uid) % 2
    return CT.data_set.replace(CT.sop_instance_uid.encode().ljust(length, b"\0"), uid.encode().ljust(length, b"\0"))


def soak(directory: Path, seconds: float, seed: int = 1) -> Report:
    """Run for so many seconds."""
    with ExitStack() as stack:
        return Soak(directory, stack, seed).run(seconds)


def main() -> int:
    """Run, print the report, and say if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            report = soak(Path(temporary), options.seconds, options.seed)
        except PeerError as error:
            print(error, file=sys.stderr)
            return 1
    print(report)
    print("everything held" if report.is_good else "something did not hold")
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
