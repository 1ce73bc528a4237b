"""What ends a service, or has it load its files again: signals."""

import signal
import socket
from collections.abc import Callable
from typing import Self

from dicomward.io.system import calls


class StopSignals:
    """What ends a service, counted while this is entered; on Linux also SIGHUP, which wants a reload.

    A handler runs in the middle of anything, so it takes no lock: it counts, and the interpreter wakes the waiting
    thread through a socket, whichever thread the signal came to.
    """

    def __init__(self) -> None:
        self.count = 0
        self._wants_reload = False

    def __enter__(self) -> Self:
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._descriptor = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._handlers = {
            number: signal.signal(number, self._came) for number in (*calls.STOP_SIGNALS, *calls.RELOAD_SIGNALS)
        }
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor)
        self._woken.close()
        self._waker.close()

    def ready(self) -> None:
        """Do nothing: who has started us sees by itself that we serve."""

    def wait(self, reload: Callable[[], object]) -> None:
        """Wait for the first that ends; `reload` for those that want it before."""
        while not self.count:
            if self._wants_reload:
                self._wants_reload = False
                reload()
                continue
            calls.wait_readable(self._woken, None)
            self._woken.recv(64)

    def _came(self, number: int, _frame: object) -> None:
        if number in calls.RELOAD_SIGNALS:
            self._wants_reload = True
        else:
            self.count += 1
