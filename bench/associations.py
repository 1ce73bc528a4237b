"""P4: new associations a second over mutual TLS 1.3 with a C-ECHO on each, full and resumed handshakes."""

from contextlib import ExitStack
from statistics import median

from bench import ours, peers
from bench.peers import EchoRun, Run
from bench.plan import Bench
from bench.report import Section
from bench.rivals import Door, proxies
from bench.transfer import OURS, cpu_ratio, interleave, throughput_ratio

THREADS = 4
LEAST = {False: 0.95, True: 0.8}


def p4(bench: Bench) -> None:
    """Full and resumed handshakes against the same light archive."""
    with ExitStack() as stack:
        archive = stack.enter_context(peers.echo_archive(bench.subdirectory("echo")))
        doors: list[Door] = []
        threads = bench.plan.threads
        if bench.plan.with_gateway:
            gateway = stack.enter_context(
                ours.gateway(bench.subdirectory("gateway"), archive.port, limits=ours.RATES_RAISED)
            )
            threads = ours.processes(gateway)
            doors.append(gateway)
        doors += proxies(stack, bench.directory, bench.pki, archive.port, threads=threads)
        for resume in (False, True):
            bench.add(_measure(bench, doors, resume=resume))


def _measure(bench: Bench, doors: list[Door], *, resume: bool) -> Section:
    echoes: dict[str, list[EchoRun]] = {door.name: [] for door in doors}

    def run(door: Door) -> Run:
        echo = peers.associate(door, threads=THREADS, seconds=bench.plan.association_seconds, resume=resume)
        echoes[door.name].append(echo)
        return echo.run

    kind = "resumed" if resume else "full"
    title = f"association + C-ECHO + release a second, {kind} handshakes, {THREADS} at once"
    runs = interleave(doors, bench.plan.rounds_associations, run, label=f"P4 {title}")
    columns = (
        "way",
        "a second",
        "dicomward ÷ it [95 %]",
        "CPU ms each",
        "dicomward CPU ÷ its",
        "peak MB",
        "TLS",
        "resumed",
    )
    section = Section(target="P4", title=title, columns=columns)
    for door in doors:
        each, compared = runs[door.name], OURS in runs and door.name != OURS
        section.samples[f"{door.name} a second"] = [run.per_second for run in each]
        section.lines.append(
            (
                f"**{door.name}**" if door.name == OURS else door.name,
                f"{median(run.per_second for run in each):.0f}",
                str(throughput_ratio(runs, door.name)) if compared else "",
                f"{median(run.cpu_seconds / run.amount for run in each) * 1000:.2f}",
                str(cpu_ratio(runs, door.name)) if compared else "",
                f"{max(run.peak_bytes for run in each) / 1e6:.0f}",
                echoes[door.name][-1].protocol,
                f"{sum(e.resumed for e in echoes[door.name])} of {sum(e.run.amount for e in echoes[door.name]):.0f}",
            )
        )
    required = f"median ≥ {LEAST[resume]} of haproxy"
    if OURS in runs:
        ratio = throughput_ratio(runs, "haproxy")
        section.require(required, str(ratio), ratio.median >= LEAST[resume])
    else:
        section.require(required, "no gateway", None)
    section.notes += [f"{door.name}: {door.configuration}." for door in doors]
    section.notes.append("The client offers ECDSA P-256 and TLS 1.3 only, and counts what the server really resumed.")
    return section
