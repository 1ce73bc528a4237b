"""Taking attributes out of a small data set, at every depth, and encoding the rest as it was. PS3.5 §7.

For matches of a query, which fit into memory. What can't be read to its end is refused as a whole, never passed on.
"""

import zlib
from collections.abc import Set
from dataclasses import dataclass
from struct import error as struct_error
from struct import pack
from typing import Final

from dicomward.dicom.head import (
    DEFLATED,
    DELIMITER_GROUP,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_END,
    MAX_DEPTH,
    MAX_INFLATED_BYTES,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    HeadUnreadable,
    Layout,
    inflate,
    layout_of,
)

_SEQUENCE: Final = b"SQ"
_UNKNOWN: Final = b"UN"


@dataclass(frozen=True, slots=True)
class Stripped:
    """The data set without the attributes, and those that were there at its top level."""

    data: bytes
    tags: frozenset[int]


def strip_elements(
    data: bytes, transfer_syntax: str, *, removed: Set[int], emptied: Set[int] = frozenset()
) -> Stripped:
    """Take out the elements `removed`, and the values of the elements `emptied`; the tags are 32-bit numbers.

    The rest stays as it is; lengths around it are corrected. Raises HeadUnreadable.
    """
    plain = data
    if transfer_syntax in DEFLATED:
        plain, ended = inflate(data)
        if not ended or len(plain) >= MAX_INFLATED_BYTES:
            raise HeadUnreadable("a deflated data set that is cut short, or grows too long")
    layout = layout_of(plain, transfer_syntax, [])
    stripper = _Stripper(plain, removed, emptied)
    try:
        out, _ = stripper.elements(0, len(plain), layout, 0)
    except struct_error as error:
        raise HeadUnreadable("the data set ends inside an element") from error
    if transfer_syntax in DEFLATED:
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        out = compressor.compress(out) + compressor.flush()
        # PS3.5 §A.5: an odd length is padded.
        out += b"\0" * (len(out) % 2)
    return Stripped(bytes(out), frozenset(stripper.found))


@dataclass(frozen=True, slots=True)
class _Element:
    """One header: where the value starts, its length, and the layout of what may be nested in it."""

    tag: int
    vr: bytes
    start: int
    length: int
    inner: Layout


class _Stripper:
    def __init__(self, data: bytes, removed: Set[int], emptied: Set[int]) -> None:
        self._data = data
        self._removed = removed
        self._emptied = emptied
        self.found: set[int] = set()

    def elements(self, at: int, end: int, layout: Layout, depth: int, *, delimited: bool = False) -> tuple[bytes, int]:
        """Copy elements up to `end`, or up to an Item Delimitation Item; return them and where they end."""
        out = bytearray()
        while at < end:
            element = self._header(at, layout)
            if delimited and element.tag == ITEM_END:
                return bytes(out), element.start
            if element.tag >> 16 in (0, DELIMITER_GROUP):
                raise HeadUnreadable(f"element {element.tag:08X} in a data set")
            copied, after = self._element(at, end, element, layout, depth)
            if after > end:
                raise HeadUnreadable("an element is longer than what it stands in")
            at = after
            out += self._kept(element, copied, layout, depth)
        if delimited or at != end:
            raise HeadUnreadable("the data set ends inside an item")
        return bytes(out), at

    def _kept(self, element: _Element, copied: bytes, layout: Layout, depth: int) -> bytes:
        tag = element.tag
        if tag & 0xFFFF == 0:
            # A group length, retired in data sets, would be wrong.
            return b""
        if tag not in self._removed and tag not in self._emptied:
            return copied
        if depth == 0:
            self.found.add(tag)
        return _header_of(element, 0, layout) if tag in self._emptied else b""

    def _element(self, at: int, end: int, element: _Element, layout: Layout, depth: int) -> tuple[bytes, int]:
        """Return an element without what is stripped inside it, and where it ended."""
        data, start, length = self._data, element.start, element.length
        if length == UNDEFINED:
            if element.vr not in (b"", _SEQUENCE, _UNKNOWN):
                raise HeadUnreadable("encapsulated data in a match")
            value, after = self._items(start, end, element.inner, depth)
            delimiter = element.inner.header.pack(SEQUENCE_END >> 16, SEQUENCE_END & 0xFFFF, 0)
            return data[at:start] + value + delimiter, after
        after = start + length
        if after > end:
            raise HeadUnreadable("the data set ends inside an element")
        item = element.inner.header.pack(ITEM >> 16, ITEM & 0xFFFF, 0)[:4]
        if element.vr == _SEQUENCE or (element.vr in (b"", _UNKNOWN) and data[start : start + 4] == item):
            value, _ = self._items(start, after, element.inner, depth, delimited=False)
            return _header_of(element, len(value), layout) + value, after
        return data[at:after], after

    def _items(self, at: int, end: int, layout: Layout, depth: int, *, delimited: bool = True) -> tuple[bytes, int]:
        """Copy the items of a sequence; its delimiter, if it has one, is not part of what is returned."""
        if depth >= MAX_DEPTH:
            raise HeadUnreadable(f"sequences are nested more than {MAX_DEPTH} deep")
        out = bytearray()
        while at < end:
            group, number, length = layout.header.unpack_from(self._data, at)
            tag, start = group << 16 | number, at + 8
            if delimited and tag == SEQUENCE_END:
                return bytes(out), start
            if tag != ITEM:
                raise HeadUnreadable(f"element {tag:08X} in the wrong place of a sequence")
            if length == UNDEFINED:
                value, at = self.elements(start, end, layout, depth + 1, delimited=True)
                out += self._data[start - 8 : start] + value + layout.header.pack(ITEM_END >> 16, ITEM_END & 0xFFFF, 0)
                continue
            at = start + length
            if at > end:
                raise HeadUnreadable("an item is longer than its sequence")
            value, _ = self.elements(start, at, layout, depth + 1)
            out += layout.header.pack(group, number, len(value)) + value
        if delimited:
            raise HeadUnreadable("the data set ends inside a sequence")
        return bytes(out), at

    def _header(self, at: int, layout: Layout) -> _Element:
        group, number, length = layout.header.unpack_from(self._data, at)
        tag = group << 16 | number
        if not layout.explicit or group == DELIMITER_GROUP:
            return _Element(tag, b"", at + 8, length, layout)
        _, _, vr, short_length = layout.short.unpack_from(self._data, at)
        if vr in SHORT_VRS:
            return _Element(tag, vr, at + 8, short_length, layout)
        if not (vr.isalpha() and vr.isupper()):
            raise HeadUnreadable(f"{vr!r} is no value representation")
        (length,) = layout.length.unpack_from(self._data, at + 8)
        # PS3.5 §6.2.2: what is inside a UN of undefined length is always Implicit VR Little Endian.
        return _Element(tag, vr, at + 12, length, IMPLICIT_LITTLE if vr == _UNKNOWN else layout)


def _header_of(element: _Element, length: int, layout: Layout) -> bytes:
    group, number = element.tag >> 16, element.tag & 0xFFFF
    if not element.vr:
        return layout.header.pack(group, number, length)
    if element.vr in SHORT_VRS:
        return layout.short.pack(group, number, element.vr, length)
    order = layout.header.format[0]
    return pack(f"{order}HH2sHI", group, number, element.vr, 0, length)
