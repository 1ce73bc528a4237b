import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from dicomward.dicom.errors import LimitExceeded, RemoteProtocolError
from dicomward.dicom.framing import DataRun
from dicomward.dicom.nesting import NestingGauge
from tests.dicom.builders import EXPLICIT, IMPLICIT, explicit, implicit

BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
UNDEFINED = 0xFFFFFFFF
SEQUENCE, PRIVATE, PATIENT_ID, PIXELS = 0x00081140, 0x00091010, 0x00100020, 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
LONG = b"x" * 300


def run_of(data: bytes, *, last: bool, size: int) -> DataRun:
    """Return a run as framing gives it: PDUs of one fragment each."""
    parts = [data[at : at + size] for at in range(0, max(len(data), 1), size)]
    pdus = b"".join(
        struct.pack(">BxIIBB", 4, len(part) + 6, len(part) + 2, 1, 2 * (last and number == len(parts) - 1)) + part
        for number, part in enumerate(parts)
    )
    return DataRun(1, memoryview(pdus), len(data), size + 6, last)


def passes(data: bytes, syntax: str, most: int, *, size: int = 4096) -> bool:
    gauge = NestingGauge(syntax, most)
    half = len(data) // 2
    try:
        gauge.look(run_of(data[:half], last=False, size=size))
        gauge.look(run_of(data[half:], last=True, size=size))
    except LimitExceeded:
        return False
    return True


def nested(syntax: str, depth: int, *, defined: bool = False, vr: bytes = b"SQ", inside: bytes = b"") -> bytes:
    """Return sequences in sequences, with an element behind them."""
    for _ in range(depth):
        end, stop = (b"", b"") if defined else (implicit(ITEM_END, b""), implicit(SEQUENCE_END, b""))
        # The length of what has none is written at last.
        body = implicit(ITEM, inside + end, length=len(inside) if defined else UNDEFINED) + stop
        length = len(body) if defined else UNDEFINED
        if syntax == IMPLICIT:
            inside = implicit(SEQUENCE, body, length=length)
        else:
            inside = explicit(SEQUENCE, vr, body, length=length)
    behind = implicit(PATIENT_ID, LONG) if syntax == IMPLICIT else explicit(PATIENT_ID, b"LO", LONG)
    return inside + behind


def in_big_endian(depth: int) -> bytes:
    head = struct.pack(">HH2s2xI", 0x0008, 0x1140, b"SQ", UNDEFINED) + struct.pack(">HHI", 0xFFFE, 0xE000, UNDEFINED)
    tail = struct.pack(">HHI", 0xFFFE, 0xE00D, 0) + struct.pack(">HHI", 0xFFFE, 0xE0DD, 0)
    return head * depth + tail * depth


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


SHAPES: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "implicit": (IMPLICIT, lambda depth: nested(IMPLICIT, depth)),
    "implicit-with-lengths": (IMPLICIT, lambda depth: nested(IMPLICIT, depth, defined=True)),
    "explicit": (EXPLICIT, lambda depth: nested(EXPLICIT, depth)),
    "explicit-with-lengths": (EXPLICIT, lambda depth: nested(EXPLICIT, depth, defined=True)),
    "jpeg": (JPEG, lambda depth: nested(EXPLICIT, depth)),
    "other-than-declared": (EXPLICIT, lambda depth: implicit(0x00080005, b"") + nested(IMPLICIT, depth)),
    "big-endian": (BIG_ENDIAN, in_big_endian),
    "deflated": (DEFLATED, lambda depth: deflated(nested(EXPLICIT, depth))),
    # What is inside an UN is Implicit VR Little Endian, whatever is around it (PS3.5 §6.2.2).
    "un": (EXPLICIT, lambda depth: explicit(SEQUENCE, b"UN", implicit(ITEM, nested(IMPLICIT, depth - 1)))),
    "un-without-a-length": (
        EXPLICIT,
        lambda depth: explicit(
            SEQUENCE,
            b"UN",
            implicit(ITEM, nested(IMPLICIT, depth - 1) + implicit(ITEM_END, b""), length=UNDEFINED)
            + implicit(SEQUENCE_END, b""),
            length=UNDEFINED,
        ),
    ),
}


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("name", list(SHAPES))
def test_deeper_ones_are_seen_however_they_are_written(name: str, size: int) -> None:
    syntax, shape = SHAPES[name]
    for most in (1, 3, 20):
        assert passes(shape(most), syntax, most, size=size)
        assert not passes(shape(most + 1), syntax, most, size=size)


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_what_lies_side_by_side_is_not_deep(size: int) -> None:
    for data, syntax in (
        (nested(IMPLICIT, 2) * 50, IMPLICIT),
        (nested(EXPLICIT, 2, defined=True) * 50, EXPLICIT),
        (deflated(nested(EXPLICIT, 2) * 50), DEFLATED),
    ):
        assert passes(data, syntax, 2, size=size)
        assert not passes(data, syntax, 1, size=size)


def test_it_is_seen_before_its_end_has_come() -> None:
    """Nothing of it but a few levels more than allowed may reach the archive."""
    gauge = NestingGauge(EXPLICIT, 10)
    level = explicit(SEQUENCE, b"SQ", b"", length=UNDEFINED) + implicit(ITEM, b"", length=UNDEFINED)
    for _ in range(10):
        gauge.look(run_of(level, last=False, size=4096))
    with pytest.raises(LimitExceeded, match="nested more than 10 deep"):
        gauge.look(run_of(level * 3, last=False, size=4096))


FRAGMENTS = (
    implicit(ITEM, b"")
    + implicit(ITEM, explicit(SEQUENCE, b"SQ", implicit(ITEM, b"", length=UNDEFINED), length=UNDEFINED) * 100)
    + implicit(SEQUENCE_END, b"")
)


@pytest.mark.parametrize(
    ("syntax", "data"),
    [
        (JPEG, explicit(PIXELS, b"OB", FRAGMENTS, length=UNDEFINED) + nested(EXPLICIT, 1)),
        (IMPLICIT, implicit(PIXELS, implicit(ITEM, b"", length=UNDEFINED) * 100)),
        (EXPLICIT, explicit(PRIVATE, b"OB", implicit(ITEM, b"", length=UNDEFINED) * 100)),
        (EXPLICIT, explicit(PRIVATE, b"UN", b"\1" * 100 + implicit(ITEM, b"", length=UNDEFINED) * 100)),
        (IMPLICIT, implicit(ITEM_END, b"") * 5 + implicit(SEQUENCE_END, b"") * 5 + implicit(PATIENT_ID, b"P")),
        (IMPLICIT, b""),
        (IMPLICIT, b"\x08\0\x18\0"),
        (EXPLICIT, explicit(SEQUENCE, b"SQ", implicit(ITEM, b"", length=0) * 200)),
        (EXPLICIT, explicit(SEQUENCE, b"SQ", b"") * 200),
    ],
    ids=[
        *("fragments", "pixels", "bytes", "unknown-bytes", "delimiters-of-nothing", "nothing", "half-a-header"),
        *("empty-items", "empty-sequences"),
    ],
)
@pytest.mark.parametrize("size", [1, 4096])
def test_what_only_looks_deep_passes(syntax: str, data: bytes, size: int) -> None:
    assert passes(data, syntax, 1, size=size)


def test_items_in_items_have_a_bound_as_well() -> None:
    assert not passes(implicit(SEQUENCE, implicit(ITEM, b"", length=UNDEFINED) * 9, length=UNDEFINED), IMPLICIT, 2)


def test_a_sequence_that_ends_without_the_end_of_its_item_is_over() -> None:
    data = explicit(
        SEQUENCE, b"SQ", implicit(ITEM, b"", length=UNDEFINED) + implicit(SEQUENCE_END, b""), length=UNDEFINED
    )
    assert passes(data * 50, EXPLICIT, 1)


def test_a_delimiter_inside_a_length_ends_nothing() -> None:
    inside = implicit(SEQUENCE_END, b"") + implicit(ITEM_END, b"")
    one = explicit(SEQUENCE, b"SQ", implicit(ITEM, inside + explicit(SEQUENCE, b"SQ", b"")))
    assert passes(one, EXPLICIT, 2)
    assert not passes(one, EXPLICIT, 1)


def test_a_bomb_is_not_inflated() -> None:
    assert not passes(deflated(bytes(100_000_000)), DEFLATED, 5)
    assert passes(deflated(explicit(PIXELS, b"OW", bytes(10_000_000))), DEFLATED, 5)


def test_what_cannot_be_inflated_is_an_error() -> None:
    with pytest.raises(RemoteProtocolError, match="inflated"):
        NestingGauge(DEFLATED, 5).look(run_of(b"\xff" * 50, last=True, size=50))


def test_bytes_behind_the_deflated_data_are_not_read() -> None:
    assert passes(deflated(nested(EXPLICIT, 1)) + b"\0" * 50, DEFLATED, 1)


# -- real files --------------------------------------------------------------------------------------------------------


def depth_of(data_set: pydicom.Dataset) -> int:
    return max((1 + max(map(depth_of, each.value), default=0) for each in data_set if each.VR == "SQ"), default=0)


FILES: Sequence[str] = (
    *("CT_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm", "rtplan.dcm", "rtdose.dcm", "test-SR.dcm"),
    *("reportsi.dcm", "nested_priv_SQ.dcm", "JPEG2000.dcm", "image_dfl.dcm", "ExplVR_BigEnd.dcm", "liver_1frame.dcm"),
    *("color-px.dcm", "SC_rgb_rle_2frame.dcm", "waveform_ecg.dcm", "priv_SQ.dcm", "UN_sequence.dcm"),
)


@pytest.mark.parametrize("name", FILES)
def test_real_files_are_as_deep_as_pydicom_says(name: str) -> None:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = pydicom.dcmread(found)
        deep = depth_of(read)
    raw = Path(found).read_bytes()
    data = raw[_begin_of(raw) :]
    syntax = str(read.file_meta.TransferSyntaxUID)
    assert passes(data, syntax, max(deep, 1), size=1000)
    assert deep < 2 or not passes(data, syntax, deep - 1, size=1000)


def _begin_of(raw: bytes) -> int:
    (length,) = struct.unpack_from("<I", raw, 140)
    return 144 + int(length)


@given(st.binary(max_size=200), st.sampled_from([IMPLICIT, EXPLICIT, BIG_ENDIAN]), st.integers(1, 50))
@settings(max_examples=300)
def test_any_bytes_are_judged_alike_however_they_are_cut(data: bytes, syntax: str, size: int) -> None:
    assert passes(data, syntax, 1, size=size) is passes(data, syntax, 1)
