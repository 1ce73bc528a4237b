"""Slices cover every date once, split without a gap, and round numbers of answers are looked into."""

import itertools
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.assess.count_slices import Slice, looks_capped, plan_slices, slice_named


def test_slices_follow_each_other_without_a_gap() -> None:
    planned = list(plan_slices(date(2026, 11, 25)))
    assert planned[0].name == "19000101-20011231"
    assert planned[-1].name == "20270101-20361231"
    for before, after in itertools.pairwise(planned):
        assert after.first - before.last == timedelta(days=1)


@given(st.dates(date(1900, 1, 1), date(2099, 1, 1)), st.integers(1, 40_000))
def test_halves_are_the_whole(first: date, days: int) -> None:
    whole = Slice(first, first + timedelta(days=days))
    left, right = whole.halves()
    assert (left.first, right.last) == (whole.first, whole.last)
    assert right.first - left.last == timedelta(days=1)
    assert slice_named(whole.name) == whole


def test_one_day_has_no_halves_and_bad_names_are_refused() -> None:
    day = Slice(date(2020, 2, 29), date(2020, 2, 29))
    assert day.is_single_day
    with pytest.raises(ValueError, match="no halves"):
        day.halves()
    for name in ("", "2020", "20200101", "2020010a-20200101", "20201301-20210101"):
        with pytest.raises(ValueError, match=r".+"):
            slice_named(name)


@pytest.mark.parametrize(
    ("answers", "cap", "expected"),
    [(0, None, False), (8, None, False), (10, None, True), (100, None, True), (64, None, True), (101, None, False),
     (99, 100, False), (100, 100, True), (173, 100, True), (10, 100, False)],
)  # fmt: skip
def test_round_numbers_look_like_caps(answers: int, cap: int | None, expected: bool) -> None:
    assert looks_capped(answers, cap) is expected
