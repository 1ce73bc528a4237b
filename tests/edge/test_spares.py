"""How many reverse connections are opened, and when again."""

from dicomward.edge.spares import (
    FIRST_DELAY_SECONDS,
    MOST_DELAY_SECONDS,
    NOT_OFFERED_SECONDS,
    WELCOME_SECONDS,
    Spares,
)


def spares(wanted: int = 2, draw: float = 1.0) -> Spares:
    return Spares(wanted, lambda: draw)


def opened(count: int = 2) -> Spares:
    made = spares(count)
    for _ in range(count):
        made.opening()
        made.opened()
    return made


def test_all_are_opened_at_once_and_no_more() -> None:
    made = spares()
    assert made.missing(0.0) == 2
    made.opening()
    assert made.missing(0.0) == 1
    made.opening()
    made.opened()
    assert (made.missing(0.0), made.parked, made.is_offered) == (0, 1, True)
    assert made.seconds_left(0.0) is None


def test_one_that_is_used_is_replaced_at_once() -> None:
    made = opened()
    made.took()
    assert (made.used, made.parked, made.missing(0.0)) == (1, 1, 1)


def test_after_failures_one_alone_tries_later_and_later() -> None:
    waits: list[float] = []
    made, now = spares(), 0.0
    for _ in range(8):
        assert made.missing(now) == (2 if not waits else 1)
        made.opening()
        made.failed(now, "refused")
        left = made.seconds_left(now)
        assert left is not None
        assert made.missing(now) == 0
        waits.append(left)
        now += left
    assert waits[:3] == [FIRST_DELAY_SECONDS, 2.0, 4.0]
    assert waits[-1] == MOST_DELAY_SECONDS
    assert made.problem == "refused"
    made.opening()
    assert made.missing(now) == 0
    made.opened()
    made.lasted()
    assert (made.problem, made.missing(now)) == ("", 1)


def test_failures_of_one_attempt_count_once() -> None:
    made = spares()
    made.opening()
    made.opening()
    made.failed(0.0, "refused")
    made.failed(0.0, "refused")
    assert made.seconds_left(0.0) == FIRST_DELAY_SECONDS


def test_agents_come_back_one_after_the_other() -> None:
    made = spares(draw=0.0)
    made.opening()
    made.failed(0.0, "refused")
    assert made.seconds_left(0.0) == FIRST_DELAY_SECONDS / 2


def test_one_that_was_sent_away_at_once_is_a_failure() -> None:
    made = opened()
    made.lost(0.0, WELCOME_SECONDS / 2, "closed")
    assert made.seconds_left(0.0) == FIRST_DELAY_SECONDS
    assert made.problem == "the gateway has ended it at once (closed); its audit log says why"


def test_one_that_has_stood_for_long_is_replaced_soon() -> None:
    made = opened()
    made.lost(100.0, 3600.0, "closed")
    assert (made.problem, made.seconds_left(100.0)) == ("", FIRST_DELAY_SECONDS)
    assert made.missing(100.0 + FIRST_DELAY_SECONDS) == 1


def test_upstream_without_them_is_news_once_and_asked_again_much_later() -> None:
    made = spares()
    made.opening()
    assert made.not_offered(0.0)
    assert made.is_offered is False
    assert made.seconds_left(0.0) == NOT_OFFERED_SECONDS
    made.opening()
    assert not made.not_offered(NOT_OFFERED_SECONDS)
