"""Families of abuse on an association that is open: presentation data, command sets, data sets, state machine."""

import struct
from collections.abc import Sequence

from tests.abuse.hold import CT, Case, Hold
from tests.real import raw_peer as raw
from tests.real.recording_archive import STUDY_FIND, VERIFICATION, WORKLIST


def _on_association(*data: bytes, answers: int = 1) -> Case:
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


_ECHO = raw.command_set(
    {
        raw.AFFECTED_SOP_CLASS_UID: VERIFICATION,
        raw.COMMAND_FIELD: raw.C_ECHO,
        raw.MESSAGE_ID: 1,
        raw.DATA_SET_TYPE: raw.NO_DATA_SET,
    }
)


def _store(**changes: raw.Value) -> bytes:
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: changes.get("sop_class", CT.sop_class_uid),
        raw.COMMAND_FIELD: raw.C_STORE,
        raw.MESSAGE_ID: changes.get("message_id", 1),
        raw.PRIORITY: changes.get("priority", 0),
        raw.DATA_SET_TYPE: changes.get("data_set_type", raw.WITH_DATA_SET),
        raw.AFFECTED_SOP_INSTANCE_UID: changes.get("instance", CT.sop_instance_uid),
    }
    return raw.command(3, values)


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


DATA: dict[str, Case] = {
    "empty-p-data": _on_association(_p_data(b"")),
    "pdv-length-0": _on_association(_p_data(_pdv(0, 1, 3, b""))),
    "pdv-length-1": _on_association(_p_data(_pdv(1, 1, 3, b""))),
    "pdv-length-2": _on_association(_p_data(_pdv(2, 1, 3, b""))),
    "pdv-longer-than-the-pdu": _on_association(_p_data(_pdv(len(_ECHO) + 200, 1, 3, _ECHO))),
    "pdv-length-4-gibibytes": _on_association(_p_data(_pdv(0xFFFFFFFF, 1, 3, _ECHO))),
    "three-bytes-of-a-pdv": _on_association(_p_data(b"\0\0\0")),
    "context-0": _on_association(_p_data(_pdv(len(_ECHO) + 2, 0, 3, _ECHO))),
    "context-even": _on_association(_p_data(_pdv(len(_ECHO) + 2, 2, 3, _ECHO))),
    "context-never-proposed": _on_association(_p_data(_pdv(len(_ECHO) + 2, 99, 3, _ECHO))),
    "control-header-255": _on_association(_p_data(_pdv(len(_ECHO) + 2, 1, 255, _ECHO))),
    "data-before-any-command": _on_association(raw.p_data(3, b"data", command=False)),
    "data-in-another-context": _on_association(_store(), raw.p_data(1, b"data", command=False)),
    "command-inside-a-data-set": _on_association(
        _store(), raw.p_data(3, CT.data_set[:100], command=False, last=False), raw.echo_rq(1, 2)
    ),
    "two-commands-interleaved": _on_association(
        raw.p_data(1, _ECHO[:20], command=True, last=False), raw.p_data(3, _ECHO[:20], command=True, last=False)
    ),
    "data-after-the-last-fragment": _on_association(
        _store(), raw.p_data(3, CT.data_set, command=False), raw.p_data(3, b"more", command=False)
    ),
    "command-in-single-bytes": _on_association(
        *(raw.p_data(1, _ECHO[at : at + 1], command=True, last=at + 1 == len(_ECHO)) for at in range(len(_ECHO)))
    ),
    "five-thousand-empty-fragments": _on_association(raw.p_data(1, b"", command=True, last=False) * 5000),
    "five-thousand-pdvs-in-one-pdu": _on_association(_p_data(_pdv(2, 1, 1, b"") * 5000)),
    "pdu-larger-than-agreed": _on_association(_store(), raw.p_data(3, bytes(1 << 20), command=False)),
    "pdu-header-of-2-gibibytes": _on_association(struct.pack(">BBI", 4, 0, 0x7FFFFFFF) + bytes(1 << 16)),
    "half-a-pdu-and-silence": _on_association(raw.echo_rq(1, 1)[:40], answers=0),
    "command-without-an-end": _on_association(raw.p_data(1, _ECHO, command=True, last=False)),
}


def _command(values: dict[int, raw.Value], context_id: int = 1) -> Case:
    return _on_association(raw.command(context_id, values))


def _echo(**changes: raw.Value) -> dict[int, raw.Value]:
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: VERIFICATION,
        raw.COMMAND_FIELD: raw.C_ECHO,
        raw.MESSAGE_ID: 1,
        raw.DATA_SET_TYPE: raw.NO_DATA_SET,
    }
    names = {"field": raw.COMMAND_FIELD, "sop_class": raw.AFFECTED_SOP_CLASS_UID, "type": raw.DATA_SET_TYPE}
    return values | {names[name]: value for name, value in changes.items()}


def _without(element: int) -> dict[int, raw.Value]:
    return {number: value for number, value in _echo().items() if number != element}


def _raw_command(data: bytes) -> Case:
    return _on_association(raw.p_data(1, data, command=True))


def _element(group: int, element: int, length: int, data: bytes = b"") -> bytes:
    return struct.pack("<HHI", group, element, length) + data


COMMANDS: dict[str, Case] = {
    "empty-command": _raw_command(b""),
    "command-of-one-byte": _raw_command(b"\0"),
    "garbage-command": _raw_command(b"\xff" * 40),
    "command-of-60-kibibytes-of-ones": _on_association(
        *(raw.p_data(1, b"\xff" * 15000, command=True, last=number == 3) for number in range(4))
    ),
    "command-of-10-mebibytes": _on_association(
        *(raw.p_data(1, _element(0, 0x5000, 8, b"\0" * 8) * 1000, command=True, last=False) for _ in range(650))
    ),
    "element-longer-than-the-command": _raw_command(_ECHO + _element(0, 0x5000, 0xFFFFFFF0)),
    "group-length-0": _raw_command(_element(0, 0, 4, bytes(4)) + _ECHO[12:]),
    "group-length-4-gibibytes": _raw_command(_element(0, 0, 4, b"\xff" * 4) + _ECHO[12:]),
    "no-group-length": _raw_command(_ECHO[12:]),
    "elements-in-reverse-order": _raw_command(_ECHO[:12] + b"".join(reversed([_ECHO[12:38], _ECHO[38:]]))),
    "elements-of-group-8": _raw_command(_ECHO + _element(8, 0x52, 6, b"STUDY ")),
    "command-field-twice": _raw_command(_ECHO + _element(0, 0x0100, 2, b"\1\0")),
    "explicit-value-representations": _raw_command(b"\0\0\0\0UL\4\0" + struct.pack("<I", 4) + b"\0\0\2\0UI\4\0001.2\0"),
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
    "answer-without-a-question": _on_association(
        raw.command(1, {**_echo(field=raw.C_ECHO | raw.RESPONSE), raw.MESSAGE_ID_RESPONDED_TO: 77, raw.STATUS: 0})
    ),
    "cancel-of-nothing": _command(
        {raw.COMMAND_FIELD: raw.C_CANCEL, raw.MESSAGE_ID_RESPONDED_TO: 7, raw.DATA_SET_TYPE: raw.NO_DATA_SET}
    ),
    "thousand-cancels-of-nothing": _on_association(
        raw.command(1, {raw.COMMAND_FIELD: raw.C_CANCEL, raw.MESSAGE_ID_RESPONDED_TO: 7, raw.DATA_SET_TYPE: 0x0101})
        * 1000
    ),
    "same-message-id-twice": _on_association(raw.echo_rq(1, 1), raw.echo_rq(1, 1), answers=2),
    "store-in-the-context-of-echo": _on_association(
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
    "query-that-no-rule-permits": _on_association(
        _query(5, STUDY_FIND), raw.p_data(5, raw.element(8, 0x52, "STUDY"), command=False)
    ),
    "delete-that-no-rule-permits": _command(_echo(field=0x0150)),
    "get-that-no-rule-permits": _on_association(_query(5, STUDY_FIND, 0x0010)),
    "move-that-no-rule-permits": _on_association(_query(5, STUDY_FIND, 0x0021)),
}


def _stored(data_set: bytes, command: bytes | None = None, *, chunk: int = 16000) -> Case:
    return _on_association(command or _store(), *_chunks(3, data_set, chunk))


def _chunks(context_id: int, data: bytes, chunk: int) -> Sequence[bytes]:
    starts = range(0, max(len(data), 1), chunk)
    return [raw.p_data(context_id, data[at : at + chunk], command=False, last=at + chunk >= len(data)) for at in starts]


_HEAD = struct.pack("<HH2sH", 8, 0x16, b"UI", len(CT.sop_class_uid) + 1) + CT.sop_class_uid.encode() + b"\0"
_DEEP = struct.pack("<HH2s2xI", 8, 0x1115, b"SQ", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
DATA_SETS: dict[str, Case] = {
    "empty-data-set": _stored(b""),
    "one-byte": _stored(b"\x08"),
    "garbage": _stored(b"\xff" * 3000),
    "megabyte-of-zeros": _stored(bytes(1 << 20)),
    "cut-in-the-middle": _stored(CT.data_set[: len(CT.data_set) // 2]),
    "value-of-4-gibibytes": _stored(_HEAD + struct.pack("<HH2s2xI", 8, 0x18, b"OB", 0xFFFFFFFE)),
    "sequences-nested-ten-thousand-deep": _stored(_HEAD + _DEEP * 10000),
    "sequence-without-an-end": _stored(_HEAD + _DEEP),
    "other-instance-than-in-the-command": _stored(CT.data_set, _store(instance="1.2.3.4")),
    "other-sop-class-than-in-the-command": _stored(CT.data_set, _store(sop_class="1.2.840.10008.5.1.4.1.1.4")),
    "instance-of-2000-digits": _stored(CT.data_set, _store(instance="1." * 1000)),
    "instance-that-climbs-directories": _stored(CT.data_set, _store(instance="../../../../tmp/x")),
    "empty-instance": _stored(CT.data_set, _store(instance="")),
    "implicit-in-an-explicit-context": _stored(raw.element(8, 0x16, CT.sop_class_uid) + raw.element(8, 0x18, "1.2")),
    "whole-file-with-its-preamble": _stored(bytes(128) + b"DICM" + CT.data_set),
    "no-data-set-is-promised-but-one-comes": _stored(CT.data_set, _store(data_set_type=raw.NO_DATA_SET)),
    "fragments-of-two-bytes": _stored(CT.data_set[:4000], chunk=2),
    "worklist-query-of-2-mebibytes": _on_association(
        _query(7, WORKLIST), *_chunks(7, raw.element(0x10, 0x10, "*" * 60000) * 35, 16000)
    ),
    "worklist-query-of-garbage": _on_association(_query(7, WORKLIST), raw.p_data(7, b"\xfe" * 999, command=False)),
}


def _half_open(hold: Hold) -> None:
    held = hold.associated()
    held.half_close()


def _reset_inside_an_image(hold: Hold) -> None:
    held = hold.associated()
    held.send(_store(), raw.p_data(3, CT.data_set[:16000], command=False, last=False))
    held.reset()


def _request_again(hold: Hold) -> None:
    held = hold.associated()
    held.send(raw.request_on(hold.route, {1: (VERIFICATION, [raw.IMPLICIT])}))
    held.receive()


def _release_and_go_on(hold: Hold) -> None:
    held = hold.associated()
    held.send(_RELEASE)
    held.pdu()
    held.send(raw.echo_rq(1, 5))
    held.receive()


def _data_at_once(hold: Hold) -> None:
    held = hold.open()
    held.send(raw.request_on(hold.route, {1: (VERIFICATION, [raw.IMPLICIT])}), raw.echo_rq(1, 1))
    held.receive()


def _two_requests_at_once(hold: Hold) -> None:
    held = hold.open()
    held.send(raw.request_on(hold.route, {1: (VERIFICATION, [raw.IMPLICIT])}) * 2)
    held.receive()


def _abort_at_once(hold: Hold) -> None:
    held = hold.open()
    held.send(raw.request_on(hold.route, {1: (VERIFICATION, [raw.IMPLICIT])}), _ABORT)


_RELEASE, _RELEASED = raw.pdu(raw.RELEASE_RQ, bytes(4)), raw.pdu(raw.RELEASE_RP, bytes(4))
_ABORT = raw.pdu(raw.ABORT, bytes(4))
STATES: dict[str, Case] = {
    "request-on-an-association": _request_again,
    "two-requests-at-once": _two_requests_at_once,
    "data-before-the-accept": _data_at_once,
    "abort-before-the-accept": _abort_at_once,
    "accept-on-an-association": _on_association(raw.pdu(raw.ASSOCIATE_AC, bytes(68))),
    "reject-on-an-association": _on_association(raw.pdu(raw.ASSOCIATE_RJ, b"\0\1\1\1")),
    "release-reply-without-a-release": _on_association(_RELEASED),
    "release-twice": _on_association(_RELEASE * 2),
    "release-inside-a-command": _on_association(raw.p_data(1, _ECHO[:20], command=True, last=False), _RELEASE),
    "release-inside-an-image": _on_association(
        _store(), raw.p_data(3, CT.data_set[:9000], command=False, last=False), _RELEASE
    ),
    "release-while-an-echo-is-under-way": _on_association(raw.echo_rq(1, 1), _RELEASE),
    "data-after-a-release": _release_and_go_on,
    "data-after-an-abort": _on_association(_ABORT, raw.echo_rq(1, 1)),
    "abort-inside-an-image": _on_association(
        _store(), raw.p_data(3, CT.data_set[:9000], command=False, last=False), _ABORT
    ),
    "abort-of-255-255": _on_association(raw.pdu(raw.ABORT, b"\0\0\xff\xff")),
    "abort-without-a-body": _on_association(raw.pdu(raw.ABORT, b"")),
    "release-without-a-body": _on_association(raw.pdu(raw.RELEASE_RQ, b"")),
    "type-99-on-an-association": _on_association(raw.pdu(99, bytes(10))),
    "half-closed": _half_open,
    "reset-inside-an-image": _reset_inside_an_image,
}
