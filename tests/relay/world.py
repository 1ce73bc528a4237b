"""A world in memory: registry, policy, limits, correlations, and a line that executes what a relay wants done."""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from dicomward.audit.event import AuditEvent
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.framing import HEADROOM
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAssociateAc, AAssociateRj, AAssociateRq, ControlPdu, UserInformation
from dicomward.identity.certificate import PeerCertificate
from dicomward.identity.person import PersonClaim, Verdict
from dicomward.identity.registry import Archive, CertificateRecord, Device, Endpoint, RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.limits.budget_settings import BudgetSettings
from dicomward.limits.budgets import BudgetBook, Charge, Holder, Measure, Outcome, Span
from dicomward.policy.bypass import NO_BYPASS, BypassTable
from dicomward.policy.decision import Effect as PolicyEffect
from dicomward.policy.model import Policy
from dicomward.policy.rule import Rule
from dicomward.relay.correlations import Ambiguous, MoveTable, PendingCommitment, PendingMove
from dicomward.relay.effects import (
    Close,
    Effect,
    Finished,
    KeepCharges,
    OpenUpstream,
    Pause,
    Record,
    RecordDurably,
    RegisterCommitment,
    RegisterMove,
    Resume,
    Send,
    StartTimer,
    StopTimer,
    VerifyPerson,
)
from dicomward.relay.inputs import (
    Caller,
    Correlated,
    Input,
    Instant,
    Leg,
    Listener,
    PersonVerified,
    Received,
    Recorded,
    Timer,
    UpstreamOpened,
)
from dicomward.relay.relay import Relay
from dicomward.relay.world import RelaySettings
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import Service
from tests.relay.wire import (
    BOTH,
    COMMITMENT,
    CT_IMAGE,
    MPPS,
    MR_IMAGE,
    STUDY_FIND,
    STUDY_GET,
    STUDY_MOVE,
    VERIFICATION,
    WORKLIST,
    Contexts,
    Message,
    Reader,
    a_associate_ac,
    a_associate_rq,
    message,
)

REQUESTOR, ACCEPTOR = Leg.REQUESTOR, Leg.ACCEPTOR
NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2027, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
MODALITY_ADDRESS, WORKSTATION_ADDRESS, ARCHIVE_ADDRESS = "10.1.2.3", "10.1.2.9", "10.9.0.5"

EVERYTHING: Contexts = {
    1: VERIFICATION,
    3: CT_IMAGE,
    5: STUDY_FIND,
    7: STUDY_MOVE,
    9: STUDY_GET,
    11: WORKLIST,
    13: MPPS,
    15: COMMITMENT,
    17: MR_IMAGE,
}


# -- registry and policy -----------------------------------------------------------------------------------------------


def fingerprint(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def certificate(name: str) -> PeerCertificate:
    return PeerCertificate(sha256=fingerprint(name), not_before=NOT_BEFORE, not_after=NOT_AFTER, subject=f"CN={name}")


def device(name: str, role: str, *titles: str, address: bool = False) -> Device:
    return Device(
        name=name,
        ae_titles=titles,
        role=role,
        site="main",
        networks=("10.1.2.0/24",),
        address=Endpoint(host="10.1.2.9", port=11112) if address else None,
        certificates=(
            CertificateRecord(
                sha256=fingerprint(name), not_before=NOT_BEFORE, not_after=NOT_AFTER, status="active", serial="1f"
            ),
        ),
    )


def archive(name: str, title: str, calling: tuple[str, ...] = ()) -> Archive:
    return Archive(
        name=name,
        ae_title=title,
        called_ae_titles=(title, f"{title}_GW"),
        calling_ae_titles=calling,
        endpoint=Endpoint(host=ARCHIVE_ADDRESS, port=104),
        networks=(f"{ARCHIVE_ADDRESS}/32",),
    )


REGISTRY = RegistrySnapshot(
    devices=(
        device("ct1", "modality", "CT1", "CT1_QR", address=True),
        device("ws1", "workstation", "WS1", "WS1_ALT", address=True),
        device("ws2", "workstation", "WS2", address=True),
        device("research1", "research", "RESEARCH1"),
    ),
    archives=(archive("pacs", "PACS", ("PACS",)), archive("ris", "RIS")),
    revision=7,
)


def allow(rule_id: str, role: str, *services: Service, **fields: object) -> Rule:
    return Rule(
        id=rule_id,
        effect=PolicyEffect.ALLOW,
        roles=frozenset({role}),
        services=frozenset(services),
        **fields,  # type: ignore[arg-type]
    )


RULES = (
    allow(
        "modality-floor",
        "modality",
        Service.VERIFICATION,
        Service.STORAGE,
        Service.WORKLIST,
        Service.MPPS,
        Service.STORAGE_COMMITMENT,
        Service.PRINT,
    ),
    allow("workstation-reads", "workstation", Service.VERIFICATION, Service.QUERY, Service.GET, Service.STORAGE),
    allow("workstation-moves", "workstation", Service.MOVE, move_to_self=True, move_destinations=frozenset({"NOBODY"})),
    allow("workstation-worklist", "workstation", Service.WORKLIST),
    allow(
        "research-asks",
        "research",
        Service.QUERY,
        query_levels=frozenset({"STUDY"}),
        required_keys=frozenset({0x00100020}),
    ),
    allow("research-gets", "research", Service.GET, query_levels=frozenset({"STUDY"})),
)  # fmt: skip


def policy(*rules: Rule) -> Policy:
    return Policy(rules=rules, revision="0123456789abcdef")


POLICY = policy(*RULES)


# -- ports -------------------------------------------------------------------------------------------------------------


@dataclass
class FakeLimits:
    """Counts what is asked; refuses what the test wants refused."""

    open: Counter[tuple[str, str, str, bool]] = field(default_factory=Counter)
    admitted: int = 0
    released: int = 0
    refuse_association: ReasonCode | None = None
    refuse_operations: dict[Operation, ReasonCode] = field(default_factory=dict)
    taken: list[tuple[str, Operation, str]] = field(default_factory=list)
    matches: int = 1000
    floor_matches: int = 5000
    waits: deque[float] = field(default_factory=deque)
    bytes: list[tuple[int, bool]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    back_off: float = 0.0

    def admit_association(
        self,
        *,
        device: str,
        role: str,
        network: str,
        archive: str,
        floor: bool,
        now: float,
        lifted: bool = False,
        own_only: bool = False,
    ) -> ReasonCode | None:
        del role, now
        if own_only and self.refuse_association is ReasonCode.ARCHIVE_ASSOCIATIONS:
            return self.refuse_association
        if self.refuse_association is None or lifted:
            self.admitted += 1
            self.open[device, network, archive, floor] += 1
        return self.refuse_association

    def release_association(self, *, device: str, network: str, archive: str, floor: bool) -> None:
        self.released += 1
        self.open[device, network, archive, floor] -= 1
        assert self.open[device, network, archive, floor] >= 0

    def take_operation(
        self, *, device: str, role: str, network: str, operation: Operation, sop_class_uid: str, now: float
    ) -> ReasonCode | None:
        del role, network, now
        self.taken.append((device, operation, sop_class_uid))
        return self.refuse_operations.get(operation)

    def matches_allowed(self, role: str, floor: bool, device: str = "") -> int:
        del role, device
        return self.floor_matches if floor else self.matches

    def take_bytes(self, *, device: str, network: str, count: int, now: float, floor: bool = False) -> float:
        del device, network, now
        self.bytes.append((count, floor))
        return self.waits.popleft() if self.waits else 0.0

    def note_certificate_failure(self, sha256: str, now: float) -> float:
        del now
        self.failures.append(sha256)
        return 1.0

    def certificate_back_off(self, sha256: str, now: float) -> float:
        del sha256, now
        return self.back_off


@dataclass
class FakeCorrelations:
    """Moves by the real table, commitments in a list; turns come through the callbacks."""

    table: MoveTable = field(default_factory=MoveTable)
    commitments: list[PendingCommitment] = field(default_factory=list)
    turns: dict[str, Callable[[], None]] = field(default_factory=dict)

    def register_move(self, move: PendingMove, done: Callable[[], None]) -> None:
        if self.table.request(move):
            done()
        else:
            self.turns[move.move_id] = done

    def moves_towards(self, archive: str, destination_ae_title: str) -> Sequence[PendingMove]:
        return self.table.towards(archive, destination_ae_title)

    def commitments_towards(self, archive: str, device_ae_title: str) -> Sequence[PendingCommitment]:
        return [c for c in self.commitments if (c.archive, c.device_ae_title) == (archive, device_ae_title)]

    def match_move(
        self, archive: str, destination_ae_title: str, originator_ae_title: str | None, message_id: int | None
    ) -> PendingMove | Ambiguous | None:
        return self.table.match(archive, destination_ae_title, originator_ae_title, message_id)

    def note_refused(self, move_id: str) -> None:
        self.table.note_refused(move_id)

    def finish_move(self, move_id: str) -> int:
        self.turns.pop(move_id, None)
        refused, admitted = self.table.finish(move_id)
        for move in admitted:
            self.turns.pop(move.move_id)()
        return refused

    def finish_commitment(self, transaction_uid: str, archive: str) -> None:
        self.commitments = [c for c in self.commitments if (c.transaction_uid, c.archive) != (transaction_uid, archive)]


@dataclass
class FakeBudgets:
    """The real book, with whatever budgets the test says; nothing is kept."""

    book: BudgetBook = field(default_factory=lambda: BudgetBook(BudgetSettings()))
    now: float = 1_700_000_000.0
    charged: list[tuple[tuple[Holder, ...], Charge]] = field(default_factory=list)
    lost: ReasonCode | None = None

    def patient(self, archive: str, patient_id: bytes) -> int:
        return hash(("patient", archive, patient_id))

    def study(self, archive: str, study: bytes) -> int:
        return hash(("study", archive, study))

    def check(self, holders: Sequence[Holder], charge: Charge) -> ReasonCode | None:
        return self.lost or self.book.check(holders, charge, self.now)

    def charge(self, holders: Sequence[Holder], charge: Charge, *, forced: bool = False) -> Outcome:
        if self.lost is not None and not forced:
            return Outcome(refused=self.lost)
        outcome = self.book.charge(holders, charge, self.now, forced=forced)
        if outcome.refused is None:
            self.charged.append((tuple(holders), charge))
        return outcome

    def lease(self, holders: Sequence[Holder], needed: int) -> Outcome:
        return self.book.lease(holders, needed, self.now)

    def refund(self, holders: Sequence[Holder], count: int, minute: int) -> None:
        self.book.refund(holders, count, minute, self.now)

    def used(self, device: str, role: str, measure: Measure, span: Span = Span.HOUR) -> int:
        usage = self.book.usage(Holder(device, role), self.now)
        return next(each.used for each in usage if (each.measure, each.span) == (measure, span))


def small_limits(**changes: int) -> Limits:
    return Limits(**{"max_pdu_bytes": 65536, **changes})


ZONE = LegacyZone(name="old", networks=("10.1.2.0/24",), end_date=date(2026, 12, 31), site="annex")


@dataclass
class FakeMoved:
    """Who has been seen with TLS."""

    names: set[str] = field(default_factory=set)

    def has_moved(self, device: Device) -> bool:
        return device.name in self.names

    def note(self, device: str, certificate_sha256: str) -> None:
        assert certificate_sha256 == fingerprint(device)
        self.names.add(device)


@dataclass
class FakeWorld:
    """What several lines share."""

    settings: RelaySettings = field(
        default_factory=lambda: RelaySettings(
            limits=small_limits(),
            expiry_grace=timedelta(days=14),
            upstream_seconds=30.0,
            answer_seconds=30,
            release_seconds=10.0,
            idle_seconds=300.0,
            stalled_seconds=3600.0,
        )
    )
    registry: RegistrySnapshot = REGISTRY
    policy: Policy = POLICY
    bypasses: BypassTable = NO_BYPASS
    limits: FakeLimits = field(default_factory=FakeLimits)
    correlations: FakeCorrelations = field(default_factory=FakeCorrelations)
    moved: FakeMoved = field(default_factory=FakeMoved)
    zones: tuple[LegacyZone, ...] = (ZONE,)
    down: frozenset[str] = frozenset()
    budgets: FakeBudgets = field(default_factory=FakeBudgets)
    floor: ReasonCode | None = None
    locked_sites: frozenset[str] = frozenset()
    audit_works: bool = True
    registrations_work: bool = True
    lines: int = 0

    def is_down(self, archive: str) -> bool:
        return archive in self.down

    def legacy_zone(self, name: str) -> LegacyZone | None:
        return next((zone for zone in self.zones if zone.name == name), None)

    identity_types: frozenset[int] = frozenset()

    def floor_reason(self, site: str = "") -> ReasonCode | None:
        return self.floor or (ReasonCode.SITE_LOCKDOWN if site in self.locked_sites else None)

    def verifies_identity(self, identity_type: int) -> bool:
        return identity_type in self.identity_types

    def limited(self, **changes: int) -> "FakeWorld":
        """Narrow the protocol's limits."""
        self.settings = replace(self.settings, limits=small_limits(**changes))
        return self


# -- a line ------------------------------------------------------------------------------------------------------------


def device_caller(name: str = "ct1", **changes: object) -> Caller:
    values: dict[str, object] = {
        "association": f"a-{name}",
        "listener": Listener.DEVICE,
        "address": MODALITY_ADDRESS,
        "certificate": certificate(name),
    }
    return Caller(**values | changes)  # type: ignore[arg-type]


def legacy_caller(**changes: object) -> Caller:
    values: dict[str, object] = {
        "association": "a-old",
        "listener": Listener.LEGACY,
        "listener_name": "old",
        "address": MODALITY_ADDRESS,
        "certificate": None,
    }
    return Caller(**values | changes)  # type: ignore[arg-type]


def with_device(world: FakeWorld, name: str, **changes: object) -> FakeWorld:
    """Change a device of the world's registry."""
    devices = tuple(
        replace(each, **changes) if each.name == name else each  # type: ignore[arg-type]
        for each in world.registry.devices
    )
    world.registry = replace(world.registry, devices=devices)
    return world


def archive_caller(**changes: object) -> Caller:
    values: dict[str, object] = {
        "association": "a-pacs",
        "listener": Listener.ARCHIVE,
        "address": ARCHIVE_ADDRESS,
        "certificate": None,
    }
    return Caller(**values | changes)  # type: ignore[arg-type]


class Line:
    """A relay with an executor in memory, and the two peers that read what it sends."""

    def __init__(self, world: FakeWorld | None = None, caller: Caller | None = None) -> None:
        self.world = world or FakeWorld()
        self.world.lines += 1
        caller = caller or device_caller()
        self.relay = Relay(self.world, replace(caller, association=f"{caller.association}-{self.world.lines}"))
        self.now = 1000.0
        self.local = NOON
        self.effects: list[Effect] = []
        self.records: list[AuditEvent] = []
        self.bytes: dict[Leg, bytearray] = {leg: bytearray() for leg in Leg}
        self.unread: dict[Leg, list[ControlPdu | Message]] = {leg: [] for leg in Leg}
        self.readers = {leg: Reader() for leg in Leg}
        self.paused: set[Leg] = set()
        self.closed: set[Leg] = set()
        self.timers: dict[Timer, float] = {}
        self.finished = 0
        self.claims: list[tuple[int, PersonClaim]] = []
        self.verdict: Verdict | None = None
        self.kept = 0
        self.opens_upstream = True
        self.upstream_request: AAssociateRq | None = None
        self._open_id = 0
        self._results: deque[Input] = deque()
        self._running = False

    # executing

    def handle(self, happened: Input) -> list[Effect]:
        """Give one input and execute what follows, until nothing is left; return all the effects."""
        return self._once(happened) + self._settle()

    def _settle(self) -> list[Effect]:
        effects: list[Effect] = []
        while self._results:
            effects += self._once(self._results.popleft())
        return effects

    def _once(self, happened: Input) -> list[Effect]:
        self._running = True
        effects = self.relay.handle(happened, Instant(self.now, self.local))
        for effect in effects:
            self._execute(effect)
        self._running = False
        return effects

    def _execute(self, effect: Effect) -> None:
        self.effects.append(effect)
        match effect:
            case Send(leg=leg, data=data):
                assert leg not in self.closed
                self.bytes[leg] += data
                self.unread[leg] += self.readers[leg].read(bytes(data))
            case Record(event=event):
                self.records.append(event)
            case RecordDurably(effect_id=effect_id, event=event):
                self.records.append(event)
                self._results.append(Recorded(effect_id, self.world.audit_works))
            case OpenUpstream(effect_id=effect_id):
                self._open_id = effect_id
                if self.opens_upstream:
                    self._results.append(UpstreamOpened(effect_id))
            case VerifyPerson(effect_id=effect_id, claim=claim):
                self.claims.append((effect_id, claim))
                if self.verdict is not None:
                    self._results.append(PersonVerified(effect_id, self.verdict))
            case RegisterMove(effect_id=effect_id, move=move):
                if self.world.registrations_work:
                    self.world.correlations.register_move(move, lambda: self._correlated(effect_id))
                else:
                    self._results.append(Correlated(effect_id, False))
            case RegisterCommitment(effect_id=effect_id, commitment=commitment):
                if self.world.registrations_work:
                    self.world.correlations.commitments.append(commitment)
                self._results.append(Correlated(effect_id, self.world.registrations_work))
            case Pause(leg=leg):
                assert leg not in self.paused
                self.paused.add(leg)
            case Resume(leg=leg):
                self.paused.remove(leg)
            case StartTimer(timer=timer, seconds=seconds):
                assert seconds > 0
                self.timers[timer] = seconds
            case StopTimer(timer=timer):
                self.timers.pop(timer, None)
            case Close(leg=leg):
                self.closed.add(leg)
            case KeepCharges():
                self.kept += 1
            case Finished():
                self.finished += 1

    def _correlated(self, effect_id: int) -> None:
        self._results.append(Correlated(effect_id, True))
        if not self._running:
            # The turn was given by another line.
            self.handle(self._results.popleft())

    def send(self, leg: Leg, data: bytes, *, chunks: Sequence[int] = (), at_once: bool = False) -> list[Effect]:
        """Let the peer of a leg send bytes, cut where the test wants.

        `at_once`: no result of an effect comes between two pieces, as none does when the bytes come uncut.
        """
        effects: list[Effect] = []
        at = 0
        for size in (*chunks, len(data)):
            part = data[at : at + size]
            at += len(part)
            if part or not data:
                buffer = bytearray(HEADROOM) + part
                received = Received(leg, memoryview(buffer), HEADROOM, len(buffer))
                effects += self._once(received) if at_once else self.handle(received)
        return effects + self._settle()

    def say(
        self, leg: Leg, context_id: int, command: CommandSet, data: bytes | None = None, *, size: int = 4096
    ) -> None:
        """Let the peer of a leg send a whole message."""
        self.send(leg, message(context_id, command, data, size=size))

    # reading

    def read(self, leg: Leg) -> list[ControlPdu | Message]:
        """Return what the peer of a leg has read since the last time."""
        read, self.unread[leg] = self.unread[leg], []
        return read

    def said(self, leg: Leg) -> list[str]:
        """Return the same as text."""
        return [str(each) if isinstance(each, Message) else type(each).__name__ for each in self.read(leg)]

    def response(self, leg: Leg = REQUESTOR) -> Message:
        """Return the one message that the peer has read since the last time."""
        (only,) = self.read(leg)
        assert isinstance(only, Message), only
        return only

    def reject(self) -> tuple[int, int, int]:
        """Return result, source and reason of the A-ASSOCIATE-RJ that the requestor has read."""
        (only,) = self.read(REQUESTOR)
        assert isinstance(only, AAssociateRj), only
        return only.result, only.source, only.reason

    def recorded(self, kind: type[AuditEvent]) -> list[AuditEvent]:
        return [event for event in self.records if isinstance(event, kind)]

    @property
    def reasons(self) -> list[tuple[str, ReasonCode | None]]:
        return [(type(event).__name__, event.reason) for event in self.records]

    # establishing

    def request(self, request: AAssociateRq) -> "Line":
        """Send the A-ASSOCIATE-RQ; keep what goes upstream."""
        self.send(REQUESTOR, encode_pdu(request))
        for pdu in self.read(ACCEPTOR):
            assert isinstance(pdu, AAssociateRq)
            self.upstream_request = pdu
        return self

    def accept(self, accept: AAssociateAc | None = None) -> AAssociateAc:
        """Let the acceptor answer; return what the requestor reads."""
        assert self.upstream_request is not None
        answer = accept or a_associate_ac(self.upstream_request)
        self.send(ACCEPTOR, encode_pdu(answer))
        (read,) = self.read(REQUESTOR)
        assert isinstance(read, AAssociateAc)
        self.readers[REQUESTOR].max_pdu = self.upstream_request.user_information.maximum_length
        self.readers[ACCEPTOR].max_pdu = answer.user_information.maximum_length or 1 << 20
        return read

    def results(self, *results: Input) -> None:
        for result in results:
            self.handle(result)


ROLE_OF = {"CT1": "ct1", "CT1_QR": "ct1", "WS1": "ws1", "WS2": "ws2", "RESEARCH1": "research1"}


def established(
    world: FakeWorld | None = None,
    *,
    calling: str = "CT1",
    contexts: Contexts = EVERYTHING,
    user: UserInformation | None = None,
    answer: UserInformation | None = None,
    called: str = "PACS",
) -> Line:
    """Return a line of a device with everything accepted that the policy permits."""
    line = Line(world, device_caller(ROLE_OF[calling]))
    line.request(a_associate_rq(contexts, calling=calling, called=called, user=user, transfer_syntaxes=BOTH[1:]))
    assert line.upstream_request is not None, line.records
    line.accept(a_associate_ac(line.upstream_request, user=answer))
    return line


def established_by_archive(world: FakeWorld, *, called: str = "WS1", contexts: Contexts = EVERYTHING) -> Line:
    """Return a line of the archive towards a device."""
    line = Line(world, archive_caller())
    line.request(a_associate_rq(contexts, calling="PACS", called=called))
    assert line.upstream_request is not None, line.records
    line.accept()
    return line
