"""The calls of Windows on a machine that isn't one: with a stand-in for msvcrt, the only module that it lacks."""

import fcntl
import importlib
import os
import sys
from types import ModuleType
from typing import Any

LK_NBLCK = 2


def locking(descriptor: int, mode: int, count: int) -> None:
    """Lock bytes from the current position on, for this open file, and fail as msvcrt does."""
    if mode != LK_NBLCK or os.lseek(descriptor, 0, os.SEEK_CUR) == 0 or count != 1:
        raise ValueError("not how a lock file is locked")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PermissionError(13, "Permission denied") from error


def windows_calls() -> Any:
    """Return dicomward.io.system.windows."""
    stand_in: Any = ModuleType("msvcrt")
    stand_in.LK_NBLCK, stand_in.locking = LK_NBLCK, locking
    sys.modules.setdefault("msvcrt", stand_in)
    return importlib.import_module("dicomward.io.system.windows")
