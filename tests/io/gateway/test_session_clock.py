"""The clocks of sessions, and their timers."""

from collections.abc import Callable
from datetime import timedelta
from typing import cast

import pytest

from dicomward.io.gateway.engine import Timers
from dicomward.io.gateway.session_clock import Clock, SessionTimers
from dicomward.relay.inputs import Timer


def test_wall_clock_is_read_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    first = clock.now()
    assert clock.now().local is clock.now().local
    monkeypatch.setattr(Clock, "_WALL_SECONDS", -1.0)
    assert clock.now().local is not first.local
    assert first.local.tzinfo is not None
    assert clock.now().local - first.local < timedelta(seconds=10)


class _Calls:
    """Timers of an engine that never fire."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.open: set[int] = set()

    def after(self, seconds: float, _call: Callable[[], object]) -> int:
        self.asked.append(round(seconds, 1))
        self.open.add(len(self.asked))
        return len(self.asked)

    def cancel(self, number: int) -> None:
        self.open.remove(number)


@pytest.fixture
def calls() -> _Calls:
    return _Calls()


@pytest.fixture
def timers(calls: _Calls) -> SessionTimers:
    return SessionTimers(cast("Timers", calls), lambda: None)


def test_engine_is_asked_only_for_what_comes_earlier(calls: _Calls, timers: SessionTimers) -> None:
    timers.start(Timer.REQUEST, 30)
    timers.start(Timer.IDLE, 600)
    timers.start(Timer.UPSTREAM, 10)
    timers.stop(Timer.UPSTREAM)
    timers.start(Timer.RELEASE, 20)
    assert calls.asked == [30, 10]
    assert calls.open == {2}


def test_what_is_due_comes_in_order_and_once(calls: _Calls, timers: SessionTimers) -> None:
    timers.start(Timer.RELEASE, -1)
    timers.start(Timer.REQUEST, -2)
    timers.start(Timer.IDLE, 600)
    assert [timers.take_due() for _ in range(3)] == [Timer.REQUEST, Timer.RELEASE, None]
    assert calls.asked[-1] == 600
    assert len(calls.open) == 1
    assert timers.is_running(Timer.IDLE)


def test_timer_started_anew_or_stopped_is_not_due(calls: _Calls, timers: SessionTimers) -> None:
    timers.start(Timer.IDLE, -1)
    timers.start(Timer.IDLE, 600)
    assert timers.take_due() is None
    timers.start(Timer.IDLE, -1)
    timers.stop(Timer.IDLE)
    assert timers.take_due() is None
    timers.stop(Timer.IDLE)
    assert not timers.is_running(Timer.IDLE)


def test_engine_forgets_a_session_whose_timers_are_stopped(calls: _Calls, timers: SessionTimers) -> None:
    timers.stop_all()
    timers.start(Timer.IDLE, 600)
    timers.start(Timer.RELEASE, 5)
    timers.stop_all()
    assert calls.open == set()
    assert timers.take_due() is None
    timers.start(Timer.IDLE, 600)
    assert calls.asked == [600, 5, 600]
