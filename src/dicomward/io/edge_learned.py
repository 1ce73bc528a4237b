"""What the archive has accepted last, kept in a file: offline the agent accepts just that."""

import json
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from dicomward.edge.contexts import MOST_CONTEXTS, Pair, propose
from dicomward.io.edge_link import Link, LinkDown

_SEPARATOR: Final = "|"


class Learned:
    """The pairs of one device, by calling and called AE title. Thread-safe."""

    def __init__(self, path: Path, connect: Callable[..., Link]) -> None:
        self._path = path
        self._connect = connect
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], dict[Pair, bool]] = {}
        if path.exists():
            for entry in json.loads(path.read_text("utf-8")):
                titles = (entry["calling"], entry["called"])
                self._known[titles] = {(a, t): accepted for a, t, accepted in entry["pairs"]}

    def known(self, titles: tuple[str, str]) -> dict[Pair, bool]:
        """Return what is known."""
        with self._lock:
            return dict(self._known.get(titles, {}))

    def ask(self, titles: tuple[str, str], pairs: Iterable[Pair]) -> None:
        """Ask the archive for pairs; does nothing if it can't be asked. Raises LinkDown."""
        waiting = list(pairs)
        while waiting:
            link = self._connect(
                calling_ae_title=titles[0], called_ae_title=titles[1], proposed=propose(waiting[:MOST_CONTEXTS])
            )
            self.note(titles, link)
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
        new.replace(self._path)


__all__ = ["Learned", "LinkDown"]
