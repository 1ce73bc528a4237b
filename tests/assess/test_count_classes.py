"""Each attribute has one class, docs/assessment-classes.md lists them all, and the query asks for known ones."""

from dicomward.assess.count_classes import (
    ASKED_TAGS,
    BIT_OF_WIRE_TAG,
    CLASSIFIED,
    MEDICAL_MASK,
    PERSONAL_MASK,
    STUDY_INSTANCE_UID,
    keywords_in,
)
from tests.docs.pages import read, rows_of, section_of


def test_classes_are_disjoint_and_whole() -> None:
    tags = [item.tag for item in CLASSIFIED]
    assert len(tags) == len(set(tags)) == len({item.keyword for item in CLASSIFIED})
    assert not PERSONAL_MASK & MEDICAL_MASK
    assert (PERSONAL_MASK | MEDICAL_MASK) == (1 << len(CLASSIFIED)) - 1 == sum(BIT_OF_WIRE_TAG.values())


def test_wire_tags_are_little_endian_words() -> None:
    assert keywords_in(BIT_OF_WIRE_TAG[int.from_bytes(bytes.fromhex("10002000"), "little")]) == ("PatientID",)
    assert keywords_in(0) == ()


def test_query_asks_for_the_unique_key_and_classified_attributes() -> None:
    assert set(ASKED_TAGS) - {STUDY_INSTANCE_UID} < {item.tag for item in CLASSIFIED}
    assert len(ASKED_TAGS) == 17


def test_page_lists_every_attribute() -> None:
    expected = [
        (
            f"`{item.keyword}`",
            f"({item.tag >> 16:04X},{item.tag & 0xFFFF:04X})",
            str(item.data_class),
            "yes" if item.asked else "",
        )
        for item in CLASSIFIED
    ]
    assert rows_of(section_of(read("assessment-classes.md"), "The attributes")) == expected
