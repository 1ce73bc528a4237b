"""What a principal may do on one association: policy, limits and correlations asked in one place.

Two kinds of callers: a device on the device side (`DeviceRights`), and an archive on the archive side
(`ArchiveRights`), whose sub-operations and reports belong to something that a device has asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.pdu import AAssociateRq
from dicomward.identity.person import without_expired_person
from dicomward.identity.registry import Archive, Device
from dicomward.identity.zone import LegacyZone
from dicomward.policy.bypass import LIFTED_FLOORS, is_lifted
from dicomward.policy.decision import Decision, Obligation
from dicomward.policy.evaluate import evaluate, evaluate_association
from dicomward.policy.request import AssociationRequest, IdentifierRequest, OperationRequest
from dicomward.relay.correlations import Ambiguous, PendingMove
from dicomward.relay.inputs import Instant, Leg
from dicomward.relay.messages import Lift, Refusal
from dicomward.relay.negotiation import Context
from dicomward.relay.observe import observe
from dicomward.relay.replicas import name_in_rules
from dicomward.relay.world import World
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Principal
from dicomward.vocab.reason import ReasonCode
from dicomward.vocab.services import Service, has_clinical_floor, service_of

_MOVED = (Service.STORAGE, Service.OTHER)


@dataclass(frozen=True, slots=True)
class Grant:
    """An operation may go on; `inspect` says that its identifier has to be judged first."""

    rule_ids: tuple[str, ...]
    inspect: bool = False
    move: PendingMove | None = None
    lifts: tuple[Lift, ...] = ()
    strip: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class ContextRights:
    """Which presentation contexts may be asked for upstream; `refusal` where none is left."""

    permitted: frozenset[int]
    rule_ids: tuple[str, ...]
    floor: bool
    refusal: Refusal | None = None
    lifts: tuple[Lift, ...] = ()


class Rights(Protocol):
    """What the relay asks."""

    principal: Principal

    def judge_contexts(self, request: AAssociateRq, now: Instant) -> ContextRights:
        """Judge the presentation contexts."""

    def judge_operation(self, invoker: Leg, context: Context, command: CommandSet, now: Instant) -> Grant | Refusal:
        """Judge an operation by its command set."""

    def judge_identifier(
        self, context: Context, command: CommandSet, query_level: str | None, keys: frozenset[int], now: Instant
    ) -> Grant | Refusal:
        """Judge a query or retrieval by its identifier."""

    def judge_report(
        self, transaction_uid: str, context: Context, command: CommandSet, now: Instant
    ) -> Grant | Refusal:
        """Judge an N-EVENT-REPORT of storage commitment from an archive by its transaction UID."""

    def lift(self, reason: ReasonCode, now: Instant) -> Lift | None:
        """Return what lifts a refusal for this reason now: an open bypass, or observing; None if nothing does."""


def _outcome(decision: Decision) -> Grant | Refusal:
    if not decision.allowed:
        return Refusal(decision.reason, decision.rule_ids, decision.detail)
    return Grant(decision.rule_ids, inspect=Obligation.INSPECT_IDENTIFIER in decision.obligations)


def _context_rights(
    permitted: Mapping[int, tuple[str, ...]],
    request: AAssociateRq,
    refusal: Refusal | None,
    lifts: tuple[Lift, ...] = (),
) -> ContextRights:
    classes = [c.abstract_syntax for c in request.presentation_contexts if c.context_id in permitted]
    return ContextRights(
        permitted=frozenset(permitted),
        rule_ids=tuple(dict.fromkeys(rule for rules in permitted.values() for rule in rules)),
        floor=all(has_clinical_floor(sop_class_uid) for sop_class_uid in classes),
        refusal=None if permitted else refusal or Refusal(ReasonCode.NO_PERMITTED_CONTEXT),
        lifts=lifts,
    )


class _PolicyRights:
    """The part that both kinds share: asking the policy about a principal."""

    def __init__(
        self, world: World, principal: Principal, target: Archive | Device, zone: LegacyZone | None = None
    ) -> None:
        self._world = world
        self._zone = zone
        self.principal = principal
        self._target = target
        self._standing: tuple[object, ...] | None = None
        self._answers: dict[tuple[object, ...], Grant | Refusal] = {}

    def _narrowed(self, now: Instant) -> Principal:
        """Return the principal as degraded states, and the end of its person's time, leave it at this moment."""
        principal = without_expired_person(self.principal, now.local)
        reason = self._world.floor_reason(self.principal.site)
        if reason is None and self._zone is not None and self._zone.is_over(now.local):
            reason = ReasonCode.LEGACY_ZONE_OVER
        if reason is None or principal.floor_only is not None:
            return principal
        return replace(principal, floor_only=reason)

    def lift(self, reason: ReasonCode, now: Instant) -> Lift | None:
        """Return what lifts a refusal now. An archive calls for others, so nothing does."""
        del reason, now
        return None

    def _lifted(self, outcome: Grant | Refusal, now: Instant) -> Grant | Refusal:
        """Let pass what the policy refuses and an open bypass lifts."""
        if isinstance(outcome, Refusal) and (lift := self.lift(outcome.reason, now)) is not None:
            return Grant(outcome.rule_ids, lifts=(lift,))
        return outcome

    def _contexts(
        self, request: AAssociateRq, now: Instant
    ) -> tuple[dict[int, tuple[str, ...]], Refusal, tuple[Lift, ...]]:
        """Return the contexts that are permitted, each with its rules, why if it is none, and what was lifted."""
        decision = evaluate_association(
            self._world.policy,
            AssociationRequest(
                principal=self._narrowed(now),
                archive=name_in_rules(self._target),
                contexts=tuple((c.context_id, c.abstract_syntax) for c in request.presentation_contexts),
                at=now.local,
                scp_role_sop_classes=frozenset(
                    role.sop_class_uid for role in request.user_information.role_selections if role.scp_role
                ),
                own_ae_titles=self._own_ae_titles(),
            ),
        )
        permitted, lifts = {}, []
        for context_id, each in decision.permitted.items():
            lift = None if each.allowed else self.lift(each.reason, now)
            if each.allowed or lift is not None:
                permitted[context_id] = each.rule_ids
            if lift is not None:
                lifts.append(lift)
        overall = decision.decision
        refusal = Refusal(overall.reason, overall.rule_ids, overall.detail)
        return permitted, refusal, tuple(dict.fromkeys(lifts))

    def _evaluate(self, context: Context, command: CommandSet, now: Instant) -> Grant | Refusal:
        """Ask the policy; what was answered for the same question at the same moment is not asked again.

        A scanner stores many images in the time that one reading of the wall clock stands for. Anything that could
        change the answer is part of the key, and no answer outlives that reading or the association.
        """
        principal = self._narrowed(now)
        question = (
            command.command_field,
            command.sop_class_uid,
            context.abstract_syntax,
            command.move_destination,
            principal.floor_only,
        )
        standing = (now.local, self._world.policy, self._world.registry, self._world.bypasses)
        if self._standing is None or any(a is not b for a, b in zip(self._standing, standing, strict=True)):
            self._standing = standing
            self._answers.clear()
        answer = self._answers.get(question)
        if answer is None:
            answer = self._answers[question] = self._ask(principal, context, command, now)
        return answer

    def _ask(self, principal: Principal, context: Context, command: CommandSet, now: Instant) -> Grant | Refusal:
        outcome = _outcome(
            evaluate(
                self._world.policy,
                OperationRequest(
                    principal=principal,
                    archive=name_in_rules(self._target),
                    operation=command.operation,
                    sop_class_uid=command.sop_class_uid or "",
                    move_destination=command.move_destination,
                    own_ae_titles=self._own_ae_titles(),
                    context_sop_class_uid=context.abstract_syntax,
                    at=now.local,
                ),
            )
        )
        return self._lifted(outcome, now)

    def judge_identifier(
        self, context: Context, command: CommandSet, query_level: str | None, keys: frozenset[int], now: Instant
    ) -> Grant | Refusal:
        """Judge a query or retrieval by its identifier."""
        policy = self._world.policy
        outcome = _outcome(
            evaluate(
                policy,
                IdentifierRequest(
                    principal=self._narrowed(now),
                    archive=name_in_rules(self._target),
                    operation=command.operation,
                    sop_class_uid=command.sop_class_uid or "",
                    move_destination=command.move_destination,
                    own_ae_titles=self._own_ae_titles(),
                    context_sop_class_uid=context.abstract_syntax,
                    at=now.local,
                    query_level=query_level,
                    keys=keys,
                ),
            )
        )
        if isinstance(outcome, Refusal):
            return self._lifted(outcome, now)
        return replace(outcome, strip=policy.stripped_by(outcome.rule_ids))

    def _own_ae_titles(self) -> frozenset[str]:
        return frozenset({self.principal.calling_ae_title})


class DeviceRights(_PolicyRights):
    """A device on the device side: the policy decides; sub-operations of its C-GET are covered by that C-GET."""

    def judge_contexts(self, request: AAssociateRq, now: Instant) -> ContextRights:
        """Judge the presentation contexts by the policy."""
        permitted, refusal, lifts = self._contexts(request, now)
        return _context_rights(permitted, request, refusal, lifts)

    def lift(self, reason: ReasonCode, now: Instant) -> Lift | None:
        """Return what lifts a refusal: a bypass that is open for the device or its site, or that it is observed."""
        bypasses = self._world.bypasses
        if bypasses and is_lifted(reason, self._narrowed(now).floor_only):
            found = bypasses.find(self.principal.device, self.principal.site, now.monotonic)
            if found is not None:
                return Lift(found.rule_id, reason)
        return observe(self._world.registry.device_by_name(self.principal.device), reason, now.local)

    def judge_operation(self, invoker: Leg, context: Context, command: CommandSet, now: Instant) -> Grant | Refusal:
        """Judge an operation; a C-MOVE also needs a destination that the registry knows."""
        if invoker is Leg.ACCEPTOR and command.operation is not Operation.N_EVENT_REPORT:
            return Refusal(ReasonCode.UNEXPECTED_COMMAND, detail="the archive may invoke this only inside a C-GET")
        if invoker is Leg.REQUESTOR and command.operation is Operation.N_EVENT_REPORT and not context.requestor_is_scp:
            # PS3.7 §10.1.1: the SCP reports. Else a device could tell an archive what has been committed.
            return Refusal(ReasonCode.UNEXPECTED_COMMAND, detail="only who has the SCP role reports events")
        outcome = self._evaluate(context, command, now)
        if isinstance(outcome, Grant) and command.operation is Operation.C_MOVE:
            refusal = self._judge_destination(command.move_destination or "", outcome)
            if refusal is not None and refusal.reason is ReasonCode.MOVE_DESTINATION_UNKNOWN:
                lift = self.lift(refusal.reason, now)
                return refusal if lift is None else replace(outcome, lifts=(*outcome.lifts, lift))
            return refusal or outcome
        return outcome

    def _judge_destination(self, ae_title: str, granted: Grant) -> Refusal | None:
        """Refuse a destination that the registry doesn't know, or whose site may not be sent anything now."""
        if not self._world.settings.judges_destinations:
            return None
        destination = self._world.registry.route(ae_title)
        if destination is None:
            return Refusal(
                ReasonCode.MOVE_DESTINATION_UNKNOWN,
                detail="no registered device with an address has this AE title: see `dicomward device add --address`",
            )
        reason = self._world.floor_reason(destination.site) if isinstance(destination, Device) else None
        if reason in LIFTED_FLOORS and any(lift.reason is ReasonCode.CLINICAL_FLOOR_ONLY for lift in granted.lifts):
            # What narrows the destination narrows the device as well, and is lifted already.
            return None
        if reason is not None:
            return Refusal(ReasonCode.CLINICAL_FLOOR_ONLY, detail=f"at the destination, because of {reason}")
        return None

    def judge_report(
        self, transaction_uid: str, context: Context, command: CommandSet, now: Instant
    ) -> Grant | Refusal:
        """Judge a report on the device's own association, the same or a later one: the request has to be its own."""
        correlations = self._world.correlations
        for title in self._own_ae_titles():
            for commitment in correlations.commitments_towards(self._target.name, title):
                if commitment.transaction_uid == transaction_uid:
                    return Grant(())
        return Refusal(ReasonCode.NO_PENDING_COMMITMENT, detail="no pending commitment has this transaction UID")

    def _own_ae_titles(self) -> frozenset[str]:
        if isinstance(device := self._world.registry.device_by_name(self.principal.device), Device):
            return frozenset(device.ae_titles)
        return super()._own_ae_titles()


class ArchiveRights(_PolicyRights):
    """An archive on the archive side: what a device's pending move or commitment covers, then the policy."""

    def __init__(self, world: World, principal: Principal, target: Archive | Device, called_ae_title: str) -> None:
        super().__init__(world, principal, target)
        self._called_ae_title = called_ae_title

    def judge_contexts(self, request: AAssociateRq, now: Instant) -> ContextRights:
        """Judge the presentation contexts: by pending moves and commitments, then by policy."""
        permitted, refusal, _lifts = self._contexts(request, now)
        correlations = self._world.correlations
        moving = bool(correlations.moves_towards(self.principal.device, self._called_ae_title))
        committing = bool(correlations.commitments_towards(self.principal.device, self._called_ae_title))
        for context in request.presentation_contexts:
            service = service_of(context.abstract_syntax)
            if (moving and service in _MOVED) or (committing and service is Service.STORAGE_COMMITMENT):
                permitted.setdefault(context.context_id, ())
        if not permitted and refusal.reason in (ReasonCode.NO_MATCHING_RULE, ReasonCode.NO_PERMITTED_CONTEXT):
            reporting = any(
                service_of(context.abstract_syntax) is Service.STORAGE_COMMITMENT
                for context in request.presentation_contexts
            )
            refusal = Refusal(
                ReasonCode.NO_PENDING_COMMITMENT if reporting else ReasonCode.NO_PENDING_MOVE,
                detail="no C-MOVE or storage commitment is pending at this archive for it, and no rule allows it",
            )
        return _context_rights(permitted, request, refusal)

    def judge_operation(self, invoker: Leg, context: Context, command: CommandSet, now: Instant) -> Grant | Refusal:
        """Judge an operation: a C-STORE by its move, an N-EVENT-REPORT (once its head is read) by its commitment."""
        if invoker is Leg.ACCEPTOR:
            return Refusal(ReasonCode.UNEXPECTED_COMMAND, detail="the destination may not invoke operations here")
        if command.operation is Operation.C_STORE and service_of(context.abstract_syntax) in _MOVED:
            originator = command.move_originator_ae_title
            if originator == self.principal.calling_ae_title:
                # Some archives (pynetdicom's) name themselves, which names nobody.
                originator = None
            move = self._world.correlations.match_move(
                self.principal.device, self._called_ae_title, originator, command.move_originator_message_id
            )
            if isinstance(move, PendingMove):
                return Grant(move.bypasses, move=move)
            outcome = self._evaluate(context, command, now)
            if isinstance(outcome, Grant):
                return outcome
            if isinstance(move, Ambiguous):
                return Refusal(
                    ReasonCode.AMBIGUOUS_MOVE,
                    detail="several moves are pending, and none is named",
                    moves=tuple(self._world.correlations.moves_towards(self.principal.device, self._called_ae_title)),
                )
            return Refusal(ReasonCode.NO_PENDING_MOVE, detail="no pending move fits this sub-operation")
        if (
            command.operation is Operation.N_EVENT_REPORT
            and service_of(context.abstract_syntax) is Service.STORAGE_COMMITMENT
        ):
            return Grant((), inspect=True)
        return self._evaluate(context, command, now)

    def judge_report(
        self, transaction_uid: str, context: Context, command: CommandSet, now: Instant
    ) -> Grant | Refusal:
        """Judge an N-EVENT-REPORT of storage commitment by its transaction UID."""
        pending = self._world.correlations.commitments_towards(self.principal.device, self._called_ae_title)
        if any(commitment.transaction_uid == transaction_uid for commitment in pending):
            return Grant(())
        outcome = self._evaluate(context, command, now)
        if isinstance(outcome, Grant):
            return outcome
        return Refusal(ReasonCode.NO_PENDING_COMMITMENT, detail="no pending commitment has this transaction UID")
