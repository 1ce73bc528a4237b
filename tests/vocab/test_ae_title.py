import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.vocab.ae_title import AE_TITLE_BYTES, AeTitleError, decode_ae_title, encode_ae_title, parse_ae_title

CHARACTERS = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) != "\\")
TITLES = st.text(CHARACTERS, min_size=1, max_size=16).map(lambda text: text.strip(" ")).filter(bool)


@pytest.mark.parametrize(
    ("text", "title"), [("CT1", "CT1"), ("  CT1 ", "CT1"), ("A B", "A B"), ("x" * 16, "x" * 16), ("a/b.c", "a/b.c")]
)
def test_spaces_around_a_title_are_not_significant(text: str, title: str) -> None:
    assert parse_ae_title(text) == title


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("    ", "empty"),
        ("x" * 17, "17"),
        ("CT\\1", "backslash"),
        ("CT\n1", "printable"),
        ("CT\x7f", "printable"),
        ("ÄRZTE", "printable"),
        ("\tCT1", "printable"),
    ],
)
def test_what_is_no_title(text: str, why: str) -> None:
    with pytest.raises(AeTitleError, match=why):
        parse_ae_title(text)


@pytest.mark.parametrize("field", [b"CT1".ljust(16), b"CT1".ljust(16, b"\0"), b"CT1 \0\0", b" CT1"])
def test_padding_of_fields(field: bytes) -> None:
    assert decode_ae_title(field) == "CT1"


@pytest.mark.parametrize("field", [b"", bytes(16), b" " * 16, b"C\0T1", b"\xc4RZTE", b"x" * 17])
def test_what_is_no_field(field: bytes) -> None:
    with pytest.raises(AeTitleError):
        decode_ae_title(field)


@given(TITLES)
def test_a_title_is_read_as_it_was_written(title: str) -> None:
    field = encode_ae_title(title)
    assert len(field) == AE_TITLE_BYTES
    assert decode_ae_title(field) == title


@given(st.binary(max_size=20))
def test_any_field_gives_a_title_or_one_error(field: bytes) -> None:
    try:
        title = decode_ae_title(field)
    except AeTitleError:
        return
    assert parse_ae_title(title) == title
