"""Bytes → frames: every length judged at its header, every cut the same, runs that can be written as they stand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.dicom.errors import LimitExceeded, RemoteProtocolError
from dicomward.dicom.framing import (
    HEADROOM,
    CommandFrame,
    ControlFrame,
    DataRun,
    Frame,
    Framer,
    encode_p_data,
    fragments_of,
    refragment,
)
from dicomward.dicom.limits import Limits
from dicomward.vocab.association import AbortReason

LIMITS = Limits(max_pdu_bytes=4096, max_command_set_bytes=300, max_association_pdu_bytes=2000)
RELEASE = bytes.fromhex("05000000000400000000")
ABORT = bytes.fromhex("07000000000400000000")


def pdv(context_id: int, data: bytes, flags: int) -> bytes:
    return (len(data) + 2).to_bytes(4, "big") + bytes([context_id, flags]) + data


def pdu(*pdvs: bytes, kind: int = 4, reserved: int = 0) -> bytes:
    body = b"".join(pdvs)
    return bytes([kind, reserved]) + len(body).to_bytes(4, "big") + body


@dataclass(frozen=True)
class Data:
    """What is left of runs when their boundaries are taken away."""

    context_id: int
    data: bytes
    last: bool


Normal = ControlFrame | CommandFrame | Data


def copied(frames: Iterator[Frame], out: list[Frame], framer: Framer, expects: Sequence[int]) -> None:
    """Take frames; a command for a context in `expects` announces a data set. Views are copied at once."""
    for frame in frames:
        if isinstance(frame, DataRun):
            view = memoryview(bytes(frame.view))
            out.append(DataRun(frame.context_id, view, frame.payload_bytes, frame.largest_pdu, frame.last))
        else:
            out.append(frame)
        if isinstance(frame, CommandFrame) and frame.context_id in expects:
            framer.expect_data_set(frame.context_id)


def feed(
    data: bytes, cuts: Sequence[int] = (), *, expects: Sequence[int] = (3,), framer: Framer | None = None
) -> list[Frame]:
    """Feed bytes, cut as the test wants."""
    if framer is None:
        framer = Framer(LIMITS)
        framer.data_transfer = True
    out: list[Frame] = []
    edges = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(edges):
        buffer = bytearray(b"\xee" * HEADROOM + data[start:end] + b"\xee" * 8)
        copied(framer.feed(memoryview(buffer), HEADROOM, HEADROOM + end - start), out, framer, expects)
        # What lies behind the data isn't ours to write.
        assert buffer[-8:] == b"\xee" * 8
    return out


def normal(frames: Sequence[Frame]) -> list[Normal]:
    """Take the boundaries of runs away, and check each run."""
    out: list[Normal] = []
    for frame in frames:
        if not isinstance(frame, DataRun):
            out.append(frame)
            continue
        data, last, largest = b"", False, 0
        for fragment, is_last in fragments_of(frame.view):
            assert not last, "a fragment after the last"
            data += fragment
            last = is_last
            largest = max(largest, len(fragment) + 6)
        assert (frame.payload_bytes, frame.last) == (len(data), last)
        assert frame.largest_pdu == largest <= LIMITS.max_pdu_bytes + LIMITS.max_pdu_tolerance_bytes
        previous = out[-1] if out else None
        if isinstance(previous, Data) and not previous.last and previous.context_id == frame.context_id:
            out[-1] = Data(frame.context_id, previous.data + data, last)
        else:
            out.append(Data(frame.context_id, data, last))
    return out


def broken(data: bytes, *, expects: Sequence[int] = (3,), data_transfer: bool = True) -> RemoteProtocolError:
    framer = Framer(LIMITS)
    framer.data_transfer = data_transfer
    with pytest.raises(RemoteProtocolError) as caught:
        feed(data, expects=expects, framer=framer)
    return caught.value


# -- frames ------------------------------------------------------------------------------------------------------------


def test_a_control_pdu_comes_whole() -> None:
    assert feed(RELEASE + ABORT) == [ControlFrame(5, bytes(4)), ControlFrame(7, bytes(4))]


def test_an_association_pdu_without_a_body_comes_too() -> None:
    assert feed(pdu(kind=1)) == [ControlFrame(1, b"")]


def test_a_command_set_is_put_together() -> None:
    data = pdu(pdv(1, b"com", 1), pdv(1, b"", 1)) + pdu(pdv(1, b"mand", 3)) + pdu(pdv(5, b"next", 3))
    assert feed(data) == [CommandFrame(1, b"command"), CommandFrame(5, b"next")]


def test_a_command_set_may_end_with_an_empty_fragment() -> None:
    assert feed(pdu(pdv(1, b"command", 1)) + pdu(pdv(1, b"", 3))) == [CommandFrame(1, b"command")]


def test_whole_fragments_of_a_data_set_are_one_run_and_no_copy() -> None:
    framer = Framer(LIMITS)
    framer.data_transfer = True
    framer.expect_data_set(3)
    wire = pdu(pdv(3, b"a" * 100, 0)) + pdu(pdv(3, b"b" * 50, 0)) + pdu(pdv(3, b"c", 2))
    buffer = bytearray(HEADROOM) + wire
    (run,) = framer.feed(memoryview(buffer), HEADROOM, len(buffer))
    assert isinstance(run, DataRun)
    assert (run.context_id, run.payload_bytes, run.largest_pdu, run.last) == (3, 151, 106, True)
    assert run.view == wire
    buffer[HEADROOM + 12] = ord("z")
    assert run.view[12] == ord("z")
    assert not framer.in_message


def test_a_pdu_that_is_cut_is_made_whole_in_place() -> None:
    wire = pdu(pdv(3, b"abcdef", 2))
    frames = feed(pdu(pdv(3, b"cmd", 3)) + wire, [15 + 16])
    assert [bytes(f.view) for f in frames if isinstance(f, DataRun)] == [pdu(pdv(3, b"abcd", 0)), pdu(pdv(3, b"ef", 2))]


def test_what_is_cut_is_even_wherever_it_is_cut() -> None:
    # DCMTK ends an association at a fragment of odd length.
    command, data = pdu(pdv(3, b"cmd", 3)), bytes(range(60))
    several = pdu(pdv(3, data[:20], 0), pdv(3, data[20:40], 0), pdv(3, data[40:], 2))
    for wire in (pdu(pdv(3, data, 2)), pdu(pdv(3, data[:30], 0)) + pdu(pdv(3, data[30:], 2)), several):
        for step in range(1, len(wire)):
            frames = feed(command + wire, range(len(command) + step, len(command + wire), step))
            assert normal(frames) == [CommandFrame(3, b"cmd"), Data(3, data, True)]
            runs = [frame for frame in frames if isinstance(frame, DataRun)]
            assert not any(len(fragment) % 2 for run in runs for fragment, _ in fragments_of(run.view)), step


def test_a_byte_that_is_kept_back_goes_with_what_follows() -> None:
    wire = pdu(pdv(3, b"abcdef", 2))
    frames = feed(pdu(pdv(3, b"cmd", 3)) + wire, [15 + 15])
    assert [bytes(f.view) for f in frames if isinstance(f, DataRun)] == [pdu(pdv(3, b"ab", 0)), pdu(pdv(3, b"cdef", 2))]


def test_a_cut_right_behind_the_headers_costs_nothing() -> None:
    command, wire = pdu(pdv(3, b"cmd", 3)), pdu(pdv(3, b"abcdef", 2))
    frames = feed(command + wire, [len(command) + 12])
    assert [bytes(f.view) for f in frames if isinstance(f, DataRun)] == [wire]


def test_several_pdvs_in_a_pdu() -> None:
    wire = pdu(pdv(3, b"cmd", 3), pdv(3, b"abc", 0), pdv(3, b"", 0), pdv(3, b"def", 2), pdv(1, b"other", 3))
    assert normal(feed(wire)) == [CommandFrame(3, b"cmd"), Data(3, b"abcdef", True), CommandFrame(1, b"other")]


def test_a_data_set_may_end_with_an_empty_fragment() -> None:
    wire = pdu(pdv(3, b"cmd", 3)) + pdu(pdv(3, b"abc", 0)) + pdu(pdv(3, b"", 0)) + pdu(pdv(3, b"", 2))
    frames = feed(wire)
    assert normal(frames) == [CommandFrame(3, b"cmd"), Data(3, b"abc", True)]
    (run,) = [f for f in frames if isinstance(f, DataRun) and f.last]
    assert bytes(run.view) == pdu(pdv(3, b"", 2))


def test_reserved_bits_and_bytes_are_not_tested_and_not_passed_on() -> None:
    wire = pdu(pdv(3, b"cmd", 0xF3)) + pdu(pdv(3, b"abc", 0xFC), reserved=9) + pdu(pdv(3, b"d", 0x82))
    frames = feed(wire)
    assert normal(frames) == [CommandFrame(3, b"cmd"), Data(3, b"abcd", True)]
    assert [bytes(f.view) for f in frames if isinstance(f, DataRun)] == [pdu(pdv(3, b"abc", 0)), pdu(pdv(3, b"d", 2))]


def test_an_abort_may_come_between_the_pdus_of_a_message() -> None:
    wire = pdu(pdv(3, b"cmd", 3)) + pdu(pdv(3, b"abc", 0)) + ABORT
    assert normal(feed(wire)) == [CommandFrame(3, b"cmd"), Data(3, b"abc", False), ControlFrame(7, bytes(4))]
    assert normal(feed(pdu(pdv(3, b"cmd", 1)) + ABORT)) == [ControlFrame(7, bytes(4))]


def test_feeding_nothing_gives_nothing() -> None:
    assert feed(b"") == []
    assert feed(RELEASE[:5]) == []


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [1, 2])
def test_a_long_association_pdu_is_refused_at_its_header(kind: int) -> None:
    assert feed(pdu(b"x" * 2000, kind=kind)) == [ControlFrame(kind, b"x" * 2000)]
    error = broken(bytes([kind, 0]) + (2001).to_bytes(4, "big"))
    assert isinstance(error, LimitExceeded)
    assert error.abort_reason is AbortReason.INVALID_PARAMETER_VALUE


@pytest.mark.parametrize("kind", [3, 5, 6, 7])
@pytest.mark.parametrize("length", [0, 3, 5, 0xFFFFFFFF])
def test_a_control_pdu_has_four_bytes(kind: int, length: int) -> None:
    error = broken(bytes([kind, 0]) + length.to_bytes(4, "big"))
    assert error.abort_reason is AbortReason.INVALID_PARAMETER_VALUE


@pytest.mark.parametrize("kind", [0, 8, 0x16, 0x47, 0xFF])
def test_what_is_no_pdu_is_refused_at_once(kind: int) -> None:
    """0x16 is TLS, 0x47 is `GET `."""
    assert broken(bytes([kind, 0, 0, 0, 0, 0])).abort_reason is AbortReason.UNRECOGNISED_PDU


def test_data_outside_of_data_transfer_is_refused() -> None:
    assert broken(pdu(pdv(1, b"", 3)), data_transfer=False).abort_reason is AbortReason.UNEXPECTED_PDU


def test_a_pdu_above_the_announced_length_is_refused_at_its_header() -> None:
    error = broken(b"\4\0" + (4096 + 13).to_bytes(4, "big"))
    assert isinstance(error, LimitExceeded)
    assert "4096" in error.detail


def test_old_devices_that_count_the_headers_apart_are_tolerated_and_counted() -> None:
    framer = Framer(LIMITS)
    framer.data_transfer = True
    framer.expect_data_set(3)
    wire = pdu(pdv(3, b"x" * (4096 + 12 - 6), 2))
    assert normal(feed(wire, framer=framer)) == [Data(3, b"x" * 4102, True)]
    assert framer.oversize_pdus == 1


def test_the_announced_length_holds() -> None:
    framer = Framer(LIMITS)
    framer.data_transfer = True
    framer.announce_maximum_length(100)
    framer.expect_data_set(3)
    assert len(feed(pdu(pdv(3, b"x" * 94, 0)), framer=framer)) == 1
    with pytest.raises(LimitExceeded):
        feed(pdu(pdv(3, b"x" * 107, 0)), framer=framer)


@pytest.mark.parametrize("length", [0, 5])
def test_a_data_pdu_without_room_for_a_pdv_is_refused(length: int) -> None:
    error = broken(b"\4\0" + length.to_bytes(4, "big") + bytes(length))
    assert error.abort_reason is AbortReason.INVALID_PARAMETER_VALUE


@pytest.mark.parametrize(
    "body",
    [
        bytes.fromhex("00000001 0303".replace(" ", "")),
        bytes.fromhex("00000000 0303".replace(" ", "")),
        bytes.fromhex("00000003 0303".replace(" ", "")),
        bytes.fromhex("ffffffff 0303".replace(" ", "")),
    ],
    ids=["1", "0", "more than the PDU", "4 GiB"],
)
def test_a_pdv_length_that_cannot_be_is_refused(body: bytes) -> None:
    error = broken(pdu(body))
    assert error.abort_reason is AbortReason.INVALID_PARAMETER_VALUE
    assert error.clause == "PS3.8 §9.3.5.1"


@pytest.mark.parametrize("extra", [1, 5])
def test_bytes_behind_the_last_pdv_are_refused(extra: int) -> None:
    error = broken(pdu(pdv(3, b"cmd", 3), bytes(extra)))
    assert error.abort_reason is AbortReason.INVALID_PARAMETER_VALUE


def test_a_command_set_that_is_too_long_is_refused_before_it_is_kept() -> None:
    assert len(feed(pdu(pdv(1, b"c" * 300, 3)))) == 1
    error = broken(pdu(pdv(1, b"c" * 200, 1)) + pdu(pdv(1, b"c" * 101, 1))[:12])
    assert isinstance(error, LimitExceeded)


# -- order -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        pdu(pdv(3, b"abc", 2)),
        pdu(pdv(3, b"cmd", 3)) + pdu(pdv(5, b"abc", 0)),
        pdu(pdv(3, b"cmd", 3)) + pdu(pdv(3, b"cmd", 3)),
        pdu(pdv(3, b"cm", 1)) + pdu(pdv(5, b"d", 3)),
        pdu(pdv(3, b"cmd", 3)) + pdu(pdv(3, b"abc", 2)) + pdu(pdv(3, b"abc", 2)),
        pdu(pdv(3, b"cmd", 3)) + RELEASE,
        pdu(pdv(3, b"cm", 1)) + RELEASE,
        pdu(pdv(3, b"cmd", 3)) + pdu(kind=1),
    ],
    ids=[
        "data without command",
        "data on another context",
        "command for data",
        "command on another context",
        "data behind the last",
        "release in a data set",
        "release in a command",
        "association in a data set",
    ],
)
def test_messages_come_whole_and_one_after_the_other(wire: bytes) -> None:
    assert broken(wire).abort_reason is AbortReason.UNEXPECTED_PDU


# -- any cut -----------------------------------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Draw a stream of whole messages in odd fragments, control PDUs between them, and perhaps an error at the end."""
    out = b""
    for _ in range(draw(st.integers(1, 4))):
        has_data = draw(st.booleans())
        context = 3 if has_data else 1
        pdvs: list[bytes] = []
        for last, part in _parts(draw):
            pdvs.append(pdv(context, part, 1 | last << 1 | draw(st.sampled_from([0, 0, 0x80]))))
        if has_data:
            for last, part in _parts(draw):
                pdvs.append(pdv(context, part, last << 1 | draw(st.sampled_from([0, 0, 0, 0x40]))))
        while pdvs:
            count = draw(st.sampled_from([1, 1, 1, 2, 3]))
            out += pdu(*pdvs[:count], reserved=draw(st.sampled_from([0, 0, 0, 1])))
            pdvs = pdvs[count:]
        if draw(st.booleans()):
            out += RELEASE
    return out + draw(st.sampled_from([b"", b"", b"\4\0", b"\x09\0\0\0\0\0", pdu(pdv(9, b"?", 0))]))


def _parts(draw: st.DrawFn) -> list[tuple[bool, bytes]]:
    parts = draw(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
    return [(i == len(parts) - 1, part) for i, part in enumerate(parts)]


def outcome(data: bytes, cuts: Sequence[int]) -> tuple[list[Normal], str]:
    framer = Framer(LIMITS)
    framer.data_transfer = True
    out: list[Frame] = []
    edges = [0, *sorted(cuts), len(data)]
    try:
        for start, end in pairwise(edges):
            buffer = bytearray(HEADROOM) + data[start:end]
            copied(framer.feed(memoryview(buffer), HEADROOM, len(buffer)), out, framer, (3,))
    except RemoteProtocolError as error:
        return normal(out), str(error)
    return normal(out), ""


@given(streams(), st.data())
def test_any_cut_gives_the_same(stream: bytes, data: st.DataObject) -> None:
    whole = outcome(stream, ())
    assert outcome(stream, range(1, len(stream))) == whole
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert outcome(stream, cuts) == whole


@given(st.binary(max_size=200), st.data())
def test_any_bytes_give_frames_or_one_kind_of_error(stream: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
    assert outcome(stream, cuts) == outcome(stream, ())


# -- writing -----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=500), st.integers(7, 600), st.booleans())
def test_what_is_written_is_read_again(data: bytes, maximum: int, command: bool) -> None:
    wire = encode_p_data(3, data, maximum, command=command)
    framer = Framer(Limits(max_pdu_bytes=maximum))
    framer.data_transfer = True
    if not command:
        framer.expect_data_set(3)
    frames = feed(wire, framer=framer)
    assert framer.oversize_pdus == 0
    if command:
        assert frames == [CommandFrame(3, data)]
    else:
        assert (
            b"".join(bytes(f) for run in frames if isinstance(run, DataRun) for f, _ in fragments_of(run.view)) == data
        )
        assert frames[-1].last  # type: ignore[union-attr]


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6), st.integers(7, 60), st.booleans())
def test_refragmented_runs_fit_and_keep_every_byte(parts: list[bytes], maximum: int, last: bool) -> None:
    run = b"".join(pdu(pdv(5, part, (last and i == len(parts) - 1) << 1)) for i, part in enumerate(parts))
    cut = memoryview(refragment(memoryview(run), maximum))
    fragments = list(fragments_of(cut))
    assert b"".join(bytes(fragment) for fragment, _ in fragments) == b"".join(parts)
    assert all(len(fragment) + 6 <= maximum for fragment, _ in fragments)
    if maximum > 7 and not any(len(part) % 2 for part in parts):
        assert not any(len(fragment) % 2 for fragment, _ in fragments)
    assert [is_last for _, is_last in fragments] == [False] * (len(fragments) - 1) + [last]
    at = 0
    while at < len(cut):
        assert cut[at + 10] == 5
        at += 6 + int.from_bytes(cut[at + 2 : at + 6], "big")
