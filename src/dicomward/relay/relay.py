"""The heart of the gateway: one association between a requestor and an acceptor, decided on the way.

`Relay.handle(input, now) -> effects` is synchronous and total: every input in every state has an answer, and what can
fail or take time is an effect whose result comes back as an input. Authorise, record durably, and only then contact
the acceptor. Anything unexpected ends the association with a reason, never with a pass.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto
from typing import assert_never

from dicomward.audit.event import (
    AssociationAllowed,
    AssociationDenied,
    AssociationEnded,
    AssociationNarrowed,
    AuditEvent,
    ConnectionFailed,
    DeviationsCounted,
    RefusalObserved,
)
from dicomward.dicom.association import Association
from dicomward.dicom.errors import LimitExceeded, RemoteProtocolError
from dicomward.dicom.events import (
    AssociationAccepted,
    AssociationRejected,
    AssociationRequested,
    CommandReceived,
    Event,
    PeerAborted,
    ProtocolBroken,
    ReleaseConfirmed,
    ReleaseRequested,
)
from dicomward.dicom.framing import DataRun
from dicomward.dicom.pdu import AAssociateAc, AAssociateRj, AAssociateRq, AReleaseRp, AReleaseRq
from dicomward.dicom.state_table import Sta
from dicomward.identity.identify import IdentityError
from dicomward.identity.person import PersonClaim, PersonUnavailable, Verdict
from dicomward.identity.registry import Device
from dicomward.relay.admission import Admitted, Rejected, judge_caller, judge_request
from dicomward.relay.effects import (
    Close,
    Effect,
    Finished,
    OpenUpstream,
    Record,
    RecordDurably,
    Send,
    StartTimer,
    StopTimer,
    VerifyPerson,
)
from dicomward.relay.inputs import (
    Caller,
    Connected,
    Correlated,
    Ended,
    Input,
    Instant,
    Leg,
    PeerClosed,
    PersonVerified,
    Received,
    Recorded,
    Timer,
    TimerFired,
    UpstreamFailed,
    UpstreamOpened,
)
from dicomward.relay.negotiation import (
    is_standard_reject,
    is_usable_maximum_length,
    plan_accept,
    plan_upstream_request,
)
from dicomward.relay.operations import Operations
from dicomward.relay.refusals import reject_for
from dicomward.relay.standing import why_no_longer_allowed
from dicomward.relay.world import World
from dicomward.vocab.association import AbortReason, AbortSource
from dicomward.vocab.reason import ReasonCode

# A caller whose certificate isn't good any more is told so in DICOM, if it asks soon.
_UNKNOWN_SECONDS = 2.0
# Whoever is over its own limits learns it a little later: asking again at once must not cost others their turn.
_HELD_SECONDS = 0.25
_HELD = frozenset({ReasonCode.DEVICE_ASSOCIATIONS, ReasonCode.NETWORK_ASSOCIATIONS, ReasonCode.ASSOCIATION_RATE})


class State(Enum):
    """Where an association stands."""

    AWAITING_REQUEST = auto()
    VERIFYING_PERSON = auto()
    RECORDING_ALLOWED = auto()
    RECORDING_DENIED = auto()
    HOLDING_REJECTION = auto()
    OPENING_UPSTREAM = auto()
    AWAITING_ANSWER = auto()
    RELAYING = auto()
    RELEASING = auto()
    OVER = auto()


class Relay:
    """One association through the gateway, from the requestor's connection to its end."""

    def __init__(self, world: World, caller: Caller) -> None:
        self._world = world
        self._caller = caller
        # An association keeps the sizes that it has begun with, whatever is loaded meanwhile.
        self._limits = world.settings.limits
        self._legs: dict[Leg, Association] = {Leg.REQUESTOR: Association(is_requestor=False, limits=self._limits)}
        self.state = State.AWAITING_REQUEST
        self._effect_id = 0
        self._awaited = 0
        self._admitted: Admitted | None = None
        self._rejected: Rejected | None = None
        self._request: AAssociateRq | None = None
        self._upstream_request: AAssociateRq | None = None
        self._operations: Operations | None = None
        self._started = 0.0
        self._active = 0.0
        self._unknown: IdentityError | None = None
        self._release_wanted: set[Leg] = set()
        self._deviations: Counter[str] = Counter()

    @property
    def is_over(self) -> bool:
        """Say if everything has been said."""
        return self.state is State.OVER

    def no_longer_allowed(self) -> ReasonCode | None:
        """Return why the registry, as it is now, doesn't allow this association any more; None if it does."""
        if self._admitted is None or self.is_over:
            return None
        return why_no_longer_allowed(self._world.registry, self._caller, self._admitted)

    def reads_at(self, covers: Callable[[str], bool]) -> bool:
        """Say if a device of a site that is covered, or somebody who sends to one, is reading just now."""
        admitted, operations = self._admitted, self._operations
        if admitted is None or operations is None or self.is_over:
            return False
        target = admitted.target
        sites = [admitted.principal.site, *([target.site] if isinstance(target, Device) else [])]
        return any(map(covers, sites)) and operations.is_reading

    def handle(self, happened: Input, now: Instant) -> list[Effect]:
        """Return what is to be done about an input, in order. Never raises."""
        out: list[Effect] = []
        if self.is_over:
            return out
        match happened:
            case Connected():
                self._connected(now, out)
            case Received():
                self._received(happened, now, out)
            case Recorded():
                self._recorded(happened, now, out)
            case PersonVerified():
                self._person_verified(happened, now, out)
            case UpstreamOpened():
                self._upstream_opened(happened, now, out)
            case UpstreamFailed():
                self._upstream_failed(happened, now, out)
            case Correlated():
                self._correlated(happened, now, out)
            case PeerClosed():
                self._peer_closed(happened, now, out)
            case TimerFired():
                self._timer_fired(happened.timer, now, out)
            case Ended():
                self._abort_both(happened.reason, now, out)
            case _:
                assert_never(happened)
        return out

    def fail(self, now: Instant) -> list[Effect]:
        """Return what ends the association after a defect of ours: nobody is told more than an A-ABORT."""
        out: list[Effect] = []
        if self.is_over:
            return out
        for leg in self._legs:
            self._abort_leg(leg, AbortSource.SERVICE_PROVIDER, out)
        # What is under way may be what has failed, so nothing of it is asked but to let its moves go.
        operations, self._operations = self._operations, None
        if operations is not None:
            operations.forget_moves(out)
        self._finish(now, ReasonCode.INTERNAL_ERROR, out)
        return out

    # -- bytes and events -------------------------------------------------------------------------------------------

    def _received(self, received: Received, now: Instant, out: list[Effect]) -> None:
        association = self._legs.get(received.leg)
        if association is None:
            return
        self._active = now.monotonic
        for event in association.receive(received.buffer, received.start, received.end):
            try:
                self._happened(received.leg, event, now, out)
            except RemoteProtocolError as error:
                abort = association.abort(AbortSource.SERVICE_PROVIDER, error.abort_reason)
                self._broken(received.leg, error, abort, now, out)
            if self.is_over:
                return

    def _happened(self, leg: Leg, event: Event, now: Instant, out: list[Effect]) -> None:
        match event:
            case DataRun():
                self._require_operations().run_received(leg, event, now, out)
            case CommandReceived(context_id=context_id, command=command):
                self._require_operations().command_received(leg, context_id, command, now, out)
            case AssociationRequested(request=request):
                self._requested(request, now, out)
            case AssociationAccepted(accept=accept):
                self._accepted(accept, now, out)
            case AssociationRejected(reject=reject):
                self._rejected_upstream(reject, now, out)
            case ReleaseRequested():
                self._release_requested(leg, now, out)
            case ReleaseConfirmed():
                self._release_confirmed(now, out)
            case PeerAborted(source=source, reason=reason):
                self._peer_aborted(leg, source, reason, now, out)
            case ProtocolBroken(error=error, abort=abort):
                self._broken(leg, error, abort, now, out)
            case _:
                assert_never(event)

    def _require_operations(self) -> Operations:
        if self._operations is None:
            # The acceptor may not send before the requestor has its answer: data would have nowhere to go.
            raise RemoteProtocolError(AbortReason.UNEXPECTED_PDU, "PS3.8 §9.2", "P-DATA-TF before the association")
        return self._operations

    # -- admission --------------------------------------------------------------------------------------------------

    def _connected(self, now: Instant, out: list[Effect]) -> None:
        """Judge the certificate after the handshake: who fails has little time left to ask for the reason."""
        self._unknown = judge_caller(self._world, self._caller, now)
        if self._unknown is not None:
            out.append(StartTimer(Timer.REQUEST, _UNKNOWN_SECONDS))

    def _requested(self, request: AAssociateRq, now: Instant, out: list[Effect]) -> None:
        out.append(StopTimer(Timer.REQUEST))
        if request.deviations:
            self._deviations.update(request.deviations)
        self._started = now.monotonic
        judged = judge_request(self._world, self._caller, request, now)
        if isinstance(judged, PersonClaim):
            self._request = request
            self.state = State.VERIFYING_PERSON
            self._awaited = self._next_effect_id()
            out.append(VerifyPerson(self._awaited, judged))
            out.append(StartTimer(Timer.PERSON, self._world.settings.person_seconds))
        else:
            self._judged(judged, now, out)

    def _person_verified(self, verified: PersonVerified, now: Instant, out: list[Effect]) -> None:
        if verified.effect_id == self._awaited and self.state is State.VERIFYING_PERSON:
            out.append(StopTimer(Timer.PERSON))
            self._person_judged(verified.verdict, now, out)

    def _person_judged(self, verdict: Verdict, now: Instant, out: list[Effect]) -> None:
        """Judge the request again, with what is known of its person; the registry may have changed meanwhile."""
        request = self._request
        if request is None:  # INVARIANT: nobody is verified without a request
            return
        judged = judge_request(self._world, self._caller, request, now, verdict)
        if not isinstance(judged, PersonClaim):
            self._judged(judged, now, out)

    def _judged(self, judged: Admitted | Rejected, now: Instant, out: list[Effect]) -> None:
        self._awaited = self._next_effect_id()
        if isinstance(judged, Admitted):
            self._admitted = judged
            self.state = State.RECORDING_ALLOWED
            out.append(
                RecordDurably(
                    self._awaited,
                    AssociationAllowed(
                        **judged.facts,
                        reason=judged.narrowed_by,
                        detail=judged.detail,
                    ),
                )
            )
            out += [Record(RefusalObserved(**judged.facts, reason=reason)) for reason in judged.observed]
        else:
            self._reject(judged, now, out)

    def _reject(self, rejected: Rejected, now: Instant, out: list[Effect], *, durably: bool = True) -> None:
        """Reject the association once the record of it is durable; at once where no record can be."""
        self._rejected = rejected
        self.state = State.RECORDING_DENIED
        if rejected.counts_as_failure and self._caller.certificate is not None:
            self._world.limits.note_certificate_failure(self._caller.certificate.sha256, now.monotonic)
        event = AssociationDenied(**rejected.facts, reason=rejected.reason, detail=rejected.detail or None)
        if not durably:
            out.append(Record(event))
            self._tell_rejected(now, out)
            return
        self._awaited = self._next_effect_id()
        out.append(RecordDurably(self._awaited, event))

    def _tell_rejected(self, now: Instant, out: list[Effect]) -> None:
        rejected = self._rejected
        if rejected is not None:
            reject = rejected.reject or reject_for(rejected.reason)
            out.append(Send(Leg.REQUESTOR, self._legs[Leg.REQUESTOR].send(reject)))
        self._end(out)

    def _recorded(self, recorded: Recorded, now: Instant, out: list[Effect]) -> None:
        if recorded.effect_id != self._awaited:
            return
        match self.state:
            case State.RECORDING_DENIED if self._rejected is not None and self._rejected.reason in _HELD:
                self.state = State.HOLDING_REJECTION
                out.append(StartTimer(Timer.REJECTION, _HELD_SECONDS))
            case State.RECORDING_DENIED:
                self._tell_rejected(now, out)
            case State.RECORDING_ALLOWED if self._admitted is not None:
                if not recorded.written:
                    self._release_admission()
                    self._reject(
                        Rejected(
                            reason=ReasonCode.AUDIT_UNAVAILABLE,
                            detail="no audit sink can be written",
                            facts=self._admitted.facts,
                        ),
                        now,
                        out,
                        durably=False,
                    )
                    return
                self.state = State.OPENING_UPSTREAM
                self._awaited = self._next_effect_id()
                out.append(OpenUpstream(self._awaited, self._admitted.target))
                out.append(StartTimer(Timer.UPSTREAM, self._world.settings.upstream_seconds))

    # -- upstream ---------------------------------------------------------------------------------------------------

    def _upstream_opened(self, opened: UpstreamOpened, now: Instant, out: list[Effect]) -> None:
        admitted = self._admitted
        if opened.effect_id != self._awaited or self.state is not State.OPENING_UPSTREAM or admitted is None:
            return
        self.state = State.AWAITING_ANSWER
        upstream = Association(is_requestor=True, limits=self._limits)
        self._legs[Leg.ACCEPTOR] = upstream
        request = plan_upstream_request(
            admitted.request,
            calling_ae_title=admitted.upstream_calling_ae_title,
            called_ae_title=admitted.upstream_called_ae_title,
            permitted=admitted.permitted,
            limits=self._limits,
        )
        self._upstream_request = request
        upstream.announce_maximum_length(request.user_information.maximum_length)
        out.append(Send(Leg.ACCEPTOR, upstream.send(request)))
        # A busy archive may let callers wait; a scanner that calls it directly waits as long.
        out.append(StartTimer(Timer.UPSTREAM, self._world.settings.answer_seconds))

    def _upstream_failed(self, failed: UpstreamFailed, now: Instant, out: list[Effect]) -> None:
        if failed.effect_id == self._awaited and self.state is State.OPENING_UPSTREAM:
            self._fail_upstream(failed.reason, failed.detail, None, now, out)

    def _fail_upstream(
        self, reason: ReasonCode, detail: str, reject: AAssociateRj | None, now: Instant, out: list[Effect]
    ) -> None:
        """Reject the requestor, because the acceptor could not be had."""
        out.append(StopTimer(Timer.UPSTREAM))
        self._release_admission()
        if self._admitted is not None:
            self._reject(
                Rejected(reason=reason, detail=detail, facts=self._admitted.facts, reject=reject),
                now,
                out,
            )

    def _accepted(self, accept: AAssociateAc, now: Instant, out: list[Effect]) -> None:
        admitted, upstream_request = self._admitted, self._upstream_request
        if admitted is None or upstream_request is None:  # INVARIANT: the state table lets no answer in before
            return
        stated = accept.user_information.maximum_length
        if not is_usable_maximum_length(stated):
            raise RemoteProtocolError(
                AbortReason.INVALID_PARAMETER_VALUE, "PS3.8 §D.1", f"maximum length of {stated} bytes"
            )
        out.append(StopTimer(Timer.UPSTREAM))
        if accept.deviations:
            self._deviations.update(f"acceptor-{deviation}" for deviation in accept.deviations)
        answer, negotiated = plan_accept(
            admitted.request,
            upstream_request,
            accept,
            self._limits,
            answers_identity=admitted.answers_identity,
        )
        requestor = self._legs[Leg.REQUESTOR]
        requestor.announce_maximum_length(answer.user_information.maximum_length)
        self._operations = Operations(
            self._world,
            admitted.rights,
            negotiated,
            association=self._caller.association,
            archive=admitted.target.name,
            called_ae_title=admitted.request.called_ae_title,
            network=admitted.network,
            limits=self._limits,
            next_effect_id=self._next_effect_id,
            count_deviation=self._count_deviation,
        )
        self.state = State.RELAYING
        out.append(Send(Leg.REQUESTOR, requestor.send(answer)))
        out.append(StartTimer(Timer.IDLE, self._world.settings.idle_seconds))
        until = admitted.principal.person_until
        if until is not None:
            out.append(StartTimer(Timer.PERSON_EXPIRY, max((until - now.local).total_seconds(), 0.001)))

    def _rejected_upstream(self, reject: AAssociateRj, now: Instant, out: list[Effect]) -> None:
        out.append(Close(Leg.ACCEPTOR))
        detail = f"the acceptor rejected: result {reject.result}, source {reject.source}, reason {reject.reason}"
        if is_standard_reject(reject):
            self._fail_upstream(ReasonCode.UPSTREAM_REJECTED, detail, reject, now, out)
        else:
            # Some toolkits end at codes that they don't know.
            self._fail_upstream(ReasonCode.UPSTREAM_ABORTED, detail, None, now, out)

    def _correlated(self, correlated: Correlated, now: Instant, out: list[Effect]) -> None:
        if self._operations is not None:
            self._operations.correlated(correlated.effect_id, correlated.granted, now, out)

    # -- release ----------------------------------------------------------------------------------------------------

    def _release_requested(self, leg: Leg, now: Instant, out: list[Effect]) -> None:
        if self._operations is None or (self.state is State.RELAYING and not self._operations.may_release(leg)):
            raise RemoteProtocolError(
                AbortReason.UNEXPECTED_PDU, "PS3.8 §7.2", "A-RELEASE-RQ while operations wait to be forwarded"
            )
        self._release_wanted.add(leg)
        if self.state is State.RELAYING:
            self.state = State.RELEASING
            out.append(StartTimer(Timer.RELEASE, self._world.settings.release_seconds))
        other = self._legs[leg.other]
        if other.is_established:
            out.append(Send(leg.other, other.send(AReleaseRq())))
        self._answer_releases(out)

    def _release_confirmed(self, now: Instant, out: list[Effect]) -> None:
        self._answer_releases(out)
        self._finish(now, None, out)

    def _answer_releases(self, out: list[Effect]) -> None:
        """Send the A-RELEASE-RPs that can be sent: when the other leg is released, or in a collision."""
        for leg in sorted(self._release_wanted):
            association, other = self._legs[leg], self._legs[leg.other]
            released = other.is_over
            # PS3.8 §7.2.2.7: in a collision the requestor answers first, the acceptor after its confirmation.
            if (association.state is Sta.STA8 and released) or association.state in (Sta.STA9, Sta.STA12):
                self._release_wanted.discard(leg)
                out.append(Send(leg, association.send(AReleaseRp())))

    # -- ends -------------------------------------------------------------------------------------------------------

    def _peer_aborted(self, leg: Leg, source: int, reason: int, now: Instant, out: list[Effect]) -> None:
        if leg is Leg.ACCEPTOR and self.state is State.AWAITING_ANSWER:
            out.append(Close(Leg.ACCEPTOR))
            self._fail_upstream(
                ReasonCode.UPSTREAM_ABORTED, "the acceptor aborted instead of an answer", None, now, out
            )
            return
        self._abort_leg(leg.other, AbortSource.SERVICE_USER if source == 0 else AbortSource.SERVICE_PROVIDER, out)
        self._finish(
            now,
            ReasonCode.PEER_ABORTED if leg is Leg.REQUESTOR else ReasonCode.UPSTREAM_ABORTED,
            out,
            detail=f"A-ABORT from the {leg.name.lower()}: source {source}, reason {reason}",
        )

    def _broken(self, leg: Leg, error: RemoteProtocolError, abort: bytes, now: Instant, out: list[Effect]) -> None:
        """End the association that a peer broke; the other leg only sees a well-formed A-ABORT."""
        out.append(Send(leg, abort))
        reason = ReasonCode.LIMIT_EXCEEDED if isinstance(error, LimitExceeded) else ReasonCode.MALFORMED_PDU
        if error.abort_reason is AbortReason.UNEXPECTED_PDU:
            reason = ReasonCode.UNEXPECTED_PDU
        if leg is Leg.ACCEPTOR and self.state is State.AWAITING_ANSWER:
            out.append(Close(Leg.ACCEPTOR))
            self._fail_upstream(ReasonCode.UPSTREAM_ABORTED, str(error), None, now, out)
            return
        if leg is Leg.REQUESTOR and self._caller.certificate is not None:
            self._world.limits.note_certificate_failure(self._caller.certificate.sha256, now.monotonic)
        self._abort_leg(leg.other, AbortSource.SERVICE_PROVIDER, out)
        self._finish(now, reason, out, detail=f"{leg.name.lower()}: {error}")

    def _peer_closed(self, closed: PeerClosed, now: Instant, out: list[Effect]) -> None:
        association = self._legs.get(closed.leg)
        if association is not None:
            association.connection_closed()
        if closed.leg is Leg.ACCEPTOR and self.state is State.AWAITING_ANSWER:
            self._fail_upstream(
                ReasonCode.UPSTREAM_ABORTED,
                f"the acceptor closed instead of an answer: {closed.detail}",
                None,
                now,
                out,
            )
            return
        if self.state is State.RECORDING_DENIED and closed.leg is Leg.ACCEPTOR:
            return
        self._abort_leg(closed.leg.other, AbortSource.SERVICE_PROVIDER, out)
        reason = ReasonCode.PEER_CLOSED if closed.leg is Leg.REQUESTOR else ReasonCode.UPSTREAM_ABORTED
        self._finish(now, reason, out, detail=f"{closed.leg.name.lower()}: {closed.detail}")

    def _timer_fired(self, timer: Timer, now: Instant, out: list[Effect]) -> None:
        match timer:
            case Timer.REQUEST | Timer.REJECTION | Timer.PERSON:
                self._admission_timer_fired(timer, now, out)
            case Timer.PERSON_EXPIRY:
                self._person_expired(now, out)
            case Timer.UPSTREAM:
                self._upstream_is_late(now, out)
            case Timer.IDLE:
                self._idle(now, out)
            case Timer.RELEASE:
                self._abort_both(ReasonCode.DEADLINE, now, out)
            case (
                Timer.BYTES_FROM_REQUESTOR
                | Timer.BYTES_FROM_ACCEPTOR
                | Timer.BUDGET_FROM_REQUESTOR
                | Timer.BUDGET_FROM_ACCEPTOR
            ):
                if self._operations is not None:
                    self._operations.pause_over(timer, out)
            case _:
                assert_never(timer)

    def _person_expired(self, now: Instant, out: list[Effect]) -> None:
        """No verdict outlives its token: reading under way ends with it, and the clinical floor goes on."""
        if self._operations is None or self._admitted is None:
            return
        if self._operations.is_reading:
            self._abort_both(ReasonCode.USER_IDENTITY_EXPIRED, now, out)
        else:
            narrowed = AssociationNarrowed(**self._admitted.facts, reason=ReasonCode.USER_IDENTITY_EXPIRED)
            out.append(Record(narrowed))

    def _admission_timer_fired(self, timer: Timer, now: Instant, out: list[Effect]) -> None:
        match timer, self.state:
            case Timer.REQUEST, State.AWAITING_REQUEST:
                self._finish(now, ReasonCode.DEADLINE, out, detail="no A-ASSOCIATE-RQ before the deadline")
            case Timer.REJECTION, State.HOLDING_REJECTION:
                self._tell_rejected(now, out)
            case Timer.PERSON, State.VERIFYING_PERSON:
                self._person_judged(PersonUnavailable("no verdict before the deadline"), now, out)

    def _upstream_is_late(self, now: Instant, out: list[Effect]) -> None:
        if self.state in (State.OPENING_UPSTREAM, State.AWAITING_ANSWER):
            self._abort_leg(Leg.ACCEPTOR, AbortSource.SERVICE_PROVIDER, out)
            out.append(Close(Leg.ACCEPTOR))
            self._fail_upstream(ReasonCode.UPSTREAM_UNREACHABLE, "no answer before the deadline", None, now, out)

    def _idle(self, now: Instant, out: list[Effect]) -> None:
        """End an association on which nothing has happened for long; an operation under way gets longer."""
        if self._operations is None:
            return
        settings = self._world.settings
        allowed = settings.idle_seconds if self._operations.is_quiet else settings.stalled_seconds
        left = self._active + allowed - now.monotonic
        if left <= 0:
            self._abort_both(ReasonCode.IDLE, now, out)
        else:
            out.append(StartTimer(Timer.IDLE, min(left, settings.idle_seconds)))

    def _abort_both(self, reason: ReasonCode, now: Instant, out: list[Effect]) -> None:
        for leg in self._legs:
            self._abort_leg(leg, AbortSource.SERVICE_PROVIDER, out)
        self._finish(now, reason, out)

    def _abort_leg(self, leg: Leg, source: AbortSource, out: list[Effect]) -> None:
        association = self._legs.get(leg)
        # Before a request there is no association that an A-ABORT could end.
        if association is None or association.state in (Sta.STA2, Sta.STA4):
            return
        abort = association.abort(source, AbortReason.NOT_SPECIFIED)
        if abort:
            out.append(Send(leg, abort))

    def _finish(self, now: Instant, reason: ReasonCode | None, out: list[Effect], *, detail: str = "") -> None:
        """Close the books and both legs."""
        admitted = self._admitted
        duration = round((now.monotonic - self._started) * 1000) if self._started else None
        if self._operations is not None:
            self._operations.end(now, reason or ReasonCode.PEER_CLOSED, out)
        if admitted is not None and self.state is not State.RECORDING_DENIED:
            self._release_admission()
            out.append(
                Record(
                    AssociationEnded(
                        **admitted.facts,
                        reason=reason,
                        detail=detail or None,
                        operations=self._operations.operations if self._operations else None,
                        bytes=self._operations.bytes if self._operations else None,
                        duration_ms=duration,
                    )
                )
            )
        elif admitted is None and reason is not None and self.state in (State.AWAITING_REQUEST, State.VERIFYING_PERSON):
            out.append(Record(self._stranger_failed(reason, detail)))
        self._end(out)

    def _stranger_failed(self, reason: ReasonCode, detail: str) -> AuditEvent:
        certificate = self._caller.certificate
        if self._unknown is not None:
            reason, detail = self._unknown.reason, self._unknown.detail
        return ConnectionFailed(
            association=self._caller.association,
            address=self._caller.address,
            certificate_sha256=certificate.sha256 if certificate else None,
            reason=reason,
            detail=detail or None,
        )

    def _end(self, out: list[Effect]) -> None:
        admitted = self._admitted
        for leg, association in self._legs.items():
            if association.oversize_pdus:
                self._deviations[f"oversize-pdu-from-{leg.name.lower()}"] += association.oversize_pdus
        if self._deviations and admitted is not None:
            out.append(
                Record(
                    DeviationsCounted(
                        association=self._caller.association,
                        device=admitted.principal.device,
                        deviations=tuple(sorted(self._deviations.items())),
                    )
                )
            )
        self.state = State.OVER
        out.append(Close(Leg.REQUESTOR))
        acceptor = self._legs.get(Leg.ACCEPTOR)
        if acceptor is not None or admitted is not None:
            # After its A-RELEASE-RP (AR-3) closing is for us, and nothing can come any more that is worth to be read.
            out.append(Close(Leg.ACCEPTOR, at_once=acceptor is not None and acceptor.state is Sta.STA1))
        out.append(Finished())

    # -- small things -----------------------------------------------------------------------------------------------

    def _release_admission(self) -> None:
        admitted = self._admitted
        if admitted is not None and admitted.counted:
            self._admitted = replace(admitted, counted=False)
            self._world.limits.release_association(
                device=admitted.principal.device,
                network=admitted.network,
                archive=admitted.target.name,
                floor=admitted.floor,
            )

    def _count_deviation(self, kind: str) -> None:
        self._deviations[kind] += 1

    def _next_effect_id(self) -> int:
        self._effect_id += 1
        return self._effect_id
