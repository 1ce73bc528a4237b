"""The traps of architecture.md that good projects fell into, as far as they are set here: one named test for each.

Trap 11 (renewal for a copied credential) belongs to enrolment; 8, 13 and 14 have further tests in audit, io and limits.
"""

import ast
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

import pytest

import dicomward
from dicomward.audit.event import AssociationDenied, ConnectionFailed, OperationDenied
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAbort, AsyncOperationsWindow, UserIdentity, UserInformation
from dicomward.identity.registry import CertificateRecord
from dicomward.policy.decision import Effect as PolicyEffect
from dicomward.policy.rule import Rule
from dicomward.relay.effects import Send
from dicomward.relay.inputs import Connected, Instant, PeerClosed, Timer, TimerFired
from dicomward.relay.world import RelaySettings
from dicomward.vocab.reason import ReasonCode
from tests.relay.wire import (
    IMPLEMENTATION,
    STUDY_FIND,
    VERIFICATION,
    a_associate_ac,
    a_associate_rq,
    c_echo_rq,
    c_find_rq,
    c_store_rq,
    identifier,
    image,
    message,
    response_to,
)
from tests.relay.world import (
    ACCEPTOR,
    EVERYTHING,
    NOON,
    NOT_AFTER,
    REGISTRY,
    REQUESTOR,
    RULES,
    FakeLimits,
    FakeWorld,
    Line,
    archive_caller,
    device_caller,
    established,
    policy,
)

ECHO = {1: VERIFICATION}


class BrokenLimits(FakeLimits):
    """A collaborator with a defect."""

    def take_operation(self, **_: object) -> ReasonCode | None:
        raise RuntimeError("a defect")


def test_trap_01_a_hook_that_fails_lets_nothing_through() -> None:
    line = established(FakeWorld(limits=BrokenLimits()))
    before = bytes(line.bytes[ACCEPTOR])
    with pytest.raises(RuntimeError):
        line.say(REQUESTOR, 1, c_echo_rq(1))
    effects = line.relay.fail(Instant(0.0, NOON))
    assert bytes(line.bytes[ACCEPTOR]) == before
    told = [effect for effect in effects if isinstance(effect, Send)]
    assert [effect.leg for effect in told] == [REQUESTOR, ACCEPTOR]
    assert all(bytes(effect.data)[0] == 7 for effect in told)
    assert line.relay.is_over


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5])
def test_trap_02_user_identity_that_nobody_verifies_is_not_accepted(kind: int) -> None:
    identity = UserIdentity(
        type=kind, positive_response_requested=False, primary=b"anybody", secondary=b"x" if kind == 2 else b""
    )
    user = UserInformation(maximum_length=16384, implementation_class_uid=IMPLEMENTATION, user_identity=identity)
    line = Line().request(a_associate_rq(ECHO, user=user))
    assert line.reject() == (1, 2, 1)
    assert line.bytes[ACCEPTOR] == b""


@pytest.mark.parametrize("kind", range(1, 8))
def test_trap_03_a_stated_length_is_judged_before_anything_is_kept(kind: int) -> None:
    line = established() if kind == 4 else Line()
    line.send(REQUESTOR, bytes([kind, 0, 0xFF, 0xFF, 0xFF, 0xFF]))
    assert isinstance(line.read(REQUESTOR)[-1], AAbort)
    assert line.relay.is_over


@pytest.mark.parametrize("room", ["dicom", "relay", "vocab"])
def test_trap_04_no_check_is_an_assert(room: str) -> None:
    """`python -O` drops them."""
    files = sorted((Path(dicomward.__file__).parent / room).glob("*.py"))
    assert files
    for file in files:
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        assert not [node.lineno for node in nodes if isinstance(node, ast.Assert)], file.name


def test_trap_05_no_maximum_does_not_survive_a_clamp() -> None:
    everything = UserInformation(
        maximum_length=0,
        implementation_class_uid=IMPLEMENTATION,
        async_operations_window=AsyncOperationsWindow(maximum_invoked=0, maximum_performed=0),
    )
    line = Line().request(a_associate_rq(ECHO, user=everything))
    assert line.upstream_request is not None
    window = AsyncOperationsWindow(maximum_invoked=16, maximum_performed=16)
    for user in (
        line.upstream_request.user_information,
        line.accept(a_associate_ac(line.upstream_request, user=everything)).user_information,
    ):
        assert user.maximum_length == line.world.settings.limits.max_pdu_bytes
        assert user.async_operations_window == window
    # And no match is allowed where none is.
    line = established(calling="WS1")
    line.world.limits.matches = 0
    line.say(REQUESTOR, 5, c_find_rq(1), identifier())
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1), 0xFF00, has_data_set=True), identifier())
    assert line.said(REQUESTOR) == []


def test_trap_06_a_deny_rule_with_an_error_denies() -> None:
    broken = Rule(id="broken", effect=PolicyEffect.DENY, query_levels=frozenset())
    line = Line(FakeWorld(policy=policy(*RULES, broken))).request(a_associate_rq(ECHO))
    assert line.reject() == (1, 1, 1)
    assert line.reasons == [("AssociationDenied", ReasonCode.RULE_ERROR)]
    # Also where the association stands already.
    line = established()
    line.world.policy = policy(*RULES, broken)
    line.say(REQUESTOR, 1, c_echo_rq(1))
    assert line.response().command.status == 0x0124


def test_trap_07_an_empty_list_allows_nothing() -> None:
    nowhere = tuple(replace(device, networks=()) for device in REGISTRY.devices)
    line = Line(FakeWorld(registry=replace(REGISTRY, devices=nowhere))).request(a_associate_rq(ECHO))
    assert line.reasons == [("AssociationDenied", ReasonCode.NETWORK_NOT_ALLOWED)]
    line = Line(FakeWorld(policy=policy())).request(a_associate_rq(ECHO))
    assert line.reject() == (1, 1, 1)
    # An archive without calling AE titles never calls.
    line = Line(caller=archive_caller()).request(a_associate_rq(ECHO, calling="RIS", called="WS1"))
    assert line.reasons == [("AssociationDenied", ReasonCode.ARCHIVE_UNKNOWN)]
    # No presentation context at all is none that is permitted.
    assert line.bytes[ACCEPTOR] == b""


def test_trap_08_a_failed_audit_write_stops_the_association() -> None:
    line = Line(FakeWorld(audit_works=False)).request(a_associate_rq(ECHO))
    assert line.reject() == (2, 3, 1)
    assert line.bytes[ACCEPTOR] == b""


def test_trap_09_no_permission_outlives_its_certificate_policy_or_state() -> None:
    world = FakeWorld()
    line = established(world, calling="WS1")
    line.say(REQUESTOR, 5, c_find_rq(1), identifier())
    line.say(ACCEPTOR, 5, response_to(c_find_rq(1)))
    line.read(REQUESTOR)
    world.floor = ReasonCode.AUDIT_UNAVAILABLE
    line.say(REQUESTOR, 5, c_find_rq(2), identifier())
    assert line.response().command.status == 0x0124
    world.floor = None
    world.policy = policy(RULES[0])
    line.say(REQUESTOR, 5, c_find_rq(3), identifier())
    assert line.response().command.status == 0x0124
    revoked = tuple(
        replace(d, certificates=tuple(replace(c, status="revoked") for c in d.certificates)) for d in REGISTRY.devices
    )
    world.registry = replace(REGISTRY, devices=revoked)
    assert line.relay.no_longer_allowed() is ReasonCode.CERTIFICATE_REVOKED


def test_trap_10_nobody_is_accepted_first_and_refused_later() -> None:
    # Denied by policy: rejected with a reason, not accepted with nothing in it.
    line = Line().request(a_associate_rq({5: STUDY_FIND}))
    assert line.reject() == (1, 1, 1)
    # The acceptor's answer comes first.
    line = Line().request(a_associate_rq(EVERYTHING))
    assert line.read(REQUESTOR) == []
    line = Line()
    line.opens_upstream = False
    line.request(a_associate_rq(EVERYTHING))
    assert line.read(REQUESTOR) == []
    line.handle(TimerFired(Timer.UPSTREAM))
    assert line.reject() == (2, 3, 1)


def test_trap_12_there_is_no_switch_that_turns_checks_off() -> None:
    # What is written down about patients is a choice; what is checked is none. An edge agent leaves destinations to the
    # gateway behind it: no setting of a gateway says so (tests/test_app.py).
    switches = [field.name for field in fields(RelaySettings) if field.type in (bool, "bool")]
    assert switches == ["identify_patients", "judges_destinations"]
    for field in fields(Limits):
        for off in (0, -1, None, False):
            with pytest.raises(ValueError, match="a limit cannot be switched off"):
                Limits(**{field.name: off})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "revoked"}, ReasonCode.CERTIFICATE_REVOKED),
        (None, ReasonCode.CERTIFICATE_UNKNOWN),
    ],
)
def test_trap_13_identity_is_judged_after_every_handshake(change: dict[str, str] | None, reason: ReasonCode) -> None:
    """Resumed or not: the relay only sees the certificate, and asks the registry of this moment."""

    def certificates(records: tuple[CertificateRecord, ...]) -> tuple[CertificateRecord, ...]:
        return tuple(replace(c, **change) for c in records) if change else ()  # type: ignore[arg-type]

    world = FakeWorld()
    assert Line(world).handle(Connected()) == []
    devices = tuple(replace(d, certificates=certificates(d.certificates)) for d in REGISTRY.devices)
    world.registry = replace(REGISTRY, devices=devices)
    line = Line(world)
    line.handle(Connected())
    line.request(a_associate_rq(ECHO))
    assert line.reasons == [("AssociationDenied", reason)]
    expired = Line(FakeWorld())
    expired.local = NOT_AFTER + timedelta(days=15)
    expired.handle(Connected())
    expired.request(a_associate_rq(ECHO))
    assert expired.reasons == [("AssociationDenied", ReasonCode.CERTIFICATE_EXPIRED)]


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01" * 99, b"GET / HTTP/1.1\r\n\r\n", message(1, c_echo_rq(1)) * 50], ids=range(4)
)
def test_trap_14_a_stranger_costs_one_record_whatever_it_says(said: bytes) -> None:
    line = Line(caller=device_caller("stranger"))
    line.handle(Connected())
    for at in range(0, len(said), 7):
        line.send(REQUESTOR, said[at : at + 7])
    line.handle(PeerClosed(REQUESTOR, "gone"))
    line.handle(PeerClosed(REQUESTOR, "gone"))
    assert [type(event) for event in line.records] == [ConnectionFailed]


def test_trap_14_a_device_that_is_refused_again_and_again_costs_one_record_each_time() -> None:
    line = established()
    for i in range(20):
        line.say(REQUESTOR, 3, c_store_rq(i), image("9.9.9"))
    assert len(line.recorded(OperationDenied)) == 20
    assert len(line.recorded(AssociationDenied)) == 0
    assert line.world.limits.failures == []
