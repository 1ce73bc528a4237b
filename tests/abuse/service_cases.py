"""A family of abuse by requests of services that are permitted: queries, commitments, procedure steps, cancels."""

import struct
from collections.abc import Sequence

from tests.abuse.hold import CT, Case, Held, Hold
from tests.real import raw_peer as raw
from tests.real.recording_archive import COMMITMENT, COMMITMENT_INSTANCE, MPPS, VERIFICATION, WORKLIST

CONTEXTS: raw.Contexts = {
    1: (VERIFICATION, [raw.IMPLICIT]),
    3: (CT.sop_class_uid, [CT.transfer_syntax_uid]),
    7: (WORKLIST, [raw.IMPLICIT]),
    9: (COMMITMENT, [raw.IMPLICIT]),
    11: (MPPS, [raw.IMPLICIT]),
}
# The patient of whom the archive of these cases has many entries in its worklist.
MANY = "MANY"
N_EVENT_REPORT, N_SET, N_ACTION, N_CREATE, N_DELETE = 0x0100, 0x0120, 0x0130, 0x0140, 0x0150
_REQUESTED_SOP_CLASS, _REQUESTED_INSTANCE, _EVENT_TYPE, _ACTION_TYPE = 0x0003, 0x1001, 0x1002, 0x1008
_QUERY_ID = 9


def _with_data(context_id: int, values: dict[int, raw.Value], data: bytes, *, last: bool = True) -> bytes:
    """Encode a message with a data set in PDUs of 16,000 bytes."""
    starts = range(0, max(len(data), 1), 16000)
    return raw.command(context_id, values) + b"".join(
        raw.p_data(context_id, data[at : at + 16000], command=False, last=last and at + 16000 >= len(data))
        for at in starts
    )


def _query(identifier: bytes, *, last: bool = True, message_id: int = _QUERY_ID) -> bytes:
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: WORKLIST,
        raw.COMMAND_FIELD: raw.C_FIND,
        raw.MESSAGE_ID: message_id,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
    }
    return _with_data(7, values, identifier, last=last)


def _cancel(message_id: int = _QUERY_ID, context_id: int = 7) -> bytes:
    values: dict[int, raw.Value] = {raw.COMMAND_FIELD: raw.C_CANCEL, raw.MESSAGE_ID_RESPONDED_TO: message_id}
    return raw.command(context_id, values | {raw.DATA_SET_TYPE: raw.NO_DATA_SET})


def _action(data: bytes, *, last: bool = True, **changes: raw.Value) -> bytes:
    values: dict[int, raw.Value] = {
        _REQUESTED_SOP_CLASS: COMMITMENT,
        raw.COMMAND_FIELD: changes.get("field", N_ACTION),
        raw.MESSAGE_ID: 5,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        _REQUESTED_INSTANCE: changes.get("instance", COMMITMENT_INSTANCE),
        _ACTION_TYPE: changes.get("action", 1),
    }
    return _with_data(9, values, data, last=last)


def _step(field: int, instance: str, data: bytes) -> bytes:
    created = field == N_CREATE
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID if created else _REQUESTED_SOP_CLASS: MPPS,
        raw.COMMAND_FIELD: field,
        raw.MESSAGE_ID: 6,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        raw.AFFECTED_SOP_INSTANCE_UID if created else _REQUESTED_INSTANCE: instance,
    }
    return _with_data(11, values, data)


def _event_report() -> bytes:
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: COMMITMENT,
        raw.COMMAND_FIELD: N_EVENT_REPORT,
        raw.MESSAGE_ID: 7,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        raw.AFFECTED_SOP_INSTANCE_UID: COMMITMENT_INSTANCE,
        _EVENT_TYPE: 1,
    }
    return _with_data(9, values, raw.element(8, 0x1195, "1.2.3"))


def _says(*data: bytes, answers: int = 1) -> Case:
    def case(hold: Hold) -> None:
        held = hold.associated(CONTEXTS)
        held.send(*data)
        for _ in range(answers):
            held.receive()

    return case


def _asked_with_window(count: int) -> Case:
    """Send that many requests at once on an association that has named no maximum."""

    def case(hold: Hold) -> None:
        held = hold.open()
        held.send(raw.request_on(hold.route, CONTEXTS, window=(0, 0)))
        held.pdu()
        held.send(*(raw.echo_rq(1, number) for number in range(1, count + 1)))
        held.receive()

    return case


def _reads_nothing(hold: Hold) -> None:
    """Ask for much, and never read it."""
    held = hold.associated(CONTEXTS, receive_buffer=2048)
    held.send(_query(_PATIENT))


def _resets_amid_answers(hold: Hold) -> None:
    held = hold.associated(CONTEXTS)
    held.send(_query(_PATIENT))
    held.receive(2000)
    held.reset()


def _cancels_amid_answers(count: int) -> Case:
    def case(hold: Hold) -> None:
        held: Held = hold.associated(CONTEXTS)
        held.send(_query(_PATIENT))
        held.pdu()
        held.send(_cancel() * count)
        while held.pdu():
            pass

    return case


def _nested(depth: int) -> bytes:
    """Return sequences in sequences, all without a length and without an end."""
    sequence = struct.pack("<HHI", 0x40, 0x100, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return sequence * depth


def _nested_and_closed(depth: int) -> bytes:
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return _nested(depth) + ends * depth


def _nested_with_lengths(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data
        data = struct.pack("<HHI", 0x40, 0x100, len(item)) + item
    return data


def _references(count: int) -> bytes:
    """Return a commitment's data set: a transaction and that many instances."""
    reference = raw.element(8, 0x1150, CT.sop_class_uid) + raw.element(8, 0x1155, "1.2.3.4.5")
    items = (struct.pack("<HHI", 0xFFFE, 0xE000, len(reference)) + reference) * count
    return raw.element(8, 0x1195, "1.2.3.77") + struct.pack("<HHI", 8, 0x1199, len(items)) + items


_PATIENT = raw.element(0x10, 0x10, MANY)
_KEYS: Sequence[bytes] = [raw.element(0x0010 + 2 * (number // 50), 0x1000 + number % 50, "") for number in range(1000)]
SERVICES: dict[str, Case] = {
    "query-nested-10000-deep": _says(_query(_nested(10000))),
    "query-nested-10000-deep-and-closed": _says(_query(_nested_and_closed(10000))),
    "query-nested-300-deep-with-lengths": _says(_query(_nested_with_lengths(300))),
    "query-with-a-thousand-keys": _says(_query(b"".join(_KEYS))),
    "query-with-a-list-of-5000-uids": _says(_query(raw.element(0x20, 0x0D, "\\".join(["1.2.3.4"] * 5000)))),
    "query-with-keys-in-reverse-order": _says(_query(raw.element(0x20, 0xD, "") + raw.element(0x10, 0x20, ""))),
    "query-with-a-key-twice": _says(_query(_PATIENT * 2)),
    "query-with-a-key-of-4-gibibytes": _says(_query(struct.pack("<HHI", 0x10, 0x10, 0xFFFFFFFE))),
    "query-with-a-key-of-undefined-length": _says(_query(struct.pack("<HHI", 0x10, 0x10, 0xFFFFFFFF))),
    "query-of-control-characters": _says(_query(raw.element(0x10, 0x10, "\x1b[2J\x07\0*"))),
    "query-of-wildcards": _says(_query(raw.element(0x10, 0x10, "*?" * 20000))),
    "query-without-an-end": _says(_query(_PATIENT, last=False)),
    "query-of-nothing": _says(_query(b"")),
    "thirty-queries-at-once": _says(*(_query(_PATIENT, message_id=number) for number in range(1, 31))),
    "thirty-queries-of-the-same-id": _says(_query(_PATIENT) * 30),
    "500-answers-that-nobody-reads": _reads_nothing,
    "reset-amid-500-answers": _resets_amid_answers,
    "one-cancel-amid-500-answers": _cancels_amid_answers(1),
    "thousand-cancels-amid-500-answers": _cancels_amid_answers(1000),
    "cancel-before-its-query": _says(_cancel(), _query(_PATIENT)),
    "cancel-inside-the-identifier": _says(_query(_PATIENT, last=False), _cancel()),
    "cancel-in-another-context": _says(_query(_PATIENT), _cancel(context_id=1)),
    "cancel-of-another-query": _says(_query(_PATIENT), _cancel(1234)),
    "200-echoes-at-once": _asked_with_window(200),
    "20000-echoes-at-once": _asked_with_window(20000),
    "commitment-of-10000-instances": _says(_action(_references(10000))),
    "commitment-of-4-mebibytes-without-an-end": _says(_action(_references(1) + bytes(4 << 20), last=False)),
    "commitment-nested-10000-deep": _says(_action(raw.element(8, 0x1195, "1.2.3.4") + _nested(10000))),
    "commitment-without-a-transaction": _says(_action(raw.element(8, 0x1198, ""))),
    "commitment-of-garbage": _says(_action(b"\xff" * 5000)),
    "commitment-of-a-transaction-of-2000-digits": _says(_action(raw.element(8, 0x1195, "1." * 1000))),
    "commitment-of-another-instance": _says(_action(_references(1), instance="1.2.3")),
    "commitment-by-action-65535": _says(_action(_references(1), action=0xFFFF)),
    "commitment-twice": _says(_action(_references(1)) * 2),
    "report-of-a-device": _says(_event_report()),
    "step-of-2-mebibytes": _says(_step(N_CREATE, "1.2.3.9", raw.element(0x10, 0x10, "S" * 60000) * 35)),
    "step-nested-10000-deep": _says(_step(N_CREATE, "1.2.3.10", _nested(10000))),
    "step-twice": _says(_step(N_CREATE, "1.2.3.11", _PATIENT) * 2),
    "step-set-that-nobody-created": _says(_step(N_SET, "1.2.3.12", _PATIENT)),
    "step-deleted": _says(_step(N_DELETE, "1.2.3.13", _PATIENT)),
}
