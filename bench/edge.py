"""P6: 200 CT slices over a line of 100 ms round trip, by an edge agent and by storescu itself.

    PYTHONPATH=src:. python tools/loopback_only.py python bench/edge.py [--slices 200] [--rtt 0.1] [--json]

The line is tests/real/line.py, in user space: every byte arrives half the round trip later. It has no loss and no
congestion of its own, and its TCP handshakes are not delayed, which favours those who open many connections. Everything
is counted until the archive (DCMTK's storescp) has the last file; the agent's spool and the archive write to the disk.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pydicom
from pydicom.uid import generate_uid
from tests.real.edge import Edge
from tests.real.gateway import Gateway
from tests.real.hospital import TESTER
from tests.real.line import Line
from tests.real.processes import LOOPBACK, Child, free_port
from tests.real.samples import sample
from tests.real.site import ARCHIVE

SPOOL = '\n[spool]\ndirectory = "spool"\nkey = "../spool-key"\nfree_bytes = 0\n'


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


def store(port: int, paths: list[Path], *, tuned: bool, jobs: int = 1) -> float:
    """Send with storescu, in so many processes; return the seconds."""
    began = time.monotonic()
    environment = {**os.environ, **({"TCP_NODELAY": "1"} if tuned else {})}
    options = ["--max-pdu", "131072", "--max-send-pdu", "131072"] if tuned else []
    command = ["storescu", *options, "-aet", "CT1", "-aec", ARCHIVE, LOOPBACK, str(port)]
    running = [
        subprocess.Popen([*command, *paths[number::jobs]], env=environment, stdout=subprocess.DEVNULL)
        for number in range(jobs)
    ]
    codes = [each.wait() for each in running]
    if any(codes):
        raise SystemExit("storescu failed")
    return time.monotonic() - began


class Archive:
    """DCMTK's storescp."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.port = free_port()
        command: list[str | Path] = [
            "storescp",
            "--fork",
            "-aet",
            ARCHIVE,
            "-od",
            directory,
            "+uf",
            "--max-pdu",
            "131072",
        ]
        self.child = Child("storescp", [*command, str(self.port)], directory.with_suffix(".log"))
        self.child.wait_until_listening(self.port)

    def wait_for(self, count: int) -> None:
        """Wait until so many files are there, and empty the directory."""
        deadline = time.monotonic() + 600
        while len(list(self.directory.iterdir())) < count:
            if time.monotonic() > deadline:
                raise SystemExit("the archive does not get everything")
            time.sleep(0.01)
        for path in self.directory.iterdir():
            path.unlink()


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--rtt", type=float, default=0.1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        slices = make_slices(root / "slices", arguments.slices)
        archive = Archive(root / "archive")
        stack.callback(archive.child.stop)
        gateway = Gateway(root / "gateway", archive=ARCHIVE, archive_port=archive.port)
        gateway.permit_everything_to(TESTER)
        gateway.start()
        stack.callback(gateway.stop)
        credentials = gateway.add_device("ct1", "CT1", role=TESTER)
        direct = Line(archive.port, delay_seconds=arguments.rtt / 2)
        far = Line(gateway.port, delay_seconds=arguments.rtt / 2)
        stack.callback(direct.close)
        stack.callback(far.close)
        (root / "spool-key").write_bytes(os.urandom(32))
        edge = Edge(root / "edge", far.port, credentials, store="spool", more=SPOOL)
        edge.start()
        stack.callback(edge.stop)
        store(edge.port, slices[:1], tuned=False)
        archive.wait_for(1)
        time.sleep(3.0)
        began = time.monotonic()
        seconds["device, through the agent"] = store(edge.port, slices, tuned=False)
        archive.wait_for(len(slices))
        seconds["agent"] = time.monotonic() - began
        seconds["device, local storescp"] = store(archive.port, slices, tuned=False)
        archive.wait_for(len(slices))
        for name, tuned, jobs in (("8 parallel tuned", True, 8), ("tuned", True, 1), ("stock", False, 1)):
            began = time.monotonic()
            store(direct.port, slices, tuned=tuned, jobs=jobs)
            archive.wait_for(len(slices))
            seconds[name] = time.monotonic() - began
    ratios = {name: round(seconds[name] / seconds["agent"], 2) for name in ("stock", "tuned", "8 parallel tuned")}
    ratios["device's wait"] = round(seconds["device, through the agent"] / seconds["device, local storescp"], 2)
    if arguments.json:
        print(json.dumps({"seconds": seconds, "ratios": ratios}))
    else:
        for name, value in seconds.items():
            print(f"{name:28} {value:8.2f} s")
        for name, target in (("stock", 25), ("tuned", 12), ("8 parallel tuned", 1.8)):
            print(f"{name:28} {ratios[name]:8.2f} times as long as the agent (target {target})")
        print(f"{'device':28} {ratios['device' + chr(39) + 's wait']:8.2f} of a local storescp (target at most 1.2)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
