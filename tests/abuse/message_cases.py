"""Families of abuse on an association that is open: presentation data, command sets, data sets."""

import struct
from collections.abc import Sequence

from tests.abuse.hold import CT, Case, Hold
from tests.real import raw_peer as raw
from tests.real.recording_archive import STUDY_FIND, VERIFICATION, WORKLIST


def on_association(*data: bytes, answers: int = 1) -> Case:
    """Send this on an association; read what is said to it."""

    def case(hold: Hold) -> None:
        held = hold.associated()
        held.send(*data)
        for _ in range(answers):
            held.receive()

    return case


def _pdv(length: int, context_id: int, flags: int, data: bytes) -> bytes:
    return struct.pack(">IBB", length, context_id, flags) + data


def _p_data(body: bytes) -> bytes:
    return raw.pdu(raw.P_DATA, body)


ECHO = raw.command_set(
    {
        raw.AFFECTED_SOP_CLASS_UID: VERIFICATION,
        raw.COMMAND_FIELD: raw.C_ECHO,
        raw.MESSAGE_ID: 1,
        raw.DATA_SET_TYPE: raw.NO_DATA_SET,
    }
)


def _storing(**changes: raw.Value) -> dict[int, raw.Value]:
    return {
        raw.AFFECTED_SOP_CLASS_UID: changes.get("sop_class", CT.sop_class_uid),
        raw.COMMAND_FIELD: raw.C_STORE,
        raw.MESSAGE_ID: changes.get("message_id", 1),
        raw.PRIORITY: changes.get("priority", 0),
        raw.DATA_SET_TYPE: changes.get("data_set_type", raw.WITH_DATA_SET),
        raw.AFFECTED_SOP_INSTANCE_UID: changes.get("instance", CT.sop_instance_uid),
    }


def store(**changes: raw.Value) -> bytes:
    """Encode a C-STORE-RQ whose values may be wrong."""
    return raw.command(3, _storing(**changes))


def _cut(data: bytes, count: int) -> Sequence[bytes]:
    size = -(-len(data) // count)
    return [data[at : at + size] for at in range(0, len(data), size)]


def _query(context_id: int, sop_class: str, field: int = raw.C_FIND) -> bytes:
    return raw.command(
        context_id,
        {
            raw.AFFECTED_SOP_CLASS_UID: sop_class,
            raw.COMMAND_FIELD: field,
            raw.MESSAGE_ID: 9,
            raw.PRIORITY: 0,
            raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        },
    )


def _chunks(context_id: int, data: bytes, chunk: int) -> Sequence[bytes]:
    starts = range(0, max(len(data), 1), chunk)
    return [raw.p_data(context_id, data[at : at + chunk], command=False, last=at + chunk >= len(data)) for at in starts]


DATA: dict[str, Case] = {
    "empty-p-data": on_association(_p_data(b"")),
    "pdv-length-0": on_association(_p_data(_pdv(0, 1, 3, b""))),
    "pdv-length-1": on_association(_p_data(_pdv(1, 1, 3, b""))),
    "pdv-length-2": on_association(_p_data(_pdv(2, 1, 3, b""))),
    "pdv-longer-than-the-pdu": on_association(_p_data(_pdv(len(ECHO) + 200, 1, 3, ECHO))),
    "pdv-length-4-gibibytes": on_association(_p_data(_pdv(0xFFFFFFFF, 1, 3, ECHO))),
    "three-bytes-of-a-pdv": on_association(_p_data(b"\0\0\0")),
    "context-0": on_association(_p_data(_pdv(len(ECHO) + 2, 0, 3, ECHO))),
    "context-even": on_association(_p_data(_pdv(len(ECHO) + 2, 2, 3, ECHO))),
    "context-never-proposed": on_association(_p_data(_pdv(len(ECHO) + 2, 99, 3, ECHO))),
    "control-header-255": on_association(_p_data(_pdv(len(ECHO) + 2, 1, 255, ECHO))),
    "data-before-any-command": on_association(raw.p_data(3, b"data", command=False)),
    "data-in-another-context": on_association(store(), raw.p_data(1, b"data", command=False)),
    "command-inside-a-data-set": on_association(
        store(), raw.p_data(3, CT.data_set[:100], command=False, last=False), raw.echo_rq(1, 2)
    ),
    "two-commands-interleaved": on_association(
        raw.p_data(1, ECHO[:20], command=True, last=False), raw.p_data(3, ECHO[:20], command=True, last=False)
    ),
    "data-after-the-last-fragment": on_association(
        store(), raw.p_data(3, CT.data_set, command=False), raw.p_data(3, b"more", command=False)
    ),
    "command-in-single-bytes": on_association(
        *(raw.p_data(1, ECHO[at : at + 1], command=True, last=at + 1 == len(ECHO)) for at in range(len(ECHO)))
    ),
    "five-thousand-empty-fragments": on_association(raw.p_data(1, b"", command=True, last=False) * 5000),
    "five-thousand-pdvs-in-one-pdu": on_association(_p_data(_pdv(2, 1, 1, b"") * 5000)),
    "pdu-larger-than-agreed": on_association(store(), raw.p_data(3, bytes(1 << 20), command=False)),
    "pdu-header-of-2-gibibytes": on_association(struct.pack(">BBI", 4, 0, 0x7FFFFFFF) + bytes(1 << 16)),
    "pdu-one-byte-longer-than-its-pdv": on_association(_p_data(_pdv(len(ECHO) + 2, 1, 3, ECHO) + b"\0")),
    "pdu-five-bytes-longer-than-its-pdv": on_association(_p_data(_pdv(len(ECHO) + 2, 1, 3, ECHO) + bytes(5))),
    "pdu-one-byte-shorter-than-its-pdv": on_association(_p_data(_pdv(len(ECHO) + 2, 1, 3, ECHO[:-1]))),
    "second-pdv-that-lies": on_association(_p_data(_pdv(len(ECHO) + 2, 1, 3, ECHO) + _pdv(0x7FFFFFFF, 1, 3, ECHO))),
    "pdv-over-two-pdus": on_association(
        _p_data(_pdv(len(ECHO) + 2, 1, 3, ECHO[:30])), _p_data(ECHO[30:]), raw.echo_rq(1, 2)
    ),
    "control-header-4": on_association(_p_data(_pdv(len(ECHO) + 2, 1, 7, ECHO))),
    "ten-thousand-empty-pdus": on_association(_p_data(b"") * 10000),
    "fifty-thousand-empty-fragments-of-data": on_association(
        store(), raw.p_data(3, b"", command=False, last=False) * 50000
    ),
    "data-pdvs-of-one-byte": on_association(store(), _p_data(_pdv(3, 3, 0, b"x") * 2000)),
    "contexts-mixed-in-one-pdu": on_association(
        _p_data(_pdv(len(ECHO) + 2, 1, 3, ECHO) + _pdv(6, 3, 0, b"data") + _pdv(len(ECHO) + 2, 1, 3, ECHO))
    ),
    "command-fragment-after-data-in-one-pdu": on_association(
        store(), _p_data(_pdv(102, 3, 0, CT.data_set[:100]) + _pdv(len(ECHO) + 2, 3, 1, ECHO))
    ),
    "two-data-sets-interleaved": on_association(
        store(),
        _query(7, WORKLIST),
        *(raw.p_data(number, b"data", command=False, last=False) for number in (3, 7) * 50),
    ),
    "command-fragments-interleaved-100-times": on_association(
        *(raw.p_data(number, ECHO[:4], command=True, last=False) for number in (1, 3, 5, 7) * 25)
    ),
    "half-a-pdu-and-silence": on_association(raw.echo_rq(1, 1)[:40], answers=0),
    "command-without-an-end": on_association(raw.p_data(1, ECHO, command=True, last=False)),
}


def _command(values: dict[int, raw.Value], context_id: int = 1) -> Case:
    return on_association(raw.command(context_id, values))


def _echo(**changes: raw.Value) -> dict[int, raw.Value]:
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: VERIFICATION,
        raw.COMMAND_FIELD: raw.C_ECHO,
        raw.MESSAGE_ID: 1,
        raw.DATA_SET_TYPE: raw.NO_DATA_SET,
    }
    names = {"field": raw.COMMAND_FIELD, "sop_class": raw.AFFECTED_SOP_CLASS_UID, "type": raw.DATA_SET_TYPE}
    names["message_id"] = raw.MESSAGE_ID
    return values | {names[name]: value for name, value in changes.items()}


def _without(element: int) -> dict[int, raw.Value]:
    return {number: value for number, value in _echo().items() if number != element}


def _raw_command(data: bytes) -> Case:
    return on_association(raw.p_data(1, data, command=True))


def _element(group: int, element: int, length: int, data: bytes = b"") -> bytes:
    return struct.pack("<HHI", group, element, length) + data


COMMANDS: dict[str, Case] = {
    "empty-command": _raw_command(b""),
    "command-of-one-byte": _raw_command(b"\0"),
    "garbage-command": _raw_command(b"\xff" * 40),
    "command-of-60-kibibytes-of-ones": on_association(
        *(raw.p_data(1, b"\xff" * 15000, command=True, last=number == 3) for number in range(4))
    ),
    "command-of-10-mebibytes": on_association(
        *(raw.p_data(1, _element(0, 0x5000, 8, b"\0" * 8) * 1000, command=True, last=False) for _ in range(650))
    ),
    "element-longer-than-the-command": _raw_command(ECHO + _element(0, 0x5000, 0xFFFFFFF0)),
    "group-length-0": _raw_command(_element(0, 0, 4, bytes(4)) + ECHO[12:]),
    "group-length-4-gibibytes": _raw_command(_element(0, 0, 4, b"\xff" * 4) + ECHO[12:]),
    "no-group-length": _raw_command(ECHO[12:]),
    "elements-in-reverse-order": _raw_command(ECHO[:12] + b"".join(reversed([ECHO[12:38], ECHO[38:]]))),
    "elements-of-group-8": _raw_command(ECHO + _element(8, 0x52, 6, b"STUDY ")),
    "command-field-twice": _raw_command(ECHO + _element(0, 0x0100, 2, b"\1\0")),
    "explicit-value-representations": _raw_command(b"\0\0\0\0UL\4\0" + struct.pack("<I", 4) + b"\0\0\2\0UI\4\0001.2\0"),
    "element-of-4-gibibytes": _raw_command(ECHO + _element(0, 0x5000, 0xFFFFFFFF)),
    "element-of-odd-length": _raw_command(ECHO + _element(0, 0x5000, 3, b"abc")),
    "two-thousand-elements": _raw_command(ECHO + b"".join(_element(0, 0x5000 + n, 0) for n in range(2000))),
    "element-twice": _raw_command(ECHO + _element(0, 0x0110, 2, b"\1\0") * 2),
    "group-length-alone": _raw_command(_element(0, 0, 4, bytes(4))),
    "group-length-of-one-byte": _raw_command(_element(0, 0, 1, b"\0") + ECHO[12:]),
    "command-field-of-four-bytes": _raw_command(_element(0, 0x0100, 4, b"\x30\0\0\0")),
    "message-id-0": _command(_echo(message_id=0)),
    "message-id-65535": _command(_echo(message_id=0xFFFF)),
    "message-id-of-text": _command(_echo(message_id="one")),
    "priority-65535": on_association(store(priority=0xFFFF), *_chunks(3, CT.data_set, 16000)),
    "status-in-a-request": _command(_echo() | {raw.STATUS: 0}),
    "error-comment-of-60000-bytes": on_association(
        *(
            raw.p_data(1, part, command=True, last=number == 4)
            for number, part in enumerate(_cut(raw.command_set(_echo() | {0x0902: "E" * 60000}), 5))
        )
    ),
    "move-originator-of-2000-characters": on_association(
        raw.command(3, {**_storing(), 0x1030: "M" * 2000, 0x1031: 1}), *_chunks(3, CT.data_set, 16000)
    ),
    "thousand-answers-without-a-question": on_association(
        raw.command(1, {**_echo(field=raw.C_ECHO | raw.RESPONSE), raw.MESSAGE_ID_RESPONDED_TO: 77, raw.STATUS: 0})
        * 1000
    ),
    "cancel-of-an-echo-under-way": on_association(
        raw.echo_rq(1, 7),
        raw.command(1, {raw.COMMAND_FIELD: raw.C_CANCEL, raw.MESSAGE_ID_RESPONDED_TO: 7, raw.DATA_SET_TYPE: 0x0101}),
    ),
    "command-field-0": _command(_echo(field=0)),
    "command-field-unknown": _command(_echo(field=0x0ABC)),
    "command-field-65535": _command(_echo(field=0xFFFF)),
    "no-command-field": _command(_without(raw.COMMAND_FIELD)),
    "no-message-id": _command(_without(raw.MESSAGE_ID)),
    "no-sop-class": _command(_without(raw.AFFECTED_SOP_CLASS_UID)),
    "no-data-set-type": _command(_without(raw.DATA_SET_TYPE)),
    "other-sop-class-than-the-context": _command(_echo(sop_class=STUDY_FIND)),
    "sop-class-of-control-characters": _command(_echo(sop_class="\n\x1b[2J")),
    "sop-class-of-2000-digits": _command(_echo(sop_class="1." * 1000)),
    "echo-that-promises-a-data-set": _command(_echo(type=raw.WITH_DATA_SET)),
    "answer-without-a-question": on_association(
        raw.command(1, {**_echo(field=raw.C_ECHO | raw.RESPONSE), raw.MESSAGE_ID_RESPONDED_TO: 77, raw.STATUS: 0})
    ),
    "cancel-of-nothing": _command(
        {raw.COMMAND_FIELD: raw.C_CANCEL, raw.MESSAGE_ID_RESPONDED_TO: 7, raw.DATA_SET_TYPE: raw.NO_DATA_SET}
    ),
    "thousand-cancels-of-nothing": on_association(
        raw.command(1, {raw.COMMAND_FIELD: raw.C_CANCEL, raw.MESSAGE_ID_RESPONDED_TO: 7, raw.DATA_SET_TYPE: 0x0101})
        * 1000
    ),
    "same-message-id-twice": on_association(raw.echo_rq(1, 1), raw.echo_rq(1, 1), answers=2),
    "store-in-the-context-of-echo": on_association(
        raw.command(
            1,
            {
                raw.AFFECTED_SOP_CLASS_UID: CT.sop_class_uid,
                raw.COMMAND_FIELD: raw.C_STORE,
                raw.MESSAGE_ID: 1,
                raw.PRIORITY: 0,
                raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
                raw.AFFECTED_SOP_INSTANCE_UID: "1.2.3",
            },
        )
    ),
    "query-that-no-rule-permits": on_association(
        _query(5, STUDY_FIND), raw.p_data(5, raw.element(8, 0x52, "STUDY"), command=False)
    ),
    "delete-that-no-rule-permits": _command(_echo(field=0x0150)),
    "get-that-no-rule-permits": on_association(_query(5, STUDY_FIND, 0x0010)),
    "move-that-no-rule-permits": on_association(_query(5, STUDY_FIND, 0x0021)),
}


def _stored(data_set: bytes, command: bytes | None = None, *, chunk: int = 16000) -> Case:
    return on_association(command or store(), *_chunks(3, data_set, chunk))


_HEAD = struct.pack("<HH2sH", 8, 0x16, b"UI", len(CT.sop_class_uid) + 1) + CT.sop_class_uid.encode() + b"\0"


def _deep(element: int) -> bytes:
    """Begin a sequence of group 8 and an item in it, both without a length."""
    return struct.pack("<HH2s2xI", 8, element, b"SQ", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)


_DEEP = _deep(0x1115)
DATA_SETS: dict[str, Case] = {
    "empty-data-set": _stored(b""),
    "one-byte": _stored(b"\x08"),
    "garbage": _stored(b"\xff" * 3000),
    "megabyte-of-zeros": _stored(bytes(1 << 20)),
    "cut-in-the-middle": _stored(CT.data_set[: len(CT.data_set) // 2]),
    "value-of-4-gibibytes": _stored(_HEAD + struct.pack("<HH2s2xI", 8, 0x18, b"OB", 0xFFFFFFFE)),
    "sequences-nested-ten-thousand-deep": _stored(_HEAD + _DEEP * 10000),
    "sequences-nested-in-front-of-the-sop-class": _stored(_deep(1) * 10000 + _HEAD),
    "sequence-in-front-of-the-sop-class-without-an-end": _stored(_deep(1) + _HEAD),
    "megabyte-in-front-of-the-sop-class": _stored(
        struct.pack("<HH2s2xI", 8, 1, b"OB", 1 << 20) + bytes(1 << 20) + _HEAD
    ),
    "value-in-front-of-the-sop-class-of-4-gibibytes": _stored(struct.pack("<HH2s2xI", 8, 1, b"OB", 0xFFFFFFFE) + _HEAD),
    "element-of-group-2": _stored(struct.pack("<HH2sH", 2, 0x10, b"UI", 4) + b"1.2\0" + _HEAD),
    "element-of-group-0": _stored(struct.pack("<HH2sH", 0, 0x100, b"US", 2) + b"\1\0" + _HEAD),
    "value-representation-of-zeros": _stored(struct.pack("<HH2sH", 8, 5, b"\0\0", 4) + b"ISO " + _HEAD),
    "elements-in-reverse-order": _stored(struct.pack("<HH2sH", 0x10, 0x20, b"LO", 4) + b"PAT1" + _HEAD),
    "sop-class-twice": _stored(_HEAD * 2),
    "sop-class-of-odd-length": _stored(struct.pack("<HH2sH", 8, 0x16, b"UI", 25) + CT.sop_class_uid.encode() + _HEAD),
    "item-without-a-sequence": _stored(struct.pack("<HHI", 0xFFFE, 0xE000, 4) + bytes(4) + _HEAD),
    "hundred-thousand-empty-items": _stored(
        _HEAD + struct.pack("<HH2s2xI", 8, 0x1115, b"SQ", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 100000
    ),
    "ten-thousand-empty-fragments-of-pixels": _stored(
        _HEAD
        + struct.pack("<HH2s2xI", 0x7FE0, 0x10, b"OB", 0xFFFFFFFF)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 10000
    ),
    "sequence-without-an-end": _stored(_HEAD + _DEEP),
    "other-instance-than-in-the-command": _stored(CT.data_set, store(instance="1.2.3.4")),
    "other-sop-class-than-in-the-command": _stored(CT.data_set, store(sop_class="1.2.840.10008.5.1.4.1.1.4")),
    "instance-of-2000-digits": _stored(CT.data_set, store(instance="1." * 1000)),
    "instance-that-climbs-directories": _stored(CT.data_set, store(instance="../../../../tmp/x")),
    "empty-instance": _stored(CT.data_set, store(instance="")),
    "implicit-in-an-explicit-context": _stored(raw.element(8, 0x16, CT.sop_class_uid) + raw.element(8, 0x18, "1.2")),
    "whole-file-with-its-preamble": _stored(bytes(128) + b"DICM" + CT.data_set),
    "no-data-set-is-promised-but-one-comes": _stored(CT.data_set, store(data_set_type=raw.NO_DATA_SET)),
    "fragments-of-two-bytes": _stored(CT.data_set[:4000], chunk=2),
    "worklist-query-of-2-mebibytes": on_association(
        _query(7, WORKLIST), *_chunks(7, raw.element(0x10, 0x10, "*" * 60000) * 35, 16000)
    ),
    "worklist-query-of-garbage": on_association(_query(7, WORKLIST), raw.p_data(7, b"\xfe" * 999, command=False)),
}
