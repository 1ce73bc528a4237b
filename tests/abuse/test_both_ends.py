"""Operations that go wrong between a device and an archive, both played here: who is told what, and what stays open.

Each script says who speaks and what each side then reads, in the words of `Transcript`; all of it is read strictly.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.abuse.hold import CT
from tests.abuse.transcript import Transcript
from tests.real import raw_peer as raw
from tests.real.clients import Route
from tests.real.gateway import Gateway
from tests.real.processes import free_port
from tests.real.raw_retrieve import C_GET, C_MOVE, MOVE_DESTINATION, STUDY_GET, STUDY_MOVE
from tests.real.recording_archive import COMMITMENT, COMMITMENT_INSTANCE, STUDY_FIND, VERIFICATION, WORKLIST
from tests.real.samples import sample

_CONTEXTS: raw.Contexts = {
    1: (VERIFICATION, [raw.IMPLICIT]),
    3: (CT.sop_class_uid, [CT.transfer_syntax_uid]),
    5: (STUDY_FIND, [raw.IMPLICIT]),
    7: (WORKLIST, [raw.IMPLICIT]),
    9: (STUDY_GET, [raw.IMPLICIT]),
    11: (STUDY_MOVE, [raw.IMPLICIT]),
    13: (COMMITMENT, [raw.IMPLICIT]),
}
_CLASSES = {context_id: abstract for context_id, (abstract, _) in _CONTEXTS.items()}
_KEYS = raw.element(8, 0x52, "STUDY") + raw.element(0x20, 0xD, "1.2.3")
_MATCH = raw.element(8, 0x52, "STUDY") + raw.element(0x10, 0x20, "P1")
_DEVICE, _ARCHIVE = "device", "archive"
_GONE = "ABORT 2/0 | EOF"
# Who says these bytes, or reads these words.
Step = tuple[str, bytes | str]


def _data(context_id: int, data: bytes, *, last: bool = True) -> bytes:
    starts = range(0, max(len(data), 1), 16000)
    return b"".join(
        raw.p_data(context_id, data[at : at + 16000], command=False, last=last and at + 16000 >= len(data))
        for at in starts
    )


def _asks(context_id: int, field: int, message_id: int = 1, data: bytes = _KEYS, **more: raw.Value) -> bytes:
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: _CLASSES[context_id],
        raw.COMMAND_FIELD: field,
        raw.MESSAGE_ID: message_id,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
    }
    if "destination" in more:
        values[MOVE_DESTINATION] = more["destination"]
    return raw.command(context_id, values) + _data(context_id, data)


def _answers(context_id: int, field: int, status: int, message_id: int = 1, data: bytes | None = None) -> bytes:
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: _CLASSES[context_id],
        raw.COMMAND_FIELD: field | raw.RESPONSE,
        raw.MESSAGE_ID_RESPONDED_TO: message_id,
        raw.DATA_SET_TYPE: raw.NO_DATA_SET if data is None else raw.WITH_DATA_SET,
        raw.STATUS: status,
    }
    if field == raw.C_STORE:
        values[raw.AFFECTED_SOP_INSTANCE_UID] = CT.sop_instance_uid
    return raw.command(context_id, values) + (b"" if data is None else _data(context_id, data))


def _store(message_id: int = 100, *, sop_class: str = CT.sop_class_uid, instance: str = CT.sop_instance_uid) -> bytes:
    return raw.store_rq(3, sop_class, instance, message_id=message_id) + _data(3, CT.data_set)


def _cancel(context_id: int, message_id: int = 1) -> bytes:
    values: dict[int, raw.Value] = {raw.COMMAND_FIELD: raw.C_CANCEL, raw.MESSAGE_ID_RESPONDED_TO: message_id}
    return raw.command(context_id, values | {raw.DATA_SET_TYPE: raw.NO_DATA_SET})


def _report(data: bytes) -> bytes:
    values: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: COMMITMENT,
        raw.COMMAND_FIELD: 0x0100,
        raw.MESSAGE_ID: 9,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        raw.AFFECTED_SOP_INSTANCE_UID: COMMITMENT_INSTANCE,
        0x1002: 1,
    }
    return raw.command(13, values) + _data(13, data)


_GETTING: list[Step] = [(_DEVICE, _asks(9, C_GET)), (_ARCHIVE, "REQ 0010 1 | data")]
_SENDING: list[Step] = [*_GETTING, (_ARCHIVE, _store()), (_DEVICE, "REQ 0001 100 | data")]
_FINDING: list[Step] = [(_DEVICE, _asks(5, raw.C_FIND)), (_ARCHIVE, "REQ 0020 1 | data")]
_ECHOING: list[Step] = [(_DEVICE, raw.echo_rq(1, 1)), (_ARCHIVE, "REQ 0030 1")]
# After it, both still have an association on which things work.
_STILL_THERE: list[Step] = [
    (_DEVICE, raw.echo_rq(1, 77)),
    (_ARCHIVE, "REQ 0030 77"),
    (_ARCHIVE, _answers(1, raw.C_ECHO, 0, 77)),
    (_DEVICE, "RSP 8030 77 0000"),
]
_DEVICE_BROKE: list[Step] = [(_ARCHIVE, _GONE)]
_ARCHIVE_BROKE: list[Step] = [(_DEVICE, _GONE)]
_HALF = raw.store_rq(3, CT.sop_class_uid, CT.sop_instance_uid, message_id=100) + _data(
    3, CT.data_set[:9000], last=False
)
_ABORT, _RELEASE = raw.pdu(raw.ABORT, bytes(4)), raw.pdu(raw.RELEASE_RQ, bytes(4))
_OTHER = sample("MR_small.dcm").sop_class_uid


def _refused(said: bytes, status: str) -> Sequence[Step]:
    """Return what happens to a request of the archive's that the device never sees."""
    return [(_ARCHIVE, said), (_ARCHIVE, status), *_STILL_THERE]


SCRIPTS: Mapping[str, Sequence[Step]] = {
    # sub-operations of a C-GET
    "image-refused-by-the-device": [
        *_SENDING,
        (_DEVICE, _answers(3, raw.C_STORE, 0xA700, 100)),
        (_ARCHIVE, "RSP 8001 100 A700"),
        (_ARCHIVE, _answers(9, C_GET, 0xB000)),
        (_DEVICE, "RSP 8010 1 B000"),
    ],
    "image-answered-for-another-id": [
        *_SENDING,
        (_DEVICE, _answers(3, raw.C_STORE, 0, 101)),
        (_DEVICE, "ABORT 2/5 | EOF"),
        *_DEVICE_BROKE,
    ],
    "image-answered-twice": [
        *_SENDING,
        (_DEVICE, _answers(3, raw.C_STORE, 0, 100) * 2),
        (_DEVICE, "ABORT 2/5 | EOF"),
        (_ARCHIVE, "RSP 8001 100 0000 | ABORT 2/0 | EOF"),
    ],
    "image-answered-in-another-context": [
        *_SENDING,
        (_DEVICE, _answers(1, raw.C_STORE, 0, 100)),
        (_DEVICE, "ABORT 2/5 | EOF"),
        *_DEVICE_BROKE,
    ],
    "image-answered-with-a-data-set": [
        *_SENDING,
        (_DEVICE, _answers(3, raw.C_STORE, 0, 100, b"abcd")),
        (_DEVICE, "ABORT 2/6 | EOF"),
        *_DEVICE_BROKE,
    ],
    "get-cancelled": [
        *_GETTING,
        (_DEVICE, _cancel(9)),
        (_ARCHIVE, "REQ 0FFF 1"),
        (_ARCHIVE, _answers(9, C_GET, 0xFE00)),
        (_DEVICE, "RSP 8010 1 FE00"),
    ],
    "get-of-an-id-that-is-under-way": [*_GETTING, (_DEVICE, _asks(9, C_GET)), (_DEVICE, "RSP 8010 1 0210")],
    "image-that-nobody-asked-for": _refused(_store(), "RSP 8001 100 0211"),
    "image-after-the-last-answer": [
        *_GETTING,
        (_ARCHIVE, _answers(9, C_GET, 0)),
        (_DEVICE, "RSP 8010 1 0000"),
        *_refused(_store(), "RSP 8001 100 0211"),
    ],
    "image-of-another-class": [
        *_GETTING,
        (_ARCHIVE, _store(sop_class=_OTHER)),
        (_ARCHIVE, "RSP 8001 100 A900"),
        (_ARCHIVE, _answers(9, C_GET, 0)),
        # One was refused on the way, so it is no success.
        (_DEVICE, "RSP 8010 1 B000"),
    ],
    "image-of-another-instance": [*_GETTING, (_ARCHIVE, _store(instance="1.2.3.4")), (_ARCHIVE, "RSP 8001 100 A900")],
    "image-without-a-command": [
        *_GETTING,
        (_ARCHIVE, _data(3, CT.data_set)),
        (_ARCHIVE, "ABORT 2/2 | EOF"),
        *_ARCHIVE_BROKE,
    ],
    "archive-aborts-inside-an-image": [
        *_GETTING,
        (_ARCHIVE, _HALF + _ABORT),
        (_DEVICE, "REQ 0001 100 | ABORT 0/0 | EOF"),
    ],
    "archive-releases-inside-an-image": [
        *_GETTING,
        (_ARCHIVE, _HALF + _RELEASE),
        (_ARCHIVE, "ABORT 2/2 | EOF"),
        (_DEVICE, "REQ 0001 100 | ABORT 2/0 | EOF"),
    ],
    # what an archive asks of a device
    "archive-asks-for-an-echo": _refused(raw.echo_rq(1, 7), "RSP 8030 7 0211"),
    "archive-asks-a-query": _refused(_asks(5, raw.C_FIND, 7), "RSP 8020 7 0211"),
    "archive-asks-for-images": _refused(_asks(9, C_GET, 7), "RSP 8010 7 0211"),
    "archive-asks-for-a-move": _refused(_asks(11, C_MOVE, 7, destination="SUPER"), "RSP 8021 7 0211"),
    "archive-cancels-nothing": [(_ARCHIVE, _cancel(5)), *_STILL_THERE],
    "report-that-nobody-waits-for": _refused(_report(raw.element(8, 0x1195, "1.2.99")), "RSP 8100 9 0124"),
    "report-without-a-transaction": _refused(_report(raw.element(8, 0x1199, "")), "RSP 8100 9 0110"),
    "report-of-garbage": _refused(_report(b"\xff" * 5000), "RSP 8100 9 0110"),
    # answers to a query
    "match-behind-success": [
        *_FINDING,
        (_ARCHIVE, _answers(5, raw.C_FIND, 0, data=_MATCH)),
        (_DEVICE, "RSP 8020 1 C000"),
        *_STILL_THERE,
    ],
    "match-of-100-kilobytes-among-others": [
        *_FINDING,
        (_ARCHIVE, _answers(5, raw.C_FIND, 0xFF00, data=_MATCH + raw.element(0x10, 0x4000, "x" * 100000))),
        (_ARCHIVE, _answers(5, raw.C_FIND, 0xFF00, data=_MATCH) + _answers(5, raw.C_FIND, 0)),
        (_DEVICE, "RSP 8020 1 FF00 | data | RSP 8020 1 A700"),
        *_STILL_THERE,
    ],
    "match-whose-lengths-lie": [
        *_FINDING,
        (_ARCHIVE, _answers(5, raw.C_FIND, 0xFF00, data=struct.pack("<HHI", 0x10, 0x10, 0xFFFFFFFE) + b"xx")),
        (_ARCHIVE, _answers(5, raw.C_FIND, 0)),
        (_DEVICE, "RSP 8020 1 C000"),
    ],
    "match-after-the-last-answer": [
        *_FINDING,
        (_ARCHIVE, _answers(5, raw.C_FIND, 0) + _answers(5, raw.C_FIND, 0xFF00, data=_MATCH)),
        (_DEVICE, f"RSP 8020 1 0000 | {_GONE}"),
        (_ARCHIVE, "ABORT 2/5 | EOF"),
    ],
    **{
        f"query-answered-{how}": [*_FINDING, (_ARCHIVE, said), (_ARCHIVE, "ABORT 2/5 | EOF"), *_ARCHIVE_BROKE]
        for how, said in {
            "as-a-get": _answers(5, C_GET, 0),
            "in-another-context": _answers(7, raw.C_FIND, 0),
            "for-another-id": _answers(5, raw.C_FIND, 0, 2),
        }.items()
    },
    # simple answers
    "echo-answered-with-a-data-set": [
        *_ECHOING,
        (_ARCHIVE, _answers(1, raw.C_ECHO, 0, data=b"abcd")),
        (_ARCHIVE, "ABORT 2/6 | EOF"),
        *_ARCHIVE_BROKE,
    ],
    "image-answered-before-its-end": [
        (_DEVICE, _HALF),
        (_ARCHIVE, "REQ 0001 100"),
        (_ARCHIVE, _answers(3, raw.C_STORE, 0xA700, 100)),
        (_DEVICE, "RSP 8001 100 A700"),
        (_DEVICE, _data(3, CT.data_set[9000:])),
        (_ARCHIVE, "data"),
        *_STILL_THERE,
    ],
    "id-reused-while-an-echo-is-under-way": [
        *_ECHOING,
        (_DEVICE, _store(1)),
        (_DEVICE, "RSP 8001 1 0210"),
        (_ARCHIVE, _answers(1, raw.C_ECHO, 0)),
        (_DEVICE, "RSP 8030 1 0000"),
    ],
    "release-while-an-echo-is-under-way": [
        *_ECHOING,
        (_DEVICE, _RELEASE),
        (_ARCHIVE, "RELEASE-RQ"),
        (_ARCHIVE, _answers(1, raw.C_ECHO, 0) + raw.pdu(raw.RELEASE_RP, bytes(4))),
        (_DEVICE, "RSP 8030 1 0000 | RELEASE-RP | EOF"),
    ],
    # moves
    "move-to-nobody": [(_DEVICE, _asks(11, C_MOVE, destination="NOBODY")), (_DEVICE, "RSP 8021 1 A801"), *_STILL_THERE],
    "move-to-dots": [
        (_DEVICE, _asks(11, C_MOVE, destination="..")),
        (_DEVICE, "ABORT 2/6 | EOF"),
        *_DEVICE_BROKE,
    ],
    "60-moves-at-once": [
        (_DEVICE, b"".join(_asks(11, C_MOVE, number, destination="SUPER") for number in range(1, 61))),
        (_DEVICE, _GONE),
        *_DEVICE_BROKE,
    ],
    "move-aborted-at-once": [(_DEVICE, _asks(11, C_MOVE, destination="SUPER") + _ABORT), (_ARCHIVE, "ABORT 0/0 | EOF")],
    "move-cancelled-at-once": [
        (_DEVICE, _asks(11, C_MOVE, destination="SUPER") + _cancel(11)),
        (_DEVICE, "RSP 8021 1 FE00"),
        *_STILL_THERE,
    ],
}


@dataclass(frozen=True, slots=True)
class Here:
    """A gateway in front of an archive that is played here, and a device that may do everything."""

    gateway: Gateway
    archive: raw.RawArchive
    route: Route


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    directory: Path = tmp_path_factory.mktemp("both")
    with raw.RawArchive() as archive:
        gateway = Gateway(directory / "gateway", archive="ARCHIVE", archive_port=archive.port)
        gateway.permit_everything_to("tester")
        with gateway.configuration.open("a", encoding="utf-8") as settings:
            # Most of what follows costs a device its good name, and it asks again at once: a handshake takes longer.
            settings.write("\n[limits.strangers]\ncertificate_first_seconds = 0.001\ncertificate_max_seconds = 0.001\n")
        try:
            credentials = gateway.add_device("super", "SUPER", role="tester", address=free_port())
            gateway.start()
            yield Here(gateway, archive, gateway.route(credentials, "SUPER"))
        finally:
            gateway.stop()


def _play(here: Here, script: Sequence[Step]) -> list[tuple[str, str, str]]:
    """Play a script on an association of its own; return what was read otherwise than it says."""
    with ExitStack() as stack:
        device = stack.enter_context(raw.connect(here.route))
        device.send(raw.request_on(here.route, _CONTEXTS, roles=[CT.sop_class_uid]))
        archive = stack.enter_context(here.archive.accept())
        ends = {_DEVICE: (device, Transcript(device.socket)), _ARCHIVE: (archive, Transcript(archive.socket))}
        assert ends[_ARCHIVE][1].next(1) == "RQ"
        archive.send(raw.associate_ac(ends[_ARCHIVE][1].associate, roles=[CT.sop_class_uid]))
        assert ends[_DEVICE][1].next(1).startswith("AC")
        wrong = []
        for who, what in script:
            connection, transcript = ends[who]
            if isinstance(what, bytes):
                connection.send(what)
            elif (said := transcript.next(what.count("|") + 1)) != what:
                wrong.append((who, what, said))
        return wrong


def test_each_side_is_told_what_the_standard_says(here: Here) -> None:
    wrong = {name: said for name, script in SCRIPTS.items() if (said := _play(here, script))}
    assert wrong == {}
    assert "internal-error" not in here.gateway.reasons()


def test_moves_that_have_ended_leave_no_way_to_their_destination(here: Here) -> None:
    """Registered after its end, a C-MOVE would let the archive send to its destination, and keep later ones waiting."""
    for name in ("60-moves-at-once", "move-aborted-at-once", "move-cancelled-at-once"):
        assert _play(here, SCRIPTS[name]) == []
    side = Route(port=here.gateway.archive_port, calling_ae_title="ARCHIVE", called_ae_title="SUPER")
    with raw.connect(side) as archive:
        archive.send(raw.request_on(side, {1: (CT.sop_class_uid, [CT.transfer_syntax_uid])}))
        assert Transcript(archive.socket).next(2) == "RJ 1/1/7 | EOF"
    move = _asks(11, C_MOVE, destination="SUPER")
    assert _play(here, [(_DEVICE, move), (_ARCHIVE, "REQ 0021 1 | data")]) == []


@pytest.mark.parametrize("before", ["the accept", "the answer"])
def test_an_archive_that_closes_at_any_byte_leaves_the_device_a_whole_end(here: Here, before: str) -> None:
    accepted = before == "the answer"
    contexts: raw.Contexts = {1: _CONTEXTS[1]}
    answer = _answers(1, raw.C_ECHO, 0)
    for cut in range(0, len(answer) if accepted else 180, 9):
        with ExitStack() as stack:
            device = stack.enter_context(raw.connect(here.route))
            device.send(raw.request_on(here.route, contexts))
            archive = stack.enter_context(here.archive.accept())
            transcript = Transcript(device.socket)
            accept = raw.associate_ac(archive.expect(raw.ASSOCIATE_RQ))
            if accepted:
                archive.send(accept)
                assert transcript.next(1) == "AC 1:0"
                device.send(raw.echo_rq(1, 1))
                archive.message()
            archive.send((answer if accepted else accept)[:cut])
            archive.socket.close()
            assert transcript.next(2) == ("ABORT 2/0 | EOF" if accepted else "RJ 2/3/1 | EOF")
