"""Promise: bytes give a command set that survives encoding and decoding, or RemoteProtocolError; nothing else.

The bytes it came in are kept only where they are what we would write.
"""

from dataclasses import replace

import harness

with harness.instrumented():
    from dicomward.dicom.dimse import CommandSet, decode_command_set, encode_command_set
    from dicomward.dicom.errors import RemoteProtocolError
    from dicomward.dicom.limits import Limits

LIMITS = Limits()

_CLASS, _INSTANCE = "1.2.840.10008.5.1.4.1.1.2", "1.2.826.0.1.3680043.8.498.1"

SEEDS = [
    encode_command_set(command)
    for command in (
        CommandSet(command_field=0x0030, message_id=1, affected_sop_class_uid="1.2.840.10008.1.1"),
        CommandSet(
            command_field=0x0001,
            has_data_set=True,
            message_id=2,
            affected_sop_class_uid=_CLASS,
            affected_sop_instance_uid=_INSTANCE,
            priority=0,
            move_originator_ae_title="VIEWER",
            move_originator_message_id=7,
        ),
        CommandSet(
            command_field=0x0021,
            has_data_set=True,
            message_id=3,
            affected_sop_class_uid=_CLASS,
            priority=1,
            move_destination="VIEWER",
        ),
        CommandSet(
            command_field=0x8021,
            message_id_being_responded_to=3,
            affected_sop_class_uid=_CLASS,
            status=0xB000,
            offending_elements=(0x00080018, 0x00100020),
            error_comment="some failed",
            error_id=1,
            number_of_remaining_suboperations=0,
            number_of_completed_suboperations=4,
            number_of_failed_suboperations=1,
            number_of_warning_suboperations=0,
        ),
        CommandSet(command_field=0x0FFF, message_id_being_responded_to=3),
        CommandSet(
            command_field=0x0110,
            message_id=4,
            requested_sop_class_uid=_CLASS,
            requested_sop_instance_uid=_INSTANCE,
            attribute_identifier_list=(0x00100010, 0x00100020),
        ),
        CommandSet(
            command_field=0x0100,
            has_data_set=True,
            message_id=5,
            affected_sop_class_uid="1.2.840.10008.1.20.1",
            affected_sop_instance_uid="1.2.840.10008.1.20.1.1",
            event_type_id=2,
        ),
    )
]


def one_input(data: bytes) -> None:
    try:
        command = decode_command_set(data, LIMITS)
    except RemoteProtocolError:
        return
    written = encode_command_set(replace(command))
    if decode_command_set(written, LIMITS) != command:
        raise AssertionError("what was decoded does not survive")
    if command.encoded not in (b"", written):
        raise AssertionError("what came would be passed on, and is not what we write")
    if not command.is_cancel:
        _ = command.operation


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
