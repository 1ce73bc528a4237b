"""The engine: events, posted calls, timers; what fails in one of them costs nobody else anything."""

import gc
import logging
import os
import select
import socket
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from dicomward.io.gateway.engine import READ, WRITE, Engine, Timers

SECONDS = 10.0


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine(2)
    made.start()
    yield made
    made.stop()


class Watched:
    """A channel on one end of a socket pair that remembers what it was told."""

    def __init__(self, engine: Engine, events: int = READ) -> None:
        self.engine = engine
        self.ours, self.theirs = socket.socketpair()
        self.seen: list[tuple[bool, bool]] = []
        self.came = threading.Semaphore(0)
        self.failures = 0
        self.on_ready: Callable[[], None] = lambda: None
        self.on_failed: Callable[[], None] = lambda: None
        engine.watch(self.ours.fileno(), self, events)

    def ready(self, readable: bool, writable: bool) -> None:
        self.seen.append((readable, writable))
        try:
            self.on_ready()
        finally:
            self.came.release()

    def failed(self) -> None:
        self.failures += 1
        try:
            self.on_failed()
        finally:
            self.came.release()

    def wait(self) -> None:
        assert self.came.acquire(timeout=SECONDS)

    def close(self) -> None:
        self.engine.forget(self.ours.fileno())
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def watched(engine: Engine) -> Iterator[Watched]:
    channel = Watched(engine)
    yield channel
    channel.close()


def barrier(engine: Engine) -> None:
    over = threading.Event()
    engine.post(over.set)
    assert over.wait(SECONDS)


# -- events ------------------------------------------------------------------------------------------------------------


def test_descriptor_is_silent_after_an_event_until_it_is_armed(engine: Engine, watched: Watched) -> None:
    watched.theirs.send(b"1")
    watched.wait()
    watched.theirs.send(b"2")
    barrier(engine)
    assert watched.seen == [(True, False)]
    engine.arm(watched.ours.fileno(), READ | WRITE)
    watched.wait()
    assert watched.seen == [(True, False), (True, True)]


def test_broken_connection_is_reported_once_even_to_who_asks_for_nothing(engine: Engine) -> None:
    """EPOLLHUP can't be masked; without EPOLLONESHOT it would come again and again."""
    channel = Watched(engine, 0)
    channel.theirs.close()
    channel.wait()
    barrier(engine)
    assert channel.seen == [(True, True)]
    channel.close()


def test_event_of_a_forgotten_descriptor_is_dropped(engine: Engine, watched: Watched) -> None:
    """Another worker may have forgotten it after the event was taken."""
    forgotten = engine._channels.pop(watched.ours.fileno())
    watched.theirs.send(b"1")
    barrier(engine)
    barrier(engine)
    assert watched.seen == []
    engine._channels[watched.ours.fileno()] = forgotten


def test_forgotten_descriptor_is_forgotten_twice_without_harm(engine: Engine, watched: Watched) -> None:
    engine.forget(watched.ours.fileno())
    engine.forget(watched.ours.fileno())


def test_descriptor_that_cannot_be_watched_leaves_nothing_behind(engine: Engine, watched: Watched) -> None:
    other = object()
    with pytest.raises(FileExistsError):
        engine.watch(watched.ours.fileno(), other, READ)  # type: ignore[arg-type]
    assert watched.ours.fileno() not in engine._channels


def test_defect_in_one_channel_closes_it_and_nothing_else(
    engine: Engine, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "dicomward.io.gateway.engine")

    def fail() -> None:
        raise RuntimeError("a defect")

    watched.on_ready = watched.on_failed = fail
    other = Watched(engine)
    watched.theirs.send(b"1")
    watched.wait()
    watched.wait()
    assert watched.failures == 1
    for _ in range(3):
        other.theirs.send(b"1")
        other.wait()
        other.ours.recv(1)
        engine.arm(other.ours.fileno(), READ)
    other.close()


# -- posted calls ------------------------------------------------------------------------------------------------------


def test_calls_run_in_order_with_one_worker() -> None:
    engine = Engine(1)
    engine.start()
    done: list[int] = []
    for number in range(1000):
        engine.post(lambda number=number: done.append(number))  # type: ignore[misc]
    barrier(engine)
    assert done == list(range(1000))
    engine.stop()


def test_calls_run_side_by_side(engine: Engine) -> None:
    """A call that waits for another one is not waited for."""
    meeting = threading.Barrier(3)
    engine.post(lambda: meeting.wait(SECONDS))
    engine.post(lambda: meeting.wait(SECONDS))
    meeting.wait(SECONDS)
    assert not meeting.broken


def test_failing_call_is_logged_and_the_next_one_runs(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("a defect")

    for _ in range(5):
        engine.post(fail)
    barrier(engine)
    barrier(engine)
    assert "a posted call failed in an unexpected way" in caplog.text


def test_calls_from_many_threads_all_run(engine: Engine) -> None:
    """No wake-up is lost between `post` and the worker that has just found the queue empty."""
    count = threading.Semaphore(0)

    def post() -> None:
        for _ in range(500):
            engine.post(count.release)

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2000):
        assert count.acquire(timeout=SECONDS)
    for thread in threads:
        thread.join()


def test_spurious_wake_up_of_the_queue_is_harmless(engine: Engine) -> None:
    os.eventfd_write(engine._wakeup, 1)
    barrier(engine)
    barrier(engine)


def test_stale_wake_up_finds_nothing() -> None:
    engine = Engine(1)
    engine._run_call()
    ran: list[int] = []
    engine.post(lambda: ran.append(1))
    engine._run_call()
    assert ran == [1]


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_engine_that_was_never_started_can_be_stopped() -> None:
    Engine(2).stop()


def test_post_after_stop_touches_no_descriptor_of_somebody_else() -> None:
    """The audit log answers late. A closed eventfd's number could be its own file by then."""
    engine = Engine(1)
    engine.start()
    engine.stop()
    descriptor = engine._wakeup
    engine.post(lambda: None)
    assert os.eventfd_read(descriptor) >= 1
    epoll = weakref.ref(engine)
    del engine
    gc.collect()
    assert epoll() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


# -- timers ------------------------------------------------------------------------------------------------------------


def test_timers_fire_in_the_order_of_their_times(engine: Engine) -> None:
    fired: list[str] = []
    over = threading.Event()

    def late() -> None:
        fired.append("late")
        over.set()

    engine.timers.after(0.03, late)
    engine.timers.after(0.0, lambda: fired.append("early"))
    assert over.wait(SECONDS)
    assert fired == ["early", "late"]


def test_cancelled_timer_does_not_fire(engine: Engine) -> None:
    fired: list[str] = []
    over = threading.Event()
    number = engine.timers.after(0.01, lambda: fired.append("cancelled"))
    engine.timers.after(0.02, over.set)
    engine.timers.cancel(number)
    assert over.wait(SECONDS)
    barrier(engine)
    assert fired == []


def test_timer_that_has_fired_can_be_cancelled(engine: Engine) -> None:
    over = threading.Event()
    number = engine.timers.after(0.0, over.set)
    assert over.wait(SECONDS)
    engine.timers.cancel(number)
    assert engine.timers._calls == {}


class Held:
    """Something big that a timer's call holds on to."""

    def call(self) -> None:
        """Do nothing."""


def test_cancelled_timer_holds_nothing_any_more() -> None:
    """A timer of ten minutes must not keep the association of a second for ten minutes."""
    timers = Timers(lambda call: None)
    held = Held()
    gone = weakref.ref(held)
    number = timers.after(600, held.call)
    timers.cancel(number)
    del held
    gc.collect()
    assert gone() is None


def test_memory_for_cancelled_timers_is_bounded() -> None:
    timers = Timers(lambda call: None)
    living = [timers.after(600, lambda: None) for _ in range(100)]
    for _ in range(20_000):
        timers.cancel(timers.after(600, lambda: None))
    assert len(timers._heap) <= 1100
    assert set(timers._calls) == set(living)


def test_living_timers_survive_the_sweep() -> None:
    posted: list[Callable[[], object]] = []
    timers = Timers(posted.append)
    fired: list[int] = []
    timers.after(0.0, lambda: fired.append(1))
    for _ in range(3_000):
        timers.cancel(timers.after(600, lambda: None))
    timers.after(0.0, lambda: fired.append(2))
    timers.start()
    deadline = threading.Event()
    while len(posted) < 2:
        assert not deadline.wait(0)
    timers.stop()
    for call in posted:
        call()
    assert fired == [1, 2]


def test_select_constants_are_what_the_engine_passes_on() -> None:
    assert (READ, WRITE) == (select.EPOLLIN, select.EPOLLOUT)


def test_a_worker_that_is_held_up_is_relieved_and_its_relief_goes_again() -> None:
    engine = Engine(1)
    engine.start()
    held, release, done = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        held.set()
        release.wait(SECONDS)

    try:
        engine.post(hang)
        assert held.wait(SECONDS)
        engine.relieve()
        engine.relieve()
        engine.post(done.set)
        assert done.wait(SECONDS)
        spare = engine._spare
        assert spare is not None
        engine.resume()
        spare.join(SECONDS)
        assert not spare.is_alive()
        engine.resume()
        release.set()
        again = threading.Event()
        engine.post(again.set)
        assert again.wait(SECONDS)
    finally:
        release.set()
        engine.stop()


def test_relief_that_is_needed_again_stays() -> None:
    engine = Engine(1)
    engine.start()
    engine.relieve()
    spare = engine._spare
    with engine._spare_lock:
        engine._may_retire = True
    engine.relieve()
    assert engine._spare is spare
    engine.stop()
    assert spare is not None
    assert not spare.is_alive()
    engine.relieve()
    assert engine._spare is spare
