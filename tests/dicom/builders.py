"""Raw bytes of PDUs, items, command sets and data sets, malformed ones too: written apart from the code under test."""

import struct
from collections.abc import Iterable, Iterator

from dicomward.dicom.limits import Limits

LIMITS = Limits()

VERIFICATION = "1.2.840.10008.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def item(item_type: int, value: bytes, *, length: int | None = None, reserved: int = 0) -> bytes:
    """One item; `length` overrides the true one."""
    return struct.pack(">BBH", item_type, reserved, len(value) if length is None else length) + value


def prefixed(value: bytes) -> bytes:
    """length(2) and the value."""
    return struct.pack(">H", len(value)) + value


def context_rq(
    context_id: int = 1, abstract: str = VERIFICATION, transfer: Iterable[str] = (IMPLICIT,), *, extra: bytes = b""
) -> bytes:
    """Item 20H."""
    inner = item(0x30, abstract.encode()) + b"".join(item(0x40, uid.encode()) for uid in transfer)
    return item(0x20, bytes((context_id, 0, 0, 0)) + inner + extra)


def context_ac(context_id: int = 1, result: int = 0, inner: bytes | None = None) -> bytes:
    """Item 21H; `inner` is its sub-items."""
    syntax = item(0x40, IMPLICIT.encode()) if inner is None else inner
    return item(0x21, bytes((context_id, 0, result, 0)) + syntax)


APPLICATION_CONTEXT_ITEM = item(0x10, b"1.2.840.10008.3.1.1.1")
MAXIMUM_LENGTH_ITEM = item(0x51, struct.pack(">I", 16384))
CLASS_UID_ITEM = item(0x52, b"1.2.3.4")
USER_ITEM = item(0x50, MAXIMUM_LENGTH_ITEM + CLASS_UID_ITEM)


def associate_body(
    *items: bytes,
    called: bytes = b"ARCHIVE".ljust(16),
    calling: bytes = b"CT1".ljust(16),
    version: int = 1,
    reserved: bytes = bytes(32),
) -> bytes:
    """Body of A-ASSOCIATE-RQ or -AC with these variable items."""
    return struct.pack(">H2x", version) + called + calling + reserved + b"".join(items)


def rq_body(*contexts: bytes, user: bytes = USER_ITEM, **fixed: bytes | int) -> bytes:
    """Body of a good A-ASSOCIATE-RQ, save for what is given."""
    items = (APPLICATION_CONTEXT_ITEM, *(contexts or (context_rq(),)), user)
    return associate_body(*items, **fixed)  # type: ignore[arg-type]


def ac_body(*contexts: bytes, user: bytes = USER_ITEM, **fixed: bytes | int) -> bytes:
    """Body of a good A-ASSOCIATE-AC, save for what is given."""
    items = (APPLICATION_CONTEXT_ITEM, *(contexts or (context_ac(),)), user)
    return associate_body(*items, **fixed)  # type: ignore[arg-type]


def element(number: int, value: bytes, *, group: int = 0, length: int | None = None) -> bytes:
    """One element in Implicit VR Little Endian."""
    return struct.pack("<HHI", group, number, len(value) if length is None else length) + value


def us(number: int, value: int) -> bytes:
    """One unsigned short of a command set."""
    return element(number, struct.pack("<H", value))


def command(*elements: bytes, group_length: int | None = None) -> bytes:
    """A command set with its group length (or with a wrong one)."""
    body = b"".join(elements)
    return element(0x0000, struct.pack("<I", len(body) if group_length is None else group_length)) + body


def explicit(tag: int, vr: bytes, value: bytes, *, length: int | None = None, order: str = "<") -> bytes:
    """One element with an explicit VR."""
    size = len(value) if length is None else length
    head = struct.pack(order + "HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV", b"ZZ"):
        return head + struct.pack(order + "HI", 0, size) + value
    return head + struct.pack(order + "H", size) + value


def implicit(tag: int, value: bytes, *, length: int | None = None, order: str = "<") -> bytes:
    """One element without a VR; items and delimiters too."""
    size = len(value) if length is None else length
    return struct.pack(order + "HHI", tag >> 16, tag & 0xFFFF, size) + value


def cut_at_every_byte(data: bytes) -> Iterator[bytes]:
    """Every true prefix."""
    return (data[:end] for end in range(len(data)))
