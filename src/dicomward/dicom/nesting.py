"""How deep sequences are nested in a data set, seen as it streams past. PS3.5 §7.5, Annex A.

Only headers are read, values are stepped over, and nothing is kept but where the open sequences and items end. For
archives whose own reader does not survive what is nested too deep (docs/adr/0015).
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dicomward.dicom.errors import LimitExceeded, RemoteProtocolError
from dicomward.dicom.framing import DataRun, fragments_of
from dicomward.dicom.head import (
    DEFLATED,
    IMPLICIT_LITTLE,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SHORT_VRS,
    UNDEFINED,
    Layout,
    layout_of,
)
from dicomward.vocab.association import AbortReason

# The longest header, and the tag of an item behind it.
_MOST_HEADER: Final = 16
_INFLATED_AT_ONCE: Final = 65_536
# Real images deflate to a third, empty masks to a hundredth; a bomb grows a thousandfold.
_MOST_INFLATION: Final = 200
_PIXEL_GROUP: Final = 0x7FE0
# The tag of an item, as little and as big endian have it.
_ITEM_TAGS: Final = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")


@dataclass(slots=True)
class _Open:
    """An open sequence or item: where it ends (None: at its delimiter), and how the headers in it look."""

    is_sequence: bool
    end: int | None
    layout: Layout
    # The items of encapsulated pixel data (PS3.5 §A.4) are fragments, and hold no elements.
    holds_fragments: bool = False


class NestingGauge:
    """Looks at one data set; raises LimitExceeded before what is too deep goes on."""

    def __init__(self, transfer_syntax: str, most_nested_sequences: int) -> None:
        self._transfer_syntax = transfer_syntax
        self._most = most_nested_sequences
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if transfer_syntax in DEFLATED else None
        self._received = self._inflated = 0
        self._layout: Layout | None = None
        self._pending = b""
        # Where in the data set `_pending` begins, and the bytes of a value that are still to come.
        self._at = self._left = 0
        self._open: list[_Open] = []
        self._depth = 0

    def look(self, run: DataRun) -> None:
        """Look at the next fragments. Raises LimitExceeded, or RemoteProtocolError where they can't be inflated."""
        for fragment, last in fragments_of(run.view):
            for part in self._inflate(fragment):
                self._look(part, last=False)
            if last:
                self._look(b"", last=True)

    def _inflate(self, fragment: memoryview) -> Iterator[bytes | memoryview]:
        if self._inflater is None:
            yield fragment
            return
        self._received += len(fragment)
        data: bytes | memoryview = fragment
        while data and not self._inflater.eof:
            try:
                part = self._inflater.decompress(data, _INFLATED_AT_ONCE)
            except zlib.error as error:
                raise RemoteProtocolError(
                    AbortReason.NOT_SPECIFIED, "PS3.5 §A.5", f"the data set cannot be inflated: {error}"
                ) from error
            self._inflated += len(part)
            if self._inflated > _MOST_INFLATION * (self._received + _INFLATED_AT_ONCE):
                raise LimitExceeded(AbortReason.NOT_SPECIFIED, "PS3.5 §A.5", f"inflates {_MOST_INFLATION} times")
            yield part
            data = self._inflater.unconsumed_tail

    def _look(self, part: bytes | memoryview, *, last: bool) -> None:
        if self._left >= len(part) > 0:
            self._left -= len(part)
            self._at += len(part)
            return
        data, self._pending = self._pending + part[self._left :], b""
        self._at, self._left, offset = self._at + self._left, 0, 0
        if self._layout is None:
            if len(data) < _MOST_HEADER and not last:
                self._pending = data
                return
            self._layout = layout_of(data, self._transfer_syntax, [])
        # At the end of a data set the shorter headers may be all that is left.
        needed = 8 if last else _MOST_HEADER
        while len(data) - offset >= needed:
            offset += self._header(data, offset)
            if self._left:
                step = min(self._left, len(data) - offset)
                self._left -= step
                offset += step
        self._pending = data[offset:]
        self._at += offset

    def _header(self, data: bytes, offset: int) -> int:
        """Read the header at `offset`; return its length. What of its value is to be stepped over is in `_left`."""
        at = self._at + offset
        while self._open and (end := self._open[-1].end) is not None and at >= end:
            self._close()
        inside = self._open[-1] if self._open else None
        layout = inside.layout if inside is not None else self._layout or IMPLICIT_LITTLE
        group, element, length = layout.header.unpack_from(data, offset)
        tag, size, vr = group << 16 | element, 8, b""
        if tag in (ITEM_END, SEQUENCE_END):
            self._delimit(is_sequence=tag == SEQUENCE_END)
            return size
        if tag != ITEM and layout.explicit:
            _, _, vr, length = layout.short.unpack_from(data, offset)
            if vr not in SHORT_VRS and len(data) - offset >= 12:
                (length,), size = layout.length.unpack_from(data, offset + 8), 12
        if tag == ITEM:
            nests = inside is None or not inside.holds_fragments or length == UNDEFINED
        else:
            value = data[offset + size : offset + size + 4]
            nests = length == UNDEFINED or vr == b"SQ" or self._begins_with_item(value, tag, vr)
        if nests:
            end = None if length == UNDEFINED else at + size + length
            self._enter(is_sequence=tag != ITEM, end=end, group=group, vr=vr, layout=layout)
        else:
            self._left = length
        return size

    @staticmethod
    def _begins_with_item(value: bytes, tag: int, vr: bytes) -> bool:
        """Say if a value whose VR tells nothing is a sequence (PS3.5 §6.2.2, §7.5): it begins with an item."""
        return vr in (b"", b"UN") and tag >> 16 != _PIXEL_GROUP and value in _ITEM_TAGS

    def _enter(self, *, is_sequence: bool, end: int | None, group: int, vr: bytes, layout: Layout) -> None:
        inner = IMPLICIT_LITTLE if vr == b"UN" else layout
        fragments = is_sequence and end is None and group == _PIXEL_GROUP
        self._open.append(_Open(is_sequence, end, inner, fragments))
        self._depth += is_sequence
        # An item in an item is no data set's, and must not grow without bound either.
        if self._depth > self._most or len(self._open) > 2 * self._most + 2:
            raise LimitExceeded(
                AbortReason.NOT_SPECIFIED, "PS3.5 §7.5", f"sequences are nested more than {self._most} deep"
            )

    def _delimit(self, *, is_sequence: bool) -> None:
        """Close the innermost open one of its kind and what is open in it; a delimiter of nothing is passed over."""
        for number in range(len(self._open) - 1, -1, -1):
            if self._open[number].end is not None:
                return
            if self._open[number].is_sequence is is_sequence:
                while len(self._open) > number:
                    self._close()
                return

    def _close(self) -> None:
        self._depth -= self._open.pop().is_sequence
