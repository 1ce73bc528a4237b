"""Both sets of calls, on this machine: the same names, the same meaning."""

import inspect
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomward.io import system
from dicomward.io.system import posix
from tests.io.system.without_windows import windows_calls

WINDOWS = windows_calls()
BOTH = pytest.mark.parametrize("calls", [posix, WINDOWS], ids=["posix", "windows"])


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs = listener.accept()[0]
        with ours, theirs:
            yield ours, theirs


def public(module: Any) -> dict[str, Any]:
    own = {*vars(module)} - {"Any", "BinaryIO", "Callable", "Final", "Path", "TypeVar"}
    return {
        name: vars(module)[name]
        for name in own
        if not name.startswith("_") and not inspect.ismodule(vars(module)[name])
    }


def test_this_machine_has_the_calls_of_posix() -> None:
    assert system.calls is posix


def test_both_have_the_same_names_and_arguments() -> None:
    here, there = public(posix), public(WINDOWS)
    assert here.keys() == there.keys()
    for name, call in here.items():
        if inspect.isfunction(call):
            ours, theirs = (
                inspect.signature(call).parameters.values(),
                inspect.signature(there[name]).parameters.values(),
            )
            assert [each.kind for each in ours] == [each.kind for each in theirs], name


# -- files -----------------------------------------------------------------------------------------------------------


@BOTH
def test_lock_is_one_owner_s_until_the_file_is_closed(calls: Any, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = os.open(path, os.O_RDWR | os.O_CREAT | calls.FILE_FLAGS)
    second = os.open(path, os.O_RDWR | calls.FILE_FLAGS)
    calls.lock_file(first)
    with pytest.raises(BlockingIOError):
        calls.lock_file(second)
    os.close(first)
    calls.lock_file(second)
    os.close(second)


@BOTH
def test_lock_of_a_closed_file_is_no_lock_of_somebody_else(calls: Any, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        calls.lock_file(descriptor)


@BOTH
def test_files_are_made_longer_read_in_the_middle_synced_and_renamed(calls: Any, tmp_path: Path) -> None:
    path = tmp_path / "a"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | calls.FILE_FLAGS, 0o600)
    os.write(descriptor, b"one\ntwo\n")
    assert calls.read_at(descriptor, 3, 4) == b"two"
    assert calls.read_at(descriptor, 100, 4) == b"two\n"
    os.write(descriptor, b"three\n")
    calls.sync_data(descriptor)
    calls.allocate(descriptor, 8192)
    assert os.fstat(descriptor).st_size == 8192
    calls.allocate(descriptor, 10)
    assert os.fstat(descriptor).st_size == 8192
    os.close(descriptor)
    (tmp_path / "b").write_bytes(b"old")
    calls.replace(path, tmp_path / "b")
    assert (tmp_path / "b").read_bytes().startswith(b"one\ntwo\nthree\n")
    calls.sync_directory(tmp_path)
    calls.unlink(tmp_path / "b")
    calls.unlink(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@BOTH
def test_file_that_is_read_can_be_renamed_meanwhile(calls: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    with calls.open_to_read(tmp_path / "a") as file:
        calls.replace(tmp_path / "a", tmp_path / "b")
        assert file.read() == b"data"
    with pytest.raises(FileNotFoundError):
        calls.open_to_read(tmp_path / "a")


def test_windows_waits_for_who_has_the_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def busy(source: Path, target: Path) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(13, "The process cannot access the file")
        real(source, target)

    real = os.replace
    (tmp_path / "a").write_bytes(b"new")
    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(WINDOWS, "_TRY_SECONDS", 0.001)
    WINDOWS.replace(tmp_path / "a", tmp_path / "b")
    assert (len(tries), (tmp_path / "b").read_bytes()) == (3, b"new")


def test_windows_gives_up_when_the_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def busy(*_: object) -> None:
        tries.append(1)
        raise PermissionError(13, "The process cannot access the file")

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(WINDOWS, "_TRY_SECONDS", 0.0)
    with pytest.raises(PermissionError):
        WINDOWS.replace(tmp_path / "a", tmp_path / "b")
    assert len(tries) == 40


# -- who -------------------------------------------------------------------------------------------------------------


def test_others_are_told_by_the_mode_here_and_by_nothing_there(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    assert not posix.others_may_use(path.stat())
    path.chmod(0o640)
    assert posix.others_may_use(path.stat())
    assert not WINDOWS.others_may_use(path.stat())


def test_mode_is_set_here_and_left_to_the_folder_there(tmp_path: Path) -> None:
    with (tmp_path / "key").open("w") as file:
        posix.set_mode(file.fileno(), 0o640)
        WINDOWS.set_mode(file.fileno(), 0o600)
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o640


def test_what_root_makes_is_given_to_the_owner_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, int]] = []
    monkeypatch.setattr(os, "fchown", lambda descriptor, uid, _gid: given.append((descriptor, uid)))
    monkeypatch.setattr(os, "lchown", lambda path, uid, _gid: given.append((path, uid)))
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    posix.give_to_owner_of(tmp_path / "a", tmp_path)
    assert given == []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    posix.give_to_owner_of(tmp_path / "a", tmp_path)
    posix.give_to_owner_of(7, tmp_path)
    assert given == [(tmp_path / "a", owner), (7, owner)]
    WINDOWS.give_to_owner_of(tmp_path / "a", tmp_path)
    assert len(given) == 2


def test_user_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert posix.user_name(posix.user_id())
    with pytest.raises(KeyError):
        posix.user_name(4_000_000_000)
    monkeypatch.setenv("USERNAME", "edge")
    monkeypatch.delenv("LOGNAME", raising=False)
    monkeypatch.delenv("USER", raising=False)
    monkeypatch.delenv("LNAME", raising=False)
    assert WINDOWS.user_name(WINDOWS.user_id()) == "edge"
    assert WINDOWS.user_id() != 0


def test_windows_user_without_a_name_is_a_key_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError("no name")

    monkeypatch.setattr("getpass.getuser", nobody)
    with pytest.raises(KeyError):
        WINDOWS.user_name(-1)


# -- connections -----------------------------------------------------------------------------------------------------


@BOTH
def test_options_are_taken(calls: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    calls.keep_alive(pair[0], idle_seconds=20)
    assert pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    calls.give_up_after(pair[0], 5000)
    calls.fill_long_lines(pair[0])
    calls.acknowledge_at_once(pair[0])
    if calls.QUICK_ACK is not None:
        pair[0].setsockopt(socket.IPPROTO_TCP, calls.QUICK_ACK, 1)
    with socket.socket() as listener:
        calls.prepare_listener(listener)


@BOTH
def test_who_waits_for_a_caller_stops_waiting(calls: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def wait() -> None:
            with pytest.raises(OSError):  # noqa: PT011  each system has words of its own
                listener.accept()
            ended.set()

        thread = threading.Thread(target=wait)
        thread.start()
        calls.stop_listening(listener)
        assert ended.wait(10)
        thread.join()
        calls.stop_listening(listener)


def test_options_of_windows_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Connection:
        def __init__(self) -> None:
            self.set: list[tuple[int, int, int]] = []

        def setsockopt(self, *option: int) -> None:
            self.set.append((option[0], option[1], option[2]))
            if option[1] == 5:
                raise OSError("an old Windows")

        def ioctl(self, code: int, values: tuple[int, int, int]) -> None:
            self.set.append((code, values[0], values[1]))

    made = Connection()
    monkeypatch.setattr(socket, "SIO_KEEPALIVE_VALS", 99, raising=False)
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", -5, raising=False)
    monkeypatch.setattr(socket.socket, "ioctl", Connection.ioctl, raising=False)
    WINDOWS.keep_alive(made, idle_seconds=20)
    WINDOWS.give_up_after(made, 60_000)
    WINDOWS.prepare_listener(made)
    assert made.set == [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (99, 1, 20_000),
        (socket.IPPROTO_TCP, 5, 60),
        (socket.SOL_SOCKET, -5, 1),
    ]


def test_congestion_control_that_the_kernel_has_not_is_no_error() -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        posix.fill_long_lines(connection)


@BOTH
def test_buffers_go_in_order(calls: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    assert calls.send_buffers(pair[0], [b"one", memoryview(b"two")]) == 6
    assert pair[1].recv(10) == b"onetwo"
    assert pair[0].send(b"three", calls.MORE) == 5
    assert pair[1].recv(10) == b"three"


@BOTH
def test_peek_waits_for_all_and_leaves_it_there(calls: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"abc")
    sender = threading.Timer(0.05, theirs.sendall, [b"def"])
    sender.start()
    assert calls.peek(ours, 6, 10.0) == b"abcdef"
    sender.join()
    assert ours.recv(10) == b"abcdef"


@BOTH
def test_peek_ends_in_time_and_at_the_end(calls: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        calls.peek(ours, 2, 0.05)
    theirs.sendall(b"a")
    with pytest.raises(TimeoutError):
        calls.peek(ours, 2, 0.05)
    assert time.monotonic() - began < 5
    assert ours.recv(1) == b"a"
    theirs.close()
    assert calls.peek(ours, 2, 10.0) == b""


@BOTH
def test_connection_is_gone_when_it_was_reset(calls: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    ours.setblocking(False)
    assert not calls.is_gone(ours)
    theirs.sendall(b"a")
    assert calls.wait_readable(ours, 10.0)
    assert not calls.is_gone(ours)
    ours.recv(1)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    assert calls.wait_readable(ours, 10.0)
    assert calls.is_gone(ours)


@BOTH
def test_waiting_ends_in_time(calls: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    assert not calls.wait_readable(pair[0], 0.01)
    assert not calls.wait_readable(pair[0], -1.0)
    pair[1].sendall(b"a")
    assert calls.wait_readable(pair[0], None)


def fill(writer: int) -> None:
    while True:
        os.write(writer, b"x" * 4096)


def test_pipe_that_is_full_is_told_here_and_not_known_there() -> None:
    reader, writer = os.pipe()
    assert posix.wait_writable(writer, 0.01)
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        fill(writer)
    assert not posix.wait_writable(writer, 0.01)
    assert WINDOWS.wait_writable(writer, 0.01)
    os.close(reader)
    os.close(writer)


# -- waiting for many, and the process ---------------------------------------------------------------------------------


@BOTH
def test_waker_is_readable_while_it_was_woken(calls: Any) -> None:
    waker = calls.open_waker()
    poll = calls.Poll()
    poll.register(waker, calls.READ | calls.ONE_SHOT)
    assert poll.poll(0.0, 1) == []
    for _ in range(3):
        calls.wake(waker, 1)
    assert poll.poll(10.0, 1) == [(waker, calls.READ)]
    assert poll.poll(0.0, 1) == []
    assert calls.take_wakes(waker) == 3
    with pytest.raises(BlockingIOError):
        calls.take_wakes(waker)
    poll.unregister(waker)
    calls.close_waker(waker)


@BOTH
def test_clock_goes_on_and_signals_are_there(calls: Any) -> None:
    before = calls.seconds_since_boot()
    assert calls.seconds_since_boot() >= before > 0
    assert len(calls.STOP_SIGNALS) >= 2
