"""The person at a device: verified before anything goes upstream, in the records, in the rules, and in time."""

from datetime import timedelta

import pytest

from dicomward.audit.event import AssociationAllowed, AssociationDenied, AssociationNarrowed, OperationAllowed
from dicomward.dicom.pdu import AAssociateRq, UserIdentity, UserInformation
from dicomward.identity.person import Person, PersonRefused, PersonUnavailable, Verdict
from dicomward.policy.rule import Rule
from dicomward.relay.inputs import Ended, PersonVerified, Timer, TimerFired
from dicomward.relay.relay import State
from dicomward.vocab.principal import Assurance
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import Service
from tests.relay.wire import STUDY_FIND, VERIFICATION, a_associate_rq, c_echo_rq, c_find_rq, identifier, message
from tests.relay.world import (
    ACCEPTOR,
    NOON,
    REQUESTOR,
    FakeWorld,
    Line,
    allow,
    archive_caller,
    device_caller,
    policy,
)

UNTIL = NOON + timedelta(hours=1)
ANNA = Person(name="anna", groups=frozenset({"readers"}), until=UNTIL)
CONTEXTS = {1: VERIFICATION, 5: STUDY_FIND}


def request(*, wants_answer: bool = True, primary: bytes = b"anna", secondary: bytes = b"secret") -> AAssociateRq:
    identity = UserIdentity(type=2, positive_response_requested=wants_answer, primary=primary, secondary=secondary)
    user = UserInformation(maximum_length=16384, implementation_class_uid="1.2.3", user_identity=identity)
    return a_associate_rq(CONTEXTS, calling="WS1", user=user)


def line(verdict: Verdict | None = ANNA, world: FakeWorld | None = None) -> Line:
    world = world or FakeWorld()
    world.identity_types = frozenset({2})
    made = Line(world, device_caller("ws1"))
    made.verdict = verdict
    return made


def only_with_person(*, narrowly: bool = False) -> FakeWorld:
    conditions: dict[str, object] = {"assurance": Assurance.DEVICE_AND_PERSON}
    if narrowly:
        conditions = {"people": frozenset({"anna"})}
    rules: tuple[Rule, ...] = (
        allow("anybody", "workstation", Service.VERIFICATION),
        allow("with-person", "workstation", Service.QUERY, **conditions),
    )
    return FakeWorld(policy=policy(*rules))


def test_a_verified_person_raises_the_assurance_and_is_on_record() -> None:
    answered = line().request(request())
    accept = answered.accept()
    assert accept.user_information.user_identity_response == b""
    assert answered.upstream_request is not None
    assert answered.upstream_request.user_information.user_identity is None
    (allowed,) = answered.recorded(AssociationAllowed)
    assert (allowed.person, allowed.assurance, allowed.reason) == ("anna", "device-and-person", None)
    answered.send(REQUESTOR, message(1, c_echo_rq(1)))
    (operation,) = answered.recorded(OperationAllowed)
    assert operation.person == "anna"


def test_no_59h_where_none_was_asked_for() -> None:
    accept = line().request(request(wants_answer=False)).accept()
    assert accept.user_information.user_identity_response is None


def test_nothing_goes_upstream_before_the_verdict() -> None:
    waiting = line(None)
    waiting.request(request())
    assert waiting.relay.state is State.VERIFYING_PERSON
    assert waiting.timers == {Timer.PERSON: FakeWorld().settings.person_seconds}
    ((effect_id, claim),) = waiting.claims
    assert (claim.name, claim.secret, claim.device) == ("anna", b"secret", "ws1")
    assert "secret" not in repr(claim)
    assert waiting.bytes[ACCEPTOR] == b""
    waiting.handle(PersonVerified(effect_id + 1, ANNA))
    assert waiting.bytes[ACCEPTOR] == b""
    waiting.handle(PersonVerified(effect_id, ANNA))
    assert waiting.bytes[ACCEPTOR] != b""
    waiting.handle(PersonVerified(effect_id, PersonRefused(ReasonCode.USER_IDENTITY_REFUSED, "late")))
    assert waiting.recorded(AssociationDenied) == []


@pytest.mark.parametrize(
    "reason",
    [ReasonCode.USER_IDENTITY_REFUSED, ReasonCode.USER_IDENTITY_EXPIRED, ReasonCode.USER_IDENTITY_BACK_OFF],
)
def test_rejected_when_the_verifier_refuses_the_person(reason: ReasonCode) -> None:
    refused = line(PersonRefused(reason, "wrong")).request(request())
    assert refused.reject() == (1, 2, 1)
    (denied,) = refused.recorded(AssociationDenied)
    assert (denied.reason, denied.person, denied.device) == (reason, "anna", "ws1")
    assert refused.bytes[ACCEPTOR] == b""
    # The device did nothing wrong; wrong passcodes have a back-off of their own.
    assert refused.world.limits.failures == []


@pytest.mark.parametrize(("primary", "secondary"), [(b"", b"x"), (b"\xff", b"x"), (b"a\0b", b"x"), (b"anna", b"")])
def test_rejected_when_the_claim_can_be_nobody(primary: bytes, secondary: bytes) -> None:
    refused = line().request(request(primary=primary, secondary=secondary))
    assert refused.reject() == (1, 2, 1)
    assert refused.claims == []
    assert refused.reasons == [("AssociationDenied", ReasonCode.USER_IDENTITY_REFUSED)]


def test_strangers_can_not_try_passcodes() -> None:
    world = FakeWorld(identity_types=frozenset({2}))
    stranger = Line(world, device_caller("stranger")).request(request())
    assert stranger.reject() == (1, 1, 3)
    archive = Line(world, archive_caller()).request(request())
    assert archive.reject() == (1, 2, 1)
    assert stranger.claims == archive.claims == []


def test_the_device_goes_on_alone_while_nobody_can_tell() -> None:
    alone = line(PersonUnavailable("directory away"), only_with_person())
    accept = alone.request(request()).accept()
    assert accept.user_information.user_identity_response is None
    assert [context.result for context in accept.presentation_contexts] == [0, 1]
    (allowed,) = alone.recorded(AssociationAllowed)
    assert (allowed.reason, allowed.assurance) == (ReasonCode.PERSON_VERIFIER_UNAVAILABLE, "tls-device")
    assert allowed.detail == "directory away; 1 of 2 presentation contexts permitted"


def test_no_verdict_before_the_deadline_is_none() -> None:
    waiting = line(None)
    waiting.request(request())
    waiting.handle(TimerFired(Timer.PERSON))
    (allowed,) = waiting.recorded(AssociationAllowed)
    assert allowed.reason is ReasonCode.PERSON_VERIFIER_UNAVAILABLE
    waiting.handle(TimerFired(Timer.PERSON))
    assert len(waiting.recorded(AssociationAllowed)) == 1


def test_early_data_ends_the_association() -> None:
    waiting = line(None)
    waiting.request(request())
    waiting.send(REQUESTOR, message(1, c_echo_rq(1)))
    assert waiting.said(REQUESTOR) == ["AAbort"]
    assert waiting.reasons[-1][1] is ReasonCode.UNEXPECTED_PDU
    assert waiting.relay.is_over


def test_ended_while_a_person_is_verified_is_on_record() -> None:
    waiting = line(None)
    waiting.request(request())
    waiting.handle(Ended(ReasonCode.DRAINING))
    assert waiting.reasons == [("ConnectionFailed", ReasonCode.DRAINING)]
    ((effect_id, _claim),) = waiting.claims
    assert waiting.handle(PersonVerified(effect_id, ANNA)) == []


def test_what_changed_meanwhile_counts() -> None:
    waiting = line(None)
    waiting.request(request())
    ((effect_id, _claim),) = waiting.claims
    waiting.world.registry = type(waiting.world.registry)(devices=(), archives=(), revision=8)
    waiting.handle(PersonVerified(effect_id, ANNA))
    assert waiting.reject() == (1, 1, 3)


@pytest.mark.parametrize("narrowly", [True, False])
def test_rules_can_ask_for_a_person(narrowly: bool) -> None:
    world = only_with_person(narrowly=narrowly)
    accept = line(ANNA, world).request(request()).accept()
    assert [context.result for context in accept.presentation_contexts] == [0, 0]
    if narrowly:
        bert = Person(name="bert", until=UNTIL)
        accept = line(bert, world).request(request()).accept()
        assert [context.result for context in accept.presentation_contexts] == [0, 1]


def test_no_verdict_outlives_its_token() -> None:
    reading = line(ANNA, only_with_person())
    reading.request(request()).accept()
    assert reading.timers[Timer.PERSON_EXPIRY] == 3600
    reading.local = UNTIL
    reading.handle(TimerFired(Timer.PERSON_EXPIRY))
    (narrowed,) = reading.recorded(AssociationNarrowed)
    assert (narrowed.reason, narrowed.person) == (ReasonCode.USER_IDENTITY_EXPIRED, "anna")
    reading.send(REQUESTOR, message(1, c_echo_rq(1)))
    assert isinstance(reading.records[-1], OperationAllowed)
    assert reading.relay.state is State.RELAYING


def test_reading_under_way_ends_with_the_token() -> None:
    reading = line(ANNA, only_with_person())
    reading.request(request()).accept()
    reading.say(REQUESTOR, 5, c_find_rq(7), identifier())
    reading.local = UNTIL
    reading.handle(TimerFired(Timer.PERSON_EXPIRY))
    assert reading.relay.is_over
    assert reading.reasons[-1] == ("AssociationEnded", ReasonCode.USER_IDENTITY_EXPIRED)
    assert reading.said(REQUESTOR)[-1] == "AAbort"


def test_reading_is_denied_after_the_token() -> None:
    reading = line(ANNA, only_with_person())
    reading.request(request()).accept()
    reading.local = UNTIL
    reading.say(REQUESTOR, 5, c_find_rq(7), identifier())
    assert reading.reasons[-1] == ("OperationDenied", ReasonCode.CLINICAL_FLOOR_ONLY)


def test_a_verdict_that_is_over_at_once_is_told_at_once() -> None:
    late = line(Person(name="anna", until=NOON - timedelta(seconds=1)))
    late.request(request()).accept()
    assert 0 < late.timers[Timer.PERSON_EXPIRY] < 1


def test_a_timer_that_fires_before_the_request_means_nothing() -> None:
    fresh = line()
    assert fresh.handle(TimerFired(Timer.PERSON)) == []
    assert fresh.handle(TimerFired(Timer.PERSON_EXPIRY)) == []
