import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomward.policy.keys import _REFUSED, KEY_TAGS, QueryKeyError, is_filled, key_label, key_name, parse_query_key


@pytest.mark.parametrize("keyword", KEY_TAGS)
def test_keywords_are_those_of_the_standard_and_never_sequences(keyword: str) -> None:
    assert tag_for_keyword(keyword) == KEY_TAGS[keyword]
    assert dictionary_VR(KEY_TAGS[keyword]) != "SQ"
    assert parse_query_key(keyword) == KEY_TAGS[keyword]
    assert key_name(KEY_TAGS[keyword]) == keyword


def test_refused_keywords_are_those_of_the_standard() -> None:
    for tag, (keyword, _) in _REFUSED.items():
        assert tag_for_keyword(keyword) == tag


@pytest.mark.parametrize("text", ["0010,0020", "(0010,0020)", "00100020", "PatientID"])
def test_tags_are_read_in_each_usual_form(text: str) -> None:
    assert parse_query_key(text) == 0x00100020


@pytest.mark.parametrize("text", ["0011,1010", "7FE1,0010"])
def test_private_and_unusual_tags_are_named_by_tag(text: str) -> None:
    assert key_name(parse_query_key(text)) == key_label(parse_query_key(text)) == f"({text})"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PatientId", '"PatientId" is not the keyword of a query key'),
        ("", '"" is not the keyword of a query key'),
        ("0010,002", '"0010,002" is not the keyword of a query key'),
        ("ScheduledStationAETitle", r"\(0040,0001\) lies inside a sequence"),
        ("0040,0100", r"ScheduledProcedureStepSequence \(0040,0100\) is a sequence"),
        ("QueryRetrieveLevel", r"QueryRetrieveLevel \(0008,0052\) does not narrow a query"),
        ("0000,0100", r"\(0000,0100\) is not an attribute of a data set"),
        ("0002,0010", r"\(0002,0010\) is not an attribute of a data set"),
        ("0010,0000", r"\(0010,0000\) is not an attribute of a data set"),
    ],
)
def test_what_can_never_narrow_a_query_is_refused(text: str, message: str) -> None:
    with pytest.raises(QueryKeyError, match=message):
        parse_query_key(text)


PATIENT_ID, NAME, STUDY, DATE = 0x00100020, 0x00100010, 0x0020000D, 0x00080020


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (PATIENT_ID, b"4711"),
        (PATIENT_ID, b"1\\2"),
        (PATIENT_ID, b"A-1"),
        (NAME, b"DOE*"),
        (NAME, b"D?E"),
        (DATE, b"-20260101"),
    ],
)
def test_a_key_with_a_value_that_narrows_is_filled(tag: int, value: bytes) -> None:
    assert is_filled(tag, value)


@pytest.mark.parametrize("value", [b"47*", b"?1", b"*1*", b"4711\\*", b"*\\4711", b"4711\\", b"\\4711"])
def test_trap_an_identifier_with_a_wildcard_is_a_way_to_browse(value: bytes) -> None:
    assert not is_filled(PATIENT_ID, value)
    assert not is_filled(STUDY, value)


@pytest.mark.parametrize("value", [b"", b" ", b"*", b"??", b"^^", b"\0", b"DOE\\*", b"-", b" - "])
def test_a_key_that_fits_everything_is_not_filled(value: bytes) -> None:
    assert not is_filled(NAME, value)
    assert not is_filled(DATE, value)
