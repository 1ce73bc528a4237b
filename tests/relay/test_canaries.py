"""Canaries by value."""

from dicomward.relay.canaries import Canaries, Canary

CANARIES = Canaries(
    [
        Canary(name="one", patient_ids=("ZZ-1", "Ä-2")),
        Canary(name="two", accession_numbers=("A-9",), study_instance_uids=("1.9",)),
    ]
)


def test_values_are_found_without_their_padding_and_in_both_codings() -> None:
    assert CANARIES.found({0x00100020: b"ZZ-1 "}) == "one"
    assert CANARIES.found({0x00100020: "Ä-2".encode()}) == "one"
    assert CANARIES.found({0x00100020: "Ä-2".encode("latin-1")}) == "one"
    assert CANARIES.found({0x0020000D: b"1.9\0"}) == "two"
    assert CANARIES.found({0x00080050: b"A-9"}) == "two"


def test_other_values_and_the_same_in_another_place_are_not() -> None:
    assert CANARIES.found({0x00100020: b"ZZ-10", 0x00080050: b"ZZ-1", 0x0020000D: None}) is None
    assert CANARIES.found({}) is None
    assert Canaries().found({0x00100020: b"ZZ-1"}) is None


def test_no_value_is_shown() -> None:
    assert "ZZ-1" not in repr(CANARIES)
