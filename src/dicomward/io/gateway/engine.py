"""The executor: a few worker threads on one epoll, timers, and a queue of calls. docs/adr/0002 says why.

Every file descriptor is armed for one event at a time (EPOLLONESHOT), so one worker has it; no thread and no large
buffer belongs to a connection. Kernel calls and TLS release the GIL, so the workers use more than one core.
"""

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from dicomward.io.system import calls

_log = logging.getLogger(__name__)

READ = calls.READ
WRITE = calls.WRITE
_BROKEN = calls.BROKEN
_ONE_SHOT = calls.ONE_SHOT
_SWEPT_FROM = 1024


class Channel(Protocol):
    """Something with a file descriptor that the engine watches."""

    def ready(self, readable: bool, writable: bool) -> None:
        """Handle an event; the descriptor stays silent until it is armed again. Must not block.

        An event may be one of a descriptor with the same number that was closed a moment ago: nothing may be concluded
        from it but that it is worth to look.
        """

    def failed(self) -> None:
        """Close what there is: `ready` has failed because of a defect of ours."""


class Timers:
    """Calls at a later time, in a thread of its own that only posts them."""

    def __init__(self, post: Callable[[Callable[[], object]], None]) -> None:
        self._post = post
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int]] = []
        self._calls: dict[int, Callable[[], object]] = {}
        self._sequence = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="dicomward-timers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def after(self, seconds: float, call: Callable[[], object]) -> int:
        """Post `call` in so many seconds; return a number that `cancel` takes."""
        when = time.monotonic() + seconds
        with self._condition:
            self._sequence += 1
            number = self._sequence
            self._calls[number] = call
            heapq.heappush(self._heap, (when, number))
            if self._heap[0][1] == number:
                self._condition.notify()
            return number

    def cancel(self, number: int) -> None:
        """Forget a call that has not been posted, and what it holds."""
        with self._condition:
            if self._calls.pop(number, None) is None:
                return
            # Most timers are cancelled, so the heap is swept before the dead outnumber the living by much.
            if len(self._heap) > _SWEPT_FROM and len(self._heap) > 2 * len(self._calls):
                self._heap = [entry for entry in self._heap if entry[1] in self._calls]
                heapq.heapify(self._heap)

    def stop(self) -> None:
        """Stop the thread, if it was started."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            self._post(call)

    def _next(self) -> Callable[[], object] | None:
        """Wait for the next call; None when stopped."""
        with self._condition:
            while not self._stopped:
                if not self._heap:
                    self._condition.wait()
                elif (left := self._heap[0][0] - time.monotonic()) > 0:
                    self._condition.wait(left)
                elif (call := self._calls.pop(heapq.heappop(self._heap)[1], None)) is not None:
                    return call
            return None


class Engine:
    """Workers, epoll, posted calls and timers."""

    def __init__(self, workers: int) -> None:
        self._epoll = calls.Poll()
        self._channels: dict[int, Channel] = {}
        self._calls: deque[Callable[[], object]] = deque()
        self._wakeup = calls.open_waker()
        self._epoll.register(self._wakeup, READ | _ONE_SHOT)
        self._stopped = False
        self.timers = Timers(self.post)
        self._threads = [self._worker(f"dicomward-worker-{number}") for number in range(workers)]
        # A worker in the place of one that a disk holds up, and whether it may go.
        self._spare_lock = threading.Lock()
        self._spare: threading.Thread | None = None
        self._may_retire = False

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
        with self._spare_lock:
            threads = [*self._threads, *([self._spare] if self._spare is not None else [])]
        for thread in threads:
            if thread.ident is not None:
                thread.join()

    def relieve(self) -> None:
        """Start one more worker: one of them may be held up in a call to a disk that doesn't answer."""
        with self._spare_lock:
            self._may_retire = False
            if self._spare is None and not self._stopped:
                self._spare = self._worker("dicomward-worker-spare")
                self._spare.start()

    def resume(self) -> None:
        """Let the additional worker go, if there is one: nobody is held up any more."""
        with self._spare_lock:
            self._may_retire = self._spare is not None
        self.post(lambda: None)

    def __del__(self) -> None:
        # Not in `stop`: others may still post, and must not write into whatever has the number by then.
        calls.close_waker(self._wakeup)

    def post(self, call: Callable[[], object]) -> None:
        """Have a worker call something soon; any thread may ask."""
        self._calls.append(call)
        calls.wake(self._wakeup, 1)

    def watch(self, descriptor: int, channel: Channel, events: int) -> None:
        """Watch a descriptor, armed for `events` (READ, WRITE, or 0 for none). Raises OSError, and watches nothing."""
        self._channels[descriptor] = channel
        try:
            self._epoll.register(descriptor, events | _ONE_SHOT)
        except OSError:
            self._channels.pop(descriptor, None)
            raise

    def arm(self, descriptor: int, events: int) -> None:
        """Arm a watched descriptor again."""
        self._epoll.modify(descriptor, events | _ONE_SHOT)

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor, before it is closed."""
        if self._channels.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _worker(self, name: str) -> threading.Thread:
        return threading.Thread(target=self._work, name=name, daemon=True)

    def _retires(self) -> bool:
        """Say if the calling worker is the additional one, and may go."""
        with self._spare_lock:
            if not self._may_retire or threading.current_thread() is not self._spare:
                return False
            self._spare, self._may_retire = None, False
            return True

    def _work(self) -> None:
        poll = self._epoll.poll
        while not self._stopped and not (self._may_retire and self._retires()):
            for descriptor, events in poll(None, 1):
                if descriptor == self._wakeup:
                    self._run_call()
                    continue
                channel = self._channels.get(descriptor)
                if channel is None:
                    continue
                try:
                    channel.ready(bool(events & (READ | _BROKEN)), bool(events & (WRITE | _BROKEN)))
                except Exception:  # noqa: BLE001  must not take a worker from everybody else, nor leave it open
                    _log.exception("a connection failed in an unexpected way; it is closed")
                    self._fail(channel)
        self.post(lambda: None)

    def _fail(self, channel: Channel) -> None:
        try:
            channel.failed()
        except Exception:  # noqa: BLE001  the same
            _log.exception("a connection could not be closed")

    def _run_call(self) -> None:
        """Take one call, let another worker take the next, then run it."""
        try:
            calls.take_wakes(self._wakeup)
        except BlockingIOError:
            pass
        try:
            call = self._calls.popleft()
        except IndexError:
            self.arm(self._wakeup, READ)
            return
        if self._calls:
            calls.wake(self._wakeup, 1)
        self.arm(self._wakeup, READ)
        try:
            call()
        except Exception:  # noqa: BLE001  the same
            _log.exception("a posted call failed in an unexpected way")
