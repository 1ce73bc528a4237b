"""From the records of our log to the standard's messages: PS3.15 A.5.3, table by table.

Each record but those that nobody outside needs (deviations, C-ECHO) becomes at least one message. Transfers are told
together: one message for each association, direction and patient, as A.5.3.7 wants it (`transfers`).
"""

from collections.abc import Callable
from typing import Final

from dicomward.audit.chain import Record
from dicomward.audit.encode_json import MemberValue
from dicomward.audit.standard import (
    APPLICATION,
    APPLICATION_ACTIVITY,
    APPLICATION_START,
    APPLICATION_STOP,
    ATTACH,
    AUDIT_LOG_USED,
    AUDIT_RECORDING_STARTED,
    AUDIT_RECORDING_STOPPED,
    DETACH,
    EMERGENCY_OVERRIDE_STARTED,
    EMERGENCY_OVERRIDE_STOPPED,
    LOGIN,
    LOGOUT,
    NETWORK_ENTRY,
    NODE_AUTHENTICATION,
    NODE_ID,
    OBJECT_SECURITY_ATTRIBUTES_CHANGED,
    SECURITY_ALERT,
    SECURITY_CONFIGURATION,
    URI,
    USE_OF_RESTRICTED_FUNCTION,
    USER_AUTHENTICATION,
    USER_SECURITY_ATTRIBUTES_CHANGED,
    Action,
    AuditSource,
    Code,
    Detail,
    ObjectRole,
    ObjectType,
    Outcome,
    Participant,
    ParticipantObject,
    StandardMessage,
)
from dicomward.audit.transfers import Transfers
from dicomward.vocab.reason import ReasonCode

# Why a peer is not who it should be, or not where it should be; every other denial is about what it wanted to do.
_NOT_AUTHENTICATED: Final = frozenset(
    {
        ReasonCode.NOT_TLS,
        ReasonCode.TLS_FAILED,
        ReasonCode.NO_CERTIFICATE,
        ReasonCode.CERTIFICATE_UNKNOWN,
        ReasonCode.CERTIFICATE_REVOKED,
        ReasonCode.CERTIFICATE_EXPIRED,
        ReasonCode.CERTIFICATE_NOT_YET_VALID,
        ReasonCode.DEVICE_SUSPENDED,
        ReasonCode.DEVICE_REVOKED,
        ReasonCode.CALLING_AE_TITLE_NOT_BOUND,
        ReasonCode.NETWORK_NOT_ALLOWED,
        ReasonCode.ARCHIVE_UNKNOWN,
        ReasonCode.CERTIFICATE_BACK_OFF,
        ReasonCode.UPSTREAM_NOT_TRUSTED,
    }
)
# An emergency bypass is what the standard calls an emergency override.
_OVERRIDES: Final[dict[str, Code]] = {
    ReasonCode.BYPASS_OPENED: EMERGENCY_OVERRIDE_STARTED,
    ReasonCode.BYPASS_ENDED: EMERGENCY_OVERRIDE_STOPPED,
}
_USER_REASONS: Final = "user-"
_ATTACHES: Final = ("add-", "resume-", "enrol")
_DETACHES: Final = ("remove-", "suspend-", "revoke-")
_DETAILS: Final = (
    *("reason", "detail", "operation", "sop_class_uid", "sop_instance_uid", "move_destination", "query_level"),
    *("rule_ids", "policy_revision", "registry_revision", "certificate_sha256", "tls_version"),
    *("count", "first", "last", "component", "state", "action", "site", "sink_sha256"),
)
_LOG_URI: Final = "urn:dicomward:audit-log"
_LOG_NAME: Final = "Security Audit Log"


class Translator:
    """Makes messages of records, which come in their order."""

    def __init__(self, source: AuditSource) -> None:
        self._source = source
        self._transfers = Transfers(source)
        self._rows: dict[str, Callable[[Record], list[StandardMessage]]] = {
            "DW-ASSOC-ALLOW": self._association_allowed,
            "DW-ASSOC-DENY": self._denied,
            "DW-ASSOC-END": self._association_ended,
            "DW-OP-ALLOW": self._transfers.allowed,
            "DW-OP-DENY": self._denied,
            "DW-ENROL-DENY": self._denied,
            "DW-OP-END": self._transfers.completed,
            "DW-CONN-FAIL": self._connection_failed,
            "DW-CONN-COALESCE": self._connection_failed,
            "DW-REG-CHANGE": self._registry_changed,
            "DW-GW-START": self._application,
            "DW-GW-STOP": self._application,
            "DW-DEGR-ENTER": self._degraded,
            "DW-DEGR-LEAVE": self._degraded,
            "DW-AUDIT-ACCESS": self._log_used,
            "DW-AUDIT-LOST": self._records_lost,
            "DW-SEC-ALERT": self._security_alert,
            "DW-DEVIATION": lambda _record: [],
        }

    @property
    def untold(self) -> int | None:
        """The number of the oldest record that a message still to come tells of; None where all is told."""
        return self._transfers.oldest

    def take(self, record: Record) -> list[StandardMessage]:
        """Return the messages that a record completes."""
        row = self._rows.get(record.code)
        return row(record) if row is not None else self._changed(record)

    def flush(self, before: str | None = None) -> list[StandardMessage]:
        """Tell of transfers that have been open since before a time; of all of them without one."""
        return self._transfers.flush(before)

    # --- application, log --------------------------------------------------------------------------------------------

    def _application(self, record: Record) -> list[StandardMessage]:
        is_start = record.code == "DW-GW-START"
        return [
            self._message(
                record,
                APPLICATION_ACTIVITY,
                types=(APPLICATION_START if is_start else APPLICATION_STOP,),
                participants=(self._gateway(),),
            )
        ]

    def _log_used(self, record: Record) -> list[StandardMessage]:
        log = ParticipantObject(
            object_id=_LOG_URI,
            id_type=URI,
            type=ObjectType.SYSTEM,
            role=ObjectRole.SECURITY_RESOURCE,
            name=_LOG_NAME,
            details=_details(record),
        )
        return [
            self._message(
                record, AUDIT_LOG_USED, action=Action.READ, participants=(_operator(record, True),), objects=(log,)
            )
        ]

    def _records_lost(self, record: Record) -> list[StandardMessage]:
        return [self._alert(record, AUDIT_RECORDING_STOPPED, Outcome.SERIOUS_FAILURE)]

    def _degraded(self, record: Record) -> list[StandardMessage]:
        entered = record.code == "DW-DEGR-ENTER"
        outcome = Outcome.SUCCESS
        if entered:
            no_sink = record.members.get("state") == "no-sink"
            outcome = Outcome.MAJOR_FAILURE if no_sink else Outcome.SERIOUS_FAILURE
        kind = SECURITY_CONFIGURATION
        if record.members.get("component") == "audit log":
            kind = AUDIT_RECORDING_STOPPED if entered else AUDIT_RECORDING_STARTED
        return [self._alert(record, kind, outcome)]

    # --- nodes and users ---------------------------------------------------------------------------------------------

    def _association_allowed(self, record: Record) -> list[StandardMessage]:
        return [self._authentication(record, LOGIN)]

    def _association_ended(self, record: Record) -> list[StandardMessage]:
        told = self._transfers.ended(record)
        return [*told, self._authentication(record, LOGOUT)]

    def _authentication(
        self, record: Record, kind: Code, outcome: Outcome = Outcome.SUCCESS, description: str = ""
    ) -> StandardMessage:
        return self._message(
            record,
            USER_AUTHENTICATION,
            types=(kind,),
            outcome=outcome,
            description=description,
            participants=(_caller(record, is_requestor=True), self._gateway()),
        )

    def _connection_failed(self, record: Record) -> list[StandardMessage]:
        return [self._alert(record, NODE_AUTHENTICATION, Outcome.MINOR_FAILURE)]

    def _denied(self, record: Record) -> list[StandardMessage]:
        reason = _text(record, "reason")
        told: list[StandardMessage] = []
        if reason.startswith(_USER_REASONS):
            told.append(self._authentication(record, LOGIN, Outcome.MINOR_FAILURE, reason))
        is_unknown = record.code == "DW-ENROL-DENY" or (record.code == "DW-ASSOC-DENY" and reason in _NOT_AUTHENTICATED)
        kind = NODE_AUTHENTICATION if is_unknown else USE_OF_RESTRICTED_FUNCTION
        return [*told, self._alert(record, kind, Outcome.MINOR_FAILURE)]

    def _security_alert(self, record: Record) -> list[StandardMessage]:
        kind = _OVERRIDES.get(_text(record, "reason"))
        if kind is not None:
            return [self._alert(record, kind, Outcome.SUCCESS)]
        return [self._alert(record, SECURITY_CONFIGURATION, Outcome.SERIOUS_FAILURE)]

    # --- changes -----------------------------------------------------------------------------------------------------

    def _registry_changed(self, record: Record) -> list[StandardMessage]:
        action = _text(record, "action")
        told = [self._alert(record, USER_SECURITY_ATTRIBUTES_CHANGED, Outcome.SUCCESS)]
        kind = ATTACH if action.startswith(_ATTACHES) else DETACH if action.startswith(_DETACHES) else None
        if kind is not None:
            name = _text(record, "device") or _text(record, "archive")
            node = Participant(user_id=name or self._source.source_id, is_requestor=False)
            told.append(self._message(record, NETWORK_ENTRY, types=(kind,), participants=(node,)))
        return told

    def _changed(self, record: Record) -> list[StandardMessage]:
        """Tell of a change of policy or settings, and of whatever a later release records besides."""
        return [self._alert(record, OBJECT_SECURITY_ATTRIBUTES_CHANGED, Outcome.SUCCESS)]

    # --- parts -------------------------------------------------------------------------------------------------------

    def _gateway(self) -> Participant:
        return Participant(user_id=self._source.source_id, user_name="Dicomward", role=APPLICATION)

    def _alert(self, record: Record, kind: Code, outcome: Outcome) -> StandardMessage:
        """Return a security alert: who reports it, whom it is about, and all that is known of it."""
        operator = _text(record, "operator")
        subject = _operator(record, False) if operator else _caller(record, is_requestor=False)
        about = _text(record, "device") or _text(record, "archive") or _text(record, "address")
        node = ParticipantObject(
            object_id=about or self._source.source_id,
            id_type=NODE_ID,
            type=ObjectType.SYSTEM,
            role=ObjectRole.SECURITY_RESOURCE,
            name=about,
            details=(Detail("Alert Description", _description(record).encode()), *_details(record)),
        )
        return self._message(
            record,
            SECURITY_ALERT,
            types=(kind,),
            outcome=outcome,
            description=_text(record, "reason"),
            participants=(self._gateway(), *([subject] if subject.user_id else [])),
            objects=(node,),
        )

    def _message(
        self,
        record: Record,
        event: Code,
        *,
        action: Action = Action.EXECUTE,
        types: tuple[Code, ...] = (),
        outcome: Outcome = Outcome.SUCCESS,
        description: str = "",
        participants: tuple[Participant, ...],
        objects: tuple[ParticipantObject, ...] = (),
    ) -> StandardMessage:
        return StandardMessage(
            event=event,
            action=action,
            time=record.time,
            record=record.seq,
            source=self._source,
            outcome=outcome,
            outcome_description=description,
            types=types,
            participants=participants,
            objects=objects,
            association=_text(record, "association"),
        )


def _caller(record: Record, *, is_requestor: bool) -> Participant:
    """Return whoever called: the person if one is known, else the device, else its address."""
    device = _text(record, "device")
    return Participant(
        user_id=_text(record, "person") or device or _text(record, "calling_ae_title") or _text(record, "address"),
        user_name=device,
        ae_title=_text(record, "calling_ae_title"),
        is_requestor=is_requestor,
        address=_text(record, "address"),
    )


def _operator(record: Record, is_requestor: bool) -> Participant:
    return Participant(user_id=_text(record, "operator") or "unknown", is_requestor=is_requestor)


def _description(record: Record) -> str:
    """Return one line for people."""
    parts = [_text(record, name) for name in ("component", "action", "operation", "reason", "detail")]
    return f"{record.code} {': '.join(part for part in parts if part)}".strip()


def _details(record: Record) -> tuple[Detail, ...]:
    known = ((name, record.members.get(name)) for name in _DETAILS)
    return tuple(Detail(name, _plain(value).encode()) for name, value in known if value is not None)


def _plain(value: MemberValue) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(record: Record, name: str) -> str:
    value = record.members.get(name)
    return value if isinstance(value, str) else ""
