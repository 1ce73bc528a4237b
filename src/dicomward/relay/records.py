"""What the audit log is told of the operations of one association."""

from base64 import b64encode
from collections.abc import Mapping
from typing import TypedDict

from dicomward.audit.event import (
    MatchesReturned,
    OperationAllowed,
    OperationCompleted,
    OperationDenied,
    RefusalObserved,
)
from dicomward.audit.fields import MAX_IDENTIFIER_CHARACTERS
from dicomward.dicom.dimse import CommandSet
from dicomward.relay.correlations import PendingMove
from dicomward.relay.effects import Record
from dicomward.relay.messages import Exchange, Refusal
from dicomward.relay.negotiation import Context
from dicomward.relay.observe import is_observed
from dicomward.relay.world import World
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Principal
from dicomward.vocab.reason import ReasonCode


class OperationFacts(TypedDict):
    """What every record of an operation holds."""

    association: str
    device: str
    role: str
    site: str
    calling_ae_title: str
    called_ae_title: str
    archive: str
    address: str
    rule_ids: tuple[str, ...]
    waived: tuple[str, ...] | None
    policy_revision: str
    operation: str
    message_id: int
    sop_class_uid: str | None
    sop_instance_uid: str | None
    move_destination: str | None
    query_level: str | None
    direction: str
    patient_id: str | None
    issuer_of_patient_id: str | None
    study_instance_uid: str | None
    originator: str | None
    person: str | None


class QueryFacts(TypedDict):
    """What the last record of a query or retrieval holds besides."""

    identifier: str | None
    transfer_syntax_uid: str | None


class Records:
    """Makes the records of one association's operations."""

    def __init__(
        self,
        world: World,
        principal: Principal,
        contexts: Mapping[int, Context],
        *,
        association: str,
        archive: str,
        called_ae_title: str,
    ) -> None:
        self._world = world
        self._principal = principal
        self._contexts = contexts
        self._association = association
        self._archive = archive
        self._called_ae_title = called_ae_title

    def facts(self, exchange: Exchange) -> OperationFacts:
        """Return what is known of an operation."""
        principal, command = self._principal, exchange.command
        return {
            "association": self._association,
            "device": principal.device,
            "role": principal.role,
            "site": principal.site,
            "calling_ae_title": principal.calling_ae_title,
            "called_ae_title": self._called_ae_title,
            "archive": self._archive,
            "address": principal.address,
            "rule_ids": exchange.all_rule_ids if exchange.lifts else exchange.rule_ids,
            "waived": exchange.waived if exchange.lifts else None,
            "policy_revision": self._world.policy.revision,
            "operation": exchange.operation.label,
            "message_id": exchange.message_id,
            "sop_class_uid": command.sop_class_uid,
            "sop_instance_uid": command.sop_instance_uid,
            "move_destination": command.move_destination,
            "query_level": exchange.query_level,
            "direction": exchange.invoker.name.lower(),
            "patient_id": exchange.subject.patient_id,
            "issuer_of_patient_id": exchange.subject.issuer_of_patient_id,
            "study_instance_uid": exchange.subject.study_instance_uid,
            "originator": _originator_of(exchange),
            "person": principal.person or None,
        }

    def query_facts(self, exchange: Exchange) -> QueryFacts:
        """Return the identifier of a query or retrieval, for its last record only."""
        encoded = b64encode(exchange.identifier).decode("ascii")
        if not encoded or len(encoded) > MAX_IDENTIFIER_CHARACTERS:
            return {"identifier": None, "transfer_syntax_uid": None}
        return {
            "identifier": encoded,
            "transfer_syntax_uid": self._contexts[exchange.context_id].transfer_syntax,
        }

    def allowed(self, exchange: Exchange) -> Record:
        """Record that an operation is forwarded."""
        return Record(OperationAllowed(**self.facts(exchange)))

    def observed(self, exchange: Exchange) -> list[Record]:
        """Record what has passed because the device is observed, and isn't on record yet."""
        new, exchange.told_lifts = exchange.lifts[exchange.told_lifts :], len(exchange.lifts)
        return [
            Record(RefusalObserved(**self.facts(exchange), reason=lift.reason)) for lift in new if is_observed(lift)
        ]

    def matched(self, exchange: Exchange) -> list[Record]:
        """Record whose data went out in matches, as far as it isn't on record yet."""
        if not exchange.matched:
            return []
        told = tuple(
            "\\".join((each.patient_id or "", each.issuer_of_patient_id or "", each.study_instance_uid or ""))
            for each in exchange.matched
        )
        exchange.matched.clear()
        return [Record(MatchesReturned(**self.facts(exchange), matched=told))]

    def denied(self, exchange: Exchange, refusal: Refusal, status: int) -> Record:
        """Record that an operation is refused."""
        return Record(
            OperationDenied(
                **self.facts(exchange),
                **self.query_facts(exchange),
                reason=refusal.reason,
                detail=refusal.detail or None,
                status=status,
            )
        )

    def completed(self, exchange: Exchange, command: CommandSet, now: float) -> Record:
        """Record the final response as the invoker gets it."""
        return Record(
            OperationCompleted(
                **self.facts(exchange),
                **self.query_facts(exchange),
                reason=exchange.cut or exchange.withheld,
                status=command.status,
                matches=exchange.matches if exchange.operation is Operation.C_FIND else None,
                completed=command.number_of_completed_suboperations,
                failed=command.number_of_failed_suboperations,
                warning=command.number_of_warning_suboperations,
                bytes=exchange.bytes,
                duration_ms=_milliseconds(now - exchange.started),
            )
        )

    def unfinished(self, exchange: Exchange, reason: ReasonCode, now: float) -> Record:
        """Record that the association has ended before the operation had a result."""
        return Record(
            OperationCompleted(
                **self.facts(exchange),
                **self.query_facts(exchange),
                reason=reason,
                matches=exchange.matches or None,
                bytes=exchange.bytes,
                duration_ms=_milliseconds(now - exchange.started),
            )
        )


def _originator_of(exchange: Exchange) -> str | None:
    """Return the device that asked for the C-MOVE which a sub-operation belongs to, where it is known to be one."""
    devices = {parent.device for parent in exchange.suboperation_of if isinstance(parent, PendingMove)}
    return devices.pop() if len(devices) == 1 else None


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
