"""DER (X.690) as far as EST and CMP need it: tags of one byte, definite lengths, and nothing that was left over."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTETS: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
UTF8: Final = 0x0C
TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31
_MANY_BYTES_TAG: Final = 0x1F
_MOST_LENGTH_BYTES: Final = 3


class DerError(ValueError):
    """Bytes are no DER, or not what was expected at this place."""


@dataclass(frozen=True, slots=True)
class Item:
    """One element: its tag, its content, and all of its bytes."""

    tag: int
    content: bytes
    encoded: bytes

    def reader(self) -> "Reader":
        """Read what is inside."""
        return Reader(self.content)


class Reader:
    """Elements that stand side by side, one after the other. Each method raises DerError."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def next_tag(self) -> int | None:
        """Return the tag of the next element; None at the end."""
        return self._data[self._at] if self._at < len(self._data) else None

    def item(self) -> Item:
        """Take the next element."""
        data, start = self._data, self._at
        if start + 2 > len(data) or data[start] & _MANY_BYTES_TAG == _MANY_BYTES_TAG:
            raise DerError("an element is cut off, or has a tag of many bytes")
        length, begin = data[start + 1], start + 2
        if length >= 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[begin : begin + count], "big")
            if not 1 <= count <= _MOST_LENGTH_BYTES or length < max(0x80, 1 << 8 * (count - 1)):
                raise DerError("a length is indefinite, too long or not the shortest")
            begin += count
        self._at = begin + length
        if self._at > len(data):
            raise DerError("an element is cut off")
        return Item(data[start], data[begin : self._at], data[start : self._at])

    def take(self, tag: int) -> Item:
        """Take the next element, which has to have this tag."""
        if self.next_tag() != tag:
            raise DerError(f"expected the tag {tag:#04x}, found {self.next_tag()}")
        return self.item()

    def optional(self, tag: int) -> Item | None:
        """Take the next element if it has this tag."""
        return self.item() if self.next_tag() == tag else None

    def items(self) -> Iterator[Item]:
        """Take all that is left."""
        while self.next_tag() is not None:
            yield self.item()

    def end(self) -> None:
        """Raise DerError if anything is left."""
        if self.next_tag() is not None:
            raise DerError("something follows that has no place here")


def only(data: bytes, tag: int) -> Item:
    """Return the one element that the data is. Raises DerError."""
    reader = Reader(data)
    item = reader.take(tag)
    reader.end()
    return item


def decode_integer(item: Item) -> int:
    """Return an INTEGER. Raises DerError."""
    if not item.content:
        raise DerError("an integer without bytes")
    return int.from_bytes(item.content, "big", signed=True)


def decode_bits(item: Item) -> bytes:
    """Return a BIT STRING of whole bytes. Raises DerError."""
    if item.content[:1] != b"\0":
        raise DerError("a bit string that isn't made of whole bytes")
    return item.content[1:]


def encode(tag: int, *parts: bytes) -> bytes:
    """Return one element."""
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def encode_integer(value: int) -> bytes:
    """Return an INTEGER."""
    return encode(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def encode_oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    first, second, *rest = map(int, dotted.split("."))
    content = bytearray()
    for number in (first * 40 + second, *rest):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        content += bytes(reversed(groups))
    return encode(OID, bytes(content))
