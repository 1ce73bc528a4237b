"""What stands in for epoll: one-shot, for several threads, and for more than one select can take."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from dicomward.io.system import select_poll
from dicomward.io.system.select_poll import READ, WRITE, SelectPoll, Waker

SECONDS = 10.0


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    stack.enter_context(theirs)
    ours.setblocking(False)
    return ours, theirs


def test_event_comes_once_until_it_is_armed_again(stack: ExitStack) -> None:
    poll, (ours, theirs) = SelectPoll(), pair(stack)
    poll.register(ours.fileno(), READ)
    assert poll.poll(0.0, 1) == []
    theirs.send(b"a")
    assert poll.poll(SECONDS, 1) == [(ours.fileno(), READ)]
    assert poll.poll(0.0, 1) == []
    poll.modify(ours.fileno(), READ | WRITE)
    assert poll.poll(SECONDS, 1) == [(ours.fileno(), READ | WRITE)]
    poll.modify(ours.fileno(), 0)
    assert poll.poll(0.01, 1) == []


def test_as_many_as_asked_for_and_the_rest_next_time(stack: ExitStack) -> None:
    poll, pairs = SelectPoll(), [pair(stack) for _ in range(3)]
    for ours, _ in pairs:
        poll.register(ours.fileno(), WRITE)
    found = poll.poll(SECONDS, 2) + poll.poll(SECONDS, 2)
    assert sorted(found) == sorted((ours.fileno(), WRITE) for ours, _ in pairs)


def test_what_is_watched_twice_or_not_at_all_is_told(stack: ExitStack) -> None:
    poll, (ours, _) = SelectPoll(), pair(stack)
    poll.register(ours.fileno(), 0)
    with pytest.raises(FileExistsError):
        poll.register(ours.fileno(), READ)
    poll.unregister(ours.fileno())
    with pytest.raises(FileNotFoundError):
        poll.unregister(ours.fileno())
    with pytest.raises(FileNotFoundError):
        poll.modify(ours.fileno(), READ)


def test_who_waits_already_sees_what_is_armed_meanwhile(stack: ExitStack) -> None:
    poll, (ours, theirs) = SelectPoll(), pair(stack)
    poll.register(ours.fileno(), 0)
    theirs.send(b"a")
    found: list[tuple[int, int]] = []
    waiting = threading.Thread(target=lambda: found.extend(poll.poll(SECONDS, 1)))
    waiting.start()
    poll.modify(ours.fileno(), READ)
    waiting.join(SECONDS)
    assert found == [(ours.fileno(), READ)]


def test_each_event_wakes_one_of_several_who_wait(stack: ExitStack) -> None:
    poll, pairs = SelectPoll(), [pair(stack) for _ in range(4)]
    found: list[tuple[int, int]] = []
    threads = [threading.Thread(target=lambda: found.extend(poll.poll(SECONDS, 1))) for _ in pairs]
    for thread in threads:
        thread.start()
    for ours, theirs in pairs:
        poll.register(ours.fileno(), READ)
        theirs.send(b"a")
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(found) == sorted((ours.fileno(), READ) for ours, _ in pairs)


def test_one_that_was_closed_costs_nobody_else_anything(stack: ExitStack) -> None:
    poll, (ours, theirs) = SelectPoll(), pair(stack)
    closed = socket.socket()
    number = closed.fileno()
    poll.register(number, READ)
    poll.register(ours.fileno(), READ)
    closed.close()
    theirs.send(b"a")
    found = poll.poll(SECONDS, 1) + poll.poll(SECONDS, 1)
    assert sorted(found) == sorted([(number, READ), (ours.fileno(), READ)])


def test_connection_that_cannot_be_made_is_told(stack: ExitStack) -> None:
    nobody = socket.create_server(("127.0.0.1", 0))
    address = nobody.getsockname()
    nobody.close()
    poll, ours = SelectPoll(), stack.enter_context(socket.socket())
    ours.setblocking(False)
    assert ours.connect_ex(address) != 0
    poll.register(ours.fileno(), WRITE)
    assert poll.poll(SECONDS, 1) == [(ours.fileno(), WRITE)]
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


def test_more_than_one_select_takes_are_looked_at_in_turns(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_poll, "_AT_ONCE", 2)
    poll, pairs = SelectPoll(), [pair(stack) for _ in range(7)]
    for ours, _ in pairs:
        poll.register(ours.fileno(), READ)
    for ours, theirs in (pairs[6], pairs[0], pairs[3]):
        theirs.send(b"a")
        assert poll.poll(SECONDS, 1) == [(ours.fileno(), READ)]
    assert poll.poll(0.05, 1) == []


def test_waker_that_is_full_is_still_readable() -> None:
    waker = Waker()
    for _ in range(1_000_000):
        try:
            waker._waker.send(b"\0" * 4096)
        except BlockingIOError:
            break
    waker.wake()
    assert waker.take() > 0
    waker.close()
