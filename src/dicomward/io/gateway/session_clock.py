"""What a session measures time with: the moment of an input, and the timers that its relay has asked for."""

import time
from collections.abc import Callable
from datetime import datetime

from dicomward.io.gateway.engine import Timers
from dicomward.relay.inputs import Instant, Timer


class Clock:
    """The clocks, read for each input. The wall clock is for rules, which count in minutes, so it may be a bit old."""

    _WALL_SECONDS = 0.2

    def __init__(self) -> None:
        self._read = 0.0
        self._local = datetime.now().astimezone()  # noqa: TID251  io has the clocks

    def now(self) -> Instant:
        """Return this moment."""
        monotonic = time.monotonic()
        if monotonic - self._read > self._WALL_SECONDS:
            self._local = datetime.now().astimezone()  # noqa: TID251  io has the clocks
            self._read = monotonic
        return Instant(monotonic, self._local)


class SessionTimers:
    """The running timers of one session, at most one of each kind. The session's lock covers them."""

    def __init__(self, timers: Timers, fired: Callable[[Timer, int], None]) -> None:
        """Take what is called when a timer has fired, with the timer and the number that `take` wants."""
        self._timers = timers
        self._fired = fired
        self._running: dict[Timer, tuple[int, int]] = {}
        self._serial = 0

    def start(self, timer: Timer, seconds: float) -> None:
        """Start a timer, in the place of one that runs."""
        self.stop(timer)
        self._serial += 1
        serial = self._serial
        self._running[timer] = (serial, self._timers.after(seconds, lambda: self._fired(timer, serial)))

    def stop(self, timer: Timer) -> None:
        """Stop a timer, if it runs."""
        running = self._running.pop(timer, None)
        if running is not None:
            self._timers.cancel(running[1])

    def serial_of(self, timer: Timer) -> int | None:
        """Return the number of a timer that runs; None if it doesn't."""
        running = self._running.get(timer)
        return running[0] if running else None

    def stop_all(self) -> None:
        """Stop every timer."""
        for timer in list(self._running):
            self.stop(timer)

    def take(self, timer: Timer, serial: int) -> bool:
        """Say if this is the timer that runs, and forget it.

        One that was stopped, or started anew, while its call waited for a worker has not fired.
        """
        if self.serial_of(timer) != serial:
            return False
        del self._running[timer]
        return True
