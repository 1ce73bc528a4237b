"""How many reverse connections an agent keeps ready for a device, and when it opens the next one.

`now` is monotonic seconds; `draw` gives a number from 0 to 1, so that agents don't all come back at once.
"""

from collections.abc import Callable
from typing import Final

# Who is sent away sooner than this was not welcome; after it, something in between has ended the connection.
WELCOME_SECONDS: Final = 5.0
FIRST_DELAY_SECONDS: Final = 1.0
MOST_DELAY_SECONDS: Final = 30.0
# A gateway that doesn't know of them may be a newer one tomorrow.
NOT_OFFERED_SECONDS: Final = 600.0


class Spares:
    """The reverse connections of one device, as numbers."""

    def __init__(self, wanted: int, draw: Callable[[], float]) -> None:
        self._wanted = wanted
        self._draw = draw
        self._failures = 0
        self._not_before = float("-inf")
        self._is_opening = 0
        self.parked = 0
        self.used = 0
        self.is_offered: bool | None = None
        self.problem = ""

    def missing(self, now: float) -> int:
        """Return how many are to be opened now: after a failure one alone tries."""
        missing = self._wanted - self.parked - self._is_opening
        if now < self._not_before or missing <= 0:
            return 0
        return max(1 - self._is_opening, 0) if self._failures else missing

    def seconds_left(self, now: float) -> float | None:
        """Return in how many seconds to ask for `missing` again; None while something happens anyway."""
        if self.parked + self._is_opening >= self._wanted or now >= self._not_before:
            return None
        return self._not_before - now

    def opening(self) -> None:
        """Note that one is being opened."""
        self._is_opening += 1

    def opened(self) -> None:
        """Note that one stands; how welcome it is, time will tell."""
        self._is_opening -= 1
        self.parked += 1
        self.is_offered = True

    def took(self) -> None:
        """Note that the gateway has begun to use one."""
        self.parked -= 1
        self.used += 1
        self._welcome()

    def lasted(self) -> None:
        """Note that one has stood for WELCOME_SECONDS."""
        self._welcome()

    def lost(self, now: float, seconds: float, why: str) -> None:
        """Note that one that stood for so many seconds has ended unused."""
        self.parked -= 1
        if seconds < WELCOME_SECONDS:
            self._failed(now, f"the gateway has ended it at once ({why}); its audit log says why")
        else:
            self._welcome()
            self._not_before = now + self._draw() * FIRST_DELAY_SECONDS

    def failed(self, now: float, why: str) -> None:
        """Note that one could not be opened."""
        self._is_opening -= 1
        self._failed(now, why)

    def not_offered(self, now: float) -> bool:
        """Note that the peer knows no reverse connections; True if that is news."""
        self._is_opening -= 1
        is_news, self.is_offered = self.is_offered is not False, False
        self._failures = 1
        self._not_before = now + NOT_OFFERED_SECONDS
        self.problem = "the upstream offers no reverse connections"
        return is_news

    def _welcome(self) -> None:
        self._failures = 0
        self.problem = ""

    def _failed(self, now: float, why: str) -> None:
        self.problem = why
        if now < self._not_before:
            # Another one of the same attempt.
            return
        delay = min(FIRST_DELAY_SECONDS * 2**self._failures, MOST_DELAY_SECONDS)
        self._failures = min(self._failures + 1, 16)
        self._not_before = now + delay * (0.5 + self._draw() / 2)
