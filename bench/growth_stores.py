"""How time grows with what is kept: records of the audit log, addresses that are remembered, spooled objects."""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from bench.growth_table import Cost, fastest, section
from bench.measure import BenchError
from bench.plan import Bench

# How many single calls are timed at one size.
CALLS = 2_000
ARCHIVE = "pacs"
_SPOOLED_BYTES = 1_000
_QUOTA = 1 << 40


def audit_records(bench: Bench) -> None:
    """Write a log of so many records, verify it, and search it."""
    from dicomward.audit.event import GatewayStarted
    from dicomward.audit.search import Query, search_lines
    from dicomward.io.audit.log import AuditLog
    from dicomward.io.audit.read import list_segments, read_lines
    from dicomward.io.audit.verify import verify_directory

    writing, verifying, searching = [], [], []
    for count in bench.plan.records:
        directory = bench.subdirectory("audit") / "log"
        log = AuditLog(directory)
        log.start()
        all_written = threading.Event()
        began = time.perf_counter()
        for _ in range(count - 1):
            if not log.append(GatewayStarted()):
                raise BenchError("the audit log has refused a record")
        log.append_durable(GatewayStarted(), lambda _, done=all_written: done.set())
        if not all_written.wait(timeout=120):
            raise BenchError(f"{count} records were not written in two minutes")
        writing.append((time.perf_counter() - began) * 1000)
        log.close()

        def search(code: str, where: Path = directory) -> int:
            query = Query(code=code)
            return sum(1 for each in list_segments(where) for _ in search_lines(query, read_lines(each.path)))

        if search(GatewayStarted.code) < count or not verify_directory(directory).report.is_good:
            raise BenchError("the audit log does not hold what was written")
        verifying.append(fastest(partial(verify_directory, directory)) * 1000)
        searching.append(fastest(partial(search, "DW-OP-DENY")) * 1000)
    costs = (
        Cost(name="writing all", unit="ms", figures=writing),
        Cost(name="verifying the log", unit="ms", figures=verifying),
        Cost(name="searching it for what it hasn't", unit="ms", figures=searching),
    )
    bench.add(section("audit records", "records", bench.plan.records, costs))


def addresses(bench: Bench) -> None:
    """Note a failure of one more stranger, and admit a device, where so many addresses are remembered."""
    from dicomward.limits.book import LimitBook
    from dicomward.limits.settings import LimitSettings, StrangerLimits
    from dicomward.limits.strangers import StrangerBook

    failures, admissions = [], []
    for count in bench.plan.addresses:
        strangers = StrangerBook(StrangerLimits())
        book = LimitBook(LimitSettings())
        book.known_devices(count)
        names = [f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in range(count)]
        for number, name in enumerate(names):
            strangers.note_stranger_failure(name, float(number))
        admit = partial(_admit, book)
        # Each device from a network of its own; networks are forgotten in the order of their last use.
        for number in range(count):
            admit(number)
        now = float(count)
        failures.append(_each(lambda number: strangers.note_stranger_failure(names[number % count], now)))  # noqa: B023
        admissions.append(_each(lambda number: admit(number % count)))  # noqa: B023
    costs = (
        Cost(name="one failure of a stranger", unit="µs", figures=failures),
        Cost(name="one association admitted and released", unit="µs", figures=admissions),
    )
    bench.add(section("addresses remembered", "addresses", bench.plan.addresses, costs))


def _admit(book: object, number: int) -> None:
    from dicomward.limits.book import LimitBook

    assert isinstance(book, LimitBook)
    device, network = f"device{number}", f"10.{number >> 8 & 255}.{number & 255}.0/24"
    book.admit_association(device=device, role="modality", network=network, archive=ARCHIVE, floor=True, now=0.0)
    book.release_association(device=device, network=network, archive=ARCHIVE, floor=True)


def spool(bench: Bench) -> None:
    """Accept one more object where so many wait, open the spool at a start, and take an object from the queue."""
    from dicomward.edge.queue import SendQueue
    from dicomward.io.edge.spool import Spool
    from dicomward.io.edge.spool_seal import Description, SharedKey
    from dicomward.settings.edge import SpoolSettings

    directory = bench.subdirectory("spool")
    settings = SpoolSettings(
        directory=directory / "spool",
        key="key",
        key_ca=directory / "ca.pem",
        quota_bytes=_QUOTA,
        free_bytes=0,
        order="oldest",
        alarm_minutes=15,
        commitment="if-offered",
    )
    described = Description(
        calling_ae_title="CT1",
        called_ae_title="PACS",
        sop_class_uid="1.2",
        sop_instance_uid="1.2.3",
        transfer_syntax_uid="1.2.840.10008.1.2",
    )
    kept = Spool(settings, lambda _: SharedKey(bytes(32)))
    kept.open()
    accepting, opening, taking = [], [], []
    have = 0
    for count in bench.plan.spooled:
        times = []
        while have < count:
            began = time.perf_counter_ns()
            incoming = kept.receive("ct-1", described)
            incoming.write(bytes(_SPOOLED_BYTES))
            incoming.keep(b"1.2.%d" % (have // 100))
            times.append((time.perf_counter_ns() - began) / 1e6)
            have += 1
        accepting.append(median(times[-100:]))
        found = Spool(settings, lambda _: SharedKey(bytes(32))).open()["ct-1"].ready
        if len(found) != count:
            raise BenchError(f"{len(found)} of {count} spooled objects were found again")
        opening.append(fastest(Spool(settings, lambda _: SharedKey(bytes(32))).open) * 1000)
        queue = SendQueue(newest_first=False)
        for waiting in found:
            queue.add(waiting)
        taking.append(_each(partial(_take, queue), calls=count))
    costs = (
        Cost(name="accepting one more", unit="ms", figures=accepting),
        Cost(name="opening the spool", unit="ms", figures=opening),
        Cost(name="taking one from the queue", unit="µs", figures=taking),
    )
    bench.add(section("spooled objects", "objects", bench.plan.spooled, costs))


def _take(queue: object, _: int) -> None:
    from dicomward.edge.queue import SendQueue

    assert isinstance(queue, SendQueue)
    waiting = queue.take(0.0)
    if waiting is None:
        raise BenchError("the queue has lost an object")
    queue.done(waiting)


def _each(call: Callable[[int], object], *, calls: int = CALLS) -> float:
    """Return the median microseconds of single calls."""
    times: Sequence[float] = [_timed(call, number) for number in range(calls)]
    return median(times)


def _timed(call: Callable[[int], object], number: int) -> float:
    began = time.perf_counter_ns()
    call(number)
    return (time.perf_counter_ns() - began) / 1000
