"""Restarts with sockets that outlive the gateway (socket activation): devices go on all the while, none is refused."""

import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.real.clients import Dcmtk, Pynetdicom, Route, Stack
from tests.real.gateway import COMMAND, Gateway
from tests.real.hospital import TESTER
from tests.real.processes import LOOPBACK, REPOSITORY, Child
from tests.real.recording_archive import Originator, RecordingArchive
from tests.real.site import ARCHIVE

RESTARTS = 3
_LISTENING = re.compile(r"^listening on ", re.MULTILINE)


class Activated:
    """A gateway whose sockets belong to somebody else, as with a systemd socket unit."""

    def __init__(self, gateway: Gateway, sockets: Sequence[socket.socket]) -> None:
        self.gateway = gateway
        self._sockets = sockets
        self._starts = 0

    def start(self) -> Child:
        """Start one; it may be there before the one before it has ended."""
        self._starts += 1
        passed = [opened.fileno() for opened in self._sockets]
        command: list[str | Path] = [
            *(sys.executable, REPOSITORY / "tests" / "socket_unit.py", ",".join(map(str, passed)), "device:archive"),
            *(*COMMAND, "gateway", "--config", self.gateway.configuration),
        ]
        log = self.gateway.directory.parent / f"activated-{self._starts}.log"
        child = Child("dicomward gateway", command, log, environment={"PYTHONUNBUFFERED": "1"}, pass_fds=passed)
        self.gateway._child = child
        return child


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Activated]:
    with ExitStack() as stack:
        archive = stack.enter_context(RecordingArchive(ARCHIVE, originator=Originator.REQUESTOR))
        gateway = Gateway(tmp_path / "gateway", archive=ARCHIVE, archive_port=archive.port)
        stack.callback(gateway.stop)
        gateway.permit_everything_to(TESTER)
        sockets = [
            stack.enter_context(socket.create_server((LOOPBACK, port), backlog=1024))
            for port in (gateway.port, gateway.archive_port)
        ]
        yield Activated(gateway, sockets)


class Caller(threading.Thread):
    """A device that opens one association after the other until it is told to stop."""

    def __init__(self, stack: Stack, route: Route, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._route = route
        self._stopping = stopping
        self.count = 0
        self.failed: list[str] = []
        self._called = threading.Semaphore(0)

    def run(self) -> None:
        while not self._stopping.is_set():
            outcome = self._stack.echo(self._route)
            self.count += 1
            if not outcome.succeeded:
                self.failed.append(str(outcome))
            self._called.release()

    def wait_for_more(self, count: int) -> None:
        """Wait until it has called so often again."""
        while self._called.acquire(blocking=False):
            pass
        for _ in range(count):
            assert self._called.acquire(timeout=60)


@pytest.mark.parametrize("overlaps", [False, True], ids=["one after the other", "the new one starts at once"])
def test_no_device_is_refused_while_gateways_come_and_go(here: Activated, overlaps: bool) -> None:
    routes = [
        here.gateway.route(here.gateway.add_device(name, name.upper(), role=TESTER, key="rsa"), name.upper())
        for name in ("one", "two")
    ]
    running = here.start()
    stopping = threading.Event()
    callers = [Caller(Dcmtk(), routes[0], stopping), Caller(Pynetdicom(), routes[1], stopping)]
    for caller in callers:
        caller.start()
    for _ in range(RESTARTS):
        running.wait_until_it_says(_LISTENING)
        for caller in callers:
            caller.wait_for_more(2)
        running.process.send_signal(signal.SIGTERM)
        before = running
        if not overlaps:
            assert before.process.wait(timeout=60) == 0
        running = here.start()
        assert before.process.wait(timeout=60) == 0
    stopping.set()
    for caller in callers:
        caller.join(timeout=60)
    assert [caller.failed for caller in callers] == [[], []]
    assert all(caller.count >= 2 * RESTARTS for caller in callers)
    assert running.stop() == 0
    assert here.gateway.run("audit", "verify").returncode == 0
