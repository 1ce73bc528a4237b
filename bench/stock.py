"""P3: DCMTK and Orthanc as they come, with and without us between; the stall that they have, and who removes it.

DCMTK from 3.6.2 on leaves Nagle's algorithm on and writes a PDU in two pieces; with delayed acknowledgements each
C-STORE waits 2 × 44 ms on any network, loopback included. What removes it is in the table too: TCP_NODELAY at both
ends, or a route with `quickack 1`.
"""

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from statistics import median

from bench import ours, peers
from bench.datasets import Folder
from bench.measure import BenchError
from bench.peers import STOCK, TUNED, Orthanc, Run
from bench.plan import Bench
from bench.report import Section, say
from bench.rivals import Door, direct, haproxy
from bench.transfer import OURS, throughput_ratio

DIRECT, TUNED_DIRECT = "stock, direct, plaintext", "TCP_NODELAY=1 at both ends, direct, plaintext"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One line of the table."""

    door: Door
    environment: Mapping[str, str]
    quick_route: bool = False
    fast: bool = True
    orthanc: Orthanc | None = None


@contextmanager
def route_quickack(wanted: bool) -> Iterator[None]:
    """Give this namespace's loopback routes `quickack 1` for the length of the block."""
    if not wanted:
        yield
        return
    _set_route("quickack", "1")
    try:
        yield
    finally:
        _set_route()


def _set_route(*extra: str) -> None:
    for network in ("127.0.0.0/8", "127.0.0.1"):
        command = ["ip", "route", "replace", "table", "local", "local", network, "dev", "lo", "proto", "kernel"]
        done = subprocess.run(
            [*command, "scope", "host", "src", "127.0.0.1", *extra], capture_output=True, check=False, text=True
        )
        if done.returncode:
            raise BenchError(f"ip route replace {network}: {done.stderr.strip()}")


def _ways(bench: Bench, stack: ExitStack, stock_port: int, tuned_port: int) -> list[Way]:
    """Return every way to the stock archive, and the tuned direct one."""
    ways = []
    if bench.plan.with_gateway:
        gateway = stack.enter_context(ours.gateway(bench.subdirectory("gateway"), stock_port))
        ways.append(Way(door=gateway, environment=STOCK))
    proxy = stack.enter_context(haproxy(bench.directory, bench.pki, stock_port, threads=bench.plan.threads))
    bare = direct(stock_port, name=DIRECT)
    ways += [
        Way(door=bare, environment=STOCK, fast=False),
        Way(door=replace(proxy, name="stock, haproxy mTLS"), environment=STOCK, fast=False),
        Way(door=direct(tuned_port, name=TUNED_DIRECT), environment=TUNED),
    ]
    if bench.isolated:
        ways += [
            Way(door=replace(bare, name="stock, direct, route quickack 1"), environment=STOCK, quick_route=True),
            Way(door=replace(proxy, name="stock, haproxy mTLS, route quickack 1"), environment=STOCK, quick_route=True),
        ]
    return ways


def _rounds(bench: Bench, ways: list[Way], run: Callable[[Way], Run], label: str) -> dict[str, list[Run]]:
    """Run the ways in turning order; the fast ones have a first run that is not counted, the slow ones only wait."""
    runs: dict[str, list[Run]] = {way.door.name: [] for way in ways}
    for number in range(bench.plan.rounds_stock + 1):
        turned = number % len(ways)
        for way in (*ways[turned:], *ways[:turned]):
            if number or way.fast:
                with route_quickack(way.quick_route):
                    measured = run(way)
                if number:
                    runs[way.door.name].append(measured)
    say(f"{label}: " + ", ".join(f"{name} {median(r.per_second for r in each):.4g}/s" for name, each in runs.items()))
    return runs


def _section(title: str, unit: str, scale: float, ways: list[Way], runs: dict[str, list[Run]], least: float) -> Section:
    section = Section(target="P3", title=title, columns=("way", unit, "dicomward ÷ it [95 %]", "peak MB"))
    for way in ways:
        name = way.door.name
        section.samples[f"{name} {unit}"] = [run.per_second / scale for run in runs[name]]
        ratio = str(throughput_ratio(runs, name)) if OURS in runs and name != OURS else ""
        peak = f"{max(run.peak_bytes for run in runs[name]) / 1e6:.0f}" if way.door.pid else ""
        shown = f"**{name}, stock peers**" if name == OURS else name
        section.lines.append((shown, f"{median(run.per_second for run in runs[name]) / scale:.1f}", ratio, peak))
    if OURS in runs:
        stock, tuned = throughput_ratio(runs, DIRECT), throughput_ratio(runs, TUNED_DIRECT)
        section.require(f"median ≥ {least:.0f} of stock direct", str(stock), stock.median >= least)
        section.require("median ≥ 0.5 of tuned direct", str(tuned), tuned.median >= 0.5)
    else:
        section.require(f"median ≥ {least:.0f} of stock direct", "no gateway", None)
    return section


def p3(bench: Bench) -> None:
    """CT slices and associations with Orthanc, small objects with storescp."""
    with ExitStack() as stack:
        directory = bench.subdirectory("stock")
        stock = stack.enter_context(peers.orthanc(directory, environment=STOCK))
        tuned = stack.enter_context(peers.orthanc(directory, environment=TUNED))
        ways = _ways(bench, stack, stock.server.port, tuned.server.port)
        ways = [replace(way, orthanc=tuned if way.door.name == TUNED_DIRECT else stock) for way in ways]
        _slices(bench, ways)
        _associations(bench, ways)
    with ExitStack() as stack:
        directory = bench.subdirectory("stock")
        stock_scp = stack.enter_context(peers.storescp(directory, pdu_bytes=None, environment=STOCK))
        tuned_scp = stack.enter_context(peers.storescp(directory, pdu_bytes=None, environment=TUNED))
        _small_objects(bench, _ways(bench, stack, stock_scp.port, tuned_scp.port))


def _slices(bench: Bench, ways: list[Way]) -> None:
    folder = bench.ct_slices(bench.plan.stock_slices)

    def run(way: Way) -> Run:
        if way.orthanc is None:
            raise BenchError("this way has no Orthanc")
        measured = peers.send(way.door, folder, environment=way.environment)
        held = way.orthanc.instances()
        if held != folder.files:
            raise BenchError(f"{way.door.name}: Orthanc holds {held} objects after {folder.files} were sent")
        way.orthanc.empty()
        return measured

    title = f"{folder.files} CT slices, storescu to Orthanc"
    section = _section(title, "MB/s", 1e6, ways, _rounds(bench, ways, run, title), 10)
    section.notes.append("Orthanc is emptied after each run, and must hold every object before that.")
    bench.add(section)


def _associations(bench: Bench, ways: list[Way]) -> None:
    def run(way: Way) -> Run:
        return peers.associate(way.door, threads=1, seconds=bench.plan.association_seconds, resume=False).run

    title = "association + C-ECHO + release, one after another, Orthanc"
    section = _section(title, "a second", 1, ways, _rounds(bench, ways, run, title), 14)
    section.notes.append(
        "The raw client of P4, the same for each way; dicomward and haproxy pay a full TLS handshake for each"
        " association (about 2.5 ms of CPU at both ends together), the direct ways pay none."
    )
    bench.add(section)


def _small_objects(bench: Bench, ways: list[Way]) -> None:
    many: Folder = bench.small_objects(400 if bench.plan.quick else 2_000)
    few: Folder = bench.small_objects(bench.plan.stock_small_objects)

    def run(way: Way) -> Run:
        folder = many if way.fast else few
        return replace(peers.send(way.door, folder, environment=way.environment), amount=folder.files)

    title = "objects of 17 KB, storescu to storescp"
    section = _section(title, "objects/s", 1, ways, _rounds(bench, ways, run, title), 60)
    section.notes.append(
        f"The stalled ways send {few.files} objects a run (each takes 88 ms, so their number does not matter), the"
        f" others {many.files}."
    )
    bench.add(section)
