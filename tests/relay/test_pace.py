"""Legs that are not read for a while."""

import pytest

from dicomward.relay.effects import Pause, Resume, StartTimer
from dicomward.relay.inputs import Leg, Timer, TimerFired
from tests.relay.test_operations import IDENTIFIER, getting, windowed
from tests.relay.wire import (
    c_find_rq,
    c_store_rq,
    image,
    message,
    response_to,
)
from tests.relay.world import (
    ACCEPTOR,
    REQUESTOR,
    FakeWorld,
    established,
)


@pytest.mark.parametrize("leg", list(Leg))
def test_above_the_byte_rate_reading_pauses_and_goes_on(leg: Leg) -> None:
    line = established(calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(1), IDENTIFIER)
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    timer = Timer.BYTES_FROM_REQUESTOR if leg is REQUESTOR else Timer.BYTES_FROM_ACCEPTOR
    if leg is ACCEPTOR:
        line.say(REQUESTOR, 5, c_find_rq(2), IDENTIFIER)
    line.world.limits.waits.extend([0.5, 0.75])
    wire = (
        message(5, c_find_rq(2), IDENTIFIER, size=20)
        if leg is REQUESTOR
        else message(5, response_to(c_find_rq(2), 0xFF00, has_data_set=True), IDENTIFIER, size=20)
    )
    effects = line.send(leg, wire, chunks=(len(wire) - 10,))
    assert [effect for effect in effects if isinstance(effect, Pause)] == [Pause(leg)]
    assert [effect.seconds for effect in effects if isinstance(effect, StartTimer)] == [0.5, 0.75]
    assert line.paused == {leg}
    assert Resume(leg) in line.handle(TimerFired(timer))
    assert line.handle(TimerFired(timer)) == []


def test_two_reasons_to_pause_need_two_to_go_on() -> None:
    line = windowed(FakeWorld().limited(max_held_bytes=100), calling="CT1")
    line.say(REQUESTOR, 3, c_store_rq(1, "1.2.1"), image("1.2.1"))
    line.world.limits.waits.append(1.0)
    line.say(REQUESTOR, 3, c_store_rq(2, "1.2.2"), image("1.2.2", pixels=b"p" * 999), size=100)
    assert line.paused == {REQUESTOR}
    line.handle(TimerFired(Timer.BYTES_FROM_REQUESTOR))
    assert line.paused == {REQUESTOR}
    line.say(ACCEPTOR, 3, response_to(c_store_rq(1)))
    assert line.paused == set()


def test_what_a_device_sends_in_is_the_floors_and_what_it_gets_is_not() -> None:
    line = getting()
    line.world.limits.bytes.clear()
    line.say(ACCEPTOR, 3, c_store_rq(1, "1.5.1"), image("1.5.1"))
    assert {floor for _, floor in line.world.limits.bytes} == {False}
    line.world.limits.bytes.clear()
    line.say(REQUESTOR, 3, c_store_rq(9), image())
    assert {floor for _, floor in line.world.limits.bytes} == {True}
