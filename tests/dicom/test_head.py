import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dicomward.dicom.head as module
from dicomward.dicom.head import MAX_DEPTH, MAX_INFLATED_BYTES, MAX_VALUE_BYTES, Head, HeadUnreadable, scan_head
from tests.dicom.builders import EXPLICIT, IMPLICIT, explicit, implicit
from tests.dicom.strategies import mutations

BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
JPEG = "1.2.840.10008.1.2.4.50"
GE_PRIVATE = "1.2.840.113619.5.2"
UNDEFINED = 0xFFFFFFFF

CHARACTER_SET, SOP_CLASS, SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018
LEVEL, PATIENT_ID, STUDY = 0x00080052, 0x00100020, 0x0020000D
SEQUENCE, PIXELS = 0x00081140, 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

ELEMENTS = [
    (CHARACTER_SET, b"CS", b"ISO_IR 100"),
    (SOP_CLASS, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
    (SOP_INSTANCE, b"UI", b"1.2.3.45"),
    (PATIENT_ID, b"LO", b"PAT1"),
]
HEAD = {tag: value for tag, _, value in ELEMENTS[:3]}
ALL = {tag: value for tag, _, value in ELEMENTS}

IN_IMPLICIT = b"".join(implicit(tag, value) for tag, _, value in ELEMENTS)
IN_EXPLICIT = b"".join(explicit(tag, vr, value) for tag, vr, value in ELEMENTS)
IN_BIG_ENDIAN = b"".join(explicit(tag, vr, value, order=">") for tag, vr, value in ELEMENTS)


def deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


SYNTAXES = [
    pytest.param(IN_IMPLICIT, IMPLICIT, id="implicit"),
    pytest.param(IN_IMPLICIT, GE_PRIVATE, id="ge-private"),
    pytest.param(IN_EXPLICIT, EXPLICIT, id="explicit"),
    pytest.param(IN_EXPLICIT, JPEG, id="encapsulated"),
    pytest.param(IN_EXPLICIT, "1.2.3.4.5", id="unknown-is-explicit"),
    pytest.param(IN_BIG_ENDIAN, BIG_ENDIAN, id="big-endian"),
    pytest.param(deflate(IN_EXPLICIT), DEFLATED, id="deflated"),
    pytest.param(deflate(IN_EXPLICIT), "1.2.840.10008.1.2.4.95", id="jpip-deflated"),
]


def scan(data: bytes, syntax: str = EXPLICIT, *, stop_after: int = 0xFFFFFFFF, complete: bool = True) -> Head:
    return scan_head(data, syntax, stop_after=stop_after, complete=complete)


@pytest.mark.parametrize(("data", "syntax"), SYNTAXES)
def test_head_is_read_up_to_the_tag_that_is_asked_for(data: bytes, syntax: str) -> None:
    assert scan(data, syntax, stop_after=SOP_INSTANCE) == Head(HEAD, finished=True)
    assert scan(data, syntax, stop_after=SOP_INSTANCE - 1) == Head(
        {CHARACTER_SET: b"ISO_IR 100", SOP_CLASS: HEAD[SOP_CLASS]}, finished=True
    )


@pytest.mark.parametrize(("data", "syntax"), SYNTAXES)
def test_whole_data_set_is_read_to_its_end(data: bytes, syntax: str) -> None:
    assert scan(data, syntax) == Head(ALL, finished=True)


@pytest.mark.parametrize(("data", "syntax"), SYNTAXES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(data: bytes, syntax: str, kind: type) -> None:
    head = scan(kind(data), syntax)
    assert head == Head(ALL, finished=True)
    assert all(isinstance(value, bytes) for value in head.values.values())


@pytest.mark.parametrize(("data", "syntax"), SYNTAXES)
def test_a_prefix_gives_a_part_and_asks_for_more(data: bytes, syntax: str) -> None:
    """Whatever the cut: what a prefix shows is true, and finished only when all that was asked for is there."""
    finished = []
    for end in range(len(data)):
        head = scan(data[:end], syntax, stop_after=SOP_INSTANCE, complete=False)
        assert head.values.items() <= HEAD.items()
        assert head.values == HEAD or not head.finished
        finished.append(head.finished)
    # With the header of what follows it is finished, and stays it.
    assert finished[-1]
    assert finished == sorted(finished)


@pytest.mark.parametrize(("data", "syntax"), SYNTAXES)
def test_a_data_set_that_is_cut_short_is_unreadable(data: bytes, syntax: str) -> None:
    boundaries = {len(scan_prefix) for scan_prefix in _whole_elements(data, syntax)}
    for end in range(1, len(data)):
        if end in boundaries:
            assert scan(data[:end], syntax).finished
        else:
            with pytest.raises(HeadUnreadable, match=r"ends inside an element|inflated"):
                scan(data[:end], syntax)


def _whole_elements(data: bytes, syntax: str) -> list[bytes]:
    if syntax in (DEFLATED, "1.2.840.10008.1.2.4.95"):
        return []
    ends, offset = [], 0
    for _, _, value in ELEMENTS:
        offset += 8 + len(value)
        ends.append(data[:offset])
    return ends


def test_an_empty_data_set_has_no_values() -> None:
    for syntax in (IMPLICIT, EXPLICIT, BIG_ENDIAN):
        assert scan(b"", syntax) == Head({}, finished=True)
        assert scan(b"", syntax, complete=False) == Head({}, finished=False)


def test_nothing_after_the_tag_is_looked_at() -> None:
    assert scan(IN_EXPLICIT[:-12] + b"garbage!garbage!", stop_after=SOP_INSTANCE) == Head(HEAD, finished=True)


def test_a_data_set_without_the_tag_ends_the_search_at_the_next_one() -> None:
    data = explicit(CHARACTER_SET, b"CS", b"") + explicit(PATIENT_ID, b"LO", b"PAT1", length=4000)
    assert scan(data, stop_after=SOP_INSTANCE, complete=False) == Head({CHARACTER_SET: b""}, finished=True)


@pytest.mark.parametrize("size", [MAX_VALUE_BYTES, MAX_VALUE_BYTES + 2, 65534])
def test_long_values_are_present_without_their_bytes(size: int) -> None:
    data = explicit(CHARACTER_SET, b"CS", bytes(size)) + explicit(SOP_INSTANCE, b"UI", b"1.2 ")
    expected = bytes(size) if size <= MAX_VALUE_BYTES else None
    assert scan(data).values == {CHARACTER_SET: expected, SOP_INSTANCE: b"1.2 "}


def test_a_long_value_that_was_asked_for_need_not_be_complete() -> None:
    data = explicit(SOP_INSTANCE, b"UI", b"1.2", length=65534)
    assert scan(data, stop_after=SOP_INSTANCE, complete=False) == Head({SOP_INSTANCE: None}, finished=True)


def test_a_long_value_before_the_tag_is_stepped_over() -> None:
    data = explicit(CHARACTER_SET, b"UT", bytes(9000)) + explicit(SOP_INSTANCE, b"UI", b"1.2 ")
    assert not scan(data[:5000], stop_after=SOP_INSTANCE, complete=False).finished
    assert scan(data, stop_after=SOP_INSTANCE).values == {CHARACTER_SET: None, SOP_INSTANCE: b"1.2 "}


def items(*contents: bytes, order: str = "<") -> bytes:
    """Items of undefined length, and the end of their sequence."""
    inner = b"".join(
        implicit(ITEM, content, length=UNDEFINED, order=order) + implicit(ITEM_END, b"", order=order)
        for content in contents
    )
    return inner + implicit(SEQUENCE_END, b"", order=order)


def nested(depth: int) -> bytes:
    """`depth` explicit sequences in each other, each of undefined length."""
    data = b""
    for _ in range(depth):
        data = explicit(SEQUENCE, b"SQ", items(data), length=UNDEFINED)
    return data


LAST = explicit(PATIENT_ID, b"LO", b"PAT1")
SEQUENCES = [
    pytest.param(EXPLICIT, explicit(SEQUENCE, b"SQ", items(), length=UNDEFINED) + LAST, id="no-items"),
    pytest.param(EXPLICIT, explicit(SEQUENCE, b"SQ", items(IN_EXPLICIT, b""), length=UNDEFINED) + LAST, id="two-items"),
    pytest.param(
        EXPLICIT,
        explicit(SEQUENCE, b"SQ", implicit(ITEM, b"anything") + implicit(SEQUENCE_END, b""), length=UNDEFINED) + LAST,
        id="item-with-length",
    ),
    pytest.param(EXPLICIT, explicit(SEQUENCE, b"SQ", implicit(ITEM, bytes(5000))) + LAST, id="sequence-with-length"),
    pytest.param(EXPLICIT, nested(3) + LAST, id="nested"),
    pytest.param(EXPLICIT, nested(MAX_DEPTH) + LAST, id="deepest"),
    pytest.param(
        EXPLICIT, explicit(SEQUENCE, b"SQ", items(explicit(1, b"OB", bytes(9))), length=UNDEFINED) + LAST, id="long-vr"
    ),
    pytest.param(
        EXPLICIT,
        explicit(
            SEQUENCE,
            b"UN",
            items(implicit(STUDY, b"1.2 ") + implicit(SEQUENCE, items(), length=UNDEFINED)),
            length=UNDEFINED,
        )
        + LAST,
        id="un-is-implicit-inside",
    ),
    pytest.param(
        BIG_ENDIAN,
        explicit(
            SEQUENCE, b"SQ", items(explicit(STUDY, b"UI", b"1.2 ", order=">"), order=">"), length=UNDEFINED, order=">"
        )
        + explicit(PATIENT_ID, b"LO", b"PAT1", order=">"),
        id="big-endian",
    ),
    pytest.param(
        IMPLICIT,
        implicit(
            SEQUENCE,
            items(implicit(STUDY, b"1.2 ") + implicit(SEQUENCE, items(b""), length=UNDEFINED)),
            length=UNDEFINED,
        )
        + implicit(PATIENT_ID, b"PAT1"),
        id="implicit",
    ),
]


@pytest.mark.parametrize(("syntax", "data"), SEQUENCES)
def test_sequences_are_stepped_over(syntax: str, data: bytes) -> None:
    assert scan(data, syntax).values == {SEQUENCE: None, PATIENT_ID: b"PAT1"}


@pytest.mark.parametrize(("syntax", "data"), SEQUENCES)
def test_sequences_cut_at_every_byte_ask_for_more(syntax: str, data: bytes) -> None:
    for end in range(1, len(data)):
        head = scan(data[:end], syntax, complete=False)
        assert not head.finished
        assert head.values in ({}, {SEQUENCE: None})


def test_a_short_sequence_with_a_length_shows_its_bytes() -> None:
    data = explicit(SEQUENCE, b"SQ", implicit(ITEM, b"")) + LAST
    assert scan(data).values[SEQUENCE] == implicit(ITEM, b"")


def test_encapsulated_pixel_data_are_stepped_over() -> None:
    fragments = implicit(ITEM, b"") + implicit(ITEM, bytes(6000)) + implicit(SEQUENCE_END, b"")
    data = explicit(PIXELS, b"OB", fragments, length=UNDEFINED) + explicit(0xFFFCFFFC, b"OB", b"pad!")
    assert scan(data, JPEG).values == {PIXELS: None, 0xFFFCFFFC: b"pad!"}


def test_a_vr_of_the_future_has_a_long_length() -> None:
    data = explicit(CHARACTER_SET, b"ZZ", b"new!") + explicit(SOP_INSTANCE, b"UI", b"1.2 ")
    assert scan(data).values == {CHARACTER_SET: b"new!", SOP_INSTANCE: b"1.2 "}


def test_an_element_that_comes_twice_with_one_value_is_read() -> None:
    # A palette of pydicom's has its SOP Instance UID twice.
    data = explicit(SOP_CLASS, b"UI", b"1.2 ") * 2 + explicit(SOP_INSTANCE, b"UI", b"1.3 ")
    head = scan(data)
    assert head.values == {SOP_CLASS: b"1.2 ", SOP_INSTANCE: b"1.3 "}
    assert head.deviations == ("data-set-element-twice",)
    cut = scan_head(data[:15], EXPLICIT, stop_after=SOP_INSTANCE, complete=False)
    assert not cut.finished


@pytest.mark.parametrize(
    ("syntax", "encode"), [(EXPLICIT, explicit), (IMPLICIT, lambda tag, _, value: implicit(tag, value))]
)
def test_a_second_value_of_the_last_element_is_seen(syntax: str, encode: Callable[[int, bytes, bytes], bytes]) -> None:
    once = encode(SOP_INSTANCE, b"UI", b"1.3 ")
    behind = encode(PATIENT_ID, b"LO", b"P1")
    other = encode(SOP_INSTANCE, b"UI", b"1.4 ")
    # Nobody knows yet what comes.
    for cut in (once, once + behind[:7], once + other[:7], once + once + behind[:7]):
        assert not scan_head(cut, syntax, stop_after=SOP_INSTANCE, complete=False).finished
    assert scan_head(once + behind[:8], syntax, stop_after=SOP_INSTANCE, complete=False).finished
    assert scan_head(once, syntax, stop_after=SOP_INSTANCE, complete=True).finished
    twice = scan_head(once + once + behind, syntax, stop_after=SOP_INSTANCE, complete=False)
    assert twice.finished
    assert twice.deviations == ("data-set-element-twice",)
    with pytest.raises(HeadUnreadable, match="twice"):
        scan_head(once + other + behind, syntax, stop_after=SOP_INSTANCE, complete=False)
    with pytest.raises(HeadUnreadable, match="twice"):
        scan_head(once + encode(CHARACTER_SET, b"CS", b"") + other, syntax, stop_after=SOP_INSTANCE, complete=False)
    # What comes behind the next element is not read.
    assert scan_head(once + behind + other, syntax, stop_after=SOP_INSTANCE, complete=True).finished


UNREADABLE = [
    pytest.param(
        EXPLICIT, explicit(SOP_CLASS, b"UI", b"1.2 ") + explicit(SOP_CLASS, b"UI", b"1.3 "), "twice", id="twice"
    ),
    pytest.param(
        EXPLICIT,
        explicit(SOP_CLASS, b"UI", b"1.2.") + explicit(SOP_CLASS, b"UI", b"1."),
        "twice",
        id="twice-and-shorter",
    ),
    pytest.param(IMPLICIT, implicit(SOP_CLASS, bytes(5000)) * 2, "twice", id="twice-and-long"),
    pytest.param(
        EXPLICIT, (explicit(SOP_CLASS, b"UI", b"1.2.3.") * 2)[:-2], "ends inside an element", id="twice-and-cut"
    ),
    pytest.param(EXPLICIT, explicit(SOP_CLASS, b"UI", b"") + explicit(ITEM, b"UI", b""), "in a data set", id="item"),
    pytest.param(IMPLICIT, implicit(SEQUENCE_END, b""), "in a data set", id="delimiter"),
    pytest.param(IMPLICIT, implicit(0x00000002, b"1.2 "), "in a data set", id="command"),
    pytest.param(EXPLICIT, explicit(CHARACTER_SET, b"CS", b"") + bytes(16), "no value representation", id="no-vr"),
    pytest.param(EXPLICIT, explicit(SOP_CLASS, b"U1", bytes(9000)), "no value representation", id="half-a-vr"),
    pytest.param(EXPLICIT, explicit(SOP_CLASS, b"ui", bytes(9000)), "no value representation", id="lower-case-vr"),
    pytest.param(EXPLICIT, explicit(SOP_CLASS, b"UT", b"", length=UNDEFINED), "UT has no length", id="undefined-ut"),
    pytest.param(EXPLICIT, nested(MAX_DEPTH + 1), "nested more than 32 deep", id="too-deep"),
    pytest.param(
        EXPLICIT,
        explicit(SEQUENCE, b"SQ", LAST, length=UNDEFINED),
        "wrong place of a sequence",
        id="element-between-items",
    ),
    pytest.param(
        EXPLICIT,
        explicit(SEQUENCE, b"SQ", implicit(ITEM_END, b""), length=UNDEFINED),
        "wrong place",
        id="end-of-no-item",
    ),
    pytest.param(
        EXPLICIT,
        explicit(
            SEQUENCE, b"SQ", implicit(ITEM, b"", length=UNDEFINED) + implicit(SEQUENCE_END, b""), length=UNDEFINED
        ),
        "wrong place",
        id="item-without-end",
    ),
    pytest.param(
        EXPLICIT,
        explicit(SEQUENCE, b"SQ", implicit(ITEM, b"", length=UNDEFINED) + implicit(ITEM, b""), length=UNDEFINED),
        "wrong place",
        id="item-in-item",
    ),
    pytest.param(
        EXPLICIT,
        explicit(SEQUENCE, b"SQ", items(bytes(16)), length=UNDEFINED),
        "no value representation",
        id="no-vr-inside",
    ),
    pytest.param(BIG_ENDIAN, IN_EXPLICIT, "ends inside|no value|in a data set", id="little-endian-as-big"),
    pytest.param(DEFLATED, b"\xff" * 50, "cannot be inflated", id="not-deflated"),
    pytest.param(DEFLATED, deflate(IN_EXPLICIT[:-1]), "ends inside an element", id="deflated-and-cut"),
]


@pytest.mark.parametrize(("syntax", "data", "detail"), UNREADABLE)
def test_what_is_no_data_set_is_unreadable(syntax: str, data: bytes, detail: str) -> None:
    with pytest.raises(HeadUnreadable, match=detail) as caught:
        scan(data, syntax)
    assert caught.value.detail == str(caught.value)


def test_a_bomb_is_not_inflated() -> None:
    bomb = deflate(explicit(CHARACTER_SET, b"UT", bytes(64 * 1024 * 1024)))
    assert len(bomb) < 70_000
    with pytest.raises(HeadUnreadable, match="longer than 262144 bytes"):
        scan(bomb, DEFLATED, stop_after=SOP_INSTANCE, complete=False)


def test_a_deflated_head_before_much_else_is_read() -> None:
    data = IN_EXPLICIT + explicit(PIXELS, b"OW", bytes(2 * MAX_INFLATED_BYTES))
    assert scan(deflate(data), DEFLATED, stop_after=SOP_INSTANCE).values == HEAD


def test_the_end_of_deflated_data_is_the_end_of_the_data_set() -> None:
    padded = deflate(IN_EXPLICIT) + b"\0"
    assert scan(padded, DEFLATED, complete=False) == Head(ALL, finished=True)


def test_elements_out_of_order_are_read_and_noted() -> None:
    swapped = [ELEMENTS[3], ELEMENTS[1], ELEMENTS[0], ELEMENTS[2]]
    data = b"".join(explicit(tag, vr, value) for tag, vr, value in swapped)
    assert scan(data) == Head(ALL, finished=True, deviations=("data-set-order",))


@pytest.mark.parametrize(("data", "syntax"), [(IN_IMPLICIT, EXPLICIT), (IN_IMPLICIT, JPEG), (IN_EXPLICIT, IMPLICIT)])
def test_a_data_set_in_another_syntax_than_negotiated_is_read_as_it_is_and_noted(data: bytes, syntax: str) -> None:
    expected = Head(HEAD, finished=True, deviations=("data-set-transfer-syntax",))
    assert scan(data, syntax, stop_after=SOP_INSTANCE) == expected
    assert not scan(data[:20], syntax, stop_after=SOP_INSTANCE, complete=False).finished


LEGAL = st.lists(
    st.tuples(
        st.integers(0x00080000, 0x7FFFFFFF), st.sampled_from([b"UI", b"LO", b"OB", b"UN"]), st.binary(max_size=40)
    ),
    max_size=6,
    unique_by=lambda element: element[0],
).map(sorted)


@given(LEGAL, st.integers(0x00080000, 0x7FFFFFFF), st.sampled_from("<>"))
def test_explicit_elements_are_found(elements: list[tuple[int, bytes, bytes]], stop_after: int, order: str) -> None:
    data = b"".join(explicit(tag, vr, value, order=order) for tag, vr, value in elements)
    head = scan(data, EXPLICIT if order == "<" else BIG_ENDIAN, stop_after=stop_after)
    assert head == Head({tag: value for tag, _, value in elements if tag <= stop_after}, finished=True)


@given(LEGAL, st.data())
def test_any_split_ends_in_the_same_head(elements: list[tuple[int, bytes, bytes]], data: st.DataObject) -> None:
    whole = b"".join(explicit(tag, vr, value) for tag, vr, value in elements)
    at = 0
    while at < len(whole):
        at += data.draw(st.integers(1, 40))
        head = scan(whole[:at], complete=at >= len(whole))
        assert head.finished is (at >= len(whole))
    assert scan(whole).values == {tag: value for tag, _, value in elements}


SAMPLES = (IN_IMPLICIT, IN_EXPLICIT, IN_BIG_ENDIAN, deflate(IN_EXPLICIT), nested(4) + LAST)


@given(
    mutations(SAMPLES) | st.binary(max_size=200),
    st.sampled_from([IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED]),
    st.sampled_from([SOP_INSTANCE, 0xFFFFFFFF]),
    st.booleans(),
)
@settings(max_examples=1000)
def test_any_bytes_give_a_head_or_head_unreadable(data: bytes, syntax: str, stop_after: int, complete: bool) -> None:
    try:
        head = scan(data, syntax, stop_after=stop_after, complete=complete)
    except HeadUnreadable:
        return
    assert head.finished or not complete
    assert all(value is None or len(value) <= MAX_VALUE_BYTES for value in head.values.values())


# Real files: pydicom as an independent reader of the same bytes.
FILES = sorted(
    path
    for path in (Path(pydicom.__file__).parent / "data" / "test_files").iterdir()
    if path.suffix == ".dcm" and path.stat().st_size < 2_000_000
)


def _data_set(path: Path) -> tuple[bytes, str, pydicom.Dataset]:
    with path.open("rb") as stream:
        data_set = pydicom.dcmread(stream, force=True)
        stream.seek(0)
        pydicom.filereader.read_preamble(stream, True)
        pydicom.filereader._read_file_meta_info(stream)
        by_layout = {(True, True): IMPLICIT, (False, True): EXPLICIT, (False, False): BIG_ENDIAN}
        guessed = by_layout[data_set.original_encoding]
        return stream.read(), str(data_set.file_meta.get("TransferSyntaxUID", guessed)), data_set


def test_there_are_real_files() -> None:
    assert len(FILES) >= 70


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore")
def test_real_heads_are_those_that_pydicom_reads(path: Path) -> None:
    data, syntax, data_set = _data_set(path)
    head = scan(data, syntax, stop_after=SOP_INSTANCE)
    expected = {int(tag) for tag in data_set.keys() if int(tag) <= SOP_INSTANCE}  # noqa: SIM118
    assert set(head.values) == expected
    uid = head.values.get(SOP_INSTANCE)
    assert (uid or b"").rstrip(b"\0 ").decode() == str(data_set.get("SOPInstanceUID", "")).rstrip(" ")


def test_bounds_are_the_documented_ones() -> None:
    assert (MAX_VALUE_BYTES, MAX_DEPTH, MAX_INFLATED_BYTES) == (4096, 32, 262_144)
    assert struct.calcsize("<HH2sH") == module._EXPLICIT_LITTLE.short.size == 8
