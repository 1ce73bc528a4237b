"""What `select.epoll` does for the engine, made of `select.select`, for systems that have nothing better.

One-shot: a descriptor that was reported is silent until `modify` arms it again. Thread-safe: several workers may poll,
and others may arm meanwhile.
"""

import select
import socket
import threading
import time
from collections import deque
from typing import Final

READ: Final = 1
WRITE: Final = 4
# Windows' select takes 512 descriptors of each kind, one of which is ours. More are looked at in turns.
_AT_ONCE: Final = 500
_TURN_SECONDS: Final = 0.01


class Waker:
    """A descriptor that is readable while somebody has woken it."""

    def __init__(self) -> None:
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to watch."""
        return self._woken.fileno()

    def wake(self) -> None:
        """Make it readable."""
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            # So many wait in it already that nobody oversleeps.
            pass

    def take(self) -> int:
        """Make it silent, and return how often it was woken. Raises BlockingIOError if it wasn't."""
        return len(self._woken.recv(4096))

    def close(self) -> None:
        """Close it."""
        self._woken.close()
        self._waker.close()


class SelectPoll:
    """The part of `select.epoll` that the engine uses."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._armed: dict[int, int] = {}
        self._ready: deque[tuple[int, int]] = deque()
        self._is_selecting = False
        self._interrupt = Waker()

    def register(self, descriptor: int, events: int) -> None:
        """Watch a descriptor. Raises FileExistsError if it is watched."""
        with self._lock:
            if descriptor in self._armed:
                raise FileExistsError(f"descriptor {descriptor} is watched already")
            self._armed[descriptor] = events
            self._disturb()

    def modify(self, descriptor: int, events: int) -> None:
        """Arm a descriptor again. Raises FileNotFoundError if it isn't watched."""
        with self._lock:
            if descriptor not in self._armed:
                raise FileNotFoundError(f"descriptor {descriptor} is not watched")
            self._armed[descriptor] = events
            self._disturb()

    def unregister(self, descriptor: int) -> None:
        """Watch a descriptor no more. Raises FileNotFoundError if it isn't watched."""
        with self._lock:
            if self._armed.pop(descriptor, None) is None:
                raise FileNotFoundError(f"descriptor {descriptor} is not watched")
            self._disturb()

    def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
        """Return (descriptor, events) of at most `maxevents`; none after so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            while True:
                if found := self._take(maxevents):
                    return found
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return []
                if self._is_selecting:
                    self._lock.wait(left)
                else:
                    self._look(left)

    def __del__(self) -> None:
        self._interrupt.close()

    def _take(self, maxevents: int) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while self._ready and len(found) != maxevents:
            found.append(self._ready.popleft())
        return found

    def _disturb(self) -> None:
        """Let who is in `select` look at the new state."""
        if self._is_selecting:
            self._interrupt.wake()

    def _look(self, timeout: float | None) -> None:
        """Wait in select without the lock; what is found is silent from then on. Others wait for us meanwhile."""
        armed = {descriptor: events for descriptor, events in self._armed.items() if events}
        self._is_selecting = True
        self._lock.release()
        try:
            seen = self._select(armed, timeout)
        finally:
            self._lock.acquire()
            self._is_selecting = False
            self._lock.notify_all()
        for descriptor, events in seen.items():
            # It may have been armed for something else, or be forgotten, by now.
            if found := events & self._armed.get(descriptor, 0):
                self._armed[descriptor] = 0
                self._ready.append((descriptor, found))

    def _select(self, armed: dict[int, int], timeout: float | None) -> dict[int, int]:
        own = self._interrupt.fileno()
        descriptors = list(armed)
        turns = [descriptors[at : at + _AT_ONCE] for at in range(0, len(descriptors), _AT_ONCE)] or [[]]
        if len(turns) > 1:
            timeout = _TURN_SECONDS if timeout is None else min(timeout, _TURN_SECONDS)
        seen: dict[int, int] = {}
        for turn in turns:
            to_read = [each for each in turn if armed[each] & READ]
            to_write = [each for each in turn if armed[each] & WRITE]
            try:
                # A connection that can't be made is exceptional there, and writable elsewhere.
                reads, writes, broken = select.select([own, *to_read], to_write, to_write, 0 if seen else timeout)
            except (OSError, ValueError):
                # Somebody has closed one that he has forgotten a moment ago, so it isn't looked at the next time.
                seen |= self._closed(turn)
                continue
            for descriptor in reads:
                if descriptor == own:
                    self._interrupt.take()
                else:
                    seen[descriptor] = READ
            for descriptor in {*writes, *broken}:
                seen[descriptor] = seen.get(descriptor, 0) | WRITE
        return seen

    def _closed(self, turn: list[int]) -> dict[int, int]:
        """Tell of those that are no connections any more: their channels find out what is wrong."""
        closed: dict[int, int] = {}
        for descriptor in turn:
            try:
                select.select([descriptor], [], [], 0)
            except (OSError, ValueError):
                closed[descriptor] = READ | WRITE
        return closed
