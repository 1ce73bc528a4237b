"""Which ports of many hosts are open: all of a group are on record first, then called at once, and told as they answer.

Rules of this file: nothing is sent before it was asked and written down for the whole group; the pace and the stop file
hold for each host of it. A host is told of when each of its ports has answered, or the time is over: then it has no
connection open. Where the other end answers at once nothing waits, and one look at the kernel serves all the others.
"""

import asyncio
import selectors
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dicomward.assess.observation import Reach
from dicomward.io.assess.probe_connect import Attempt
from dicomward.io.assess.probe_guard import Guard

_GROUP_SECONDS: Final = 0.25
_MOST_IN_GROUP: Final = 256


class Called(NamedTuple):
    """What one port did when it was called; `reach` is NOT_TRIED where it is open, and nothing more is known."""

    port: int
    reach: Reach
    problem: str
    started_at: str
    ended_at: str


class _Host:
    """The attempts at one host."""

    __slots__ = ("attempts", "began", "number", "waits")

    def __init__(self, number: int, began: str) -> None:
        self.number = number
        self.began = began
        self.attempts: list[tuple[int, Attempt | None, str]] = []
        self.waits = 0


def group_size(connections_per_second: float, ports: int) -> int:
    """Return how many hosts to put on record together: no more than the pace lets through in a moment."""
    return max(1, min(_MOST_IN_GROUP, int(connections_per_second * _GROUP_SECONDS / max(1, ports))))


class Sweep:
    """One group of hosts. `done` is called with the number of a host in it, and what its ports did."""

    def __init__(
        self, guard: Guard, timeout: float, time: Callable[[], str], done: Callable[[int, list[Called]], None]
    ) -> None:
        self._guard = guard
        self._timeout = timeout
        self._time = time
        self._done = done
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, _Host] = {}

    async def run(self, hosts: Sequence[tuple[str, tuple[int, ...]]]) -> None:
        """Call the ports of each host. Raises ProbingStopped."""
        try:
            async with self._guard.sending:
                await self._guard.before_all(hosts, "connect")
                for number, (address, ports) in enumerate(hosts):
                    await self._guard.turn(len(ports))
                    self._begin(number, address, ports)
            await self._wait(asyncio.get_running_loop().time() + self._timeout)
        finally:
            for host in self._open.values():
                self._drop(host)
            self._selector.close()

    def _begin(self, number: int, address: str, ports: tuple[int, ...]) -> None:
        host = _Host(number, self._time())
        for port in ports:
            try:
                attempt = Attempt(address, port)
            except OSError as error:
                host.attempts.append((port, None, error.strerror or type(error).__name__))
                continue
            host.attempts.append((port, attempt, ""))
            if attempt.is_pending:
                host.waits += 1
                self._selector.register(attempt.socket, selectors.EVENT_WRITE, host)
        if host.waits:
            self._open[number] = host
        else:
            self._end(host)

    async def _wait(self, until: float) -> None:
        """Hear of the others until the last one's time is over."""
        loop = asyncio.get_running_loop()
        if not self._open:
            return
        over: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not over.done():
                over.set_result(None)

        def look() -> None:
            self._look()
            if not self._open:
                settle()

        descriptor = self._selector.fileno()
        loop.add_reader(descriptor, look)
        timer = loop.call_at(until, settle)
        try:
            await over
        finally:
            timer.cancel()
            loop.remove_reader(descriptor)
        self._look()
        for host in tuple(self._open.values()):
            del self._open[host.number]
            self._end(host)

    def _look(self) -> None:
        for key, _ in self._selector.select(0):
            self._selector.unregister(key.fileobj)
            host: _Host = key.data
            host.waits -= 1
            if not host.waits:
                del self._open[host.number]
                self._end(host)

    def _end(self, host: _Host) -> None:
        ended = self._time()
        self._done(
            host.number,
            [
                Called(port, *_outcome(attempt, problem, self._timeout), host.began, ended)
                for port, attempt, problem in host.attempts
            ],
        )

    def _drop(self, host: _Host) -> None:
        for _, attempt, _ in host.attempts:
            if attempt is not None:
                attempt.close()


async def call_ports(
    guard: Guard, address: str, ports: tuple[int, ...], timeout: float, time: Callable[[], str]
) -> list[Called]:
    """Call the ports of one host. Raises ProbingStopped."""
    found: list[Called] = []
    await Sweep(guard, timeout, time, lambda _, called: found.extend(called)).run([(address, ports)])
    return found


def _outcome(attempt: Attempt | None, problem: str, timeout: float) -> tuple[Reach, str]:
    if attempt is None:
        return Reach.UNREACHABLE, problem
    try:
        attempt.result(timeout).close()
    except ConnectionRefusedError:
        return Reach.REFUSED, ""
    except TimeoutError:
        return Reach.SILENT, ""
    except OSError as error:
        return Reach.UNREACHABLE, error.strerror or type(error).__name__
    return Reach.NOT_TRIED, ""
