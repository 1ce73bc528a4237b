"""Study after study, in the order of arrival; nothing gets lost between taking and giving back."""

import pytest

from dicomward.edge.queue import SendQueue, Waiting


def waiting(name: str, study: str) -> Waiting:
    return Waiting(name=name, study=study, size=1, received=float(name))


ARRIVAL = (("1", "a"), ("2", "b"), ("3", "a"), ("4", "b"), ("5", "c"))


@pytest.mark.parametrize(("newest_first", "order"), [(False, "13245"), (True, "52413")])
def test_studies_go_one_after_the_other(newest_first: bool, order: str) -> None:
    queue = SendQueue(newest_first=newest_first)
    for name, study in ARRIVAL:
        queue.add(waiting(name, study))
    taken = [queue.take(0.0) for _ in ARRIVAL]
    assert "".join(each.name for each in taken if each) == order
    assert queue.take(0.0) is None
    assert len(queue) == 5


def test_what_is_given_back_comes_again_and_what_is_done_does_not() -> None:
    queue = SendQueue(newest_first=False)
    queue.add(waiting("1", "a"))
    queue.add(waiting("2", "a"))
    first = queue.take(0.0)
    assert first is not None
    queue.give_back(first)
    assert queue.take(0.0) == first
    queue.done(first)
    queue.give_back(first)
    assert len(queue) == 1
    assert queue.oldest() == 2.0


def test_what_failed_waits_for_its_time() -> None:
    queue = SendQueue(newest_first=False)
    queue.add(waiting("1", "a"))
    assert queue.next_due() is None
    taken = queue.take(0.0)
    assert taken is not None
    queue.give_back(taken, due=10.0)
    assert (queue.next_due(), queue.oldest(), queue.take(9.0)) == (10.0, 1.0, None)
    assert queue.take(10.0) == taken
    queue.done(taken)
    assert queue.oldest() is None
