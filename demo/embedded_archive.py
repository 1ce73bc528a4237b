"""A small archive for the demonstration, on pynetdicom: C-ECHO, C-STORE, C-FIND, C-GET and C-MOVE, on loopback only.

    python demo/embedded_archive.py PORT AE_TITLE DIRECTORY [TITLE=PORT ...]

What arrives is kept as it came, byte for byte, and goes out again as it was kept. TITLE=PORT names C-MOVE destinations
on loopback. It authenticates nobody: that is the gateway's work.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

LOOPBACK = "127.0.0.1"
SUCCESS, PENDING, CANNOT_UNDERSTAND = 0x0000, 0xFF00, 0xC000
TRANSFER_SYNTAXES = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
]
UNIQUE_KEY = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


class AsKept(Dataset):
    """A kept object; `path` is its file, from which it is sent without decoding."""

    path: Path


class Archive:
    """Objects in one directory, one Part 10 file each."""

    def __init__(self, ae_title: str, directory: Path, destinations: dict[str, int]) -> None:
        self._directory = directory
        self._destinations = destinations
        self._objects: dict[str, AsKept] = {}
        directory.mkdir(parents=True, exist_ok=True)
        self._ae = AE(ae_title=ae_title)
        self._ae.maximum_associations = 64
        self._ae.network_timeout = 120
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(context.abstract_syntax, TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
        for uid in (
            Verification,
            StudyRootQueryRetrieveInformationModelFind,
            StudyRootQueryRetrieveInformationModelGet,
            StudyRootQueryRetrieveInformationModelMove,
        ):
            self._ae.add_supported_context(uid, TRANSFER_SYNTAXES[:2])

    def serve(self, port: int) -> None:
        """Serve until the process ends."""
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_C_GET, self._get),
            (evt.EVT_C_MOVE, self._move),
        ]
        self._ae.start_server((LOOPBACK, port), block=True, evt_handlers=handlers)

    def _store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        # A UID becomes a file name here, so it has to be one and nothing else.
        if not UID(uid).is_valid or uid in {".", ".."}:
            return CANNOT_UNDERSTAND
        path = self._directory / f"{uid}.dcm"
        partial = path.with_suffix(".partial")
        partial.write_bytes(event.encoded_dataset())
        partial.replace(path)
        kept = AsKept()
        kept.update(dcmread(path, stop_before_pixels=True, force=True))
        kept.path = path
        self._objects[uid] = kept
        return SUCCESS

    def _selected(self, query: Dataset) -> list[AsKept]:
        return [kept for kept in list(self._objects.values()) if _matches(kept, query)]

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        unique = UNIQUE_KEY.get(str(query.get("QueryRetrieveLevel", "")), "StudyInstanceUID")
        found = {str(kept.get(unique)): kept for kept in self._selected(query)}
        for kept in found.values():
            if event.is_cancelled:
                yield 0xFE00, None
                return
            answer = Dataset()
            for element in query:
                if element.keyword == "QueryRetrieveLevel":
                    answer.QueryRetrieveLevel = element.value
                elif element.keyword:
                    setattr(answer, element.keyword, kept.get(element.keyword))
            yield PENDING, answer

    def _get(self, event: Any) -> Iterator[Any]:
        selected = self._selected(event.identifier)
        yield len(selected)
        for kept in selected:
            yield (0xFE00, None) if event.is_cancelled else (PENDING, kept)

    def _move(self, event: Any) -> Iterator[Any]:
        port = self._destinations.get(str(event.move_destination).strip())
        if port is None:
            yield None, None
            return
        selected = self._selected(event.identifier)
        yield LOOPBACK, port, {"contexts": _contexts(selected)}
        yield len(selected)
        for kept in selected:
            yield (0xFE00, None) if event.is_cancelled else (PENDING, kept)


def _matches(kept: Dataset, query: Dataset) -> bool:
    """Say if each key that has a value is equal; enough for a demonstration (no wildcards, no ranges)."""
    for element in query:
        if element.keyword == "QueryRetrieveLevel" or element.VR == "SQ" or not element.value or element.value == "*":
            continue
        wanted = element.value if element.VM > 1 else [element.value]
        if str(kept.get(element.keyword, "")) not in {str(value) for value in wanted}:
            return False
    return True


def _contexts(selected: list[AsKept]) -> list[Any]:
    """Return one presentation context for each pair of SOP class and transfer syntax."""
    from pynetdicom import build_context

    pairs = {(str(kept.SOPClassUID), str(_transfer_syntax(kept))) for kept in selected}
    return [build_context(sop_class, [syntax]) for sop_class, syntax in sorted(pairs)]


def _transfer_syntax(kept: AsKept) -> str:
    return str(dcmread(kept.path, specific_tags=["SOPClassUID"]).file_meta.TransferSyntaxUID)


def _send_files_as_they_are() -> None:
    """Make C-GET's and C-MOVE's sub-operations send a kept object's file instead of encoding it anew."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    send = Association.send_c_store

    def send_kept(self: Any, data_set: Any, *arguments: Any, **options: Any) -> Any:
        return send(self, getattr(data_set, "path", data_set), *arguments, **options)

    Association.send_c_store = send_kept


def main(arguments: list[str]) -> int:
    """Serve."""
    if len(arguments) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    port, ae_title, directory, *destinations = arguments
    _send_files_as_they_are()
    named = {title: int(number) for title, number in (text.split("=", 1) for text in destinations)}
    Archive(ae_title, Path(directory), named).serve(int(port))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
