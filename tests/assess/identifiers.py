"""Identifiers and responses as they stand on the wire."""

import struct

from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import encode_p_data

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"


def element(tag: int, value: bytes) -> bytes:
    value += b" " * (len(value) & 1)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def identifier(**values: bytes) -> bytes:
    """Encode elements named like t00100020."""
    return b"".join(element(int(name[1:], 16), value) for name, value in sorted(values.items()))


def response(data: bytes | None, *, status: int = 0xFF00, message_id: int = 1, pdu: int = 16_384) -> bytes:
    command = CommandSet(
        command_field=0x8020,
        message_id_being_responded_to=message_id,
        affected_sop_class_uid=STUDY_ROOT,
        status=status,
        has_data_set=data is not None,
    )
    out = encode_p_data(3, encode_command_set(command), pdu, command=True)
    return out if data is None else out + encode_p_data(3, data, pdu, command=False)
