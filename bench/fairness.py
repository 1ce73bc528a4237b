"""P10: what one device at its limits and 200 strangers at the port cost another device."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from statistics import median

from bench import ours, peers
from bench.measure import BenchError, clean_environment
from bench.plan import Bench
from bench.report import Section, say
from bench.rivals import Door

STRANGERS = 200
# Strangers call from other addresses, which no device is registered with.
OUR_NETWORK = "127.0.0.1/32"
MOST_TIMES = 2.0
SECONDS = 120


def p10(bench: Bench) -> None:
    """Time the good device alone and beside the others, in turns."""
    if not bench.plan.with_gateway:
        say("p10: no gateway")
        return
    times: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        archive = stack.enter_context(peers.echo_archive(bench.subdirectory("fairness")))
        site = ours.prepare(bench.subdirectory("gateway"), archive.port, limits=ours.AT_ITS_LIMITS, network=OUR_NETWORK)
        greedy = ours.add_device(site, ours.GREEDY, "GREEDY", network=OUR_NETWORK)
        with ours.run(site) as running:
            door = ours.door_of(site, running, limits=ours.AT_ITS_LIMITS)
            other = replace(door, credentials=greedy, calling_ae_title="GREEDY")
            _latencies(bench, door)
            for _ in range(bench.plan.rounds_fairness):
                _note(times, "alone", _latencies(bench, door))
                with _busy(door, other):
                    _note(times, "beside", _latencies(bench, door))
    section = Section(
        target="P10",
        title=f"a device beside one at its limits and {STRANGERS} strangers",
        columns=("operation", "alone, ms", "beside them, ms", "times"),
    )
    for operation in ("echo", "store"):
        alone, beside = median(times["alone", operation]), median(times["beside", operation])
        section.samples[f"{operation} alone"] = times["alone", operation]
        section.samples[f"{operation} beside"] = times["beside", operation]
        section.lines.append((operation, f"{alone * 1000:.1f}", f"{beside * 1000:.1f}", f"{beside / alone:.2f}"))
        section.require(
            f"{operation}: median ≤ {MOST_TIMES:g} times that alone, no error",
            f"{beside / alone:.2f}",
            beside <= MOST_TIMES * alone,
        )
    section.notes.append(
        "An association with one C-ECHO, and one with a C-STORE of 0.5 MB, over mutual TLS with handshake and release. "
        "The device beside asks for eight associations again and again and sends C-STOREs as fast as it can, which its "
        "limits of four and 20 MB/s don't allow; the strangers connect, send a broken or half a TLS handshake, and "
        "again when they are let go. Everything shares the cores of this machine."
    )
    section.notes.append(f"dicomward: {door.configuration}.")
    bench.add(section)


def _note(times: dict[tuple[str, str], list[float]], when: str, found: dict[str, list[float]]) -> None:
    for operation, each in found.items():
        times.setdefault((when, operation), []).extend(each)


def _latencies(bench: Bench, door: Door) -> dict[str, list[float]]:
    done = subprocess.run(
        peers.load_command(door, "latency", "--count", str(bench.plan.latencies)), capture_output=True, timeout=SECONDS,
        check=False, env=clean_environment({"PYTHONPATH": str(peers.ROOT)}), cwd=peers.ROOT,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"the device beside them failed: {(done.stdout + done.stderr).decode()[-1500:]}")
    found = json.loads(done.stdout)
    return {"echo": found["echo"], "store": found["store"]}


@contextmanager
def _busy(door: Door, other: Door) -> Iterator[None]:
    """Let the others do their worst for the length of the block."""
    environment = clean_environment({"PYTHONPATH": str(peers.ROOT)})
    commands = [
        [sys.executable, "-m", "bench.strangers", str(door.port), str(STRANGERS)],
        peers.load_command(other, "flood", "--threads", "8", "--megabytes", "1"),
    ]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=peers.ROOT)
        for command in commands
    ]
    try:
        for each in running:
            # Each says a line when it is at work.
            if each.stdout is None or not each.stdout.readline():
                raise BenchError("the strangers or the busy device could not start")
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()
