"""The agent's end of reverse connections, against a gateway in this process, and peers that know nothing of it."""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.event import AssociationAllowed, AssociationDenied
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateAc, AAssociateRj
from dicomward.identity.registry import Endpoint, RegistrySnapshot
from dicomward.io.edge import reverse as reverse_module
from dicomward.io.edge.gate import upstream_context
from dicomward.io.edge.reverse import ReverseLine
from dicomward.io.edge.reverse_gate import ReverseGate
from dicomward.io.gateway.engine import Engine
from dicomward.io.gateway.session import Session
from dicomward.settings import ListenAddress
from dicomward.settings.edge import EdgeDevice, EdgeSettings, parse_edge_settings
from dicomward.vocab.reason import ReasonCode
from tests.io.world import SECONDS, Audit, Credentials, Peer, RawArchive, World, archive_at, device, issue, running
from tests.relay.wire import CT_IMAGE, STUDY_FIND, VERIFICATION, a_associate_rq, c_store_rq, image, message

NOBODY = Endpoint(host="127.0.0.1", port=9)
SETTINGS = """
[edge]
state_directory = "state"
[upstream]
address = "{host}:{port}"
name = "{name}"
ca = "{ca}"
ae_titles = ["CT1"]
certificate_sha256 = "{pin}"
seconds = {seconds}
[[devices]]
name = "ws1"
ae_titles = ["WS1"]
listen = "127.0.0.1:11112"
certificate = "{certificate}"
key = "{key}"
store = "pass-through"
address = "127.0.0.1:{device}"
"""


class Agent:
    """What an agent has for the reverse connections of one device."""

    def __init__(self, directory: Path, ws1: Credentials, port: int, more: str = "", **changes: object) -> None:
        values: dict[str, object] = {
            "host": "127.0.0.1",
            "port": port,
            "name": "127.0.0.1",
            "pin": "",
            "seconds": 5,
            "device": 9,
            "ca": ws1.authority,
            "certificate": ws1.files.certificate,
            "key": ws1.files.key,
            **changes,
        }
        self.settings: EdgeSettings = parse_edge_settings(SETTINGS.format(**values) + more, directory / "edge.toml")
        self.device: EdgeDevice = self.settings.devices[0]
        self.audit = Audit()
        self.engine = Engine(1)
        self.gate = ReverseGate(self.device, self.settings, self.audit)
        self.line = ReverseLine(
            self.engine,
            name="ws1",
            listen=ListenAddress(host="127.0.0.1", port=11112),
            wanted=2,
            upstream=self.settings.upstream,
            context=upstream_context(self.device, self.settings.upstream, is_reverse=True),
            gate=self.gate,
            draw=lambda: 0.0,
        )

    def until(self, holds: Callable[[dict[str, object]], bool]) -> None:
        """Wait until the status is as it should be; each look is after what was posted before."""
        deadline = time.monotonic() + SECONDS
        while not holds(self.line.status()):
            assert time.monotonic() < deadline, self.line.status()
            over = threading.Event()
            self.engine.post(over.set)
            assert over.wait(SECONDS)

    def close(self) -> None:
        self.line.stop()
        for session in self.gate.sessions():
            assert isinstance(session, Session)
            session.failed()
        self.engine.stop()
        self.gate.close()


@contextmanager
def agent(directory: Path, ws1: Credentials, port: int, more: str = "", **changes: object) -> Iterator[Agent]:
    made = Agent(directory, ws1, port, more, **changes)
    made.engine.start()
    made.line.start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Credentials]]:
    with running(tmp_path_factory.mktemp("gateway") / "gateway", archive_at(NOBODY)) as world:
        ws1 = issue(world.settings, "ws1")
        yield world, ws1


@pytest.fixture
def world(stage: tuple[World, Credentials]) -> Iterator[World]:
    """A gateway that calls ws1 over what it has parked."""
    world, ws1 = stage
    world.gate.reverse = world.reverse = world.new_reverse()
    use(world, ws1)
    yield world
    world.reverse.close()
    for peer in world._peers:
        peer.close()
    world._peers.clear()
    assert world.gate.wait_until_empty(SECONDS)


@pytest.fixture
def ws1(stage: tuple[World, Credentials]) -> Credentials:
    return stage[1]


@pytest.fixture
def port(world: World) -> int:
    return next(number for listener, number in world.ports.items() if listener.value == "device")


@pytest.fixture
def listening() -> Iterator[RawArchive]:
    """The device's own SCP."""
    made = RawArchive()
    yield made
    made.close()


def use(world: World, ws1: Credentials, **changes: object) -> None:
    world.gate.use_registry(
        RegistrySnapshot(
            devices=(device("ct1", world.scanner), device("ws1", ws1, **{"reverse": True, **changes})),
            archives=world.gate.registry.archives,
            revision=1,
        )
    )


def call(world: World, *classes: str) -> Peer:
    peer = world.peer()
    contexts = dict(zip(range(1, 99, 2), classes or (VERIFICATION,), strict=False))
    peer.send(encode_pdu(replace(a_associate_rq(contexts), called_ae_title="WS1")))
    return peer


def test_association_reaches_the_device_and_another_spare_is_opened(
    world: World, ws1: Credentials, port: int, listening: RawArchive, tmp_path: Path
) -> None:
    with agent(tmp_path, ws1, port, device=listening.endpoint.port) as here:
        here.until(lambda status: status == {"parked": 2, "used": 0, "problem": "ok"})
        world.until(lambda: world.reverse.counts() == {"ws1": 2})
        peer = call(world, VERIFICATION, CT_IMAGE)
        assert isinstance(peer.next(), AAssociateAc)
        assert peer.echo() == 0
        peer.send(message(3, c_store_rq(2), image(pixels=b"p" * 300_000), size=16_000))
        assert peer.next_message().command.status == 0
        peer.release()
        here.until(lambda status: status == {"parked": 2, "used": 1, "problem": "ok"})
        allowed = here.audit.wait_for(AssociationAllowed)
        # The gateway is known by the certificate that it has shown.
        assert (allowed.assurance, allowed.calling_ae_title, allowed.called_ae_title) == ("tls-device", "CT1", "WS1")
        assert allowed.device == f"gateway-{(allowed.certificate_sha256 or '')[:16]}"


def test_operation_that_the_device_does_not_receive_is_refused_at_the_agent(
    world: World, ws1: Credentials, port: int, listening: RawArchive, tmp_path: Path
) -> None:
    with agent(tmp_path, ws1, port, device=listening.endpoint.port) as here:
        here.until(lambda status: status["parked"] == 2)
        assert isinstance(call(world, STUDY_FIND).next(), AAssociateRj)
        assert here.audit.wait_for(AssociationDenied).reason is ReasonCode.NO_PENDING_MOVE


def test_caller_that_is_not_listed_is_refused_at_the_agent(
    world: World, ws1: Credentials, port: int, listening: RawArchive, tmp_path: Path
) -> None:
    with agent(tmp_path, ws1, port, 'callers = ["PACS"]\n', device=listening.endpoint.port) as here:
        here.until(lambda status: status["parked"] == 2)
        assert isinstance(call(world).next(), AAssociateRj)
        assert here.audit.wait_for(AssociationDenied).reason is ReasonCode.ARCHIVE_UNKNOWN


def test_device_that_does_not_answer_is_told_to_the_gateway(
    world: World, ws1: Credentials, port: int, tmp_path: Path
) -> None:
    with agent(tmp_path, ws1, port) as here:
        here.until(lambda status: status["parked"] == 2)
        answer = call(world).next()
        assert isinstance(answer, AAssociateRj)
        assert (answer.result, answer.source) == (2, 3)
        assert here.audit.wait_for(AssociationDenied).reason is ReasonCode.UPSTREAM_UNREACHABLE


def test_gateway_that_closes_one_gets_another(world: World, ws1: Credentials, port: int, tmp_path: Path) -> None:
    with agent(tmp_path, ws1, port) as here:
        here.until(lambda status: status["parked"] == 2)
        world.until(lambda: world.reverse.counts() == {"ws1": 2})
        world.reverse.end_at(lambda _site: True)
        # Sooner than the agent counts as welcome, so it is a failure, and the next comes a little later.
        here.until(lambda status: status["parked"] == 0)
        here.until(lambda status: status["parked"] != 0)


def test_who_is_not_welcome_says_so_once(
    world: World, ws1: Credentials, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    use(world, ws1, reverse=False)
    with caplog.at_level(logging.WARNING), agent(tmp_path, ws1, port) as here:
        here.until(lambda status: "ended it at once" in str(status["problem"]))
    assert len([record for record in caplog.records if "ended it at once" in record.getMessage()]) <= 2


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "other.example"}, "TLS with 127.0.0.1"),
        ({"pin": "ab" * 32}, "which is not the pinned one"),
        ({"port": 9}, "Connection refused"),
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid"),
        ({"host": "255.255.255.255"}, "255.255.255.255"),
    ],
    ids=["name", "pin", "refused", "no-such-host", "no-way-there"],
)
def test_peer_that_is_not_the_gateway_gets_nothing(
    world: World, ws1: Credentials, port: int, tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    with agent(tmp_path, ws1, **{"port": port, **changes}) as here:  # type: ignore[arg-type]
        here.until(lambda status: problem in str(status["problem"]))
        assert here.line.status()["parked"] == 0
    assert world.reverse.counts() == {}


@contextmanager
def server(ws1: Credentials, serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Accept connections, each in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    accepting.join(SECONDS)
    for thread in threads:
        thread.join(SECONDS)


def test_archive_without_them_is_told_once_and_left_alone(
    world: World, ws1: Credentials, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    context = ws1.server_context()

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                with context.wrap_socket(connection, server_side=True) as sealed:
                    sealed.recv(1)
            except OSError:
                pass

    with server(ws1, serve) as other, caplog.at_level(logging.WARNING), agent(tmp_path, ws1, other) as here:
        here.until(lambda status: status["problem"] == "the upstream offers no reverse connections")
        here.until(lambda _status: not here.line._calls)
    told = [record for record in caplog.records if "offers no reverse connections" in record.getMessage()]
    assert len(told) == 1


def test_peer_that_refuses_the_protocol_is_one_without_them(
    world: World, ws1: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: object, _scratch: object, *, first: bool) -> bool:
        error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_NO_APPLICATION_PROTOCOL] alert")
        error.reason = "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"
        raise error

    monkeypatch.setattr("dicomward.io.gateway.wire.Wire.handshake", refuse)
    with server(ws1, lambda connection: connection.close()) as other, agent(tmp_path, ws1, other) as here:
        here.until(lambda status: status["problem"] == "the upstream offers no reverse connections")


def test_peer_that_says_nothing_is_given_up(world: World, ws1: Credentials, tmp_path: Path) -> None:
    def hold(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(SECONDS)
            try:
                while connection.recv(4096):
                    pass
            except OSError:
                pass

    with server(ws1, hold) as silent, agent(tmp_path, ws1, silent, seconds=1) as here:
        here.until(lambda status: "no TLS connection within 1 s" in str(status["problem"]))


def test_after_a_failure_the_second_one_follows_when_the_first_has_stood_for_a_while(
    world: World, ws1: Credentials, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reverse_module, "WELCOME_SECONDS", 0.01)
    use(world, ws1, reverse=False)
    with agent(tmp_path, ws1, port) as here:
        here.until(lambda status: "ended it at once" in str(status["problem"]))
        use(world, ws1)
        here.until(lambda status: status == {"parked": 2, "used": 0, "problem": "ok"})


def test_event_that_can_not_be_handled_is_a_failure(world: World, ws1: Credentials, port: int, tmp_path: Path) -> None:
    with agent(tmp_path, ws1, port) as here:
        here.until(lambda status: status["parked"] == 2)
        for each in list(here.line._calls):
            each.failed()
            each.failed()
            each.ready(readable=True, writable=False)
        assert here.line.status()["parked"] == 0
        assert "could not be handled" in str(here.line.status()["problem"])


def test_agent_that_stops_keeps_nothing(world: World, ws1: Credentials, port: int, tmp_path: Path) -> None:
    with agent(tmp_path, ws1, port) as here:
        here.until(lambda status: status["parked"] == 2)
        world.until(lambda: world.reverse.counts() == {"ws1": 2})
        here.line.stop()
        here.line.fill()
        world.until(lambda: world.reverse.counts() == {})
