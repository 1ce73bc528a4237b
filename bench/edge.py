"""P6: 200 CT slices over a line of 100 ms round trip, by an edge agent and by storescu itself.

    python bench/run.py [--quick] p6

Everyone sends over the same line (tests/real/long_line.py): TUN devices in two network namespaces, real TCP, 1 Gbit/s,
each packet 50 ms late each way, once without loss and once with 0.1 % of the packets lost. Gateways and archives are at
the far end. Everything is counted until the archive (DCMTK's storescp) has the last file; the agent's spool and the
archive write to the disk.

The agent is compared with peers as they come where they are stock on both sides of it, and with tuned peers (no Nagle,
PDUs of 128 KiB) where both are tuned. It chooses BBR for its own connections where the kernel has it. The rivals have
it here too, as the namespace's own: without it they take minutes, and this is no comparison of congestion controls.

What the line itself can do is measured beside it: the same bytes over as many plain TCP connections as the agent has
associations, with nothing in them, to somebody who only reads.
"""

import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pydicom
from pydicom.uid import generate_uid
from tests.real.edge import Edge
from tests.real.gateway import Gateway
from tests.real.hospital import TESTER
from tests.real.long_line import FAR, NETWORK, LongLine, LongLineError
from tests.real.processes import LOOPBACK, free_port
from tests.real.samples import sample
from tests.real.site import ARCHIVE

from bench.measure import BenchError, clean_environment, server
from bench.peers import STOCK, STORESCP, STORESCU, TUNED
from bench.report import Section, say

if TYPE_CHECKING:
    from bench.plan import Bench

SPOOL = '\n[spool]\ndirectory = "spool"\nkey = "../spool-key"\nfree_bytes = 0\n'
DELAY_SECONDS = 0.05
LOSSES = (0.0, 0.001)
ASSOCIATIONS = 8
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
AVAILABLE = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
TUNED_PDU = ("--max-pdu", "131072")
RIVALS = (("stock", STOCK, 1, 25.0), ("tuned", TUNED, 1, 12.0), ("8 parallel tuned", TUNED, 8, 1.8))
STOCK_AGENT, TUNED_AGENT = "agent, stock peers", "agent, tuned peers"
WAIT, LOCAL, LINE = "device, to the agent", "device, to a local storescp", "the line itself"


def make_slices(directory: Path, count: int) -> list[Path]:
    """Write slices of 512 x 512 pixels, 16 bits: 525 KB each."""
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


def store(host: str, port: int, paths: list[Path], peers: Mapping[str, str], *, jobs: int = 1) -> float:
    """Send with storescu, in so many processes; return the seconds."""
    began = time.monotonic()
    options = [*TUNED_PDU, "--max-send-pdu", "131072"] if peers == TUNED else []
    command = [STORESCU, *options, "-aet", "CT1", "-aec", ARCHIVE, host, str(port)]
    running = [
        subprocess.Popen([*command, *paths[number::jobs]], env=clean_environment(peers), stdout=subprocess.DEVNULL)
        for number in range(jobs)
    ]
    codes = [each.wait() for each in running]
    if any(codes):
        raise BenchError("storescu failed")
    return time.monotonic() - began


class Archive:
    """DCMTK's storescp, where the calling thread is."""

    def __init__(self, directory: Path, peers: Mapping[str, str], stack: ExitStack) -> None:
        directory.mkdir()
        self.directory = directory / "files"
        self.directory.mkdir()
        self.port = free_port()
        options = ["--fork", "-aet", ARCHIVE, "+uf", *(TUNED_PDU if peers == TUNED else ()), "-od", "files"]
        command = [STORESCP, *options, str(self.port)]
        stack.enter_context(server("storescp", command, port=self.port, directory=directory, environment=peers))

    def wait_for(self, count: int) -> None:
        """Wait until so many files are there, and empty the directory."""
        deadline = time.monotonic() + 900
        while len(os.listdir(self.directory)) < count:
            if time.monotonic() > deadline:
                raise BenchError("the archive does not get everything")
            time.sleep(0.01)
        for path in self.directory.iterdir():
            path.unlink()


class Site:
    """An archive with a gateway at the far end of a line, and an agent at the near end."""

    def __init__(self, root: Path, line: LongLine, peers: Mapping[str, str], stack: ExitStack) -> None:
        root.mkdir()
        self._peers = peers
        with line.far_end():
            self.archive = Archive(root / "archive", peers, stack)
            gateway = Gateway(root / "gateway", archive=ARCHIVE, archive_port=self.archive.port, host=FAR)
            gateway.permit_everything_to(TESTER)
            gateway.start()
        stack.callback(gateway.stop)
        credentials = gateway.add_device("ct1", "CT1", role=TESTER, network=NETWORK)
        (root / "spool-key").write_bytes(os.urandom(32))
        self._edge = Edge(root / "edge", gateway.port, credentials, store="spool", host=FAR, name=FAR, more=SPOOL)
        self._edge.start()
        stack.callback(self._edge.stop)

    def through_the_agent(self, slices: list[Path]) -> tuple[float, float]:
        """Send to the agent; return the seconds that the device waited, and those until the archive had everything."""
        began = time.monotonic()
        waited = store(LOOPBACK, self._edge.port, slices, self._peers)
        self.archive.wait_for(len(slices))
        return waited, time.monotonic() - began

    def past_it(self, slices: list[Path], jobs: int) -> float:
        """Send to the archive over the line; return the seconds."""
        began = time.monotonic()
        store(FAR, self.archive.port, slices, self._peers, jobs=jobs)
        self.archive.wait_for(len(slices))
        return time.monotonic() - began


class Reader:
    """Reads from any number of connections, and answers each with one byte when it has ended."""

    def __init__(self, stack: ExitStack) -> None:
        self._listener = socket.create_server((FAR, 0), backlog=ASSOCIATIONS)
        self.port = self._listener.getsockname()[1]
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._end)

    def _end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _peer = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=_drain, args=(connection,), daemon=True).start()


def _drain(connection: socket.socket) -> None:
    buffer = bytearray(256 * 1024)
    with connection:
        while connection.recv_into(buffer):
            pass
        connection.sendall(b"\0")


def send_plainly(port: int, total: int) -> float:
    """Send so many bytes over as many connections as the agent has associations; return the seconds."""
    data = bytes(256 * 1024)

    def send() -> None:
        with socket.create_connection((FAR, port)) as connection:
            left = total // ASSOCIATIONS
            while left > 0:
                connection.sendall(data[:left])
                left -= len(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)

    began = time.monotonic()
    threads = [threading.Thread(target=send) for _ in range(ASSOCIATIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - began


class Place:
    """Two sites, of stock and of tuned peers, behind a line of that loss."""

    def __init__(self, root: Path, loss: float, stack: ExitStack) -> None:
        try:
            line = LongLine(delay_seconds=DELAY_SECONDS, loss=loss)
        except LongLineError as error:
            raise BenchError(f"no line: {error}") from error
        stack.callback(line.close)
        with line.far_end():
            self._reader = Reader(stack)
        self._local = Archive(root / "local", STOCK, stack)
        self._stock = Site(root / "stock", line, STOCK, stack)
        self._tuned = Site(root / "tuned", line, TUNED, stack)

    def get_ready(self, one: list[Path]) -> None:
        """Have the archives asked what they take, which is no part of the sending."""
        self._stock.through_the_agent(one)
        self._tuned.through_the_agent(one)

    def send(self, slices: list[Path], alone: int) -> dict[str, float]:
        """Send everything in every way, one after the other; return the seconds of each.

        A single storescu sends so many: each object waits for its own round trips, so that all take as much longer.
        """
        seconds: dict[str, float] = {}
        # The local one first: meanwhile the agents have released their associations, so that they begin with new ones.
        seconds[LOCAL] = store(LOOPBACK, self._local.port, slices, STOCK)
        self._local.wait_for(len(slices))
        seconds[LINE] = send_plainly(self._reader.port, sum(each.stat().st_size for each in slices))
        seconds[WAIT], seconds[STOCK_AGENT] = self._stock.through_the_agent(slices)
        _waited, seconds[TUNED_AGENT] = self._tuned.through_the_agent(slices)
        for name, peers, jobs, _wanted in reversed(RIVALS):
            site = self._tuned if peers == TUNED else self._stock
            some = slices[:alone] if jobs == 1 else slices
            seconds[name] = site.past_it(some, jobs) * len(slices) / len(some)
        return seconds


def p6(bench: "Bench") -> None:
    """Add the section of P6."""
    if not bench.isolated:
        raise BenchError("it needs a network namespace of its own: run it as root")
    section = Section(
        target="P6",
        title=f"{bench.plan.edge_slices} CT slices at 100 ms round trip and 1 Gbit/s, until the archive has them",
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
    section.notes.append(
        f"{LINE}: {ASSOCIATIONS} plain TCP connections that carry the same bytes and nothing else, a round trip for the"
        " connection and one for the answer included."
    )
    if bench.plan.edge_slices_alone < bench.plan.edge_slices:
        section.notes.append(
            f"A single storescu sent {bench.plan.edge_slices_alone} slices; its seconds are in proportion."
        )
    bench.add(section)


def _measure(bench: "Bench", section: Section, slices: list[Path], loss: float) -> None:
    share = f"{loss:.1%}"
    with ExitStack() as stack:
        place = Place(bench.subdirectory("edge"), loss, stack)
        place.get_ready(slices[:1])
        rounds = []
        for number in range(bench.plan.rounds_edge):
            say(f"P6, loss {share}, round {number + 1} of {bench.plan.rounds_edge}")
            rounds.append(place.send(slices, bench.plan.edge_slices_alone))
    for name in rounds[0]:
        section.samples[f"{name}, loss {share}"] = [each[name] for each in rounds]
    seconds = {name: median(each[name] for each in rounds) for name in rounds[0]}
    own = {name: seconds[TUNED_AGENT if peers == TUNED else STOCK_AGENT] for name, peers, _jobs, _wanted in RIVALS}
    for name, value in seconds.items():
        section.lines.append((share, name, f"{value:.2f}", f"{value / own[name]:.1f}" if name in own else ""))
    for name, _peers, _jobs, wanted in RIVALS:
        ratio = seconds[name] / own[name]
        section.require(f"loss {share}, {name} ≥ {wanted:g} times the agent", f"{ratio:.1f}", ratio >= wanted)
    wait = seconds[WAIT] / seconds[LOCAL]
    section.require(f"loss {share}, the device's wait ≤ 1.2 of a local storescp", f"{wait:.2f}", wait <= 1.2)
