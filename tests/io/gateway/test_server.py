"""The listeners: nobody who connects, and nothing that fails in it, takes them from the others."""

import errno
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.audit.event import ConnectionFailed, DegradedEntered, DegradedLeft, SecurityAlert
from dicomward.identity.registry import RegistrySnapshot
from dicomward.io.gateway import server as gateway_module
from dicomward.io.gateway.engine import Engine
from dicomward.io.gateway.server import Acceptor, open_listener
from dicomward.io.gateway.session import Session
from dicomward.relay.inputs import Listener
from dicomward.vocab.reason import ReasonCode
from tests.io.world import SECONDS, Peer, RawArchive, World, archive_at, device, raw_archive, running


@pytest.fixture
def serving() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, serving: RawArchive) -> Iterator[World]:
    with running(tmp_path / "gateway", archive_at(serving.endpoint)) as ready:
        yield ready


class Stubborn:
    """A listening socket whose `accept` fails as often as it is told."""

    def __init__(self, real: socket.socket, *errors: int) -> None:
        self._real = real
        self.errors = list(errors)
        self.always = 0
        self.tried = 0

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        self.tried += 1
        if self.errors or self.always:
            number = self.errors.pop(0) if self.errors else self.always
            raise OSError(number, os.strerror(number))
        return self._real.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def stubborn(world: World, *errors: int) -> Stubborn:
    acceptor = world.acceptors[Listener.DEVICE]
    made = Stubborn(acceptor._socket, *errors)
    acceptor._socket = made  # type: ignore[assignment]
    return made


# -- opening -----------------------------------------------------------------------------------------------------------


def test_listener_is_bound_and_never_blocks() -> None:
    with open_listener("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert not listener.getblocking()


def test_taken_port_is_an_error_that_leaves_nothing_open() -> None:
    with open_listener("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        open_listener("127.0.0.1", listener.getsockname()[1])


# -- accepting ---------------------------------------------------------------------------------------------------------


def test_many_connections_at_once_are_all_taken(world: World) -> None:
    connections = [world.connect() for _ in range(100)]
    world.until(lambda: len(world.gate.sessions()) == 100)
    for connection in connections:
        connection.close()
    assert world.gate.wait_until_empty(SECONDS)


def test_500_silent_connections_delay_nobody(world: World) -> None:
    silent = [world.connect(source=f"127.0.0.{2 + number % 5}") for number in range(500)]
    world.until(lambda: len(world.gate.sessions()) == 500)
    peer = world.peer().established()
    assert peer.echo() == 0
    for connection in silent:
        connection.close()


def test_one_address_keeps_256_silent_connections(world: World) -> None:
    silent = [world.connect(source="127.0.0.2") for _ in range(300)]
    world.until(lambda: len(world.audit.of(ConnectionFailed)) == 44)
    assert {event.reason for event in world.audit.of(ConnectionFailed)} == {ReasonCode.ADDRESS_DELAY}
    assert world.peer().established().echo() == 0
    assert all(Peer(connection).is_gone() for connection in silent[:44])


def test_one_key_keeps_256_connections_that_ask_for_nothing(world: World) -> None:
    everywhere = device("ct1", world.scanner, networks=("127.0.0.0/8",))
    world.gate.use_registry(RegistrySnapshot(devices=(everywhere,), archives=world.gate.registry.archives, revision=2))
    silent = [world.peer(source=f"127.0.0.{2 + number % 5}") for number in range(260)]
    world.until(lambda: len(world.audit.of(ConnectionFailed)) == 4)
    assert {event.reason for event in world.audit.of(ConnectionFailed)} == {ReasonCode.ADDRESS_DELAY}
    assert all(peer.is_gone() for peer in silent[:4])
    assert world.peer(source="127.0.0.1").established().echo() == 0


# -- failing -----------------------------------------------------------------------------------------------------------


def test_used_up_file_descriptors_are_said_once_and_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel says at once again that somebody waits: without a pause this would spin and fill the log."""
    monkeypatch.setattr(gateway_module, "_PAUSE_SECONDS", 0.02)
    connected = world.peer().established()
    listener = stubborn(world)
    listener.always = errno.EMFILE
    waiting = world.connect()
    over = threading.Event()
    world.engine.timers.after(0.3, over.set)
    assert over.wait(SECONDS)
    assert 1 <= listener.tried <= 20
    assert connected.echo() == 0
    listener.always = 0
    secured = world.scanner.context().wrap_socket(waiting, server_hostname="127.0.0.1")
    assert Peer(secured).established().echo() == 0
    secured.close()
    assert len(caplog.records) == 1
    event = world.audit.wait_for(DegradedEntered)
    assert event.component == "new connections"
    assert "ulimit -n" in str(event.detail)
    assert world.audit.of(DegradedLeft) == []
    monkeypatch.setattr(gateway_module, "_CALM_SECONDS", 0.0)
    world.connect()
    assert world.audit.wait_for(DegradedLeft).component == "new connections"
    listener.errors = [errno.ENFILE]
    world.connect()
    world.audit.wait_for(DegradedEntered, 2)


def test_connection_that_is_gone_already_delays_nobody(world: World) -> None:
    listener = stubborn(world, errno.ECONNABORTED, errno.ECONNABORTED)
    assert world.peer().established().echo() == 0
    assert listener.errors == []
    assert world.audit.of(DegradedEntered) == []


@pytest.mark.parametrize("where", ["init", "start"])
def test_connection_that_cannot_be_served_is_closed_and_the_listener_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """An exception out of an accept once made the engine forget the listener: nobody could connect any more."""
    caplog.set_level(logging.CRITICAL, "dicomward")

    def fail(*_arguments: object) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(Session, "__init__" if where == "init" else "start", fail)
        for _ in range(3):
            assert Peer(world.connect()).is_gone()
    assert world.gate.wait_until_empty(SECONDS)
    assert len(world.audit.of(SecurityAlert)) == (3 if where == "start" else 0)
    assert world.peer().established().echo() == 0


def test_defect_of_the_listener_itself_does_not_end_it(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "dicomward")
    failed = threading.Event()
    real = Acceptor._accept

    def fail(self: Acceptor) -> bool:
        if failed.is_set():
            return real(self)
        failed.set()
        raise RuntimeError("a defect")

    monkeypatch.setattr(Acceptor, "_accept", fail)
    assert world.peer().established().echo() == 0
    assert failed.is_set()


def test_descriptor_that_cannot_be_watched_ends_one_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def watch(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "epoll watches used up")

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "watch", watch)
        assert Peer(world.connect()).is_gone()
    assert world.gate.wait_until_empty(SECONDS)
    assert world.peer().established().echo() == 0


# -- the archive side --------------------------------------------------------------------------------------------------


def test_stranger_at_the_archive_side_is_not_even_read(world: World) -> None:
    connection = world.connect(Listener.ARCHIVE, source="127.0.0.2")
    assert Peer(connection).is_gone()
    assert world.audit.wait_for(ConnectionFailed).reason is ReasonCode.ARCHIVE_UNKNOWN
    assert world.gate.sessions() == []


class DualStack(Stubborn):
    """A listening socket that takes IPv4 as IPv6, as one on [::] does."""

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, (host, port) = super().accept()
        return connection, (f"::ffff:{host}", port)


def test_ipv4_is_ipv4_on_record_also_where_a_listener_takes_both(world: World) -> None:
    acceptor = world.acceptors[Listener.ARCHIVE]
    acceptor._socket = DualStack(acceptor._socket)  # type: ignore[assignment]
    assert Peer(world.connect(Listener.ARCHIVE, source="127.0.0.2")).is_gone()
    assert world.audit.wait_for(ConnectionFailed).address == "127.0.0.2"


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_stranger_at_a_legacy_zone_is_not_even_read(world: World) -> None:
    connection = world.connect(Listener.LEGACY, source="127.0.0.9")
    assert Peer(connection).is_gone()
    failed = world.audit.wait_for(ConnectionFailed)
    assert (failed.address, failed.reason) == ("127.0.0.9", ReasonCode.NETWORK_NOT_ALLOWED)
    assert "legacy zone" in (failed.detail or "")


def test_stopped_listener_takes_nobody(world: World) -> None:
    world.acceptors[Listener.DEVICE].stop()
    with pytest.raises(ConnectionRefusedError):
        world.connect()
    # Whatever was under way in a worker finds it closed.
    world.acceptors[Listener.DEVICE].ready(True, False)
    world.acceptors[Listener.DEVICE].failed()


def test_stop_waits_for_the_worker_that_accepts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would arm a descriptor that is somebody else's by then."""
    inside, go_on = threading.Event(), threading.Event()
    real = Acceptor._accepted

    def accepted(self: Acceptor, connection: socket.socket, address: str) -> None:
        inside.set()
        assert go_on.wait(SECONDS)
        real(self, connection, address)

    monkeypatch.setattr(Acceptor, "_accepted", accepted)
    world.connect()
    assert inside.wait(SECONDS)
    stopping = threading.Thread(target=world.acceptors[Listener.DEVICE].stop)
    stopping.start()
    stopping.join(0.2)
    assert stopping.is_alive()
    assert world.acceptors[Listener.DEVICE]._socket.fileno() >= 0
    go_on.set()
    stopping.join(SECONDS)
    assert world.acceptors[Listener.DEVICE]._socket.fileno() == -1
