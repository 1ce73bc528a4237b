"""Makes a fleet, serves it on loopback, counts it, and compares every figure: `python -m fleet.run`.

The assessment knows the list of addresses, and a site list that stands for the countries of real addresses. All else
comes from the wire. Exit 0 only if every figure is exact.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from dicomward.assess.count_totals import Totals, totals_of
from dicomward.io.assess.shards import ShardStore
from fleet.manifest import ManifestError, Server, generate, read_manifest, truth_of, write_fleet

ROOT: Final = Path(__file__).resolve().parent.parent
_BAR: Final = 30


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=ROOT / "fleet" / "research-2023.toml")
    parser.add_argument("--seed", type=int, default=2023)
    parser.add_argument("--directory", type=Path, help="where to work; a temporary directory if not given")
    parser.add_argument("--workers", type=int, default=1, help="processes that count (1)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each (2)")
    parser.add_argument("--database", help="URL of the shards, e.g. postgresql+psycopg:///assess (a file of SQLite)")
    parser.add_argument(
        "--kill-at", type=float, metavar="PART", help="kill all workers when this part (0 to 1) is done"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    try:
        servers = generate(read_manifest(arguments.manifest), arguments.seed)
    except (ManifestError, OSError, ValueError) as error:
        print(f"fleet: {error}", file=sys.stderr)
        return 2
    directory = arguments.directory or Path(tempfile.mkdtemp(prefix="dicomward-fleet-"))
    try:
        return run(servers, directory, arguments)
    finally:
        if arguments.directory is None:
            shutil.rmtree(directory)


def run(servers: list[Server], directory: Path, arguments: argparse.Namespace) -> int:
    """Serve, count and compare."""
    write_fleet(directory, servers)
    url = arguments.database or f"sqlite:///{directory / 'shards.sqlite'}"
    store = ShardStore(url)
    store.plan(_targets(directory))
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "fleet.server", str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as simulator:
        if simulator.stdin is None or simulator.stdout is None or simulator.stdout.readline() != b"ready\n":
            print("fleet: the simulator did not start", file=sys.stderr)
            return 1
        killed = False
        failed = True
        try:
            if arguments.kill_at is not None:
                killed = _count(store, directory, url, arguments, arguments.kill_at)
            failed = _count(store, directory, url, arguments, None)
        finally:
            simulator.stdin.close()
    seconds = time.monotonic() - began
    found = totals_of(store.observations())
    store.close()
    if failed:
        print("fleet: a worker failed", file=sys.stderr)
    return _report(servers, found, seconds, killed=killed, as_json=arguments.json) or int(failed)


def _targets(directory: Path) -> list[tuple[str, int]]:
    lines = (directory / "targets.txt").read_text().splitlines()
    return [(address, int(port)) for address, _, port in (line.rpartition(":") for line in lines)]


def _count(store: ShardStore, directory: Path, url: str, arguments: argparse.Namespace, kill_at: float | None) -> bool:
    """Run workers to the end, or kill them at a part of the way: return if they were killed, or failed."""
    command = [sys.executable, "-m", "fleet.worker", str(directory), url, str(arguments.threads)]
    workers = [subprocess.Popen(command, cwd=ROOT) for _ in range(arguments.workers)]
    began = time.monotonic()
    first = store.progress().done
    try:
        while any(each.poll() is None for each in workers):
            progress = store.progress()
            _show(progress.done, progress.total, progress.done - first, time.monotonic() - began)
            if kill_at is not None and progress.done >= kill_at * progress.total:
                return True
            time.sleep(0.2)
        progress = store.progress()
        _show(progress.done, progress.total, 0, 0.0)
        return any(each.returncode for each in workers)
    finally:
        if sys.stderr.isatty():
            print(file=sys.stderr)
        for each in workers:
            if each.poll() is None:
                os.kill(each.pid, signal.SIGKILL)
            each.wait()


def _show(done: int, total: int, lately: int, seconds: float) -> None:
    if not sys.stderr.isatty():
        return
    full = round(_BAR * done / total) if total else _BAR
    left = f"{(total - done) * seconds / lately:4.0f} s left" if lately and done < total else " " * 11
    print(f"\r[{'#' * full}{'.' * (_BAR - full)}] {done}/{total} servers {left}", end="", file=sys.stderr, flush=True)


def _report(servers: list[Server], found: Totals, seconds: float, *, killed: bool, as_json: bool) -> int:
    truth = asdict(truth_of(servers))
    counted = asdict(found)
    rows = [(name, truth[name], counted[name]) for name in truth if name != "by_country"]
    by_country = truth["by_country"] == counted["by_country"]
    exact = by_country and all(there == seen for _, there, seen in rows) and not found.lower_bounds
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    if as_json:
        figures = {name: {"simulated": there, "found": seen} for name, there, seen in rows}
        print(
            json.dumps(
                {
                    "exact": exact,
                    "seconds": round(seconds, 1),
                    "largest_process_mib": peak,
                    "killed": killed,
                    "figures": figures,
                    "by_country": counted["by_country"],
                    "lower_bounds": found.lower_bounds,
                }
            )
        )
    else:
        print(f"{'figure':<12}{'simulated':>14}{'found':>14}")
        for name, there, seen in rows:
            print(f"{name:<12}{there:>14,}{seen:>14,}{'' if there == seen else '  DIFFERS'}")
        print(f"records by country: {'the same' if by_country else 'DIFFER'}; lower bounds: {found.lower_bounds}")
        print(f"{'killed and resumed; ' if killed else ''}{seconds:.0f} s, largest process {peak} MiB")
    return 0 if exact else 1


if __name__ == "__main__":
    raise SystemExit(main())
