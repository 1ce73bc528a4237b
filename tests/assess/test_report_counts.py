"""Counts of a report: added up, written, and hidden where they are small."""

from dataclasses import replace

import pytest

from dicomward.assess.observation import Count, Counts, Finding, Protocol, ServerObservation
from dicomward.assess.report_counts import counted, is_leaking, is_small, show, total, total_counts

SERVER = ServerObservation(address="192.0.2.1", port=104, protocol=Protocol.DIMSE)


def exact(value: int) -> Count:
    return Count(value=value)


def test_sum_of_nothing_is_not_zero() -> None:
    assert total([]) is None
    assert total([None, None]) is None


def test_sum_is_a_lower_bound_if_one_part_is() -> None:
    assert total([exact(2), None, exact(3)]) == exact(5)
    assert total([exact(2), Count(value=3, is_lower_bound=True)]) == Count(value=5, is_lower_bound=True)


def test_every_kind_is_added_up() -> None:
    one = Counts(
        patients=exact(1),
        studies=exact(2),
        records=exact(3),
        personal=exact(1),
        medical=exact(2),
        open_to_tampering=exact(3),
    )
    twice = total_counts([one, one])
    assert twice == Counts(
        patients=exact(2),
        studies=exact(4),
        records=exact(6),
        personal=exact(2),
        medical=exact(4),
        open_to_tampering=exact(6),
    )


@pytest.mark.parametrize(
    ("count", "shared", "rounded", "text", "value"),
    [
        (None, False, False, "not counted", None),
        (None, True, True, "not counted", None),
        (exact(0), True, True, "0", 0),
        (exact(1), True, False, "<5", None),
        (exact(4), True, False, "<5", None),
        (exact(4), False, False, "4", 4),
        (exact(5), True, False, "5", 5),
        (exact(1234), True, True, "about 1,230", None),
        (exact(7), True, True, "about 10", None),
        (Count(value=1234, is_lower_bound=True), False, False, "at least 1,234", 1234),
        (Count(value=3, is_lower_bound=True), True, False, "<5", None),
    ],
)
def test_counts_as_people_read_them(
    count: Count | None, shared: bool, rounded: bool, text: str, value: int | None
) -> None:
    shown = show(count, shared=shared, rounded=rounded)
    assert (shown.text, shown.value) == (text, value)
    assert shown.is_lower_bound == (count is not None and count.is_lower_bound)


def test_small_is_one_to_four() -> None:
    assert [is_small(None), is_small(exact(0)), is_small(exact(1)), is_small(exact(4)), is_small(exact(5))] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_leaking_by_counts_or_by_finding() -> None:
    assert not is_leaking(SERVER)
    assert not is_leaking(replace(SERVER, counts=Counts(records=exact(0))))
    assert is_leaking(replace(SERVER, counts=Counts(patients=exact(1))))
    assert is_leaking(replace(SERVER, findings=(Finding(id="DWA-RECORDS-EXPOSED"),)))


def test_one_archive_behind_two_doors_is_counted_once() -> None:
    plain = replace(SERVER, counts=Counts(records=exact(9)))
    tls = replace(plain, port=2762, protocol=Protocol.DIMSE_TLS)
    web = replace(plain, port=8042, protocol=Protocol.HTTP)
    assert counted([plain, tls, web]) == [(plain, plain.counts)]


def test_two_archives_of_a_host_are_both_counted() -> None:
    plain = replace(SERVER, counts=Counts(records=exact(9)))
    other = replace(plain, port=11112)
    larger = replace(plain, port=2762, protocol=Protocol.DIMSE_TLS, counts=Counts(records=exact(10)))
    elsewhere = replace(plain, address="192.0.2.2", protocol=Protocol.DIMSE_TLS)
    kept = [plain, other, larger, elsewhere]
    assert counted([*kept, SERVER]) == [(each, each.counts) for each in kept]
