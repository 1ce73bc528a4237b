"""The queue in front of the verifiers: one verdict each, bounded, with back-off and a named degraded state."""

import queue
import threading
from datetime import UTC, datetime

import pytest

from dicomward.audit.event import AuditEvent, DegradedEntered, DegradedLeft, SecurityAlert
from dicomward.identity.person import Person, PersonClaim, PersonRefused, PersonUnavailable, Verdict
from dicomward.io.people import verifier as module
from dicomward.io.people.verifier import COMPONENT, MOST_OF_A_DEVICE, PersonVerifier
from dicomward.limits.people import FREE_PERSON_FAILURES
from dicomward.vocab.association import UserIdentityType
from dicomward.vocab.reason import ReasonCode

SECONDS = 20.0
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)
ANNA = Person(name="anna", until=UNTIL)
WRONG = PersonRefused(ReasonCode.USER_IDENTITY_REFUSED, "wrong name or passcode")
PASSCODE = UserIdentityType.USERNAME_AND_PASSCODE


class Fake:
    """A source that says what it is told; it waits for `gate` first."""

    type = PASSCODE

    def __init__(self, *verdicts: Verdict | Exception | None, configured: bool = True) -> None:
        self.verdicts = list(verdicts)
        self.configured = configured
        self.gate = threading.Event()
        self.gate.set()
        self.asked = 0

    def is_configured(self) -> bool:
        return self.configured

    def verify(self, claim: PersonClaim, now: datetime) -> Verdict | None:
        assert now.tzinfo is not None
        assert claim.type is PASSCODE
        assert self.gate.wait(SECONDS)
        self.asked += 1
        verdict = self.verdicts[min(self.asked, len(self.verdicts)) - 1]
        if isinstance(verdict, Exception):
            raise verdict
        return verdict


class World:
    def __init__(self, *sources: Fake) -> None:
        self.events: list[AuditEvent] = []
        self.verifier = PersonVerifier(sources, self.events.append)

    def ask(self, name: str = "anna", device: str = "ws1") -> Verdict:
        answers: queue.Queue[Verdict] = queue.Queue()
        self.verifier.verify(claim(name, device), answers.put)
        return answers.get(timeout=SECONDS)


def claim(name: str = "anna", device: str = "ws1") -> PersonClaim:
    return PersonClaim(type=PASSCODE, name=name, secret=b"x", device=device, address="127.0.0.1")


def test_the_first_source_that_knows_the_person_judges() -> None:
    world = World(Fake(None), Fake(ANNA), Fake(WRONG))
    assert world.ask() == ANNA
    assert world.events == []


def test_only_configured_types_are_verified() -> None:
    verifier = World(Fake(ANNA, configured=False)).verifier
    assert not verifier.verifies(2)
    assert World(Fake(ANNA)).verifier.verifies(2)
    assert not World(Fake(ANNA)).verifier.verifies(1)
    assert not World().verifier.verifies(5)


def test_a_person_that_nobody_knows_is_refused() -> None:
    world = World(Fake(None), Fake(ANNA, configured=False))
    assert world.ask() == WRONG


def test_guessing_is_not_listened_to_and_alarms() -> None:
    source = Fake(*[WRONG] * FREE_PERSON_FAILURES, ANNA)
    world = World(source)
    for _ in range(FREE_PERSON_FAILURES):
        assert world.ask() == WRONG
    refused = world.ask()
    assert isinstance(refused, PersonRefused)
    assert refused.reason is ReasonCode.USER_IDENTITY_BACK_OFF
    assert source.asked == FREE_PERSON_FAILURES
    (alert,) = world.events
    assert isinstance(alert, SecurityAlert)
    assert (alert.person, alert.device, alert.reason) == ("anna", "ws1", ReasonCode.USER_IDENTITY_BACK_OFF)
    assert world.ask("bert") == ANNA


def test_the_degraded_state_is_entered_and_left_once() -> None:
    away = PersonUnavailable("directory away")
    world = World(Fake(away, away, WRONG, ANNA, ANNA))
    for expected in (away, away, WRONG, ANNA, ANNA):
        assert world.ask() == expected
    entered, left = world.events
    assert isinstance(entered, DegradedEntered)
    assert (entered.component, entered.state, entered.detail) == (COMPONENT, "device-only", "directory away")
    assert isinstance(left, DegradedLeft)


def test_a_defect_is_nobodys_passcode(caplog: pytest.LogCaptureFixture) -> None:
    world = World(Fake(RuntimeError("boom"), ANNA))
    assert world.ask() == PersonUnavailable("internal error: RuntimeError")
    assert "boom" in caplog.text
    assert world.ask() == ANNA


def test_no_device_takes_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Fake(ANNA)
    source.gate.clear()
    world = World(source)
    answers: queue.Queue[Verdict] = queue.Queue()
    for _ in range(MOST_OF_A_DEVICE):
        world.verifier.verify(claim(), answers.put)
    too_much = PersonUnavailable("too many persons wait for a verdict")
    assert world.ask() == too_much
    monkeypatch.setattr(module, "MOST_WAITING", MOST_OF_A_DEVICE)
    assert world.ask(device="ws2") == too_much
    source.gate.set()
    assert [answers.get(timeout=SECONDS) for _ in range(MOST_OF_A_DEVICE)] == [ANNA] * MOST_OF_A_DEVICE
    assert world.ask() == ANNA


def test_after_the_stop_nobody_is_verified() -> None:
    world = World(Fake(ANNA))
    assert world.ask() == ANNA
    world.verifier.stop()
    assert world.ask() == PersonUnavailable("the gateway stops")
