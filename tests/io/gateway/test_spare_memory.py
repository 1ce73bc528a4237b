"""When memory goes back to the operating system, and that it does."""

import gc

import pytest

from dicomward.io.gateway.spare_memory import SpareMemory


def test_it_is_due_once_when_three_quarters_of_a_crowd_have_gone() -> None:
    memory = SpareMemory()
    assert not any(memory.is_due(connections) for connections in (1, 200, 400, 399, 101))
    assert memory.is_due(100)
    assert not any(memory.is_due(connections) for connections in (99, 50, 0))


def test_few_connections_are_no_crowd() -> None:
    memory = SpareMemory()
    assert not any(memory.is_due(connections) for connections in (127, 31, 0))


def test_what_nothing_uses_is_collected() -> None:
    class Ring:
        def __init__(self) -> None:
            self.other = self

    Ring()
    SpareMemory().give_back()
    assert not any(isinstance(each, Ring) for each in gc.get_objects())


def test_c_library_without_the_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomward.io.gateway.spare_memory.ctypes.CDLL", lambda _: object())
    SpareMemory().give_back()
