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


def test_many_studies_are_as_quick_as_one() -> None:
    queue = SendQueue(newest_first=True)
    for number in range(20_000):
        queue.add(waiting(f"{number:06}", str(number)))
    assert [each.name for _ in range(20_000) if (each := queue.take(0.0))] == [
        f"{number:06}" for number in reversed(range(20_000))
    ]


def test_study_whose_first_object_is_away_keeps_its_turn() -> None:
    queue = SendQueue(newest_first=False)
    for name, study in (("1", "a"), ("2", "b"), ("3", "a")):
        queue.add(waiting(name, study))
    first = queue.take(0.0)
    assert first is not None
    queue.give_back(first, due=5.0)
    assert [each.name for each in (queue.take(0.0), queue.take(0.0)) if each] == ["3", "2"]
    assert queue.take(0.0) is None
    queue.recall()
    assert queue.next_due() is None
    assert queue.take(0.0) == first
    queue.give_back(first, due=5.0)
    queue.give_back(first, due=7.0)
    assert queue.next_due() == 7.0
    assert queue.take(6.0) is None
    assert queue.take(7.0) == first
    queue.give_back(first, due=9.0)
    queue.done(first)
    queue.recall()
    assert queue.take(9.0) is None
    queue.add(waiting("9", "c"), due=10.0)
    assert (queue.take(9.0), queue.take(10.0)) == (None, waiting("9", "c"))


def test_overdue_is_told_once_and_still_sent() -> None:
    queue = SendQueue(newest_first=False)
    for name in ("1", "2", "3"):
        queue.add(waiting(name, "a"))
    delivered = queue.take(0.0)
    queue.add(waiting("0", "b"), is_overdue=True)
    assert delivered is not None
    assert delivered.name == "1"
    queue.done(delivered)
    assert [each.name for each in queue.take_overdue(3.0)] == ["2"]
    assert queue.take_overdue(3.0) == []
    assert [each.name for each in queue.take_overdue(4.0)] == ["3"]
    assert queue.take_overdue(9.0) == []
    assert len(queue) == 3
    assert queue.oldest() == 0.0
    assert [each.name for _ in range(3) if (each := queue.take(0.0))] == ["0", "2", "3"]
