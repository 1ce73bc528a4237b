"""From the first byte to the last record: the way of an association, and every input in every state."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from dicomward.audit.event import (
    AssociationAllowed,
    AssociationDenied,
    AssociationEnded,
    ConnectionFailed,
    DeviationsCounted,
    OperationAllowed,
    OperationCompleted,
)
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.errors import RemoteProtocolError
from dicomward.dicom.pdu import AAbort, AAssociateRj, UserIdentity, UserInformation
from dicomward.identity.person import Person, PersonRefused
from dicomward.identity.registry import RegistrySnapshot
from dicomward.relay.effects import Close, Finished, OpenUpstream, Send
from dicomward.relay.inputs import (
    Connected,
    Correlated,
    Ended,
    Input,
    Instant,
    Leg,
    PeerClosed,
    PersonVerified,
    Recorded,
    Timer,
    TimerFired,
    UpstreamFailed,
    UpstreamOpened,
)
from dicomward.relay.relay import Relay, State
from dicomward.vocab.reason import ReasonCode
from tests.relay.playbook import Playbook, failed, opened, received, recorded
from tests.relay.wire import (
    ABORT,
    IMPLEMENTATION,
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    Contexts,
    a_associate_ac,
    a_associate_rq,
    c_echo_rq,
    c_find_rq,
    c_move_rq,
    c_store_rq,
    identifier,
    image,
    message,
    p_data,
    pdv,
    response_to,
)
from tests.relay.world import (
    ACCEPTOR,
    NOON,
    REQUESTOR,
    FakeWorld,
    Line,
    archive_caller,
    device_caller,
    established,
    policy,
)

ECHO: Contexts = {1: VERIFICATION}
RQ = encode_pdu(a_associate_rq(ECHO))
# What the gateway sends upstream differs, and the answer to it only names context IDs.
AC = encode_pdu(a_associate_ac(a_associate_rq(ECHO)))
RJ = encode_pdu(AAssociateRj(result=1, source=1, reason=2))
MALFORMED = bytes.fromhex("0900000000 04".replace(" ", "")) + b"\0\0\0\0"

NEVER_RAN = AAbort(source=2, reason=0)


def relay(world: FakeWorld | None = None) -> Relay:
    return Relay(world or FakeWorld(), device_caller())


# -- the ordinary way --------------------------------------------------------------------------------------------------


def test_an_association_is_recorded_durably_before_the_acceptor_is_contacted() -> None:
    assert (
        Playbook(relay())
        >> received(REQUESTOR, RQ)
        << "stop-timer request"
        << "record-durably AssociationAllowed"
        >> recorded()
        << "open-upstream pacs"
        << "start-timer upstream 30"
        >> opened()
        << "send acceptor AAssociateRq"
        << "start-timer upstream 30"
        >> received(ACCEPTOR, AC)
        << "stop-timer upstream"
        << "send requestor AAssociateAc"
        << "start-timer idle 300"
        >> received(REQUESTOR, message(1, c_echo_rq(7)))
        << "record OperationAllowed"
        << "send acceptor C-ECHO-RQ 7 on 1"
        >> received(ACCEPTOR, message(1, response_to(c_echo_rq(7))))
        << "send requestor C-ECHO-RSP 7 on 1 status 0000"
        << "record OperationCompleted"
        >> received(REQUESTOR, RELEASE_RQ)
        << "start-timer release 10"
        << "send acceptor AReleaseRq"
        >> received(ACCEPTOR, RELEASE_RP)
        << "send requestor AReleaseRp"
        << "record AssociationEnded"
        << "close requestor"
        << "close acceptor"
        << "finished"
    )


def test_a_denied_association_is_recorded_durably_before_the_requestor_is_told() -> None:
    request = encode_pdu(a_associate_rq(ECHO, calling="OTHER"))
    assert (
        Playbook(relay())
        >> received(REQUESTOR, request)
        << "stop-timer request"
        << "record-durably AssociationDenied calling-ae-title-not-bound"
        >> recorded()
        << "send requestor AAssociateRj"
        << "close requestor"
        << "finished"
    )


def test_a_denial_is_told_even_if_no_audit_sink_is_left() -> None:
    request = encode_pdu(a_associate_rq(ECHO, calling="OTHER"))
    assert (
        Playbook(relay())
        >> received(REQUESTOR, request)
        << "stop-timer request"
        << "record-durably AssociationDenied calling-ae-title-not-bound"
        >> recorded(written=False)
        << "send requestor AAssociateRj"
        << "close requestor"
        << "finished"
    )


def test_the_playbook_shows_what_differs() -> None:
    play = Playbook(relay()) >> received(REQUESTOR, RQ) << "stop-timer request" << "open-upstream pacs"
    with pytest.raises(
        AssertionError, match=r"(?s)-    << open-upstream pacs.*\+    << record-durably AssociationAllowed"
    ):
        bool(play)


def test_an_allowed_association_without_an_audit_sink_is_rejected_as_congestion() -> None:
    world = FakeWorld(audit_works=False)
    line = Line(world).request(a_associate_rq(ECHO))
    assert line.reject() == (2, 3, 1)
    assert line.reasons == [("AssociationAllowed", None), ("AssociationDenied", ReasonCode.AUDIT_UNAVAILABLE)]
    assert line.relay.is_over
    assert world.limits.released == world.limits.admitted == 1


@pytest.mark.parametrize("reason", ["device-associations", "network-associations", "association-rate"])
def test_who_is_over_its_own_limits_is_told_a_little_later(reason: str) -> None:
    world = FakeWorld()
    world.limits.refuse_association = ReasonCode(reason)
    line = Line(world).request(a_associate_rq(ECHO))
    assert line.reasons == [("AssociationDenied", ReasonCode(reason))]
    assert (line.timers, line.unread[REQUESTOR], line.relay.is_over) == ({Timer.REJECTION: 0.25}, [], False)
    line.handle(TimerFired(Timer.REJECTION))
    assert line.reject()[0] == 2
    assert line.relay.is_over


def test_who_is_over_its_limits_and_goes_away_is_not_waited_for() -> None:
    world = FakeWorld()
    world.limits.refuse_association = ReasonCode.DEVICE_ASSOCIATIONS
    line = Line(world).request(a_associate_rq(ECHO))
    line.handle(PeerClosed(REQUESTOR, "gone"))
    assert line.relay.is_over
    assert line.handle(TimerFired(Timer.REJECTION)) == []


def test_a_full_archive_is_told_at_once() -> None:
    world = FakeWorld()
    world.limits.refuse_association = ReasonCode.ARCHIVE_ASSOCIATIONS
    assert Line(world).request(a_associate_rq(ECHO)).reject()[0] == 2


@pytest.mark.parametrize("effect_id", [0, 99])
@pytest.mark.parametrize("result", [Recorded, None])
def test_results_of_other_effects_change_nothing(effect_id: int, result: type[Recorded] | None) -> None:
    one = relay()
    one.handle(received(REQUESTOR, RQ), Instant(0.0, NOON))
    happened: Input = Recorded(effect_id, True) if result else UpstreamOpened(effect_id)
    assert one.handle(happened, Instant(0.0, NOON)) == []
    assert one.state is State.RECORDING_ALLOWED


def test_the_records_of_an_association_name_everything() -> None:
    line = established(calling="CT1", called="PACS_GW")
    line.send(REQUESTOR, RELEASE_RQ)
    line.now += 2.5
    line.send(ACCEPTOR, RELEASE_RP)
    allowed, ended = line.records
    assert isinstance(allowed, AssociationAllowed)
    assert isinstance(ended, AssociationEnded)
    for event in (allowed, ended):
        assert (event.device, event.role, event.site, event.archive) == ("ct1", "modality", "main", "pacs")
        assert (event.calling_ae_title, event.called_ae_title) == ("CT1", "PACS_GW")
        assert (event.policy_revision, event.registry_revision) == ("0123456789abcdef", 7)
        assert event.rule_ids == ("modality-floor",)
        assert event.address == "10.1.2.3"
    assert allowed.detail == "6 of 9 presentation contexts permitted"
    assert (ended.reason, ended.operations, ended.bytes, ended.duration_ms) == (None, 0, 0, 2500)


def test_deviations_of_both_peers_are_counted_in_one_record() -> None:
    line = Line()
    request = a_associate_rq(ECHO, calling="CT1")
    raw = bytearray(encode_pdu(request))
    raw[26:42] = b"CT1".ljust(16, b"\0")
    line.send(REQUESTOR, bytes(raw))
    line.read(ACCEPTOR)
    answer = UserInformation(maximum_length=16384, implementation_class_uid="")
    line.upstream_request = request
    accept = bytearray(encode_pdu(a_associate_ac(request, user=replace(answer, implementation_class_uid="1.2"))))
    at = accept.index(b"\x52\0\0\x03")
    del accept[at : at + 7]
    accept[2:6] = (len(accept) - 6).to_bytes(4, "big")
    item = accept.index(b"\x50\0")
    accept[item + 2 : item + 4] = (len(accept) - item - 4).to_bytes(2, "big")
    line.send(ACCEPTOR, bytes(accept))
    line.send(REQUESTOR, ABORT)
    (counted,) = line.recorded(DeviationsCounted)
    assert isinstance(counted, DeviationsCounted)
    assert counted.deviations == (("acceptor-missing-implementation-class-uid", 1), ("ae-title-nul-padding", 1))
    assert counted.device == "ct1"


# -- upstream fails ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason", [ReasonCode.UPSTREAM_UNREACHABLE, ReasonCode.UPSTREAM_NOT_TRUSTED], ids=lambda reason: reason.value
)
def test_an_acceptor_that_cannot_be_had_is_congestion(reason: ReasonCode) -> None:
    one = relay()
    assert (
        Playbook(one)
        >> received(REQUESTOR, RQ)
        << "stop-timer request"
        << "record-durably AssociationAllowed"
        >> recorded()
        << "open-upstream pacs"
        << "start-timer upstream 30"
        >> failed(reason)
        << "stop-timer upstream"
        << f"record-durably AssociationDenied {reason}"
        >> recorded()
        << "send requestor AAssociateRj"
        << "close requestor"
        << "close acceptor"
        << "finished"
    )


def test_a_late_failure_of_another_opening_changes_nothing() -> None:
    line = Line().request(a_associate_rq(ECHO))
    line.handle(UpstreamFailed(1, ReasonCode.UPSTREAM_UNREACHABLE, "late"))
    assert line.relay.state is State.AWAITING_ANSWER


@pytest.mark.parametrize(
    ("result", "source", "reason"), [(1, 1, 7), (2, 3, 2), (1, 2, 1)], ids=["called", "limit", "no-reason"]
)
def test_the_acceptors_reject_is_passed_on(result: int, source: int, reason: int) -> None:
    line = Line().request(a_associate_rq(ECHO))
    line.send(ACCEPTOR, encode_pdu(AAssociateRj(result=result, source=source, reason=reason)))
    assert line.reject() == (result, source, reason)
    assert line.reasons[-1] == ("AssociationDenied", ReasonCode.UPSTREAM_REJECTED)
    assert line.world.limits.released == 1
    assert line.closed == {REQUESTOR, ACCEPTOR}


@pytest.mark.parametrize(
    ("happens", "told_to_acceptor"),
    [
        (lambda line: line.send(ACCEPTOR, ABORT), []),
        (lambda line: line.handle(PeerClosed(ACCEPTOR, "reset")), []),
        (lambda line: line.send(ACCEPTOR, MALFORMED), ["AAbort"]),
        (lambda line: line.send(ACCEPTOR, message(1, c_echo_rq())), ["AAbort"]),
    ],
    ids=["aborts", "closes", "talks nonsense", "sends data"],
)
def test_an_acceptor_that_ends_before_its_answer_is_congestion(
    happens: Callable[[Line], object], told_to_acceptor: list[str]
) -> None:
    line = Line().request(a_associate_rq(ECHO))
    happens(line)
    assert line.reject() == (2, 3, 1)
    assert line.said(ACCEPTOR) == told_to_acceptor
    assert line.reasons[-1] == ("AssociationDenied", ReasonCode.UPSTREAM_ABORTED)
    assert line.world.limits.released == 1
    # It was the acceptor's fault, not the device's.
    assert line.world.limits.failures == []


@pytest.mark.parametrize("opens", [True, False])
def test_an_acceptor_that_does_not_answer_in_time_is_congestion(opens: bool) -> None:
    line = Line()
    line.opens_upstream = opens
    line.request(a_associate_rq(ECHO))
    line.handle(TimerFired(Timer.UPSTREAM))
    assert line.reject() == (2, 3, 1)
    assert line.said(ACCEPTOR) == (["AAbort"] if opens else [])
    assert ACCEPTOR in line.closed
    assert line.reasons[-1] == ("AssociationDenied", ReasonCode.UPSTREAM_UNREACHABLE)


def test_the_acceptors_close_after_its_failure_is_no_news() -> None:
    one = relay()
    assert (
        Playbook(one)
        >> received(REQUESTOR, RQ)
        << "stop-timer request"
        << "record-durably AssociationAllowed"
        >> recorded()
        << "open-upstream pacs"
        << "start-timer upstream 30"
        >> opened()
        << "send acceptor AAssociateRq"
        << "start-timer upstream 30"
        >> received(ACCEPTOR, RJ)
        << "close acceptor"
        << "stop-timer upstream"
        << "record-durably AssociationDenied upstream-rejected"
        >> PeerClosed(ACCEPTOR, "closed")
        >> recorded()
        << "send requestor AAssociateRj"
        << "close requestor"
        << "close acceptor"
        << "finished"
    )


def test_an_acceptor_whose_maximum_length_carries_nothing_is_refused() -> None:
    line = Line().request(a_associate_rq(ECHO))
    assert line.upstream_request is not None
    user = UserInformation(maximum_length=6, implementation_class_uid=IMPLEMENTATION)
    line.send(ACCEPTOR, encode_pdu(a_associate_ac(line.upstream_request, user=user)))
    assert line.reject() == (2, 3, 1)
    assert line.said(ACCEPTOR) == ["AAbort"]
    assert line.reasons[-1] == ("AssociationDenied", ReasonCode.UPSTREAM_ABORTED)


# -- release -----------------------------------------------------------------------------------------------------------


def test_the_acceptor_may_release_too() -> None:
    line = established()
    line.send(ACCEPTOR, RELEASE_RQ)
    assert line.said(REQUESTOR) == ["AReleaseRq"]
    assert line.said(ACCEPTOR) == []
    line.send(REQUESTOR, RELEASE_RP)
    assert line.said(ACCEPTOR) == ["AReleaseRp"]
    assert line.reasons[-1] == ("AssociationEnded", None)


def test_the_acceptor_is_closed_at_once_only_when_it_has_said_its_last_word() -> None:
    line = established()
    line.send(REQUESTOR, RELEASE_RQ)
    effects = line.send(ACCEPTOR, RELEASE_RP)
    assert [each for each in effects if isinstance(each, Close)] == [Close(REQUESTOR), Close(ACCEPTOR, at_once=True)]
    line = established()
    line.send(ACCEPTOR, RELEASE_RQ)
    assert Close(ACCEPTOR) in line.send(REQUESTOR, RELEASE_RP)


@pytest.mark.parametrize("first", list(Leg))
def test_release_collision(first: Leg) -> None:
    """PS3.8 §7.2.2.7: both have asked; the requestor answers first, then the acceptor."""
    line = established()
    line.send(first, RELEASE_RQ)
    assert line.said(first.other) == ["AReleaseRq"]
    line.send(first.other, RELEASE_RQ)
    if first is REQUESTOR:
        # Towards the acceptor we are the requestor: we answer at once, and wait for its answer.
        assert line.said(ACCEPTOR) == ["AReleaseRp"]
        line.send(ACCEPTOR, RELEASE_RP)
        assert line.said(REQUESTOR) == ["AReleaseRp"]
    else:
        assert line.said(REQUESTOR) == []
        line.send(REQUESTOR, RELEASE_RP)
        assert line.said(REQUESTOR) == ["AReleaseRp"]
        assert line.said(ACCEPTOR) == ["AReleaseRp"]
    assert line.reasons[-1] == ("AssociationEnded", None)
    assert line.finished == 1


def test_answers_still_come_after_the_requestor_has_asked_for_release() -> None:
    line = established(calling="WS1")
    find = c_find_rq(3)
    line.say(REQUESTOR, 5, find, identifier())
    line.read(ACCEPTOR)
    pending = message(5, response_to(find, 0xFF00, has_data_set=True), identifier(), size=20)
    line.send(ACCEPTOR, pending[:150])
    # The answer is half sent: that is the acceptor's business, and no reason to abort.
    line.send(REQUESTOR, RELEASE_RQ)
    line.send(ACCEPTOR, pending[150:] + message(5, response_to(find)) + RELEASE_RP)
    assert line.said(REQUESTOR) == [
        f"C-FIND-RSP 3 on 5 status FF00 with {len(identifier())} bytes",
        "C-FIND-RSP 3 on 5 status 0000",
        "AReleaseRp",
    ]
    assert line.reasons[-1] == ("AssociationEnded", None)


def test_a_release_while_a_request_waits_for_its_turn_is_an_abort() -> None:
    line = established(calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(1), identifier())
    line.say(REQUESTOR, 5, c_find_rq(2), identifier())
    line.send(REQUESTOR, RELEASE_RQ)
    assert line.said(REQUESTOR) == ["AAbort"]
    assert line.said(ACCEPTOR)[-1] == "AAbort"
    assert line.reasons[-1] == ("AssociationEnded", ReasonCode.UNEXPECTED_PDU)


def test_a_release_while_a_move_waits_for_its_turn_is_an_abort() -> None:
    world = FakeWorld()
    other = established(world, calling="WS1")
    other.say(REQUESTOR, 7, c_move_rq(1), identifier())
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 7, c_move_rq(2), identifier())
    line.send(REQUESTOR, RELEASE_RQ)
    assert line.said(REQUESTOR) == ["AAbort"]
    assert world.correlations.turns == {}


def test_data_after_the_own_release_request_is_an_abort() -> None:
    line = established()
    line.send(REQUESTOR, RELEASE_RQ + message(1, c_echo_rq()))
    assert line.said(REQUESTOR) == ["AAbort"]
    assert line.said(ACCEPTOR) == ["AReleaseRq", "AAbort"]


def test_a_release_that_is_not_answered_ends_in_aborts() -> None:
    line = established()
    line.send(REQUESTOR, RELEASE_RQ)
    assert line.timers[Timer.RELEASE] == 10.0
    line.handle(TimerFired(Timer.RELEASE))
    assert line.said(REQUESTOR) == ["AAbort"]
    assert line.said(ACCEPTOR) == ["AReleaseRq", "AAbort"]
    assert line.reasons[-1] == ("AssociationEnded", ReasonCode.DEADLINE)


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [0, 2])
@pytest.mark.parametrize("leg", list(Leg))
def test_an_abort_is_passed_on_with_its_source(leg: Leg, source: int) -> None:
    line = established()
    line.send(leg, encode_pdu(AAbort(source=source, reason=6 if source else 0)))
    assert line.read(leg.other) == [AAbort(source=source, reason=0)]
    assert line.said(leg) == []
    reason = ReasonCode.PEER_ABORTED if leg is REQUESTOR else ReasonCode.UPSTREAM_ABORTED
    assert line.reasons[-1] == ("AssociationEnded", reason)
    assert line.closed == set(Leg)


@pytest.mark.parametrize("leg", list(Leg))
def test_a_closed_connection_is_an_abort_for_the_other(leg: Leg) -> None:
    line = established()
    line.handle(PeerClosed(leg, "reset by peer"))
    assert line.read(leg.other) == [AAbort(source=2, reason=0)]
    reason = ReasonCode.PEER_CLOSED if leg is REQUESTOR else ReasonCode.UPSTREAM_ABORTED
    assert line.reasons[-1] == ("AssociationEnded", reason)
    assert line.records[-1].detail == f"{leg.name.lower()}: reset by peer"


@pytest.mark.parametrize("leg", list(Leg))
@pytest.mark.parametrize(
    ("sent", "reason", "told"),
    [
        (MALFORMED, ReasonCode.MALFORMED_PDU, 1),
        (p_data(pdv(99, b"\0" * 8, command=False)), ReasonCode.UNEXPECTED_PDU, 2),
        (b"\4\0\0\x10\0\0", ReasonCode.LIMIT_EXCEEDED, 6),
        (RQ, ReasonCode.UNEXPECTED_PDU, 2),
        (message(99, c_echo_rq()), ReasonCode.MALFORMED_PDU, 6),
        (message(1, response_to(c_echo_rq(77))), ReasonCode.MALFORMED_PDU, 5),
    ],
    ids=["no PDU", "data without command", "too long", "a second request", "unknown context", "unasked response"],
)
def test_a_peer_that_breaks_the_protocol_gets_the_right_abort(
    leg: Leg, sent: bytes, reason: ReasonCode, told: int
) -> None:
    line = established()
    line.send(leg, sent)
    assert line.read(leg) == [AAbort(source=2, reason=told)]
    assert line.read(leg.other) == [AAbort(source=2, reason=0)]
    assert line.reasons[-1] == ("AssociationEnded", reason)
    assert bool(line.world.limits.failures) is (leg is REQUESTOR)


def test_a_request_that_is_no_request_is_a_failure_of_the_certificate() -> None:
    line = Line()
    line.send(REQUESTOR, MALFORMED)
    # PS3.8 Table 9-10: Sta2 with Evt19 is AA-1.
    assert line.said(REQUESTOR) == ["AAbort"]
    assert line.reasons == [("ConnectionFailed", ReasonCode.MALFORMED_PDU)]
    assert line.world.limits.failures == [device_caller().certificate.sha256]  # type: ignore[union-attr]


def test_the_failure_of_a_caller_without_certificate_counts_for_no_certificate() -> None:
    line = Line(caller=archive_caller())
    line.send(REQUESTOR, MALFORMED)
    (failure,) = line.records
    assert isinstance(failure, ConnectionFailed)
    assert failure.certificate_sha256 is None
    assert line.world.limits.failures == []


@pytest.mark.parametrize(
    ("happened", "reason"),
    [
        (PeerClosed(REQUESTOR, "gone"), ReasonCode.PEER_CLOSED),
        (TimerFired(Timer.REQUEST), ReasonCode.DEADLINE),
        (Ended(ReasonCode.DRAINING), ReasonCode.DRAINING),
    ],
    ids=["closed", "deadline", "ended"],
)
def test_an_end_before_the_request_is_a_failed_connection(happened: Input, reason: ReasonCode) -> None:
    line = Line()
    line.handle(happened)
    assert line.reasons == [("ConnectionFailed", reason)]
    assert line.said(REQUESTOR) == []
    assert line.closed == {REQUESTOR}


def test_an_abort_before_the_request_is_a_failed_connection() -> None:
    line = Line()
    line.send(REQUESTOR, ABORT)
    assert line.reasons == [("ConnectionFailed", ReasonCode.PEER_ABORTED)]


def test_somebody_above_ends_an_association_at_once() -> None:
    line = established()
    line.handle(Ended(ReasonCode.DEVICE_SUSPENDED))
    assert line.read(REQUESTOR) == line.read(ACCEPTOR) == [AAbort(source=2, reason=0)]
    assert line.reasons[-1] == ("AssociationEnded", ReasonCode.DEVICE_SUSPENDED)


def test_idle_associations_end_and_busy_ones_get_longer() -> None:
    line = established(calling="WS1")
    line.now += 200
    line.say(REQUESTOR, 1, c_echo_rq(1))
    line.say(ACCEPTOR, 1, response_to(c_echo_rq(1)))
    line.now += 100
    line.handle(TimerFired(Timer.IDLE))
    assert line.timers[Timer.IDLE] == 200.0
    line.say(REQUESTOR, 5, c_find_rq(2), identifier())
    line.now += 300
    line.handle(TimerFired(Timer.IDLE))
    assert line.timers[Timer.IDLE] == 300.0
    assert line.finished == 0
    line.now += 3300
    line.handle(TimerFired(Timer.IDLE))
    assert line.finished == 1
    assert line.reasons[-1] == ("AssociationEnded", ReasonCode.IDLE)


def test_a_quiet_association_ends_after_its_idle_time() -> None:
    line = established()
    line.now += 300
    line.handle(TimerFired(Timer.IDLE))
    assert line.reasons[-1] == ("AssociationEnded", ReasonCode.IDLE)
    assert line.said(REQUESTOR) == ["AAbort"]


def test_timers_that_no_longer_matter_change_nothing() -> None:
    line = established()
    for timer in (Timer.REQUEST, Timer.UPSTREAM, Timer.BYTES_FROM_ACCEPTOR, Timer.BYTES_FROM_REQUESTOR):
        assert line.handle(TimerFired(timer)) == []
    waiting = Line()
    for timer in (Timer.IDLE, Timer.UPSTREAM, Timer.BYTES_FROM_REQUESTOR):
        assert waiting.handle(TimerFired(timer)) == []


def test_bytes_of_a_leg_that_does_not_exist_yet_change_nothing() -> None:
    assert Line().send(ACCEPTOR, AC) == []


# -- a certificate that isn't good any more ----------------------------------------------------------------------------


@pytest.mark.parametrize("says_something", [True, False])
def test_a_caller_with_an_unknown_certificate_has_little_time_to_ask_for_the_reason(says_something: bool) -> None:
    line = Line(caller=device_caller("stranger"))
    line.handle(Connected())
    assert line.timers == {Timer.REQUEST: 2.0}
    if says_something:
        line.send(REQUESTOR, RQ)
        assert line.reject() == (1, 1, 3)
        assert line.reasons == [("AssociationDenied", ReasonCode.CERTIFICATE_UNKNOWN)]
    else:
        line.handle(TimerFired(Timer.REQUEST))
        assert line.said(REQUESTOR) == []
        assert line.reasons == [("ConnectionFailed", ReasonCode.CERTIFICATE_UNKNOWN)]


def test_a_caller_with_a_good_certificate_has_the_ordinary_time() -> None:
    line = Line()
    assert line.handle(Connected()) == []


# -- a defect of ours --------------------------------------------------------------------------------------------------


def test_a_defect_ends_both_associations_and_lets_moves_go() -> None:
    world = FakeWorld()
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 7, c_move_rq(1), identifier())
    other = established(world, calling="WS1")
    other.say(REQUESTOR, 7, c_move_rq(1), identifier())
    assert other.said(ACCEPTOR) == []
    effects = line.relay.fail(Instant(2000.0, NOON))
    assert [effect.leg for effect in effects if isinstance(effect, Send)] == [REQUESTOR, ACCEPTOR]
    assert effects[-1] == Finished()
    (ended,) = [e.event for e in effects if hasattr(e, "event")]
    assert (type(ended), ended.reason) == (AssociationEnded, ReasonCode.INTERNAL_ERROR)
    assert line.relay.fail(Instant(2000.0, NOON)) == []
    # The other one gets its turn.
    assert other.said(ACCEPTOR) == [f"C-MOVE-RQ 1 on 7 with {len(identifier())} bytes"]


def test_a_defect_before_the_association_ends_the_connection() -> None:
    line = Line()
    effects = line.relay.fail(Instant(2000.0, NOON))
    assert [type(effect).__name__ for effect in effects] == ["Record", "Close", "Finished"]


def test_data_without_an_association_is_a_protocol_error() -> None:
    """The state table lets none in; should it ever, nothing happens to it."""
    with pytest.raises(RemoteProtocolError):
        relay()._require_operations()
    one = relay()
    with pytest.raises(RemoteProtocolError):
        one._release_requested(REQUESTOR, Instant(0.0, NOON), [])
    one._accepted(a_associate_ac(a_associate_rq(ECHO)), Instant(0.0, NOON), [])
    one._tell_rejected(Instant(0.0, NOON), [])
    assert one.is_over
    two = relay()
    two._fail_upstream(ReasonCode.UPSTREAM_ABORTED, "", None, Instant(0.0, NOON), [])
    assert two.state is State.AWAITING_REQUEST


# -- the registry changes ----------------------------------------------------------------------------------------------


def test_nothing_is_asked_of_the_registry_before_admission_or_after_the_end() -> None:
    line = Line()
    assert line.relay.no_longer_allowed() is None
    line = established()
    line.send(REQUESTOR, ABORT)
    line.world.registry = RegistrySnapshot(devices=(), archives=(), revision=8)
    assert line.relay.no_longer_allowed() is None


# -- every input in every state ----------------------------------------------------------------------------------------

EVENTS: dict[str, Callable[[Line], Input]] = {
    "connected": lambda _: Connected(),
    "RQ": lambda _: received(REQUESTOR, RQ),
    "AC": lambda _: received(ACCEPTOR, AC),
    "RJ": lambda _: received(ACCEPTOR, RJ),
    "AC from the requestor": lambda _: received(REQUESTOR, AC),
    "RQ from the acceptor": lambda _: received(ACCEPTOR, RQ),
    "command": lambda _: received(REQUESTOR, message(1, c_echo_rq(9))),
    "half a message": lambda _: received(REQUESTOR, message(3, c_store_rq(9), image())[:-5]),
    "command from the acceptor": lambda _: received(ACCEPTOR, message(1, c_echo_rq(9))),
    "nothing": lambda _: received(REQUESTOR, b""),
    "release": lambda _: received(REQUESTOR, RELEASE_RQ),
    "release from the acceptor": lambda _: received(ACCEPTOR, RELEASE_RQ),
    "released": lambda _: received(REQUESTOR, RELEASE_RP),
    "released by the acceptor": lambda _: received(ACCEPTOR, RELEASE_RP),
    "abort": lambda _: received(REQUESTOR, ABORT),
    "abort from the acceptor": lambda _: received(ACCEPTOR, ABORT),
    "nonsense": lambda _: received(REQUESTOR, MALFORMED),
    "nonsense from the acceptor": lambda _: received(ACCEPTOR, MALFORMED),
    "closed": lambda _: PeerClosed(REQUESTOR, "gone"),
    "closed by the acceptor": lambda _: PeerClosed(ACCEPTOR, "gone"),
    "recorded": lambda line: Recorded(line.relay._awaited, True),
    "not recorded": lambda line: Recorded(line.relay._awaited, False),
    "recorded late": lambda _: Recorded(9999, True),
    "opened": lambda line: UpstreamOpened(line.relay._awaited),
    "opened late": lambda _: UpstreamOpened(9999),
    "not opened": lambda line: UpstreamFailed(line.relay._awaited, ReasonCode.UPSTREAM_UNREACHABLE, "x"),
    "verified": lambda line: PersonVerified(line.relay._awaited, Person(name="anna", until=NOON + timedelta(1))),
    "not verified": lambda line: PersonVerified(
        line.relay._awaited, PersonRefused(ReasonCode.USER_IDENTITY_REFUSED, "wrong")
    ),
    "correlated": lambda _: Correlated(9999, True),
    "not correlated": lambda _: Correlated(9999, False),
    "ended": lambda _: Ended(ReasonCode.DRAINING),
    **{f"timer {timer}": lambda _, timer=timer: TimerFired(timer) for timer in Timer},  # type: ignore[misc]
}


class Held(Line):
    """A line whose durable records are answered only on demand."""

    def handle(self, happened: Input) -> list:  # type: ignore[type-arg]
        return self._once(happened)


def _awaiting_request() -> Line:
    return Held()


def _verifying_person() -> Line:
    line = Held(FakeWorld(identity_types=frozenset({2})))
    identity = UserIdentity(type=2, positive_response_requested=True, primary=b"anna", secondary=b"secret")
    line.handle(
        received(
            REQUESTOR,
            encode_pdu(a_associate_rq(ECHO, user=UserInformation(maximum_length=16384, user_identity=identity))),
        )
    )
    return line


def _recording_allowed() -> Line:
    line = Held()
    line.handle(received(REQUESTOR, RQ))
    return line


def _recording_denied() -> Line:
    line = Held()
    line.handle(received(REQUESTOR, encode_pdu(a_associate_rq(ECHO, calling="OTHER"))))
    return line


def _holding_rejection() -> Line:
    world = FakeWorld()
    world.limits.refuse_association = ReasonCode.DEVICE_ASSOCIATIONS
    return Line(world).request(a_associate_rq(ECHO))


def _recording_failed_upstream() -> Line:
    line = _awaiting_answer()
    line.handle(received(ACCEPTOR, RJ))
    return line


def _opening_upstream() -> Line:
    line = _recording_allowed()
    line.handle(Recorded(line.relay._awaited, True))
    return line


def _awaiting_answer() -> Line:
    line = _opening_upstream()
    line.handle(UpstreamOpened(line.relay._awaited))
    return line


def _relaying() -> Line:
    line = _awaiting_answer()
    line.handle(received(ACCEPTOR, AC))
    return line


def _busy() -> Line:
    line = _relaying()
    line.handle(received(REQUESTOR, message(1, c_echo_rq(9))))
    return line


def _releasing() -> Line:
    line = _relaying()
    line.handle(received(REQUESTOR, RELEASE_RQ))
    return line


def _releasing_by_acceptor() -> Line:
    line = _relaying()
    line.handle(received(ACCEPTOR, RELEASE_RQ))
    return line


def _colliding() -> Line:
    line = _releasing_by_acceptor()
    line.handle(received(REQUESTOR, RELEASE_RQ))
    return line


def _over() -> Line:
    line = _relaying()
    line.handle(received(REQUESTOR, ABORT))
    return line


STATES: dict[str, tuple[State, Callable[[], Line]]] = {
    "awaiting request": (State.AWAITING_REQUEST, _awaiting_request),
    "verifying a person": (State.VERIFYING_PERSON, _verifying_person),
    "recording allowed": (State.RECORDING_ALLOWED, _recording_allowed),
    "recording denied": (State.RECORDING_DENIED, _recording_denied),
    "holding a rejection": (State.HOLDING_REJECTION, _holding_rejection),
    "recording denied after upstream": (State.RECORDING_DENIED, _recording_failed_upstream),
    "opening upstream": (State.OPENING_UPSTREAM, _opening_upstream),
    "awaiting answer": (State.AWAITING_ANSWER, _awaiting_answer),
    "relaying": (State.RELAYING, _relaying),
    "relaying, busy": (State.RELAYING, _busy),
    "releasing": (State.RELEASING, _releasing),
    "releasing by acceptor": (State.RELEASING, _releasing_by_acceptor),
    "release collision": (State.RELEASING, _colliding),
    "over": (State.OVER, _over),
}


def test_the_matrix_has_every_state() -> None:
    assert {state for state, _ in STATES.values()} == set(State)
    for name, (state, make) in STATES.items():
        assert make().relay.state is state, name


def _settle(line: Line) -> None:
    """Answer what is awaited until the relay is over, and check how it ended."""
    for _ in range(4):
        line.handle(Recorded(line.relay._awaited, True))
    if not line.relay.is_over:
        line.handle(Ended(ReasonCode.DRAINING))
        line.handle(Recorded(line.relay._awaited, True))
    assert line.relay.is_over
    assert line.finished == 1
    assert REQUESTOR in line.closed
    assert line.world.limits.admitted == line.world.limits.released
    assert all(reader._rest == b"" for reader in line.readers.values())
    # Whoever was let in has an end on record, once: that it was denied after all, or that it ended.
    allowed = len(line.recorded(AssociationAllowed))
    ends = len(line.recorded(AssociationEnded)) + len(line.recorded(AssociationDenied))
    assert ends == (1 if allowed else len(line.recorded(AssociationDenied)))
    assert len(line.recorded(ConnectionFailed)) == (0 if allowed or ends else 1)


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_every_input_in_every_state_has_an_answer(state: str, name: str) -> None:
    expected_state, make = STATES[state]
    line = make()
    before = len(line.bytes[ACCEPTOR])
    effects = line.handle(EVENTS[name](line))
    if expected_state is State.OVER:
        assert effects == []
    if expected_state in (
        State.AWAITING_REQUEST,
        State.VERIFYING_PERSON,
        State.RECORDING_ALLOWED,
        State.RECORDING_DENIED,
        State.HOLDING_REJECTION,
    ):
        # Nothing reaches the acceptor before an allow is durable.
        assert len(line.bytes[ACCEPTOR]) == before
        assert not any(isinstance(e, OpenUpstream) for e in effects) or name == "recorded"
    _settle(line)


@pytest.mark.parametrize("state", [name for name in STATES if name != "over"])
def test_every_two_inputs_in_every_state_have_an_answer(state: str) -> None:
    for first, second in itertools.product(EVENTS, repeat=2):
        line = STATES[state][1]()
        line.handle(EVENTS[first](line))
        line.handle(EVENTS[second](line))
        _settle(line)


def test_a_relay_that_is_over_says_nothing_more() -> None:
    line = established()
    line.send(REQUESTOR, ABORT)
    for event in EVENTS.values():
        assert line.handle(event(line)) == []


# -- several associations over one world -------------------------------------------------------------------------------


def test_associations_share_nothing_but_the_world() -> None:
    world = FakeWorld()
    lines = [established(world, calling=title) for title in ("CT1", "CT1_QR", "CT1")]
    for i, line in enumerate(lines):
        data = image(f"1.2.{i}", pixels=b"%d" % i * 999)
        line.send(REQUESTOR, message(3, c_store_rq(1, f"1.2.{i}"), data, size=100)[:-30])
    lines[1].handle(PeerClosed(REQUESTOR, "in the middle of an image"))
    assert lines[1].said(ACCEPTOR) == ["AAbort"]
    for line in (lines[0], lines[2]):
        assert line.said(REQUESTOR) == []
        assert not line.relay.is_over
    assert world.limits.admitted - world.limits.released == 2


def test_policy_of_the_present_moment_decides() -> None:
    world = FakeWorld()
    line = established(world)
    world.policy = replace(policy(*world.policy.rules[1:]), revision="fedcba9876543210")
    line.say(REQUESTOR, 1, c_echo_rq(1))
    assert line.response().command.status == 0x0124
    assert line.records[-1].policy_revision == "fedcba9876543210"


def test_an_ended_association_records_what_was_under_way() -> None:
    line = established()
    line.say(REQUESTOR, 3, c_store_rq(4), image())
    line.now += 1
    line.handle(Ended(ReasonCode.DEVICE_SUSPENDED))
    assert [type(event) for event in line.records[-3:]] == [OperationAllowed, OperationCompleted, AssociationEnded]
    completed = line.records[-2]
    assert isinstance(completed, OperationCompleted)
    assert (completed.status, completed.reason, completed.duration_ms) == (None, ReasonCode.DEVICE_SUSPENDED, 1000)
