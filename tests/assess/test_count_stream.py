"""Responses are counted however they are cut; what breaks the protocol is told without a byte of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.assess.count_stream import MatchReader, StreamBroken
from dicomward.assess.count_tally import Patients, Tally
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import encode_p_data
from dicomward.dicom.limits import Limits
from tests.assess.identifiers import STUDY_ROOT, identifier, response

LIMITS = Limits()


def reader() -> tuple[MatchReader, Tally]:
    tally = Tally(Patients(b"k" * 16, lambda value: ""))
    return MatchReader(1, tally, LIMITS), tally


def match(number: int) -> bytes:
    return identifier(t00080020=b"20200101", t00100010=b"CANARY^SECRET", t00100020=b"%06d" % number)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40), st.sampled_from([40, 64, 16_384]))
def test_any_cut_gives_the_same_numbers(cuts: list[int], pdu: int) -> None:
    data = b"".join(response(match(number), pdu=pdu) for number in range(5)) + response(None, status=0)
    counter, tally = reader()
    at = 0
    while at < len(data):
        size = cuts[at % len(cuts)]
        counter.feed(data[at : at + size])
        at += size
    assert (counter.matches, tally.numbers.studies, counter.final_status) == (5, 5, 0)
    assert counter.is_over


def test_command_and_data_set_may_share_a_pdu() -> None:
    whole = response(match(1))
    command_size = int.from_bytes(whole[2:6], "big")
    command, data = whole[6 : 6 + command_size], whole[12 + command_size :]
    counter, tally = reader()
    counter.feed(b"\4\0" + (len(command) + len(data)).to_bytes(4, "big") + command + data)
    assert tally.numbers.studies == 1


@pytest.mark.parametrize("pdu", [b"\7\0\0\0\0\4\0\0\0\0", b"\5\0\0\0\0\4\0\0\0\0"], ids=["abort", "release"])
def test_end_of_the_association_ends_it(pdu: bytes) -> None:
    counter, _ = reader()
    counter.feed(response(match(1)) + pdu)
    assert counter.ended
    assert counter.is_over
    assert counter.final_status is None


def command(**values: object) -> bytes:
    fields = {"command_field": 0x8020, "message_id_being_responded_to": 1, "status": 0xFF00, "has_data_set": True}
    made = CommandSet(**{**fields, "affected_sop_class_uid": STUDY_ROOT, **values})  # type: ignore[arg-type]
    return encode_p_data(3, encode_command_set(made), 16_384, command=True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"HTTP/1.1 400 CANARY\r\n", "PDU type 48H"),
        (b"\4\0\x7f\xff\xff\xff", "longer than the maximum length"),
        (b"\4\0\0\0\0\3CAN", "too short"),
        (b"\4\0\0\0\0\x08\0\0\0\xffCANA", "does not fit"),
        (b"\4\0\0\0\0\x08\0\0\0\1CANA", "does not fit"),
        (encode_p_data(3, b"CANARY", 100, command=False), "without a command"),
        (command() * 2, "inside another message"),
        (encode_p_data(3, b"CANARYCANARY", 100, command=True), "can't be read"),
        (command(message_id_being_responded_to=9), "no response to our query"),
        (command(command_field=0x8030, has_data_set=False, status=0), "no response to our query"),
        (encode_p_data(3, b"C" * 70_000, 1000, command=True), "too long"),
        (command() + encode_p_data(3, b"C" * 70_000, 1000, command=False), "too long"),
    ],
)
def test_broken_protocol_is_told_without_what_came(data: bytes, words: str) -> None:
    counter, _ = reader()
    with pytest.raises(StreamBroken, match=words) as caught:
        counter.feed(data)
    assert "CANA" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_commands_that_differ_are_remembered_within_bounds() -> None:
    counter, tally = reader()
    for number in range(100):
        counter.feed(
            command(error_comment=f"N{number}", status=0xFF01) + encode_p_data(3, match(1), 1000, command=False)
        )
    assert tally.numbers.studies == 100
    counter.feed(response(None))
    assert not counter.is_over
    counter.feed(response(None, status=0xA700))
    assert counter.final_status == 0xA700
