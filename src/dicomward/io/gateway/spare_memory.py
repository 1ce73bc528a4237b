"""Memory that a crowd of connections has left behind goes back to the operating system."""

import ctypes
import gc
from typing import Final

# A crowd: fewer connections leave little behind.
CROWD: Final = 128


def _trim() -> None:
    """Ask the C library for it; one that has no such function keeps its free memory."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class SpareMemory:
    """Knows the largest crowd since memory was last given back. Not thread-safe: the gate locks."""

    def __init__(self) -> None:
        self._most = 0

    def is_due(self, connections: int) -> bool:
        """Note how many connections are open; say, once for each crowd, if three quarters of it have gone."""
        self._most = max(self._most, connections)
        if self._most < CROWD or connections > self._most // 4:
            return False
        self._most = connections
        return True

    def give_back(self) -> None:
        """Give back what nothing uses: some milliseconds, after a crowd only."""
        gc.collect()
        _trim()
