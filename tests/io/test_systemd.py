"""Sockets that the service manager passes, and what it is told."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.io.gateway.listeners import NamedListener
from dicomward.io.systemd import InheritedError, Notifier, assign_inherited, take_inherited
from dicomward.relay.inputs import Listener
from dicomward.settings import ListenAddress

REPOSITORY = Path(__file__).resolve().parents[2]


def listener(name: str, host: str, port: int) -> NamedListener:
    return NamedListener(name=name, kind=Listener.DEVICE, address=ListenAddress(host=host, port=port), tls=True)


@pytest.fixture
def opened() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


# -- which socket is whose ---------------------------------------------------------------------------------------------


def test_name_decides(opened: socket.socket) -> None:
    listeners = (listener("archive", "127.0.0.1", 1), listener("device", "127.0.0.1", 2))
    assert assign_inherited([("device", opened)], listeners) == {"device": opened}


@pytest.mark.parametrize("host", ["127.0.0.1"])
def test_without_a_name_the_address_decides(opened: socket.socket, host: str) -> None:
    port = opened.getsockname()[1]
    listeners = (listener("archive", host, 1), listener("device", host, port))
    assert assign_inherited([("dicomward.socket", opened)], listeners) == {"device": opened}


def test_every_address_is_the_same_in_both_families() -> None:
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        listeners = (listener("device", "::", everywhere.getsockname()[1]),)
        assert assign_inherited([("", everywhere)], listeners) == {"device": everywhere}


def test_socket_that_is_nobodys_is_refused(opened: socket.socket) -> None:
    with pytest.raises(InheritedError, match=r"no listener .* has that name or address; .* one of archive"):
        assign_inherited([("x", opened)], (listener("archive", "127.0.0.1", 1),))


def test_second_socket_of_one_listener_is_refused(opened: socket.socket) -> None:
    with pytest.raises(InheritedError, match="'device' has one"):
        assign_inherited([("device", opened), ("device", opened)], (listener("device", "127.0.0.1", 1),))


# -- taking them -------------------------------------------------------------------------------------------------------


def test_nothing_is_taken_that_was_passed_to_another_process() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "HOME": "/"}
    assert take_inherited(environment, 2) == []
    assert environment == {"HOME": "/"}


def test_count_that_is_none_is_refused() -> None:
    with pytest.raises(InheritedError, match="LISTEN_FDS is 'many', not a number"):
        take_inherited({"LISTEN_PID": "2", "LISTEN_FDS": "many"}, 2)


def taken(*descriptors: int, names: str = "device:archive") -> str:
    """Take sockets in a process of its own; return what it prints."""
    script = (
        "import os\n"
        "from dicomward.io.systemd import InheritedError, take_inherited\n"
        "try:\n"
        "    for name, opened in take_inherited(os.environ, os.getpid()):\n"
        "        print(name, opened.getsockname()[1], opened.getblocking(), os.get_inheritable(opened.fileno()))\n"
        "except InheritedError as error:\n"
        "    print(error)\n"
    )
    passed = ",".join(map(str, descriptors))
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tests" / "socket_unit.py", passed, names, sys.executable, "-c", script],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_sockets_are_taken_with_their_names_and_never_block(opened: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as second:
        printed = taken(opened.fileno(), second.fileno(), names="device")
        ports = opened.getsockname()[1], second.getsockname()[1]
    assert printed.splitlines() == [f"device {ports[0]} False False", f" {ports[1]} False False"]


def test_what_is_no_listening_socket_is_refused() -> None:
    with socket.socket() as silent:
        assert "is no listening TCP socket" in taken(silent.fileno())
    with socket.socket(socket.AF_UNIX) as other:
        assert "is no listening TCP socket" in taken(other.fileno())
    reading, writing = os.pipe()
    assert "is no socket" in taken(reading)
    os.close(reading)
    os.close(writing)


# -- telling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_abstract", [True, False])
def test_service_manager_is_told(tmp_path: Path, is_abstract: bool) -> None:
    name = f"dicomward-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if is_abstract else name)
        manager.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}" if is_abstract else name, "WATCHDOG_USEC": "3000000"})
        notifier.ready()
        notifier.reloading()
        notifier.stopping(40)
        notifier.alive()
        told = [manager.recv(1000).decode().splitlines() for _ in range(4)]
    assert [lines[0] for lines in told] == ["READY=1", "RELOADING=1", "STOPPING=1", "WATCHDOG=1"]
    assert told[1][1].startswith("MONOTONIC_USEC=")
    assert told[2][1] == "EXTEND_TIMEOUT_USEC=40000000"
    assert notifier.watchdog_seconds == 3.0


def test_without_a_service_manager_nothing_happens() -> None:
    notifier = Notifier({"WATCHDOG_USEC": "often"})
    notifier.ready()
    assert notifier.watchdog_seconds == 0.0


def test_service_manager_that_is_gone_is_no_reason_to_stop(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()
    assert "can't be told READY" in caplog.text
