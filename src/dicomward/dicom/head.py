"""The head of a data set: its first elements, read under bounds and never changed. PS3.5 §7, Annex A.

The data set itself streams past; only a prefix of it is ever held. `scan_head` reads the prefix from its start each
time, so the caller just appends what has come and asks again.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from dicomward.dicom.deviation import Deviation
from dicomward.vocab.uid import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

MAX_VALUE_BYTES: Final = 4096
"""Longer values are reported as present, without their bytes: no key or UID that a rule reads is longer."""

MAX_DEPTH: Final = 32
"""Sequences inside sequences that are skipped; structured reports of real devices stay under 16."""

MAX_INFLATED_BYTES: Final = 262_144
"""What a deflated head may grow to: 64 KiB of text deflates to a quarter; a bomb grows a thousandfold."""

UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
DELIMITER_GROUP: Final = 0xFFFE
# Command elements and delimiters: what holds them is no data set.
_NO_DATA_GROUPS: Final = (0x0000, DELIMITER_GROUP)

# PS3.5 §7.1.2, Table 7.1-2: these have a 16-bit length. Every other VR, also one of the future, has 32 bits.
SHORT_VRS: Final = frozenset(
    vr.encode("ascii")
    for vr in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # noqa: SIM905
)
_LONG: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_KNOWN: Final = SHORT_VRS | _LONG
_UNKNOWN_VR: Final = b"UN"
_MAY_BE_UNDEFINED: Final = frozenset({b"SQ", b"UN", b"OB", b"OW"})

# The data set is deflated as a whole (PS3.5 §A.5, and the two JPIP syntaxes that follow it).
DEFLATED: Final = frozenset({DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
# A private syntax of GE is Implicit VR Little Endian but for its pixel data.
_IMPLICIT: Final = frozenset({IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.113619.5.2"})


class HeadUnreadable(Exception):
    """The bytes are not a data set of this transfer syntax, or its head lies beyond our bounds."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Head:
    """What the prefix holds at the top level.

    `values` maps 32-bit tags to raw values, padding included, in the byte order of the data set; None stands for a
    sequence or a value of more than MAX_VALUE_BYTES. `finished` says that every element up to `stop_after` is in
    `values` and the one behind it has been seen, or that the data set has ended; otherwise more bytes are needed.
    `deviations` names what is wrong and yet can be read in one way only.
    """

    values: Mapping[int, bytes | None]
    finished: bool
    deviations: tuple[str, ...] = ()


class _MoreNeeded(Exception):
    """The prefix ends inside an element."""


class Layout:
    """How element headers look in one transfer syntax."""

    __slots__ = ("explicit", "header", "length", "short")

    def __init__(self, order: str, *, explicit: bool) -> None:
        self.explicit = explicit
        self.header = Struct(order + "HHI")
        self.short = Struct(order + "HH2sH")
        self.length = Struct(order + "I")


IMPLICIT_LITTLE: Final = Layout("<", explicit=False)
_EXPLICIT_LITTLE: Final = Layout("<", explicit=True)
_EXPLICIT_BIG: Final = Layout(">", explicit=True)
_LAYOUTS: Final = {
    **dict.fromkeys(_IMPLICIT, IMPLICIT_LITTLE),
    EXPLICIT_VR_BIG_ENDIAN: _EXPLICIT_BIG,
}


def scan_head(data: bytes | bytearray | memoryview, transfer_syntax: str, *, stop_after: int, complete: bool) -> Head:
    """Read the elements of `data`, the beginning of a data set, up to and with the tag `stop_after`.

    `complete` says that `data` is the whole data set. Raises HeadUnreadable.
    """
    prefix, ended, full = bytes(data), complete, False
    if transfer_syntax in DEFLATED:
        prefix, ended = inflate(prefix)
        full = len(prefix) >= MAX_INFLATED_BYTES
    values: dict[int, bytes | None] = {}
    notes: list[str] = []
    try:
        layout = layout_of(prefix, transfer_syntax, notes)
        finished = _scan(prefix, layout, values, stop_after, notes) or ended
    except _MoreNeeded:
        finished = False
    if not finished:
        if complete or ended:
            raise HeadUnreadable("the data set ends inside an element")
        if full:
            raise HeadUnreadable(f"the head of a deflated data set is longer than {MAX_INFLATED_BYTES} bytes")
    return Head(values, finished, tuple(notes))


def layout_of(data: bytes, transfer_syntax: str, notes: list[str]) -> Layout:
    """Return how the element headers of a data set look; what is odd about it goes into `notes`."""
    return _actual_layout(data, _LAYOUTS.get(transfer_syntax, _EXPLICIT_LITTLE), notes)


def inflate(data: bytes) -> tuple[bytes, bool]:
    """Return what the data inflate to, bounded, and if the end of the deflated data was reached."""
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = decompressor.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise HeadUnreadable(f"the data set cannot be inflated: {error}") from error
    return inflated, decompressor.eof


def _actual_layout(data: bytes, declared: Layout, notes: list[str]) -> Layout:
    """Return the layout that the first element has.

    Some devices send what they have stored without turning it into the transfer syntax that was negotiated. Archives
    read such data sets, so we must see what they see.
    """
    if declared is _EXPLICIT_BIG or len(data) < 8:
        return declared
    _, _, vr, _ = declared.short.unpack_from(data)
    if declared.explicit:
        # A VR is two capital letters, which would make the length more than 16 KiB.
        group, _, length = declared.header.unpack_from(data)
        actual = IMPLICIT_LITTLE if group <= 0x0010 and length <= MAX_VALUE_BYTES else declared
    else:
        # And the other way round.
        actual = _EXPLICIT_LITTLE if vr in _KNOWN else declared
    if actual is not declared:
        notes.append(Deviation.DATA_SET_TRANSFER_SYNTAX)
    return actual


def _scan(data: bytes, layout: Layout, values: dict[int, bytes | None], stop_after: int, notes: list[str]) -> bool:
    """Fill `values`; return True if all up to `stop_after` is there, False if `data` ends between two elements."""
    size, offset, previous = len(data), 0, -1
    explicit, short, header = layout.explicit, layout.short.unpack_from, layout.header.unpack_from
    while size - offset >= 8:
        start = offset + 8
        inner = layout
        if explicit:
            group, element, vr, length = short(data, offset)
            if vr not in SHORT_VRS:
                start, length, inner = _read_long(data, offset, layout, vr)
        else:
            group, element, length = header(data, offset)
        tag = group << 16 | element
        if tag <= previous or group in _NO_DATA_GROUPS:
            note = _judge_order(tag, length, data[start : start + MAX_VALUE_BYTES], values)
            notes += () if note in notes else (note,)
        else:
            previous = tag
        if tag > stop_after:
            return True
        if length > MAX_VALUE_BYTES:
            values[tag] = None
            if tag == stop_after:
                return True
            offset = _skip_undefined(data, start, inner) if length == UNDEFINED else start + length
            continue
        offset = start + length
        if offset > size:
            raise _MoreNeeded
        values[tag] = data[start:offset]
        if tag == stop_after and _is_passed(data, offset, header, stop_after):
            return True
    if offset != size:
        raise _MoreNeeded
    return False


def _is_passed(data: bytes, offset: int, header: Callable[[bytes, int], tuple[int, int, int]], stop_after: int) -> bool:
    """Say if the element at `offset` comes behind `stop_after`, so that there is no second one of it here."""
    if len(data) - offset < 8:
        return False
    group, element, _ = header(data, offset)
    return group << 16 | element > stop_after


def _judge_order(tag: int, length: int, rest: bytes, values: dict[int, bytes | None]) -> Deviation:
    """Return what is odd about an element that comes too late, or twice with the same value.

    Raises HeadUnreadable if the second value is another one or the element isn't one of a data set, _MoreNeeded if the
    second value isn't known yet.
    """
    if tag in values:
        before, value = values[tag], rest[:length]
        if before is None or length != len(before) or not before.startswith(value):
            raise HeadUnreadable(f"element {_name(tag)} occurs twice")
        if len(value) < length:
            raise _MoreNeeded
        return Deviation.DATA_SET_ELEMENT_TWICE
    if tag >> 16 in _NO_DATA_GROUPS:
        raise HeadUnreadable(f"element {_name(tag)} in a data set")
    return Deviation.DATA_SET_ORDER


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _read_long(data: bytes, offset: int, layout: Layout, vr: bytes) -> tuple[int, int, Layout]:
    """Read an explicit header with a 32-bit length: where the value starts, its length, the layout inside it."""
    if not (vr.isalpha() and vr.isupper()):
        raise HeadUnreadable(f"{vr!r} is no value representation")
    start = offset + 12
    if start > len(data):
        raise _MoreNeeded
    (length,) = layout.length.unpack_from(data, offset + 8)
    if length == UNDEFINED and vr not in _MAY_BE_UNDEFINED:
        raise HeadUnreadable(f"a value of {vr.decode('ascii')} has no length")
    # PS3.5 §6.2.2: what is inside a UN of undefined length is always Implicit VR Little Endian.
    return start, length, IMPLICIT_LITTLE if vr == _UNKNOWN_VR else layout


def _read_nested(data: bytes, offset: int, layout: Layout) -> tuple[int, int, int, Layout]:
    """Read the header of an item, a delimiter or an element in an item: tag, start, length, layout inside it."""
    if len(data) - offset < 8:
        raise _MoreNeeded
    group, element, length = layout.header.unpack_from(data, offset)
    tag = group << 16 | element
    if not layout.explicit or group == DELIMITER_GROUP:
        return tag, offset + 8, length, layout
    _, _, vr, short_length = layout.short.unpack_from(data, offset)
    if vr in SHORT_VRS:
        return tag, offset + 8, short_length, layout
    return tag, *_read_long(data, offset, layout, vr)


def _skip_undefined(data: bytes, offset: int, layout: Layout) -> int:
    """Return the offset after a value of undefined length that starts at `offset` (PS3.5 §7.5)."""
    # The layout inside each open sequence. What is nested is always in an item of undefined length, because items
    # with a length are stepped over.
    layouts = [layout]
    in_item = False
    while layouts:
        tag, offset, length, inner = _read_nested(data, offset, layouts[-1])
        if tag == (ITEM_END if in_item else SEQUENCE_END):
            if not in_item:
                layouts.pop()
            in_item = not in_item
        elif (not in_item and tag != ITEM) or (in_item and tag >> 16 == DELIMITER_GROUP):
            raise HeadUnreadable(f"element {_name(tag)} in the wrong place of a sequence")
        elif length != UNDEFINED:
            offset += length
        elif not in_item:
            in_item = True
        elif len(layouts) == MAX_DEPTH:
            raise HeadUnreadable(f"sequences are nested more than {MAX_DEPTH} deep")
        else:
            layouts.append(inner)
            in_item = False
    return offset
