"""What the agent asks a commitment for, and what it understands of the report."""

import re
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicomward.edge.commitment import (
    MOST_REPORT_BYTES,
    RANDOM_BYTES,
    Commitment,
    ReportUnreadable,
    decode_report,
    encode_request,
    is_not_offered,
    is_own_transaction,
    judge_failure,
    make_transaction_uid,
)

CT = "1.2.840.10008.5.1.4.1.1.2"


def item(uid: str, reason: int | None = None) -> Dataset:
    data_set = Dataset()
    data_set.ReferencedSOPClassUID, data_set.ReferencedSOPInstanceUID = CT, uid
    if reason is not None:
        data_set.FailureReason = reason
    return data_set


def written(data_set: Dataset, *, undefined: bool = False) -> bytes:
    for element in data_set:
        if element.VR == "SQ":
            element.is_undefined_length = undefined
            for each in element.value:
                each.is_undefined_length_sequence_item = undefined
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, data_set)
    return bytes(buffer.getvalue())


def test_request_is_what_the_standard_says() -> None:
    data = encode_request("2.25.1", [(CT, "1.2.3"), (CT, "1.2.34")])
    read = dcmread(BytesIO(data), force=True)
    assert read.TransactionUID == "2.25.1"
    assert [(each.ReferencedSOPClassUID, each.ReferencedSOPInstanceUID) for each in read.ReferencedSOPSequence] == [
        (CT, "1.2.3"),
        (CT, "1.2.34"),
    ]


@pytest.mark.parametrize("undefined", [False, True])
def test_report_tells_both_kinds(undefined: bool) -> None:
    report = Dataset()
    report.TransactionUID = "2.25.1"
    report.RetrieveAETitle = "PACS"
    report.ReferencedSOPSequence = [item("1.2"), item("1.3")]
    report.FailedSOPSequence = [item("1.3", 0x0112), item("1.4", 0x0122)]
    read = decode_report(written(report, undefined=undefined))
    assert (read.transaction_uid, read.committed) == ("2.25.1", frozenset({"1.2"}))
    assert read.failed == {"1.3": 0x0112, "1.4": 0x0122}
    alone = Dataset()
    alone.TransactionUID = "2.25.2"
    assert decode_report(written(alone)).committed == frozenset()


def test_nonsense_is_refused() -> None:
    good = encode_request("2.25.1", [(CT, "1.2.3")])
    tag = b"\x08\x00\x99\x11"
    undefined, item_begins = b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0"
    for wrong in (
        b"",
        good[:-1],
        good[:5],
        b"\0" * (MOST_REPORT_BYTES + 1),
        good + tag + b"\x08\0\0\0" + b"\x08\0\x50\x11\0\0\0\0",
        tag + undefined + item_begins + undefined + tag + undefined,
        tag + undefined + item_begins + undefined,
    ):
        with pytest.raises(ReportUnreadable):
            decode_report(wrong)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        decode_report(data)
    except ReportUnreadable:
        pass


def test_what_becomes_of_an_object() -> None:
    assert judge_failure(0x0112) is Commitment.SEND_AGAIN
    assert judge_failure(0x0122) is Commitment.NOT_OFFERED
    assert is_not_offered(0x0124)
    assert not is_not_offered(0x0110)


def test_own_transaction_is_known_again_and_no_other() -> None:
    key, other = bytes(range(32)), bytes(32)
    uid = make_transaction_uid(key, b"\xff" * RANDOM_BYTES)
    assert re.fullmatch(r"2\.25\.[1-9][0-9]{0,38}", uid)
    assert is_own_transaction(key, uid)
    assert is_own_transaction(key, make_transaction_uid(key, bytes(RANDOM_BYTES)))
    assert not is_own_transaction(other, uid)
    for strange in ("2.25.0", "1.2.3", "2.25.x", "", "2.25." + "9" * 39, "2.25." + "9" * 5000, f"{uid}.1"):
        assert not is_own_transaction(key, strange)
