"""What a session measures time with: the moment of an input, and the timers that its relay has asked for."""

import math
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
    """The running timers of one session, at most one of each kind. The session's lock covers them.

    They share one call of the engine, for the earliest moment that any of them has asked for: most are stopped, or
    started anew, long before they are due, and need not be told to the engine at all.
    """

    __slots__ = ("_at", "_call", "_due", "_fired", "_timers")

    def __init__(self, timers: Timers, fired: Callable[[], None]) -> None:
        """Take what is called when a timer may be due: `take_due` says which."""
        self._timers = timers
        self._fired = fired
        self._due: dict[Timer, float] = {}
        self._call: int | None = None
        self._at = math.inf

    def start(self, timer: Timer, seconds: float) -> None:
        """Start a timer, in the place of one that runs."""
        now = time.monotonic()
        self._due[timer] = now + seconds
        if now + seconds < self._at:
            self._call_in(seconds, now)

    def stop(self, timer: Timer) -> None:
        """Stop a timer, if it runs."""
        self._due.pop(timer, None)

    def is_running(self, timer: Timer) -> bool:
        """Say if a timer runs."""
        return timer in self._due

    def stop_all(self) -> None:
        """Stop every timer, and let the engine forget the session."""
        self._due.clear()
        self._take_back()

    def take_due(self) -> Timer | None:
        """Return the timer that is due first, and forget it; None if none is due: then it is called again in time."""
        if not self._due:
            return None
        now = time.monotonic()
        timer = min(self._due, key=self._due.__getitem__)
        if self._due[timer] <= now:
            del self._due[timer]
            return timer
        self._call_in(self._due[timer] - now, now)
        return None

    def _call_in(self, seconds: float, now: float) -> None:
        self._take_back()
        self._at = now + seconds
        self._call = self._timers.after(seconds, self._fired)

    def _take_back(self) -> None:
        if self._call is not None:
            self._timers.cancel(self._call)
            self._call = None
            self._at = math.inf
