"""Storage Commitment (PS3.4 §J) as the agent asks for it: what it sends, what a report says, what it means.

Rules of this file: bytes and values; the data sets are Implicit VR Little Endian, the only syntax that is proposed.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from hmac import compare_digest
from hmac import digest as hmac_digest
from struct import Struct
from typing import Final

MOST_REFERENCES: Final = 500
"""Objects in one request: some 50 KiB, and archives work through it in one go."""

MOST_REPORT_BYTES: Final = 1024 * 1024
"""A report of MOST_REFERENCES failures has 100 KiB."""

INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""The well-known SOP instance of the push model."""

REQUEST_ACTION: Final = 1

RANDOM_BYTES: Final = 8
"""Half of a transaction UID; the other half says whose it is."""

_MOST_DIGITS: Final = 39

_TRANSACTION_UID: Final = 0x00081195
_REFERENCED: Final = 0x00081199
_FAILED: Final = 0x00081198
_CLASS: Final = 0x00081150
_INSTANCE: Final = 0x00081155
_REASON: Final = 0x00081197
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_HEADER: Final = Struct("<HHI")

# PS3.3 C.14: the commitment SCP doesn't do this for the class; nobody will ever get a commitment for it.
_CLASS_NOT_SUPPORTED: Final = 0x0122
# PS3.7 §C: no such SOP class, not authorised, no such action, unrecognised operation.
_NOT_OFFERED: Final = (0x0118, 0x0122, 0x0123, 0x0124, 0x0211)


class ReportUnreadable(Exception):
    """The bytes are not the event information of a commitment report."""


class Commitment(Enum):
    """What is known of one object."""

    COMMITTED = "committed"
    NOT_OFFERED = "not offered"
    SEND_AGAIN = "send again"


@dataclass(frozen=True, slots=True)
class Report:
    """One N-EVENT-REPORT: what the archive has committed to, and what it has not, with the reason of each."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int]


def judge_failure(reason: int) -> Commitment:
    """Say what a failure reason means (PS3.3 §C.14.1.1)."""
    return Commitment.NOT_OFFERED if reason == _CLASS_NOT_SUPPORTED else Commitment.SEND_AGAIN


def is_not_offered(status: int) -> bool:
    """Say if the answer to a request means that the archive, or the gateway's policy, has no commitment for us."""
    return status in _NOT_OFFERED


def make_transaction_uid(key: bytes, randomness: bytes) -> str:
    """Return a transaction UID (PS3.5 §B.2) that `is_own_transaction` knows again; nobody else can make one."""
    return f"2.25.{int.from_bytes(randomness + _mark(key, randomness), 'big')}"


def is_own_transaction(key: bytes, uid: str) -> bool:
    """Say if a transaction UID was made with this key, also before the agent has started."""
    number = uid.removeprefix("2.25.")
    if not number.isdecimal() or len(number) > _MOST_DIGITS or int(number) >> 128:
        return False
    data = int(number).to_bytes(2 * RANDOM_BYTES, "big")
    return compare_digest(_mark(key, data[:RANDOM_BYTES]), data[RANDOM_BYTES:])


def _mark(key: bytes, randomness: bytes) -> bytes:
    return hmac_digest(key, b"dicomward transaction" + randomness, "sha256")[:RANDOM_BYTES]


def encode_request(transaction_uid: str, references: Iterable[tuple[str, str]]) -> bytes:
    """Return the action information for SOP classes and instances (PS3.4 Table J.3-1)."""
    items = b"".join(
        _element(_ITEM, _element(_CLASS, _uid(sop_class)) + _element(_INSTANCE, _uid(instance)))
        for sop_class, instance in references
    )
    return _element(_TRANSACTION_UID, _uid(transaction_uid)) + _element(_REFERENCED, items)


def _element(tag: int, value: bytes) -> bytes:
    return _HEADER.pack(tag >> 16, tag & 0xFFFF, len(value)) + value


def _uid(text: str) -> bytes:
    value = text.encode("ascii")
    return value + b"\0" * (len(value) % 2)


def decode_report(data: bytes) -> Report:
    """Read the event information (PS3.4 Table J.3-2). Raises ReportUnreadable."""
    if len(data) > MOST_REPORT_BYTES:
        raise ReportUnreadable("it is too long")
    values = dict(_elements(data))
    committed = {_text(item.get(_INSTANCE)) for item in _items(values.get(_REFERENCED, b""))}
    failed = {
        _text(item.get(_INSTANCE)): int.from_bytes(item.get(_REASON, b"")[:2], "little")
        for item in _items(values.get(_FAILED, b""))
    }
    if _TRANSACTION_UID not in values:
        raise ReportUnreadable("it has no transaction UID")
    # Who is told both has not committed.
    return Report(_text(values[_TRANSACTION_UID]), frozenset(committed) - failed.keys(), failed)


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0 ").decode("ascii", "replace")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of a data set or an item; sequences as they are."""
    offset = 0
    while offset < len(data):
        tag, start, end = _header(data, offset)
        if end is None:
            end = _end_of_sequence(data, start)
            yield tag, data[start : end - _HEADER.size]
        else:
            yield tag, data[start:end]
        offset = end


def _header(data: bytes, offset: int) -> tuple[int, int, int | None]:
    """Return the tag, where the value begins, and where it ends; None if that isn't said."""
    start = offset + _HEADER.size
    if start > len(data):
        raise ReportUnreadable("it ends inside an element")
    group, element, length = _HEADER.unpack_from(data, offset)
    if length == _UNDEFINED:
        return group << 16 | element, start, None
    if start + length > len(data):
        raise ReportUnreadable("it ends inside an element")
    return group << 16 | element, start, start + length


def _end_of_sequence(data: bytes, offset: int) -> int:
    """Return where the sequence ends, its delimiter included; nothing in a report is nested deeper than items."""
    while True:
        tag, start, end = _header(data, offset)
        if tag == _SEQUENCE_END:
            return start
        offset = end if end is not None else _end_of_item(data, start)


def _end_of_item(data: bytes, offset: int) -> int:
    while True:
        tag, start, end = _header(data, offset)
        if tag == _ITEM_END:
            return start
        if end is None:
            raise ReportUnreadable("a sequence within an item")
        offset = end


def _items(data: bytes) -> Iterator[dict[int, bytes]]:
    offset = 0
    while offset < len(data):
        tag, start, end = _header(data, offset)
        if tag != _ITEM:
            raise ReportUnreadable(f"({tag:08X}) where an item should be")
        if end is None:
            end = _end_of_item(data, start)
            yield dict(_elements(data[start : end - _HEADER.size]))
        else:
            yield dict(_elements(data[start:end]))
        offset = end
