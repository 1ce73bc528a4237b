"""`dicomward` with all of this machine's own calls hidden, and with those of Windows in their place.

    python -m tests.real.as_windows edge --config edge.toml

What Windows' Python lacks is missing here too, as a module or as a name: who asks for it fails.
"""

import importlib
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

from tests.io.system.without_windows import windows_calls

HIDDEN_MODULES: Final = frozenset(
    {"fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog", "crypt", "dicomward.io.system.posix"}
)
HIDDEN_NAMES: Final[dict[Any, tuple[str, ...]]] = {
    os: (
        *("chown", "chroot", "eventfd", "eventfd_read", "eventfd_write", "fchmod", "fchown", "fdatasync", "fork"),
        *("geteuid", "getuid", "getgid", "getegid", "killpg", "lchown", "mkfifo", "posix_fallocate", "pread", "pwrite"),
        *("readv", "writev", "sendfile", "statvfs", "setsid", "uname", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW"),
        *("EFD_CLOEXEC", "EFD_NONBLOCK", "sched_getaffinity", "sysconf"),
    ),
    select: ("epoll", "poll", "EPOLLIN", "EPOLLOUT", "EPOLLHUP", "EPOLLERR", "EPOLLONESHOT", "POLLIN", "POLLOUT"),
    signal: ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGALRM", "pthread_kill", "sigwait", "alarm"),
    socket: (
        *("AF_UNIX", "SO_PEERCRED", "SO_REUSEPORT", "TCP_QUICKACK", "TCP_USER_TIMEOUT", "TCP_CONGESTION", "TCP_CORK"),
        *("MSG_DONTWAIT", "MSG_NOSIGNAL", "SCM_RIGHTS", "CMSG_LEN", "send_fds", "recv_fds"),
    ),
    socket.socket: ("sendmsg", "recvmsg", "recvmsg_into"),
    time: ("clock_gettime", "CLOCK_BOOTTIME", "CLOCK_MONOTONIC"),
}


class _NotThere(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in HIDDEN_MODULES:
            raise ModuleNotFoundError(f"Windows has no {fullname}", name=fullname)
        return None


def _low_water(connection: socket.socket, *option: Any) -> None:
    """Refuse the option that Windows has by name only."""
    if option[:2] == (socket.SOL_SOCKET, socket.SO_RCVLOWAT):
        raise OSError("the option is unknown")
    _SET(connection, *option)


_SET: Final[Any] = socket.socket.setsockopt


def hide() -> None:
    """Hide what Windows lacks, and put its calls in the place of ours."""
    # The standard library's own look for msvcrt, and would take the stand-in for Windows.
    for name in ("subprocess", "asyncio"):
        importlib.import_module(name)
    family = socket.AF_UNIX
    pair = socket.socketpair
    statvfs = os.statvfs
    calls = windows_calls()
    package: Any = ModuleType("dicomward.io.system")
    package.calls, package.__path__ = calls, []
    for name in HIDDEN_MODULES:
        sys.modules.pop(name, None)
    sys.modules["dicomward.io.system"] = package
    sys.meta_path.insert(0, _NotThere())
    for owner, names in HIDDEN_NAMES.items():
        for name in names:
            if name in vars(owner):
                delattr(owner, name)
            elif hasattr(owner, name):
                setattr(owner, name, property())

    def disk_usage(path: str | Path) -> Any:
        found = statvfs(path)
        size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        return SimpleNamespace(total=size, used=size - free, free=free)

    # The standard library's own: they use other calls there.
    shutil.disk_usage = disk_usage  # type: ignore[assignment]
    # Windows' own pair is one of TCP; what matters is that nobody else's is used.
    socket.socketpair = lambda: pair(family)  # type: ignore[assignment, misc]
    socket.socket.setsockopt = _low_water  # type: ignore[assignment]


def main() -> int:
    """Run a command."""
    hide()
    from dicomward.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
