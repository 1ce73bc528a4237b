"""What stands before every probe: the scope, the stop file, the pace, and the record in the audit log.

Rules of this file: nothing is sent to an address that the scope does not name, after its last day, once the stop file
is there, or when the probe could not be written down first.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
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

    async def wait(self, connections: int = 1) -> bool:
        """Wait for the next turn, and for those of as many connections; return True if there was anything to wait for.

        Several at once come after the wait for the last of them.
        """
        now = time.monotonic()
        turn = max(self._next, now) + (connections - 1) * self._gap
        self._next = turn + self._gap
        # Shorter waits than the loop's own grain would only cost time.
        if turn - now > 0.002:
            await asyncio.sleep(turn - now)
            return True
        return False


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
        # Held from the record of a group to its last probe: others are not put on record long before their turn.
        self.sending = asyncio.Lock()

    def stop(self, why: str) -> None:
        """End the run before its next probe."""
        self._stopped = why

    def verify_may_go_on(self) -> None:
        """Raise ProbingStopped if the run has to end."""
        if self._stopped:
            raise ProbingStopped(self._stopped)
        if self._stop_file.exists():
            raise ProbingStopped(f"the stop file {self._stop_file} is there; remove it and go on with --resume")
        # Those who have signed it count days as the clocks on their walls do.
        if not self.scope.is_valid_on(self._now().astimezone().date()):
            raise ProbingStopped(f"the authorisation ended on {self.scope.valid_until}")

    async def before(self, address: str, ports: tuple[int, ...], action: str) -> None:
        """Return when the probe may be sent and is on record. Raises ProbingStopped."""
        await self._pacer.wait(len(ports))
        await self.before_all([(address, ports)], action)

    async def before_all(self, probes: Sequence[tuple[str, tuple[int, ...]]], action: str) -> None:
        """Return when all of these probes are on record, each by itself: one wait for the log. Raises ProbingStopped.

        Before each of them is sent, `turn` is to be waited for.
        """
        self.verify_may_go_on()
        for address, _ in probes:
            if why := self._why_not(address):
                raise ProbingStopped(f"a probe of {address} was about to be sent, which is not allowed: {why}")
        await self._record(
            [
                ProbeSent(address=address, action=action, detail=f"ports {', '.join(map(str, ports))}")
                for address, ports in probes
            ]
        )

    async def turn(self, connections: int) -> None:
        """Wait for the pace, and look once more if the run may go on where that took time. Raises ProbingStopped."""
        if await self._pacer.wait(connections):
            self.verify_may_go_on()

    def _judge(self, address: str) -> str:
        return self.scope.why_not(ip_address(address.partition("%")[0]))

    async def _record(self, events: Sequence[ProbeSent]) -> None:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[bool] = loop.create_future()
        waiting, all_kept = len(events), True
        counted = threading.Lock()

        def done(is_kept: bool) -> None:
            nonlocal waiting, all_kept
            with counted:
                waiting, all_kept = waiting - 1, all_kept and is_kept
                if waiting:
                    return
            # The log answers many at once, from its own thread: the loop is woken once for all of them.
            self._written.append((written, all_kept))
            if not self._is_called:
                self._is_called = True
                # A run that ended early has nobody who waits.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._settle)

        for event in events:
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
