"""P8: matches of a C-FIND counted and classified a second, beside findscu with its output off, on the same server."""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

from bench.measure import BenchError
from bench.plan import Bench
from bench.report import Section, say

ROOT = Path(__file__).resolve().parent.parent
# Not round: a round number of answers looks like a cap, and would be asked for again.
MATCHES = 400_003
_FINDSCU = Path("/usr/bin/findscu")
_RIVAL_KEYS = (
    "QueryRetrieveLevel=STUDY", "StudyDate", "StudyTime", "AccessionNumber", "ModalitiesInStudy",
    "ReferringPhysicianName", "StudyDescription", "AdmittingDiagnosesDescription", "PatientName", "PatientID",
    "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "0010,1000", "PatientAddress", "CountryOfResidence",
    "PatientTelephoneNumbers", "StudyInstanceUID",
)  # fmt: skip


def p8(bench: Bench) -> None:
    """Count one large simulated archive: ours, and findscu, in turn."""
    from fleet.manifest import Server, write_fleet

    if not _FINDSCU.exists():
        raise BenchError("findscu is not installed: make setup-peers")
    server = Server(
        address="127.64.0.9", port=11112, country="DE", kind="leaking", product=0, storage=True,
        patients=MATCHES // 3, studies=MATCHES, days=4001,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="dicomward-bench-") as place:
        directory = Path(place)
        write_fleet(directory, [server])
        command = [sys.executable, "-m", "fleet.server", str(directory)]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as simulator:
            if simulator.stdin is None or simulator.stdout is None or simulator.stdout.readline() != b"ready\n":
                raise BenchError("the simulated archive did not start")
            try:
                ways: dict[str, Callable[[], tuple[float, float]]] = {
                    "dicomward": lambda: _ours(server.address, server.port),
                    "findscu, no output": lambda: _findscu(server.address, server.port),
                }
                rounds = {name: [way() for _ in range(3 if bench.plan.quick else 7)] for name, way in ways.items()}
            finally:
                simulator.stdin.close()
    bench.add(_section(rounds))


def _ours(address: str, port: int) -> tuple[float, float]:
    """Return matches a second by the clock, and by our CPU time."""
    from dicomward.assess.count_limits import CountLimits
    from dicomward.assess.count_query import Caller
    from dicomward.assess.countries import country_in
    from dicomward.io.assess.count_link import CountTarget
    from dicomward.io.assess.count_server import count_server

    caller = Caller(
        calling_ae_title="BENCH",
        called_ae_title="ANY",
        implementation_class_uid="1.2.3",
        implementation_version_name="BENCH",
    )
    cpu, clock = time.process_time(), time.perf_counter()
    seen = count_server(
        CountTarget(address=address, port=port, caller=caller),
        limits=CountLimits(unsliced_matches=MATCHES + 1),
        today=date(2026, 1, 1),
        key=b"k" * 32,
        country_of=country_in,
    )
    if seen.counts is None or seen.counts.studies is None or seen.counts.studies.value < MATCHES:
        raise BenchError("the count is not what the archive holds")
    return MATCHES / (time.perf_counter() - clock), MATCHES / (time.process_time() - cpu)


def _findscu(address: str, port: int) -> tuple[float, float]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock = time.perf_counter()
    keys = [word for key in _RIVAL_KEYS for word in ("-k", key)]
    subprocess.run([_FINDSCU, "-q", "-S", *keys, address, str(port)], check=True, capture_output=True)
    seconds = time.perf_counter() - clock
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return MATCHES / seconds, MATCHES / cpu


def _section(rounds: dict[str, list[tuple[float, float]]]) -> Section:
    section = Section(
        target="P8",
        title=f"{MATCHES:,} matches of one C-FIND, counted and classified",
        columns=("way", "matches/s", "matches a second of CPU"),
    )
    middle: dict[str, tuple[float, float]] = {}
    for name, pairs in rounds.items():
        by_clock, by_cpu = ([pair[place] for pair in pairs] for place in (0, 1))
        section.samples[f"{name} matches/s"], section.samples[f"{name} matches/CPU s"] = by_clock, by_cpu
        middle[name] = median(by_clock), median(by_cpu)
        section.lines.append((name, f"{middle[name][0]:,.0f}", f"{middle[name][1]:,.0f}"))
    ours, rival = middle["dicomward"], middle["findscu, no output"]
    section.require("≥ 200,000 a second a core", f"{ours[1]:,.0f}", ours[1] >= 200_000)
    section.require("≥ 3 times findscu", f"{ours[0] / rival[0]:.1f} times", ours[0] >= 3 * rival[0])
    section.notes.append("17 attributes asked; the simulated archive of the fleet answers, on the other core.")
    say(f"counting {ours[0]:,.0f}/s, findscu {rival[0]:,.0f}/s")
    return section
