"""Mixed traffic while everything around the gateway fails at random; then what must hold is counted.

    make soak SECONDS=3600

Faults: the archive, the gateway, syslog and the registry's database are killed or taken away; connections to the
archive are cut, delayed and half-closed; the audit log's disk is full; the clock jumps; policy and certificates are
reloaded.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
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
from tests.real.pki import Authority
from tests.real.processes import PeerError, free_port
from tests.real.recording_archive import STUDY_FIND, VERIFICATION
from tests.real.rsyslog import Rsyslog
from tests.real.servers import StoreScp
from tests.real.site import ARCHIVE
from tests.real.test_syslog import send_to

DEVICES = ("ct1", "ct2", "ct3")
CONTEXTS: raw.Contexts = {
    1: (VERIFICATION, [raw.IMPLICIT]),
    3: (CT.sop_class_uid, [CT.transfer_syntax_uid]),
    5: (STUDY_FIND, [raw.IMPLICIT]),
}
PERMITTED = Permitted(
    titles={name.upper() for name in DEVICES}, sop_classes={VERIFICATION, CT.sop_class_uid}, commands={1, 0x30}
)
FAKETIME = next(iter(glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
# In the last part nothing kills the gateway, so that the slope of its memory can be seen.
QUIET_PART = 0.3
SLOPE_MIB = 12.0
DISK_MIB = 400


@dataclass(slots=True)
class Counts:
    """What happened."""

    stored: list[str] = field(default_factory=list)
    failed: int = 0
    echoes: int = 0
    queries_let_through: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """What must hold: every list is empty, every number is in its bounds."""

    stored: int
    failed: int
    echoes: int
    faults: dict[str, int]
    missing: list[str]
    unrecorded: list[str]
    undecided: list[str]
    breaches: list[str]
    queries_let_through: int
    slope_mib: float
    verified: bool
    serves: bool

    @property
    def is_good(self) -> bool:
        """Say if everything held."""
        wrong = [*self.missing, *self.unrecorded, *self.undecided, *self.breaches]
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
        self.tap = stack.enter_context(Tap(PERMITTED))
        self.archive_directory = directory / "archive"
        self.archive_port = free_port()
        self.tap.target = self.archive_port
        self.archive = self._start_archive()
        home = directory / "disk"
        home.mkdir()
        # A disk of its own, which can be filled; only root may mount one.
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=700", "tmpfs", str(home)]
        self.has_disk = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
        if self.has_disk:
            stack.callback(subprocess.run, ["umount", "-l", str(home)], check=False)
        self.gateway = Gateway(home / "gateway", archive=ARCHIVE, archive_port=self.tap.port)
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
        self.gateway.start()
        stack.callback(self.gateway.stop)
        stack.callback(self._stop_archive)

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

    def reload(self) -> None:
        """Reload everything, with a policy that has changed."""
        policy = self.gateway.directory / "policy.toml"
        policy.write_text(policy.read_text("utf-8") + f"\n# {self.random.random()}\n", "utf-8")
        self.gateway.signal(signal.SIGHUP)

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
            "reload": self.reload,
        }
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
                self.counts.memory.append((gone, resident_mib(self.gateway.child.process.pid)))
            self.over.wait(self.random.uniform(0.2, 1.5))
        self.over.set()
        for thread in threads:
            thread.join(timeout=30)
        return self.report()

    def report(self) -> Report:
        """Look at what is left."""
        route = self.routes[DEVICES[0]]
        context = credentials_of(route).client_context()
        serves = any(good_echo(route, context, seconds=10) is not None for _ in range(3))
        self.gateway.stop()
        recorded = {
            str(record.get("sop_instance_uid"))
            for record in self.gateway.audit("--code", "DW-OP-ALLOW")
            if record.get("sop_instance_uid")
        }
        if self.second.exists():
            for line in self.second.read_text("utf-8", "replace").splitlines():
                with contextlib.suppress(ValueError):
                    recorded.add(str(json.loads(line).get("sop_instance_uid")))
        kept = {each.sop_instance_uid: each.data_set for each in self.archive.kept()}
        stored = self.counts.stored
        half = len(self.counts.memory) // 2
        memory = [mib for _, mib in self.counts.memory]
        slope = max(memory[half:], default=0.0) - max(memory[:half], default=0.0) if half else 0.0
        # A gateway that is killed in the middle of a PDU leaves half of it, once for each association that was open.
        cut = "the connection ended inside a PDU"
        return Report(
            stored=len(stored),
            failed=self.counts.failed,
            echoes=self.counts.echoes,
            faults=dict(self.counts.faults),
            missing=[uid for uid in stored if kept.get(uid) != data_set_of(uid)],
            unrecorded=[uid for uid in stored if uid not in recorded],
            undecided=[uid for uid in kept if uid not in recorded],
            breaches=[breach for breach in self.tap.breaches if not breach.startswith(cut)],
            queries_let_through=self.counts.queries_let_through,
            slope_mib=round(slope, 1),
            verified=self.gateway.run("audit", "verify").returncode == 0,
            serves=serves,
        )


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
