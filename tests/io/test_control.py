"""The control socket: both ends over a real Unix socket."""

import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomward.io import control
from dicomward.io.control import SOCKET_NAME, Answer, ControlError, ControlServer, call

SECONDS = 20.0


@contextmanager
def serving(directory: Path, handle: Callable[[Answer], Answer]) -> Iterator[ControlServer]:
    server = ControlServer(directory, handle)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def echoed(request: Answer) -> Answer:
    return {"ok": True, "asked": request}


@contextmanager
def raw_server(directory: Path, answer: bytes | None, *, resets: bool = False) -> Iterator[None]:
    """Answer one command with these bytes; None = hold the connection open without a word."""
    over = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(directory / SOCKET_NAME))
        listener.listen()
        listener.settimeout(SECONDS)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(SECONDS)
                if resets:
                    return  # unread bytes in the buffer make it a reset
                while connection.recv(4096):
                    pass
                if answer is None:
                    over.wait(SECONDS)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(SECONDS)


def raw_call(directory: Path, data: bytes) -> Answer:
    """Send bytes as they are; return the answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SECONDS)
        connection.connect(str(directory / SOCKET_NAME))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile() as file:
            answer: Answer = json.loads(file.read())
            return answer


# -- a command -------------------------------------------------------------------------------------------------------


def test_answer_comes_back_for_a_request(tmp_path: Path) -> None:
    with serving(tmp_path, echoed):
        assert call(tmp_path, {"do": "status"}, SECONDS) == {"ok": True, "asked": {"do": "status"}}


def test_none_where_there_is_no_state_directory(tmp_path: Path) -> None:
    assert call(tmp_path / "nowhere", {}, SECONDS) is None


def test_none_where_no_gateway_has_ever_run(tmp_path: Path) -> None:
    assert call(tmp_path, {}, SECONDS) is None


def test_none_where_a_killed_gateway_has_left_its_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / SOCKET_NAME))
    assert call(tmp_path, {}, SECONDS) is None


def test_none_after_the_gateway_has_stopped(tmp_path: Path) -> None:
    with serving(tmp_path, echoed):
        pass
    assert call(tmp_path, {}, SECONDS) is None
    assert list(tmp_path.iterdir()) == []


def test_state_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ControlError, match=r"state directory .*file can't be opened: Not a directory"):
        call(tmp_path / "file", {}, SECONDS)


def test_path_longer_than_a_socket_may_have_works(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120) / ("e" * 120)
    directory.mkdir(parents=True)
    with serving(directory, echoed):
        assert call(directory, {"do": "status"}, SECONDS) == {"ok": True, "asked": {"do": "status"}}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(b"", "is not JSON"), (b"\xff", "is not JSON"), (b"{", "is not JSON"), (b"[]\n", "is not an object")],
)
def test_answer_that_is_garbage_is_an_error(tmp_path: Path, answer: bytes, problem: str) -> None:
    with raw_server(tmp_path, answer), pytest.raises(ControlError, match=problem):
        call(tmp_path, {"do": "status"}, SECONDS)


def test_gateway_that_does_not_answer_is_an_error_in_time(tmp_path: Path) -> None:
    with raw_server(tmp_path, None), pytest.raises(ControlError, match="did not answer: timed out"):
        call(tmp_path, {"do": "status"}, 0.05)


def test_gateway_that_resets_is_an_error(tmp_path: Path) -> None:
    with raw_server(tmp_path, b"", resets=True), pytest.raises(ControlError):
        call(tmp_path, {"do": "x" * 1_000_000}, SECONDS)


# -- the server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"\xff\n", b"{", b"[1]\n", b"[" * 60_000, b'{"do": "' + b"x" * 66_000 + b'"}'])
def test_garbage_is_answered_and_the_next_command_too(tmp_path: Path, data: bytes) -> None:
    with serving(tmp_path, echoed):
        answer = raw_call(tmp_path, data)
        assert answer["ok"] is False
        assert str(answer["error"]).startswith("not a request: ")
        assert call(tmp_path, {}, SECONDS) == {"ok": True, "asked": {}}


def test_defect_in_a_command_is_answered_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def handle(request: Answer) -> Answer:
        if request:
            raise KeyError("broken")
        return {"ok": True}

    with serving(tmp_path, handle):
        assert call(tmp_path, {"do": "it"}, SECONDS) == {"ok": False, "error": "KeyError: 'broken'"}
        assert call(tmp_path, {}, SECONDS) == {"ok": True}
    assert "a control command failed" in caplog.text


def test_answer_that_is_no_json_does_not_stop_the_server(tmp_path: Path) -> None:
    def handle(request: Answer) -> Answer:
        return {"ok": True, "value": object() if request else None}

    with serving(tmp_path, handle):
        answer = call(tmp_path, {"do": "it"}, SECONDS)
        assert answer is not None
        assert str(answer["error"]).startswith("TypeError: ")
        assert call(tmp_path, {}, SECONDS) == {"ok": True, "value": None}


def test_command_that_goes_away_or_says_nothing_does_not_stop_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "_SECONDS", 0.05)
    with serving(tmp_path, echoed), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(tmp_path / SOCKET_NAME))
        assert call(tmp_path, {}, SECONDS) == {"ok": True, "asked": {}}
    assert "a command went away before its answer: timed out" in caplog.text


def test_socket_is_for_its_owner_only(tmp_path: Path) -> None:
    with serving(tmp_path, echoed):
        assert stat.S_IMODE((tmp_path / SOCKET_NAME).stat().st_mode) == 0o600


def test_socket_that_a_killed_gateway_has_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / SOCKET_NAME))
    with serving(tmp_path, echoed):
        assert call(tmp_path, {}, SECONDS) == {"ok": True, "asked": {}}


def test_place_that_cannot_be_taken_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / SOCKET_NAME).mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="directory"):
        ControlServer(tmp_path, echoed)
    assert len(os.listdir("/proc/self/fd")) == before


def test_server_that_was_never_started_stops(tmp_path: Path) -> None:
    server = ControlServer(tmp_path, echoed)
    server.stop()
    assert list(tmp_path.iterdir()) == []


def test_socket_that_somebody_has_removed_does_not_hinder_the_stop(tmp_path: Path) -> None:
    with serving(tmp_path, echoed):
        (tmp_path / SOCKET_NAME).unlink()
    assert call(tmp_path, {}, SECONDS) is None


class Exhausted:
    """A listener that has no file descriptor left for the first callers."""

    def __init__(self, listener: socket.socket, failures: int) -> None:
        self._listener = listener
        self._failures = failures

    def accept(self) -> object:
        if self._failures:
            self._failures -= 1
            raise OSError(24, "Too many open files")
        return self._listener.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._listener, name)


def test_commands_are_answered_again_when_there_are_file_descriptors_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(control, "_PAUSE_SECONDS", 0.001)
    server = ControlServer(tmp_path, echoed)
    monkeypatch.setattr(server, "_listener", Exhausted(server._listener, 3))
    server.start()
    try:
        assert call(tmp_path, {}, SECONDS) == {"ok": True, "asked": {}}
    finally:
        server.stop()
    assert caplog.text.count("commands can't be accepted: [Errno 24] Too many open files") == 1


def test_refused_when_the_kernel_says_that_somebody_else_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "peer_uid", lambda _connection: 54_321)
    with serving(tmp_path, echoed):
        answer = call(tmp_path, {"do": "status"}, SECONDS)
    assert answer == {"ok": False, "error": "the gateway takes no commands from the user with uid 54321"}


def test_the_kernel_says_who_calls() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert control.peer_uid(one) == os.getuid()
