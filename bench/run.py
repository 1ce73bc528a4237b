"""Entry of `make bench`: python bench/run.py [--quick] [p1 p2 p3 p4 p5 p6 p7 p8 p9 p10 start growth enrolment].

It puts itself into a network namespace of its own where the machine lets it, so that servers which bind every address
(DCMTK, Orthanc) are seen by nobody else, and so that a route can be changed without touching the machine.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSIDE = "DICOMWARD_BENCH_ISOLATED"
TARGETS = ("start", "p9", "p4", "p1", "p2", "p3", "p5", "p6", "p7", "p8", "p10", "growth", "enrolment")


def isolate() -> None:
    """Run this program again in a network namespace of its own; return if the machine does not let us."""
    command = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return
    if subprocess.run([*command, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode:
        return
    os.environ[INSIDE] = "1"
    os.execvp(command[0], [*command, sys.executable, *sys.argv])


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"what to measure: {', '.join(TARGETS)} (all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: figures to work with, not to publish")
    parser.add_argument("--pairs", type=int, help="interleaved rounds of P1 (full: 20, quick: 6)")
    parser.add_argument("--without-gateway", action="store_true", help="the rivals and the direct pairs only")
    parser.add_argument("--write-docs", action="store_true", help="put the result into docs/performance.md")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is not met")
    found = parser.parse_args(arguments)
    unknown = sorted(set(found.targets) - set(TARGETS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: not known; known are {', '.join(TARGETS)}")
    return found


def main() -> int:
    """Run the wanted targets; a target that cannot run is said and does not stop the others."""
    arguments = parse(sys.argv[1:])
    if INSIDE not in os.environ:
        isolate()
    isolated = INSIDE in os.environ
    # SIGTERM ends the run as ^C does: what was started is stopped, what was made is removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if isolated:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    from bench import (
        associations,
        counting,
        decisions,
        discovery,
        edge,
        enrolment,
        fairness,
        growth,
        memory,
        stock,
        transfer,
    )
    from bench.measure import BenchError
    from bench.plan import Bench, Plan, open_bench, quick_plan
    from bench.report import describe_machine, fill_document, say

    plan = quick_plan() if arguments.quick else Plan()
    plan = replace(plan, pairs=arguments.pairs or plan.pairs, with_gateway=not arguments.without_gateway)
    work: dict[str, Callable[[Bench], None]] = {
        "start": growth.start,
        "p7": discovery.p7,
        "p8": counting.p8,
        "p9": decisions.p9,
        "p4": associations.p4,
        "p1": transfer.p1,
        "p2": transfer.p2,
        "p3": stock.p3,
        "p5": memory.p5,
        "p6": edge.p6,
        "p10": fairness.p10,
        "growth": growth.growth,
        "enrolment": enrolment.enrolment,
    }
    failed = False
    with open_bench(plan, isolated=isolated) as bench:
        bench.report.machine = describe_machine()
        if plan.quick:
            bench.report.notes.append("A quick run: few rounds, wide intervals.")
        if not isolated:
            bench.report.notes.append(
                "No network namespace could be made (run it as root): the rows with a changed route are missing, and"
                " storescp and Orthanc listened on every address of this machine meanwhile."
            )
        for target in TARGETS:
            if arguments.targets and target not in arguments.targets:
                continue
            try:
                work[target](bench)
            except BenchError as error:
                failed = True
                say(f"{target} could not run: {error}")
                bench.report.notes.append(f"{target} could not run: {str(error).splitlines()[0]}")
        path = bench.report.write(ROOT / "bench" / "results")
        print(bench.report.markdown())
        say(f"written to {path.relative_to(ROOT)}")
        if arguments.write_docs:
            fill_document(ROOT / "docs" / "performance.md", bench.report)
        return 1 if failed or (arguments.strict and not bench.report.is_met) else 0


if __name__ == "__main__":
    # As a script, Python looks for modules beside this file; they are a package, and the product lies in src/.
    sys.path[0:1] = [str(ROOT), str(ROOT / "src")]
    raise SystemExit(main())
