"""What a service of Windows tells its manager; `make windows-test` has a real manager, Wine's."""

import logging
import threading
from typing import Any

import pytest

from dicomward.io.windows_service import Control, Main, NotStartedByManager, Stop, run

STOPPED, START_PENDING, STOP_PENDING, RUNNING = 1, 2, 3, 4
STOP, PAUSE, INTERROGATE, SHUTDOWN = 1, 2, 4, 5


class Manager:
    """A service manager that sends controls once the service runs, and remembers what it was told."""

    def __init__(self, *controls: int) -> None:
        self.controls = controls
        self.told: list[tuple[int, int, int, int]] = []
        self.answers: list[int] = []
        self.runs = threading.Event()

    def dispatch(self, main: Main, control: Control) -> None:
        service = threading.Thread(target=main, args=(0, None))
        service.start()
        if self.controls:
            assert self.runs.wait(10)
        self.answers += [control(number, 0, None, None) for number in self.controls]
        service.join()

    def tell(self, state: int, *, accepts: int = 0, error: int = 0, specific: int = 0) -> None:
        self.told.append((state, accepts, error, specific))
        if state == RUNNING:
            self.runs.set()


def serve(stop: Stop) -> int:
    stop.ready()
    stop.wait(lambda: None)
    return 0


@pytest.mark.parametrize("control", [STOP, SHUTDOWN])
def test_service_serves_until_it_is_stopped(control: int) -> None:
    manager = Manager(INTERROGATE, PAUSE, control)
    assert run(serve, manager) == 0
    assert manager.told == [(START_PENDING, 0, 0, 0), (RUNNING, 5, 0, 0), (STOP_PENDING, 0, 0, 0), (STOPPED, 0, 0, 0)]
    assert manager.answers == [0, 120, 0]


def test_second_stop_is_counted_for_who_is_in_a_hurry() -> None:
    stops: list[Stop] = []

    def slow(stop: Stop) -> int:
        stops.append(stop)
        return serve(stop)

    run(slow, Manager(STOP, STOP))
    assert stops[0].count == 2


def test_service_that_does_not_start_tells_its_code() -> None:
    manager = Manager()
    assert run(lambda _stop: 2, manager) == 2
    assert manager.told == [(START_PENDING, 0, 0, 0), (STOPPED, 0, 1066, 2)]


def test_defect_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_stop: Stop) -> int:
        raise ZeroDivisionError

    manager = Manager()
    with caplog.at_level(logging.ERROR):
        assert run(fails, manager) == 1
    assert manager.told[-1] == (STOPPED, 0, 1066, 1)
    assert "failed in an unexpected way" in caplog.text


def test_manager_hears_of_the_end_also_when_the_interpreter_is_to_end() -> None:
    def ends(_stop: Stop) -> int:
        raise SystemExit(0)

    class Calls(Manager):
        def dispatch(self, main: Main, control: Control) -> None:
            with pytest.raises(SystemExit):
                main(0, None)

    manager = Calls()
    assert run(ends, manager) == 1
    assert manager.told[-1] == (STOPPED, 0, 1066, 1)


def test_who_was_not_started_by_the_manager_is_told() -> None:
    class Nobody(Manager):
        def dispatch(self, main: Main, control: Control) -> None:
            raise NotStartedByManager

    with pytest.raises(NotStartedByManager):
        run(serve, Nobody())


def test_manager_that_never_calls_is_a_failure() -> None:
    class Silent(Manager):
        def dispatch(self, main: Main, control: Any) -> None:
            pass

    assert run(serve, Silent()) == 1
