import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom._uid_dict import UID_dictionary
from pynetdicom.sop_class import _STORAGE_CLASSES

from dicomward.vocab._uid_table import SOP_CLASS_KEYWORDS, TRANSFER_SYNTAX_KEYWORDS
from dicomward.vocab.uid import (
    APPLICATION_CONTEXT,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    UID_BYTES,
    UidError,
    decode_uid,
    has_leading_zero,
    parse_instance_uid,
    parse_uid,
    uid_keyword,
)


@pytest.mark.parametrize("text", ["1", "0", "1.2.840.10008.1.1", "2.25." + "9" * 39, "1" * 64, "1.02.3"])
def test_uids(text: str) -> None:
    assert parse_uid(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("1" * 65, "65"),
        (".", "digits and dots"),
        ("..", "digits and dots"),
        ("1.", "digits and dots"),
        (".1", "digits and dots"),
        ("1..2", "digits and dots"),
        ("1.2a", "digits and dots"),
        ("1.2\n", "digits and dots"),
        ("1 .2", "digits and dots"),
        ("\u0661.\u0662", "digits and dots"),
        ("1/../2", "digits and dots"),
    ],
)
def test_what_is_no_uid(text: str, why: str) -> None:
    with pytest.raises(UidError, match=why):
        parse_uid(text)


@pytest.mark.parametrize(
    ("field", "uid"), [(b"1.2\0", "1.2"), (b"1.2", "1.2"), (b"1.2 ", "1.2"), (b"1.2\0\0 \0", "1.2")]
)
def test_padding_of_fields(field: bytes, uid: str) -> None:
    assert decode_uid(field) == uid


@pytest.mark.parametrize("field", [b"", b"\0", b" 1.2", b"1\0.2", b"\xff.1", "\u0661".encode()])
def test_what_is_no_field(field: bytes) -> None:
    with pytest.raises(UidError):
        decode_uid(field)


@pytest.mark.parametrize(
    ("uid", "leading"),
    [("1.0.2", False), ("0.1", False), ("1.02", True), ("01.2", True), ("1.2.00", True), ("1.20", False)],
)
def test_leading_zeros_are_seen(uid: str, leading: bool) -> None:
    assert has_leading_zero(uid) is leading


@pytest.mark.parametrize("text", ["1.2.3", "1.02", "1" * 64, "f" * 64, "0a" * 32])
def test_an_instance_may_be_named_by_a_hash_value(text: str) -> None:
    assert parse_instance_uid(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "a" * 65, "a" * 63, "A" * 64, "g" * 64, "1" * 65, "a" * 40, "1.2.a", "ab1", "1.2.840.ABC"),
        *("a..b", "a.", ".a", "../a", "a b", "a-b", "a_b", "\u00e9", "a\0b", "*", "1.2.*", "1.2.?", "1.2\\1.3"),
        *("a" * 64 + "\n", "a" * 63 + "\n", "a" * 62 + "..", "\u0661" * 64),
    ],
)
def test_what_names_no_instance(text: str) -> None:
    with pytest.raises(UidError):
        parse_instance_uid(text)


@given(st.binary(max_size=70))
def test_any_field_gives_a_uid_or_one_error(field: bytes) -> None:
    try:
        uid = decode_uid(field)
    except UidError:
        return
    assert len(uid) <= UID_BYTES
    assert parse_uid(uid) == uid


def test_the_names_are_those_of_the_standard() -> None:
    classes = {uid: entry[4] for uid, entry in UID_dictionary.items() if entry[1] in ("SOP Class", "Meta SOP Class")}
    classes = {str(uid): keyword for keyword, uid in _STORAGE_CLASSES.items()} | classes
    syntaxes = {uid: entry[4] for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    assert {uid: keyword or uid for uid, keyword in classes.items()} == SOP_CLASS_KEYWORDS
    assert {uid: keyword or uid for uid, keyword in syntaxes.items()} == TRANSFER_SYNTAX_KEYWORDS
    assert (len(SOP_CLASS_KEYWORDS) > 300, len(TRANSFER_SYNTAX_KEYWORDS) > 50) == (True, True)
    for uid in (APPLICATION_CONTEXT, *SOP_CLASS_KEYWORDS, *TRANSFER_SYNTAX_KEYWORDS):
        assert parse_uid(uid) == uid


@pytest.mark.parametrize(
    ("uid", "keyword"),
    [
        ("1.2.840.10008.1.1", "Verification"),
        (IMPLICIT_VR_LITTLE_ENDIAN, "ImplicitVRLittleEndian"),
        (EXPLICIT_VR_LITTLE_ENDIAN, "ExplicitVRLittleEndian"),
        (EXPLICIT_VR_BIG_ENDIAN, "ExplicitVRBigEndian"),
        (DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, "DeflatedExplicitVRLittleEndian"),
        ("1.2.276.0.99", "1.2.276.0.99"),
    ],
)
def test_keywords(uid: str, keyword: str) -> None:
    assert uid_keyword(uid) == keyword
