"""The calls of Linux. What each does stands here; `windows` has the same names."""

import fcntl
import os
import pwd
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

_OTHERS: Final = 0o077
# Where the kernel has it, it fills a long line that loses a packet now and then; where not, the kernel's own does.
_CONGESTION_CONTROL: Final = b"bbr"

# -- files -----------------------------------------------------------------------------------------------------------

# For every os.open.
FILE_FLAGS: Final = os.O_CLOEXEC
# A new name for a file, in the place of one that may be there.
replace: Final = os.replace


def open_to_read(path: Path) -> BinaryIO:
    """Open a file; others may rename or remove it meanwhile. Raises OSError."""
    return path.open("rb")


def unlink(path: Path) -> None:
    """Remove a file, if it is there. Raises OSError."""
    path.unlink(missing_ok=True)


def lock_file(descriptor: int) -> None:
    """Take the lock of an open file, until it is closed. Raises BlockingIOError if somebody else has it, OSError."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync_data(descriptor: int) -> None:
    """Return when the file's data is on the disk. Raises OSError."""
    os.fdatasync(descriptor)


def sync_directory(path: Path) -> None:
    """Return when the names in the directory are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def allocate(descriptor: int, size: int) -> None:
    """Take `size` bytes of the disk for the file. Raises OSError."""
    os.posix_fallocate(descriptor, 0, size)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read from a place in the file. Raises OSError."""
    return os.pread(descriptor, size, offset)


# -- who -------------------------------------------------------------------------------------------------------------


def user_id() -> int:
    """Return the number of who runs this; 0 may do everything."""
    return os.getuid()


def user_name(number: int) -> str:
    """Return the name of a user. Raises KeyError."""
    return pwd.getpwuid(number).pw_name


def give_to_owner_of(what: int | Path, directory: Path) -> None:
    """With sudo: give what root has made to the owner of a directory, whom the service runs as. Raises OSError."""
    if os.geteuid() != 0:
        return
    owner = directory.stat()
    if isinstance(what, int):
        os.fchown(what, owner.st_uid, owner.st_gid)
    else:
        # That owner may have put a link there since.
        os.lchown(what, owner.st_uid, owner.st_gid)


def set_mode(descriptor: int, mode: int) -> None:
    """Say who may use a file. Raises OSError."""
    os.fchmod(descriptor, mode)


def others_may_use(status: os.stat_result) -> bool:
    """Say if others than its owner may read or change a file."""
    return bool(status.st_mode & _OTHERS)


def unseal(_sealed: bytes) -> bytes:
    """Open what DPAPI has sealed. Raises OSError."""
    raise OSError("DPAPI is Windows'; take a credential of systemd")


# -- connections -----------------------------------------------------------------------------------------------------

# Given to TCP after every read: peers with Nagle's algorithm wait for our ACK, and the option doesn't stick.
QUICK_ACK: Final[int | None] = socket.TCP_QUICKACK
# The kernel takes so many buffers in one sendmsg.
MOST_BUFFERS: Final = 512
# For `send`: what follows may go in the same packet; the kernel waits for it, 200 ms at the most.
MORE: Final = socket.MSG_MORE
# Sends buffers as they are, and returns how many bytes went. Raises OSError.
send_buffers: Final[Callable[[socket.socket, list[bytes | memoryview]], int]] = socket.socket.sendmsg


def prepare_listener(listener: socket.socket) -> None:
    """Let the address be used that a service had until a moment ago. Raises OSError."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def stop_listening(listener: socket.socket) -> None:
    """Have whoever waits in `accept` return with an OSError; who has waited closes the listener."""
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It is no longer listening.
        pass


def acknowledge_at_once(connection: socket.socket) -> None:
    """Acknowledge what was just read: a peer with Nagle's algorithm waits for that. Raises OSError."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def keep_alive(connection: socket.socket, *, idle_seconds: int) -> None:
    """Have TCP ask after so long a silence whether the peer is still there. Raises OSError."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, idle_seconds)


def give_up_after(connection: socket.socket, milliseconds: int) -> None:
    """Have TCP give up what nobody has acknowledged for so long. Raises OSError."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def fill_long_lines(connection: socket.socket) -> None:
    """Use the congestion control that a long line needs, where there is one."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _CONGESTION_CONTROL)
    except OSError:
        # This kernel has no such module.
        pass


def is_gone(connection: socket.socket) -> bool:
    """Say if nothing can be read or written any more."""
    poll = select.poll()
    poll.register(connection, 0)
    return bool(poll.poll(0))


def wait_readable(connection: socket.socket, seconds: float | None) -> bool:
    """Wait until there is something to read; False if there isn't after so long."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(None if seconds is None else max(seconds, 0.0) * 1000))


def peek(connection: socket.socket, count: int, seconds: float) -> bytes:
    """Wait until so many bytes are there, without waking for each; return them, unread. Fewer: the peer has closed.

    Raises TimeoutError, OSError.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
    try:
        if not wait_readable(connection, seconds):
            raise TimeoutError(f"fewer than {count} bytes came in time")
        return connection.recv(count, socket.MSG_PEEK)
    finally:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def wait_writable(descriptor: int, seconds: float) -> bool:
    """Wait until a pipe or terminal takes something; False if it doesn't after so long."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


# -- waiting for many -------------------------------------------------------------------------------------------------

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
BROKEN: Final = select.EPOLLHUP | select.EPOLLERR
ONE_SHOT: Final = select.EPOLLONESHOT
Poll: Final = select.epoll
# A descriptor that a Poll can watch: `wake(descriptor, 1)` makes it readable, until `take_wakes(descriptor)`, which
# raises BlockingIOError if nobody has.
wake: Final[Callable[[int, int], None]] = os.eventfd_write
take_wakes: Final[Callable[[int], int]] = os.eventfd_read
close_waker: Final[Callable[[int], None]] = os.close


def open_waker() -> int:
    """Return a new one. Raises OSError."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


# -- the process ------------------------------------------------------------------------------------------------------

IS_WINDOWS: Final = False
STOP_SIGNALS: Final[tuple[signal.Signals, ...]] = (signal.SIGTERM, signal.SIGINT)
RELOAD_SIGNALS: Final[tuple[signal.Signals, ...]] = (signal.SIGHUP,)


def seconds_since_boot() -> float:
    """Return seconds that go on while the machine sleeps, and that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
