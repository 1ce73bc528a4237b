"""Start to listening, and how time grows where the work doubles."""

import hashlib
import json
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from bench import ours, peers
from bench.decisions import our_decisions, policy_text, time_each
from bench.growth_stores import addresses, audit_records, spool
from bench.growth_table import Cost, fastest, section
from bench.measure import BenchError, clean_environment, memory_bytes
from bench.plan import Bench
from bench.policies import BenchDevice, make_devices, make_requests
from bench.report import Section, say
from bench.rivals import Door

if TYPE_CHECKING:
    from dicomward.identity.registry import Device, RegistrySnapshot

MOST_START_SECONDS = 0.5
NOW = datetime(2026, 1, 6, 10, 0, tzinfo=UTC)


def start(bench: Bench) -> None:
    """Time from starting the process to its word that it listens."""
    if not bench.plan.with_gateway:
        say("start: no gateway")
        return
    table = Section(
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
        table.samples[title] = seconds
        table.lines.append((title, f"{median(seconds):.2f}", f"{max(seconds):.2f}", str(len(seconds))))
        if devices == 1 and rules == ours.RULES:
            table.require(f"median < {MOST_START_SECONDS} s", f"{median(seconds):.2f} s", median(seconds) < 0.5)
    bench.add(table)


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

    from dicomward.identity.registry_json import decode_snapshot, encode_snapshot

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


def growth(bench: Bench) -> None:
    """Rules, devices, audit records, addresses, spooled objects and associations, each over its sizes."""
    _rules(bench)
    _devices(bench)
    audit_records(bench)
    addresses(bench)
    spool(bench)
    if bench.plan.with_gateway:
        _open_associations(bench)


def _rules(bench: Bench) -> None:
    from dicomward.policy.load import load_policy

    loads, decisions = [], []
    for count in bench.plan.rules:
        text = policy_text(count)
        loads.append(fastest(partial(load_policy, text, source="bench")) * 1000)
        requests = make_requests(make_devices(1_000, max(1, count // 10)), 1_000)
        ways = our_decisions(count, requests)
        time_each(ways)
        decisions.append(median(time_each(ways)))
    costs = (
        Cost(name="one decision", unit="µs", figures=decisions),
        Cost(name="loading the policy", unit="ms", figures=loads),
    )
    bench.add(section("policy rules", "rules", bench.plan.rules, costs))


def _devices(bench: Bench) -> None:
    from dicomward.identity.registry import RegistrySnapshot
    from dicomward.identity.registry_json import decode_snapshot, encode_snapshot

    loads, identifications = [], []
    for count in bench.plan.devices:
        devices = tuple(_registered(device, number) for number, device in enumerate(make_devices(count, 50)))
        text = encode_snapshot(RegistrySnapshot(devices=devices, archives=(), revision=1))
        loads.append(fastest(partial(decode_snapshot, text)) * 1000)
        identifications.append(_identify(decode_snapshot(text)))
    costs = (
        Cost(name="identify and bind one device", unit="µs", figures=identifications),
        Cost(name="reading the registry", unit="ms", figures=loads),
    )
    bench.add(section("devices", "devices", bench.plan.devices, costs))


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
    table = section("associations open at once", "associations", bench.plan.associations, costs)
    table.notes.append(f"dicomward: {configuration}.")
    bench.add(table)


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
