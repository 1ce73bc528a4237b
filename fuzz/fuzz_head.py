"""Promise: bytes give a head, or HeadUnreadable; and more bytes never change what a prefix has shown.

The depth of sequences is the same however the data set is cut, and nothing but an error of the room leaves its gauge.

The first byte of an input chooses the transfer syntax, the second where the prefix ends.
"""

import struct
import zlib

import harness

with harness.instrumented():
    from dicomward.dicom.errors import RemoteProtocolError
    from dicomward.dicom.framing import DataRun, encode_p_data
    from dicomward.dicom.head import MAX_VALUE_BYTES, Head, HeadUnreadable, scan_head
    from dicomward.dicom.nesting import NestingGauge

IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
)
SYNTAXES = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
SOP_INSTANCE_UID = 0x00080018

_ELEMENTS = (
    (0x0005, b"CS", b"ISO_IR 100"),
    (0x0016, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
    (0x0018, b"UI", b"1.2.3\0"),
)
_IMPLICIT = b"".join(struct.pack("<HHI", 8, number, len(value)) + value for number, _, value in _ELEMENTS)
_EXPLICIT = b"".join(struct.pack("<HH2sH", 8, number, vr, len(value)) + value for number, vr, value in _ELEMENTS)
_BIG = b"".join(struct.pack(">HH2sH", 8, number, vr, len(value)) + value for number, vr, value in _ELEMENTS)
_DELIMITERS = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
_SEQUENCE = (
    struct.pack("<HH2sHIHHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) + _EXPLICIT + _DELIMITERS
)
_NESTED = (
    struct.pack("<HH2sHIHHI", 8, 0x0006, b"UN", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) + _IMPLICIT + _DELIMITERS
)


def _deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


SEEDS = [
    b"\x00\x80" + _IMPLICIT,
    b"\x01\x80" + _EXPLICIT + _SEQUENCE,
    b"\x01\x20" + _NESTED + _EXPLICIT,
    b"\x02\x80" + _BIG,
    b"\x03\x80" + _deflated(_EXPLICIT + _SEQUENCE),
]


def _scan(data: bytes, syntax: str, stop_after: int, *, complete: bool) -> Head | None:
    try:
        return scan_head(data, syntax, stop_after=stop_after, complete=complete)
    except HeadUnreadable:
        return None


def _is_shallow(body: bytes, syntax: str, size: int) -> bool:
    """Say if a gauge of 2 levels lets the data set pass in fragments of `size` bytes."""
    view = memoryview(encode_p_data(1, body, size + 6, command=False))
    try:
        NestingGauge(syntax, 2).look(DataRun(1, view, len(body), size + 6, last=True))
    except RemoteProtocolError:
        return False
    return True


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    syntax, body = SYNTAXES[data[0] & 3], data[2:]
    cut = len(body) * data[1] // 256
    # How far a bomb may have grown depends on how much of it has come.
    if _is_shallow(body, syntax, 4096) is not _is_shallow(body, syntax, 1 + data[1] % 32) and syntax != DEFLATED:
        raise AssertionError("the depth depends on the cuts")
    for stop_after in (SOP_INSTANCE_UID, 0xFFFFFFFF):
        for complete in (False, True):
            whole = _scan(body, syntax, stop_after, complete=complete)
            if whole is None:
                continue
            if complete and not whole.finished:
                raise AssertionError("a complete data set is neither finished nor unreadable")
            if any(value is not None and len(value) > MAX_VALUE_BYTES for value in whole.values.values()):
                raise AssertionError("a value is longer than the bound")
            prefix = _scan(body[:cut], syntax, stop_after, complete=False)
            if prefix is None or not prefix.values.items() <= whole.values.items():
                raise AssertionError("a prefix shows what the whole does not have")
            if prefix.finished and prefix.values != whole.values:
                raise AssertionError("a finished head changes")


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
