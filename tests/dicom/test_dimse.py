import struct
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.tests import encoded_dimse_msg, encoded_dimse_n_msg

import dicomward.dicom.dimse as module
from dicomward.dicom.dimse import CommandSet, decode_command_set, encode_command_set
from dicomward.dicom.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from dicomward.dicom.limits import Limits
from dicomward.vocab.association import AbortReason
from dicomward.vocab.dimse import NO_DATA_SET, Operation, Status
from tests.dicom.builders import CT_IMAGE, LIMITS, VERIFICATION, command, cut_at_every_byte, element, us
from tests.dicom.strategies import command_sets, mutations

CT = CT_IMAGE.encode() + b"\0"
INSTANCE = b"1.2.3.45"
NO_DATA = us(0x0800, NO_DATA_SET)
DATA = us(0x0800, 1)

C_STORE_RQ = {
    0x0002: element(0x0002, CT),
    0x0100: us(0x0100, 0x0001),
    0x0110: us(0x0110, 7),
    0x0700: us(0x0700, 0),
    0x0800: DATA,
    0x1000: element(0x1000, INSTANCE),
}
C_ECHO_RQ = {
    0x0002: element(0x0002, VERIFICATION.encode() + b"\0"),
    0x0100: us(0x0100, 0x0030),
    0x0110: us(0x0110, 1),
    0x0800: NO_DATA,
}
C_FIND_RSP = {
    0x0002: element(0x0002, CT),
    0x0100: us(0x0100, 0x8020),
    0x0120: us(0x0120, 5),
    0x0800: DATA,
    0x0900: us(0x0900, Status.PENDING),
}
C_MOVE_RSP = {
    0x0100: us(0x0100, 0x8021),
    0x0120: us(0x0120, 5),
    0x0800: NO_DATA,
    0x0900: us(0x0900, Status.PENDING),
}
STORE = CommandSet(
    command_field=1,
    has_data_set=True,
    message_id=7,
    affected_sop_class_uid=CT_IMAGE,
    affected_sop_instance_uid="1.2.3.45",
    priority=0,
)


def changed(base: dict[int, bytes], **changes: bytes | None) -> bytes:
    """A command set like `base`, with elements (`x0110=…`) put in, replaced or left out."""
    elements = dict(base)
    for name, data in changes.items():
        number = int(name[1:], 16)
        if data is None:
            del elements[number]
        else:
            elements[number] = data
    return command(*(elements[number] for number in sorted(elements)))


def test_c_store_rq_is_read_and_written() -> None:
    data = changed(C_STORE_RQ)
    assert decode_command_set(data, LIMITS) == STORE
    assert decode_command_set(data, LIMITS).deviations == ()
    assert encode_command_set(STORE) == data


def test_every_field_is_read_from_its_element() -> None:
    data = changed(
        C_MOVE_RSP,
        x0002=element(0x0002, CT),
        x0901=element(0x0901, bytes.fromhex("0800180010002000")),
        x0902=element(0x0902, b"Pacs \xe9teint "),
        x0903=us(0x0903, 9),
        x1020=us(0x1020, 4),
        x1021=us(0x1021, 3),
        x1022=us(0x1022, 2),
        x1023=us(0x1023, 1),
    )
    decoded = decode_command_set(data, LIMITS)
    assert decoded == CommandSet(
        command_field=0x8021,
        message_id_being_responded_to=5,
        affected_sop_class_uid=CT_IMAGE,
        status=0xFF00,
        offending_elements=(0x00080018, 0x00100020),
        error_comment="Pacs éteint",
        error_id=9,
        number_of_remaining_suboperations=4,
        number_of_completed_suboperations=3,
        number_of_failed_suboperations=2,
        number_of_warning_suboperations=1,
    )
    assert encode_command_set(decoded) == data


def test_n_service_fields_are_read_from_their_elements() -> None:
    action = command(
        element(0x0003, CT),
        us(0x0100, 0x0130),
        us(0x0110, 1),
        DATA,
        element(0x1001, INSTANCE),
        us(0x1008, 3),
    )
    assert decode_command_set(action, LIMITS) == CommandSet(
        command_field=0x0130,
        has_data_set=True,
        message_id=1,
        requested_sop_class_uid=CT_IMAGE,
        requested_sop_instance_uid="1.2.3.45",
        action_type_id=3,
    )
    get = command(
        element(0x0003, CT),
        us(0x0100, 0x0110),
        us(0x0110, 1),
        NO_DATA,
        element(0x1001, INSTANCE),
        element(0x1005, bytes.fromhex("10002000")),
    )
    assert decode_command_set(get, LIMITS).attribute_identifier_list == (0x00100020,)


def test_move_fields_are_read_from_their_elements() -> None:
    store = changed(C_STORE_RQ, x1030=element(0x1030, b"CT1 "), x1031=us(0x1031, 300))
    decoded = decode_command_set(store, LIMITS)
    assert (decoded.move_originator_ae_title, decoded.move_originator_message_id) == ("CT1", 300)
    move = changed(C_STORE_RQ, x0100=us(0x0100, 0x0021), x0600=element(0x0600, b"VIEWER"), x1000=None)
    assert decode_command_set(move, LIMITS).move_destination == "VIEWER"


@pytest.mark.parametrize(
    ("field", "is_request", "is_cancel", "is_response", "operation"),
    [
        (0x0001, True, False, False, Operation.C_STORE),
        (0x8001, False, False, True, Operation.C_STORE),
        (0x0150, True, False, False, Operation.N_DELETE),
        (0x8100, False, False, True, Operation.N_EVENT_REPORT),
    ],
)
def test_kind_and_operation(
    field: int, is_request: bool, is_cancel: bool, is_response: bool, operation: Operation
) -> None:
    command_set = CommandSet(command_field=field)
    assert (command_set.is_request, command_set.is_cancel, command_set.is_response) == (
        is_request,
        is_cancel,
        is_response,
    )
    assert command_set.operation is operation


def test_cancel_is_neither_request_nor_response_and_has_no_operation() -> None:
    cancel = decode_command_set(command(us(0x0100, 0x0FFF), us(0x0120, 5), NO_DATA), LIMITS)
    assert (cancel.is_cancel, cancel.is_request, cancel.is_response) == (True, False, False)
    assert cancel.message_id_being_responded_to == 5
    with pytest.raises(LocalProtocolError, match="0FFFH is no operation"):
        _ = cancel.operation


def test_uids_are_the_affected_or_the_requested_ones() -> None:
    affected = CommandSet(command_field=1, affected_sop_class_uid="1.1", affected_sop_instance_uid="1.2")
    assert (affected.sop_class_uid, affected.sop_instance_uid) == ("1.1", "1.2")
    requested = CommandSet(command_field=0x0120, requested_sop_class_uid="1.3", requested_sop_instance_uid="1.4")
    assert (requested.sop_class_uid, requested.sop_instance_uid) == ("1.3", "1.4")
    neither = CommandSet(command_field=0x8001)
    assert (neither.sop_class_uid, neither.sop_instance_uid) == (None, None)


def test_a_command_set_cannot_be_changed_and_deviations_do_not_count() -> None:
    with pytest.raises(FrozenInstanceError):
        STORE.message_id = 1  # type: ignore[misc]
    assert replace(STORE, deviations=("odd-length",)) == STORE


DEVIATIONS = [
    pytest.param(b"".join(C_STORE_RQ.values()), {}, "missing-group-length", id="no-group-length"),
    pytest.param(command(*C_STORE_RQ.values(), group_length=1), {}, "wrong-group-length", id="group-length"),
    pytest.param(element(0, b"\x02\0") + b"".join(C_STORE_RQ.values()), {}, "wrong-group-length", id="group-length-us"),
    pytest.param(changed(C_STORE_RQ, x0700=None), {}, "missing-priority", id="no-priority"),
    pytest.param(changed(C_STORE_RQ, x0700=us(0x0700, 3)), {}, "invalid-priority", id="priority-3"),
    pytest.param(changed(C_STORE_RQ, x0110=element(0x0110, b"\x07\0\0\0")), {}, "integer-length", id="us-of-4"),
    pytest.param(changed(C_STORE_RQ, x0001=element(0x0001, bytes(4))), {}, "retired-element", id="length-to-end"),
    pytest.param(changed(C_STORE_RQ, x9999=element(0x9999, b"??")), {}, "unknown-element", id="unknown"),
    pytest.param(changed(C_STORE_RQ, x0900=us(0x0900, 0)), {}, "unexpected-element", id="status-in-request"),
    pytest.param(changed(C_STORE_RQ, x1030=element(0x1030, b"")), {}, "empty-element", id="empty-originator"),
    pytest.param(changed(C_STORE_RQ, x1030=element(0x1030, b"    ")), {}, "empty-element", id="blank-originator"),
    pytest.param(
        changed(C_STORE_RQ, x1030=element(0x1030, b"CT1")),
        {"move_originator_ae_title": "CT1"},
        "odd-length",
        id="odd-title",
    ),
    pytest.param(
        changed(C_STORE_RQ, x1030=element(0x1030, b"CT1\0")),
        {"move_originator_ae_title": "CT1"},
        "ae-title-nul-padding",
        id="nul-title",
    ),
    pytest.param(changed(C_STORE_RQ, x0002=element(0x0002, CT[:-1])), {}, "odd-length", id="odd-uid"),
    pytest.param(changed(C_STORE_RQ, x0002=element(0x0002, CT[:-1] + b" ")), {}, "uid-space-padding", id="space-uid"),
    pytest.param(changed(C_STORE_RQ, x1000=element(0x1000, INSTANCE + b"\0\0")), {}, "uid-nul-padding", id="two-nuls"),
    pytest.param(changed(C_STORE_RQ, x1000=element(0x1000, INSTANCE + b"  ")), {}, "uid-space-padding", id="spaces"),
    pytest.param(
        changed(C_STORE_RQ, x1000=element(0x1000, b"1.02.345")),
        {"affected_sop_instance_uid": "1.02.345"},
        "uid-leading-zero",
        id="leading-zero",
    ),
    pytest.param(
        changed(C_STORE_RQ, x1000=element(0x1000, b"01.2.345")),
        {"affected_sop_instance_uid": "01.2.345"},
        "uid-leading-zero",
        id="leading-zero-first",
    ),
    pytest.param(
        changed(C_STORE_RQ, x1000=element(0x1000, b"0.0.10.5")),
        {"affected_sop_instance_uid": "0.0.10.5"},
        "",
        id="single-zeros-are-right",
    ),
]


@pytest.mark.parametrize(("data", "values", "note"), DEVIATIONS)
def test_harmless_deviations_pass_are_noted_and_are_gone_from_what_we_send(
    data: bytes, values: dict[str, str], note: str
) -> None:
    decoded = decode_command_set(data, LIMITS)
    assert decoded == replace(STORE, **values)  # type: ignore[arg-type]
    assert decoded.deviations == ((note,) if note else ())
    assert bool(decoded.encoded) is (not note)
    again = decode_command_set(encode_command_set(decoded), LIMITS)
    assert again == decoded
    assert set(again.deviations) <= {"uid-leading-zero"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(changed(C_STORE_RQ, x0800=us(0x0800, 0)), id="another data set type"),
        pytest.param(changed(C_STORE_RQ, x1030=element(0x1030, b" CT1")), id="title behind a space"),
    ],
)
def test_what_we_would_write_otherwise_is_not_passed_on_as_it_came(data: bytes) -> None:
    decoded = decode_command_set(data, LIMITS)
    assert (decoded.deviations, decoded.encoded) == ((), b"")
    assert encode_command_set(decoded) != data


def test_trap_a_changed_command_set_does_not_keep_the_bytes_it_came_in() -> None:
    decoded = decode_command_set(changed(C_STORE_RQ), LIMITS)
    assert encode_command_set(decoded) is decoded.encoded
    other = replace(decoded, message_id=9)
    assert decode_command_set(encode_command_set(other), LIMITS).message_id == 9


def test_trap_a_peer_cannot_make_us_remember_long_values() -> None:
    module._plain_uid.cache_clear()
    for size in range(66, 96, 2):
        data = changed(C_STORE_RQ, x1000=element(0x1000, INSTANCE.ljust(size, b"\0")))
        assert decode_command_set(data, LIMITS) == STORE
    assert module._plain_uid.cache_info().currsize == 1  # the SOP class


def test_odd_length_and_nul_padding_of_a_uid_are_both_noted() -> None:
    data = changed(C_STORE_RQ, x1000=element(0x1000, INSTANCE + b"\0"))
    assert decode_command_set(data, LIMITS).deviations == ("odd-length", "uid-nul-padding")


@pytest.mark.parametrize(
    ("status", "data_set", "notes"),
    [
        (Status.PENDING, DATA, ()),
        (Status.PENDING_WITH_WARNING, DATA, ()),
        (Status.SUCCESS, NO_DATA, ()),
        (Status.PENDING, NO_DATA, ("pending-without-data-set",)),
        (Status.SUCCESS, DATA, ("data-set-without-pending",)),
    ],
)
def test_data_set_of_a_c_find_rsp(status: int, data_set: bytes, notes: tuple[str, ...]) -> None:
    decoded = decode_command_set(changed(C_FIND_RSP, x0800=data_set, x0900=us(0x0900, status)), LIMITS)
    assert decoded.has_data_set is (data_set is DATA)
    assert decoded.deviations == notes


@pytest.mark.parametrize("value", [0x0000, 0x0001, 0x0100, 0x0102, 0xFFFF])
def test_any_other_data_set_type_than_0101_is_a_data_set(value: int) -> None:
    assert decode_command_set(changed(C_STORE_RQ, x0800=us(0x0800, value)), LIMITS).has_data_set


@pytest.mark.parametrize(
    ("raw", "comment", "notes"),
    [
        (b"no room ", "no room", ()),
        (b"a" * 64, "a" * 64, ()),
        (b"a" * 66, "a" * 64, ("error-comment",)),
        (b"C:\\x\x1b[2J\x85 ", "C:?x?[2J?", ("error-comment",)),
        (b"odd", "odd", ("odd-length",)),
        (b"\xe9t\xe9\0", "été", ()),
        (b"    ", None, ()),
        (b"a" * 63 + b" b", "a" * 63, ("error-comment", "odd-length")),
    ],
)
def test_error_comment_is_made_safe_to_show(raw: bytes, comment: str | None, notes: tuple[str, ...]) -> None:
    decoded = decode_command_set(changed(C_MOVE_RSP, x0902=element(0x0902, raw)), LIMITS)
    assert decoded.error_comment == comment
    assert decoded.deviations == notes
    assert decode_command_set(encode_command_set(decoded), LIMITS) == decoded


def test_a_data_set_in_the_command_set_of_a_response_is_dropped() -> None:
    """Orthanc puts the Failed SOP Instance UID List of a C-GET there; the direct pair can live with it."""
    failed = element(0x0000, bytes(4), group=8) + element(0x0058, INSTANCE, group=8)
    decoded = decode_command_set(command(*C_MOVE_RSP.values()) + failed, LIMITS)
    clean = decode_command_set(command(*C_MOVE_RSP.values()), LIMITS)
    assert decoded == clean
    assert "data-set-in-response" in decoded.deviations


@pytest.mark.parametrize(
    "tail",
    [element(0x0058, b"", length=99, group=8), element(0x0058, b"", group=8) + element(0x0900, b"\0\0")],
    ids=["too long", "a command element after it"],
)
def test_a_data_set_in_a_response_must_stand_last_and_be_whole(tail: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="in a command set"):
        decode_command_set(command(*C_MOVE_RSP.values()) + tail, LIMITS)


INVALID = AbortReason.INVALID_PARAMETER_VALUE

ERRORS = [
    pytest.param(b"", "without command_field", id="empty"),
    pytest.param(command(*reversed(C_STORE_RQ.values())), "follows", id="descending"),
    pytest.param(command(*C_STORE_RQ.values(), C_STORE_RQ[0x1000]), "follows", id="twice"),
    pytest.param(command(*C_STORE_RQ.values(), element(0x0018, b"", group=8)), "in a command set", id="group-8"),
    pytest.param(command(*C_STORE_RQ.values()) + bytes(7), "7 bytes follow", id="trailing-bytes"),
    pytest.param(changed(C_STORE_RQ, x1000=element(0x1000, b"", length=0xFFFFFFFF)), "is longer than", id="undefined"),
    pytest.param(changed(C_STORE_RQ, x0100=None), "without command_field", id="no-command-field"),
    pytest.param(changed(C_STORE_RQ, x0100=element(0x0100, b"")), "without command_field", id="empty-command-field"),
    pytest.param(changed(C_STORE_RQ, x0800=None), "without command_data_set_type", id="no-data-set-type"),
    pytest.param(changed(C_STORE_RQ, x0110=element(0x0110, b"\x07")), "has 1 bytes, not 2", id="us-of-1"),
    pytest.param(changed(C_STORE_RQ, x0110=element(0x0110, b"\x07\0\x01\0")), "has 4 bytes, not 2", id="us-with-two"),
    pytest.param(changed(C_STORE_RQ, x0110=None), "C-STORE-RQ without message_id", id="no-message-id"),
    pytest.param(changed(C_STORE_RQ, x0110=element(0x0110, b"")), "without message_id", id="empty-message-id"),
    pytest.param(changed(C_STORE_RQ, x0002=None), "without affected_sop_class_uid", id="no-class"),
    pytest.param(changed(C_STORE_RQ, x1000=None), "without affected_sop_instance_uid", id="no-instance"),
    pytest.param(changed(C_STORE_RQ, x1000=element(0x1000, b"../..\0")), "affected_sop_instance_uid", id="path"),
    pytest.param(changed(C_STORE_RQ, x1000=element(0x1000, b"..")), "affected_sop_instance_uid", id="dots"),
    pytest.param(changed(C_STORE_RQ, x1000=element(0x1000, b"1" * 66)), "at most 64", id="long-uid"),
    pytest.param(changed(C_STORE_RQ, x1000=element(0x1000, b"1" * 60_000)), "at most 64", id="very-long-uid"),
    pytest.param(changed(C_STORE_RQ, x1030=element(0x1030, b".. ")), "names a directory", id="path-title"),
    pytest.param(changed(C_STORE_RQ, x1030=element(0x1030, b". ")), "names a directory", id="dot-title"),
    pytest.param(changed(C_STORE_RQ, x1030=element(0x1030, b"A\\B ")), "backslash", id="two-titles"),
    pytest.param(changed(C_STORE_RQ, x1030=element(0x1030, b"A" * 18)), "at most 16", id="long-title"),
    pytest.param(changed(C_STORE_RQ, x0800=NO_DATA), "C-STORE-RQ without a data set", id="store-without-data"),
    pytest.param(changed(C_ECHO_RQ, x0800=DATA), "C-ECHO-RQ with a data set", id="echo-with-data"),
    pytest.param(changed(C_FIND_RSP, x0120=None), "without message_id_being_responded_to", id="rsp-without-id"),
    pytest.param(changed(C_FIND_RSP, x0900=None), "C-FIND-RSP without status", id="rsp-without-status"),
    pytest.param(
        changed(C_STORE_RQ, x0100=us(0x0100, 0x0021), x1000=None), "C-MOVE-RQ without move_destination", id="move"
    ),
    pytest.param(
        changed(C_STORE_RQ, x0100=us(0x0100, 0x0021), x0600=element(0x0600, b"  "), x1000=None),
        "C-MOVE-RQ without move_destination",
        id="move-to-nobody",
    ),
    pytest.param(changed(C_MOVE_RSP, x0901=element(0x0901, bytes(6))), "6 bytes, not a multiple of 4", id="tags"),
]


@pytest.mark.parametrize(("data", "detail"), ERRORS)
def test_incomplete_or_inconsistent_commands_are_refused(data: bytes, detail: str) -> None:
    with pytest.raises(RemoteProtocolError, match=detail) as caught:
        decode_command_set(data, LIMITS)
    assert caught.value.abort_reason is INVALID
    assert caught.value.clause.startswith("PS3.7 §")


@pytest.mark.parametrize("field", [0x0000, 0x0002, 0x0FFE, 0x8FFF, 0xFFFF])
def test_unknown_command_field_is_refused(field: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{field:04X}H is no message") as caught:
        decode_command_set(changed(C_STORE_RQ, x0100=us(0x0100, field)), LIMITS)
    assert caught.value.abort_reason is AbortReason.UNRECOGNISED_PARAMETER


def test_size_is_limited() -> None:
    data = changed(C_STORE_RQ)
    decode_command_set(data, Limits(max_command_set_bytes=len(data)))
    with pytest.raises(LimitExceeded, match="max_command_set_bytes"):
        decode_command_set(data, Limits(max_command_set_bytes=len(data) - 1))


def test_command_sets_cut_at_every_byte_are_refused() -> None:
    for start in cut_at_every_byte(changed(C_STORE_RQ)):
        with pytest.raises(RemoteProtocolError):
            decode_command_set(start, LIMITS)


@given(command_sets())
def test_what_is_encoded_is_decoded_again(command_set: CommandSet) -> None:
    data = encode_command_set(command_set)
    decoded = decode_command_set(data, LIMITS)
    assert decoded == command_set
    assert set(decoded.deviations) <= {"pending-without-data-set", "data-set-without-pending"}
    numbers = []
    offset = 0
    while offset < len(data):
        group, number, length = struct.unpack_from("<HHI", data, offset)
        assert (group, length % 2) == (0, 0)
        numbers.append(number)
        offset += 8 + length
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert struct.unpack_from("<I", data, 8)[0] == len(data) - 12


FIND = CommandSet(command_field=0x0020, has_data_set=True, message_id=1, affected_sop_class_uid="1.2", priority=0)
RESPONSE = CommandSet(command_field=0x8020, message_id_being_responded_to=1, status=0)


@pytest.mark.parametrize(
    "command_set",
    [
        replace(STORE, command_field=0x0002),
        replace(STORE, has_data_set=False),
        CommandSet(command_field=0x8001, message_id_being_responded_to=1, status=0, has_data_set=True),
        replace(STORE, message_id=None),
        replace(STORE, priority=None),
        replace(STORE, affected_sop_class_uid=""),
        replace(STORE, affected_sop_instance_uid="1..2"),
        replace(STORE, move_originator_ae_title="A" * 17),
        replace(STORE, move_originator_ae_title="É"),
        replace(STORE, message_id=0x10000),
        replace(STORE, message_id=-1),
        replace(STORE, status=0),
        replace(FIND, affected_sop_instance_uid="1.2"),
        replace(FIND, offending_elements=(1,)),
        replace(RESPONSE, error_comment="x" * 65),
        replace(RESPONSE, error_comment="line\nline"),
        replace(RESPONSE, error_comment="C:\\x"),
        replace(RESPONSE, error_comment="漢字"),
        replace(RESPONSE, offending_elements=(2**32,)),
        replace(RESPONSE, number_of_failed_suboperations=1),
    ],
)
def test_what_the_standard_forbids_is_not_sent(command_set: CommandSet) -> None:
    with pytest.raises(LocalProtocolError):
        encode_command_set(command_set)


def test_empty_optional_fields_are_not_sent() -> None:
    assert encode_command_set(replace(RESPONSE, error_comment="", offending_elements=())) == encode_command_set(
        RESPONSE
    )
    assert encode_command_set(replace(STORE, error_comment="", move_destination="")) == encode_command_set(STORE)


def _vectors(module: object) -> dict[str, bytes]:
    # The first byte of a vector is its message control header.
    return {name: data[1:] for name, data in vars(module).items() if "_cmd" in name and isinstance(data, bytes)}


VECTORS = {**_vectors(encoded_dimse_msg), **_vectors(encoded_dimse_n_msg)}
# An N-SET-RQ without its UIDs, made by pynetdicom to test its own defaults.
REFUSED_VECTORS = {"n_set_rq_cmd_empty"}
# Counts as 32-bit numbers under a wrong group length; an empty instance UID, which leaves the choice to the archive.
ODD_VECTORS = {
    "c_move_rsp_cmd_with_dup": ("integer-length", "wrong-group-length"),
    "n_create_rq_cmd_empty": ("empty-element",),
}


def test_there_are_vectors() -> None:
    assert len(VECTORS) >= 24
    assert set(VECTORS) >= REFUSED_VECTORS | set(ODD_VECTORS)


@pytest.mark.parametrize("name", sorted(set(VECTORS) - REFUSED_VECTORS))
def test_vectors_are_read_and_written_byte_for_byte(name: str) -> None:
    decoded = decode_command_set(VECTORS[name], LIMITS)
    assert decoded.deviations == ODD_VECTORS.get(name, ())
    if name not in ODD_VECTORS:
        assert encode_command_set(replace(decoded)) == VECTORS[name]
        assert decoded.encoded in (b"", VECTORS[name])
    assert decode_command_set(encode_command_set(replace(decoded)), LIMITS) == decoded


@pytest.mark.parametrize("name", sorted(REFUSED_VECTORS))
def test_incomplete_vectors_are_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_command_set(VECTORS[name], LIMITS)


@given(mutations(tuple(VECTORS.values())))
@settings(max_examples=500)
def test_mutated_command_sets_give_a_command_or_a_remote_error(data: bytes) -> None:
    try:
        decoded = decode_command_set(data, LIMITS)
    except RemoteProtocolError:
        return
    written = encode_command_set(replace(decoded))
    assert decode_command_set(written, LIMITS) == decoded
    assert decoded.encoded in (b"", written)


@given(st.binary(max_size=200))
def test_random_bytes_give_a_command_or_a_remote_error(data: bytes) -> None:
    try:
        decode_command_set(data, LIMITS)
    except RemoteProtocolError:
        pass


def test_an_instance_that_is_stored_may_be_named_by_a_hash_value() -> None:
    uid = "dccc9599087131742838cc1162a630fea87ba9bf61ac09bfda90d4adfa5ddaed"
    decoded = decode_command_set(changed(C_STORE_RQ, x1000=element(0x1000, uid.encode())), LIMITS)
    assert decoded.affected_sop_instance_uid == uid
    assert decoded.deviations == ("instance-uid-letters",)
    assert decode_command_set(encode_command_set(decoded), LIMITS) == decoded


def test_an_instance_of_odd_digits_is_read_as_ever() -> None:
    decoded = decode_command_set(changed(C_STORE_RQ, x1000=element(0x1000, b"1.02.3 ")), LIMITS)
    assert decoded.affected_sop_instance_uid == "1.02.3"
    assert set(decoded.deviations) == {"uid-leading-zero", "uid-space-padding", "odd-length"}


@pytest.mark.parametrize(
    "value",
    [
        *(b"../../x\0", b"a" * 66, b"a" * 40, b"A" * 64, b"1.2.ab", b"1.2.*\0", b"1" * 66, b"a..b", b"a b1"),
        *(b"\xe4bcd", b"1.2\\1.3\0", b"\0\0", b"1.2\n.3", b"a" * 63 + b"\0"),
    ],
)
def test_what_names_no_instance_is_an_error(value: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_command_set(changed(C_STORE_RQ, x1000=element(0x1000, value)), LIMITS)


def test_letters_are_for_instances_that_are_stored_only() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_command_set(changed(C_STORE_RQ, x0002=element(0x0002, b"1.2.ab")), LIMITS)
    create = {0x0002: C_STORE_RQ[0x0002], 0x0100: us(0x0100, 0x0140), 0x0110: us(0x0110, 1), 0x0800: NO_DATA}
    with pytest.raises(RemoteProtocolError):
        decode_command_set(changed(create, x1000=element(0x1000, b"1.2.ab")), LIMITS)


def test_echo_is_remembered_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[bytes, CommandSet] = {}
    monkeypatch.setattr(module, "_ECHOES", known)
    monkeypatch.setattr(module, "_REMEMBERED_ECHOES", 2)
    echoes = [command(*{**C_ECHO_RQ, 0x0110: us(0x0110, number)}.values()) for number in range(3)]
    for data in echoes[:2]:
        assert decode_command_set(data, LIMITS) is decode_command_set(data, LIMITS)
    assert list(known) == echoes[:2]
    assert decode_command_set(echoes[2], LIMITS).message_id == 2
    assert list(known) == echoes[2:]
    assert decode_command_set(command(*C_STORE_RQ.values()), LIMITS).message_id == 7
    odd = command(*{**C_ECHO_RQ, 0x0002: element(0x0002, b"1.2.840.10008.1.1 ")}.values())
    assert decode_command_set(odd, LIMITS).deviations
    assert list(known) == echoes[2:]


def test_remembered_echo_is_bounded_like_any_other() -> None:
    data = command(*C_ECHO_RQ.values())
    decode_command_set(data, LIMITS)
    with pytest.raises(LimitExceeded):
        decode_command_set(data, replace(LIMITS, max_command_set_bytes=len(data) - 1))
