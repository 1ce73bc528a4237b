"""P5: memory of idle associations after traffic, of one large object, and of many associations that send at once."""

import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench import ours, peers
from bench.measure import BenchError, Meter, clean_environment, memory_bytes
from bench.plan import Bench
from bench.report import Section
from bench.rivals import Door, haproxy, stunnel

MEGABYTES_EACH = 10
SENDERS = 64
MOST_IDLE_KIB = 80.0
MOST_LARGE_MIB = 16.0
MOST_SENDING_MIB = 64.0
SECONDS = 600
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes more than before: while associations idle (each), and at the peak of the two loads."""

    idle_each: float
    large: float
    sending: float


def p5(bench: Bench) -> None:
    """Measure each door alone, after a first load that is not counted."""
    with ExitStack() as stack:
        archive = stack.enter_context(peers.echo_archive(bench.subdirectory("memory")))
        doors: list[Door] = []
        if bench.plan.with_gateway:
            doors.append(
                stack.enter_context(ours.gateway(bench.subdirectory("gateway"), archive.port, limits=ours.MANY_OPEN))
            )
        doors.append(stack.enter_context(haproxy(bench.directory, bench.pki, archive.port, threads=1)))
        doors.append(stack.enter_context(stunnel(bench.directory, bench.pki, archive.port)))
        found = {door.name: _measure(bench, door) for door in doors}
    idle, large = bench.plan.idle_associations, bench.plan.large_object_megabytes
    section = Section(
        target="P5",
        title="memory",
        columns=(
            "way",
            f"each of {idle} idle associations after {MEGABYTES_EACH} MB, KiB",
            f"one object of {large} MB, MiB more",
            f"{SENDERS} associations that send at once, MiB more",
        ),
    )
    for door in doors:
        memory = found[door.name]
        name = f"**{door.name}**" if door.name == ours.NAME else door.name
        section.lines.append(
            (name, f"{memory.idle_each / 1024:.0f}", f"{memory.large / _MIB:.1f}", f"{memory.sending / _MIB:.1f}")
        )
    mine = found.get(ours.NAME)
    for what, most, value in (
        ("each idle association, KiB", MOST_IDLE_KIB, mine.idle_each / 1024 if mine else None),
        ("one large object, MiB more", MOST_LARGE_MIB, mine.large / _MIB if mine else None),
        (f"{SENDERS} that send at once, MiB more", MOST_SENDING_MIB, mine.sending / _MIB if mine else None),
    ):
        measured = "no gateway" if value is None else f"{value:.1f}"
        section.require(f"{what} ≤ {most:.0f}", measured, None if value is None else value <= most)
    section.notes += [f"{door.name}: {door.configuration}." for door in doors]
    section.notes.append("Proportional set size of the whole tree, sampled every 50 ms.")
    bench.add(section)


def _measure(bench: Bench, door: Door) -> Memory:
    if door.pid is None:
        raise BenchError(f"{door.name} has no process to measure")
    _load(door, "store", "--threads", "8", "--megabytes", "10")
    before = memory_bytes(door.pid)
    large = _peak(door, ("--threads", "1", "--megabytes", str(bench.plan.large_object_megabytes))) - before
    before = memory_bytes(door.pid)
    sending = _peak(door, ("--threads", str(SENDERS), "--megabytes", "20")) - before
    return Memory(idle_each=_idle(bench, door), large=max(large, 0), sending=max(sending, 0))


def _peak(door: Door, extra: Sequence[str]) -> int:
    with Meter(door.pid) as meter:
        _load(door, "store", *extra)
    return meter.peak_bytes


def _load(door: Door, what: str, *extra: str) -> None:
    done = subprocess.run(
        peers.load_command(door, what, *extra), capture_output=True, timeout=SECONDS, check=False,
        env=clean_environment({"PYTHONPATH": str(peers.ROOT)}), cwd=peers.ROOT,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"the load client failed at {door.name}: {(done.stdout + done.stderr).decode()[-1500:]}")


def _idle(bench: Bench, door: Door) -> float:
    """Return the bytes that each association costs while all are open and have moved their megabytes."""
    count = bench.plan.idle_associations
    before = memory_bytes(door.pid) if door.pid else 0
    command = peers.load_command(door, "hold", "--count", str(count), "--megabytes", str(MEGABYTES_EACH))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=clean_environment({"PYTHONPATH": str(peers.ROOT)}), cwd=bench.directory,
    ) as client:  # fmt: skip
        try:
            report = json.loads((client.stdout.readline() if client.stdout else b"") or b"{}")
            if report.get("failures") or report.get("opened") != count:
                raise BenchError(f"{door.name}: {count} associations could not be held open: {report}")
            after = memory_bytes(door.pid) if door.pid else 0
            client.communicate(timeout=60)
        finally:
            client.kill()
    return max(after - before, 0) / count
