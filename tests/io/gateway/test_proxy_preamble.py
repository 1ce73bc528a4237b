"""Connections of named load balancers: known by the header, closed without one, and quiet for health checks."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dicomward.audit.event import AssociationAllowed, AssociationDenied, ConnectionFailed
from dicomward.dicom.proxy_protocol import SIGNATURE
from dicomward.identity.network import NetworkSet
from dicomward.relay.inputs import Listener
from dicomward.vocab.reason import ReasonCode
from tests.io.world import Peer, RawArchive, World, archive_at, raw_archive, running

BALANCER, DEVICE, STRANGER = "127.0.0.9", "127.0.0.1", "192.0.2.7"


def header(source: str) -> bytes:
    return SIGNATURE + b"\x21\x11\x00\x0c" + socket.inet_aton(source) + bytes([127, 0, 0, 1, 1, 2, 3, 4])


LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, archive: RawArchive) -> Iterator[World]:
    with running(tmp_path / "gateway", archive_at(archive.endpoint), deadline=3.0) as made:
        made.gate.balancers = NetworkSet([f"{BALANCER}/32"])
        yield made


def secured(world: World, connection: socket.socket) -> Peer:
    peer = Peer(world.scanner.context().wrap_socket(connection, server_hostname="127.0.0.1"))
    world._peers.append(peer)
    return peer


def test_device_behind_a_balancer_is_known_by_the_address_in_the_header(world: World) -> None:
    connection = world.connect(source=BALANCER)
    connection.sendall(header(DEVICE))
    peer = secured(world, connection).established()
    assert peer.echo() == 0
    assert world.audit.wait_for(AssociationAllowed).address == DEVICE


def test_address_in_the_header_is_judged_like_any_other(world: World) -> None:
    connection = world.connect(source=BALANCER)
    connection.sendall(header(STRANGER))
    peer = secured(world, connection)
    peer.associate()
    event = world.audit.wait_for(AssociationDenied)
    assert (event.address, event.reason) == (STRANGER, ReasonCode.NETWORK_NOT_ALLOWED)


def test_header_may_come_byte_by_byte_and_with_the_handshake(world: World) -> None:
    connection = world.connect(source=BALANCER)
    for byte in header(DEVICE):
        connection.sendall(bytes([byte]))
    assert secured(world, connection).established().echo() == 0


def test_archive_side_is_behind_the_balancer_too(world: World) -> None:
    connection = world.connect(Listener.ARCHIVE, source=BALANCER)
    connection.sendall(header(STRANGER))
    assert world.audit.wait_for(ConnectionFailed).reason is ReasonCode.ARCHIVE_UNKNOWN
    assert Peer(connection).is_gone()


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        (b"\x16\x03\x01", "begins with 16 03 01"),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n", "version 1"),
        (header(DEVICE)[:20], "closed in the middle"),
    ],
)
def test_balancer_without_a_good_header_is_turned_away(world: World, sent: bytes, problem: str) -> None:
    connection = world.connect(source=BALANCER)
    connection.sendall(sent)
    with suppress(OSError):  # it may be gone already
        connection.shutdown(socket.SHUT_WR)
    assert Peer(connection).is_gone()
    event = world.audit.wait_for(ConnectionFailed)
    assert (event.address, event.reason) == (BALANCER, ReasonCode.PROXY_HEADER)
    assert problem in str(event.detail)


def test_header_has_a_deadline(world: World) -> None:
    connection = world.connect(source=BALANCER)
    connection.sendall(header(DEVICE)[:5])
    assert Peer(connection).is_gone()
    assert "before the deadline" in str(world.audit.wait_for(ConnectionFailed).detail)


def test_reset_in_the_middle_of_the_header_is_noted(world: World) -> None:
    connection = world.connect(source=BALANCER)
    connection.sendall(header(DEVICE)[:5])
    world.until(lambda: world.acceptors[Listener.DEVICE].is_announcing)
    Peer(connection).reset()
    assert world.audit.wait_for(ConnectionFailed).reason is ReasonCode.PROXY_HEADER


@pytest.mark.parametrize("sent", [b"", LOCAL], ids=["only connects", "LOCAL"])
@pytest.mark.parametrize("resets", [False, True])
def test_health_check_leaves_no_record(world: World, sent: bytes, resets: bool) -> None:
    connection = world.connect(source=BALANCER)
    connection.sendall(sent)
    if resets:
        Peer(connection).reset()
    else:
        connection.shutdown(socket.SHUT_WR)
        assert Peer(connection).is_gone()
    world.until(lambda: not world.acceptors[Listener.DEVICE].is_announcing)
    assert world.audit.of(ConnectionFailed) == []


def test_health_check_that_goes_on_is_the_balancer_itself(world: World) -> None:
    connection = world.connect(source=BALANCER)
    connection.sendall(LOCAL)
    peer = secured(world, connection)
    peer.associate()
    assert world.audit.wait_for(AssociationDenied).address == BALANCER


def test_health_check_that_says_nothing_more_is_closed_after_a_while(world: World) -> None:
    connection = world.connect(source=BALANCER)
    connection.sendall(LOCAL)
    assert Peer(connection).is_gone()
    assert world.audit.of(ConnectionFailed) == []


def test_nobody_else_may_say_who_it_is(world: World) -> None:
    """A device that sends a header itself is no TLS client."""
    connection = world.connect(source=DEVICE)
    connection.sendall(header(STRANGER))
    assert Peer(connection).is_gone()
    event = world.audit.wait_for(ConnectionFailed)
    assert (event.address, event.reason) == (DEVICE, ReasonCode.NOT_TLS)


def test_nobody_else_may_say_so_in_plaintext_either(world: World) -> None:
    connection = world.connect(Listener.ARCHIVE, source=DEVICE)
    connection.sendall(header(STRANGER))
    assert Peer(connection).is_gone()
    event = world.audit.wait_for(ConnectionFailed)
    assert (event.address, event.reason) == (DEVICE, ReasonCode.MALFORMED_PDU)


def test_defect_closes_the_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_arguments: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("dicomward.io.gateway.proxy_preamble.ProxyReader.feed", breaks)
    connection = world.connect(source=BALANCER)
    connection.sendall(header(DEVICE))
    assert Peer(connection).is_gone()
    assert "error of ours" in str(world.audit.wait_for(ConnectionFailed).detail)
    assert not world.acceptors[Listener.DEVICE].is_announcing
