"""Start to listening, and how time grows where the work doubles: rules, devices, associations."""

import gc
import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import ours, peers
from bench.decisions import our_decisions, policy_text, time_each
from bench.estimates import growth as fit
from bench.measure import BenchError, clean_environment, memory_bytes
from bench.plan import Bench
from bench.policies import BenchDevice, make_devices, make_requests
from bench.report import Section, say
from bench.rivals import Door

if TYPE_CHECKING:
    from dicomward.identity.registry import Device, RegistrySnapshot

MOST_START_SECONDS = 0.5
# A doubling of the work may cost x2.14: a tenth in the exponent is left for noise and for small caches.
MOST_SLOPE = 1.1
NOW = datetime(2026, 1, 6, 10, 0, tzinfo=UTC)
LOAD_REPEATS = 3


def start(bench: Bench) -> None:
    """Time from starting the process to its word that it listens."""
    if not bench.plan.with_gateway:
        say("start: no gateway")
        return
    section = Section(
        target="start", title="start to listening", columns=("registry and policy", "median s", "worst s", "starts")
    )
    for title, devices, rules in (
        ("1 device, 50 rules", 1, 50), ("5,000 devices, 50 rules", 5_000, 50), ("1 device, 5,000 rules", 1, 5_000),
    ):  # fmt: skip
        # No archive is needed to listen: port 9 (discard) stands for one.
        site = ours.prepare(bench.subdirectory("start"), 9, rules=rules)
        if devices > 1:
            _add_devices(site, devices)
        seconds = _start_times(site, bench.plan.starts)
        section.samples[title] = seconds
        section.lines.append((title, f"{median(seconds):.2f}", f"{max(seconds):.2f}", str(len(seconds))))
        if devices == 1 and rules == ours.RULES:
            section.require(f"median < {MOST_START_SECONDS} s", f"{median(seconds):.2f} s", median(seconds) < 0.5)
    bench.add(section)


def _start_times(site: ours.Site, count: int) -> list[float]:
    """Start and stop the gateway; the first start compiles the modules and is not counted."""
    seconds = []
    for number in range(count + 1):
        with ours.run(site) as running:
            if number:
                seconds.append(running.start_seconds)
    return seconds


def _add_devices(site: ours.Site, count: int) -> None:
    """Put devices into the compiled registry that the gateway reads (5,000 commands would take half an hour)."""
    from dataclasses import replace

    from dicomward.identity.registry import decode_snapshot, encode_snapshot

    path = site.directory / "registry.json"
    if not path.exists():
        raise BenchError(f"{path.name} is not where it was expected: the compiled registry has another name now")
    snapshot = decode_snapshot(path.read_text())
    more = tuple(_registered(device, number) for number, device in enumerate(make_devices(count - 1, 50)))
    path.write_text(encode_snapshot(replace(snapshot, devices=(*snapshot.devices, *more))))


def _registered(device: BenchDevice, number: int) -> "Device":
    from dicomward.identity.registry import CertificateRecord, Device

    certificate = CertificateRecord(
        sha256=_fingerprint(number),
        not_before=NOW - timedelta(days=1),
        not_after=NOW + timedelta(days=365),
        status="active",
        serial=str(number + 1),
    )
    return Device(
        name=device.name,
        ae_titles=(f"DEV{number}",),
        role=device.role,
        site=device.site,
        networks=(f"10.{number >> 8 & 255}.{number & 255}.0/24",),
        certificates=(certificate,),
    )


def _fingerprint(number: int) -> str:
    return hashlib.sha256(number.to_bytes(4, "big")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one size costs: a name, its unit, and the figure for each size."""

    name: str
    unit: str
    figures: Sequence[float]


def growth(bench: Bench) -> None:
    """Rules, devices and associations, each over its sizes."""
    _rules(bench)
    _devices(bench)
    if bench.plan.with_gateway:
        _open_associations(bench)


def _section(title: str, what: str, sizes: Sequence[int], costs: Sequence[Cost]) -> Section:
    columns = (what, *(f"{cost.name}, {cost.unit}" for cost in costs))
    section = Section(target="growth", title=title, columns=columns)
    for number, size in enumerate(sizes):
        section.lines.append((f"{size:,}", *(f"{cost.figures[number]:.3g}" for cost in costs)))
    for cost in costs:
        section.samples[cost.name] = list(cost.figures)
        fitted = fit(sizes, cost.figures)
        more_work, more_cost = sizes[-1] / sizes[0], cost.figures[-1] / cost.figures[0]
        section.require(
            f"{cost.name} at most doubles when the work doubles (slope ≤ {MOST_SLOPE})",
            f"work x{more_work:.0f}, cost x{more_cost:.3g}, {fitted}",
            fitted.exponent <= MOST_SLOPE,
        )
    say(f"growth, {title}: done")
    return section


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few calls, without the garbage collection of what was here before."""
    times = []
    for _ in range(LOAD_REPEATS):
        gc.collect()
        gc.freeze()
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
        gc.unfreeze()
    return min(times)


def _rules(bench: Bench) -> None:
    from dicomward.policy.load import load_policy

    loads, decisions = [], []
    for count in bench.plan.rules:
        text = policy_text(count)
        loads.append(_fastest(partial(load_policy, text, source="bench")) * 1000)
        requests = make_requests(make_devices(1_000, max(1, count // 10)), 1_000)
        ways = our_decisions(count, requests)
        time_each(ways)
        decisions.append(median(time_each(ways)))
    costs = (
        Cost(name="one decision", unit="µs", figures=decisions),
        Cost(name="loading the policy", unit="ms", figures=loads),
    )
    bench.add(_section("policy rules", "rules", bench.plan.rules, costs))


def _devices(bench: Bench) -> None:
    from dicomward.identity.registry import RegistrySnapshot, decode_snapshot, encode_snapshot

    loads, identifications = [], []
    for count in bench.plan.devices:
        devices = tuple(_registered(device, number) for number, device in enumerate(make_devices(count, 50)))
        text = encode_snapshot(RegistrySnapshot(devices=devices, archives=(), revision=1))
        loads.append(_fastest(partial(decode_snapshot, text)) * 1000)
        identifications.append(_identify(decode_snapshot(text)))
    costs = (
        Cost(name="identify and bind one device", unit="µs", figures=identifications),
        Cost(name="reading the registry", unit="ms", figures=loads),
    )
    bench.add(_section("devices", "devices", bench.plan.devices, costs))


def _identify(snapshot: "RegistrySnapshot") -> float:
    """Return the median microseconds to identify a device by its certificate and to bind its AE title."""
    from dicomward.identity.certificate import PeerCertificate
    from dicomward.identity.identify import bind, identify_device

    times = []
    for number in range(0, 4_000, 2):
        index = number % len(snapshot.devices)
        record = snapshot.devices[index].certificates[0]
        shown = PeerCertificate(
            sha256=record.sha256, not_before=record.not_before, not_after=record.not_after, subject="CN=bench"
        )
        address = f"10.{index >> 8 & 255}.{index & 255}.7"
        began = time.perf_counter_ns()
        identified = identify_device(snapshot, shown, address, NOW, expiry_grace=timedelta(days=7))
        bind(identified, f"DEV{index}", shown, address)
        times.append((time.perf_counter_ns() - began) / 1000)
    return median(times)


def _open_associations(bench: Bench) -> None:
    opened, echoed, memory = [], [], []
    with (
        peers.echo_archive(bench.subdirectory("echo")) as archive,
        ours.gateway(bench.subdirectory("gateway"), archive.port, limits=ours.MANY_OPEN) as door,
    ):
        # One round that is not counted: the first associations pay for what is loaded late.
        _hold(bench.directory, door, bench.plan.associations[0])
        for count in bench.plan.associations:
            held = _hold(bench.directory, door, count)
            opened.append(held.open_seconds)
            echoed.append(held.echo_seconds)
            memory.append(held.memory_bytes / 1e6)
        configuration = door.configuration
    costs = (
        Cost(name="opening all", unit="s", figures=opened),
        Cost(name="one C-ECHO on each", unit="s", figures=echoed),
        Cost(name="memory of the gateway", unit="MB", figures=memory),
    )
    section = _section("associations open at once", "associations", bench.plan.associations, costs)
    section.notes.append(f"dicomward: {configuration}.")
    bench.add(section)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What it took to open associations and to use each once, and the gateway's memory while all were open."""

    open_seconds: float
    echo_seconds: float
    memory_bytes: int


def _hold(directory: Path, door: Door, count: int) -> Held:
    with subprocess.Popen(
        peers.load_command(door, "hold", "--count", str(count)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=clean_environment({"PYTHONPATH": str(peers.ROOT)}), cwd=directory,
    ) as client:  # fmt: skip
        try:
            line = client.stdout.readline() if client.stdout else b""
            report = json.loads(line or b"{}")
            if report.get("failures") or report.get("opened") != count:
                raise BenchError(f"{count} associations could not be held open: {report}")
            memory = memory_bytes(door.pid) if door.pid else 0
            client.communicate(timeout=60)
        finally:
            client.kill()
    return Held(open_seconds=report["open_seconds"], echo_seconds=report["echo_seconds"], memory_bytes=memory)
