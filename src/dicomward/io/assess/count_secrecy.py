"""Keeping what passes through memory out of files: no core dump, and no other process of the same user may look in."""

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


class NotSecret(Exception):
    """The kernel did not agree; nothing may be counted."""


def forbid_dumps() -> None:
    """Make this process leave no core dump and be closed to debuggers (prctl(2), core(5)). Raises NotSecret."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise NotSecret(f"core dumps can't be turned off: prctl failed with errno {ctypes.get_errno()}")
