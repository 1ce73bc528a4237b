"""Runs the whole suite of abuse against the gateway and against archives without it, and writes docs/abuse.md.

    make abuse                       the gateway, then every archive
    make abuse TARGETS="Dicomward 'storescp --fork'"

Rows of targets that are not run stay as they are.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from tests.abuse.hold import Case
from tests.abuse.memory import Watch, resident_mib
from tests.abuse.place import place
from tests.abuse.run import FAMILIES, Result, Table, cases, good_echo, run_case
from tests.real.clients import Route
from tests.real.processes import REPOSITORY, run
from tests.real.servers import DCMTK, DcmQrScp, Orthanc, Server, StoreScp, Wlmscpfs
from tests.real.site import ARCHIVE

PAGE = REPOSITORY / "docs" / "abuse.md"
BEGIN, END = "<!-- abuse:begin -->", "<!-- abuse:end -->"


class SingleStoreScp(Server):
    """DCMTK storescp as it is by default: one process, one association at a time."""

    def __init__(self, ae_title: str, directory: Path) -> None:
        super().__init__(ae_title, directory)
        self.start([DCMTK / "storescp", "-aet", ae_title, "-od", directory, "-pm", str(self.port)])


class PynetdicomScp(Server):
    """pynetdicom's own storescp application, with the limits that it comes with."""

    def __init__(self, ae_title: str, directory: Path) -> None:
        super().__init__(ae_title, directory)
        command: list[str | Path] = [sys.executable, "-m", "pynetdicom", "storescp", str(self.port)]
        self.start([*command, "-aet", ae_title, "-od", directory])


GATEWAY = "Dicomward"
ARCHIVES: dict[str, Callable[[Path], Server]] = {
    "Orthanc": lambda directory: Orthanc(ARCHIVE, directory, modalities={}),
    "dcmqrscp": lambda directory: DcmQrScp(ARCHIVE, directory, destinations={}),
    "storescp": lambda directory: SingleStoreScp(ARCHIVE, directory),
    "storescp --fork": lambda directory: StoreScp(ARCHIVE, directory),
    "wlmscpfs": lambda directory: Wlmscpfs(ARCHIVE, directory, worklist=[]),
    "pynetdicom storescp": lambda directory: PynetdicomScp(ARCHIVE, directory),
}
TARGETS = [GATEWAY, *ARCHIVES]
HEADS = [
    "| target | run of | served all the while | not served | slower than 1 s | memory at the start, peak, end (MiB) |",
    "|---|---|---|---|---|---|",
]
# Of more cases in one family only the number is written.
MOST_NAMES = 24
NAMES = "Cases while or after which a good C-ECHO did not come within 4 s:"


class Alone:
    """An archive without the gateway; it is started again after a case that it has not survived."""

    def __init__(self, name: str, directory: Path) -> None:
        self.table = Table(name)
        self._directory = directory
        self._starts = 0
        self._server: Server | None = None

    def run(self, family: str, name: str, case: Case) -> None:
        """Run a case; a second time, on an archive just started, before it counts as not survived."""
        result = self._once(family, name, case)
        if not result.survived:
            result = self._once(family, name, case)
        if not result.survived:
            print(f"  {self.table.target}: {family}/{name}", file=sys.stderr, flush=True)
        self.table.results.append(result)

    def _once(self, family: str, name: str, case: Case) -> Result:
        server = self._server or self._started()
        route = Route(port=server.port, calling_ae_title="ABUSER", called_ae_title=ARCHIVE)
        with Watch(server.child.process.pid) as watch:
            result = run_case(family, name, case, route, route)
        self.table.peak_mib, self.table.end_mib = max(self.table.peak_mib, watch.peak), watch.now
        if not result.survived:
            self.stop()
        return result

    def _started(self) -> Server:
        self._starts += 1
        name = f"{self.table.target.replace(' ', '')}{self._starts}"
        self._server = server = ARCHIVES[self.table.target](self._directory / name)
        good_echo(Route(port=server.port, calling_ae_title="ABUSER", called_ae_title=ARCHIVE), None)
        self.table.start_mib = self.table.start_mib or resident_mib(server.child.process.pid)
        return server

    def stop(self) -> None:
        """End the archive that runs now."""
        if self._server is not None:
            self._server.stop()
            self._server = None


def _row(table: Table) -> str:
    count = len(table.results)
    slow = sum(1 for each in table.slow if each.survived)
    memory = f"{table.start_mib:.0f}, {table.peak_mib:.0f}, {table.end_mib:.0f}"
    served = f"{count - len(table.hung)} of {count} | {len(table.hung)} | {slow} | {memory} |"
    return f"| {table.target} | {time.strftime('%Y-%m-%d')} | {served}"


def _hung(table: Table) -> str:
    by_family: dict[str, list[str]] = {}
    for each in table.hung:
        by_family.setdefault(each.family, []).append(each.name)
    families = "; ".join(
        f"{family}: {', '.join(names) if len(names) <= MOST_NAMES else f'{len(names)} of {len(FAMILIES[family])}'}"
        for family, names in by_family.items()
    )
    return f"- **{table.target}**: {families or 'none'}"


def _write(table: Table, sentence: str = "") -> None:
    """Put a target's results into the page, in the place of what was there of it."""
    head, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    block, _, tail = rest.partition(END)
    lines = block.splitlines()

    def kept(begin: str, new: str, target: str) -> str:
        return new if target == table.target else next((line for line in lines if line.startswith(begin)), "")

    rows = [kept(f"| {target} |", _row(table), target) for target in TARGETS]
    names = [kept(f"- **{target}**:", _hung(table), target) for target in TARGETS]
    said = sentence or next((line for line in lines if line.startswith("Through the gateway")), "")
    text = [_versions(), "", *HEADS, *filter(None, rows), "", said, "", NAMES, "", *filter(None, names)]
    PAGE.write_text(head + "\n".join([BEGIN, *text, END]) + tail, "utf-8")


def _versions() -> str:
    dcmtk = run([DCMTK / "storescp", "--version"]).stdout.split("\n")[0].strip("$ ").split(" v")[-1].split()[0]
    orthanc = run(["/usr/sbin/Orthanc", "--version"]).stdout.split("\n")[0].strip().rpartition("/")[2]
    return f"{orthanc}, DCMTK {dcmtk}, pynetdicom {metadata.version('pynetdicom')}. The archives speak no TLS here."


def _gateway(directory: Path) -> bool:
    """Run everything against the gateway; say if all of it was survived."""
    with place(directory) as here:
        table = here.run()
        breaches = here.breaches
    worst = max((each.held or 0.0 for each in table.results), default=0.0)
    sentence = (
        f"Through the gateway the slowest good C-ECHO took {worst:.2f} s while abuse was held open. "
        f"The strict readers in front of the archives found {len(breaches)} PDUs that were malformed or not permitted."
    )
    _write(table, sentence)
    for each in (*table.slow, *table.hung, *breaches):
        print(f"  {GATEWAY}: {each}", file=sys.stderr)
    return not (table.slow or table.hung or breaches)


def main() -> int:
    """Run the targets that are named, or all; 0 if the gateway survived all of it."""
    chosen = sys.argv[1:] or TARGETS
    if unknown := set(chosen) - set(TARGETS):
        print(f"no target {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    # No archive here speaks TLS.
    families = [family for family in FAMILIES if family != "tls"]
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        directory = Path(temporary)
        good = GATEWAY not in chosen or _gateway(directory / "place")
        (directory / "archives").mkdir()
        for name in ARCHIVES:
            if name in chosen:
                alone = Alone(name, directory / "archives")
                try:
                    for family, case_name, case in cases(*families):
                        alone.run(family, case_name, case)
                finally:
                    alone.stop()
                _write(alone.table)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
