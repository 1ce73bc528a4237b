"""The few PDUs that the load client and its archive need, written by hand: nothing of the gateway is used to judge it.

PS3.8 §9.3 (PDUs), PS3.7 §9.3.1 (C-STORE) and §9.3.5 (C-ECHO), PS3.8 Annex E (PDV headers).
"""

import struct
from collections.abc import Iterator

VERIFICATION = b"1.2.840.10008.1.1"
CT_IMAGE_STORAGE = b"1.2.840.10008.5.1.4.1.1.2"
IMPLICIT_LITTLE_ENDIAN = b"1.2.840.10008.1.2"
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLEMENTATION_CLASS_UID = b"1.2.826.0.1.3680043.8.498.26"
MAXIMUM_LENGTH = 131_072

A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = range(1, 8)
C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
NO_DATA_SET, DATA_SET = 0x0101, 0x0001
COMMAND, LAST = 0x01, 0x02
COMMAND_LAST = COMMAND | LAST
VERIFICATION_CONTEXT, STORAGE_CONTEXT = 1, 3


def item(kind: int, value: bytes) -> bytes:
    """Encode an item or sub-item with its 16-bit length."""
    return struct.pack(">BxH", kind, len(value)) + value


def pdu(kind: int, value: bytes) -> bytes:
    """Encode a PDU with its 32-bit length."""
    return struct.pack(">BxI", kind, len(value)) + value


def user_information() -> bytes:
    """Encode maximum length and implementation class UID, the two items that everybody sends."""
    return item(0x50, item(0x51, struct.pack(">I", MAXIMUM_LENGTH)) + item(0x52, IMPLEMENTATION_CLASS_UID))


def associate_rq(called_ae_title: str, calling_ae_title: str) -> bytes:
    """Encode an A-ASSOCIATE-RQ with Verification (1) and CT Image Storage (3), in Implicit VR Little Endian."""
    context = b"".join(
        item(0x20, bytes((context_id, 0, 0, 0)) + item(0x30, sop_class) + item(0x40, IMPLICIT_LITTLE_ENDIAN))
        for context_id, sop_class in ((VERIFICATION_CONTEXT, VERIFICATION), (STORAGE_CONTEXT, CT_IMAGE_STORAGE))
    )
    titles = called_ae_title.encode().ljust(16) + calling_ae_title.encode().ljust(16)
    fixed = b"\0\x01\0\0" + titles + bytes(32)
    return pdu(A_ASSOCIATE_RQ, fixed + item(0x10, APPLICATION_CONTEXT) + context + user_information())


def associate_ac(request: bytes) -> bytes:
    """Answer the body of an A-ASSOCIATE-RQ: each context is accepted with its first transfer syntax."""
    contexts = b""
    for kind, value in items(request[68:]):
        if kind == 0x20:
            transfer_syntax = next(inner for name, inner in items(value[4:]) if name == 0x40)
            contexts += item(0x21, value[:1] + bytes(3) + item(0x40, transfer_syntax))
    return pdu(A_ASSOCIATE_AC, request[:68] + item(0x10, APPLICATION_CONTEXT) + contexts + user_information())


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the value of each item."""
    offset = 0
    while offset + 4 <= len(data):
        kind, length = struct.unpack_from(">BxH", data, offset)
        yield kind, data[offset + 4 : offset + 4 + length]
        offset += 4 + length


def is_accepted(answer: bytes) -> bool:
    """Say if the body of an A-ASSOCIATE-AC accepts context 1."""
    return any(kind == 0x21 and value[0] == 1 and value[2] == 0 for kind, value in items(answer[68:]))


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def _command(context_id: int, elements: bytes) -> bytes:
    command = _element(0x0000, struct.pack("<I", len(elements))) + elements
    return pdu(P_DATA_TF, struct.pack(">IBB", len(command) + 2, context_id, COMMAND_LAST) + command)


def echo_rq(message_id: int) -> bytes:
    """Encode a C-ECHO-RQ on context 1."""
    return _command(
        1,
        _element(0x0002, VERIFICATION + b"\0")
        + _element(0x0100, struct.pack("<H", C_ECHO_RQ))
        + _element(0x0110, struct.pack("<H", message_id))
        + _element(0x0800, struct.pack("<H", NO_DATA_SET)),
    )


def echo_rsp(context_id: int, message_id: int) -> bytes:
    """Encode a C-ECHO-RSP with Success."""
    return _command(
        context_id,
        _element(0x0002, VERIFICATION + b"\0")
        + _element(0x0100, struct.pack("<H", C_ECHO_RSP))
        + _element(0x0120, struct.pack("<H", message_id))
        + _element(0x0800, struct.pack("<H", NO_DATA_SET))
        + _element(0x0900, b"\0\0"),
    )


def store_rq(message_id: int, instance: bytes) -> bytes:
    """Encode a C-STORE-RQ of a CT image on context 3; its data set follows."""
    return _command(
        STORAGE_CONTEXT,
        _element(0x0002, _uid(CT_IMAGE_STORAGE))
        + _element(0x0100, struct.pack("<H", C_STORE_RQ))
        + _element(0x0110, struct.pack("<H", message_id))
        + _element(0x0700, b"\0\0")
        + _element(0x0800, struct.pack("<H", DATA_SET))
        + _element(0x1000, _uid(instance)),
    )


def store_rsp(context_id: int, request: dict[int, bytes]) -> bytes:
    """Encode a C-STORE-RSP with Success for the elements of a request."""
    return _command(
        context_id,
        _element(0x0002, request[0x0002])
        + _element(0x0100, struct.pack("<H", C_STORE_RSP))
        + _element(0x0120, request[0x0110])
        + _element(0x0800, struct.pack("<H", NO_DATA_SET))
        + _element(0x0900, b"\0\0")
        + _element(0x1000, request[0x1000]),
    )


def image_parts(instance: bytes, size: int) -> Iterator[bytes]:
    """Yield the P-DATA-TFs of a data set with `size` bytes of pixels, one after the other, never all in memory."""
    head = struct.pack("<HHI", 0x0008, 0x0016, len(_uid(CT_IMAGE_STORAGE))) + _uid(CT_IMAGE_STORAGE)
    head += struct.pack("<HHI", 0x0008, 0x0018, len(_uid(instance))) + _uid(instance)
    head += struct.pack("<HHI", 0x7FE0, 0x0010, size)
    most = MAXIMUM_LENGTH - 6
    yield _data(head, is_last=not size)
    full = _data(bytes(most), is_last=False)
    for _ in range((size - 1) // most):
        yield full
    if size:
        yield _data(bytes((size - 1) % most + 1), is_last=True)


def _data(fragment: bytes, *, is_last: bool) -> bytes:
    return pdu(P_DATA_TF, struct.pack(">IBB", len(fragment) + 2, STORAGE_CONTEXT, LAST * is_last) + fragment)


def _uid(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def command_elements(data: bytes) -> dict[int, bytes]:
    """Decode the body of a P-DATA-TF that holds one whole command: element number to value."""
    elements, offset = {}, 6
    while offset + 8 <= len(data):
        _, number, length = struct.unpack_from("<HHI", data, offset)
        elements[number] = data[offset + 8 : offset + 8 + length]
        offset += 8 + length
    return elements
