"""Which attributes can be taken out of matches."""

import pytest
from pydicom.datadict import keyword_for_tag, tag_for_keyword

from dicomward.policy.strip import (
    CLINICAL_TAGS,
    REQUIRED_KEY_TAGS,
    STRIP_TAGS,
    StripError,
    UnknownAttributeError,
    attribute_name,
    parse_strip_attribute,
    union_of,
)


@pytest.mark.parametrize("keyword", STRIP_TAGS)
def test_keywords_and_tags_are_those_of_the_standard(keyword: str) -> None:
    assert tag_for_keyword(keyword) == STRIP_TAGS[keyword]


def test_what_tells_patients_apart_has_the_standards_names() -> None:
    assert {keyword_for_tag(tag): name for tag, name in CLINICAL_TAGS.items()} == {n: n for n in CLINICAL_TAGS.values()}
    assert {keyword_for_tag(tag) for tag in REQUIRED_KEY_TAGS} == {
        "StudyDate", "StudyTime", "AccessionNumber", "Modality", "PatientName", "PatientID", "StudyID", "SeriesNumber",
        "InstanceNumber",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["PatientAddress", "0010,1040", "(0010,1040)", "00101040"])
def test_attributes_are_named_by_keyword_or_tag(text: str) -> None:
    assert parse_strip_attribute(text) == 0x00101040


def test_a_private_tag_can_be_named() -> None:
    assert parse_strip_attribute("0009,1001") == 0x00091001


@pytest.mark.parametrize("text", ["StudyInstanceUID", "0020,000D", "SpecificCharacterSet", "0002,0010", "0010,0000"])
def test_what_a_match_needs_is_refused(text: str) -> None:
    with pytest.raises(StripError):
        parse_strip_attribute(text)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(UnknownAttributeError):
        parse_strip_attribute("PatientAdress")


def test_names() -> None:
    assert attribute_name(0x00101040) == "PatientAddress"
    assert attribute_name(0x00091001) == "(0009,1001)"


def test_rules_take_out_together() -> None:
    strips = {"a": frozenset({1, 2}), "b": frozenset({3})}
    assert union_of(strips, ("a", "b", "c")) == {1, 2, 3}
    assert union_of({}, ("a",)) == union_of(strips, ("c",)) == frozenset()
