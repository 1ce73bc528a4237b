"""Signals that end a service: none is lost, whichever thread it comes to."""

import os
import signal
import threading

import pytest

from dicomward.io.stop_signals import StopSignals


def test_signals_that_come_to_another_thread_are_heard() -> None:
    """The kernel may give a signal to any thread; and a handler that takes a lock may wait for itself."""
    with StopSignals() as signals:
        thread = threading.Thread(target=lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
        thread.start()
        signals.wait(pytest.fail)
        thread.join()
        assert signals.count == 1
        for _ in range(200):
            os.kill(os.getpid(), signal.SIGINT)
        signals.wait(pytest.fail)
        assert signals.count >= 2


def test_signal_that_came_before_it_waits_is_not_lost() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        signals.wait(pytest.fail)


def test_hang_up_wants_a_reload_and_does_not_end() -> None:
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        signals.wait(lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert signals.count == 1
