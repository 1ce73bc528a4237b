"""How long a run may be, and what its parts share: the folder, the images, the certificates, the report."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.datasets import Folder, make_ct_slices, make_multi_frame, make_small_objects
from bench.pki import Pki, make_pki
from bench.report import Report, Section, say


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Numbers of a run: a full one stays under half an hour on two cores, a quick one under five minutes."""

    quick: bool = False
    pairs: int = 20
    pairs_p2: int = 10
    rounds_stock: int = 5
    stock_slices: int = 200
    stock_small_objects: int = 100
    rounds_associations: int = 7
    association_seconds: float = 3.0
    rounds_decisions: int = 7
    starts: int = 11
    rules: Sequence[int] = (50, 100, 200, 400, 800, 1_600, 3_200, 5_000)
    devices: Sequence[int] = (100, 200, 400, 800, 1_600, 3_200, 5_000)
    associations: Sequence[int] = (100, 200, 400, 800)
    records: Sequence[int] = (4_000, 8_000, 16_000, 32_000, 64_000)
    addresses: Sequence[int] = (2_000, 4_000, 8_000, 16_000, 32_000, 64_000)
    spooled: Sequence[int] = (250, 500, 1_000, 2_000)
    idle_associations: int = 1_000
    large_object_megabytes: int = 2_147
    rounds_fairness: int = 5
    latencies: int = 60
    enrolments: int = 2_000
    enrolment_kills: int = 2
    edge_slices: int = 200
    edge_slices_alone: int = 200
    rounds_edge: int = 2
    threads: int = 1
    with_gateway: bool = True


def quick_plan() -> Plan:
    """Return the plan of --quick: the same work, fewer times."""
    return Plan(
        quick=True,
        pairs=6,
        pairs_p2=2,
        rounds_stock=2,
        stock_slices=40,
        stock_small_objects=40,
        rounds_associations=3,
        association_seconds=2.0,
        rounds_decisions=3,
        starts=5,
        rules=(50, 500, 5_000),
        devices=(100, 1_000, 5_000),
        associations=(100, 200, 400),
        records=(4_000, 8_000, 16_000),
        addresses=(2_000, 8_000, 32_000),
        spooled=(250, 500, 1_000),
        idle_associations=200,
        large_object_megabytes=500,
        rounds_fairness=2,
        latencies=30,
        enrolments=500,
        enrolment_kills=1,
        edge_slices_alone=50,
        rounds_edge=1,
    )


@dataclass(slots=True, kw_only=True)
class Bench:
    """One run: images are made when they are first asked for."""

    plan: Plan
    directory: Path
    pki: Pki
    report: Report
    isolated: bool
    _folders: dict[str, Folder] = field(default_factory=dict)

    def subdirectory(self, name: str) -> Path:
        """Return a new folder of this run."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))

    def ct_slices(self, count: int = 200) -> Folder:
        """Return a folder of CT slices of 512 KiB."""
        return self._folder(f"ct-{count}", lambda path: make_ct_slices(path, count))

    def small_objects(self, count: int = 2_000) -> Folder:
        """Return a folder of objects of 17 KB."""
        return self._folder(f"small-{count}", lambda path: make_small_objects(path, count))

    def multi_frame(self) -> Folder:
        """Return the folder with the object of 537 MB."""
        return self._folder("multi-frame", make_multi_frame)

    def _folder(self, name: str, make: Callable[[Path], Folder]) -> Folder:
        if name not in self._folders:
            say(f"making {name}")
            folder = make(self.directory / name)
            # The first reader of fresh files pays for their writing: be that reader.
            for file in folder.path.iterdir():
                with file.open("rb") as stream:
                    while stream.read(1 << 22):
                        pass
            self._folders[name] = folder
        return self._folders[name]

    def add(self, section: Section) -> None:
        """Take a finished section, and tell who waits how it came out."""
        self.report.sections.append(section)
        for check in section.checks:
            say(f"  {section.target}: {check.required}: {check.measured}: {check.verdict}")


@contextmanager
def open_bench(plan: Plan, *, isolated: bool) -> Iterator[Bench]:
    """Make the run's own folder, and remove it with everything in it at the end."""
    with tempfile.TemporaryDirectory(prefix="dicomward-bench-") as name:
        directory = Path(name)
        yield Bench(plan=plan, directory=directory, pki=make_pki(directory / "pki"), report=Report(), isolated=isolated)
