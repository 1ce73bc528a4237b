"""The gate: who may wait how long, whom we call and how, and what everybody shares."""

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomward.audit.event import AssociationAllowed, AssociationEnded, SecurityAlert
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.registry import DeviceStatus, Endpoint, RegistrySnapshot
from dicomward.io.gateway import gate as gate_module
from dicomward.io.gateway.gate import Address, Gate, ListenerTls, Refused
from dicomward.io.gateway.listeners import NamedListener
from dicomward.relay.correlations import PendingCommitment, PendingMove
from dicomward.relay.inputs import Listener
from dicomward.settings import ListenAddress
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from tests.io.world import SECONDS, World, archive_at, device

PACS = Endpoint(host="127.0.0.1", port=104)
# The registry of the world knows 127.0.0.1 only.
REGISTERED, STRANGER = "127.0.0.1", "192.0.2.7"


@dataclass
class Waiting:
    """What the gate sees of a session."""

    association: str
    address: str = STRANGER
    ended: list[ReasonCode] = field(default_factory=list)

    def end(self, reason: ReasonCode) -> bool:
        self.ended.append(reason)
        return True


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "gateway", archive_at(PACS))
    yield made
    made.stop()


@pytest.fixture
def gate(world: World) -> Gate:
    return world.gate


def enter(gate: Gate, count: int, address: str = STRANGER, prefix: str = "s") -> list[Waiting]:
    made = [Waiting(f"{prefix}{number}", address) for number in range(count)]
    for session in made:
        assert gate.session_began(session) is None
    return made


# -- who waits ---------------------------------------------------------------------------------------------------------


def test_one_address_keeps_so_many_that_prove_nothing_and_the_oldest_goes(gate: Gate) -> None:
    waiting = enter(gate, 256)
    assert gate.session_began(Waiting("one more")) is waiting[0]
    assert gate.session_began(Waiting("and one")) is waiting[1]
    assert gate.session_began(Waiting("elsewhere", "192.0.2.8")) is None


def test_ipv6_host_is_one_address(gate: Gate) -> None:
    """It has 2^64 addresses of its own."""
    for number in range(256):
        assert gate.session_began(Waiting(f"s{number}", f"2001:db8::{number:x}")) is None
    assert gate.session_began(Waiting("one more", "2001:db8::ffff:1")) is not None


def test_who_has_proved_a_key_does_not_wait_with_the_strangers_behind_its_nat(gate: Gate) -> None:
    honest = Waiting("honest")
    assert gate.session_began(honest) is None
    assert gate.key_proved(honest, "ab" * 32) is None
    for number in range(1000):
        evicted = gate.session_began(Waiting(f"s{number}"))
        assert evicted is not honest


def test_one_certificate_keeps_so_many_that_ask_for_nothing(gate: Gate) -> None:
    """A stolen key must not take every file descriptor, either."""
    first = None
    for number in range(256):
        session = Waiting(f"s{number}", f"192.0.2.{number % 200}")
        first = first or session
        assert gate.session_began(session) is None
        assert gate.key_proved(session, "ab" * 32) is None
    late = Waiting("late", "192.0.2.250")
    assert gate.session_began(late) is None
    assert gate.key_proved(late, "ab" * 32) is first


def test_associations_do_not_wait(gate: Gate) -> None:
    for session in enter(gate, 256):
        gate.associated(session)
    assert gate.session_began(Waiting("one more")) is None
    assert len(gate.sessions()) == 257
    assert [each.association for each in gate.waiting()] == ["one more"]


def test_all_together_are_bounded_and_registered_networks_go_last(world: World) -> None:
    gate = world.gate
    gate._most_waiting = 10
    ours = enter(gate, 5, REGISTERED, "ours")
    strangers = enter(gate, 5, STRANGER, "theirs")
    evicted = [gate.session_began(Waiting(f"late{n}", f"198.51.100.{n}")) for n in range(5)]
    assert evicted == strangers
    for session in gate.waiting():
        if session not in ours:
            gate.session_over(session)
    enter(gate, 5, REGISTERED, "more")
    assert gate.session_began(Waiting("last", REGISTERED)) is ours[0]


def test_newcomers_that_nobody_knows_are_dropped_at_random_when_it_fills_and_the_registered_never(world: World) -> None:
    gate = world.gate
    gate._most_waiting = 10
    gate._draw = lambda: 0.3
    enter(gate, 7, STRANGER)
    dropped = Waiting("dropped", "198.51.100.1")
    assert gate.session_began(dropped) is dropped
    assert dropped not in gate.waiting()
    assert gate.session_began(Waiting("ours", REGISTERED)) is None
    gate._draw = lambda: 0.9
    assert gate.session_began(Waiting("lucky", "198.51.100.2")) is None
    # It is open until it has ended, and then it is forgotten.
    assert dropped in gate.sessions()
    gate.session_over(dropped)
    assert dropped not in gate.sessions()


def test_session_that_is_over_is_forgotten_everywhere(gate: Gate) -> None:
    (session,) = enter(gate, 1)
    gate.relay_finished(session)
    assert gate.waiting() == []
    assert gate.sessions() == [session]
    assert not gate.wait_until_empty(0.0)
    gate.session_over(session)
    gate.session_over(session)
    assert gate.wait_until_empty(0.0)
    assert (gate._rooms, gate._room_of, gate._strangers) == ({}, {}, {})


def test_waiting_for_the_last_one_ends_with_it(gate: Gate) -> None:
    (session,) = enter(gate, 1)
    over = threading.Thread(target=lambda: gate.session_over(session))
    over.start()
    assert gate.wait_until_empty(SECONDS)
    over.join()


# -- how long an answer is held back -----------------------------------------------------------------------------------


def test_answers_to_strangers_are_held_back_longer_each_time(gate: Gate) -> None:
    session = Waiting("s")
    delays = [gate.stranger_failed(session) for _ in range(8)]
    assert delays == sorted(delays)
    assert delays[0] < delays[-1]


def test_registered_network_is_never_held_for_long(gate: Gate) -> None:
    """A device's neighbour may be the one who fails."""
    session = Waiting("s", REGISTERED)
    assert max(gate.stranger_failed(session) for _ in range(20)) <= 1.0


def test_nobody_is_held_while_many_are_open(gate: Gate) -> None:
    for block in range(3):
        enter(gate, 200, f"192.0.2.{block}", f"b{block}-")
    assert gate.stranger_failed(Waiting("s")) == 0.0


# -- our own state -----------------------------------------------------------------------------------------------------


def test_floor_is_entered_and_left(gate: Gate) -> None:
    assert gate.floor_reason() is None
    gate.narrow(ReasonCode.AUDIT_UNAVAILABLE)
    assert gate.floor_reason() is ReasonCode.AUDIT_UNAVAILABLE
    gate.narrow(None)
    assert gate.floor_reason() is None


def test_defect_is_a_security_alert(world: World) -> None:
    world.gate.defect(Waiting("a1"))
    alert = world.audit.wait_for(SecurityAlert)
    assert (alert.association, alert.reason) == ("a1", ReasonCode.INTERNAL_ERROR)


def test_limits_are_passed_on_under_one_lock(world: World) -> None:
    limits = world.gate.limits
    share = {"device": "ct1", "network": "127.0.0.0/24"}
    admitted = limits.admit_association(
        role="scanner", archive="pacs", floor=False, now=1.0, lifted=True, device="ct1", network="127.0.0.0/24"
    )
    assert admitted is None
    assert not world.the_limits_are_free()
    limits.release_association(archive="pacs", floor=False, **share)
    assert world.the_limits_are_free()
    taken = limits.take_operation(
        role="scanner", operation=Operation.C_ECHO, sop_class_uid="1.2.840.10008.1.1", now=1.0, **share
    )
    assert taken is None
    assert limits.matches_allowed("scanner", floor=False) > 0
    assert limits.take_bytes(count=1, now=1.0, device="ct1", network="127.0.0.0/24") == 0.0
    assert limits.certificate_back_off("ab" * 32, 1.0) == 0.0
    assert limits.note_certificate_failure("ab" * 32, 1.0) > 0.0
    assert limits.certificate_back_off("ab" * 32, 1.0) > 0.0


def test_correlations_are_passed_on(world: World) -> None:
    done = threading.Semaphore(0)
    move = PendingMove(
        move_id="m",
        archive="pacs",
        destination_ae_title="WS1",
        originator_ae_title="CT1",
        message_id=1,
        device="ct1",
        called_ae_title="PACS",
        association="a1",
    )
    world.gate.register_move(move, lambda _granted: done.release())
    commitment = PendingCommitment(
        transaction_uid="1.2", archive="pacs", device="ct1", device_ae_title="CT1", called_ae_title="PACS"
    )
    world.gate.register_commitment(commitment, lambda _granted: done.release())
    for _ in range(2):
        assert done.acquire(timeout=SECONDS)


# -- whom we call ------------------------------------------------------------------------------------------------------


def test_plaintext_is_for_loopback_and_dedicated_links_only(gate: Gate) -> None:
    assert gate.upstream_context(archive_at(PACS)) is None
    assert gate.upstream_context(archive_at(Endpoint(host="::1", port=104))) is None
    assert gate.upstream_context(archive_at(Endpoint(host="localhost", port=104))) is None
    far = Endpoint(host="192.0.2.1", port=104)
    assert gate.upstream_context(archive_at(far, dedicated_link=True)) is None
    for host in ("192.0.2.1", "pacs.example", "127.0.0.1.example"):
        with pytest.raises(Refused, match="isn't declared as dedicated") as refused:
            gate.upstream_context(archive_at(Endpoint(host=host, port=104)))
        assert refused.value.reason is ReasonCode.UPSTREAM_NOT_TRUSTED


def test_everybody_else_is_called_with_tls(gate: Gate) -> None:
    assert isinstance(gate.upstream_context(archive_at(PACS, tls=True, certificate_sha256="ab" * 32)), ssl.SSLContext)
    workstation = device("ws1", None, address=PACS)
    assert isinstance(gate.upstream_context(workstation), ssl.SSLContext)
    assert gate.upstream_context(device("ws1", None, address=PACS, plain=True)) is None


def shown(sha256: str) -> PeerCertificate:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return PeerCertificate(sha256=sha256, not_before=moment, not_after=moment, subject="")


def test_archive_is_who_has_the_pinned_certificate(gate: Gate) -> None:
    target = archive_at(PACS, tls=True, certificate_sha256="ab" * 32)
    gate.judge_upstream(target, shown("ab" * 32))
    for certificate in (shown("cd" * 32), None):
        with pytest.raises(Refused, match="not the pinned one"):
            gate.judge_upstream(target, certificate)


def test_device_is_who_has_an_active_certificate_of_its_own(world: World) -> None:
    record = world.scanner.record
    target = device("ws1", world.scanner, address=PACS)
    world.gate.judge_upstream(target, shown(record.sha256))
    from dataclasses import replace

    revoked = device("ws1", None, address=PACS, certificates=(replace(record, status="revoked"),))
    for certificate, whose in ((shown("cd" * 32), target), (None, target), (shown(record.sha256), revoked)):
        with pytest.raises(Refused, match="isn't bound to it"):
            world.gate.judge_upstream(whose, certificate)


def test_listener_has_its_own_tls(gate: Gate) -> None:
    def context(*, tls: bool) -> ListenerTls | None:
        where = ListenAddress(host="127.0.0.1", port=0)
        return gate.listener_context(NamedListener(name="any", kind=Listener.DEVICE, address=where, tls=tls))

    assert context(tls=True) is not None
    assert context(tls=False) is None


def test_registry_is_swapped_whole(gate: Gate) -> None:
    gate.use_registry(
        RegistrySnapshot(devices=(device("x", None, status=DeviceStatus.SUSPENDED),), archives=(), revision=9)
    )
    assert gate.registry.revision == 9


# -- where it is -------------------------------------------------------------------------------------------------------


class Answers:
    """What `resolve` called back with."""

    def __init__(self) -> None:
        self.found: list[Sequence[Address]] = []
        self.problems: list[str] = []
        self.came = threading.Semaphore(0)

    def take(self, addresses: Sequence[Address]) -> None:
        self.found.append(addresses)
        self.came.release()

    def fail(self, problem: str) -> None:
        self.problems.append(problem)
        self.came.release()

    def wait(self) -> None:
        assert self.came.acquire(timeout=SECONDS)


class Names:
    """A name server: it answers when it is let, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.let = threading.Event()
        self.error: Exception | None = None
        self.let.set()

    def getaddrinfo(self, _host: str, port: int, **_options: object) -> list[tuple[object, ...]]:
        self.asked += 1
        assert self.let.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr("dicomward.io.gateway.gate.socket.getaddrinfo", made.getaddrinfo)
    return made


NAMED = archive_at(Endpoint(host="pacs.example", port=104))
BOTH = ((socket.AF_INET6, ("::1", 104, 0, 0)), (socket.AF_INET, ("127.0.0.1", 104)))


def test_device_without_an_address_is_not_called(gate: Gate) -> None:
    answers = Answers()
    gate.resolve(device("x", None), answers.take, answers.fail)
    assert answers.problems == ["'x' has no address"]


def test_numeric_address_needs_no_thread(gate: Gate) -> None:
    answers = Answers()
    gate.resolve(archive_at(PACS), answers.take, answers.fail)
    gate.resolve(archive_at(Endpoint(host="::1", port=105)), answers.take, answers.fail)
    assert answers.found == [
        ((socket.AF_INET, ("127.0.0.1", 104)),),
        ((socket.AF_INET6, ("::1", 105, 0, 0)),),
    ]


def test_all_addresses_of_a_name_are_found_and_remembered(gate: Gate, names: Names) -> None:
    answers = Answers()
    for _ in range(3):
        gate.resolve(NAMED, answers.take, answers.fail)
        answers.wait()
    assert answers.found == [BOTH, BOTH, BOTH]
    assert names.asked == 1


def test_name_is_asked_for_once_for_all_who_wait(gate: Gate, names: Names) -> None:
    """A slow name server must not get a thread for each association."""
    names.let.clear()
    answers = Answers()
    for _ in range(20):
        gate.resolve(NAMED, answers.take, answers.fail)
    names.let.set()
    for _ in range(20):
        answers.wait()
    assert len(answers.found) == 20
    assert names.asked == 1


def test_slow_name_does_not_delay_another_target(gate: Gate, names: Names) -> None:
    names.let.clear()
    slow, fast = Answers(), Answers()
    gate.resolve(NAMED, slow.take, slow.fail)
    known = Endpoint(host="known.example", port=104)
    gate._resolved[known] = (float("inf"), BOTH)
    gate.resolve(archive_at(known), fast.take, fast.fail)
    assert fast.found == [BOTH]
    assert slow.found == []
    names.let.set()
    slow.wait()


@pytest.mark.parametrize("error", [socket.gaierror(-3, "Temporary failure"), UnicodeError("label too long")])
def test_name_server_that_is_away_is_a_reason(gate: Gate, names: Names, error: Exception) -> None:
    names.error = error
    answers = Answers()
    gate.resolve(NAMED, answers.take, answers.fail)
    answers.wait()
    assert answers.problems[0].startswith("pacs.example: ")
    names.error = None
    gate.resolve(NAMED, answers.take, answers.fail)
    answers.wait()
    assert answers.found == [BOTH]


def test_name_server_that_goes_away_takes_no_archive_with_it(
    gate: Gate, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last address that was known is the best guess."""
    monkeypatch.setattr(gate_module, "_RESOLVED_SECONDS", -1.0)
    answers = Answers()
    gate.resolve(NAMED, answers.take, answers.fail)
    answers.wait()
    names.error = socket.gaierror(-3, "Temporary failure")
    gate.resolve(NAMED, answers.take, answers.fail)
    answers.wait()
    assert names.asked == 2
    assert answers.found == [BOTH, BOTH]


# --- one certificate, two addresses ----------------------------------------------------------------------------------


def test_a_certificate_at_two_addresses_at_once_is_an_alert_and_no_refusal(world: World, gate: Gate) -> None:
    enter(gate, 2)
    first = AssociationAllowed(association="s0", device="ct1", address="10.0.0.1", certificate_sha256="c" * 64)
    second = replace(first, association="s1", address="10.0.0.2")
    assert gate.record_and_wait(first)
    assert gate.record_and_wait(second)
    alert = world.audit.wait_for(SecurityAlert)
    assert (alert.reason, alert.address) == (ReasonCode.CERTIFICATE_AT_TWO_ADDRESSES, "10.0.0.2")
    gate.record(AssociationEnded(association="s1", certificate_sha256="c" * 64))
    gate.record(AssociationEnded(association="s0", certificate_sha256="c" * 64))
    assert gate._addresses._open == {}
