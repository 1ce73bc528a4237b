"""Attributes are taken out at every depth, in every transfer syntax; what can't be read is refused."""

import zlib
from io import BytesIO
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from dicomward.dicom.head import HeadUnreadable
from dicomward.dicom.strip import strip_elements

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
ADDRESS, PHONES, NAME = 0x00101040, 0x00102154, 0x00100010


def match(*, undefined: bool = False) -> Dataset:
    inner = Dataset()
    inner.PatientID = "OTHER"
    inner.PatientAddress = "nested address"
    deeper = Dataset()
    deeper.PatientTelephoneNumbers = "555"
    deeper.StudyDescription = "kept"
    inner.ReferencedStudySequence = Sequence([deeper])
    ds = Dataset()
    ds.QueryRetrieveLevel = "STUDY"
    ds.PatientName = "DOE^J"
    ds.PatientID = "4711"
    ds.OtherPatientIDsSequence = Sequence([inner, Dataset()])
    ds.PatientAddress = "1 Main St"
    ds.PatientTelephoneNumbers = ["1", "2"]
    ds.StudyInstanceUID = "1.2.3"
    for sequence in ("OtherPatientIDsSequence",):
        ds[sequence].is_undefined_length = undefined
    inner["ReferencedStudySequence"].is_undefined_length = undefined
    for item in (inner, deeper):
        item.is_undefined_length_sequence_item = undefined
    return ds


def encode(ds: Dataset, syntax: str) -> bytes:
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = syntax == IMPLICIT, syntax != BIG
    write_dataset(out, ds)
    data: bytes = out.getvalue()
    if syntax == DEFLATED:
        compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = compressor.compress(data) + compressor.flush()
    return data


def decode(data: bytes, syntax: str) -> Dataset:
    if syntax == DEFLATED:
        data, syntax = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(data), EXPLICIT

    return read_dataset(BytesIO(data), syntax == IMPLICIT, syntax != BIG)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
def test_attributes_are_gone_at_every_depth_and_the_rest_is_as_it_was(syntax: str, undefined: bool) -> None:
    stripped = strip_elements(
        encode(match(undefined=undefined), syntax), syntax, removed={ADDRESS, PHONES}, emptied={NAME}
    )
    found = decode(stripped.data, syntax)
    expected = match()
    del expected.PatientAddress, expected.PatientTelephoneNumbers
    expected.PatientName = ""
    del expected.OtherPatientIDsSequence[0].PatientAddress
    del expected.OtherPatientIDsSequence[0].ReferencedStudySequence[0].PatientTelephoneNumbers
    assert found == expected
    assert stripped.tags == {ADDRESS, PHONES, NAME}
    plain = zlib.decompress(stripped.data, wbits=-zlib.MAX_WBITS) if syntax == DEFLATED else stripped.data
    for secret in (b"address", b"Main", b"555", b"DOE"):
        assert secret not in plain


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_nothing_to_strip_changes_nothing(syntax: str) -> None:
    data = encode(match(undefined=True), syntax)
    stripped = strip_elements(data, syntax, removed={0x00104000})
    assert stripped.data == data
    assert stripped.tags == frozenset()


def test_a_whole_sequence_can_be_stripped() -> None:
    stripped = strip_elements(encode(match(), EXPLICIT), EXPLICIT, removed={0x00101002})
    assert "OtherPatientIDsSequence" not in decode(stripped.data, EXPLICIT)


def test_group_lengths_go() -> None:
    data = pack("<HHII", 0x0010, 0, 4, 99) + pack("<HHI", 0x0010, 0x0020, 2) + b"1 "
    assert strip_elements(data, IMPLICIT, removed={ADDRESS}).data == data[12:]


def test_an_unknown_sequence_in_un_is_looked_into() -> None:
    inside = pack("<HHI", 0x0010, 0x1040, 2) + b"AB"
    item = pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside
    data = pack("<HH2sHI", 0x0011, 0x1001, b"UN", 0, len(item)) + item
    stripped = strip_elements(data, EXPLICIT, removed={ADDRESS}).data
    assert stripped == pack("<HH2sHI", 0x0011, 0x1001, b"UN", 0, 8) + pack("<HHI", 0xFFFE, 0xE000, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        pack("<HHI", 0x0010, 0x0020, 10) + b"1",
        pack("<HHI", 0x0000, 0x0100, 2) + b"\0\0",
        pack("<HHI", 0x0010, 0x1002, 0xFFFFFFFF),
        pack("<HHI", 0x0010, 0x1002, 0xFFFFFFFF) + pack("<HHI", 0x0010, 0x0010, 0),
        pack("<HHI", 0x0010, 0x1002, 0xFFFFFFFF) + pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF),
        pack("<HHI", 0x0010, 0x1002, 8) + pack("<HHI", 0xFFFE, 0xE000, 8),
        (pack("<HHI", 0x0010, 0x1002, 0xFFFFFFFF) + pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 40,
    ],
)
def test_what_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(HeadUnreadable):
        strip_elements(data, IMPLICIT, removed={ADDRESS})


@pytest.mark.parametrize(
    "data",
    [
        pack("<HH2sH", 0x0010, 0x0020, b"1!", 2) + b"\0\0\0\0\0\0",
        pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF),
    ],
)
def test_what_explicit_cannot_hold_is_refused(data: bytes) -> None:
    with pytest.raises(HeadUnreadable):
        strip_elements(pack("<HH2sH", 0x0008, 0x0052, b"CS", 0) + data, EXPLICIT, removed={ADDRESS})


def test_a_deflated_bomb_or_a_cut_one_is_refused() -> None:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = compressor.compress(b"\0" * 1_000_000) + compressor.flush()
    for data in (bomb, encode(match(), DEFLATED)[:20]):
        with pytest.raises(HeadUnreadable):
            strip_elements(data, DEFLATED, removed={ADDRESS})


@given(st.binary(max_size=200), st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED]))
def test_bytes_of_any_kind_are_stripped_or_refused(data: bytes, syntax: str) -> None:
    try:
        stripped = strip_elements(data, syntax, removed={ADDRESS}, emptied={NAME})
    except HeadUnreadable:
        return
    assert ADDRESS not in strip_elements(stripped.data, syntax, removed={ADDRESS}).tags
