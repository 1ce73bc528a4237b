"""Counting the answers of a study query: which attributes have a value, how many studies, how many patients.

Rules of this file: a value is looked at and let go. What stays is numbers, and for each patient eight bytes of a
keyed hash whose key is an argument, is made for one server and never leaves the process. No exception carries a byte
of the answer. An identifier is Implicit VR Little Endian (PS3.5 §7.1.3), the only transfer syntax that we offer.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct
from typing import Any, Final

from dicomward.assess.count_classes import BIT_OF_WIRE_TAG, MEDICAL_MASK, keywords_in

_ELEMENT: Final = Struct("<II")
_UNDEFINED: Final = 0xFFFFFFFF
_NAME_BIT: Final = BIT_OF_WIRE_TAG[0x0010_0010]
_ID_BIT: Final = BIT_OF_WIRE_TAG[0x0020_0010]
_ISSUER_BIT: Final = BIT_OF_WIRE_TAG[0x0021_0010]
_COUNTRY_BIT: Final = BIT_OF_WIRE_TAG[0x2150_0010]
_BIRTH_DATE_BIT: Final = BIT_OF_WIRE_TAG[0x0030_0010]
# What says who a patient is: the ID and its issuer, or without an ID the name and birth date.
_KEY_BITS: Final = _NAME_BIT | _ID_BIT | _ISSUER_BIT | _COUNTRY_BIT | _BIRTH_DATE_BIT
_GROUPED: Final = _ID_BIT | _ISSUER_BIT | _COUNTRY_BIT
# What is kept of a combination of attributes beyond MOST_KINDS: that it is personal, that it is medical.
_COARSE: Final = _NAME_BIT | BIT_OF_WIRE_TAG[0x0020_0008]
_PADDING: Final = b" \0"
_ITEM_END: Final = 0xE00D_FFFE
_SEQUENCE_END: Final = 0xE0DD_FFFE
_DEEPEST: Final = 16
_LAST_BLANK: Final = 0x20

MOST_PATIENTS: Final = 4_000_000
"""Patients of one server that are told apart: 90 bytes each; beyond, their number is a lower bound."""
MOST_KINDS: Final = 4096
"""Combinations of attributes that are told apart; a server makes up more only to fill our memory."""


MOST_SHAPES: Final = 256
"""Patterns of answers that are learned for one server: each takes a fraction of a millisecond to make."""


@dataclass(slots=True)
class SliceNumbers:
    """What one slice gave: plain numbers, fit to be stored. `kinds` counts the studies by mask of attributes."""

    studies: int = 0
    unreadable: int = 0
    kinds: dict[int, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the numbers as JSON values."""
        return {
            "studies": self.studies,
            "unreadable": self.unreadable,
            "kinds": {str(mask): number for mask, number in self.kinds.items()},
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "SliceNumbers":
        """Read what `to_json` has written. Raises KeyError, TypeError, ValueError."""
        kinds = {int(mask): int(number) for mask, number in value["kinds"].items()}
        return SliceNumbers(int(value["studies"]), int(value["unreadable"]), kinds)

    def add(self, other: "SliceNumbers") -> None:
        """Add another slice's numbers."""
        self.studies += other.studies
        self.unreadable += other.unreadable
        for mask, number in other.kinds.items():
            self.kinds[mask] = self.kinds.get(mask, 0) + number

    @property
    def medical(self) -> int:
        """Count the studies that say something medical."""
        return sum(number for mask, number in self.kinds.items() if mask & MEDICAL_MASK)

    @property
    def attributes(self) -> dict[str, int]:
        """Count the studies by keyword of an attribute that had a value."""
        found: dict[str, int] = {}
        for mask, number in self.kinds.items():
            for keyword in keywords_in(mask):
                found[keyword] = found.get(keyword, 0) + number
        return dict(sorted(found.items()))


class Patients:
    """The distinct patients of one server, as keyed hashes in memory.

    `country_of` turns what a patient's record names as the country of residence into an ISO code, "" for anything
    else: so no free text is kept.
    """

    __slots__ = ("_country_of", "_key", "_personal", "by_country", "is_full")

    def __init__(self, key: bytes, country_of: Callable[[bytes], str]) -> None:
        self._key = key
        self._country_of = country_of
        self._personal: set[bytes] = set()
        self.by_country: dict[str, int] = {}
        self.is_full = False

    def __len__(self) -> int:
        return len(self._personal)

    def __repr__(self) -> str:
        return f"<{len(self)} patients>"

    def add(self, identity: bytes, country: bytes) -> None:
        """Note one patient."""
        patients = self._personal
        digest = blake2b(identity, digest_size=8, key=self._key).digest()
        if digest in patients:
            return
        if len(patients) >= MOST_PATIENTS:
            self.is_full = True
            return
        patients.add(digest)
        if country and (code := self._country_of(country)):
            self.by_country[code] = self.by_country.get(code, 0) + 1


class Tally:
    """Takes the identifiers of one server, slice by slice; `patients` holds all of the server's."""

    __slots__ = ("_last", "_learned", "_patients", "_shapes", "numbers")

    def __init__(self, patients: Patients) -> None:
        self._patients = patients
        self._last = b""
        self._shapes: dict[int, _Shape] = {}
        self._learned = 0
        self.numbers = SliceNumbers()

    def take(self) -> SliceNumbers:
        """Return what was counted since the last call."""
        numbers, self.numbers = self.numbers, SliceNumbers()
        return numbers

    def add(self, data: bytes, pos: int, end: int) -> None:
        """Count the study that `data[pos:end]` describes. Raises nothing: what can't be read is counted as such."""
        shape = self._shapes.get(end - pos)
        found = None if shape is None else shape.match(data, pos, end)
        if shape is None or found is None:
            self._walk(data, pos, end)
            return
        identity = found[shape.identity]
        if identity != self._last or shape.issuer:
            self._last = identity
            whole = identity.strip(_PADDING)
            if shape.issuer > shape.identity:
                whole += b"\\" + found[shape.issuer].strip(_PADDING)
            self._patients.add(whole, found[shape.country] if shape.country else b"")
        numbers = self.numbers
        numbers.studies += 1
        self._count(numbers.kinds, shape.mask)

    # One loop over the elements: taking it apart would cost a call for each of them.
    def _walk(self, data: bytes, pos: int, end: int) -> None:  # noqa: C901, PLR0912, PLR0915
        unpack = _ELEMENT.unpack_from
        bit_of = BIT_OF_WIRE_TAG.get
        begin = pos
        mask = 0
        identity = country = b""
        plain = True
        last = end - _ELEMENT.size
        while pos <= last:
            tag, length = unpack(data, pos)
            pos += 8
            if not length:
                continue
            if length == _UNDEFINED:
                plain = False
                after = _end_of_sequence(data, pos, end, 0)
                if after - pos > _ELEMENT.size:
                    mask |= bit_of(tag, 0)
                pos = after
                continue
            after = pos + length
            bit = bit_of(tag)
            if bit and after <= end:
                if data[pos] <= _LAST_BLANK:
                    # A value that begins with a space or NUL may be nothing but padding.
                    plain = False
                    if not data[pos:after].strip(_PADDING):
                        pos = after
                        continue
                mask |= bit
                if bit & _KEY_BITS:
                    value = data[pos:after].strip(_PADDING)
                    if bit == _ID_BIT:
                        identity = value
                    elif bit == _COUNTRY_BIT:
                        country = value
                    elif bit == _ISSUER_BIT:
                        if mask & _ID_BIT:
                            identity += b"\\" + value
                    elif not mask & _ID_BIT:
                        identity += value + b"\\\\"
            pos = after
        numbers = self.numbers
        if pos != end:
            numbers.unreadable += 1
            return
        numbers.studies += 1
        self._count(numbers.kinds, mask)
        self._last = b""
        if identity:
            self._patients.add(identity, country)
        if plain and mask & _ID_BIT and self._learned < MOST_SHAPES:
            self._learned += 1
            self._shapes[end - begin] = _Shape(data, begin, end, mask)

    @staticmethod
    def _count(kinds: dict[int, int], mask: int) -> None:
        if mask not in kinds and len(kinds) >= MOST_KINDS:
            mask &= _COARSE
        kinds[mask] = kinds.get(mask, 0) + 1


class _Shape:
    """The elements of an identifier as a pattern: same tags and lengths, no value that begins with padding.

    Answers of one server are often alike; the pattern then says in one step what the walk finds element by element.
    """

    __slots__ = ("country", "identity", "issuer", "mask", "match")

    def __init__(self, data: bytes, pos: int, end: int, mask: int) -> None:
        self.mask = mask
        self.identity = self.issuer = self.country = 0
        parts: list[bytes] = []
        groups = 0
        while pos < end:
            tag, length = _ELEMENT.unpack_from(data, pos)
            parts.append(re.escape(data[pos : pos + _ELEMENT.size]))
            pos += _ELEMENT.size + length
            bit = BIT_OF_WIRE_TAG.get(tag, 0)
            value = b".{%d}" % length
            if bit and length:
                value = b"[^\\x00-\\x20]" + b".{%d}" % (length - 1)
            if bit & _GROUPED and length:
                groups += 1
                value = b"(" + value + b")"
                if bit == _ISSUER_BIT:
                    self.issuer = groups
                elif bit == _COUNTRY_BIT:
                    self.country = groups
                else:
                    self.identity = groups
            parts.append(value)
        self.match = re.compile(b"".join(parts), re.DOTALL).fullmatch


def _end_of_sequence(data: bytes, pos: int, end: int, depth: int) -> int:
    """Return the place after a sequence or item of undefined length; one beyond `end` if it has no end."""
    while depth <= _DEEPEST and end - pos >= _ELEMENT.size:
        tag, length = _ELEMENT.unpack_from(data, pos)
        pos += _ELEMENT.size
        if tag in (_SEQUENCE_END, _ITEM_END):
            return pos
        pos = _end_of_sequence(data, pos, end, depth + 1) if length == _UNDEFINED else pos + length
    return end + 1
