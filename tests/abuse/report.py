"""Runs the whole suite of abuse against the gateway and against archives without it, and writes docs/abuse.md.

make abuse
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.abuse.memory import resident_mib
from tests.abuse.place import place
from tests.abuse.run import FAMILIES, Table, cases, good_echo, run_case
from tests.real.clients import Route
from tests.real.processes import REPOSITORY, run
from tests.real.servers import DCMTK, DcmQrScp, Orthanc, Server, StoreScp
from tests.real.site import ARCHIVE

PAGE = REPOSITORY / "docs" / "abuse.md"
BEGIN, END = "<!-- abuse:begin -->", "<!-- abuse:end -->"


class SingleStoreScp(Server):
    """DCMTK storescp as it is by default: one process, one association at a time."""

    def __init__(self, ae_title: str, directory: Path) -> None:
        super().__init__(ae_title, directory)
        self.start([DCMTK / "storescp", "-aet", ae_title, "-od", directory, "-pm", str(self.port)])


ARCHIVES: dict[str, Callable[[Path], Server]] = {
    "Orthanc": lambda directory: Orthanc(ARCHIVE, directory, modalities={}),
    "dcmqrscp": lambda directory: DcmQrScp(ARCHIVE, directory, destinations={}),
    "storescp --fork": lambda directory: StoreScp(ARCHIVE, directory),
    "storescp": lambda directory: SingleStoreScp(ARCHIVE, directory),
}


def _archive(name: str, directory: Path, families: list[str]) -> Table:
    """Run the cases against an archive; it is started again after a case that it has not survived."""
    table = Table(name)
    server: Server | None = None
    number = 0
    for family, case_name, case in cases(*families):
        if server is None:
            number += 1
            server = ARCHIVES[name](directory / f"{name.replace(' ', '')}{number}")
            route = Route(port=server.port, calling_ae_title="ABUSER", called_ae_title=ARCHIVE)
            good_echo(route, None)
            table.start_mib = table.start_mib or resident_mib(server.child.process.pid)
        before = resident_mib(server.child.process.pid)
        result = run_case(family, case_name, case, route, route)
        table.results.append(result)
        after = resident_mib(server.child.process.pid)
        table.peak_mib, table.end_mib = max(table.peak_mib, before, after), after
        if not result.survived:
            print(f"  {name}: {family}/{case_name}", file=sys.stderr, flush=True)
            server.stop()
            server = None
    if server is not None:
        server.stop()
    return table


def _lines(tables: list[Table]) -> list[str]:
    lines = [
        "| target | served all the while | not served | slower than 1 s | memory at the start, peak, end (MiB) |",
        "|---|---|---|---|---|",
    ]
    for table in tables:
        count = len(table.results)
        slow = sum(1 for each in table.slow if each.survived)
        memory = f"{table.start_mib:.0f}, {table.peak_mib:.0f}, {table.end_mib:.0f}"
        lines.append(
            f"| {table.target} | {count - len(table.hung)} of {count} | {len(table.hung)} | {slow} | {memory} |"
        )
    lines += ["", "Cases while or after which a good C-ECHO did not come within 4 s:", ""]
    for table in tables:
        if table.hung:
            names = ", ".join(f"{each.family}/{each.name}" for each in table.hung)
            lines.append(f"- **{table.target}**: {names}")
    return lines


def _write(tables: list[Table], breaches: int) -> None:
    """Put what is known so far into the page."""
    version = run([DCMTK / "storescp", "--version"]).stdout.split("\n")[0].strip("$ ").split(" v")[-1]
    orthanc = run(["/usr/sbin/Orthanc", "--version"]).stdout.split("\n")[0].strip()
    worst = max((each.held or 0.0 for each in tables[0].results), default=0.0)
    text = [
        f"Run of {time.strftime('%Y-%m-%d')}; {orthanc}, DCMTK {version.split()[0]}. The archives speak no TLS here.",
        "",
        *_lines(tables),
        "",
        f"Through the gateway the slowest good C-ECHO took {worst:.2f} s while abuse was held open. "
        f"The strict reader in front of the archive found {breaches} PDUs that were malformed or not permitted.",
    ]
    page = PAGE.read_text("utf-8")
    head, _, rest = page.partition(BEGIN)
    PAGE.write_text(head + "\n".join([BEGIN, *text, END]) + rest.partition(END)[2], "utf-8")


def main() -> int:
    """Run everything, or the archives that are named; 0 if the gateway survived all of it."""
    chosen = [name for name in ARCHIVES if name in sys.argv[1:] or len(sys.argv) == 1]
    families = [family for family in FAMILIES if family != "tls"]
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with place(directory / "gateway-place") as here:
            tables = [here.run()]
            breaches = len(here.tap.breaches)
        _write(tables, breaches)
        (directory / "archives").mkdir()
        for name in chosen:
            tables.append(_archive(name, directory / "archives", families))
            _write(tables, breaches)
    return 1 if tables[0].slow or tables[0].hung or breaches else 0


if __name__ == "__main__":
    sys.exit(main())
