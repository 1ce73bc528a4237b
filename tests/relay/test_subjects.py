"""Patients and studies of data sets: read along, whatever the pieces, and never a reason to hold anything up."""

from dataclasses import replace
from struct import pack

import pytest

from dicomward.audit.event import AuditEvent, OperationAllowed, OperationCompleted, OperationEvent
from dicomward.dicom.framing import DataRun, encode_p_data
from dicomward.relay.inputs import Leg
from dicomward.relay.subjects import Subject, SubjectTap, subject_of
from dicomward.vocab.uid import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.relay.wire import c_find_rq, c_store_rq, data_set, identifier
from tests.relay.world import FakeWorld, Line, established

STUDY = "1.2.826.0.1.77"
WHOLE = data_set(
    {
        0x00080016: "1.2.840.10008.5.1.4.1.1.2",
        0x00080018: "1.2.3",
        0x00100010: "Nobody^Test",
        0x00100020: "4711 ",
        0x00100021: "SITE",
        0x0020000D: STUDY,
        0x7FE00010: b"p" * 5000,
    }
)
TWICE = data_set({0x00080018: "1.2.3"}) + data_set({0x00080018: "1.2.4"})
SUBJECT = Subject(patient_id="4711", issuer_of_patient_id="SITE", study_instance_uid=STUDY)


def run(data: bytes, *, last: bool) -> DataRun:
    view = memoryview(bytearray(encode_p_data(1, data, 1 << 20, command=False)))
    flags = view[11]
    view[11] = flags | 2 if last else flags & ~2
    return DataRun(context_id=1, view=view, payload_bytes=len(data), largest_pdu=len(view), last=last)


def tapped(pieces: list[bytes], *, most: int = 65_536, syntax: str = IMPLICIT_VR_LITTLE_ENDIAN) -> tuple[Subject, int]:
    """Return what was found, and after how many pieces the tap was satisfied (0: never)."""
    tap = SubjectTap(syntax, most)
    for number, piece in enumerate(pieces, start=1):
        if tap.look(run(piece, last=number == len(pieces))):
            return tap.subject, number
    return tap.subject, 0


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 100, 2048, 10_000])
def test_found_whatever_the_pieces(size: int) -> None:
    subject, satisfied = tapped(pieces_of(WHOLE, size))
    assert subject == SUBJECT
    assert 0 < satisfied * size <= 2048 + size or satisfied == len(pieces_of(WHOLE, size))


@pytest.mark.parametrize("size", [100, 2047, 2048, 3000])
def test_found_in_one_run_of_several_fragments(size: int) -> None:
    tap = SubjectTap(IMPLICIT_VR_LITTLE_ENDIAN, 65_536)
    view = memoryview(bytearray(b"".join(bytes(run(piece, last=False).view) for piece in pieces_of(WHOLE, size))))
    assert tap.look(DataRun(1, view, len(WHOLE), size + 6, last=False))
    assert tap.subject == SUBJECT


def test_found_behind_a_long_beginning() -> None:
    long = data_set({0x00081140: b""})  # an empty sequence, then much text
    filled = long + data_set({0x00104000: b"x" * 4000, 0x00180015: b"y" * 3000, 0x0020000D: STUDY, 0x00280010: b"\0\2"})
    assert tapped(pieces_of(filled, 512))[0].study_instance_uid == STUDY


def test_a_study_in_an_item_of_a_sequence_is_not_the_data_sets() -> None:
    inner = data_set({0x0020000D: "9.9.9"})
    item = pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    sequence = pack("<HHI", 0x0008, 0x1250, len(item)) + item
    assert tapped([sequence + WHOLE[60:]])[0].study_instance_uid != "9.9.9"


def test_what_stands_beyond_the_bound_stays_unknown() -> None:
    far = data_set({0x00100020: "4711", 0x00104000: b"x" * 9000, 0x0020000D: STUDY})
    assert tapped(pieces_of(far, 1000), most=4096) == (Subject(patient_id="4711"), 5)


@pytest.mark.parametrize("data", [b"\xff" * 200, WHOLE[:50], WHOLE[:150], TWICE, TWICE + bytes(4000), b""])
def test_what_can_not_be_read_stays_unknown_and_ends_the_tap(data: bytes) -> None:
    assert tapped([data])[1] == 1


def test_explicit_syntax() -> None:
    def element(tag: int, vr: bytes, value: bytes) -> bytes:
        return pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value

    data = (
        element(0x00100020, b"LO", b"P1") + element(0x0020000D, b"UI", b"1.2\0") + element(0x00280010, b"US", b"\0\2")
    )
    assert tapped([data], syntax=EXPLICIT_VR_LITTLE_ENDIAN)[0] == Subject(patient_id="P1", study_instance_uid="1.2")


@pytest.mark.parametrize(
    ("character_set", "raw", "text"),
    [
        (None, b"J\xe4ger", "Jäger"),
        (b"ISO_IR 192", "Jäger".encode(), "Jäger"),
        (b"ISO_IR 144", "Ж1".encode("iso8859-5"), "Ж1"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", b"\xe4", "ä"),
        (b"ISO_IR 192", b"\xff", "\\xff"),
        (b"NEW", b"\xe4", "ä"),
    ],
)
def test_patient_ids_are_read_in_their_character_set(character_set: bytes | None, raw: bytes, text: str) -> None:
    assert subject_of({0x00080005: character_set, 0x00100020: raw}).patient_id == text


def test_nothing_in_a_head_is_nothing_known() -> None:
    assert subject_of({0x00100020: b"  ", 0x0020000D: None}) == Subject()


# --- in the relay -----------------------------------------------------------------------------------------------------


def identifying(calling: str = "CT1") -> Line:
    world = FakeWorld()
    world.settings = replace(world.settings, identify_patients=True)
    return established(world, calling=calling)


def last(line: Line, kind: type[OperationEvent]) -> OperationEvent:
    found: AuditEvent = next(event for event in reversed(line.records) if isinstance(event, kind))
    assert isinstance(found, OperationEvent)
    return found


def test_a_stored_object_is_recorded_with_its_patient_and_study() -> None:
    line = identifying()
    line.say(Leg.REQUESTOR, 3, c_store_rq(1, instance="1.2.3"), WHOLE)
    allowed = last(line, OperationAllowed)
    assert (allowed.patient_id, allowed.issuer_of_patient_id, allowed.study_instance_uid) == ("4711", "SITE", STUDY)
    assert allowed.identifier is None


def test_nothing_is_read_where_it_is_switched_off() -> None:
    line = established()
    line.say(Leg.REQUESTOR, 3, c_store_rq(1, instance="1.2.3"), WHOLE)
    assert last(line, OperationAllowed).patient_id is None


def test_a_query_is_recorded_with_its_identifier() -> None:
    from base64 import b64decode

    from tests.relay.wire import response_to

    line = identifying("WS1")
    keys = identifier(patient_id="4711", study=STUDY)
    line.say(Leg.REQUESTOR, 5, c_find_rq(1), keys)
    line.say(Leg.ACCEPTOR, 5, response_to(c_find_rq(1)))
    ended = last(line, OperationCompleted)
    assert (ended.patient_id, ended.study_instance_uid) == ("4711", STUDY)
    assert b64decode(ended.identifier or "") == keys
    assert ended.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
