"""P1 and P2: images through the gateway, haproxy and nginx, in interleaved rounds, with the same DCMTK at both ends."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from statistics import median

from bench import ours, peers
from bench.datasets import Folder
from bench.estimates import Ratio, ratio_of_pairs
from bench.peers import TUNED, Run
from bench.plan import Bench
from bench.report import Section, say
from bench.rivals import Door, direct, proxies

OURS = ours.NAME
COLUMNS = ("way", "MB/s", "dicomward ÷ it [95 %]", "CPU s/GB", "dicomward CPU ÷ its", "peak MB")


def interleave(
    doors: Sequence[Door], rounds: int, run: Callable[[Door], Run], *, label: str
) -> Mapping[str, list[Run]]:
    """Run each door once a round, in turning order, after one round that is not counted."""
    runs: dict[str, list[Run]] = {door.name: [] for door in doors}
    for number in range(rounds + 1):
        turned = number % len(doors)
        for door in (*doors[turned:], *doors[:turned]):
            measured = run(door)
            if number:
                runs[door.name].append(measured)
    say(f"{label}: " + ", ".join(f"{name} {median(r.per_second for r in each):.4g}/s" for name, each in runs.items()))
    return runs


def section_of(target: str, title: str, runs: Mapping[str, list[Run]], doors: Sequence[Door]) -> Section:
    """Return the table of bytes a second; our line first, each rival with its ratio."""
    section = Section(target=target, title=title, columns=COLUMNS)
    mine = runs.get(OURS)
    for door in doors:
        each = runs[door.name]
        section.samples[f"{door.name} bytes/s"] = [run.per_second for run in each]
        section.samples[f"{door.name} CPU s/GB"] = [run.cpu_per_gigabyte for run in each]
        # The direct runs have nothing between and stand apart from the rounds: they are no half of a pair.
        between = door.pid is not None
        compared = mine is not None and between and door.name != OURS
        section.lines.append(
            (
                f"**{door.name}**" if door.name == OURS else door.name,
                f"{median(run.per_second for run in each) / 1e6:.0f}",
                str(throughput_ratio(runs, door.name)) if compared else "",
                f"{median(run.cpu_per_gigabyte for run in each):.2f}" if between else "",
                str(cpu_ratio(runs, door.name)) if compared else "",
                f"{max(run.peak_bytes for run in each) / 1e6:.0f}" if between else "",
            )
        )
    return section


def throughput_ratio(runs: Mapping[str, list[Run]], rival: str) -> Ratio:
    """Return ours / rival of bytes (or associations) a second."""
    return ratio_of_pairs([run.per_second for run in runs[OURS]], [run.per_second for run in runs[rival]])


def cpu_ratio(runs: Mapping[str, list[Run]], rival: str) -> Ratio:
    """Return ours / rival of the CPU seconds for the same work."""
    return ratio_of_pairs(
        [run.cpu_seconds / run.amount for run in runs[OURS]], [run.cpu_seconds / run.amount for run in runs[rival]]
    )


def _doors(bench: Bench, stack: ExitStack, upstream_port: int) -> list[Door]:
    """Start our gateway and the two rivals in front of one archive; haproxy gets a thread for each of our processes."""
    doors, threads = [], bench.plan.threads
    if bench.plan.with_gateway:
        gateway = stack.enter_context(ours.gateway(bench.subdirectory("gateway"), upstream_port))
        threads = ours.processes(gateway)
        doors.append(gateway)
    return [*doors, *proxies(stack, bench.directory, bench.pki, upstream_port, threads=threads)]


def _measure(
    bench: Bench, target: str, title: str, folder: Folder, *, pdu_bytes: int, parallel: int, repeat: int, rounds: int
) -> tuple[Section, Mapping[str, list[Run]]]:
    with ExitStack() as stack:
        directory = bench.subdirectory("transfer")
        archive = stack.enter_context(peers.storescp(directory, pdu_bytes=pdu_bytes, environment=TUNED))
        doors = _doors(bench, stack, archive.port)

        def run(door: Door) -> Run:
            return peers.send(
                door, folder, parallel=parallel, repeat=repeat, max_send_pdu_bytes=pdu_bytes, environment=TUNED
            )

        runs = dict(interleave(doors, rounds, run, label=f"{target} {title}"))
        # The peers alone, for scale; not a pair of anything.
        bare = direct(archive.port, name="direct, plaintext")
        runs[bare.name] = [run(bare) for _ in range(3)]
        section = section_of(target, title, runs, [*doors, bare])
        section.notes += [f"{door.name}: {door.configuration}." for door in doors]
        return section, runs


def p1(bench: Bench) -> None:
    """CT slices, 128 KiB PDU, one and four associations."""
    for parallel in (1, 4):
        section, runs = _measure(
            bench,
            "P1",
            f"200 CT slices x 4, 128 KiB PDU, {parallel} at once",
            bench.ct_slices(),
            pdu_bytes=131_072,
            parallel=parallel,
            repeat=4,
            rounds=bench.plan.pairs,
        )
        least = 1.05 if parallel == 4 else 1.0
        if OURS in runs:
            ratio, cpu = throughput_ratio(runs, "haproxy"), cpu_ratio(runs, "haproxy")
            section.require(f"median ≥ {least:.2f} of haproxy", str(ratio), ratio.median >= least)
            if parallel == 4:
                section.require("95 % lower bound ≥ 1.0 of haproxy", f"{ratio.low:.3f}", ratio.low >= 1.0)
            section.require("CPU s/GB ≤ haproxy x 1.1", str(cpu), cpu.median <= 1.1)
            if not bench.plan.quick:
                section.require("20 interleaved pairs or more", str(ratio.pairs), ratio.pairs >= 20)
        else:
            section.require(f"median ≥ {least:.2f} of haproxy", "no gateway", None)
        bench.add(section)


def p2(bench: Bench) -> None:
    """The same at 16 KiB, and one object of 537 MB at both sizes."""
    works = [
        ("200 CT slices x 4, 16 KiB PDU, 1 at once", bench.ct_slices(), 16_384, 1, 4),
        ("200 CT slices x 4, 16 KiB PDU, 4 at once", bench.ct_slices(), 16_384, 4, 4),
        ("one object of 537 MB x 2, 16 KiB PDU", bench.multi_frame(), 16_384, 1, 2),
        ("one object of 537 MB x 2, 128 KiB PDU", bench.multi_frame(), 131_072, 1, 2),
    ]
    for title, folder, pdu_bytes, parallel, repeat in works:
        section, runs = _measure(
            bench, "P2", title, folder, pdu_bytes=pdu_bytes, parallel=parallel, repeat=repeat,
            rounds=bench.plan.pairs_p2,
        )  # fmt: skip
        if OURS in runs:
            ratio = throughput_ratio(runs, "haproxy")
            section.require("median ≥ 0.95 of haproxy", str(ratio), ratio.median >= 0.95)
        else:
            section.require("median ≥ 0.95 of haproxy", "no gateway", None)
        bench.add(section)
