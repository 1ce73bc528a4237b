"""Fields and items that the PDU and user information codecs share: PS3.8 §9.3.1.

An item is type(1), reserved(1), length(2, big-endian), value. Reserved bytes are never tested.
`notes` collects the deviations met on the way.
"""

from collections.abc import Iterator

from dicomward.dicom.deviation import Deviation
from dicomward.dicom.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from dicomward.vocab.ae_title import AE_TITLE_BYTES, AeTitleError, decode_ae_title, encode_ae_title, parse_ae_title
from dicomward.vocab.association import AbortReason
from dicomward.vocab.uid import UidError, decode_uid, has_leading_zero, parse_uid

_ITEM_HEADER_BYTES = 4
_MAX_ITEM_BYTES = 0xFFFF
# Legal in VR AE, but a title that is a path to the parent directory is only ever an attack.
_PATH_TITLES = (".", "..")


def invalid_value(clause: str, detail: str) -> RemoteProtocolError:
    """Make the error for a field that holds what it must not."""
    return RemoteProtocolError(AbortReason.INVALID_PARAMETER_VALUE, clause, detail)


def unexpected(clause: str, detail: str) -> RemoteProtocolError:
    """Make the error for an item where it must not be."""
    return RemoteProtocolError(AbortReason.UNEXPECTED_PARAMETER, clause, detail)


def too_much(limit: str, stated: int, allowed: int) -> LimitExceeded:
    """Make the error for a request beyond our limits."""
    return LimitExceeded(
        AbortReason.INVALID_PARAMETER_VALUE, f"limit {limit}", f"{stated} is more than our limit of {allowed}"
    )


def iter_items(data: bytes, start: int, clause: str) -> Iterator[tuple[int, bytes]]:
    """Yield (item type, value) from `start` to the end of `data`. Raises RemoteProtocolError if they don't fit."""
    offset, end = start, len(data)
    while offset < end:
        if end - offset < _ITEM_HEADER_BYTES:
            raise invalid_value(clause, f"{end - offset} bytes are left, too few for an item header")
        item_type = data[offset]
        value_start = offset + _ITEM_HEADER_BYTES
        offset = value_start + (data[value_start - 2] << 8 | data[value_start - 1])
        if offset > end:
            raise invalid_value(clause, f"item {item_type:02X}H is longer than what it is in")
        yield item_type, data[value_start:offset]


def split_prefixed(data: bytes, offset: int, clause: str) -> tuple[bytes, int]:
    """Read length(2) and that many bytes; return them and the offset after them. Raises RemoteProtocolError."""
    value_start = offset + 2
    if value_start > len(data):
        raise invalid_value(clause, "a length field is cut short")
    end = value_start + int.from_bytes(data[offset:value_start], "big")
    if end > len(data):
        raise invalid_value(clause, "a length field counts more bytes than its item holds")
    return data[value_start:end], end


def read_uid(field: bytes, clause: str, name: str, notes: set[str]) -> str:
    """Read a UID of an association PDU, which has no padding (PS3.8 Annex F). Raises RemoteProtocolError."""
    try:
        uid = decode_uid(field)
    except UidError as error:
        raise invalid_value(clause, f"{name} {field[:80]!r}: {error}") from error
    if len(uid) != len(field):
        notes.add(Deviation.UID_SPACE_PADDING if field.endswith(b" ") else Deviation.UID_NUL_PADDING)
    if has_leading_zero(uid):
        notes.add(Deviation.UID_LEADING_ZERO)
    return uid


def read_ae_title(field: bytes, clause: str, name: str, notes: set[str]) -> str:
    """Read a padded AE title. Raises RemoteProtocolError."""
    try:
        title = decode_ae_title(field)
    except AeTitleError as error:
        raise invalid_value(clause, f"{name} {field[:80]!r}: {error}") from error
    if title in _PATH_TITLES:
        raise invalid_value(clause, f"{name} {title!r} names a directory")
    if field.endswith(b"\0"):
        notes.add(Deviation.AE_TITLE_NUL_PADDING)
    return title


def echoed_ae_title(field: bytes) -> str:
    """Read an AE title that must not be tested (PS3.8 §9.3.3): anything else than a title is empty."""
    try:
        return decode_ae_title(field)
    except AeTitleError:
        return ""


def write_uid(uid: str) -> bytes:
    """Encode a UID without padding. Raises LocalProtocolError."""
    try:
        return parse_uid(uid).encode("ascii")
    except UidError as error:
        raise LocalProtocolError(f"cannot send the UID {uid!r}: {error}") from error


def write_ae_title(title: str) -> bytes:
    """Encode a 16-byte AE title field. Raises LocalProtocolError."""
    try:
        return encode_ae_title(parse_ae_title(title))
    except AeTitleError as error:
        raise LocalProtocolError(f"cannot send the AE title {title!r}: {error}") from error


def write_echoed_ae_title(title: str) -> bytes:
    """Encode an AE title field of A-ASSOCIATE-AC; an empty one is all spaces. Raises LocalProtocolError."""
    return write_ae_title(title) if title else b" " * AE_TITLE_BYTES


def write_unsigned(value: int, size: int, name: str) -> bytes:
    """Encode an unsigned big-endian integer of `size` bytes. Raises LocalProtocolError."""
    try:
        return value.to_bytes(size, "big")
    except OverflowError as error:
        raise LocalProtocolError(f"{name} {value} does not fit into {size} bytes") from error


def write_prefixed(value: bytes, name: str) -> bytes:
    """Encode length(2) and the value. Raises LocalProtocolError."""
    return write_unsigned(len(value), 2, f"length of {name}") + value


def write_item(item_type: int, value: bytes) -> bytes:
    """Encode one item. Raises LocalProtocolError."""
    if len(value) > _MAX_ITEM_BYTES:
        raise LocalProtocolError(f"item {item_type:02X}H has {len(value)} bytes, at most {_MAX_ITEM_BYTES} fit")
    return bytes((item_type, 0)) + len(value).to_bytes(2, "big") + value
