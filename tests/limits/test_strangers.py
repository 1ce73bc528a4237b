"""Delays of strangers and back-off of certificates: they grow, are capped, decay, and fit in bounded tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.limits.settings import StrangerLimits
from dicomward.limits.strangers import StrangerBook

LIMITS = StrangerLimits()
FIRST, MOST = LIMITS.address_first_delay_seconds, LIMITS.address_max_delay_seconds
A, B = "203.0.113.1", "203.0.113.2"
KEY, OTHER_KEY = "aa" * 32, "bb" * 32


def _book(**changed: float) -> StrangerBook:
    # Powers of two, so that every sum below is exact.
    return StrangerBook(StrangerLimits(**{"certificate_first_seconds": 1.0, **changed}))  # type: ignore[arg-type]


def test_delay_doubles_with_each_failure_up_to_the_most() -> None:
    book = _book()
    delays = [book.note_stranger_failure(A, 100.0) for _ in range(9)]
    assert delays == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_one_stranger_does_not_delay_another() -> None:
    book = _book()
    for _ in range(9):
        book.note_stranger_failure(A, 0.0)
    assert book.note_stranger_failure(B, 0.0) == FIRST


def test_quiet_time_is_forgiven() -> None:
    book = _book()
    for _ in range(9):
        book.note_stranger_failure(A, 0.0)
    assert book.note_stranger_failure(A, 60.0) == pytest.approx(30.0)
    assert book.note_stranger_failure(A, 180.0) == pytest.approx(15.0)
    assert book.note_stranger_failure(A, 180.0 + 8 * 60.0) == FIRST


def test_clock_that_goes_back_changes_nothing() -> None:
    book = _book()
    book.note_stranger_failure(A, 100.0)
    assert book.note_stranger_failure(A, 50.0) == 0.5


def test_success_halves_what_the_next_failure_costs_and_forgets_in_the_end() -> None:
    book = _book()
    for _ in range(6):
        book.note_stranger_failure(A, 0.0)
    book.note_success(A, 0.0)
    assert book.note_stranger_failure(A, 0.0) == 8.0
    for _ in range(12):
        book.note_success(A, 100.0)
    assert book.tracked_addresses == 0
    assert book.note_stranger_failure(A, 100.0) == FIRST


def test_success_of_an_address_without_failures_is_nothing() -> None:
    book = _book()
    book.note_success(A, 0.0)
    assert book.tracked_addresses == 0


def test_trap_ipv6_host_cannot_hide_in_its_own_64() -> None:
    book = _book()
    assert book.note_stranger_failure("2001:db8::1", 0.0) == FIRST
    assert book.note_stranger_failure("2001:db8::2", 0.0) == 2 * FIRST
    assert book.note_stranger_failure("2001:db8:0:1::2", 0.0) == FIRST


def test_ipv4_shown_as_ipv6_is_the_same_stranger() -> None:
    book = _book()
    book.note_stranger_failure("::ffff:203.0.113.1", 0.0)
    assert book.note_stranger_failure(A, 0.0) == 2 * FIRST


def test_what_is_no_address_is_one_stranger() -> None:
    book = _book()
    book.note_stranger_failure("", 0.0)
    assert book.note_stranger_failure("?", 0.0) == 2 * FIRST


def test_trap_strangers_cannot_fill_the_memory_and_the_oldest_is_forgotten() -> None:
    book = _book(tracked_addresses=3)
    for number in range(1, 4):
        book.note_stranger_failure(f"203.0.113.{number}", 0.0)
    book.note_stranger_failure(A, 1.0)
    book.note_stranger_failure("203.0.113.4", 2.0)
    assert book.tracked_addresses == 3
    assert book.note_stranger_failure(B, 2.0) == FIRST
    assert book.note_stranger_failure(A, 2.0) > 2 * FIRST


def test_most_below_first_still_delays() -> None:
    book = _book(address_first_delay_seconds=5.0, address_max_delay_seconds=1.0)
    assert [book.note_stranger_failure(A, 0.0) for _ in range(2)] == [5.0, 5.0]


@given(st.lists(st.tuples(st.sampled_from([A, B, "2001:db8::1"]), st.floats(0, 1000), st.booleans()), max_size=60))
def test_delay_is_always_between_first_and_most(events: list[tuple[str, float, bool]]) -> None:
    book = _book()
    now = 0.0
    for address, step, failed in events:
        now += step
        if failed:
            assert FIRST <= book.note_stranger_failure(address, now) <= MOST
        else:
            book.note_success(address, now)
        assert book.tracked_addresses <= 3


# --- certificates ----------------------------------------------------------------------------------------------------


def test_unknown_certificate_has_no_back_off() -> None:
    assert _book().certificate_back_off(KEY, 0.0) == 0.0


def test_back_off_runs_from_the_failure_and_ends() -> None:
    book = _book()
    assert book.note_certificate_failure(KEY, 10.0) == 1.0
    assert book.certificate_back_off(KEY, 10.0) == 1.0
    assert book.certificate_back_off(KEY, 10.75) == 0.25
    assert book.certificate_back_off(KEY, 11.0) == 0.0
    assert book.certificate_back_off(KEY, 500.0) == 0.0
    assert book.certificate_back_off(OTHER_KEY, 10.0) == 0.0


def test_back_off_doubles_up_to_the_most() -> None:
    book = _book()
    lengths = [book.note_certificate_failure(KEY, 0.0) for _ in range(11)]
    assert lengths == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0]
    assert book.certificate_back_off(KEY, 0.0) == 300.0


def test_back_off_is_forgiven_with_time() -> None:
    book = _book()
    for _ in range(5):
        book.note_certificate_failure(KEY, 0.0)
    assert book.note_certificate_failure(KEY, 1200.0) == pytest.approx(8.0)


def test_trap_success_never_ends_a_back_off_that_runs() -> None:
    book = _book()
    for _ in range(3):
        book.note_certificate_failure(KEY, 0.0)
    for _ in range(5):
        book.note_certificate_success(KEY, 1.0)
    assert book.certificate_back_off(KEY, 1.0) == 3.0
    assert book.note_certificate_failure(KEY, 1.5) == 1.0
    assert book.certificate_back_off(KEY, 1.5) == 2.5
    for _ in range(5):
        book.note_certificate_success(KEY, 2.0)
    assert book.note_certificate_failure(KEY, 5.0) == 1.0


def test_success_after_the_back_off_forgets() -> None:
    book = _book()
    book.note_certificate_failure(KEY, 0.0)
    assert book.tracked_certificates == 1
    book.note_certificate_success(KEY, 2.0)
    assert book.tracked_certificates == 0
    book.note_certificate_success(KEY, 2.0)


def test_certificates_are_bounded_too() -> None:
    book = _book(tracked_certificates=2)
    for number in range(4):
        book.note_certificate_failure(f"{number:064x}", 0.0)
    assert book.tracked_certificates == 2
    assert book.certificate_back_off(f"{0:064x}", 0.0) == 0.0
    assert book.certificate_back_off(f"{3:064x}", 0.0) == 1.0


def test_addresses_and_certificates_do_not_mix() -> None:
    book = _book()
    book.note_stranger_failure(A, 0.0)
    assert book.certificate_back_off(A, 0.0) == 0.0


def test_other_limits_count_from_now_on_and_who_is_remembered_stays_so() -> None:
    book = _book()
    for address in (A, B):
        book.note_stranger_failure(address, 0.0)
    book.note_certificate_failure(KEY, 0.0)
    book.note_certificate_failure(OTHER_KEY, 0.0)
    book.use_limits(
        StrangerLimits(
            address_first_delay_seconds=1.0,
            address_max_delay_seconds=1.0,
            tracked_addresses=1,
            certificate_first_seconds=1.0,
            tracked_certificates=1,
        )
    )
    assert (book.tracked_addresses, book.tracked_certificates) == (1, 1)
    assert book.note_stranger_failure(B, 0.0) == 1.0
    assert book.certificate_back_off(OTHER_KEY, 0.5) == 0.5
    assert book.certificate_back_off(KEY, 0.5) == 0.0
