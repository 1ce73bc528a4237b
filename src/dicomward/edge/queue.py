"""What is sent next: study after study, in the order of arrival, or the newest study first.

Rules of this file: arithmetic; the time is an argument, and nobody here knows what a file is. Nothing takes longer the
more waits, but for the logarithm: after a week without network there are a hundred thousand.
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


# A name's complement sorts the other way round; names are equally long as far as they differ.
_COMPLEMENT = bytes(255 - number for number in range(256))


class SendQueue:
    """All objects of one device that are to be sent. Not thread-safe."""

    def __init__(self, *, newest_first: bool) -> None:
        self._newest_first = newest_first
        self._all: dict[str, Waiting] = {}
        self._studies: dict[str, _Study] = {}
        # Heaps: what is done or has a later entry is left in them, and dropped when it comes up.
        self._turns: list[tuple[bytes, str, str]] = []
        self._later: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._arrivals: list[str] = []
        self._unmarked: list[str] = []

    def __len__(self) -> int:
        """Return how many are not delivered, those under way included."""
        return len(self._all)

    def add(self, waiting: Waiting, *, is_overdue: bool = False, due: float | None = None) -> None:
        """Add what has just been accepted, or was found at the start; not to be taken before `due`."""
        self._all[waiting.name] = waiting
        heappush(self._arrivals, waiting.name)
        if not is_overdue:
            heappush(self._unmarked, waiting.name)
        self.give_back(waiting, due=due)

    def _line_up(self, waiting: Waiting) -> None:
        study = self._studies.get(waiting.study)
        if study is None:
            study = self._studies[waiting.study] = _Study(waiting.name)
            turn = waiting.name.encode()
            heappush(
                self._turns,
                (turn.translate(_COMPLEMENT) if self._newest_first else turn, waiting.name, waiting.study),
            )
        heappush(study.heap, (waiting.name, waiting))

    def take(self, now: float) -> Waiting | None:
        """Return what is sent next, and count it as under way."""
        while self._later and self._later[0][0] <= now:
            due, name = heappop(self._later)
            if self._due.get(name) == due:
                del self._due[name]
                self._line_up(self._all[name])
        while self._turns:
            _turn, first, key = self._turns[0]
            study = self._studies.get(key)
            if study is None or study.first != first:
                heappop(self._turns)
                continue
            # In one study always as it came: a viewer shows the first slices first.
            _name, waiting = heappop(study.heap)
            if not study.heap:
                del self._studies[key]
            return waiting
        return None

    def give_back(self, waiting: Waiting, *, due: float | None = None) -> None:
        """Put back what could not be delivered; not to be taken again before `due`, if that is given."""
        if waiting.name not in self._all:
            return
        if due is None:
            self._line_up(waiting)
        else:
            self._due[waiting.name] = due
            heappush(self._later, (due, waiting.name))

    def recall(self) -> None:
        """Let everything that waits for its time be taken now."""
        for name in self._due:
            self._line_up(self._all[name])
        self._due.clear()
        self._later.clear()

    def has(self, waiting: Waiting) -> bool:
        """Say if it isn't delivered yet."""
        return waiting.name in self._all

    def done(self, waiting: Waiting) -> None:
        """Forget what was delivered or put aside."""
        self._all.pop(waiting.name, None)
        self._due.pop(waiting.name, None)

    def next_due(self) -> float | None:
        """Return when the next of those that must wait may be taken."""
        while self._later and self._due.get(self._later[0][1]) != self._later[0][0]:
            heappop(self._later)
        return self._later[0][0] if self._later else None

    def oldest(self) -> float | None:
        """Return when the oldest that isn't delivered was received."""
        while self._arrivals and self._arrivals[0] not in self._all:
            heappop(self._arrivals)
        return self._all[self._arrivals[0]].received if self._arrivals else None

    def take_overdue(self, before: float) -> list[Waiting]:
        """Return what was received before then and is not delivered; each once. It stays in the queue."""
        overdue: list[Waiting] = []
        while self._unmarked:
            waiting = self._all.get(self._unmarked[0])
            if waiting is not None and waiting.received >= before:
                break
            heappop(self._unmarked)
            if waiting is not None:
                overdue.append(waiting)
        return overdue
