"""A requestor before it is identified, by itself: TLS or not, its key, and how it is sent away."""

import socket
import ssl
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.identify import IdentityError
from dicomward.io.gateway.engine import Engine
from dicomward.io.gateway.gate import Gate
from dicomward.io.gateway.listeners import NamedListener
from dicomward.io.gateway.session_stranger import Stranger
from dicomward.io.gateway.wire import Wire
from dicomward.relay.inputs import Listener
from dicomward.settings import ListenAddress
from dicomward.vocab.reason import ReasonCode

ADDRESS = "127.0.0.1"
KEY = cast(PeerCertificate, SimpleNamespace(sha256="ab" * 32))


class Place:
    """A Stranger between a written-down session, gate and engine. The stranger's own end of the line is `peer`."""

    def __init__(self, kind: Listener = Listener.DEVICE, *, tls: bool = True, held_seconds: float = 0.0) -> None:
        with socket.create_server((ADDRESS, 0)) as server:
            self.peer = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
        self.told: list[object] = []
        self.held_seconds = held_seconds
        self.evicts: Place | None = None
        self.may_park = True
        self.association = "a1"
        self.address = ADDRESS
        self.is_over = False
        self.timers: dict[int, Callable[[], None]] = {}
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        read = SimpleNamespace(read=lambda _: KEY)
        gate = SimpleNamespace(
            reverse=self,
            listener_context=lambda _: SimpleNamespace(context=context, certificates=read) if context else None,
            connection_failed=lambda _, certificate, reason, detail: self.told.append((reason, certificate, detail)),
            stranger_failed=lambda _: self.held_seconds,
            key_proved=self._key_proved,
        )
        engine = SimpleNamespace(
            timers=SimpleNamespace(after=self._after, cancel=self._cancel), post=lambda call: call()
        )
        self.gate = gate
        listener = NamedListener(name="any", kind=kind, address=ListenAddress(host=ADDRESS, port=0), tls=tls)
        self.stranger = Stranger(self, cast(Engine, engine), cast(Gate, gate), listener, ours)

    def _key_proved(self, _: object, sha256: str) -> "Place | None":
        self.told.append(sha256)
        return self.evicts

    def _after(self, seconds: float, call: Callable[[], None]) -> int:
        self.timers[7] = call
        return 7

    def _cancel(self, number: int) -> None:
        del self.timers[number]

    def guarded(self, call: Callable[[], None]) -> None:
        call()

    def end(self, reason: ReasonCode) -> bool:
        self.told.append(reason)
        return True

    def part_with_requestor(self) -> None:
        self.told.append("parted")

    def over(self) -> None:
        self.is_over = True

    def judge(self, *_: object) -> None:
        if not self.may_park:
            raise IdentityError(ReasonCode.REVERSE_NOT_REGISTERED, "not registered for it")

    def park(self, wire: Wire, certificate: PeerCertificate, address: str) -> None:
        assert (wire, address) == (self.stranger.wire, ADDRESS)
        self.told.append(("parked", certificate))

    def hears(self) -> bytes:
        """Return what the stranger is sent until the connection ends."""
        self.peer.settimeout(10)
        return self.peer.recv(100)


@pytest.fixture
def make() -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def one(*args: Any, **more: Any) -> Place:
        made.append(Place(*args, **more))
        return made[-1]

    yield one
    for each in made:
        each.peer.close()
        each.stranger.wire.socket.close()


def test_nothing_is_said_before_the_first_byte_and_tls_goes_on(make: Callable[..., Place]) -> None:
    place = make()
    assert not place.stranger.has_begun_tls()
    place.peer.sendall(b"\x16")
    assert place.stranger.has_begun_tls()
    assert place.stranger.has_begun_tls()
    assert (place.told, place.is_over) == ([], False)


@pytest.mark.parametrize(
    ("first", "detail"), [(b"\x01", "a plaintext DICOM association: first byte 01H"), (b"G", "no TLS: first byte 47H")]
)
def test_what_is_no_tls_is_dropped_and_told(make: Callable[..., Place], first: bytes, detail: str) -> None:
    place = make()
    place.peer.sendall(first)
    assert not place.stranger.has_begun_tls()
    assert place.told == [(ReasonCode.NOT_TLS, None, detail), "parted"]
    assert place.is_over


def test_a_listener_without_tls_asks_for_none_and_reads_no_certificate(make: Callable[..., Place]) -> None:
    place = make(tls=False)
    assert place.stranger.has_begun_tls()
    assert place.stranger.certificate(cast(ssl.SSLObject, None)) is None
    assert make().stranger.certificate(cast(ssl.SSLObject, None)) is KEY


def test_who_is_in_the_way_of_a_proved_key_is_ended(make: Callable[..., Place]) -> None:
    place, other = make(), make()
    place.stranger.key_proved(KEY)
    assert place.told == [KEY.sha256]
    place.evicts = other
    place.stranger.key_proved(KEY)
    assert other.told == [ReasonCode.ADDRESS_DELAY]


def test_a_device_with_a_key_is_parked_and_its_wire_stays_open(make: Callable[..., Place]) -> None:
    place = make(tls=False)
    place.stranger.park(KEY)
    assert place.told == [KEY.sha256, "parted", ("parked", KEY)]
    assert place.is_over
    assert place.stranger.wire.socket.fileno() >= 0


@pytest.mark.parametrize("why", ["no key", "an archive", "not registered", "nobody is called"])
def test_who_may_not_be_parked_is_dropped(make: Callable[..., Place], why: str) -> None:
    place = make(Listener.ARCHIVE if why == "an archive" else Listener.DEVICE, tls=False)
    place.may_park = why != "not registered"
    if why == "nobody is called":
        place.gate.reverse = None
    certificate = None if why == "no key" else KEY
    place.stranger.park(certificate)
    [(reason, whose, detail)] = [each for each in place.told if isinstance(each, tuple)]
    assert (reason, whose) == (ReasonCode.REVERSE_NOT_REGISTERED, certificate)
    assert detail.startswith("reverse connection: ")
    assert (place.is_over, place.hears()) == (True, b"")


def test_an_answer_that_is_held_back_goes_when_its_time_comes(make: Callable[..., Place]) -> None:
    place = make(held_seconds=3.0)
    place.stranger.drop(ReasonCode.TLS_FAILED, "bad", hold=True)
    assert not place.is_over
    place.timers[7]()
    assert (place.is_over, place.timers, place.hears()) == (True, {}, b"")
    place.stranger._let_go()


@pytest.mark.parametrize("how", ["asked again", "a defect"])
def test_an_answer_that_is_held_back_is_not_waited_for_twice(make: Callable[..., Place], how: str) -> None:
    place = make(held_seconds=3.0)
    place.stranger.drop(ReasonCode.TLS_FAILED, "bad", hold=True)
    if how == "asked again":
        place.stranger.drop(ReasonCode.DRAINING, "ended", hold=False)
        assert place.is_over
    else:
        place.stranger.failed()
    assert (place.timers, place.hears()) == ({}, b"")
    assert [each for each in place.told if isinstance(each, tuple)] == [(ReasonCode.TLS_FAILED, None, "bad")]


def test_a_peer_that_has_gone_already_is_let_go(make: Callable[..., Place]) -> None:
    place = make()
    place.stranger.wire.socket.close()
    place.stranger.drop(ReasonCode.PEER_CLOSED, "gone", hold=False)
    assert place.is_over


def test_a_defect_closes_nothing_that_was_not_dropped(make: Callable[..., Place]) -> None:
    """The session closes the wires that it has itself."""
    place = make()
    place.stranger.failed()
    assert place.stranger.wire.socket.fileno() >= 0


def test_a_wire_whose_handshake_is_done_is_taken_as_it_is(make: Callable[..., Place]) -> None:
    place = make(tls=False)
    listener = NamedListener(name="any", kind=Listener.DEVICE, address=ListenAddress(host=ADDRESS, port=0), tls=False)
    adopted = Stranger(place, cast(Engine, None), cast(Gate, place.gate), listener, place.stranger.wire)
    assert adopted.wire is place.stranger.wire
