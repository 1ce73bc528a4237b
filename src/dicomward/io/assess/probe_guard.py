"""What stands before every probe: the scope, the stop file, the pace, and the record in the audit log.

Rules of this file: nothing is sent to an address that the scope does not name, after its last day, once the stop file
is there, or when the probe could not be written down first.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from dicomward.assess.scope import Scope
from dicomward.audit.event import ProbeSent
from dicomward.io.audit.log import AuditLog

STOP_FILE = "STOP"


class ProbingStopped(Exception):
    """The whole run has to end; the message says why."""


class Pacer:
    """Lets so many connections a second through, evenly. One for the whole run."""

    __slots__ = ("_gap", "_next")

    def __init__(self, per_second: float) -> None:
        self._gap = 1.0 / per_second
        self._next = 0.0

    async def wait(self) -> None:
        """Wait for the next turn."""
        now = time.monotonic()
        turn = max(self._next, now)
        self._next = turn + self._gap
        # Shorter waits than the loop's own grain would only cost time.
        if turn - now > 0.002:
            await asyncio.sleep(turn - now)


class Guard:
    """Asked before every probe."""

    def __init__(
        self, scope: Scope, audit: AuditLog, directory: Path, *, now: Callable[[], datetime], pacer: Pacer
    ) -> None:
        self.scope = scope
        self._audit = audit
        self._stop_file = directory / STOP_FILE
        self._now = now
        self._pacer = pacer
        self._stopped = ""
        self._why_not = lru_cache(maxsize=4096)(self._judge)
        self._written: deque[tuple[asyncio.Future[bool], bool]] = deque()
        self._is_called = False

    def stop(self, why: str) -> None:
        """End the run before its next probe."""
        self._stopped = why

    def verify_may_go_on(self) -> None:
        """Raise ProbingStopped if the run has to end."""
        if self._stopped:
            raise ProbingStopped(self._stopped)
        if self._stop_file.exists():
            raise ProbingStopped(f"the stop file {self._stop_file} is there; remove it and go on with --resume")
        if not self.scope.is_valid_on(self._now().date()):
            raise ProbingStopped(f"the authorisation ended on {self.scope.valid_until}")

    async def before(self, address: str, ports: tuple[int, ...], action: str) -> None:
        """Return when the probe may be sent and is on record. Raises ProbingStopped."""
        self.verify_may_go_on()
        if why := self._why_not(address):
            raise ProbingStopped(f"a probe of {address} was about to be sent, which is not allowed: {why}")
        for _ in ports:
            await self._pacer.wait()
        await self._record(ProbeSent(address=address, action=action, detail=f"ports {', '.join(map(str, ports))}"))

    def _judge(self, address: str) -> str:
        return self.scope.why_not(ip_address(address.partition("%")[0]))

    async def _record(self, event: ProbeSent) -> None:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[bool] = loop.create_future()

        def done(is_kept: bool) -> None:
            # The log answers many at once, from its own thread: the loop is woken once for all of them.
            self._written.append((written, is_kept))
            if not self._is_called:
                self._is_called = True
                loop.call_soon_threadsafe(self._settle)

        self._audit.append_written(event, done)
        if not await written:
            raise ProbingStopped("the audit log can't be written, so nothing more is sent; see the log's directory")

    def _settle(self) -> None:
        # First: who is added while this runs calls again.
        self._is_called = False
        while self._written:
            future, is_kept = self._written.popleft()
            if not future.done():
                future.set_result(is_kept)
