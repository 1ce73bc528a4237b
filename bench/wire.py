"""The few PDUs that the load client and its archive need, written by hand: nothing of the gateway is used to judge it.

PS3.8 §9.3 (PDUs), PS3.7 §9.3.5 (C-ECHO), PS3.8 Annex E (PDV headers).
"""

import struct
from collections.abc import Iterator

VERIFICATION = b"1.2.840.10008.1.1"
IMPLICIT_LITTLE_ENDIAN = b"1.2.840.10008.1.2"
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLEMENTATION_CLASS_UID = b"1.2.826.0.1.3680043.8.498.26"
MAXIMUM_LENGTH = 131_072

A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = range(1, 8)
C_ECHO_RQ, C_ECHO_RSP, NO_DATA_SET = 0x0030, 0x8030, 0x0101
COMMAND_LAST = 0x03


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
    """Encode an A-ASSOCIATE-RQ with one context: 1, Verification, Implicit VR Little Endian."""
    context = item(0x20, b"\x01\0\0\0" + item(0x30, VERIFICATION) + item(0x40, IMPLICIT_LITTLE_ENDIAN))
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


def command_elements(data: bytes) -> dict[int, bytes]:
    """Decode the body of a P-DATA-TF that holds one whole command: element number to value."""
    elements, offset = {}, 6
    while offset + 8 <= len(data):
        _, number, length = struct.unpack_from("<HHI", data, offset)
        elements[number] = data[offset + 8 : offset + 8 + length]
        offset += 8 + length
    return elements
