"""Resident memory of a process and of everything that it has started, watched all the time."""

import threading
from pathlib import Path

_PAGE = 4096


def family_of(root: int) -> set[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, left = set(), [root]
    while left:
        each = left.pop()
        found.add(each)
        left += children.get(each, [])
    return found


def resident_mib(root: int) -> float:
    """Return the memory of all of them together; pages that they share count once for each."""
    total = 0
    for each in family_of(root):
        try:
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1])
        except OSError:
            continue
    return total * _PAGE / (1 << 20)


class Watch:
    """Notes the peak; context manager."""

    def __init__(self, root: int) -> None:
        self._root = root
        self.start = self.peak = resident_mib(root)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=5)

    @property
    def now(self) -> float:
        """What is resident now."""
        return resident_mib(self._root)

    def _run(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, self.now)
