"""P6: 200 CT slices over a line of 100 ms round trip, by an edge agent and by storescu itself.

    python bench/run.py [--quick] p6

Everyone sends over the same line (tests/real/long_line.py): TUN devices in two network namespaces, real TCP, each
packet 50 ms late each way, once without loss and once with 0.1 % of the packets lost. Everything is counted until the
archive (DCMTK's storescp) has the last file; the agent's spool and the archive write to the disk. The agent chooses BBR
for its own connections where the kernel has it. The rivals have it here too, as the namespace's own: without it they
take minutes, and this is no comparison of congestion controls.
"""

import os
import random
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pydicom
from pydicom.uid import generate_uid
from tests.real.edge import Edge
from tests.real.gateway import Gateway
from tests.real.hospital import TESTER
from tests.real.long_line import LongLine, LongLineError
from tests.real.processes import LOOPBACK, Child, free_port
from tests.real.samples import sample
from tests.real.site import ARCHIVE

from bench.measure import BenchError
from bench.report import Section, say

if TYPE_CHECKING:
    from bench.plan import Bench

SPOOL = '\n[spool]\ndirectory = "spool"\nkey = "../spool-key"\nfree_bytes = 0\n'
DELAY_SECONDS = 0.05
LOSSES = (0.0, 0.001)
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
RIVALS = (("stock", False, 1, 25.0), ("tuned", True, 1, 12.0), ("8 parallel tuned", True, 8, 1.8))


def make_slices(directory: Path, count: int) -> list[Path]:
    """Write slices of 512 x 512 pixels, 16 bits: 525 KiB each."""
    directory.mkdir()
    image = pydicom.dcmread(sample("CT_small.dcm").path)
    image.Rows = image.Columns = 512
    image.PixelData = random.Random(1).randbytes(512 * 512 * 2)
    paths = []
    for number in range(count):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        path = directory / f"{number:04}.dcm"
        image.save_as(path)
        paths.append(path)
    return paths


def store(host: str, port: int, paths: list[Path], *, tuned: bool, jobs: int = 1) -> float:
    """Send with storescu, in so many processes; return the seconds."""
    began = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    if tuned:
        environment["TCP_NODELAY"] = "1"
    options = ["--max-pdu", "131072", "--max-send-pdu", "131072"] if tuned else []
    command = ["storescu", *options, "-aet", "CT1", "-aec", ARCHIVE, host, str(port)]
    running = [
        subprocess.Popen([*command, *paths[number::jobs]], env=environment, stdout=subprocess.DEVNULL)
        for number in range(jobs)
    ]
    codes = [each.wait() for each in running]
    if any(codes):
        raise BenchError("storescu failed")
    return time.monotonic() - began


class Archive:
    """DCMTK's storescp."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.port = free_port()
        options = ["--fork", "-aet", ARCHIVE, "+uf", "--max-pdu", "131072", "-od", directory]
        self.child = Child("storescp", ["storescp", *options, str(self.port)], directory.with_suffix(".log"))
        self.child.wait_until_listening(self.port)

    def wait_for(self, count: int) -> None:
        """Wait until so many files are there, and empty the directory."""
        deadline = time.monotonic() + 900
        while len(list(self.directory.iterdir())) < count:
            if time.monotonic() > deadline:
                raise BenchError("the archive does not get everything")
            time.sleep(0.01)
        for path in self.directory.iterdir():
            path.unlink()


class Place:
    """The archive, the gateway, the agent, and a line of that loss to all of them."""

    def __init__(self, root: Path, loss: float, stack: ExitStack) -> None:
        self.archive = Archive(root / "archive")
        stack.callback(self.archive.child.stop)
        gateway = Gateway(root / "gateway", archive=ARCHIVE, archive_port=self.archive.port)
        gateway.permit_everything_to(TESTER)
        gateway.start()
        stack.callback(gateway.stop)
        credentials = gateway.add_device("ct1", "CT1", role=TESTER)
        try:
            self.line = LongLine(self.archive.port, gateway.port, delay_seconds=DELAY_SECONDS, loss=loss)
        except LongLineError as error:
            raise BenchError(f"no line: {error}") from error
        stack.callback(self.line.close)
        (root / "spool-key").write_bytes(os.urandom(32))
        self.edge = Edge(root / "edge", self.line.ports[1], credentials, store="spool", host=self.line.host, more=SPOOL)
        self.edge.start()
        stack.callback(self.edge.stop)

    def send(self, slices: list[Path]) -> dict[str, float]:
        """Send everything in every way, one after the other; return the seconds of each."""
        seconds: dict[str, float] = {}
        began = time.monotonic()
        seconds["device, through the agent"] = store(LOOPBACK, self.edge.port, slices, tuned=False)
        self.archive.wait_for(len(slices))
        seconds["agent"] = time.monotonic() - began
        seconds["device, local storescp"] = store(LOOPBACK, self.archive.port, slices, tuned=False)
        self.archive.wait_for(len(slices))
        for name, tuned, jobs, _wanted in reversed(RIVALS):
            began = time.monotonic()
            store(self.line.host, self.line.ports[0], slices, tuned=tuned, jobs=jobs)
            self.archive.wait_for(len(slices))
            seconds[name] = time.monotonic() - began
        return seconds


def p6(bench: "Bench") -> None:
    """Add the section of P6."""
    if not bench.isolated:
        raise BenchError("it needs a network namespace of its own: run it as root")
    section = Section(
        target="P6",
        title=f"{bench.plan.edge_slices} CT slices at 100 ms round trip, until the archive has them",
        columns=("loss", "way", "seconds", "as long as the agent"),
    )
    congestion = CONGESTION.read_text().strip()
    if "bbr" in AVAILABLE.read_text().split():
        CONGESTION.write_text("bbr")
    try:
        slices = make_slices(bench.subdirectory("edge") / "slices", bench.plan.edge_slices)
        for loss in LOSSES:
            _measure(bench, section, slices, loss)
    finally:
        section.notes.append(f"Congestion control of everybody: {CONGESTION.read_text().strip()}.")
        CONGESTION.write_text(congestion)
    bench.add(section)


def _measure(bench: "Bench", section: Section, slices: list[Path], loss: float) -> None:
    share = f"{loss:.1%}"
    with ExitStack() as stack:
        place = Place(bench.subdirectory("edge"), loss, stack)
        # The archive is asked what it takes before the first object; that is no part of the sending.
        store(LOOPBACK, place.edge.port, slices[:1], tuned=False)
        place.archive.wait_for(1)
        rounds = []
        for number in range(bench.plan.rounds_edge):
            say(f"P6, loss {share}, round {number + 1} of {bench.plan.rounds_edge}")
            rounds.append(place.send(slices))
    for name in rounds[0]:
        section.samples[f"{name}, loss {share}"] = [each[name] for each in rounds]
    seconds = {name: median(each[name] for each in rounds) for name in rounds[0]}
    for name, value in seconds.items():
        ratio = f"{value / seconds['agent']:.1f}" if not name.startswith("device") else ""
        section.lines.append((share, name, f"{value:.2f}", ratio))
    for name, _tuned, _jobs, wanted in RIVALS:
        ratio_to = seconds[name] / seconds["agent"]
        section.require(f"loss {share}, {name} ≥ {wanted:g} times the agent", f"{ratio_to:.1f}", ratio_to >= wanted)
    wait = seconds["device, through the agent"] / seconds["device, local storescp"]
    section.require(f"loss {share}, the device's wait ≤ 1.2 of a local storescp", f"{wait:.2f}", wait <= 1.2)
