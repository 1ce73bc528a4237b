"""Only attributes with a value count, patients are told apart by keyed hashes, and nothing raises or keeps a value."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.assess import count_tally
from dicomward.assess.count_classes import BIT_OF_WIRE_TAG
from dicomward.assess.count_tally import Patients, SliceNumbers, Tally
from dicomward.assess.countries import country_in
from tests.assess.identifiers import element, identifier

PLAIN = {"t00080020": b"20200101", "t00100010": b"DOE^JANE", "t00100020": b"4711"}


def tally() -> tuple[Tally, Patients]:
    patients = Patients(b"k" * 16, country_in)
    return Tally(patients), patients


def count(*identifiers: bytes) -> tuple[SliceNumbers, Patients]:
    counter, patients = tally()
    for each in identifiers:
        counter.add(b"xx" + each + b"yy", 2, 2 + len(each))
    return counter.take(), patients


def test_attributes_without_a_value_do_not_count() -> None:
    numbers, _ = count(identifier(t00080020=b"", t00080090=b"    ", t00100010=b"DOE^JANE", t00100040=b"\0\0"))
    assert numbers.attributes == {"PatientName": 1}
    assert numbers.medical == 0
    assert numbers.studies == 1


def test_value_that_only_begins_with_a_space_counts() -> None:
    numbers, patients = count(*[identifier(t00100020=b" 12")] * 2, identifier(t00100020=b"12"))
    assert numbers.attributes == {"PatientID": 3}
    assert len(patients) == 1


def test_same_patient_counts_once_whatever_the_order_and_the_shape() -> None:
    numbers, patients = count(
        *[identifier(**{**PLAIN, "t00100020": b"%04d" % (n % 7)}) for n in range(50)],
        *[identifier(**{**PLAIN, "t00081030": b"HEAD", "t00100020": b"%04d" % (n % 9)}) for n in range(50)],
    )
    assert (numbers.studies, numbers.medical, len(patients)) == (100, 100, 9)
    assert repr(patients) == "<9 patients>"


def test_issuer_tells_patients_apart_and_a_name_stands_in_for_an_id() -> None:
    _, patients = count(
        identifier(t00100020=b"1", t00100021=b"A "),
        identifier(t00100020=b"1", t00100021=b"A "),
        identifier(t00100020=b"1", t00100021=b"B "),
        identifier(t00100010=b"DOE", t00100030=b"19700101"),
        identifier(t00100010=b"DOE", t00100030=b"19700101", t00100020=b"  "),
        identifier(t00100010=b"DOE", t00100030=b"19710101"),
        identifier(t00080020=b"20200101"),
        identifier(t00100021=b"A "),
    )
    assert len(patients) == 4


def test_countries_come_as_codes_and_free_text_never() -> None:
    rows = [(b"1", b"DE"), (b"2", b"DEU"), (b"3", b"Germany"), (b"4", b"4 Elm Street"), (b"5", b""), (b"1", b"DE")]
    _, patients = count(*[identifier(t00100020=number, t00102150=country) for number, country in rows])
    assert patients.by_country == {"DE": 3}
    _, alike = count(*[identifier(t00100020=b"%04d" % n, t00100021=b"XX", t00102150=b"FR") for n in range(5)])
    assert alike.by_country == {"FR": 5}


def test_sequences_of_undefined_length_are_stepped_over() -> None:
    inner = element(0x00080100, b"CODE")
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner + b"\xfe\xff\x0d\xe0\0\0\0\0"
    start, end = struct.pack("<HHI", 0x0008, 0x1032, 0xFFFFFFFF), b"\xfe\xff\xdd\xe0\0\0\0\0"
    numbers, _ = count(start + item + end + element(0x00100020, b"1"), start + end + element(0x00100020, b"2"))
    assert numbers.attributes == {"PatientID": 2, "ProcedureCodeSequence": 1}


@pytest.mark.parametrize(
    "broken",
    [
        element(0x00100010, b"ABCD")[:-1],
        b"\x10\0\x10\0\xf0\xff\xff\0",
        struct.pack("<HHI", 8, 0x1032, 0xFFFFFFFF) * 40,
        b"\x10\0\x10\0\0",
    ],
    ids=["cut", "too long", "too deep", "rest"],
)
def test_what_cannot_be_read_is_counted_as_that(broken: bytes) -> None:
    numbers, patients = count(broken, identifier(**PLAIN))
    assert (numbers.studies, numbers.unreadable, len(patients)) == (1, 1, 1)


def test_kinds_shapes_and_patients_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count_tally, "MOST_KINDS", 3)
    monkeypatch.setattr(count_tally, "MOST_PATIENTS", 2)
    monkeypatch.setattr(count_tally, "MOST_SHAPES", 1)
    names = ["t00100010", "t00100040", "t00101000", "t00101040", "t00102154", "t00080090", "t00081030"]
    numbers, patients = count(*[identifier(**{"t00100020": b"%02d" % n, name: b"XX"}) for n, name in enumerate(names)])
    assert numbers.studies == 7 == sum(numbers.kinds.values())
    assert len(numbers.kinds) <= 5
    assert len(patients) == 2
    assert patients.is_full


def test_numbers_survive_json_and_add_up() -> None:
    one, _ = count(identifier(**PLAIN), b"rest")
    two = SliceNumbers.from_json(one.to_json())
    assert two == one
    two.add(one)
    assert (two.studies, two.unreadable, two.attributes["StudyDate"]) == (2, 2, 2)


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    numbers, _ = count(data, data)
    assert numbers.studies + numbers.unreadable == 2


@given(
    st.lists(st.dictionaries(st.sampled_from(sorted(BIT_OF_WIRE_TAG)), st.binary(max_size=6), max_size=8), max_size=8)
)
def test_pattern_and_walk_agree(rows: list[dict[int, bytes]]) -> None:
    def encode(row: dict[int, bytes]) -> bytes:
        return b"".join(struct.pack("<II", tag, len(value)) + value for tag, value in row.items())

    data = [encode(row) for row in rows]
    twice, patients = count(*data, *data)
    walked = SliceNumbers()
    alone: set[int] = set()
    for each in data:
        fresh, _ = count(each)
        walked.add(fresh)
        walked.add(fresh)
        alone.add(len(each))
    assert twice == walked
    _, once = count(*data)
    assert len(patients) == len(once)


def test_birth_date_beside_an_id_and_an_issuer_without_one_say_nothing_more() -> None:
    _, patients = count(
        element(0x00100020, b"1") + element(0x00100030, b"19700101"),
        element(0x00100020, b"1") + element(0x00100030, b"19710101"),
        element(0x00100021, b"A ") + element(0x00100010, b" DOE"),
    )
    assert len(patients) == 2
    _, alike = count(*[identifier(**PLAIN)] * 3)
    assert len(alike) == 1
