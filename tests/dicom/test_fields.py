import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.dicom.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from dicomward.dicom.fields import (
    echoed_ae_title,
    invalid_value,
    iter_items,
    read_ae_title,
    read_uid,
    split_prefixed,
    too_much,
    unexpected,
    write_ae_title,
    write_echoed_ae_title,
    write_item,
    write_prefixed,
    write_uid,
    write_unsigned,
)
from dicomward.vocab.association import AbortReason
from tests.dicom.builders import item
from tests.dicom.strategies import ae_titles, uids

CLAUSE = "PS3.8 §9"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (invalid_value(CLAUSE, "bad"), AbortReason.INVALID_PARAMETER_VALUE),
        (unexpected(CLAUSE, "bad"), AbortReason.UNEXPECTED_PARAMETER),
    ],
)
def test_errors_have_their_abort_reason(error: RemoteProtocolError, reason: AbortReason) -> None:
    assert (error.abort_reason, error.clause, error.detail) == (reason, CLAUSE, "bad")


def test_limit_error_names_the_limit_and_the_numbers() -> None:
    error = too_much("max_user_items", 513, 512)
    assert isinstance(error, LimitExceeded)
    assert str(error) == "513 is more than our limit of 512 (limit max_user_items)"


def test_items_come_in_order_and_reserved_bytes_are_not_tested() -> None:
    data = b"??" + item(0x10, b"a", reserved=0xFF) + item(0x20, b"") + item(0xFE, b"bcd")
    assert list(iter_items(data, 2, CLAUSE)) == [(0x10, b"a"), (0x20, b""), (0xFE, b"bcd")]


@pytest.mark.parametrize("rest", [b"\x10", b"\x10\0\0", b"\x10\0\0\x02a", item(0x10, b"ab", length=0xFFFF)])
def test_items_that_do_not_fit_are_refused(rest: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        list(iter_items(item(0x10, b"good") + rest, 0, CLAUSE))


def test_prefixed_field_is_split() -> None:
    assert split_prefixed(b"xx\0\x02abc", 2, CLAUSE) == (b"ab", 6)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\x01", b"\xff\xffab"])
def test_prefixed_field_that_is_cut_short_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="length field"):
        split_prefixed(data, 0, CLAUSE)


@pytest.mark.parametrize(
    ("field", "uid", "notes"),
    [
        (b"1.2.3", "1.2.3", set()),
        (b"1.2.3\0", "1.2.3", {"uid-nul-padding"}),
        (b"1.2.3 ", "1.2.3", {"uid-space-padding"}),
        (b"1.02.3", "1.02.3", {"uid-leading-zero"}),
        (b"1" * 64, "1" * 64, set()),
    ],
)
def test_uid_is_read_and_its_deviations_are_noted(field: bytes, uid: str, notes: set[str]) -> None:
    found: set[str] = set()
    assert read_uid(field, CLAUSE, "abstract syntax", found) == uid
    assert found == notes


@pytest.mark.parametrize(
    "field", [b"", b"\0", b".", b"..", b"1.", b"1..2", b"1.2/3", b"1.a", b"1.\xb2", b"1" * 65, b" 1"]
)
def test_uid_against_the_grammar_is_refused(field: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^abstract syntax ") as caught:
        read_uid(field, CLAUSE, "abstract syntax", set())
    assert caught.value.abort_reason is AbortReason.INVALID_PARAMETER_VALUE


def test_error_shows_no_more_than_80_bytes_of_the_peers() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read_uid(b"x" * 60_000, CLAUSE, "abstract syntax", set())
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("field", "title", "notes"),
    [
        (b"CT1".ljust(16), "CT1", set()),
        (b"  CT 1".ljust(16), "CT 1", set()),
        (b"CT1".ljust(16, b"\0"), "CT1", {"ae-title-nul-padding"}),
        (b"CT1    \0\0\0\0\0\0\0\0\0", "CT1", {"ae-title-nul-padding"}),
        (b"a/b.c".ljust(16), "a/b.c", set()),
        (b"ABCDEFGHIJKLMNOP", "ABCDEFGHIJKLMNOP", set()),
    ],
)
def test_ae_title_is_read_and_its_deviations_are_noted(field: bytes, title: str, notes: set[str]) -> None:
    found: set[str] = set()
    assert read_ae_title(field, CLAUSE, "called AE title", found) == title
    assert found == notes


@pytest.mark.parametrize(
    "field",
    [b" " * 16, bytes(16), b"A\\B".ljust(16), b"A\nB".ljust(16), b"\xc4".ljust(16), b".".ljust(16), b"..".ljust(16)],
)
def test_ae_title_against_the_grammar_is_refused(field: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^called AE title "):
        read_ae_title(field, CLAUSE, "called AE title", set())


@pytest.mark.parametrize(("field", "title"), [(b"CT1".ljust(16), "CT1"), (bytes(16), ""), (b"\xff" * 16, "")])
def test_echoed_ae_title_is_not_tested(field: bytes, title: str) -> None:
    assert echoed_ae_title(field) == title


@given(uids)
def test_uid_survives_the_way_there_and_back(uid: str) -> None:
    assert read_uid(write_uid(uid), CLAUSE, "UID", set()) == uid


@given(ae_titles)
def test_ae_title_survives_the_way_there_and_back(title: str) -> None:
    assert len(write_ae_title(title)) == 16
    assert read_ae_title(write_ae_title(title), CLAUSE, "AE title", set()) == title


@pytest.mark.parametrize("uid", ["", "1.", "a", "1.é", "1" * 65])
def test_bad_uid_is_not_sent(uid: str) -> None:
    with pytest.raises(LocalProtocolError, match="cannot send the UID"):
        write_uid(uid)


@pytest.mark.parametrize("title", ["", "A" * 17, "A\\B", "Ä"])
def test_bad_ae_title_is_not_sent(title: str) -> None:
    with pytest.raises(LocalProtocolError, match="cannot send the AE title"):
        write_ae_title(title)


def test_echoed_ae_title_may_be_empty() -> None:
    assert write_echoed_ae_title("") == b" " * 16
    assert write_echoed_ae_title("CT1") == b"CT1".ljust(16)


@pytest.mark.parametrize(("value", "size"), [(-1, 2), (0x10000, 2), (2**32, 4)])
def test_number_that_does_not_fit_is_not_sent(value: int, size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"maximum length {value} does not fit"):
        write_unsigned(value, size, "maximum length")


@given(st.integers(0, 0xFFFF))
def test_numbers_are_big_endian(value: int) -> None:
    assert write_unsigned(value, 2, "number") == bytes((value >> 8, value & 0xFF))


def test_longest_value_of_an_item_is_65535_bytes() -> None:
    assert write_item(0x50, bytes(0xFFFF))[:4] == b"\x50\0\xff\xff"
    assert write_prefixed(bytes(0xFFFF), "primary field")[:2] == b"\xff\xff"
    with pytest.raises(LocalProtocolError, match="item 50H has 65536 bytes"):
        write_item(0x50, bytes(0x10000))
    with pytest.raises(LocalProtocolError, match="length of primary field"):
        write_prefixed(bytes(0x10000), "primary field")
