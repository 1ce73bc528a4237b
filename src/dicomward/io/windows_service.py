"""A service of Windows: what its service manager is told, and how it ends us. By ctypes; nothing has to be installed.

The manager starts the process, calls `_main` in a thread of its own, and `_control` when the service is to stop or the
machine is shut down (winsvc.h).
"""

import ctypes
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

_log = logging.getLogger(__name__)

_STOPPED: Final = 1
_START_PENDING: Final = 2
_STOP_PENDING: Final = 3
_RUNNING: Final = 4
_CONTROL_STOP: Final = 1
_CONTROL_INTERROGATE: Final = 4
_CONTROL_SHUTDOWN: Final = 5
_ACCEPTS: Final = 1 | 4  # stop, shutdown
_OWN_PROCESS: Final = 0x10
_NO_ERROR: Final = 0
_NOT_IMPLEMENTED: Final = 120
_SERVICE_SPECIFIC: Final = 1066
_NOT_CONNECTED: Final = 1063
# The manager waits so long for the next word while we start or stop.
_PENDING_MILLISECONDS: Final = 30_000

Main = Callable[[int, Any], None]
Control = Callable[[int, int, Any, Any], int]


class NotStartedByManager(Exception):
    """The process was started by somebody else than the service manager."""


class _Status(ctypes.Structure):
    """SERVICE_STATUS."""

    _fields_ = [
        (name, ctypes.c_uint32)
        for name in ("kind", "state", "accepts", "error", "specific", "checkpoint", "wait_milliseconds")
    ]


class Manager(Protocol):
    """The service manager, as far as a service talks with it."""

    def dispatch(self, main: Main, control: Control) -> None:
        """Have `main` called in a thread, and return when the service has stopped. Raises NotStartedByManager."""

    def tell(self, state: int, *, accepts: int = 0, error: int = 0, specific: int = 0) -> None:
        """Tell how the service stands."""


class WindowsManager:
    """The real one."""

    def __init__(self) -> None:
        library: Any = vars(ctypes)["WinDLL"]("advapi32", use_last_error=True)
        kind: Any = vars(ctypes)["WINFUNCTYPE"]
        self._library = library
        self._main_type = kind(None, ctypes.c_uint32, ctypes.c_void_p)
        self._control_type = kind(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p)
        library.RegisterServiceCtrlHandlerExW.restype = ctypes.c_void_p
        library.RegisterServiceCtrlHandlerExW.argtypes = (ctypes.c_wchar_p, self._control_type, ctypes.c_void_p)
        library.SetServiceStatus.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Status))
        self._handle: Any = None
        # The manager calls these later: they must live as long.
        self._kept: list[Any] = []

    def dispatch(self, main: Main, control: Control) -> None:
        """See Manager."""
        handler = self._control_type(control)

        def begin(count: int, arguments: Any) -> None:
            # The name counts for nothing in a process of one service.
            self._handle = self._library.RegisterServiceCtrlHandlerExW("", handler, None)
            main(count, arguments)

        beginning = self._main_type(begin)
        main_type = self._main_type

        class Entry(ctypes.Structure):
            _fields_ = [("name", ctypes.c_wchar_p), ("main", main_type)]

        table = (Entry * 2)(Entry("", beginning), Entry(None, main_type()))
        self._kept = [handler, beginning, table]
        if not self._library.StartServiceCtrlDispatcherW(table):
            code = vars(ctypes)["get_last_error"]()
            if code == _NOT_CONNECTED:
                raise NotStartedByManager
            raise vars(ctypes)["WinError"](code)

    def tell(self, state: int, *, accepts: int = 0, error: int = 0, specific: int = 0) -> None:
        """See Manager."""
        wait = _PENDING_MILLISECONDS if state in {_START_PENDING, _STOP_PENDING} else 0
        status = _Status(_OWN_PROCESS, state, accepts, error, specific, 0, wait)
        self._library.SetServiceStatus(self._handle, ctypes.byref(status))


class Stop:
    """What a running service waits for; the same as StopSignals."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._asked = threading.Event()
        self.count = 0

    def ready(self) -> None:
        """Tell the manager that the service serves."""
        self._manager.tell(_RUNNING, accepts=_ACCEPTS)

    def wait(self, _reload: Callable[[], object]) -> None:
        """Wait until the service is to stop."""
        self._asked.wait()

    def ask(self) -> None:
        """Have it stop."""
        self.count += 1
        self._manager.tell(_STOP_PENDING)
        self._asked.set()


def run(serve: Callable[[Stop], int], manager: Manager) -> int:
    """Be a service: `serve` calls `ready`, then `wait`, and returns an exit code. Raises NotStartedByManager, OSError.

    A code other than 0 is told to the manager as a failure, which starts the service again if it is set up so.
    """
    stop = Stop(manager)
    codes: list[int] = []

    def begin(_count: int, _arguments: Any) -> None:
        manager.tell(_START_PENDING)
        code = 1
        try:
            code = serve(stop)
        except Exception:  # noqa: BLE001  nobody above us but the manager's C
            _log.exception("the service failed in an unexpected way")
        finally:
            # Whatever has happened, the manager must not take it for one that starts for ever.
            codes.append(code)
            if code:
                manager.tell(_STOPPED, error=_SERVICE_SPECIFIC, specific=code)
            else:
                manager.tell(_STOPPED)

    def control(number: int, _kind: int, _data: Any, _context: Any) -> int:
        if number in {_CONTROL_STOP, _CONTROL_SHUTDOWN}:
            stop.ask()
            return _NO_ERROR
        return _NO_ERROR if number == _CONTROL_INTERROGATE else _NOT_IMPLEMENTED

    manager.dispatch(begin, control)
    return codes[0] if codes else 1
