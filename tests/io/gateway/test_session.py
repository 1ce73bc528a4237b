"""The session: two connections, one relay; everything that peers can do to it over real sockets."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomward.audit.event import (
    AssociationAllowed,
    AssociationDenied,
    AssociationEnded,
    ConnectionFailed,
    OperationAllowed,
    SecurityAlert,
)
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAbort, AAssociateAc, AAssociateRj, AReleaseRp, AReleaseRq
from dicomward.identity.registry import DeviceStatus, Endpoint, RegistrySnapshot
from dicomward.io.gateway import session as session_module
from dicomward.io.gateway import wire as wire_module
from dicomward.io.gateway.engine import READ
from dicomward.io.gateway.session import Session
from dicomward.io.gateway.session_side import Side
from dicomward.io.gateway.session_stranger import Stranger
from dicomward.io.gateway.wire import Wire
from dicomward.limits.settings import LimitSettings
from dicomward.relay.effects import Pause
from dicomward.relay.inputs import Leg, Listener, Timer, TimerFired
from dicomward.relay.relay import State
from dicomward.vocab.reason import ReasonCode
from tests.io.raw_tls import RawTls
from tests.io.world import (
    ALL,
    SECONDS,
    Credentials,
    GoneError,
    Peer,
    RawArchive,
    World,
    archive_at,
    device,
    issue,
    raw_archive,
    rejection,
    running,
)
from tests.relay.wire import (
    ABORT,
    CT_IMAGE,
    RELEASE_RP,
    RELEASE_RQ,
    Message,
    a_associate_rq,
    c_echo_rq,
    c_find_rq,
    c_move_rq,
    c_store_rq,
    data_set,
    fragments,
    identifier,
    image,
    message,
    n_action_rq,
    response_to,
    transaction,
)


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    """An archive that a test plays itself."""
    with raw_archive(serves=False) as made:
        yield made


@pytest.fixture
def serving() -> Iterator[RawArchive]:
    """An archive that answers everything."""
    with raw_archive() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, serving: RawArchive) -> Iterator[World]:
    with running(tmp_path / "gateway", archive_at(serving.endpoint)) as ready:
        yield ready


@pytest.fixture
def stage(tmp_path: Path, archive: RawArchive) -> Iterator[World]:
    """A gateway in front of the archive that the test plays."""
    with running(tmp_path / "gateway", archive_at(archive.endpoint)) as ready:
        yield ready


def establish(stage: World, archive: RawArchive, *, receive_buffer: int = 0) -> tuple[Peer, Peer]:
    """Return both ends of an association."""
    peer = stage.peer(receive_buffer=receive_buffer)
    peer.send(encode_pdu(a_associate_rq(ALL)))
    ours, _ = archive.take_association()
    assert isinstance(peer.next(), AAssociateAc)
    return peer, ours


def is_aborted(peer: Peer) -> bool:
    while not isinstance(item := peer.next(), AAbort):
        assert isinstance(item, Message)
    return True


def nothing_but_aborts(peer: Peer) -> bool:
    """Read to the end."""
    try:
        while isinstance(peer.next(), AAbort):
            pass
    except GoneError:
        return True
    return False


# -- an ordinary life --------------------------------------------------------------------------------------------------


def test_echo_store_and_release(world: World) -> None:
    peer = world.peer().established()
    assert peer.echo() == 0
    peer.send(message(3, c_store_rq(2), image(pixels=b"p" * 300_000), size=16_000))
    assert peer.next_message().command.status == 0
    peer.send(RELEASE_RQ)
    assert isinstance(peer.next(), AReleaseRp)
    peer.close()
    assert world.gate.wait_until_empty(SECONDS)
    assert world.audit.wait_for(AssociationEnded).reason is None
    assert world.the_limits_are_free()


def test_peer_that_does_not_close_after_its_release_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_LINGER_SECONDS", 0.05)
    peer = world.peer().established()
    peer.send(RELEASE_RQ)
    assert isinstance(peer.next(), AReleaseRp)
    assert world.gate.wait_until_empty(SECONDS)
    assert peer.is_gone()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_only_a_ticket_that_nobody_waits_for_goes_with_the_answer(
    world: World, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[bool] = []
    flush = Wire.flush

    def noted(wire: Wire, *, more: bool = False) -> None:
        held.append(more)
        flush(wire, more=more)

    monkeypatch.setattr(Wire, "flush", noted)
    world.peer(world.scanner.context(maximum=version)).established()
    assert held.count(True) == (version is ssl.TLSVersion.TLSv1_3)


def test_archive_that_has_released_is_closed_at_once(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    peer.send(RELEASE_RQ)
    assert isinstance(theirs.next(), AReleaseRq)
    theirs.send(RELEASE_RP)
    assert isinstance(peer.next(), AReleaseRp)
    assert theirs.is_gone()
    with session.lock:
        assert list(session._sides) == [Leg.REQUESTOR]
    assert not session.is_over


def test_connection_that_takes_a_while_to_be_made_is_waited_for(
    stage: World, archive: RawArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [False]
    monkeypatch.setattr(Wire, "is_connected", property(lambda wire: made.pop() if made else True))
    peer, _ = establish(stage, archive)
    assert made == []
    peer.close()


def test_closed_association_keeps_no_timer(world: World) -> None:
    """Ten minutes of idle time must not keep it in memory."""
    for _ in range(5):
        peer = world.peer().established()
        peer.release()
        peer.close()
    assert world.gate.wait_until_empty(SECONDS)
    assert world.engine.timers._calls == {}
    assert len(world.engine._channels) == len(world.acceptors)


def test_everything_in_one_write_is_understood(world: World) -> None:
    """Request, operation and release at once: nothing of it may get lost behind the handshake or a wait."""
    peer = world.peer()
    peer.send(encode_pdu(a_associate_rq(ALL)))
    assert isinstance(peer.next(), AAssociateAc)
    peer.send(*(message(1, c_echo_rq(number)) for number in range(1, 9)))
    assert [peer.next_message().message_id for _ in range(1, 9)] == [*range(1, 9)]


def test_request_byte_by_byte_is_understood(world: World) -> None:
    peer = world.peer()
    for byte in encode_pdu(a_associate_rq(ALL)):
        peer.send(bytes([byte]))
    assert isinstance(peer.next(), AAssociateAc)


# -- before there is an association ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "told"), [(b"\x01\x00\x00\x00\x00\x44", "plaintext DICOM"), (b"GET / HTTP/1.1", "no TLS")]
)
def test_plaintext_is_closed_and_named(world: World, said: bytes, told: str) -> None:
    connection = world.connect()
    connection.sendall(said)
    event = world.audit.wait_for(ConnectionFailed)
    assert event.reason is ReasonCode.NOT_TLS
    assert told in str(event.detail)
    assert Peer(connection).is_gone()


def test_tls_that_is_none_gets_an_alert_and_is_named(world: World) -> None:
    connection = world.connect()
    connection.sendall(b"\x16\x03\x01\x00\x05hello")
    assert world.audit.wait_for(ConnectionFailed).reason is ReasonCode.TLS_FAILED
    assert connection.recv(1) == b"\x15"
    assert world.gate.wait_until_empty(SECONDS)


def test_no_certificate_is_named(world: World) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(world.scanner.authority)
    peer = world.peer(context)
    assert peer.is_gone()
    assert world.audit.wait_for(ConnectionFailed).reason is ReasonCode.NO_CERTIFICATE


def test_connection_that_closes_without_a_word_is_gone(world: World) -> None:
    world.connect().close()
    event = world.audit.wait_for(ConnectionFailed)
    assert (event.reason, event.detail) == (ReasonCode.TLS_FAILED, "handshake: connection closed")
    assert world.gate.wait_until_empty(SECONDS)


def test_connection_that_is_reset_without_a_word_is_gone(world: World) -> None:
    Peer(world.connect()).reset()
    world.audit.wait_for(ConnectionFailed)
    assert world.gate.wait_until_empty(SECONDS)


def test_connection_that_closes_in_the_middle_of_its_handshake_is_gone(world: World) -> None:
    connection = world.connect()
    connection.sendall(b"\x16\x03\x01\x02\x00")
    connection.close()
    assert world.audit.wait_for(ConnectionFailed).reason is ReasonCode.TLS_FAILED
    assert world.gate.wait_until_empty(SECONDS)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"])
def test_handshake_has_a_deadline(tmp_path: Path, serving: RawArchive, said: bytes) -> None:
    with running(tmp_path / "gateway", archive_at(serving.endpoint), deadline=0.1) as world:
        connection = world.connect()
        connection.sendall(said)
        assert Peer(connection).is_gone()
        assert world.audit.wait_for(ConnectionFailed).reason is ReasonCode.DEADLINE


def test_half_tls_1_3_handshake_has_the_same_deadline(tmp_path: Path, serving: RawArchive) -> None:
    """The client has our flight and never finishes."""
    with running(tmp_path / "gateway", archive_at(serving.endpoint), deadline=0.2) as world:
        connection = world.connect()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = world.scanner.context().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        connection.sendall(outgoing.read())
        assert connection.recv(1) == b"\x16"
        assert Peer(connection, reader=None).socket is connection
        assert world.audit.wait_for(ConnectionFailed).reason is ReasonCode.DEADLINE
        assert world.gate.wait_until_empty(SECONDS)


def test_request_has_the_rest_of_the_same_deadline(tmp_path: Path, serving: RawArchive) -> None:
    with running(tmp_path / "gateway", archive_at(serving.endpoint), deadline=0.2) as world:
        assert world.peer().is_gone()
        event = world.audit.wait_for(ConnectionFailed)
        assert (event.reason, event.detail) == (ReasonCode.DEADLINE, "no A-ASSOCIATE-RQ before the deadline")


def test_answer_to_a_stranger_is_held_back(tmp_path: Path, serving: RawArchive) -> None:
    """127.0.0.2 is in nobody's network. The second failure of an address waits longer than its first."""
    with running(tmp_path / "gateway", archive_at(serving.endpoint)) as world:
        connections = [world.connect(source="127.0.0.2") for _ in range(2)]
        for number, connection in enumerate(connections, start=1):
            connection.sendall(b"\x16\x03\x01\x00\x05hello")
            world.audit.wait_for(ConnectionFailed, number)
        held = world.gate.sessions()
        assert held, "nobody waits"
        began = time.monotonic()
        assert connections[0].recv(1) == b"\x15"
        assert connections[1].recv(1) == b"\x15"
        assert time.monotonic() - began > 0.05
        assert world.gate.wait_until_empty(SECONDS)


def test_held_connection_is_recorded_once_whoever_ends_it(world: World) -> None:
    world.gate.stranger_failed = lambda session: 600.0  # type: ignore[method-assign]
    connection = world.connect()
    connection.sendall(b"plaintext")
    world.audit.wait_for(ConnectionFailed)
    session = world.the_session()
    assert not session.end(ReasonCode.DRAINING)
    assert not session.end(ReasonCode.DRAINING)
    assert Peer(connection).is_gone()
    assert len(world.audit.of(ConnectionFailed)) == 1
    assert world.engine.timers._calls == {}


def test_session_that_was_ended_before_its_start_touches_nothing(world: World) -> None:
    """Its descriptor may be another connection's by then."""
    ours, theirs = socket.socketpair()
    session = Session(world.engine, world.gate, world.listeners[Listener.DEVICE], _tcp_pair()[0], "127.0.0.1", "early")
    world.gate.session_began(session)
    session.end(ReasonCode.ADDRESS_DELAY)
    session.start(10)
    session.adopt(10, None, 0)
    assert session.is_over
    assert world.audit.of(SecurityAlert) == []
    assert world.engine.timers._calls == {}
    assert len(world.engine._channels) == len(world.acceptors)
    ours.close()
    theirs.close()


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    _kept.append(theirs)
    return ours, theirs


_kept: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _close_kept() -> Iterator[None]:
    yield
    while _kept:
        _kept.pop().close()


# -- decisions that become answers -------------------------------------------------------------------------------------


def test_rejection_reaches_the_peer_with_the_standard_code(world: World) -> None:
    assert rejection(world.peer().associate(a_associate_rq(ALL, calling="OTHER"))) == (1, 1, 3)
    assert world.audit.wait_for(AssociationDenied).reason is ReasonCode.CALLING_AE_TITLE_NOT_BOUND


def test_association_waits_for_its_record(stage: World, archive: RawArchive) -> None:
    """Allowed is durable first, then the archive is called."""
    held = _hold(stage)
    peer = stage.peer()
    peer.send(encode_pdu(a_associate_rq(ALL)))
    stage.audit.wait_for(AssociationAllowed)
    stage.barrier()
    assert archive.peers == []
    held[0](True)
    stage.audit.held = None
    archive.take_association()
    assert isinstance(peer.next(), AAssociateAc)


def test_association_that_cannot_be_recorded_is_rejected(world: World) -> None:
    world.audit.written = False
    assert rejection(world.peer().associate()) == (2, 3, 1)
    assert world.audit.wait_for(AssociationDenied).reason is ReasonCode.AUDIT_UNAVAILABLE
    assert world.the_limits_are_free()


def test_record_that_comes_after_the_peer_has_gone_is_dropped(stage: World) -> None:
    held = _hold(stage)
    peer = stage.peer()
    peer.send(encode_pdu(a_associate_rq(ALL)))
    stage.audit.wait_for(AssociationAllowed)
    peer.close()
    assert stage.gate.wait_until_empty(SECONDS)
    held[0](True)
    stage.barrier()
    stage.barrier()
    assert stage.gate.sessions() == []
    assert stage.the_limits_are_free()


# -- towards the archive -----------------------------------------------------------------------------------------------


def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_archive_that_is_down_gives_a_transient_rejection(tmp_path: Path) -> None:
    target = archive_at(Endpoint(host="127.0.0.1", port=_unused_port()))
    with running(tmp_path / "gateway", target) as world:
        assert rejection(world.peer().associate())[0] == 2
        event = world.audit.wait_for(AssociationDenied)
        assert (event.reason, event.detail) == (ReasonCode.UPSTREAM_UNREACHABLE, "Connection refused")
        assert world.the_limits_are_free()


def test_next_address_of_a_name_is_tried(tmp_path: Path, serving: RawArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is ::1 first on many systems, and the archive listens on 127.0.0.1 only."""
    endpoint = Endpoint(host="pacs.example", port=serving.endpoint.port)
    dead = ("127.0.0.1", _unused_port())

    def getaddrinfo(host: str, port: int, **_options: object) -> list[tuple[object, ...]]:
        assert host == "pacs.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in (dead, dead, ("127.0.0.1", port))]

    with running(tmp_path / "gateway", archive_at(endpoint, dedicated_link=True)) as world:
        monkeypatch.setattr("dicomward.io.gateway.gate.socket.getaddrinfo", getaddrinfo)
        assert world.peer().established().echo() == 0


def test_name_that_nobody_knows_gives_a_transient_rejection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    target = archive_at(Endpoint(host="pacs.example", port=104), dedicated_link=True)
    with running(tmp_path / "gateway", target) as world:
        monkeypatch.setattr("dicomward.io.gateway.gate.socket.getaddrinfo", getaddrinfo)
        assert rejection(world.peer().associate())[0] == 2
        assert "pacs.example" in str(world.audit.wait_for(AssociationDenied).detail)


def test_address_that_comes_after_the_relay_has_given_up_is_not_called(
    tmp_path: Path, archive: RawArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is still there, told and slow to close: a connection made now would belong to nobody, for ever."""
    answer = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **options: object) -> object:
        assert answer.wait(SECONDS)
        return real("127.0.0.1", port, type=socket.SOCK_STREAM)

    target = archive_at(Endpoint(host="pacs.example", port=archive.endpoint.port), dedicated_link=True)
    with running(tmp_path / "gateway", target, upstream_seconds=0.05) as world:
        monkeypatch.setattr("dicomward.io.gateway.gate.socket.getaddrinfo", getaddrinfo)
        peer = world.peer()
        assert rejection(peer.associate())[0] == 2
        answer.set()
        world.until(lambda: not any(t.name == "dicomward-resolver" for t in threading.enumerate()))
        assert len(world.engine._channels) == len(world.acceptors) + 1
        assert archive.peers == []
        peer.close()
        assert world.gate.wait_until_empty(SECONDS)


def test_archive_that_does_not_answer_gives_a_transient_rejection(tmp_path: Path, archive: RawArchive) -> None:
    with running(tmp_path / "gateway", archive_at(archive.endpoint), answer_seconds=0.1) as world:
        peer = world.peer()
        assert rejection(peer.associate())[0] == 2
        assert archive.take().is_gone()


def test_connection_to_the_archive_that_cannot_be_made_is_a_rejection(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file descriptor is left, or there is no way to its network: the relay hears it inside its own effects."""

    def no_socket(*_arguments: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    peer = world.peer()
    held = _hold(world)
    monkeypatch.setattr("dicomward.io.gateway.session.socket.socket", no_socket)
    peer.send(encode_pdu(a_associate_rq(ALL)))
    world.audit.wait_for(AssociationAllowed)
    held[0](True)
    world.audit.wait_for(AssociationDenied)
    monkeypatch.undo()
    world.barrier()
    # In order: the timer that was to watch the attempt is stopped after it was started.
    assert world.the_session()._timers.is_running(Timer.UPSTREAM) is False
    held[1](True)
    assert rejection(peer.next())[0] == 2
    peer.close()
    assert world.gate.wait_until_empty(SECONDS)
    assert world.engine.timers._calls == {}
    assert world.the_limits_are_free()


def test_socket_that_cannot_be_set_up_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = world.peer()
    monkeypatch.setattr(wire_module, "_UNREAD_MILLISECONDS", -1)
    answer = peer.associate()
    monkeypatch.undo()
    assert rejection(answer)[0] == 2


def test_target_without_tls_off_loopback_is_not_called(tmp_path: Path) -> None:
    with running(tmp_path / "gateway", archive_at(Endpoint(host="192.0.2.1", port=104))) as world:
        world.peer().associate()
        assert world.audit.wait_for(AssociationDenied).reason is ReasonCode.UPSTREAM_NOT_TRUSTED


@pytest.fixture
def pinned(tmp_path: Path) -> Iterator[tuple[World, RawArchive, Credentials]]:
    """A gateway in front of an archive with TLS, whose certificate is pinned."""
    with raw_archive() as placeholder:
        target = archive_at(placeholder.endpoint)
        with running(tmp_path / "gateway", target) as world:
            credentials = issue(world.settings, "pacs")
            with raw_archive(context=credentials.server_context()) as serving:
                _pin(world, serving.endpoint, credentials.record.sha256)
                yield world, serving, credentials


def _pin(world: World, endpoint: Endpoint, sha256: str) -> None:
    archive = archive_at(endpoint, tls=True, certificate_sha256=sha256)
    world.gate.use_registry(RegistrySnapshot(devices=world.gate.registry.devices, archives=(archive,), revision=2))


def test_archive_with_the_pinned_certificate_is_reached(pinned: tuple[World, RawArchive, Credentials]) -> None:
    world, _, _ = pinned
    assert world.peer().established().echo() == 0


def test_archive_with_another_certificate_is_not_trusted(pinned: tuple[World, RawArchive, Credentials]) -> None:
    world, serving, _ = pinned
    _pin(world, serving.endpoint, "ab" * 32)
    assert rejection(world.peer().associate())[0] == 2
    event = world.audit.wait_for(AssociationDenied)
    assert event.reason is ReasonCode.UPSTREAM_NOT_TRUSTED
    assert "not the pinned one" in str(event.detail)


def test_archive_that_speaks_no_tls_is_not_trusted(
    pinned: tuple[World, RawArchive, Credentials], archive: RawArchive
) -> None:
    world, _, credentials = pinned
    _pin(world, archive.endpoint, credentials.record.sha256)
    peer = world.peer()
    peer.send(encode_pdu(a_associate_rq(ALL)))
    archive.take().socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert rejection(peer.next())[0] == 2
    assert world.audit.wait_for(AssociationDenied).reason is ReasonCode.UPSTREAM_NOT_TRUSTED


def test_archive_that_closes_in_the_handshake_is_unreachable(
    pinned: tuple[World, RawArchive, Credentials], archive: RawArchive
) -> None:
    world, _, credentials = pinned
    _pin(world, archive.endpoint, credentials.record.sha256)
    peer = world.peer()
    peer.send(encode_pdu(a_associate_rq(ALL)))
    archive.take().close()
    assert rejection(peer.next())[0] == 2
    assert world.audit.wait_for(AssociationDenied).reason is ReasonCode.UPSTREAM_UNREACHABLE


def test_device_that_leaves_while_the_archive_is_in_its_handshake_closes_it(
    pinned: tuple[World, RawArchive, Credentials], archive: RawArchive
) -> None:
    world, _, credentials = pinned
    _pin(world, archive.endpoint, credentials.record.sha256)
    peer = world.peer()
    peer.send(encode_pdu(a_associate_rq(ALL)))
    theirs = archive.take()
    assert theirs.socket.recv(1) == b"\x16"
    peer.close()
    theirs.socket.settimeout(SECONDS)
    while theirs.socket.recv(1 << 16):
        pass
    assert world.gate.wait_until_empty(SECONDS)


def test_connection_that_nobody_knows_any_more_is_not_used(pinned: tuple[World, RawArchive, Credentials]) -> None:
    """Trap 13's twin: without a target there is no pin to compare, and that is a no."""
    world, _, _ = pinned
    real = world.gate.upstream_certificates.read

    def read(connection: ssl.SSLObject) -> object:
        world.the_session()._upstream.give_up()
        return real(connection)

    world.gate.upstream_certificates.read = read  # type: ignore[method-assign, assignment]
    assert rejection(world.peer().associate())[0] in (1, 2)


@pytest.mark.parametrize("how", ["reject", "abort", "close", "garbage"])
def test_archive_that_refuses_is_closed_and_the_device_is_told(stage: World, archive: RawArchive, how: str) -> None:
    peer = stage.peer()
    peer.send(encode_pdu(a_associate_rq(ALL)))
    theirs = archive.take()
    theirs.next()
    match how:
        case "reject":
            theirs.send(encode_pdu(AAssociateRj(result=2, source=3, reason=2)))
        case "abort":
            theirs.send(ABORT)
        case "close":
            theirs.close()
        case "garbage":
            theirs.send(b"\x99" * 100)
    answer = rejection(peer.next())
    if how == "reject":
        assert answer == (2, 3, 2)
    if how != "close":
        assert theirs.is_gone()
    peer.close()
    assert stage.gate.wait_until_empty(SECONDS)
    assert stage.the_limits_are_free()


# -- an end in the middle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "abort"])
def test_device_that_leaves_costs_the_archive_one_abort(stage: World, archive: RawArchive, how: str) -> None:
    peer, theirs = establish(stage, archive)
    match how:
        case "close":
            peer.close()
        case "reset":
            peer.reset()
        case "abort":
            peer.send(ABORT)
    assert is_aborted(theirs)
    theirs.close()
    peer.close()
    assert stage.gate.wait_until_empty(SECONDS)
    assert stage.the_limits_are_free()


@pytest.mark.parametrize("how", ["close", "reset", "abort"])
def test_archive_that_leaves_aborts_the_device(stage: World, archive: RawArchive, how: str) -> None:
    peer, theirs = establish(stage, archive)
    match how:
        case "close":
            theirs.close()
        case "reset":
            theirs.reset()
        case "abort":
            theirs.send(ABORT)
    assert is_aborted(peer)
    peer.close()
    theirs.close()
    assert stage.gate.wait_until_empty(SECONDS)


def test_half_closed_device_is_gone(stage: World, archive: RawArchive) -> None:
    """A TCP connection that is half closed is no association: an answer could not be acknowledged in DICOM."""
    peer, theirs = establish(stage, archive)
    peer.socket.shutdown(socket.SHUT_WR)
    assert is_aborted(theirs)


class Sealed:
    """A TLS client whose records a test sends when it likes."""

    def __init__(self, connection: socket.socket, credentials: Credentials) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = credentials.context().wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(connection.recv(1 << 16))

    def say(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def say_last(self, data: bytes) -> None:
        """Send data and close_notify in one segment; the connection stays open."""
        self._tls.write(data)
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        self._connection.sendall(self._outgoing.read())


def _sealed_association(stage: World, archive: RawArchive) -> tuple[Sealed, Peer]:
    sealed = Sealed(stage.connect(), stage.scanner)
    sealed.say(encode_pdu(a_associate_rq(ALL)))
    theirs, _ = archive.take_association()
    stage.until(lambda: stage.the_session().relay.state is State.RELAYING)  # type: ignore[union-attr]
    return sealed, theirs


def test_last_words_before_the_end_of_tls_are_heard(stage: World, archive: RawArchive) -> None:
    """A PDU and close_notify in one segment: what was said counts."""
    device_, theirs = _sealed_association(stage, archive)
    device_.say_last(message(1, c_echo_rq(77)))
    assert theirs.next_message().message_id == 77
    assert is_aborted(theirs)


def test_broken_tls_record_in_the_middle_aborts_the_archive_only(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    raw = socket.socket(fileno=socket.dup(peer.socket.fileno()))
    raw.settimeout(SECONDS)
    raw.sendall(b"\x17\x03\x03\x00\x20" + b"garbage!" * 4)
    assert is_aborted(theirs)
    raw.close()


def test_write_to_a_peer_that_is_gone_ends_the_association(stage: World, archive: RawArchive) -> None:
    """The read side may be paused, or be later than the write."""
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    with session.lock:
        side = session._sides[Leg.ACCEPTOR]
        side.wire.socket.shutdown(socket.SHUT_WR)
        stage.engine.arm(side.descriptor, 0)
        side.armed = 0
        session.write(Leg.ACCEPTOR, [b"late"])
        session.write(Leg.ACCEPTOR, [b"later"])
    assert is_aborted(peer)
    theirs.close()


def test_write_to_a_leg_that_is_gone_is_nothing(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    theirs.close()
    peer.is_gone()
    with session.lock:
        session.write(Leg.ACCEPTOR, [b"late"])


def test_end_from_outside_aborts_both_and_says_so_once(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    assert session.end(ReasonCode.DEVICE_SUSPENDED)
    assert is_aborted(peer)
    assert is_aborted(theirs)
    peer.close()
    theirs.close()
    assert stage.gate.wait_until_empty(SECONDS)
    assert not session.end(ReasonCode.DEVICE_SUSPENDED)
    assert stage.audit.wait_for(AssociationEnded).reason is ReasonCode.DEVICE_SUSPENDED


def test_registry_that_no_longer_allows_it_is_asked(stage: World, archive: RawArchive) -> None:
    establish(stage, archive)
    session = stage.the_session()
    assert session.no_longer_allowed() is None
    suspended = device("ct1", stage.scanner, status=DeviceStatus.SUSPENDED)
    stage.gate.use_registry(RegistrySnapshot(devices=(suspended,), archives=stage.gate.registry.archives, revision=2))
    assert session.no_longer_allowed() is ReasonCode.DEVICE_SUSPENDED


def test_connection_without_a_relay_is_not_judged(world: World) -> None:
    world.connect()
    world.until(lambda: len(world.gate.sessions()) == 1)
    assert world.the_session().no_longer_allowed() is None


# -- back-pressure -----------------------------------------------------------------------------------------------------


def test_archive_that_reads_slowly_slows_the_device_and_not_our_memory(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    sent = threading.Event()
    size = 64 << 20

    def send() -> None:
        peer.send(fragments(3, _store_command(), command=True, size=4096))
        part = fragments(3, b"p" * 1_000_000, command=False, size=16_000, ends=False)
        peer.send(fragments(3, _head(), command=False, size=4096, ends=False))
        for _ in range(size // 1_000_000):
            peer.send(part)
        peer.send(fragments(3, b"", command=False, size=4096))
        sent.set()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    stage.until(lambda: session._sides[Leg.ACCEPTOR].wire.is_blocked)
    stage.barrier()
    assert not sent.is_set()
    with session.lock:
        assert session._sides[Leg.ACCEPTOR].wire.waiting_bytes < 300_000
        assert not session._sides[Leg.REQUESTOR].armed & READ
    got = theirs.next_message()
    assert got.data is not None
    assert len(got.data) == len(_head()) + size // 1_000_000 * 1_000_000
    sender.join(SECONDS)
    theirs.send(message(3, response_to(got.command)))
    assert peer.next_message().command.status == 0


def _store_command() -> bytes:
    from dicomward.dicom.dimse import encode_command_set

    return encode_command_set(c_store_rq(1))


def _head() -> bytes:
    return data_set({0x00080016: CT_IMAGE, 0x00080018: "1.2.3"}) + b"\xe0\x7f\x10\x00\xff\xff\xff\xff"


def test_reset_is_noticed_while_nobody_reads(stage: World, archive: RawArchive) -> None:
    """The archive is stuck, so the device's leg isn't read; that it is gone must still give back its place."""
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    _block(stage, peer, session)
    peer.reset()
    stage.until(lambda: Leg.REQUESTOR not in session._sides)
    assert stage.audit.wait_for(AssociationEnded).reason is ReasonCode.PEER_CLOSED
    assert stage.the_limits_are_free()
    theirs.close()
    assert stage.gate.wait_until_empty(SECONDS)


def _block(stage: World, peer: Peer, session: Session) -> None:
    """Send from the device until the archive's leg takes no more and the device's leg isn't read."""
    peer.send(fragments(3, _store_command(), command=True, size=4096))
    peer.send(fragments(3, _head(), command=False, size=4096, ends=False))
    part = fragments(3, b"p" * 100_000, command=False, size=16_000, ends=False)
    peer.socket.setblocking(False)

    def is_blocked() -> bool:
        try:
            peer.socket.send(part)
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        return session._sides[Leg.ACCEPTOR].wire.is_blocked

    stage.until(is_blocked)
    peer.socket.settimeout(SECONDS)
    stage.until(lambda: session._sides[Leg.REQUESTOR].armed == 0)


def test_blocked_archive_that_is_reset_aborts_the_device(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    _block(stage, peer, stage.the_session())
    theirs.reset()
    assert is_aborted(peer)


def test_end_of_a_blocked_association_is_not_waited_for_long(
    stage: World, archive: RawArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_LINGER_SECONDS", 0.05)
    peer, _theirs = establish(stage, archive)
    session = stage.the_session()
    _block(stage, peer, session)
    assert session.end(ReasonCode.DRAINING)
    assert is_aborted(peer)
    assert stage.gate.wait_until_empty(SECONDS)


def test_device_that_reads_no_answers_is_not_listened_to(stage: World, archive: RawArchive) -> None:
    """It floods us with requests that we answer ourselves: what waits for it is bounded, and so is our memory."""
    stage.gate.limits.take_operation = lambda **_: ReasonCode.OPERATION_RATE  # type: ignore[method-assign]
    peer, theirs = establish(stage, archive, receive_buffer=4096)
    session = stage.the_session()
    side = session._sides[Leg.REQUESTOR]
    requests = b"".join(message(1, c_echo_rq(number)) for number in range(1, 500))
    peer.socket.setblocking(False)

    def is_full() -> bool:
        try:
            peer.socket.send(requests)
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        return side.wire.waiting_bytes > 1 << 20 and side.armed & READ == 0

    stage.until(is_full)
    assert side.wire.waiting_bytes < 2 << 20
    # It reads again, and so do we.
    peer.socket.settimeout(SECONDS)
    while not side.armed & READ:
        assert peer.socket.recv(1 << 16)
    theirs.close()


def test_cancel_is_heard_while_the_device_is_slow(stage: World, archive: RawArchive) -> None:
    """What waits for the device is far less than the bound, so it is still listened to."""
    peer, theirs = establish(stage, archive, receive_buffer=4096)
    session = stage.the_session()
    peer.send(message(5, c_find_rq(9), identifier()))
    request = theirs.next_message()
    answer = message(5, response_to(request.command, 0xFF00, has_data_set=True), identifier(study="1.2.3"))
    theirs.socket.setblocking(False)
    for _ in range(100_000):
        try:
            theirs.socket.send(answer * 20)
        except BlockingIOError:
            if session._sides[Leg.REQUESTOR].wire.is_blocked:
                break
            stage.barrier()
    theirs.socket.settimeout(SECONDS)
    assert session._sides[Leg.REQUESTOR].wire.waiting_bytes < 1 << 20
    from tests.relay.wire import c_cancel_rq

    peer.send(message(5, c_cancel_rq(9)))
    item = theirs.next_message()
    assert item.name == "C-CANCEL-RQ"


# -- what TLS allows a peer to do --------------------------------------------------------------------------------------


def _associated_raw(stage: World, archive: RawArchive, *, tls12: bool = False) -> tuple[RawTls, Peer]:
    raw = RawTls(stage.connect(), stage.scanner, tls12=tls12)
    raw.write(encode_pdu(a_associate_rq(ALL)))
    theirs, _ = archive.take_association()
    # It doesn't read its A-ASSOCIATE-AC, and must not send data before there is one.
    stage.until(lambda: stage.the_session().relay.state is State.RELAYING)  # type: ignore[union-attr]
    return raw, theirs


def test_key_updates_are_answered_and_the_association_goes_on(stage: World, archive: RawArchive) -> None:
    raw, theirs = _associated_raw(stage, archive)
    for number in range(1, 20):
        assert raw.update_key()
        raw.write(message(1, c_echo_rq(number)))
        request = theirs.next_message()
        assert request.message_id == number
        theirs.send(message(1, response_to(request.command)))
    assert [type(event) for event in stage.audit.of(AssociationEnded)] == []
    raw.close()


def test_flood_of_key_updates_fills_no_memory(stage: World, archive: RawArchive) -> None:
    """Each asks for an answer, and the peer reads none of them."""
    raw, _theirs = _associated_raw(stage, archive)
    session = stage.the_session()
    stopped = 0
    for _ in range(60_000):
        try:
            stopped = 0 if raw.update_key() else stopped + 1
        except AssertionError:
            break  # OpenSSL, or we, have closed it: as good
        if stopped > 100:
            break
        if stopped:
            stage.barrier()
    with session.lock:
        sides = list(session._sides.values())
        assert all(side.wire.waiting_bytes < 2 << 20 for side in sides)
    raw.close()


def test_renegotiation_is_refused(stage: World, archive: RawArchive) -> None:
    """Client-initiated renegotiation costs us a key exchange each time (RFC 9325 §3.5)."""
    raw, theirs = _associated_raw(stage, archive, tls12=True)
    assert raw.read()[0] == 2
    assert not raw.renegotiate()
    raw.close()
    assert is_aborted(theirs)
    theirs.close()
    assert stage.gate.wait_until_empty(SECONDS)


# -- defects of our own ------------------------------------------------------------------------------------------------


def test_defect_of_the_relay_ends_one_association_and_is_recorded(
    stage: World, archive: RawArchive, caplog: pytest.LogCaptureFixture
) -> None:
    peer, theirs = establish(stage, archive)
    other, others = establish(stage, archive)
    session = next(s for s in stage.gate.sessions() if isinstance(s, Session))

    def fail(*_: object) -> list[object]:
        raise RuntimeError("a defect")

    assert session.relay is not None
    session.relay.handle = fail  # type: ignore[method-assign, assignment]
    peer.send(message(1, c_echo_rq(1)))
    assert is_aborted(peer)
    assert is_aborted(theirs)
    assert stage.audit.wait_for(SecurityAlert).reason is ReasonCode.INTERNAL_ERROR
    assert "a defect" in caplog.text
    other.send(message(1, c_echo_rq(5)))
    assert others.next_message().message_id == 5


@pytest.mark.parametrize("where", ["event", "posted", "timer"])
def test_defect_in_an_effect_closes_everything_and_gives_back_what_was_counted(
    stage: World, archive: RawArchive, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Trap 1: what is swallowed must not leave a connection that nobody watches, or let traffic through."""
    peer, theirs = establish(stage, archive)
    session = stage.the_session()

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    session._execute = fail  # type: ignore[method-assign, assignment]
    match where:
        case "event":
            peer.send(message(1, c_echo_rq(1)))
        case "posted":
            session._later(lambda: session.handle(TimerFired(Timer.RELEASE)))
        case "timer":
            with session.lock:
                session._timers.start(Timer.IDLE, 0.0)
    assert peer.is_gone()
    assert theirs.is_gone()
    assert stage.gate.wait_until_empty(SECONDS)
    assert stage.the_limits_are_free()
    assert len(stage.engine._channels) == len(stage.acceptors)
    assert stage.audit.wait_for(SecurityAlert).association == session.association
    session.failed()


def test_defect_while_a_defect_is_handled_still_closes_everything(
    stage: World, archive: RawArchive, caplog: pytest.LogCaptureFixture
) -> None:
    peer, theirs = establish(stage, archive)
    session = stage.the_session()

    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    session._execute = fail  # type: ignore[method-assign, assignment]
    stage.gate.defect = fail  # type: ignore[method-assign, assignment]
    peer.send(message(1, c_echo_rq(1)))
    assert peer.is_gone()
    assert theirs.is_gone()
    assert stage.gate.wait_until_empty(SECONDS)


def test_defect_before_there_is_a_relay_closes_the_connection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Stranger, "has_begun_tls", fail)
    connection = world.connect()
    connection.sendall(b"\x16")
    assert Peer(connection).is_gone()
    assert world.gate.wait_until_empty(SECONDS)


def test_defect_of_a_held_connection_closes_it(world: World) -> None:
    world.gate.stranger_failed = lambda session: 600.0  # type: ignore[method-assign]
    connection = world.connect()
    connection.sendall(b"plaintext")
    world.audit.wait_for(ConnectionFailed)
    world.barrier()
    world.the_session().failed()
    assert Peer(connection).is_gone()
    assert world.gate.wait_until_empty(SECONDS)


# -- an operation waits for its record ---------------------------------------------------------------------------------


def _hold(stage: World) -> list[Callable[[bool], None]]:
    stage.audit.held = []
    return stage.audit.held


def test_operation_is_forwarded_after_its_record_and_not_before(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    held = _hold(stage)
    peer.send(message(3, c_store_rq(1), image(pixels=b"p" * 100_000), size=16_000))
    stage.audit.wait_for(OperationAllowed)
    stage.until(lambda: session._sides[Leg.REQUESTOR].armed == 0)
    theirs.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.socket.recv(1)
    theirs.socket.settimeout(SECONDS)
    stage.audit.held = None
    held[0](True)
    request = theirs.next_message()
    assert len(request.data or b"") > 100_000
    theirs.send(message(3, response_to(request.command)))
    assert peer.next_message().command.status == 0


def test_operation_that_cannot_be_recorded_ends_the_association(stage: World, archive: RawArchive) -> None:
    """Trap 8: a failed audit write that is only logged."""
    peer, theirs = establish(stage, archive)
    stage.audit.written = False
    peer.send(message(1, c_echo_rq(1)))
    assert is_aborted(peer)
    assert nothing_but_aborts(theirs)
    assert stage.audit.wait_for(AssociationEnded).reason is ReasonCode.AUDIT_UNAVAILABLE


def _asked(
    stage: World, archive: RawArchive, monkeypatch: pytest.MonkeyPatch
) -> tuple[Peer, Peer, list[Callable[[], None]]]:
    """Return the peers of an association on which the archive has answered a query, and who waits for the budgets."""
    peer, theirs = establish(stage, archive)
    held: list[Callable[[], None]] = []
    monkeypatch.setattr(stage.budgets, "keep", held.append)
    find = c_find_rq(1)
    peer.send(message(5, find, identifier()))
    theirs.next_message()
    both = message(5, response_to(find, 0xFF00, has_data_set=True), identifier()) + message(5, response_to(find))
    theirs.send(both)
    stage.until(lambda: len(held) == 1)
    return peer, theirs, held


def test_a_match_goes_out_after_its_budget_is_kept_and_not_before(
    stage: World, archive: RawArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, _theirs, held = _asked(stage, archive, monkeypatch)
    peer.socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        peer.socket.recv(1)
    peer.socket.settimeout(SECONDS)
    held[0]()
    assert [peer.next_message().command.status for _ in range(2)] == [0xFF00, 0]


def test_end_from_outside_sends_no_match_that_waits_for_its_budget(
    stage: World, archive: RawArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, _theirs, held = _asked(stage, archive, monkeypatch)
    assert stage.the_session().end(ReasonCode.DEVICE_SUSPENDED)
    held[0]()
    stage.barrier()
    assert is_aborted(peer)


@pytest.mark.parametrize("answer", [True, False])
def test_end_from_outside_forwards_nothing_that_waits(stage: World, archive: RawArchive, answer: bool) -> None:
    """Suspended while its operation waits for the record: it never reaches the archive, whatever the record does."""
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    held = _hold(stage)
    peer.send(message(1, c_echo_rq(1)))
    stage.audit.wait_for(OperationAllowed)
    assert session.end(ReasonCode.DEVICE_SUSPENDED)
    held[0](answer)
    stage.barrier()
    assert is_aborted(peer)
    item = theirs.next()
    assert isinstance(item, AAbort), item
    assert theirs.is_gone()


@pytest.mark.parametrize("then", ["end", "unwritten", "written"])
def test_relay_that_is_over_while_its_effects_wait_is_closed_all_the_same(
    stage: World, archive: RawArchive, then: str
) -> None:
    """An operation and a broken PDU in one read: the relay has said its last word, and won't say it again."""
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    held = _hold(stage)
    peer.send(message(1, c_echo_rq(1)) + b"\x99" * 100)
    stage.audit.wait_for(OperationAllowed)
    stage.until(lambda: session.relay is not None and session.relay.is_over)
    if then == "end":
        session.end(ReasonCode.DRAINING)
    else:
        held[0](then == "written")
    assert is_aborted(peer)
    assert is_aborted(theirs)
    peer.close()
    theirs.close()
    assert stage.gate.wait_until_empty(SECONDS)
    assert stage.the_limits_are_free()


def test_device_that_leaves_while_its_operation_waits_is_noticed(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    held = _hold(stage)
    peer.send(message(1, c_echo_rq(1)))
    stage.audit.wait_for(OperationAllowed)
    peer.reset()
    stage.until(lambda: Leg.REQUESTOR not in stage.the_session()._sides)
    held[0](True)
    assert is_aborted(theirs)
    theirs.close()
    assert stage.gate.wait_until_empty(SECONDS)
    assert stage.the_limits_are_free()


def test_defect_while_an_operation_waits_forwards_nothing(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    held = _hold(stage)
    peer.send(message(1, c_echo_rq(1)))
    stage.audit.wait_for(OperationAllowed)
    session.failed()
    held[0](True)
    stage.barrier()
    assert nothing_but_aborts(theirs)


def test_end_of_tls_is_noticed_although_nobody_reads_at_that_moment(stage: World, archive: RawArchive) -> None:
    """The last PDU and close_notify came together, and the PDU's record takes its time: no event comes any more."""
    sealed, theirs = _sealed_association(stage, archive)
    held = _hold(stage)
    sealed.say_last(message(1, c_echo_rq(1)))
    stage.audit.wait_for(OperationAllowed)
    stage.audit.held = None
    held[0](True)
    assert theirs.next_message().message_id == 1
    assert is_aborted(theirs)


# -- stale events and timers -------------------------------------------------------------------------------------------


def test_event_of_an_older_connection_with_the_same_descriptor_is_harmless(stage: World, archive: RawArchive) -> None:
    """EPOLLONESHOT says nothing about a descriptor that was closed and opened again: every handler tolerates it."""
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    for side in list(session._sides.values()):
        for readable, writable in ((True, True), (True, False), (False, True), (False, False)):
            side.ready(readable, writable)
    peer.send(message(1, c_echo_rq(1)))
    request = theirs.next_message()
    theirs.send(message(1, response_to(request.command)))
    assert peer.next_message().command.status == 0


def test_stale_event_during_the_handshake_is_harmless(world: World) -> None:
    connection = world.connect()
    world.until(lambda: len(world.gate.sessions()) == 1)
    session = world.the_session()
    session._sides[Leg.REQUESTOR].ready(True, True)
    assert not session.is_over
    secured = world.scanner.context().wrap_socket(connection, server_hostname="127.0.0.1")
    peer = Peer(secured)
    assert isinstance(peer.associate(), AAssociateAc)
    peer.close()


def test_stale_event_does_not_make_a_connection(stage: World, archive: RawArchive) -> None:
    """A connection that is still being made has no error either."""
    peer, _theirs = establish(stage, archive)
    session = stage.the_session()
    other = Side(session, Leg.ACCEPTOR, wire_module.Wire(socket.socket(), None, server_side=False))
    other.opening = True
    with session.lock:
        kept = session._sides[Leg.ACCEPTOR]
        session._sides[Leg.ACCEPTOR] = other
        session._connected(other)
        assert other.opening
        session._sides[Leg.ACCEPTOR] = kept
    other.wire.socket.close()
    peer.close()


def test_event_for_a_side_that_is_gone_is_dropped(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    side = session._sides[Leg.ACCEPTOR]
    theirs.close()
    peer.is_gone()
    side.ready(True, True)


def test_event_for_writing_reads_nothing(stage: World, archive: RawArchive) -> None:
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    side = session._sides[Leg.REQUESTOR]
    with session.lock:
        peer.send(message(1, c_echo_rq(1)))
        side.armed = READ
        side.ready(False, True)
        assert stage.audit.of(OperationAllowed) == []
    assert theirs.next_message().message_id == 1


def test_late_calls_about_what_is_gone_do_nothing(stage: World, archive: RawArchive) -> None:
    """A timer's call may wait for a worker while its connection ends."""
    peer, theirs = establish(stage, archive)
    session = stage.the_session()
    sides = dict(session._sides)
    for each in (peer, theirs):
        each.close()
    assert stage.gate.wait_until_empty(SECONDS)
    with session.lock:
        session._linger_over(sides[Leg.ACCEPTOR])
        session._closed_later(sides[Leg.ACCEPTOR], "late")
        session._stranger._let_go()
        session._do(Pause(Leg.ACCEPTOR))
        session._close(Leg.ACCEPTOR)
        session._upstream.dial()
    assert stage.engine.timers._calls == {}
    assert len(stage.engine._channels) == len(stage.acceptors)


def test_error_while_a_connection_is_made_is_a_rejection(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(113, "No route to host")

    monkeypatch.setattr(Session, "_connected", fail)
    monkeypatch.setattr(Wire, "is_connected", False)
    assert rejection(world.peer().associate())[0] == 2
    assert world.audit.wait_for(AssociationDenied).detail == "No route to host"


def test_timer_that_was_started_anew_has_not_fired(stage: World, archive: RawArchive) -> None:
    """The engine's call may wait for a worker when it is stopped."""
    peer, _theirs = establish(stage, archive)
    session = stage.the_session()
    with session.lock:
        session._timers.start(Timer.RELEASE, 0.0)
        session._timers.start(Timer.RELEASE, 600)
        session._timers_fired()
        assert session._timers.is_running(Timer.RELEASE)
        session._timers.stop(Timer.RELEASE)
        session._timers_fired()
    peer.send(message(1, c_echo_rq(1)))
    assert not session.is_over


# -- effects -----------------------------------------------------------------------------------------------------------


def test_byte_rate_pauses_reading_and_goes_on(tmp_path: Path, archive: RawArchive) -> None:
    limits = LimitSettings(device={"bytes_per_second": 2_000_000, "floor_bytes_per_second": 2_000_000})
    with running(tmp_path / "gateway", archive_at(archive.endpoint), limits=limits) as stage:
        peer, theirs = establish(stage, archive)
        sender = threading.Thread(
            target=lambda: peer.send(message(3, c_store_rq(1), image(pixels=b"p" * 6_000_000), size=16_000)),
            daemon=True,
        )
        began = time.monotonic()
        sender.start()
        assert len(theirs.next_message().data or b"") > 6_000_000
        assert time.monotonic() - began > 0.5
        sender.join(SECONDS)


def test_move_and_commitment_are_registered_before_they_are_forwarded(stage: World, archive: RawArchive) -> None:
    contexts = {1: "1.2.840.10008.5.1.4.1.2.2.2", 3: "1.2.840.10008.1.20.1"}
    stage.gate.use_registry(
        RegistrySnapshot(
            devices=(
                device("ct1", stage.scanner),
                device("ws1", None, address=Endpoint(host="127.0.0.1", port=104), role="workstation"),
            ),
            archives=stage.gate.registry.archives,
            revision=2,
        )
    )
    peer = stage.peer()
    peer.send(encode_pdu(a_associate_rq(contexts)))
    theirs, _ = archive.take_association()
    assert isinstance(peer.next(), AAssociateAc)
    peer.send(message(1, c_move_rq(1, "WS1"), identifier(study="1.2.3")))
    move = theirs.next_message()
    assert move.name == "C-MOVE-RQ"
    assert len(stage.correlations.moves_towards("pacs", "WS1")) == 1
    theirs.send(message(1, response_to(move.command)))
    assert peer.next_message().name == "C-MOVE-RSP"
    assert stage.correlations.moves_towards("pacs", "WS1") == []
    peer.send(message(3, n_action_rq(2), transaction("1.2.7.9")))
    assert theirs.next_message().name == "N-ACTION-RQ"
    (pending,) = stage.correlations.commitments_towards("pacs", "CT1")
    assert pending.transaction_uid == "1.2.7.9"
    peer.close()
    assert is_aborted(theirs)


def test_turn_of_a_second_move_comes_from_another_session(stage: World, archive: RawArchive) -> None:
    """The first session's end gives the turn while it holds its own lock: the second is called later, by a worker."""
    stage.gate.use_registry(
        RegistrySnapshot(
            devices=(
                device("ct1", stage.scanner),
                device("ws1", None, address=Endpoint(host="127.0.0.1", port=104), role="workstation"),
            ),
            archives=stage.gate.registry.archives,
            revision=2,
        )
    )
    contexts = {1: "1.2.840.10008.5.1.4.1.2.2.2"}
    ends = []
    for number in (1, 2):
        peer = stage.peer()
        peer.send(encode_pdu(a_associate_rq(contexts)))
        theirs, _ = archive.take_association()
        assert isinstance(peer.next(), AAssociateAc)
        peer.send(message(1, c_move_rq(number, "WS1"), identifier(study="1.2.3")))
        ends.append((peer, theirs))
    assert ends[0][1].next_message().message_id == 1
    stage.barrier()
    assert len(stage.correlations.moves_towards("pacs", "WS1")) == 1
    ends[0][0].close()
    assert ends[1][1].next_message().message_id == 2


def test_associations_end_together_without_a_deadlock(stage: World, archive: RawArchive) -> None:
    """Everybody ends everybody: each session's lock is taken alone."""
    ends = [establish(stage, archive) for _ in range(6)]
    sessions = [s for s in stage.gate.sessions() if isinstance(s, Session)]
    start = threading.Barrier(4)

    def end_all() -> None:
        start.wait(SECONDS)
        for session in sessions:
            session.end(ReasonCode.DRAINING)

    threads = [threading.Thread(target=end_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for peer, _ in ends:
        assert is_aborted(peer)
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert len(stage.audit.of(AssociationEnded)) == 6


def test_idle_association_is_aborted(tmp_path: Path, archive: RawArchive) -> None:
    with running(tmp_path / "gateway", archive_at(archive.endpoint), idle_seconds=0.1) as stage:
        peer, theirs = establish(stage, archive)
        assert is_aborted(peer)
        assert is_aborted(theirs)


# -- the archive side --------------------------------------------------------------------------------------------------


def test_archive_side_without_tls_is_identified_at_once(world: World) -> None:
    peer = world.send_to_archive_side(a_associate_rq(ALL, calling="PACS", called="CT1"))
    assert isinstance(peer.next(), AAssociateRj)
    assert world.audit.wait_for(AssociationDenied).reason is ReasonCode.CALLED_AE_TITLE_UNKNOWN


def test_archive_side_with_tls_wants_the_pinned_certificate(tmp_path: Path, serving: RawArchive) -> None:
    with running(tmp_path / "gateway", archive_at(serving.endpoint), archive_tls=True) as world:
        credentials = issue(world.settings, "pacs")
        _pin(world, serving.endpoint, credentials.record.sha256)
        peer = world.peer(credentials.context(), listener=Listener.ARCHIVE)
        peer.associate(a_associate_rq(ALL, calling="PACS", called="CT1"))
        assert world.audit.wait_for(AssociationDenied).reason is ReasonCode.CALLED_AE_TITLE_UNKNOWN
        other = world.peer(listener=Listener.ARCHIVE, context=world.scanner.context())
        other.associate(a_associate_rq(ALL, calling="PACS", called="CT1"))
        assert world.audit.wait_for(AssociationDenied, 2).reason is ReasonCode.CERTIFICATE_UNKNOWN
