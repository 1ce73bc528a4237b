"""The executor: a few worker threads on one epoll, timers, and a queue of calls. docs/adr/0002 says why.

Every file descriptor is armed for one event at a time (EPOLLONESHOT), so one worker has it; no thread and no large
buffer belongs to a connection. Kernel calls and TLS release the GIL, so the workers use more than one core.
"""

import heapq
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

_log = logging.getLogger(__name__)

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
_BROKEN = select.EPOLLHUP | select.EPOLLERR


class Channel(Protocol):
    """Something with a file descriptor that the engine watches."""

    def ready(self, readable: bool, writable: bool) -> None:
        """Handle an event; the descriptor stays silent until it is armed again. Must not block."""


class Timers:
    """Calls at a later time, in a thread of its own that only posts them."""

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self._post = post
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()
        self._sequence = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="dicomward-timers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def after(self, seconds: float, call: Callable[[], None]) -> int:
        """Post `call` in so many seconds; return a number that `cancel` takes."""
        when = time.monotonic() + seconds
        with self._condition:
            self._sequence += 1
            heapq.heappush(self._heap, (when, self._sequence, call))
            if self._heap[0][1] == self._sequence:
                self._condition.notify()
            return self._sequence

    def cancel(self, number: int) -> None:
        """Forget a call that has not been posted."""
        with self._condition:
            self._cancelled.add(number)
            # Most timers are cancelled, so the heap is swept before the dead outnumber the living by much.
            if len(self._cancelled) > 1024 and 2 * len(self._cancelled) > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[1] not in self._cancelled]
                heapq.heapify(self._heap)
                self._cancelled.clear()

    def stop(self) -> None:
        """Stop the thread."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._stopped and (not self._heap or self._heap[0][0] > time.monotonic()):
                    self._condition.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                if self._stopped:
                    return
                _when, number, call = heapq.heappop(self._heap)
                if number in self._cancelled:
                    self._cancelled.discard(number)
                    continue
            self._post(call)


class Engine:
    """Workers, epoll, posted calls and timers."""

    def __init__(self, workers: int) -> None:
        self._epoll = select.epoll()
        self._channels: dict[int, Channel] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wakeup, READ | select.EPOLLONESHOT)
        self._stopped = False
        self.timers = Timers(self.post)
        self._threads = [
            threading.Thread(target=self._work, name=f"dicomward-worker-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Start the workers."""
        self.timers.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the workers after what they are doing now."""
        self._stopped = True
        self.timers.stop()
        self.post(lambda: None)
        for thread in self._threads:
            thread.join()

    def post(self, call: Callable[[], None]) -> None:
        """Have a worker call something soon; any thread may ask."""
        self._calls.append(call)
        os.eventfd_write(self._wakeup, 1)

    def watch(self, descriptor: int, channel: Channel, events: int) -> None:
        """Watch a descriptor, armed for `events` (READ, WRITE, or 0 for none)."""
        self._channels[descriptor] = channel
        self._epoll.register(descriptor, events | select.EPOLLONESHOT)

    def arm(self, descriptor: int, events: int) -> None:
        """Arm a watched descriptor again."""
        self._epoll.modify(descriptor, events | select.EPOLLONESHOT)

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor, before it is closed."""
        if self._channels.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _work(self) -> None:
        poll = self._epoll.poll
        while not self._stopped:
            for descriptor, events in poll(None, 1):
                if descriptor == self._wakeup:
                    self._run_call()
                    continue
                channel = self._channels.get(descriptor)
                if channel is None:
                    continue
                try:
                    channel.ready(bool(events & (READ | _BROKEN)), bool(events & (WRITE | _BROKEN)))
                except Exception:
                    # A defect of ours must not take a worker away from everybody else.
                    _log.exception("a connection failed in an unexpected way; it is closed")
                    self.forget(descriptor)
        self.post(lambda: None)

    def _run_call(self) -> None:
        """Take one call, let another worker take the next, then run it."""
        try:
            os.eventfd_read(self._wakeup)
        except BlockingIOError:
            pass
        try:
            call = self._calls.popleft()
        except IndexError:
            self.arm(self._wakeup, READ)
            return
        if self._calls:
            os.eventfd_write(self._wakeup, 1)
        self.arm(self._wakeup, READ)
        try:
            call()
        except Exception:
            _log.exception("a posted call failed in an unexpected way")
