"""What is sent next: study after study, in the order of arrival, or the newest study first.

Rules of this file: arithmetic; the time is an argument, and nobody here knows what a file is.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One object that waits: `name` is unique and sorts by arrival; `study` stands for its study."""

    name: str
    study: str
    size: int
    received: float


@dataclass(slots=True)
class _Study:
    first: str
    heap: list[tuple[str, Waiting]] = field(default_factory=list)


class SendQueue:
    """All objects of one device that are to be sent. Not thread-safe."""

    def __init__(self, *, newest_first: bool) -> None:
        self._newest_first = newest_first
        self._studies: dict[str, _Study] = {}
        self._taken: dict[str, Waiting] = {}
        self._later: dict[str, tuple[float, Waiting]] = {}

    def __len__(self) -> int:
        """Return how many are not delivered, those under way included."""
        return len(self._taken) + len(self._later) + sum(len(study.heap) for study in self._studies.values())

    def add(self, waiting: Waiting) -> None:
        """Add what has just been accepted, or was found at the start."""
        study = self._studies.setdefault(waiting.study, _Study(waiting.name))
        heappush(study.heap, (waiting.name, waiting))

    def take(self, now: float) -> Waiting | None:
        """Return what is sent next, and count it as under way."""
        for name, (due, waiting) in list(self._later.items()):
            if due <= now:
                del self._later[name]
                self.add(waiting)
        if not self._studies:
            return None
        choose = max if self._newest_first else min
        key = choose(self._studies, key=lambda each: self._studies[each].first)
        study = self._studies[key]
        # In one study always as it came: a viewer shows the first slices first.
        _name, waiting = heappop(study.heap)
        if not study.heap:
            del self._studies[key]
        self._taken[waiting.name] = waiting
        return waiting

    def give_back(self, waiting: Waiting, *, due: float | None = None) -> None:
        """Put back what could not be delivered; not to be taken again before `due`, if that is given."""
        if self._taken.pop(waiting.name, None) is None:
            return
        if due is None:
            self.add(waiting)
        else:
            self._later[waiting.name] = (due, waiting)

    def done(self, waiting: Waiting) -> None:
        """Forget what was delivered or put aside."""
        self._taken.pop(waiting.name, None)

    def next_due(self) -> float | None:
        """Return when the next of those that must wait may be taken."""
        return min((due for due, _waiting in self._later.values()), default=None)

    def oldest(self) -> float | None:
        """Return when the oldest that isn't delivered was received."""
        everything = [*self._taken.values(), *(waiting for _due, waiting in self._later.values())]
        everything += [study.heap[0][1] for study in self._studies.values()]
        return min((each.received for each in everything), default=None)
