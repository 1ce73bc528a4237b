"""Makes a fleet, serves it on loopback, assesses it, and compares every figure: `python -m fleet.run`.

The assessment is `dicomward assess`, and what is compared is its report. It knows a network, and a site list that
stands for the countries of real addresses. All else comes from the wire. Exit 0 only if every figure is exact.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from dicomward.cli.assess import database_url
from dicomward.io.assess.shards import ShardStore
from dicomward.io.assess.store import STORE_NAME
from fleet.manifest import ManifestError, Server, Truth, generate, read_manifest, truth_of, write_fleet

ROOT: Final = Path(__file__).resolve().parent.parent
COMMAND: Final = (sys.executable, "-m", "dicomward.cli.main", "assess")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=ROOT / "fleet" / "research-2023.toml")
    parser.add_argument("--seed", type=int, default=2023)
    parser.add_argument("--directory", type=Path, help="where to work; a temporary directory if not given")
    parser.add_argument("--workers", type=int, default=1, help="processes that assess (1)")
    parser.add_argument("--database", help="what they share, e.g. postgresql://USER@HOST/NAME (a file, if several)")
    parser.add_argument("--lease", default="30", metavar="SECONDS", help="as that of `dicomward assess` (30)")
    parser.add_argument(
        "--kill-at",
        type=float,
        metavar="PART",
        action="append",
        default=[],
        help="kill all of them when this part (0 to 1) of the servers is done, and go on (repeatable)",
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
    """Serve, assess and compare."""
    write_fleet(directory, servers)
    if arguments.workers > 1 and not arguments.database:
        arguments.database = str(directory / "shards.sqlite")
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "fleet.server", str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as simulator:
        if simulator.stdin is None or simulator.stdout is None or simulator.stdout.readline() != b"ready\n":
            print("fleet: the simulator did not start", file=sys.stderr)
            return 1
        kills = 0
        try:
            for part in sorted(arguments.kill_at):
                kills += _assess(directory, arguments, len(servers), kill_at=part * len(servers), resume=kills > 0)
            failed = _assess(directory, arguments, len(servers), kill_at=None, resume=kills > 0)
        finally:
            simulator.stdin.close()
    seconds = time.monotonic() - began
    if failed:
        print("fleet: the assessment failed", file=sys.stderr)
        return 1
    report = subprocess.run(
        [*COMMAND, "report", str(directory / "out"), "--format", "json"], cwd=ROOT, check=True, capture_output=True
    )
    return _compare(servers, json.loads(report.stdout), seconds, kills=kills, as_json=arguments.json)


def _assess(directory: Path, arguments: argparse.Namespace, hosts: int, *, kill_at: float | None, resume: bool) -> bool:
    """Run all processes to the end, or kill them: return if they were killed, or failed."""
    scope = directory / "scope.toml"
    digest = hashlib.sha256(scope.read_bytes()).hexdigest()
    share = ["--database", arguments.database, "--lease", arguments.lease] if arguments.database else []
    first = [*COMMAND, str(scope), "--out", str(directory / "out"), "--confirm", digest, *share]
    if resume:
        first.append("--resume")
    output = open(directory / "out.txt", "ab")  # noqa: SIM115  (the processes keep it)
    processes = [subprocess.Popen(first, cwd=ROOT, stdout=output)]
    try:
        if arguments.workers > 1:
            _await_hosts(arguments.database, processes[0])
        for number in range(1, arguments.workers):
            worker = [*COMMAND, "worker", str(scope), "--out", str(directory / f"worker{number}"), "--confirm", digest]
            processes.append(subprocess.Popen([*worker, *share], cwd=ROOT, stdout=output))
        while any(each.poll() is None for each in processes):
            if kill_at is not None and _servers_done(directory, arguments.database) >= kill_at:
                return True
            # A small fleet is done within a second; a look at a large one is a long query.
            time.sleep(min(0.5, hosts / 10_000))
        return any(each.returncode for each in processes)
    finally:
        for each in processes:
            if each.poll() is None:
                os.kill(each.pid, signal.SIGKILL)
            each.wait()
        output.close()


def _await_hosts(database: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the first process has said which hosts there are: workers can't begin before."""
    store = ShardStore(database_url(database))
    while store.value("filled_at") is None and process.poll() is None:
        time.sleep(0.1)
    store.close()


def _servers_done(directory: Path, database: str | None) -> int:
    """Return how many hosts with a server are done, with their counts if they are counted."""
    if database:
        store = ShardStore(database_url(database))
        done = {row.address for row, state, _ in store.targets() if state == "done"}
        number = len(done & {each.address for each in store.observations()})
        store.close()
        return number
    if not (directory / "out" / STORE_NAME).exists():
        return 0
    opened = sqlite3.connect(directory / "out" / STORE_NAME)
    try:
        query = "SELECT COUNT(DISTINCT address) FROM observation JOIN target USING (address) WHERE state = 'done'"
        return int(opened.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        # It is being made just now.
        return 0
    finally:
        opened.close()


def _figures(report: dict[str, Any], truth: Truth) -> dict[str, Any]:
    """Return what the report says, under the names of `Truth`."""
    totals = report["totals"]
    servers = [each for each in report["servers"] if each["reach"] in ("answered", "certificate-wanted")]
    controls: dict[str, Counter[str]] = {}
    for server in servers:
        for each in server["controls"]:
            controls.setdefault(each["control"], Counter())[each["verdict"]] += 1
    products = Counter(f"{each['product']['product']} {each['product']['version']}".strip() for each in servers)
    return {
        "servers": totals["servers_reached"],
        "countries": totals["countries"],
        "leaking": totals["servers_leaking"],
        "authorised": totals["servers_guarded"],
        "records": totals["records"]["value"],
        "personal": totals["personal"]["value"],
        "medical": totals["medical"]["value"],
        "tampering": totals["open_to_tampering"]["value"],
        "by_country": {row["code"]: row["records"]["value"] for row in report["countries"] if row["records"]["value"]},
        "products": dict(products),
        "controls": {name: dict(controls.get(name, {})) for name in truth.controls},
    }


def _compare(servers: list[Server], report: dict[str, Any], seconds: float, *, kills: int, as_json: bool) -> int:
    simulated = truth_of(servers)
    truth, found = asdict(simulated), _figures(report, simulated)
    lower_bounds = sum(each["counts"]["records"]["is_lower_bound"] for each in report["servers"])
    exact = truth == found and not lower_bounds
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    if as_json:
        figures = {name: {"simulated": truth[name], "found": found[name]} for name in truth}
        facts = {"exact": exact, "seconds": round(seconds, 1), "largest_process_mib": peak, "kills": kills}
        print(json.dumps({**facts, "lower_bounds": lower_bounds, "figures": figures}))
    else:
        print(f"{'figure':<12}{'simulated':>14}{'found':>14}")
        for name, there in truth.items():
            if isinstance(there, int):
                print(f"{name:<12}{there:>14,}{found[name]:>14,}{'' if there == found[name] else '  DIFFERS'}")
            else:
                print(f"{name}: {'the same' if there == found[name] else f'DIFFER: {there} and {found[name]}'}")
        print(f"lower bounds: {lower_bounds}")
        print(f"{f'killed and resumed {kills} times; ' if kills else ''}{seconds:.0f} s, largest process {peak} MiB")
    return 0 if exact else 1


if __name__ == "__main__":
    raise SystemExit(main())
