"""Real images (pydicom's own and pydicom-data) and the raw bytes of their data sets."""

import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pydicom
from pydicom.data import get_testdata_file

MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
# What is in these packages beside DICOM.
_NO_DICOM: Final = {".py", ".pyc", ".json", ".md", ".txt", ".dump", ".icc", ".gz"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One stored object: what C-STORE needs, and its data set exactly as the file holds it.

    The UIDs are those of the data set (what storescu sends); the file meta information's where the data set has none.
    `in_data_set` says if the data set states its own SOP Instance UID.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes
    in_data_set: bool

    @property
    def name(self) -> str:
        """File name, for test ids."""
        return self.path.name


def _file_meta(raw: bytes) -> tuple[dict[int, str], int]:
    """Walk group 0002 (PS3.10 §7.1, Explicit VR Little Endian): values by element, and where the data set begins."""
    values: dict[int, str] = {}
    offset = 132
    while offset + 8 <= len(raw):
        group, element, vr, length = struct.unpack_from("<HH2sH", raw, offset)
        if group != 0x0002:
            break
        offset += 8
        if vr in {b"OB", b"UN", b"OW"}:
            (length,) = struct.unpack_from("<I", raw, offset)
            offset += 4
        values[element] = raw[offset : offset + length].rstrip(b"\0 ").decode("latin-1")
        offset += length
    return values, offset


def read_sample(path: Path) -> Sample | None:
    """Read a Part 10 file; None if it has no file meta information that C-STORE could use.

    The data set is what follows the meta group in the file: neither decoded nor encoded again.
    """
    raw = path.read_bytes()
    if raw[128:132] != b"DICM":
        return None
    meta, offset = _file_meta(raw)
    if not all(meta.get(element) for element in (0x0002, 0x0003, 0x0010)):
        return None
    with warnings.catch_warnings():
        # Some of these files are odd on purpose, and pydicom says so.
        warnings.simplefilter("ignore")
        try:
            head = pydicom.dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        except (EOFError, ValueError, KeyError, NotImplementedError, pydicom.errors.InvalidDicomError):
            head = pydicom.Dataset()
    stated = str(head.get("SOPInstanceUID", "") or "")
    return Sample(
        path=path,
        sop_class_uid=str(head.get("SOPClassUID", "") or "") or meta[0x0002],
        sop_instance_uid=stated or meta[0x0003],
        transfer_syntax_uid=meta[0x0010],
        data_set=raw[offset:],
        in_data_set=bool(stated),
    )


@cache
def sample(name: str) -> Sample:
    """Return one of pydicom's bundled files by name."""
    found = get_testdata_file(name, download=False)
    if not isinstance(found, str):
        raise LookupError(name)
    read = read_sample(Path(found))
    if read is None:
        raise LookupError(name)
    return read


def _bare_sample(path: Path, number: int) -> Sample:
    """Read a file without the file meta information that C-STORE needs; what it lacks is made up.

    Preamble and meta group are taken away where they are there; the transfer syntax is the one of the bytes.
    """
    raw = path.read_bytes()
    meta, offset = _file_meta(raw) if raw[128:132] == b"DICM" else ({}, 0)
    data = raw[offset:]
    syntax = meta.get(0x0010) or (BIG_ENDIAN if data[:1] == b"\0" else EXPLICIT if data[4:6].isalpha() else IMPLICIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = pydicom.dcmread(path, force=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    stated = str(head.get("SOPInstanceUID", "") or "")
    return Sample(
        path=path,
        sop_class_uid=str(head.get("SOPClassUID", "") or "") or SECONDARY_CAPTURE,
        sop_instance_uid=stated or f"1.2.826.0.1.3680043.10.543.3.{number}",
        transfer_syntax_uid=syntax,
        data_set=data,
        in_data_set=bool(stated),
    )


def _packages() -> list[Path]:
    """Return where pydicom and pydicom-data keep their files."""
    store = find_spec("data_store")
    directories = [Path(pydicom.__file__).parent / "data"]
    return directories if store is None or store.origin is None else [*directories, Path(store.origin).parent]


def all_samples() -> Iterator[Sample]:
    """Yield every storable file of pydicom and pydicom-data, equal ones once, malformed ones too.

    Directories of media are not stored by C-STORE, and what has no data set at all is nothing to store.
    """
    seen: set[bytes] = set()
    paths = [path for directory in _packages() for path in directory.rglob("*") if path.is_file()]
    for path in sorted(paths):
        content = path.read_bytes()
        if path.suffix in _NO_DICOM or path.name == "README" or content in seen:
            continue
        seen.add(content)
        read = read_sample(path) or _bare_sample(path, len(seen))
        if read.sop_class_uid != MEDIA_STORAGE_DIRECTORY:
            yield read
