import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomward.policy.keys import _REFUSED, KEY_TAGS, QueryKeyError, key_label, key_name, parse_query_key


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
