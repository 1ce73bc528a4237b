"""Reverse connections: devices park them, associations to these devices use them, and nobody else gets one."""

import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dicomward.audit.event import AssociationDenied, AssociationEnded, ConnectionFailed, ReverseConnection
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAbort, AAssociateAc, AAssociateRq
from dicomward.identity.registry import DeviceStatus, Endpoint, RegistrySnapshot
from dicomward.io.gateway import reverse as reverse_module
from dicomward.io.gateway.commands import Commands
from dicomward.io.gateway.reverse import Parked
from dicomward.io.protection.lockdown import change_lockdown
from dicomward.io.protection.lockdown_keeper import LockdownKeeper
from dicomward.io.tls import REVERSE_ALPN
from dicomward.relay import parked as parked_module
from dicomward.relay.inputs import Listener
from dicomward.relay.parked import MOST_OF_A_DEVICE
from dicomward.vocab.reason import ReasonCode
from tests.io.world import (
    SECONDS,
    Credentials,
    GoneError,
    Peer,
    World,
    archive_at,
    device,
    issue,
    rejection,
    running,
    serve,
)
from tests.relay.wire import VERIFICATION, a_associate_ac, a_associate_rq

NOBODY = Endpoint(host="127.0.0.1", port=9)


class Place:
    """A gateway with ct1, which calls, and ws1 and ws2, which are called over what they have parked."""

    def __init__(self, world: World, ws1: Credentials, ws2: Credentials) -> None:
        self.world, self.ws1, self.ws2 = world, ws1, ws2
        self.use(device("ws1", self.ws1, reverse=True), device("ws2", self.ws2, reverse=True))

    def use(self, *devices: object) -> None:
        world = self.world
        registry = RegistrySnapshot(
            devices=(device("ct1", world.scanner), *devices),  # type: ignore[arg-type]
            archives=world.gate.registry.archives,
            revision=world.gate.registry.revision + 1,
        )
        self.registry = registry
        world.gate.use_registry(registry)

    def offer(self, credentials: Credentials | None = None, **options: object) -> Peer:
        """Open a connection that wants to be parked."""
        context = (credentials or self.ws1).context()
        context.set_alpn_protocols([REVERSE_ALPN])
        return self.world.peer(context, **options)  # type: ignore[arg-type]

    def park(self, credentials: Credentials | None = None) -> Peer:
        before = len(self.events("parked"))
        peer = self.offer(credentials)
        self.world.until(lambda: len(self.events("parked")) > before)
        return peer

    def call(self, called: str = "WS1") -> Peer:
        """Ask for an association to a device."""
        peer = self.world.peer()
        peer.send(encode_pdu(replace(a_associate_rq({1: VERIFICATION}), called_ae_title=called)))
        return peer

    def events(self, action: str) -> list[ReverseConnection]:
        return [each for each in self.world.audit.of(ReverseConnection) if each.action == action]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Credentials, Credentials]]:
    directory = tmp_path_factory.mktemp("reverse")
    with running(directory / "gateway", archive_at(NOBODY), archive_tls=True) as world:
        yield world, issue(world.settings, "ws1"), issue(world.settings, "ws2")


@pytest.fixture
def place(stage: tuple[World, Credentials, Credentials]) -> Iterator[Place]:
    """The same gateway for all, but with nothing parked, and nothing on record."""
    world, *credentials = stage
    world.gate.reverse = world.reverse = world.new_reverse()
    world.audit.events.clear()
    yield Place(world, *credentials)
    world.reverse.close()
    for peer in world._peers:
        peer.close()
    world._peers.clear()
    assert world.gate.wait_until_empty(SECONDS)


def accept(peer: Peer) -> AAssociateRq:
    request = peer.next()
    assert isinstance(request, AAssociateRq), request
    peer.send(encode_pdu(a_associate_ac(request)))
    return request


def serve_to_the_end(peer: Peer) -> None:
    try:
        serve(peer)
    except GoneError:
        peer.close()


def test_association_to_the_device_comes_over_its_own_connection(place: Place) -> None:
    other, parked = place.park(place.ws2), place.park()
    caller = place.call()
    request = accept(parked)
    assert (request.calling_ae_title, request.called_ae_title) == ("CT1", "WS1")
    assert isinstance(caller.next(), AAssociateAc)
    served = threading.Thread(target=serve_to_the_end, args=(parked,))
    served.start()
    assert caller.echo() == 0
    caller.release()
    served.join(SECONDS)
    ended = place.world.audit.wait_for(AssociationEnded)
    (used,) = place.events("used")
    assert (used.device, used.association, used.certificate_sha256) == (
        "ws1",
        ended.association,
        place.ws1.record.sha256,
    )
    assert place.world.reverse.counts() == {"ws2": 1}
    other.close()
    place.world.until(lambda: not place.world.reverse.counts())
    assert place.events("closed")[-1].reason is ReasonCode.PEER_CLOSED


def test_parked_connection_is_no_session_and_counts_nowhere(place: Place) -> None:
    place.park()
    assert place.world.gate.wait_until_empty(SECONDS)
    assert place.world.gate.waiting() == []
    assert place.world.the_limits_are_free()


def test_who_calls_waits_for_a_connection(place: Place) -> None:
    caller = place.call()
    place.world.until(lambda: bool(place.world.reverse._waiting))
    parked = place.offer()
    accept(parked)
    assert isinstance(caller.next(), AAssociateAc)


def test_without_a_connection_the_call_fails_like_at_a_device_that_does_not_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reverse_module, "WAIT_SECONDS", 0.05)
    place.park(place.ws2)
    assert rejection(place.call().next()) == (2, 3, 1)
    denied = place.world.audit.wait_for(AssociationDenied)
    assert denied.reason is ReasonCode.UPSTREAM_UNREACHABLE
    assert "no reverse connection of 'ws1'" in (denied.detail or "")
    assert place.world.reverse.counts() == {"ws2": 1}


def test_dead_connection_is_replaced_by_the_next_one(place: Place) -> None:
    alive = place.park()
    dead = place.park()
    caller = place.call()
    # The newest is taken; whoever is there goes away without a word.
    dead.socket.recv(1)
    dead.reset()
    request = accept(alive)
    assert request.called_ae_title == "WS1"
    assert isinstance(caller.next(), AAssociateAc)
    assert place.events("closed")[0].association == place.events("used")[0].association
    assert len(place.events("used")) == 2


def test_device_that_never_answers_ends_in_a_rejection(place: Place) -> None:
    caller = place.call()
    for _ in range(MOST_OF_A_DEVICE + 1):
        peer = place.offer()
        peer.socket.recv(1)
        peer.reset()
    assert rejection(caller.next()) == (2, 3, 1)
    assert place.world.audit.wait_for(AssociationDenied).reason is ReasonCode.UPSTREAM_ABORTED
    assert place.world.the_limits_are_free()


def test_no_next_one_ends_in_a_rejection(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverse_module, "WAIT_SECONDS", 0.05)
    dead = place.park()
    caller = place.call()
    dead.socket.recv(1)
    dead.reset()
    assert rejection(caller.next()) == (2, 3, 1)


def test_after_its_first_answer_a_connection_is_like_any_other(place: Place) -> None:
    place.park()
    parked = place.park()
    caller = place.call()
    accept(parked)
    assert isinstance(caller.next(), AAssociateAc)
    parked.reset()
    assert isinstance(caller.next(), AAbort)
    assert len(place.events("used")) == 1


def test_caller_who_has_gone_costs_no_connection(place: Place) -> None:
    caller = place.call()
    place.world.until(lambda: bool(place.world.reverse._waiting))
    caller.reset()
    assert place.world.gate.wait_until_empty(SECONDS)
    place.park()
    place.world.until(lambda: place.world.reverse.counts() == {"ws1": 1})
    assert place.events("used") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reverse": False}, ReasonCode.REVERSE_NOT_REGISTERED),
        ({"reverse": True, "status": DeviceStatus.SUSPENDED}, ReasonCode.DEVICE_SUSPENDED),
        ({"reverse": True, "networks": ("192.0.2.0/24",)}, ReasonCode.NETWORK_NOT_ALLOWED),
    ],
    ids=["not-reverse", "suspended", "elsewhere"],
)
def test_who_may_not_park_is_closed_and_named(place: Place, change: dict[str, object], reason: ReasonCode) -> None:
    place.use(device("ws1", place.ws1, **change))
    assert place.offer().is_gone()
    failed = place.world.audit.wait_for(ConnectionFailed)
    assert (failed.reason, failed.device, failed.certificate_sha256) == (reason, "ws1", place.ws1.record.sha256)
    assert place.world.reverse.counts() == {}


def test_only_the_device_side_takes_them(place: Place) -> None:
    assert place.offer(listener=Listener.ARCHIVE).is_gone()
    assert place.world.audit.wait_for(ConnectionFailed).reason is ReasonCode.REVERSE_NOT_REGISTERED


def test_gateway_without_them_closes(place: Place) -> None:
    place.world.gate.reverse = None
    assert place.offer().is_gone()
    assert place.world.audit.wait_for(ConnectionFailed).reason is ReasonCode.REVERSE_NOT_REGISTERED
    # And who is called then has no address.
    assert rejection(place.call().next()) == (2, 3, 1)


def test_connection_that_speaks_first_is_closed(place: Place) -> None:
    parked = place.park()
    parked.send(encode_pdu(a_associate_rq({1: VERIFICATION})))
    assert parked.is_gone()
    place.world.until(lambda: bool(place.events("closed")))
    assert place.events("closed")[0].reason is ReasonCode.UNEXPECTED_PDU


def test_other_protocols_and_none_go_on_as_before(place: Place) -> None:
    context = place.world.scanner.context()
    context.set_alpn_protocols(["dicom", "http/1.1"])
    peer = place.world.peer(context)
    assert isinstance(peer.socket, ssl.SSLSocket)
    assert peer.socket.selected_alpn_protocol() is None
    peer.send(encode_pdu(a_associate_rq({1: VERIFICATION})))
    # There is no archive; the association got that far.
    assert rejection(peer.next()) == (2, 3, 1)


def test_newer_connection_takes_the_place_of_the_oldest(place: Place) -> None:
    first = place.park()
    for _ in range(MOST_OF_A_DEVICE):
        place.park()
    assert first.is_gone()
    assert place.world.reverse.counts() == {"ws1": MOST_OF_A_DEVICE}
    assert place.events("closed")[0].reason is ReasonCode.REVERSE_CONNECTIONS


def test_suspended_device_loses_what_is_parked_and_what_is_used(place: Place) -> None:
    used, other = place.park(), place.park(place.ws2)
    caller = place.call()
    accept(used)
    assert isinstance(caller.next(), AAssociateAc)
    parked = place.park()
    suspended = replace(place.registry.device_by_name("ws1"), status=DeviceStatus.SUSPENDED)  # type: ignore[type-var]
    commands = Commands(place.world.gate, lambda: place.registry)
    place.use(suspended, device("ws2", place.ws2, reverse=True))
    assert commands.handle({"do": "registry-changed", "audit": {}})["aborted"] == 1
    # The answer is there, so it has happened.
    assert place.world.reverse.counts() == {"ws2": 1}
    assert parked.is_gone()
    assert isinstance(caller.next(), AAbort)
    other.close()


def test_association_over_a_revoked_certificate_ends_although_the_device_stays(place: Place) -> None:
    used = place.park()
    caller = place.call()
    accept(used)
    assert isinstance(caller.next(), AAssociateAc)
    revoked = replace(place.ws1.record, status="revoked")
    place.use(device("ws1", place.ws1, reverse=True, certificates=(revoked,)))
    assert Commands(place.world.gate, lambda: place.registry).reload_registry() == 1
    assert isinstance(caller.next(), AAbort)


def test_judged_anew_before_its_use(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverse_module, "WAIT_SECONDS", 0.05)
    place.park()
    # Nobody was told: the certificate has ended, say.
    place.use(device("ws1", place.ws1, reverse=True, networks=("192.0.2.0/24",)))
    assert rejection(place.call().next()) == (2, 3, 1)
    assert place.events("closed")[0].reason is ReasonCode.NETWORK_NOT_ALLOWED


def test_certificate_of_another_device_meanwhile_is_not_taken(place: Place) -> None:
    place.park()
    (parked,) = place.world.reverse._parked.values()
    place.use(device("ws9", place.ws1, reverse=True))
    assert place.world.reverse.why_not(parked) is ReasonCode.CERTIFICATE_UNKNOWN


def test_lockdown_closes_those_of_its_sites(place: Place) -> None:
    place.use(
        device("ws1", place.ws1, reverse=True, site="north"), device("ws2", place.ws2, reverse=True, site="south")
    )
    place.park()
    place.park(place.ws2)
    settings = place.world.settings
    keeper = LockdownKeeper(place.world.gate, settings.gateway.state_directory)
    try:
        change_lockdown(settings, "north", "anna", reason="why", now="2026-01-31T12:00:00Z", lift=False)
        assert keeper.changed({"audit": {}})["ok"] is True
    finally:
        change_lockdown(settings, "north", "anna", reason="why", now="2026-01-31T12:00:00Z", lift=True)
    assert place.world.reverse.counts() == {"ws2": 1}
    assert place.events("closed")[0].reason is ReasonCode.SITE_LOCKDOWN
    # The agent may park anew: reports of storage commitment belong to the floor.
    place.park()
    keeper.changed({"audit": {}})
    assert place.world.reverse.counts() == {"ws1": 1, "ws2": 1}


def test_nothing_stands_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverse_module, "MOST_SECONDS", 0.05)
    assert place.park().is_gone()
    assert place.events("closed")[0].reason is None


def test_gateway_that_stops_parks_nothing_and_lets_nobody_wait(place: Place) -> None:
    parked = place.park()
    caller = place.call("WS2")
    place.world.until(lambda: bool(place.world.reverse._waiting))
    place.world.reverse.close()
    assert parked.is_gone()
    assert rejection(caller.next()) == (2, 3, 1)
    assert place.offer().is_gone()
    assert place.world.audit.wait_for(ConnectionFailed).reason is ReasonCode.DRAINING
    assert rejection(place.call().next()) == (2, 3, 1)


def test_connection_that_nobody_wants_after_all_is_parked_again(place: Place) -> None:
    peer = place.park()
    taken: list[Parked | None] = []
    place.world.reverse.take("ws1", taken.append)
    place.world.until(lambda: bool(taken))
    assert place.world.reverse.counts() == {}
    assert taken[0] is not None
    place.world.reverse.give_back(taken[0])
    assert place.world.reverse.counts() == {"ws1": 1}
    place.world.reverse.take("ws1", taken.append)
    place.world.until(lambda: len(taken) == 2)
    place.world.reverse.close()
    assert taken[1] is not None
    place.world.reverse.give_back(taken[1])
    assert peer.is_gone()


def test_more_than_a_network_may_have_is_refused_and_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked_module, "MOST_OF_A_NETWORK", 1)
    place.park()
    assert place.offer(place.ws2).is_gone()
    failed = place.world.audit.wait_for(ConnectionFailed)
    assert (failed.reason, failed.device) == (ReasonCode.REVERSE_CONNECTIONS, "ws2")


def test_connection_that_breaks_while_it_is_parked_is_noted(place: Place) -> None:
    place.park().reset()
    place.world.until(lambda: bool(place.events("closed")))
    assert place.world.reverse.counts() == {}


def test_event_that_can_not_be_handled_closes_it(place: Place) -> None:
    peer = place.park()
    (parked,) = place.world.reverse._parked.values()
    assert isinstance(parked, Parked)
    parked.failed()
    parked.failed()
    # It was under way already.
    parked.ready(readable=True, writable=False)
    assert peer.is_gone()
    assert [each.reason for each in place.events("closed")] == [ReasonCode.INTERNAL_ERROR]
