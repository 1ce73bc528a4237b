import pytest

from dicomward.relay.identifiers import is_narrowing, query_facts, single_value, uid_value

LEVEL, PATIENT_ID, NAME, STUDY = 0x00080052, 0x00100020, 0x00100010, 0x0020000D


@pytest.mark.parametrize(
    ("value", "uid"), [(b"1.2.3\0", "1.2.3"), (b"1.2 ", "1.2"), (b"", ""), (None, ""), (b"\xff", "\xff")]
)
def test_a_uid_loses_its_padding_and_nothing_else(value: bytes | None, uid: str) -> None:
    assert uid_value(value) == uid


@pytest.mark.parametrize(
    ("value", "level"), [(b"STUDY ", "STUDY"), (b" study\0", "study"), (b"", None), (b"  ", None), (None, None)]
)
def test_the_query_level_as_it_stands(value: bytes | None, level: str | None) -> None:
    assert query_facts({LEVEL: value}) == (level, frozenset())


def test_no_query_level() -> None:
    assert query_facts({}) == (None, frozenset())


@pytest.mark.parametrize("value", [b"4711", b"1\\2", b"0 ", b"A-1"])
def test_a_key_with_a_value_narrows(value: bytes) -> None:
    assert query_facts({PATIENT_ID: value})[1] == {PATIENT_ID}


@pytest.mark.parametrize("value", [b"DOE*", b"D?E", b"A*\\B*"])
def test_part_of_a_name_narrows(value: bytes) -> None:
    assert query_facts({NAME: value})[1] == {NAME}


@pytest.mark.parametrize("value", [b"47*", b"?1", b"*1*", b"4711\\*", b"*\\4711", b"4711\\", b"\\4711"])
def test_trap_an_identifier_with_a_wildcard_is_a_way_to_browse(value: bytes) -> None:
    assert query_facts({PATIENT_ID: value, STUDY: value})[1] == frozenset()


@pytest.mark.parametrize("value", [b"-", b" - ", b"20260101\\-"])
def test_a_range_without_ends_does_not_narrow(value: bytes) -> None:
    assert query_facts({0x00080020: value})[1] == frozenset()


@pytest.mark.parametrize("value", [b"", b"*", b"**", b"??", b"* ", b"\0", b"*\\*", b"^^", b"?*^ ", b"DOE\\*"])
def test_wildcards_alone_do_not_narrow(value: bytes) -> None:
    assert query_facts({NAME: value})[1] == frozenset()


def test_a_list_of_uids_that_was_too_long_to_keep_narrows_and_other_long_things_do_not() -> None:
    assert query_facts({STUDY: None, 0x00081199: None, NAME: None})[1] == {STUDY}


@pytest.mark.parametrize(
    ("value", "single"), [(b"4711 ", b"4711"), (b"", b""), (None, b""), (b"47*", b""), (b"4?", b""), (b"1\\2", b"")]
)
def test_the_one_thing_that_a_key_names(value: bytes | None, single: bytes) -> None:
    assert single_value(value) == single


@pytest.mark.parametrize(("value", "narrows"), [(b"1 M*", True), (b"*", False), (b" ", False), (None, True)])
def test_what_narrows(value: bytes | None, narrows: bool) -> None:
    assert is_narrowing(value) is narrows
