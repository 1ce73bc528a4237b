"""What systemd passes and wants to hear: sockets that outlive us (sd_listen_fds(3)), and our state (sd_notify(3)).

A socket that the service manager holds goes on listening while one gateway ends and the next one starts: who connects
meanwhile waits in the kernel's queue, and nobody is refused.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final

from dicomward.io.gateway.listeners import NamedListener

_log = logging.getLogger(__name__)

_FIRST_DESCRIPTOR: Final = 3
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_ANY: Final = ("0.0.0.0", "::")  # noqa: S104  compared with, not listened on


class InheritedError(Exception):
    """A socket that was passed can't be used; the message says which, why and what to do."""


def take_inherited(environment: MutableMapping[str, str], process: int) -> list[tuple[str, socket.socket]]:
    """Return the sockets that were passed to this process, with their names, and forget that they were.

    Raises InheritedError.
    """
    values = {name: environment.pop(name, "") for name in _VARIABLES}
    if values["LISTEN_PID"] != str(process):
        return []
    try:
        count = int(values["LISTEN_FDS"])
    except ValueError as error:
        raise InheritedError(
            f"LISTEN_FDS is {values['LISTEN_FDS']!r}, not a number: start it by a socket unit"
        ) from error
    names = values["LISTEN_FDNAMES"].split(":")
    sockets = []
    for number in range(count):
        descriptor = _FIRST_DESCRIPTOR + number
        try:
            os.set_inheritable(descriptor, False)
            passed = socket.socket(fileno=descriptor)
            listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise InheritedError(f"descriptor {descriptor} that was passed is no socket: {error.strerror}") from error
        if passed.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
            raise InheritedError(
                f"descriptor {descriptor} that was passed is no listening TCP socket; "
                "use ListenStream=ADDRESS:PORT and Accept=no"
            )
        passed.setblocking(False)
        sockets.append((names[number] if number < len(names) else "", passed))
    return sockets


def assign_inherited(
    passed: list[tuple[str, socket.socket]], listeners: tuple[NamedListener, ...]
) -> dict[str, socket.socket]:
    """Return the passed sockets by the name of their listener: by FileDescriptorName, else by address and port.

    Raises InheritedError for one that belongs to no listener, or to one that has another already.
    """
    known = {listener.name: listener for listener in listeners}
    assigned: dict[str, socket.socket] = {}
    for name, opened in passed:
        chosen = name if name in known else _by_address(opened, listeners)
        if chosen is None or chosen in assigned:
            host, port = opened.getsockname()[:2]
            raise InheritedError(
                f"a socket on {host} port {port} was passed under the name {name!r}, and "
                + ("no listener of the settings has that name or address" if chosen is None else f"{chosen!r} has one")
                + f"; set FileDescriptorName= to one of {', '.join(known)}, or ListenStream= to its address"
            )
        assigned[chosen] = opened
    return assigned


def _by_address(opened: socket.socket, listeners: tuple[NamedListener, ...]) -> str | None:
    host, port = opened.getsockname()[:2]
    for listener in listeners:
        if listener.address.port == port and (
            listener.address.host == host or {host, listener.address.host} <= {*_ANY}
        ):
            return listener.name
    return None


class Notifier:
    """Tells the service manager how we are; does nothing where none listens."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        try:
            self.watchdog_seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1_000_000
        except ValueError:
            self.watchdog_seconds = 0.0

    def ready(self) -> None:
        """Say that we serve, or serve with what was reloaded."""
        self._tell("READY=1\nSTATUS=serving")

    def reloading(self) -> None:
        """Say that we load everything again; `ready` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reloading")

    def stopping(self, seconds: float) -> None:
        """Say that we drain, and how long that may take."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}\nSTATUS=draining")

    def alive(self) -> None:
        """Say that we are not stuck."""
        self._tell("WATCHDOG=1")

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.sendto(text.encode(), self._address)
        except OSError as error:
            _log.warning("the service manager can't be told %s: %s", text.partition("=")[0], error)
