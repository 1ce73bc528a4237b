"""The first decision point: protocol, identity, route, policy, limits, in this order; nothing upstream is touched."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dicomward.audit.event import AssociationAllowed
from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.pdu import AAssociateRq, UserIdentity, UserInformation
from dicomward.identity.person import PersonClaim
from dicomward.identity.registry import DeviceStatus
from dicomward.policy.model import Policy
from dicomward.relay.admission import Admitted, Rejected, judge_caller, judge_request
from dicomward.relay.inputs import Caller, Instant, Leg
from dicomward.relay.messages import Refusal
from dicomward.relay.negotiation import Context
from dicomward.vocab.principal import Assurance
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import Service
from tests.relay.test_rights import COMMITTED, move
from tests.relay.wire import CT_IMAGE, STUDY_FIND, VERIFICATION, a_associate_rq
from tests.relay.world import (
    EVERYTHING,
    NOON,
    NOT_AFTER,
    REGISTRY,
    FakeWorld,
    Line,
    allow,
    archive_caller,
    certificate,
    device_caller,
    established,
    legacy_caller,
    with_device,
)

NOW = Instant(1000.0, NOON)


IDENTITY = UserIdentity(type=2, positive_response_requested=True, primary=b"user", secondary=b"secret")


def judge(
    world: FakeWorld | None = None,
    caller: Caller | None = None,
    request: AAssociateRq | None = None,
    now: Instant = NOW,
) -> Admitted | Rejected:
    outcome = judge_request(world or FakeWorld(), caller or device_caller(), request or a_associate_rq(EVERYTHING), now)
    assert not isinstance(outcome, PersonClaim)
    return outcome


def rejected(outcome: Admitted | Rejected) -> Rejected:
    assert isinstance(outcome, Rejected), outcome
    return outcome


def admitted(outcome: Admitted | Rejected) -> Admitted:
    assert isinstance(outcome, Admitted), outcome
    return outcome


def test_a_bound_device_is_admitted_and_counted_once() -> None:
    world = FakeWorld()
    outcome = admitted(judge(world))
    assert (outcome.principal.device, outcome.target.name) == ("ct1", "pacs")
    assert outcome.permitted == {1, 3, 11, 13, 15, 17}
    assert (outcome.upstream_calling_ae_title, outcome.upstream_called_ae_title) == ("CT1", "PACS")
    assert outcome.detail == "6 of 9 presentation contexts permitted"
    assert outcome.floor is True
    assert dict(world.limits.open) == {("ct1", "10.1.2.0/24", "pacs", True): 1}
    everything_permitted = admitted(judge(request=a_associate_rq({1: VERIFICATION})))
    assert everything_permitted.detail is None


def test_a_device_may_be_the_target() -> None:
    outcome = admitted(judge(request=a_associate_rq({1: VERIFICATION}, called="WS1")))
    assert (outcome.target.name, outcome.upstream_called_ae_title) == ("ws1", "WS1")


@pytest.mark.parametrize(
    ("caller", "changes", "reason", "counts"),
    [
        (device_caller(), {"calling": "OTHER"}, ReasonCode.CALLING_AE_TITLE_NOT_BOUND, True),
        (device_caller(), {"calling": "WS1"}, ReasonCode.CALLING_AE_TITLE_NOT_BOUND, True),
        (device_caller(), {"called": "NOBODY"}, ReasonCode.CALLED_AE_TITLE_UNKNOWN, True),
        (device_caller("stranger"), {}, ReasonCode.CERTIFICATE_UNKNOWN, True),
        (device_caller(address="192.0.2.1"), {}, ReasonCode.NETWORK_NOT_ALLOWED, True),
        (device_caller(certificate=None), {}, ReasonCode.NO_CERTIFICATE, False),
        (device_caller(), {"application_context": "1.2"}, ReasonCode.MALFORMED_PDU, True),
        (device_caller(), {"protocol_version": 0}, ReasonCode.MALFORMED_PDU, True),
        (archive_caller(), {"calling": "NOBODY"}, ReasonCode.ARCHIVE_UNKNOWN, False),
        (archive_caller(), {"calling": "PACS", "called": "NOBODY"}, ReasonCode.CALLED_AE_TITLE_UNKNOWN, True),
        (archive_caller(), {"calling": "PACS", "called": "PACS"}, ReasonCode.CALLED_AE_TITLE_UNKNOWN, True),
        (archive_caller(), {"calling": "PACS", "called": "WS1"}, ReasonCode.NO_PENDING_COMMITMENT, False),
        (device_caller(), {"user": UserInformation(maximum_length=7)}, ReasonCode.MALFORMED_PDU, True),
        (
            device_caller(),
            {"user": UserInformation(user_identity=IDENTITY)},
            ReasonCode.USER_IDENTITY_NOT_CONFIGURED,
            True,
        ),
    ],
)
def test_who_is_not_admitted(caller: Caller, changes: dict[str, object], reason: ReasonCode, counts: bool) -> None:
    world = FakeWorld()
    outcome = rejected(judge(world, caller, a_associate_rq(EVERYTHING, **changes)))  # type: ignore[arg-type]
    assert outcome.reason is reason
    assert outcome.counts_as_failure is counts
    assert world.limits.admitted == 0


@pytest.mark.parametrize("status", [DeviceStatus.SUSPENDED, DeviceStatus.REVOKED])
def test_a_device_that_is_not_active_is_not_admitted(status: DeviceStatus) -> None:
    devices = tuple(replace(d, status=status) for d in REGISTRY.devices)
    outcome = rejected(judge(FakeWorld(registry=replace(REGISTRY, devices=devices))))
    assert outcome.reason in (ReasonCode.DEVICE_SUSPENDED, ReasonCode.DEVICE_REVOKED)
    assert not outcome.counts_as_failure


def test_what_is_known_of_a_rejected_caller_is_on_record() -> None:
    stranger = rejected(judge(caller=device_caller("stranger"))).facts
    assert stranger["calling_ae_title"] == "CT1"
    assert "device" not in stranger
    assert "device" not in rejected(judge(caller=archive_caller(), request=a_associate_rq(EVERYTHING))).facts
    unrouted = rejected(judge(request=a_associate_rq({5: STUDY_FIND}))).facts
    assert (unrouted["device"], unrouted["archive"], unrouted["assurance"]) == ("ct1", "pacs", "tls-device")


@pytest.mark.parametrize(
    ("caller", "changes"),
    [
        (device_caller(), {"calling": "OTHER"}),
        (device_caller(), {"called": "NOBODY"}),
        (device_caller(), {"protocol_version": 0}),
        (device_caller(address="192.0.2.1"), {}),
    ],
)
def test_a_denial_names_the_device_whose_key_was_proved(caller: Caller, changes: dict[str, object]) -> None:
    facts = rejected(judge(caller=caller, request=a_associate_rq(EVERYTHING, **changes))).facts  # type: ignore[arg-type]
    assert (facts["device"], facts["role"]) == ("ct1", "modality")


@pytest.mark.parametrize(
    "reason", [ReasonCode.DEVICE_ASSOCIATIONS, ReasonCode.NETWORK_ASSOCIATIONS, ReasonCode.ASSOCIATION_RATE]
)
def test_a_limit_rejects_and_is_no_failure(reason: ReasonCode) -> None:
    world = FakeWorld()
    world.limits.refuse_association = reason
    outcome = rejected(judge(world))
    assert outcome.reason is reason
    assert not outcome.counts_as_failure


def test_failures_of_a_certificate_are_noted_when_it_is_rejected() -> None:
    line = Line().request(a_associate_rq(EVERYTHING, calling="OTHER"))
    assert line.world.limits.failures == [certificate("ct1").sha256]
    line = Line().request(a_associate_rq({5: STUDY_FIND}))
    assert line.world.limits.failures == []
    line = Line(caller=device_caller(certificate=None)).request(a_associate_rq(EVERYTHING, called="NOBODY"))
    assert line.world.limits.failures == []


# -- the clinical floor ------------------------------------------------------------------------------------------------


def _just_expired() -> tuple[FakeWorld, Instant, ReasonCode]:
    return FakeWorld(), Instant(1000.0, NOT_AFTER + timedelta(days=1)), ReasonCode.CERTIFICATE_JUST_EXPIRED


def _back_off() -> tuple[FakeWorld, Instant, ReasonCode]:
    world = FakeWorld()
    world.limits.back_off = 30.0
    return world, NOW, ReasonCode.CERTIFICATE_BACK_OFF


def _degraded() -> tuple[FakeWorld, Instant, ReasonCode]:
    return FakeWorld(floor=ReasonCode.AUDIT_UNAVAILABLE), NOW, ReasonCode.AUDIT_UNAVAILABLE


FLOORS = pytest.mark.parametrize("make", [_just_expired, _back_off, _degraded])


@FLOORS
def test_only_the_clinical_floor_is_left(make: object) -> None:
    world, now, reason = make()  # type: ignore[operator]
    outcome = admitted(judge(world, device_caller("ws1"), a_associate_rq(EVERYTHING, calling="WS1"), now))
    assert outcome.principal.floor_only == reason
    # Verification, images and the worklist; not queries, moves and gets.
    assert outcome.permitted == {1, 3, 11, 17}
    query = rejected(judge(world, device_caller("ws1"), a_associate_rq({5: STUDY_FIND}, calling="WS1"), now))
    if reason is ReasonCode.CERTIFICATE_BACK_OFF:
        assert query.reason is reason
    else:
        assert query.reason is ReasonCode.CLINICAL_FLOOR_ONLY
        assert query.detail == f"because of {reason}"


@FLOORS
def test_the_record_of_an_association_says_why_only_the_floor_is_left(make: object) -> None:
    world, now, reason = make()  # type: ignore[operator]
    line = Line(world)
    line.local = now.local
    line.request(a_associate_rq(EVERYTHING))
    (allowed,) = line.records
    assert isinstance(allowed, AssociationAllowed)
    assert allowed.reason is reason


def test_the_first_reason_for_the_floor_stays() -> None:
    world, now, _ = _just_expired()
    world.limits.back_off, world.floor = 30.0, ReasonCode.AUDIT_UNAVAILABLE
    assert admitted(judge(world, now=now)).principal.floor_only == ReasonCode.CERTIFICATE_JUST_EXPIRED


def test_a_floor_that_is_over_is_over() -> None:
    line = established(FakeWorld(floor=ReasonCode.AUDIT_UNAVAILABLE), calling="WS1", contexts={1: VERIFICATION})
    line.world.floor = None
    assert admitted(judge(line.world)).principal.floor_only is None


# -- archives ----------------------------------------------------------------------------------------------------------


def test_an_archive_is_admitted_for_a_pending_move() -> None:
    world = FakeWorld()
    world.correlations.table.request(move())
    request = a_associate_rq({1: CT_IMAGE, 3: STUDY_FIND}, calling="PACS", called="WS1")
    outcome = admitted(judge(world, archive_caller(), request))
    assert (outcome.principal.device, outcome.target.name) == ("pacs", "ws1")
    assert outcome.permitted == {1}
    assert outcome.upstream_calling_ae_title == "PACS"
    world.correlations.commitments.append(replace(COMMITTED, called_ae_title="PACS_GW"))
    # Now two titles are known for it: its own is taken.
    assert admitted(judge(world, archive_caller(), request)).upstream_calling_ae_title == "PACS"


# -- legacy zones ------------------------------------------------------------------------------------------------------


def test_a_device_of_a_zone_is_admitted_in_plaintext_until_it_is_seen_with_tls() -> None:
    world = with_device(FakeWorld(), "ct1", legacy_zone="old")
    outcome = admitted(judge(world, legacy_caller()))
    assert (outcome.principal.device, outcome.facts["assurance"]) == ("ct1", "network-pin")
    assert outcome.permitted == {1, 3, 11, 13, 15, 17}
    admitted(judge(world))
    assert world.moved.names == {"ct1"}
    assert rejected(judge(world, legacy_caller())).reason is ReasonCode.MOVED_TO_TLS


def test_a_device_of_no_zone_is_not_noted() -> None:
    world = FakeWorld()
    admitted(judge(world))
    assert world.moved.names == set()
    assert rejected(judge(world, legacy_caller())).reason is ReasonCode.NOT_IN_LEGACY_ZONE
    assert rejected(judge(world, legacy_caller(listener_name="none"))).reason is ReasonCode.NOT_IN_LEGACY_ZONE


def test_a_rule_that_asks_for_more_assurance_does_not_match_in_a_zone() -> None:
    world = with_device(FakeWorld(), "ct1", legacy_zone="old")
    rule = allow("tls-only", "modality", Service.STORAGE, assurance=Assurance.TLS_DEVICE)
    world.policy = Policy(rules=(rule,), revision="p")
    assert rejected(judge(world, legacy_caller())).reason is ReasonCode.ASSURANCE_TOO_LOW
    admitted(judge(world))


def test_a_zone_that_is_over_has_the_floor() -> None:
    world = with_device(FakeWorld(), "ws1", legacy_zone="old")
    query = a_associate_rq({1: VERIFICATION, 5: STUDY_FIND}, calling="WS1")
    assert admitted(judge(world, legacy_caller(), query)).permitted == {1, 5}
    later = Instant(1000.0, NOON.replace(year=2027))
    outcome = admitted(judge(world, legacy_caller(), query, now=later))
    assert outcome.permitted == {1}
    # An association that was open before narrows as well.
    outcome = admitted(judge(world, legacy_caller(), query))
    context = Context(context_id=5, abstract_syntax=STUDY_FIND, transfer_syntax="1.2.840.10008.1.2")
    command = CommandSet(command_field=0x20, message_id=1, affected_sop_class_uid=STUDY_FIND, has_data_set=True)
    refused = outcome.rights.judge_operation(Leg.REQUESTOR, context, command, later)
    assert isinstance(refused, Refusal)
    assert refused.reason is ReasonCode.CLINICAL_FLOOR_ONLY
    world.floor = ReasonCode.AUDIT_UNAVAILABLE
    assert admitted(judge(world, legacy_caller(), query)).principal.floor_only == ReasonCode.AUDIT_UNAVAILABLE


def test_a_lockdown_of_the_site_reaches_the_devices_of_a_zone() -> None:
    world = with_device(FakeWorld(), "ws1", legacy_zone="old")
    query = a_associate_rq({1: VERIFICATION, 5: STUDY_FIND}, calling="WS1")
    world.locked_sites = frozenset({"main"})
    outcome = admitted(judge(world, legacy_caller(), query))
    assert outcome.permitted == {1}
    assert outcome.principal.floor_only == ReasonCode.SITE_LOCKDOWN


# -- after the handshake -----------------------------------------------------------------------------------------------


def test_a_certificate_is_judged_after_the_handshake() -> None:
    world = FakeWorld()
    assert judge_caller(world, device_caller(), NOW) is None
    error = judge_caller(world, device_caller("stranger"), NOW)
    assert error is not None
    assert error.reason is ReasonCode.CERTIFICATE_UNKNOWN
    assert judge_caller(world, device_caller(certificate=None), NOW) is None
    assert judge_caller(world, archive_caller(certificate=certificate("stranger")), NOW) is None


def test_replica_stands_in_before_the_association_and_is_on_record() -> None:
    stand_in = replace(REGISTRY.archives[0], name="replica", replica_of=REGISTRY.archives[0].name)
    registry = replace(REGISTRY, archives=(*REGISTRY.archives, stand_in))
    world = FakeWorld(registry=registry, down=frozenset({REGISTRY.archives[0].name}))
    outcome = admitted(judge(world))
    assert outcome.target == stand_in
    assert outcome.facts["archive"] == "replica"
    assert outcome.permitted == admitted(judge(FakeWorld())).permitted
