"""The clocks of sessions, and their timers."""

from datetime import timedelta

import pytest

from dicomward.io.gateway.engine import Engine
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


def test_timer_started_anew_or_stopped_is_not_taken() -> None:
    timers = SessionTimers(Engine(0).timers, lambda timer, serial: None)
    timers.start(Timer.IDLE, 600)
    first = timers.serial_of(Timer.IDLE)
    timers.start(Timer.IDLE, 600)
    second = timers.serial_of(Timer.IDLE)
    assert first is not None
    assert second is not None
    assert not timers.take(Timer.IDLE, first)
    assert timers.take(Timer.IDLE, second)
    assert not timers.take(Timer.IDLE, second)
    timers.start(Timer.RELEASE, 600)
    timers.stop_all()
    assert timers.serial_of(Timer.RELEASE) is None
    timers.stop(Timer.RELEASE)
