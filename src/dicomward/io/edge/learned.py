"""What the archive has accepted last, kept in a file: offline the agent accepts just that."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from dicomward.edge.contexts import MOST_CONTEXTS, Pair, propose
from dicomward.io.edge.link import Link
from dicomward.io.system import calls

_REFUSED_SECONDS: Final = 600.0


class Learned:
    """The pairs of one device, by calling and called AE title. Thread-safe."""

    def __init__(self, path: Path, connect: Callable[..., Link]) -> None:
        self._path = path
        self._connect = connect
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], dict[Pair, bool]] = {}
        self._asked: dict[tuple[str, str], float] = {}
        if path.exists():
            for entry in json.loads(path.read_text("utf-8")):
                titles = (entry["calling"], entry["called"])
                self._known[titles] = {(a, t): accepted for a, t, accepted in entry["pairs"]}

    def known(self, titles: tuple[str, str]) -> dict[Pair, bool]:
        """Return what is known."""
        with self._lock:
            return dict(self._known.get(titles, {}))

    def known_for_now(self, titles: tuple[str, str]) -> dict[Pair, bool]:
        """Return what need not be asked: what was refused a while ago may be accepted by now."""
        with self._lock:
            known = self._known.get(titles, {})
            is_fresh = time.monotonic() < self._asked.get(titles, float("-inf")) + _REFUSED_SECONDS
            return {pair: accepted for pair, accepted in known.items() if accepted or is_fresh}

    def ask(self, titles: tuple[str, str], pairs: Iterable[Pair]) -> None:
        """Ask the archive for pairs, as many as there are. Raises LinkDown."""
        waiting = list(pairs)
        while waiting:
            link = self._connect(
                calling_ae_title=titles[0], called_ae_title=titles[1], proposed=propose(waiting[:MOST_CONTEXTS])
            )
            self.note(titles, link)
            with self._lock:
                self._asked[titles] = time.monotonic()
            link.release()
            del waiting[:MOST_CONTEXTS]

    def note(self, titles: tuple[str, str], link: Link) -> None:
        """Remember what an association has shown."""
        with self._lock:
            known = self._known.setdefault(titles, {})
            before = dict(known)
            known.update(dict.fromkeys(link.contexts, True))
            known.update(dict.fromkeys(link.refused, False))
            if known != before:
                self._write()

    def note_accepted(self, titles: tuple[str, str], pair: Pair) -> None:
        """Remember a pair that the archive has accepted on an association of the device's own."""
        with self._lock:
            known = self._known.setdefault(titles, {})
            if not known.get(pair):
                known[pair] = True
                self._write()

    def _write(self) -> None:
        entries = [
            {"calling": calling, "called": called, "pairs": [[a, t, accepted] for (a, t), accepted in known.items()]}
            for (calling, called), known in self._known.items()
        ]
        new = self._path.with_suffix(".new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(entries, file)
            file.flush()
            os.fsync(file.fileno())
        calls.replace(new, self._path)
