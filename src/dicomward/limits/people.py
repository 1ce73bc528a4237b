"""Back-off for wrong passcodes and tokens: arithmetic of failures in time. Time is an argument (monotonic seconds).

A person's failures make that person wait on every device, but never for long: who knows only a name must not be able to
lock its owner out for a shift. A device's failures make everybody at that device wait longer.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

FREE_PERSON_FAILURES: Final = 5
FREE_DEVICE_FAILURES: Final = 20
PERSON_SECONDS: Final = 60.0
DEVICE_SECONDS: Final = 900.0
FORGOTTEN_SECONDS: Final = 3600.0
MOST_KEPT: Final = 10_000
_MOST_DOUBLINGS: Final = 16


@dataclass(slots=True)
class _Failures:
    count: int
    last: float
    until: float


class PersonBackOff:
    """Counts failures by person and by device; not thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], _Failures] = OrderedDict()

    def seconds_left(self, *, person: str, device: str, now: float) -> float:
        """Return for how long this person at this device isn't listened to; 0 for not at all."""
        kept = (self._kept.get(key) for key in self._keys(person, device))
        return max((max(each.until - now, 0.0) for each in kept if each is not None), default=0.0)

    def note_failure(self, *, person: str, device: str, now: float) -> float:
        """Count a failure; return the seconds of back-off that begin, 0 for none."""
        waits = [
            self._count(key, now, free, most)
            for key, free, most in zip(
                self._keys(person, device),
                (FREE_DEVICE_FAILURES, FREE_PERSON_FAILURES),
                (DEVICE_SECONDS, PERSON_SECONDS),
                strict=False,
            )
        ]
        return max(waits)

    def note_success(self, *, person: str, device: str) -> None:
        """Forget the failures of a person; those of the device stay, or one good passcode would free all guesses."""
        for key in self._keys(person, device)[1:]:
            self._kept.pop(key, None)

    @staticmethod
    def _keys(person: str, device: str) -> list[tuple[str, str]]:
        # A token that isn't proved names nobody.
        return [("device", device), *([("person", person)] if person else [])]

    def _count(self, key: tuple[str, str], now: float, free: int, most: float) -> float:
        failures = self._kept.pop(key, None)
        if failures is None or now - failures.last > FORGOTTEN_SECONDS:
            failures = _Failures(0, now, now)
        failures.count += 1
        failures.last = now
        # A number that grows without end would be too large for a float one day.
        doublings = min(failures.count - free, _MOST_DOUBLINGS)
        seconds = 0.0 if doublings < 0 else min(2.0**doublings, most)
        failures.until = now + seconds
        self._kept[key] = failures
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return seconds
