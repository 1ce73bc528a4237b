"""Back-off for wrong passcodes: growing, bounded, and forgotten."""

from dicomward.limits.people import (
    DEVICE_SECONDS,
    FORGOTTEN_SECONDS,
    FREE_DEVICE_FAILURES,
    FREE_PERSON_FAILURES,
    MOST_KEPT,
    PERSON_SECONDS,
    PersonBackOff,
)


def fail(back_off: PersonBackOff, times: int, *, person: str = "anna", device: str = "ws1", now: float = 0.0) -> float:
    seconds = 0.0
    for _ in range(times):
        seconds = back_off.note_failure(person=person, device=device, now=now)
    return seconds


def test_a_few_typing_errors_are_free() -> None:
    back_off = PersonBackOff()
    assert fail(back_off, FREE_PERSON_FAILURES - 1) == 0
    assert back_off.seconds_left(person="anna", device="ws1", now=0) == 0


def test_a_person_waits_longer_and_longer() -> None:
    back_off = PersonBackOff()
    assert fail(back_off, FREE_PERSON_FAILURES) == 1
    assert fail(back_off, 1) == 2
    assert back_off.seconds_left(person="anna", device="other", now=0.5) == 1.5
    assert back_off.seconds_left(person="anna", device="other", now=2) == 0
    assert back_off.seconds_left(person="bert", device="ws1", now=0.5) == 0
    for number in range(10):
        last = fail(back_off, 1, device=f"d{number}")
    assert last == PERSON_SECONDS


def test_a_device_that_guesses_names_waits() -> None:
    back_off = PersonBackOff()
    for number in range(FREE_DEVICE_FAILURES):
        fail(back_off, 1, person=f"p{number}")
    assert back_off.seconds_left(person="new", device="ws1", now=0) == 1
    assert fail(back_off, 20, person="", device="ws1") == DEVICE_SECONDS


def test_success_forgets_the_person_and_not_the_device() -> None:
    back_off = PersonBackOff()
    fail(back_off, FREE_DEVICE_FAILURES)
    back_off.note_success(person="anna", device="ws1")
    assert back_off.seconds_left(person="anna", device="other", now=0) == 0
    assert back_off.seconds_left(person="anna", device="ws1", now=0) == 1


def test_an_hour_forgets() -> None:
    back_off = PersonBackOff()
    fail(back_off, FREE_PERSON_FAILURES)
    assert fail(back_off, 1, now=FORGOTTEN_SECONDS + 1) == 0


def test_the_table_is_bounded() -> None:
    back_off = PersonBackOff()
    for number in range(MOST_KEPT + 10):
        fail(back_off, 1, person=f"p{number}", device="d")
    assert len(back_off._kept) == MOST_KEPT
