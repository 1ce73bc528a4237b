"""Budgets as arithmetic: windows that are never too short, distinct counting, levels, leases, what is kept."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.limits.budget_settings import AtEnd, BudgetSettings
from dicomward.limits.budgets import (
    LEASE_BYTES,
    OVER_BYTES_PER_SECOND,
    OVER_ITEM_SECONDS,
    OVER_MATCH_SECONDS,
    BudgetBook,
    Charge,
    Holder,
    ItemRow,
    Level,
    Measure,
    Span,
    SumRow,
)
from dicomward.vocab.reason import ReasonCode

WS, RESEARCH = Holder("ws1", "workstation"), Holder("r1", "research")
T0 = 1_700_000_000.0 // 86_400 * 86_400
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


def book(**numbers: object) -> BudgetBook:
    return BudgetBook(BudgetSettings(device=numbers))


def used(budgets: BudgetBook, measure: Measure, span: Span, now: float, holder: Holder = WS) -> int:
    return next(u.used for u in budgets.usage(holder, now) if (u.measure, u.span) == (measure, span))


def test_a_patient_counts_once_in_each_window() -> None:
    budgets = book()
    for now in (T0, T0 + 10, T0 + 2 * HOUR, T0 + 2 * DAY):
        budgets.charge((WS,), Charge(patients=(1,)), now)
    assert [used(budgets, Measure.PATIENTS, span, T0 + 2 * DAY) for span in Span] == [1, 1, 1]
    budgets.charge((WS,), Charge(patients=(2,)), T0 + 2 * DAY + 2 * HOUR)
    assert [used(budgets, Measure.PATIENTS, span, T0 + 2 * DAY + 2 * HOUR) for span in Span] == [1, 2, 2]


@pytest.mark.parametrize(
    ("span", "length", "step"), [(Span.HOUR, HOUR, MINUTE), (Span.DAY, DAY, HOUR), (Span.DAYS_30, 30 * DAY, DAY)]
)
def test_a_window_is_never_shorter_than_its_name_and_at_most_a_step_longer(
    span: Span, length: float, step: float
) -> None:
    budgets = book()
    budgets.charge((WS,), Charge(patients=(1,), matches=3), T0 + step - 1)
    for measure, amount in ((Measure.PATIENTS, 1), (Measure.MATCHES, 3)):
        assert used(budgets, measure, span, T0 + step - 1 + length) == amount
    for measure in (Measure.PATIENTS, Measure.MATCHES):
        assert used(budgets, measure, span, T0 + step + length) == 0


class Oracle:
    """The same by brute force: every sighting with its minute."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def distinct(self, now: int, steps: int, step: int) -> int:
        return len({item for minute, item in self.seen if minute // step >= now // step - steps})


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 8)), max_size=60))
def test_distinct_counts_are_exact(moves: Sequence[tuple[int, int]]) -> None:
    budgets, oracle, minute = book(), Oracle(), int(T0 // 60)
    for ahead, item in moves:
        minute += ahead
        budgets.charge((WS,), Charge(patients=(item,)), minute * 60.0)
        oracle.seen.append((minute, item))
        assert used(budgets, Measure.PATIENTS, Span.HOUR, minute * 60.0) == oracle.distinct(minute, 60, 1)
        assert used(budgets, Measure.PATIENTS, Span.DAY, minute * 60.0) == oracle.distinct(minute, 24, 60)
        assert used(budgets, Measure.PATIENTS, Span.DAYS_30, minute * 60.0) == oracle.distinct(minute, 30, 1440)


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 5), st.integers(0, 9), st.integers(0, 500)), max_size=30),
    st.integers(0, 3000),
)
def test_what_is_kept_and_read_again_counts_the_same(moves: Sequence[tuple[int, int, int, int]], later: int) -> None:
    budgets, minute = book(), int(T0 // 60)
    disk: dict[tuple[object, ...], ItemRow | SumRow] = {}
    for ahead, item, matches, count in moves:
        minute += ahead
        charge = Charge(patients=(item,), studies=(item, item + 100), matches=matches, bytes=count)
        budgets.charge((WS, RESEARCH), charge, minute * 60.0)
        for row in budgets.take_changes():
            disk[row[:-1]] = row
    again, now = book(), (minute + later) * 60.0
    again.load(disk.values(), now)
    assert again.usage(WS, now) == budgets.usage(WS, now)
    assert again.usage(RESEARCH, now) == budgets.usage(RESEARCH, now)
    whole = book()
    whole.load(budgets.rows(), now)
    assert whole.usage(WS, now) == budgets.usage(WS, now)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 30), st.integers(1, 4)), max_size=80))
def test_who_is_refused_never_has_more_than_the_budget(moves: Sequence[tuple[int, int, int]]) -> None:
    budgets = book(patients_per_hour=5, patients_per_day=8, matches_per_hour=20, at_end="refuse")
    minute = int(T0 // 60)
    for ahead, item, matches in moves:
        minute += ahead
        budgets.charge((RESEARCH,), Charge(patients=(item,), matches=matches), minute * 60.0)
        for usage in budgets.usage(RESEARCH, minute * 60.0):
            assert usage.used <= usage.budget


def test_a_refusal_counts_nothing_and_for_nobody() -> None:
    budgets = BudgetBook(BudgetSettings(devices={"r1": {"patients_per_hour": 1}}))
    assert budgets.charge((WS, RESEARCH), Charge(patients=(1,)), T0).refused is None
    refused = budgets.charge((WS, RESEARCH), Charge(patients=(2,), matches=9), T0)
    assert refused.refused is ReasonCode.PATIENT_BUDGET
    assert used(budgets, Measure.PATIENTS, Span.HOUR, T0) == 1
    assert used(budgets, Measure.MATCHES, Span.HOUR, T0) == 0
    # What counts already goes on.
    assert budgets.charge((WS, RESEARCH), Charge(patients=(1,)), T0).refused is None
    assert budgets.check((RESEARCH,), Charge(patients=(2,)), T0) is ReasonCode.PATIENT_BUDGET
    assert budgets.check((WS,), Charge(patients=(2,)), T0) is None


def test_forced_charges_count_and_are_never_refused() -> None:
    budgets = book(patients_per_hour=1, at_end="refuse")
    for item in (1, 2):
        assert budgets.charge((RESEARCH,), Charge(patients=(item,)), T0, forced=True).refused is None
    assert used(budgets, Measure.PATIENTS, Span.HOUR, T0, RESEARCH) == 2


@pytest.mark.parametrize(
    ("charge", "seconds"),
    [
        (Charge(patients=(2,)), OVER_ITEM_SECONDS),
        (Charge(studies=(2,)), OVER_ITEM_SECONDS),
        (Charge(matches=2), 2 * OVER_MATCH_SECONDS),
        (Charge(bytes=OVER_BYTES_PER_SECOND), 1.0),
        (Charge(patients=(2,), matches=1), OVER_ITEM_SECONDS),
        (Charge(patients=(1,)), 0.0),
    ],
)
def test_who_is_slowed_down_waits_for_what_is_over(charge: Charge, seconds: float) -> None:
    budgets = book(patients_per_hour=1, studies_per_hour=1, matches_per_hour=1, bytes_per_hour=1)
    budgets.charge((WS,), Charge(patients=(1,), studies=(1,), matches=1, bytes=1), T0)
    outcome = budgets.charge((WS,), charge, T0)
    assert (outcome.refused, outcome.delay_seconds) == (None, seconds)


# -- levels ------------------------------------------------------------------------------------------------------------


def test_a_warning_comes_once_and_again_when_use_had_fallen() -> None:
    budgets = book(patients_per_hour=10, warn_percent=80)
    levels = []
    for item in range(12):
        outcome = budgets.charge((WS,), Charge(patients=(item,)), T0)
        levels.append([(notice.level, notice.span, notice.used, notice.budget) for notice in outcome.notices])
    assert levels[:7] == [[]] * 7
    assert levels[7] == [(Level.WARNED, Span.HOUR, 8, 10)]
    assert levels[8:10] == [[], []]
    assert levels[10] == [(Level.ENDED, Span.HOUR, 11, 10)]
    assert levels[11] == []
    later = T0 + 2 * HOUR
    budgets.charge((WS,), Charge(patients=(1,)), later)
    notices = [budgets.charge((WS,), Charge(patients=(item,)), later).notices for item in range(2, 10)]
    assert [n[0].level for n in notices if n] == [Level.WARNED]


def test_a_refusal_is_told_once() -> None:
    budgets = book(patients_per_hour=1, at_end="refuse")
    budgets.charge((RESEARCH,), Charge(patients=(1,)), T0)
    first = budgets.charge((RESEARCH,), Charge(patients=(2,)), T0)
    again = budgets.charge((RESEARCH,), Charge(patients=(3,)), T0)
    (notice,) = first.notices
    assert (notice.level, notice.used, notice.budget, notice.at_end) == (Level.ENDED, 1, 1, AtEnd.REFUSE)
    assert again.notices == ()


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_bytes_are_leased_ahead_and_what_is_left_is_given_back_where_it_was_counted() -> None:
    budgets = book()
    lease = budgets.lease((WS,), 1000, T0)
    assert lease.granted_bytes == LEASE_BYTES
    budgets.refund((WS,), LEASE_BYTES - 1000, lease.minute, T0 + 5 * MINUTE)
    assert [used(budgets, Measure.BYTES, span, T0 + 5 * MINUTE) for span in Span] == [1000] * 3
    assert used(budgets, Measure.BYTES, Span.HOUR, T0 + 61 * MINUTE) == 0


def test_a_refund_that_comes_too_late_changes_nothing_in_a_window_that_has_moved_on() -> None:
    budgets = book()
    lease = budgets.lease((WS,), 1000, T0)
    budgets.charge((WS,), Charge(bytes=500), T0 + 2 * HOUR)
    budgets.refund((WS,), 700, lease.minute, T0 + 2 * HOUR)
    assert used(budgets, Measure.BYTES, Span.HOUR, T0 + 2 * HOUR) == 500
    assert used(budgets, Measure.BYTES, Span.DAY, T0 + 2 * HOUR) == LEASE_BYTES - 700 + 500


def test_a_lease_gets_smaller_near_the_end_and_never_refuses() -> None:
    budgets = book(bytes_per_hour=8000, at_end="refuse")
    assert budgets.lease((RESEARCH,), 10, T0).granted_bytes == 1000
    assert budgets.lease((RESEARCH,), 6000, T0).granted_bytes == 6000
    over = budgets.lease((RESEARCH,), 5000, T0)
    assert over.granted_bytes == 5000
    assert (over.delay_seconds, [notice.level for notice in over.notices]) == (0.0, [Level.ENDED])
    after = budgets.lease((RESEARCH,), 1, T0)
    assert after.granted_bytes == 1024 * 1024
    assert after.delay_seconds == pytest.approx(1024 * 1024 / OVER_BYTES_PER_SECOND)
    assert budgets.charge((RESEARCH,), Charge(bytes=1), T0).refused is ReasonCode.BYTE_BUDGET


# -- time and memory ---------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_opens_nothing() -> None:
    budgets = book(patients_per_hour=1, at_end="refuse")
    budgets.charge((RESEARCH,), Charge(patients=(1,)), T0)
    assert budgets.charge((RESEARCH,), Charge(patients=(2,)), T0 - 10 * DAY).refused is ReasonCode.PATIENT_BUDGET


def test_what_was_kept_with_a_clock_ahead_counts_as_of_now() -> None:
    budgets = book()
    ahead = int(T0 // 60) + 100_000
    budgets.load(
        [
            ItemRow("ws1", Measure.PATIENTS, 7, ahead),
            SumRow("ws1", Measure.MATCHES, Span.HOUR, ahead, 5),
            ItemRow("ws1", Measure.PATIENTS, 8, int(T0 // 60) - 40 * 1440),
        ],
        T0,
    )
    assert used(budgets, Measure.PATIENTS, Span.HOUR, T0) == 1
    assert used(budgets, Measure.MATCHES, Span.HOUR, T0) == 5
    assert used(budgets, Measure.PATIENTS, Span.HOUR, T0 + 2 * HOUR) == 0


def test_memory_is_bounded_for_who_is_only_slowed_down() -> None:
    budgets = book(patients_per_hour=10, patients_per_day=10, patients_per_30_days=10)
    for item in range(100):
        budgets.charge((WS,), Charge(patients=(item,)), T0)
    assert sum(isinstance(row, ItemRow) for row in budgets.rows()) == 20


def test_what_no_window_holds_is_forgotten() -> None:
    budgets = book()
    budgets.charge((WS,), Charge(patients=(1,), matches=1), T0)
    budgets.charge((WS,), Charge(patients=(2,), matches=1), T0 + 40 * DAY)
    assert [row.item for row in budgets.rows() if isinstance(row, ItemRow)] == [2]
    assert sum(isinstance(row, SumRow) for row in budgets.rows()) == 3


def test_reset_forgets_one_device() -> None:
    budgets = book()
    budgets.charge((WS, RESEARCH), Charge(patients=(1,), matches=1), T0)
    assert budgets.devices() == ["r1", "ws1"]
    assert budgets.reset("ws1") is True
    assert budgets.reset("ws1") is False
    assert {row.device for row in budgets.take_changes()} == {"r1"}
    assert not budgets.has_changes()
    assert budgets.devices() == ["r1"]


def test_other_settings_are_in_force_at_once_and_what_was_used_stays() -> None:
    budgets = book(patients_per_hour=1, at_end="refuse")
    budgets.charge((RESEARCH,), Charge(patients=(1,)), T0)
    assert budgets.charge((RESEARCH,), Charge(patients=(2,)), T0).refused is not None
    budgets.use_settings(BudgetSettings(device={"patients_per_hour": 2}))
    assert budgets.charge((RESEARCH,), Charge(patients=(2,)), T0).refused is None
    assert used(budgets, Measure.PATIENTS, Span.HOUR, T0, RESEARCH) == 2
