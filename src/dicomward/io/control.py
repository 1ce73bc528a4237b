"""The control socket: commands talk to a running gateway, one JSON line each way, over a Unix socket of mode 0600.

A socket's path may have only 108 characters, so both ends go through the directory's file descriptor.
"""

import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)

SOCKET_NAME = "control.sock"
_MOST_BYTES = 64 * 1024
_SECONDS = 10.0
_PAUSE_SECONDS = 0.1

Answer = dict[str, object]


class ControlError(Exception):
    """The gateway runs but did not answer, or not in a way that we understand."""


def call(state_directory: Path, request: dict[str, object], timeout: float) -> Answer | None:
    """Ask the running gateway; None if none runs here. Raises ControlError, also after `timeout` seconds."""
    try:
        directory = os.open(state_directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ControlError(f"the state directory {state_directory} can't be opened: {error.strerror}") from error
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(_path(directory))
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            connection.sendall(_line(request))
            connection.shutdown(socket.SHUT_WR)
            data = bytearray()
            while chunk := connection.recv(_MOST_BYTES):
                data += chunk
    except OSError as error:
        raise ControlError(f"the gateway did not answer: {error}") from error
    finally:
        os.close(directory)
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise ControlError("the gateway's answer is not JSON") from error
    if not isinstance(answer, dict):
        raise ControlError("the gateway's answer is not an object")
    return answer


class ControlServer:
    """Answers commands, one after the other, in a thread of its own."""

    def __init__(self, state_directory: Path, handle: Callable[[Answer], Answer]) -> None:
        """Take the place of the control socket. Raises OSError."""
        self._handle = handle
        self._stopping = threading.Event()
        self._directory = os.open(state_directory, os.O_RDONLY | os.O_DIRECTORY)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path = _path(self._directory)
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            self._listener.bind(path)
            os.chmod(path, 0o600)
            self._listener.listen(16)
        except OSError:
            self._listener.close()
            os.close(self._directory)
            raise
        self._thread = threading.Thread(target=self._serve, name="dicomward-control", daemon=True)

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; a command that is being answered is answered first."""
        try:
            os.unlink(_path(self._directory))
        except FileNotFoundError:
            pass
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()
        os.close(self._directory)

    def _serve(self) -> None:
        is_failing = False
        while not self._stopping.is_set():
            try:
                connection, _address = self._listener.accept()
            except OSError as error:
                # Out of file descriptors: a device must still be suspendable when there are some again.
                if not self._stopping.wait(_PAUSE_SECONDS) and not is_failing:
                    _log.error("commands can't be accepted: %s", error)
                    is_failing = True
                continue
            is_failing = False
            with connection:
                connection.settimeout(_SECONDS)
                try:
                    connection.sendall(self._answer(connection))
                except OSError as error:
                    _log.warning("a command went away before its answer: %s", error)

    def _answer(self, connection: socket.socket) -> bytes:
        data = bytearray()
        while len(data) <= _MOST_BYTES and (chunk := connection.recv(_MOST_BYTES)):
            data += chunk
        if (uid := peer_uid(connection)) not in (0, os.geteuid()):
            # The mode of the socket says so too, but modes are changed by mistake.
            return _line({"ok": False, "error": f"the gateway takes no commands from the user with uid {uid}"})
        try:
            if len(data) > _MOST_BYTES:
                raise ValueError(f"longer than {_MOST_BYTES} bytes")
            request = json.loads(data)
            if not isinstance(request, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as error:
            return _line({"ok": False, "error": f"not a request: {error}"})
        try:
            return _line(self._handle(request))
        except Exception as error:  # noqa: BLE001  a defect is answered and logged, and the socket goes on
            _log.exception("a control command failed")
            return _line({"ok": False, "error": f"{type(error).__name__}: {error}"})


def peer_uid(connection: socket.socket) -> int:
    """Return who is at the other end, by the kernel's word (SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def _line(message: Answer) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _path(directory: int) -> str:
    return f"/proc/self/fd/{directory}/{SOCKET_NAME}"
