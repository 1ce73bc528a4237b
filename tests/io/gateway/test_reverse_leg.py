"""A session's leg over reverse connections: what was sent before an answer goes to the next one if this one is dead."""

from collections.abc import Callable
from typing import cast

from dicomward.identity.registry import Device
from dicomward.io.gateway.reverse import Parked, ReverseConnections
from dicomward.io.gateway.reverse_leg import ReverseLeg
from dicomward.io.gateway.wire import Wire
from dicomward.relay.parked import MOST_OF_A_DEVICE
from dicomward.vocab.reason import ReasonCode

TARGET = Device(name="ws1", ae_titles=("WS1",), role="workstation", networks=("any",), reverse=True)


class _Parked:
    def __init__(self, name: str) -> None:
        self.wire = name


class _Reverse:
    """Remembers what it is told; `use` is called by hand."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []
        self.uses: list[Callable[[Parked | None], None]] = []
        self.reason: ReasonCode | None = None

    def take(self, device: str, use: Callable[[Parked | None], None]) -> None:
        assert device == "ws1"
        self.uses.append(use)

    def give(self, name: str | None) -> None:
        self.uses.pop()(None if name is None else cast("Parked", _Parked(name)))

    def give_back(self, parked: Parked) -> None:
        self.told.append(("back", parked.wire))

    def used(self, parked: Parked, association: str) -> None:
        self.told.append(("used", parked.wire))

    def answered(self, parked: Parked) -> None:
        self.told.append(("answered", parked.wire))

    def died(self, parked: Parked, association: str, detail: str) -> None:
        self.told.append(("died", parked.wire))

    def why_not(self, parked: Parked) -> ReasonCode | None:
        return self.reason


class _Owner:
    association = "a1"

    def __init__(self) -> None:
        self.wants = True
        self.told: list[tuple[str, object]] = []

    def guarded(self, call: Callable[[], None]) -> None:
        call()

    def still_wants(self, leg: ReverseLeg) -> bool:
        return self.wants

    def use_wire(self, wire: Wire) -> None:
        self.told.append(("use", wire))

    def send_again(self, buffers: list[bytes | memoryview]) -> None:
        self.told.append(("send", [bytes(buffer) for buffer in buffers]))

    def leg_opened(self) -> None:
        self.told.append(("opened", None))

    def leg_failed(self, detail: str, *, was_opened: bool) -> None:
        self.told.append(("failed", was_opened))


def made() -> tuple[ReverseLeg, _Owner, _Reverse]:
    owner, reverse = _Owner(), _Reverse()
    return ReverseLeg(owner, cast("ReverseConnections", reverse), TARGET), owner, reverse


def test_first_connection_opens_the_leg() -> None:
    leg, owner, reverse = made()
    assert leg.no_longer_allowed() is None
    assert not leg.is_replaceable("nothing was there yet")
    leg.answered()
    leg.open()
    reverse.give("one")
    assert owner.told == [("use", "one"), ("opened", None)]
    assert reverse.told == [("used", "one")]
    reverse.reason = ReasonCode.CERTIFICATE_REVOKED
    assert leg.no_longer_allowed() is ReasonCode.CERTIFICATE_REVOKED


def test_dead_connection_is_replaced_and_the_request_is_sent_again() -> None:
    leg, owner, reverse = made()
    leg.open()
    reverse.give("one")
    leg.wrote([b"request", memoryview(b" more")])
    assert leg.is_replaceable("reset")
    leg.open()
    reverse.give("two")
    assert owner.told[2:] == [("use", "two"), ("send", [b"request", b" more"])]
    assert reverse.told == [("used", "one"), ("died", "one"), ("used", "two")]


def test_answered_connection_is_not_replaced_and_nothing_is_kept_any_more() -> None:
    leg, _owner, reverse = made()
    leg.open()
    reverse.give("one")
    leg.wrote([b"request"])
    leg.answered()
    leg.answered()
    leg.wrote([b"image"])
    assert not leg.is_replaceable("reset")
    assert reverse.told == [("used", "one"), ("answered", "one")]
    assert leg._sent == []


def test_without_a_connection_the_leg_fails_before_and_after_it_was_open() -> None:
    leg, owner, reverse = made()
    leg.open()
    reverse.give(None)
    leg.open()
    reverse.give("one")
    assert leg.is_replaceable("reset")
    leg.open()
    reverse.give(None)
    assert [told for told in owner.told if told[0] == "failed"] == [("failed", False), ("failed", True)]


def test_connection_that_is_not_wanted_any_more_goes_back() -> None:
    leg, owner, reverse = made()
    owner.wants = False
    for name in ("one", None):
        leg.open()
        reverse.give(name)
    assert (owner.told, reverse.told) == ([], [("back", "one")])


def test_tries_have_an_end() -> None:
    leg, _owner, reverse = made()
    tries = 0
    leg.open()
    reverse.give("one")
    while leg.is_replaceable("reset"):
        tries += 1
        leg.open()
        reverse.give("next")
    assert tries == MOST_OF_A_DEVICE
