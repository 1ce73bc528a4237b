"""The typed audit events and their stable codes. How much each field tells stands in `dicomward.audit.fields`.

Rules of this room: an event is a pure value. It has no time and no number: the log stamps both when it is appended.
Patients' names never belong here; fields hold UIDs, the names of devices and, unless switched off, patients' IDs.
Codes and field names are append-only, because scripts and alarms of our users depend on them; docs/audit.md lists all
of them.
"""

from dataclasses import dataclass, fields
from typing import ClassVar, Final

from dicomward.vocab.reason import ReasonCode


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """What every event may hold. A field that isn't known at that moment stays None and is left out of the record.

    `association` is the identifier that all the records of one association share; `archive` the registered name of
    the target; `address` the peer's IP address as text; `detail` free text for people, cut and escaped by the log.
    `waived` holds the reasons for which it would have been refused, had no emergency bypass (`rule_ids`) been open.
    """

    code: ClassVar[str] = ""

    association: str | None = None
    device: str | None = None
    role: str | None = None
    site: str | None = None
    assurance: str | None = None
    calling_ae_title: str | None = None
    called_ae_title: str | None = None
    archive: str | None = None
    address: str | None = None
    certificate_sha256: str | None = None
    reason: ReasonCode | None = None
    rule_ids: tuple[str, ...] | None = None
    waived: tuple[str, ...] | None = None
    policy_revision: str | None = None
    registry_revision: int | None = None
    detail: str | None = None
    person: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEvent(AuditEvent):
    """What the events of one DIMSE operation share.

    `operation` is the label (`c-store`); `direction` who invoked it: "requestor" or "acceptor" of the association;
    `status` the DIMSE status; `completed`, `failed`, `warning` count sub-operations; `bytes` is the size of the data
    sets; `duration_ms` goes from the request to the final response. `patient_id`, `issuer_of_patient_id` and
    `study_instance_uid` are those of the data set or identifier; `originator` is the device that asked for the C-MOVE
    of a sub-operation; `identifier` a query's data set in base64, in `transfer_syntax_uid`.
    """

    operation: str | None = None
    message_id: int | None = None
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None
    move_destination: str | None = None
    query_level: str | None = None
    direction: str | None = None
    status: int | None = None
    matches: int | None = None
    completed: int | None = None
    failed: int | None = None
    warning: int | None = None
    bytes: int | None = None
    duration_ms: int | None = None
    patient_id: str | None = None
    issuer_of_patient_id: str | None = None
    study_instance_uid: str | None = None
    originator: str | None = None
    identifier: str | None = None
    transfer_syntax_uid: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationAllowed(AuditEvent):
    """An association was authenticated and permitted. Durable before the upstream is contacted."""

    code: ClassVar[str] = "DW-ASSOC-ALLOW"

    tls_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationDenied(AuditEvent):
    """An association was rejected or aborted before it was established. Durable before the peer is told."""

    code: ClassVar[str] = "DW-ASSOC-DENY"

    reason: ReasonCode
    tls_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationEnded(AuditEvent):
    """An established association is over; `reason` is None after an ordinary release."""

    code: ClassVar[str] = "DW-ASSOC-END"

    operations: int | None = None
    bytes: int | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationNarrowed(AuditEvent):
    """An open association goes on with less, for `reason`."""

    code: ClassVar[str] = "DW-ASSOC-NARROW"

    reason: ReasonCode


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationAllowed(OperationEvent):
    """An operation is permitted; written before it is forwarded."""

    code: ClassVar[str] = "DW-OP-ALLOW"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationDenied(OperationEvent):
    """An operation was not forwarded, or its answers were held back."""

    code: ClassVar[str] = "DW-OP-DENY"

    reason: ReasonCode


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationCompleted(OperationEvent):
    """The final response of an operation went to its invoker."""

    code: ClassVar[str] = "DW-OP-END"


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchesReturned(OperationEvent):
    """Whose data went out in the matches of a query. A long answer has several of these records.

    `matched` holds, for each patient and study once in a record, patient ID, issuer and Study Instance UID, with a
    backslash between them; what the match doesn't say is empty.
    """

    code: ClassVar[str] = "DW-OP-MATCH"

    matched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFailed(AuditEvent):
    """A connection ended before it proved who it is: a failed TLS handshake, plaintext, no certificate, a deadline."""

    code: ClassVar[str] = "DW-CONN-FAIL"

    reason: ReasonCode
    tls_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StrangersCoalesced(AuditEvent):
    """Failures like one that is on record, counted instead of written one by one.

    `count` of them came between `first` and `last` (UTC, ISO 8601). Without `address` they came from many addresses,
    more than the table or the quota had room for.
    """

    code: ClassVar[str] = "DW-CONN-COALESCE"

    count: int
    first: str
    last: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryChanged(AuditEvent):
    """An operator changed the registry: `action` says what was done to `device` or `archive`.

    `count` is the number of open associations that were aborted for it.
    """

    code: ClassVar[str] = "DW-REG-CHANGE"

    operator: str | None = None
    action: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanged(AuditEvent):
    """Another policy is in force from now on: `policy_revision` names it."""

    code: ClassVar[str] = "DW-POLICY-CHANGE"

    operator: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationReloaded(AuditEvent):
    """Settings, policy, certificates and registry were loaded again; `action` says how that was asked for.

    `state` is "ok", or "kept-old" where something is broken and its old version goes on; `detail` names each.
    """

    code: ClassVar[str] = "DW-RELOAD"

    operator: str | None = None
    action: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStarted(AuditEvent):
    """The gateway serves."""

    code: ClassVar[str] = "DW-GW-START"

    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStopped(AuditEvent):
    """The gateway ended in order."""

    code: ClassVar[str] = "DW-GW-STOP"

    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradedEntered(AuditEvent):
    """`component` of ours can't do its work; `state` says how far the gateway has narrowed, `first` since when."""

    code: ClassVar[str] = "DW-DEGR-ENTER"

    component: str
    state: str | None = None
    first: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradedLeft(AuditEvent):
    """`component` works again. For the audit log: `count` records went to the second sink instead.

    `sink_sha256` is the SHA-256 over the bytes of their lines, so that the second sink's file can be checked.
    """

    code: ClassVar[str] = "DW-DEGR-LEAVE"

    component: str
    state: str | None = None
    first: str | None = None
    count: int | None = None
    sink_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityAlert(AuditEvent):
    """Something that a person should look at now."""

    code: ClassVar[str] = "DW-SEC-ALERT"

    count: int | None = None
    operator: str | None = None
    bypass: str | None = None
    state_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BypassReviewed(AuditEvent):
    """Somebody has looked at what was done while an emergency bypass was open; `detail` is what was found.

    `state_sha256` is the SHA-256 over what the file of the bypass holds from now on, here and in the alerts about it.
    """

    code: ClassVar[str] = "DW-BYPASS-REVIEW"

    operator: str | None = None
    bypass: str | None = None
    state_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyZoneAlarm(AuditEvent):
    """A legacy zone ends in `count` days; with a reason, it is over, and the clinical floor is left."""

    code: ClassVar[str] = "DW-ZONE-ALARM"

    zone: str
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalObserved(OperationEvent):
    """Something passed because its device is observed; `reason` is why it would have been refused.

    Without an operation it was the association, or some of its presentation contexts.
    """

    code: ClassVar[str] = "DW-OBSERVED"

    reason: ReasonCode


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWarned(AuditEvent):
    """A device has used most of a budget: `count` of `budget` of a `measure` in a `period`; `action` comes at its end.

    `reason` is the one that refusals will have.
    """

    code: ClassVar[str] = "DW-BUDGET-WARN"

    measure: str | None = None
    period: str | None = None
    count: int | None = None
    budget: int | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetEnded(AuditEvent):
    """A device has gone beyond a budget, and is slowed down or refused from now on: see `action`."""

    code: ClassVar[str] = "DW-BUDGET-END"

    measure: str | None = None
    period: str | None = None
    count: int | None = None
    budget: int | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReset(AuditEvent):
    """An operator has set back what a device had used of its budgets."""

    code: ClassVar[str] = "DW-BUDGET-RESET"

    operator: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationVerified(AuditEvent):
    """Somebody has looked from outside whether an archive answers others: `state` is the verdict, `count` the ports."""

    code: ClassVar[str] = "DW-ISOLATION"

    operator: str | None = None
    state: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviationsCounted(AuditEvent):
    """Harmless deviations of a device from the standard: `deviations` holds each name with its number."""

    code: ClassVar[str] = "DW-DEVIATION"

    deviations: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditAccessed(AuditEvent):
    """Somebody read or checked the audit log with our commands; `action` is the command, `count` what it showed."""

    code: ClassVar[str] = "DW-AUDIT-ACCESS"

    operator: str | None = None
    action: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorsChanged(AuditEvent):
    """An operator added, changed or removed an operator, or a person's passcode; `action` says which."""

    code: ClassVar[str] = "DW-OPER-CHANGE"

    operator: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRefused(AuditEvent):
    """A command was refused: its operator is unknown or lacks the role; `action` is the permission."""

    code: ClassVar[str] = "DW-OPER-DENY"

    operator: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalChanged(AuditEvent):
    """A request for a second operator was made, approved, rejected or used; `action` says which."""

    code: ClassVar[str] = "DW-APPROVAL"

    operator: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentChanged(AuditEvent):
    """Something has happened on a device's way to its credential; `action` says what: invite, issue, approve, ...

    `operator` is who did it; where it was the device itself, "enrolment".
    """

    code: ClassVar[str] = "DW-ENROL"

    operator: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRefused(AuditEvent):
    """A credential was asked for and not issued; `action` is what was asked for."""

    code: ClassVar[str] = "DW-ENROL-DENY"

    reason: ReasonCode
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecordsLost(AuditEvent):
    """Records are missing before this one: `count` of them, None where that can't be known."""

    code: ClassVar[str] = "DW-AUDIT-LOST"

    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPruned(AuditEvent):
    """The oldest `count` records were removed on purpose, up to the one of `last`; `action` says who wanted it."""

    code: ClassVar[str] = "DW-AUDIT-PRUNE"

    operator: str | None = None
    action: str | None = None
    count: int | None = None
    last: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LockdownChanged(AuditEvent):
    """An operator left only the clinical floor to a site (`action` lock), or gave the rest back (lift).

    `count` is the number of associations that were aborted because they were reading.
    """

    code: ClassVar[str] = "DW-LOCKDOWN"

    operator: str | None = None
    action: str | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaChanged(AuditEvent):
    """An operator made, adopted or rolled over a CA, or let the gateway trust one; `action` says which."""

    code: ClassVar[str] = "DW-CA-CHANGE"

    operator: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateExpires(AuditEvent):
    """A certificate, or a CRL, ends soon or has ended: `component` is whose kind it is, `detail` its name.

    `count` is the number of whole days that are left, below 0 after the end; `last` the end (UTC, ISO 8601).
    """

    code: ClassVar[str] = "DW-CERT-EXPIRES"

    component: str
    count: int | None = None
    last: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssessmentChanged(AuditEvent):
    """An exposure assessment began, ended or was stopped (`action`); in the log of its own directory.

    `state_sha256` is the hash of the scope that was confirmed, `count` the number of hosts, `detail` says for whom.
    """

    code: ClassVar[str] = "DW-ASSESS"

    operator: str | None = None
    action: str | None = None
    count: int | None = None
    state_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSent(AuditEvent):
    """An exposure assessment is about to send something to `address`: `action` says what, `detail` to which ports."""

    code: ClassVar[str] = "DW-PROBE"

    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseConnection(AuditEvent):
    """A connection that a device has opened for associations to it was parked, used or closed unused (`action`).

    `association` is the one that it is used for, `reason` why it was closed.
    """

    code: ClassVar[str] = "DW-REVERSE"

    action: str | None = None


EVENT_CLASSES: Final[tuple[type[AuditEvent], ...]] = (
    AssociationAllowed,
    AssociationDenied,
    AssociationEnded,
    OperationAllowed,
    OperationDenied,
    OperationCompleted,
    ConnectionFailed,
    StrangersCoalesced,
    RegistryChanged,
    PolicyChanged,
    ConfigurationReloaded,
    GatewayStarted,
    GatewayStopped,
    DegradedEntered,
    DegradedLeft,
    SecurityAlert,
    BypassReviewed,
    LegacyZoneAlarm,
    RefusalObserved,
    BudgetWarned,
    BudgetEnded,
    BudgetReset,
    IsolationVerified,
    DeviationsCounted,
    AuditAccessed,
    AuditRecordsLost,
    OperatorsChanged,
    OperatorRefused,
    ApprovalChanged,
    EnrolmentChanged,
    EnrolmentRefused,
    AuditPruned,
    LockdownChanged,
    AssociationNarrowed,
    MatchesReturned,
    CaChanged,
    CertificateExpires,
    AssessmentChanged,
    ProbeSent,
    ReverseConnection,
)
EVENT_CLASS_BY_CODE: Final[dict[str, type[AuditEvent]]] = {each.code: each for each in EVENT_CLASSES}


def field_names(event_class: type[AuditEvent]) -> tuple[str, ...]:
    """Return the names of the fields of an event class, in the order of its definition."""
    return tuple(each.name for each in fields(event_class))
