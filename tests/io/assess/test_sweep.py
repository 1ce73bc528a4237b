"""Groups of hosts: on record before anything is sent, told of as soon as they have answered, and within the pace."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.assess.observation import Reach
from dicomward.assess.scope import parse_scope
from dicomward.io.assess import sweep as module
from dicomward.io.assess.probe_guard import STOP_FILE, Guard, Pacer, ProbingStopped
from dicomward.io.assess.sweep import Called, Sweep, call_ports, group_size
from dicomward.io.audit.log import AuditLog
from tests.io.assess.test_run import HEAD
from tests.io.strange_servers import StrangeServer, answering, silent_port

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@contextmanager
def guard_in(directory: Path, *, per_second: float = 10_000) -> Iterator[Guard]:
    audit = AuditLog(directory / "audit")
    audit.start()
    try:
        scope = parse_scope((HEAD + 'networks = ["127.0.0.0/24", "::1/128"]\n').encode())
        yield Guard(scope, audit, directory, now=lambda: NOW, pacer=Pacer(per_second))
    finally:
        audit.close()


def swept(
    guard: Guard, hosts: list[tuple[str, tuple[int, ...]]], timeout: float
) -> dict[int, tuple[list[Called], float]]:
    found: dict[int, tuple[list[Called], float]] = {}
    began = time.monotonic()
    done: Callable[[int, list[Called]], None] = lambda number, called: found.update(  # noqa: E731
        {number: (called, time.monotonic() - began)}
    )
    asyncio.run(Sweep(guard, timeout, lambda: "now", done).run(hosts))
    return found


def test_open_closed_and_silent_ports(tmp_path: Path) -> None:
    with guard_in(tmp_path) as guard, silent_port() as quiet, StrangeServer(answering()) as server:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            closed = unused.getsockname()[1]
        found = swept(guard, [("127.0.0.1", (quiet, server.port)), ("127.0.0.1", (closed, server.port))], 0.4)
    assert [(each.port, each.reach) for each in found[0][0]] == [(quiet, Reach.SILENT), (server.port, Reach.NOT_TRIED)]
    assert [(each.port, each.reach) for each in found[1][0]] == [
        (closed, Reach.REFUSED),
        (server.port, Reach.NOT_TRIED),
    ]
    # A host that has answered is told of at once, whoever else of the group is silent.
    assert found[1][1] < found[0][1]
    assert found[0][1] >= 0.4


def test_each_probe_is_on_record_before_any_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def attempt(address: str, port: int) -> None:
        text = "".join(each.read_text() for each in (tmp_path / "audit").glob("audit-*.jsonl"))
        seen.append(text.count('"DW-PROBE"'))
        assert f'"address":"{address}"' in text
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(module, "Attempt", attempt)
    with guard_in(tmp_path) as guard:
        found = swept(guard, [(f"127.0.0.{n}", (104, 11112)) for n in range(1, 6)], 0.1)
    assert seen == [5] * 10
    assert {(each.reach, each.problem) for called, _ in found.values() for each in called} == {
        (Reach.UNREACHABLE, "Network is unreachable")
    }


def test_a_group_is_on_record_only_when_its_turn_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def attempt(address: str, port: int) -> None:
        text = "".join(each.read_text() for each in (tmp_path / "audit").glob("audit-*.jsonl"))
        seen.append(text.count('"DW-PROBE"'))
        raise OSError(101, "Network is unreachable")

    async def work(guard: Guard) -> None:
        await asyncio.gather(*(call_ports(guard, f"127.0.0.{n}", (1, 2), 0.1, lambda: "now") for n in range(1, 4)))

    monkeypatch.setattr(module, "Attempt", attempt)
    with guard_in(tmp_path, per_second=50) as guard:
        asyncio.run(work(guard))
    assert seen == [1, 1, 2, 2, 3, 3]


def test_nothing_is_sent_if_one_host_of_the_group_is_not_in_the_scope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(module, "Attempt", lambda address, port: sent.append(address))
    with guard_in(tmp_path) as guard, pytest.raises(ProbingStopped, match=r"127\.0\.1\.1"):
        swept(guard, [("127.0.0.1", (104,)), ("127.0.1.1", (104,))], 0.1)
    assert sent == []
    assert not any("DW-PROBE" in each.read_text() for each in (tmp_path / "audit").glob("audit-*.jsonl"))


def test_stop_file_ends_a_group_within_its_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def attempt(address: str, port: int) -> None:
        sent.append(address)
        (tmp_path / STOP_FILE).touch()
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(module, "Attempt", attempt)
    with guard_in(tmp_path, per_second=50) as guard, pytest.raises(ProbingStopped, match="stop file"):
        swept(guard, [(f"127.0.0.{n}", (104,)) for n in range(1, 9)], 0.1)
    assert len(sent) == 1


def test_one_host_and_version_6(tmp_path: Path) -> None:
    with guard_in(tmp_path) as guard, StrangeServer(answering(), host="::1") as server:
        called = asyncio.run(call_ports(guard, "::1", (server.port,), 1, lambda: "now"))
    assert called == [Called(server.port, Reach.NOT_TRIED, "", "now", "now")]


def test_connections_are_closed_when_the_run_ends_early(tmp_path: Path) -> None:
    with guard_in(tmp_path) as guard, silent_port() as quiet:

        async def work() -> None:
            task = asyncio.create_task(call_ports(guard, "127.0.0.1", (quiet,), 30, lambda: "now"))
            done, _ = await asyncio.wait([task], timeout=0.2)
            assert not done
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(work())


@pytest.mark.parametrize(
    ("per_second", "ports", "size"), [(1, 2, 1), (200, 9, 5), (200, 0, 50), (100_000, 2, 256), (0.1, 1, 1)]
)
def test_group_is_what_the_pace_lets_through_in_a_moment(per_second: float, ports: int, size: int) -> None:
    assert group_size(per_second, ports) == size
