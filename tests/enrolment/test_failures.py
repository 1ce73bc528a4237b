"""Failures by address: counted, forgiven with time, bounded."""

from dicomward.enrolment.failures import FAILURES_A_MINUTE, MOST_ADDRESSES, FailureBook


def test_address_is_blocked_after_too_many_failures_and_heard_again_later() -> None:
    book = FailureBook()
    assert not book.is_blocked("a", 0.0)
    lasts = [book.note("a", 0.0) for _ in range(FAILURES_A_MINUTE)]
    assert lasts == [False] * (FAILURES_A_MINUTE - 1) + [True]
    assert book.is_blocked("a", 0.0)
    assert not book.is_blocked("b", 0.0)
    assert not book.is_blocked("a", 60.0 / FAILURES_A_MINUTE + 0.1)


def test_addresses_are_bounded() -> None:
    book = FailureBook()
    for _ in range(FAILURES_A_MINUTE):
        book.note("a", 0.0)
    for number in range(MOST_ADDRESSES):
        book.note(str(number), 0.0)
    assert not book.is_blocked("a", 0.0)
