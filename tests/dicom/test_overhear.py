"""Listening to an association: facts of it come out, data sets never do, and nothing that peers send fails."""

import random

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import encode_p_data
from dicomward.dicom.overhear import Deed, Overhearing
from dicomward.dicom.pdu import AAssociateRj, UserIdentity, UserInformation
from dicomward.vocab.dimse import Operation
from tests.relay.wire import (
    CT_IMAGE,
    STUDY_MOVE,
    a_associate_ac,
    a_associate_rq,
    c_move_rq,
    c_store_rq,
    identifier,
    image,
    response_to,
)

CONTEXTS = {1: CT_IMAGE, 3: STUDY_MOVE}
REQUEST = a_associate_rq(CONTEXTS, calling="CT1", called="PACS")
SECRET = b"DOE^JANE"


def p_data(context_id: int, command: CommandSet, data: bytes = b"", size: int = 16384) -> bytes:
    out = encode_p_data(context_id, encode_command_set(command), size, command=True)
    return out + (encode_p_data(context_id, data, size, command=False) if data else b"")


def established() -> Overhearing:
    hearing = Overhearing()
    hearing.data(True, encode_pdu(REQUEST))
    hearing.data(False, encode_pdu(a_associate_ac(REQUEST)))
    return hearing


def everything() -> bytes:
    return (
        p_data(1, c_store_rq(1), image(pixels=SECRET * 5000), 4096)
        + p_data(3, c_move_rq(2, affected_sop_class_uid=STUDY_MOVE, destination="WS1"), identifier())
        + p_data(1, c_store_rq(3), image())
    )


STORED = Deed(Operation.C_STORE, CT_IMAGE)
MOVED = Deed(Operation.C_MOVE, STUDY_MOVE, "WS1")


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_titles_contexts_and_operations_come_out(size: int) -> None:
    hearing = Overhearing()
    said = encode_pdu(REQUEST) + everything()
    answered = encode_pdu(a_associate_ac(REQUEST)) + p_data(1, response_to(c_store_rq(1)))
    # The answer comes before the data, however both are cut.
    hearing.data(True, said[: len(encode_pdu(REQUEST))])
    for at in range(0, len(answered), size):
        hearing.data(False, answered[at : at + size])
    rest = said[len(encode_pdu(REQUEST)) :]
    for at in range(0, len(rest), size):
        hearing.data(True, rest[at : at + size])
    heard = hearing.heard
    assert (heard.calling_ae_title, heard.called_ae_title, heard.is_accepted) == ("CT1", "PACS", True)
    assert set(heard.contexts.values()) == {CT_IMAGE, STUDY_MOVE}
    assert heard.deeds == {STORED: 2, MOVED: 1}
    assert heard.problem == ""
    assert hearing.is_dicom
    assert SECRET.decode() not in repr(heard)


def test_operation_of_the_acceptor_is_told_apart() -> None:
    hearing = established()
    hearing.data(False, p_data(1, c_store_rq(1), image()))
    assert list(hearing.heard.deeds) == [Deed(Operation.C_STORE, CT_IMAGE, "", False)]


def test_rejection_and_kind_of_user_identity_come_out() -> None:
    identity = UserIdentity(type=2, positive_response_requested=True, primary=b"doe", secondary=b"secret")
    request = a_associate_rq(CONTEXTS, user=UserInformation(maximum_length=16384, user_identity=identity))
    hearing = Overhearing()
    hearing.data(True, encode_pdu(request))
    hearing.data(False, encode_pdu(AAssociateRj(result=1, source=1, reason=3)))
    assert (hearing.heard.is_rejected, hearing.heard.is_accepted, hearing.heard.user_identity) == (True, False, 2)
    assert "secret" not in repr(hearing.heard)


def test_gap_within_a_data_set_does_not_matter() -> None:
    hearing = established()
    stored = p_data(1, c_store_rq(1), image(pixels=bytes(9000)), 16384)
    hearing.data(True, stored[:2000])
    hearing.gap(True, 5000)
    hearing.data(True, stored[7000:])
    hearing.data(True, p_data(1, c_store_rq(2), image()))
    assert hearing.heard.deeds == {STORED: 2}
    whole = established()
    whole.data(True, stored[:2000])
    whole.gap(True, len(stored) - 2000)
    whole.data(True, p_data(1, c_store_rq(2), image()))
    assert whole.heard.deeds == {STORED: 2}


def test_gap_elsewhere_ends_the_direction_and_is_said() -> None:
    hearing = established()
    hearing.gap(True, 10)
    hearing.data(True, p_data(1, c_store_rq(1), image()))
    assert hearing.heard.deeds == {}
    assert hearing.heard.problem == "bytes are missing"
    hearing.gap(True, 10)


def test_tls_is_noticed_and_not_read() -> None:
    hearing = Overhearing()
    hearing.data(True, b"\x16")
    hearing.data(True, b"\x03\x01\x02\x00")
    hearing.data(False, b"\x16\x03\x03")
    assert hearing.heard.is_tls
    assert hearing.is_dicom
    assert hearing.heard.calling_ae_title is None


@pytest.mark.parametrize("payload", [b"GET / HTTP/1.1", b"\x04\x00\x00\x00\x00\x09"])
def test_what_is_no_association_is_left_alone(payload: bytes) -> None:
    hearing = Overhearing()
    hearing.data(True, payload)
    hearing.data(True, payload)
    assert not hearing.is_dicom


@pytest.mark.parametrize(
    "data",
    [
        b"\x09\x00\x00\x00\x00\x04abcd",
        b"\x05\x00\xff\xff\xff\xff",
        b"\x04\x00\x00\x00\x00\x03abc",
        b"\x04\x00\x00\x00\x00\x08\x00\x00\x00\x20\x01\x03",
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x01\x01\x03",
        b"\x04\x00\x00\x00\x00\x0a\x00\x00\x00\x06\x01\x03junk",
        b"\x04\x00\x00\x02\x00\x00" + b"\x00\x01\xff\xfc\x01\x01" + bytes(0x1FFFA),
        b"\x05\x00\x00\x00\x00\x01x",
    ],
    ids=["type", "length", "pdv header", "pdv length", "pdv of 1", "command", "long command", "release"],
)
def test_what_breaks_the_standard_is_said_by_its_clause(data: bytes) -> None:
    hearing = established()
    hearing.data(True, data)
    assert hearing.heard.problem.startswith("breaks PS3.")
    hearing.data(True, p_data(1, c_store_rq(1), image()))
    assert hearing.heard.deeds == {}


def test_empty_fragments_and_other_pdus_pass() -> None:
    hearing = established()
    hearing.data(
        True, b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x00" + b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
    )
    assert hearing.heard.problem == ""


def test_noise_never_fails() -> None:
    noise = random.Random(20261125)
    good = encode_pdu(REQUEST) + everything()
    for _ in range(300):
        data = bytearray(good)
        for _ in range(noise.randrange(1, 8)):
            data[noise.randrange(len(data))] = noise.randrange(256)
        hearing = Overhearing()
        hearing.data(False, encode_pdu(a_associate_ac(REQUEST)))
        hearing.data(True, bytes(data))
