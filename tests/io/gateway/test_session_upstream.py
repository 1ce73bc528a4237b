"""The way to an acceptor by itself: addresses in turn, giving up, and what is refused without a target."""

import socket
import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dicomward.identity.registry import Archive, Endpoint
from dicomward.io.gateway.gate import Gate, Refused
from dicomward.io.gateway.session_upstream import Upstream
from dicomward.io.gateway.wire import Wire
from dicomward.relay.inputs import Input, Leg, UpstreamFailed, UpstreamOpened
from dicomward.vocab.reason import ReasonCode

TARGET = Archive(name="pacs", ae_title="PACS", endpoint=Endpoint(host="127.0.0.1", port=104))


class Owner:
    """What a session does, written down."""

    def __init__(self) -> None:
        self.association = "a1"
        self.is_over = False
        self.is_open = False
        self.heard: list[Input] = []
        self.wires: list[Wire] = []

    def guarded(self, call: Callable[[], None]) -> None:
        call()

    def handle(self, happened: Input) -> None:
        self.heard.append(happened)

    def add_acceptor(self, wire: Wire, *, opening: bool) -> None:
        assert opening
        self.wires.append(wire)

    def watch_acceptor(self) -> bool:
        return self.is_open

    def forget(self, leg: Leg) -> None:
        assert leg is Leg.ACCEPTOR
        for wire in self.wires:
            wire.socket.close()

    def write(self, leg: Leg, buffers: list[bytes | memoryview]) -> None:
        raise AssertionError((leg, buffers))

    def acceptor_gone(self, detail: str) -> None:
        raise AssertionError(detail)


class Place:
    """An Upstream between a written-down session and a gate that finds these addresses."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.owner = Owner()
        self.calls_failed = 0
        self.refused: Refused | None = None
        self.found: Callable[[Any], None] = lambda _: None
        self.not_found: Callable[[str], None] = lambda _: None
        self.addresses = [(socket.AF_INET, address) for address in addresses]
        gate = SimpleNamespace(
            reverse=None,
            resolve=self.resolve,
            call_failed=self.call_failed,
            upstream_context=self.context,
            upstream_certificates=SimpleNamespace(read=lambda _: None),
        )
        self.upstream = Upstream(self.owner, cast(Gate, gate))

    def resolve(self, _: object, found: Callable[[Any], None], not_found: Callable[[str], None]) -> None:
        self.found, self.not_found = found, not_found

    def call_failed(self) -> None:
        self.calls_failed += 1

    def context(self, _: object) -> ssl.SSLContext | None:
        if self.refused is not None:
            raise self.refused
        return None


@pytest.fixture
def listening() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


def test_each_address_is_tried_and_the_last_failure_is_told(listening: tuple[str, int]) -> None:
    place = Place(listening, listening)
    place.upstream.open(7, TARGET)
    place.found(place.addresses)
    assert (len(place.owner.wires), place.owner.heard) == (1, [])
    place.upstream.not_connected("refused once")
    assert (len(place.owner.wires), place.owner.heard) == (2, [])
    place.upstream.not_connected("refused twice")
    assert place.owner.heard == [UpstreamFailed(7, ReasonCode.UPSTREAM_UNREACHABLE, "refused twice")]
    assert place.calls_failed == 1


def test_who_answers_is_told(listening: tuple[str, int]) -> None:
    place = Place(listening)
    place.upstream.open(7, TARGET)
    place.found(place.addresses)
    assert place.owner.heard == []
    place.upstream.opened()
    assert place.owner.heard == [UpstreamOpened(7)]
    place.owner.forget(Leg.ACCEPTOR)


def test_who_is_there_at_once_is_told_at_once(listening: tuple[str, int]) -> None:
    place = Place(listening)
    place.owner.is_open = True
    place.upstream.open(7, TARGET)
    place.found(place.addresses)
    assert place.owner.heard == [UpstreamOpened(7)]
    place.owner.forget(Leg.ACCEPTOR)


def test_a_name_that_nobody_knows_is_told() -> None:
    place = Place()
    place.upstream.open(7, TARGET)
    place.not_found("no such host")
    assert place.owner.heard == [UpstreamFailed(7, ReasonCode.UPSTREAM_UNREACHABLE, "no such host")]


def test_what_the_gate_refuses_is_not_called(listening: tuple[str, int]) -> None:
    place = Place(listening, listening)
    place.refused = Refused(ReasonCode.UPSTREAM_NOT_TRUSTED, "plaintext off loopback")
    place.upstream.open(7, TARGET)
    place.found(place.addresses)
    assert place.owner.heard == [UpstreamFailed(7, ReasonCode.UPSTREAM_NOT_TRUSTED, "plaintext off loopback")]
    assert place.owner.wires == []


@pytest.mark.parametrize("how", ["given up", "over"])
def test_an_address_that_is_found_too_late_is_not_called(listening: tuple[str, int], how: str) -> None:
    place = Place(listening)
    place.upstream.open(7, TARGET)
    if how == "over":
        place.owner.is_over = True
    else:
        place.upstream.give_up()
    place.found(place.addresses)
    assert (place.owner.wires, place.owner.heard) == ([], [])


def test_without_a_target_no_certificate_is_good() -> None:
    place = Place()
    with pytest.raises(Refused, match="nobody knows whom"):
        place.upstream.judge(cast(ssl.SSLObject, None))


def test_a_dialled_acceptor_is_not_replaced_and_has_no_standing_of_its_own() -> None:
    place = Place()
    assert not place.upstream.is_replaced("gone")
    assert place.upstream.no_longer_allowed() is None
