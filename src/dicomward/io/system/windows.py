"""The calls of Windows, with the names and the meaning of `posix`.

Nothing of Windows alone is imported but msvcrt, so that tests can run this on Linux too, where they bring an msvcrt of
their own.
"""

import ctypes
import errno
import getpass
import importlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from dicomward.io.system import select_poll

_Result = TypeVar("_Result")

# What other systems' type stubs don't have.
_msvcrt: Any = importlib.import_module("msvcrt")
_socket: Any = socket
_ctypes: Any = ctypes

# -- files -----------------------------------------------------------------------------------------------------------

# Else every line feed would become two characters.
FILE_FLAGS: Final[int] = getattr(os, "O_BINARY", 0)
# A lock is one of bytes: far behind what any lock file holds, so that everybody can read that.
_LOCK_OFFSET: Final = 1 << 30
# winnt.h, fileapi.h and dpapi.h.
_NO_QUESTIONS: Final = 1
_DWORD: Final = ctypes.c_ulong
_GENERIC_READ: Final = 0x8000_0000
_GENERIC_WRITE: Final = 0x4000_0000
_A_DIRECTORY: Final = 0x0200_0000
_SHARE_ALL: Final = 7
_OPEN_EXISTING: Final = 3
# Virus scanners and backups open a file a moment after it was written, and nobody can rename it meanwhile.
_TRIES: Final = 40
_TRY_SECONDS: Final = 0.05


def replace(source: Path, target: Path) -> None:
    """Give a file a new name, in the place of one that may be there. Raises OSError."""
    _persist(lambda: os.replace(source, target))


def open_to_read(path: Path) -> BinaryIO:
    """Open a file; others may rename or remove it meanwhile. Raises OSError."""
    return open(path, "rb", opener=_open_shared)


def _open_shared(path: str, flags: int) -> int:
    """Open for reading, and share everything: Python's own `open` does not share renaming. Raises OSError."""
    if not hasattr(_ctypes, "WinDLL"):
        return os.open(path, flags)
    descriptor: int = _msvcrt.open_osfhandle(_create_file(path, _GENERIC_READ, 0), os.O_RDONLY | FILE_FLAGS)
    return descriptor


def _create_file(path: str, access: int, flags: int) -> int:
    """Open what is there, and share everything; return its handle. Raises OSError."""
    create = _ctypes.WinDLL("kernel32", use_last_error=True).CreateFileW
    create.restype = ctypes.c_void_p
    create.argtypes = (ctypes.c_wchar_p, _DWORD, _DWORD, ctypes.c_void_p, _DWORD, _DWORD, ctypes.c_void_p)
    handle: int = create(path, access, _SHARE_ALL, None, _OPEN_EXISTING, flags, None)
    if handle == ctypes.c_void_p(-1).value:
        raise _ctypes.WinError(_ctypes.get_last_error())
    return handle


def unlink(path: Path) -> None:
    """Remove a file, if it is there. Raises OSError."""
    _persist(lambda: path.unlink(missing_ok=True))


def _persist(call: Callable[[], _Result]) -> _Result:
    """Try for two seconds what fails while somebody else has the file open. Raises OSError."""
    for _ in range(_TRIES - 1):
        try:
            return call()
        except PermissionError:
            time.sleep(_TRY_SECONDS)
    return call()


def lock_file(descriptor: int) -> None:
    """Take the lock of an open file, until it is closed. Raises BlockingIOError if somebody else has it, OSError."""
    os.lseek(descriptor, _LOCK_OFFSET, os.SEEK_SET)
    try:
        _msvcrt.locking(descriptor, _msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in {errno.EBADF, errno.EINVAL}:
            raise
        # EACCES says so; Wine says nothing.
        raise BlockingIOError(error.errno, "somebody else has the lock") from error
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)


def sync_data(descriptor: int) -> None:
    """Return when the file's data is on the disk. Raises OSError."""
    os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Return when the names in the directory are on the disk. Raises OSError."""
    if not hasattr(_ctypes, "WinDLL"):
        return
    kernel = _ctypes.WinDLL("kernel32", use_last_error=True)
    handle = _create_file(str(path), _GENERIC_READ | _GENERIC_WRITE, _A_DIRECTORY)
    try:
        if not kernel.FlushFileBuffers(ctypes.c_void_p(handle)):
            raise _ctypes.WinError(_ctypes.get_last_error())
    finally:
        kernel.CloseHandle(ctypes.c_void_p(handle))


def allocate(descriptor: int, size: int) -> None:
    """Take `size` bytes of the disk for the file: NTFS does when it becomes longer. Raises OSError."""
    if os.fstat(descriptor).st_size < size:
        os.ftruncate(descriptor, size)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read from a place in the file; whoever appends to it does so all the same. Raises OSError."""
    before = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, offset, os.SEEK_SET)
    try:
        pieces = []
        while size and (piece := os.read(descriptor, size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)
    finally:
        os.lseek(descriptor, before, os.SEEK_SET)


# -- who -------------------------------------------------------------------------------------------------------------

# Windows has no numbers of users; nobody is root by number.
_NOBODY: Final = -1


def user_id() -> int:
    """Return a number that is nobody's: rights are Windows' to judge."""
    return _NOBODY


def user_name(_number: int) -> str:
    """Return the name of who runs this. Raises KeyError."""
    try:
        return getpass.getuser()
    except (ImportError, OSError) as error:
        raise KeyError("the user has no name") from error


def give_to_owner_of(_what: int | Path, _directory: Path) -> None:
    """Do nothing: what is made in a directory inherits who may use it."""


def set_mode(_descriptor: int, _mode: int) -> None:
    """Do nothing: what is made in a directory inherits who may use it."""


def others_may_use(_status: os.stat_result) -> bool:
    """Say no: the mode says nothing here, and what is made in a directory inherits who may use it."""
    return False


class _Blob(ctypes.Structure):
    """DATA_BLOB (dpapi.h)."""

    _fields_ = [("size", ctypes.c_uint32), ("data", ctypes.c_void_p)]


def unseal(sealed: bytes) -> bytes:
    """Open what DPAPI has sealed for this machine or for this user. Raises OSError."""
    if not hasattr(_ctypes, "WinDLL"):
        raise OSError("there is no DPAPI")
    buffer = ctypes.create_string_buffer(sealed, len(sealed))
    given, found = _Blob(len(sealed), ctypes.addressof(buffer)), _Blob()
    library = _ctypes.WinDLL("crypt32", use_last_error=True)
    if not library.CryptUnprotectData(ctypes.byref(given), None, None, None, None, _NO_QUESTIONS, ctypes.byref(found)):
        raise _ctypes.WinError(_ctypes.get_last_error())
    return ctypes.string_at(found.data, found.size)


# -- connections -----------------------------------------------------------------------------------------------------

# There is no option for it that a process may set.
QUICK_ACK: Final[int | None] = None
# There is no sendmsg.
MOST_BUFFERS: Final = 1
MORE: Final = 0  # Windows has no such flag
# `TCP_MAXRT` of ws2ipdef.h, in seconds.
_TCP_MAXRT: Final = 5
_PEEK_SECONDS: Final = 0.005


def prepare_listener(listener: socket.socket) -> None:
    """Have the address alone: with SO_REUSEADDR others could take it. Raises OSError."""
    # Where tests run this, which is not Windows, the address of a moment ago can't be had without the other option.
    listener.setsockopt(socket.SOL_SOCKET, getattr(_socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR), 1)


def stop_listening(listener: socket.socket) -> None:
    """Have whoever waits in `accept` return with an OSError: closing does it here, where listeners are never shut."""
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    listener.close()


def acknowledge_at_once(_connection: socket.socket) -> None:
    """Do nothing: there is no option for it that a process may set."""


def keep_alive(connection: socket.socket, *, idle_seconds: int) -> None:
    """Have TCP ask after so long a silence whether the peer is still there. Raises OSError."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(_socket, "SIO_KEEPALIVE_VALS"):
        _socket.socket.ioctl(connection, _socket.SIO_KEEPALIVE_VALS, (1, idle_seconds * 1000, idle_seconds * 1000))


def give_up_after(connection: socket.socket, milliseconds: int) -> None:
    """Have TCP give up what nobody has acknowledged for so long, where this Windows can; else it does by itself."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_MAXRT, max(milliseconds // 1000, 1))
    except OSError:
        pass


def fill_long_lines(_connection: socket.socket) -> None:
    """Do nothing: the congestion control is the machine's (`Set-NetTCPSetting`)."""


def send_buffers(connection: socket.socket, buffers: list[bytes | memoryview]) -> int:
    """Send buffers; return how many bytes went. Raises OSError."""
    return connection.send(b"".join(buffers))


def is_gone(connection: socket.socket) -> bool:
    """Say if nothing can be read or written any more."""
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


def wait_readable(connection: socket.socket, seconds: float | None) -> bool:
    """Wait until there is something to read; False if there isn't after so long."""
    wait = None if seconds is None else max(seconds, 0.0)
    return bool(select.select([connection], [], [], wait)[0])


def peek(connection: socket.socket, count: int, seconds: float) -> bytes:
    """Wait until so many bytes are there; return them, unread. Fewer: the peer has closed.

    Raises TimeoutError, OSError.
    """
    deadline = time.monotonic() + seconds
    while wait_readable(connection, deadline - time.monotonic()):
        data = connection.recv(count, socket.MSG_PEEK)
        if len(data) == count or not data:
            return data
        # Nothing tells that more has come behind these bytes, nor that the peer has closed there.
        if time.monotonic() >= deadline:
            break
        time.sleep(_PEEK_SECONDS)
    raise TimeoutError(f"fewer than {count} bytes came in time")


def wait_writable(_descriptor: int, _seconds: float) -> bool:
    """Say yes: Windows has no way to ask that of a pipe or a console."""
    return True


# -- waiting for many -------------------------------------------------------------------------------------------------

READ: Final = select_poll.READ
WRITE: Final = select_poll.WRITE
# A select tells only that it is worth to look.
BROKEN: Final = 0
ONE_SHOT: Final = 0
Poll: Final = select_poll.SelectPoll
_wakers: Final[dict[int, select_poll.Waker]] = {}


def open_waker() -> int:
    """Return a new one, as `posix` says. Raises OSError."""
    waker = select_poll.Waker()
    _wakers[waker.fileno()] = waker
    return waker.fileno()


def wake(descriptor: int, _count: int) -> None:
    """Make it readable."""
    _wakers[descriptor].wake()


def take_wakes(descriptor: int) -> int:
    """Make it silent again. Raises BlockingIOError if nobody has woken it."""
    return _wakers[descriptor].take()


def close_waker(descriptor: int) -> None:
    """Close it."""
    _wakers.pop(descriptor).close()


# -- the process ------------------------------------------------------------------------------------------------------

IS_WINDOWS: Final = True
# Control-Break is what another process can send, and a console that is closed.
STOP_SIGNALS: Final[tuple[signal.Signals, ...]] = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)
)
RELOAD_SIGNALS: Final[tuple[signal.Signals, ...]] = ()


def seconds_since_boot() -> float:
    """Return seconds that go on while the machine sleeps, and that nobody can set."""
    return time.monotonic()
