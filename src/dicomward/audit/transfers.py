"""Queries and transfers: PS3.15 A.5.3.3, A.5.3.7 and A.5.3.10. One patient is one message.

Rules of this room: memory is bounded (`MAX_OPEN`, `MAX_INSTANCES`); what reaches a bound is told at once.
"""

from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from dicomward.audit.chain import Record
from dicomward.audit.standard import (
    BEGIN_TRANSFERRING,
    DESTINATION,
    INSTANCES_TRANSFERRED,
    PATIENT_NUMBER,
    PROCEDURE_RECORD,
    QUERY,
    SOP_CLASS_UID,
    SOURCE,
    STUDY_INSTANCE_UID,
    Action,
    AuditSource,
    Code,
    Detail,
    ObjectRole,
    ObjectType,
    Outcome,
    Participant,
    ParticipantObject,
    SopClass,
    StandardMessage,
)

MAX_INSTANCES: Final = 200
"""Instances in one message: their UIDs and the rest stay below the 32 KiB that every receiver takes."""

MAX_OPEN: Final = 1024
"""Transfers that are collected at the same time: more than there are associations."""

_MPPS: Final = "1.2.840.10008.3.1.2.3.3"
_PROCEDURE_ACTIONS: Final = {"n-create": Action.CREATE, "n-set": Action.UPDATE}
_RETRIEVALS: Final = ("c-get", "c-move")
_WARNINGS: Final = range(0xB000, 0xC000)

_Key = tuple[str, str, str, str, str, bool]


@dataclass(slots=True)
class _Open:
    """A transfer that is being collected: its first record, its newest, and the instances of each study."""

    first: Record
    last: Record
    count: int = 0
    instances: dict[str, dict[str, list[str]]] = field(default_factory=dict)


class Transfers:
    """Makes the messages of operations."""

    def __init__(self, source: AuditSource) -> None:
        self._source = source
        self._open: OrderedDict[_Key, _Open] = OrderedDict()
        self._begun: OrderedDict[tuple[str, str, str, str], None] = OrderedDict()

    @property
    def oldest(self) -> int | None:
        """The number of the oldest record that is not told yet."""
        return min((each.first.seq for each in self._open.values()), default=None)

    def allowed(self, record: Record) -> list[StandardMessage]:
        """Begin a transfer: told once for each association, direction and patient."""
        operation = _text(record, "operation")
        if operation not in ("c-store", *_RETRIEVALS):
            return []
        key = (_text(record, "association"), operation, _text(record, "direction"), _patient(record))
        if key in self._begun:
            return []
        self._begun[key] = None
        if len(self._begun) > MAX_OPEN:
            self._begun.popitem(last=False)
        study = _text(record, "study_instance_uid")
        studies = (_study(study, ()),) if study else ()
        return [self._message(record, BEGIN_TRANSFERRING, Action.EXECUTE, objects=(*_patients(record), *studies))]

    def completed(self, record: Record) -> list[StandardMessage]:
        """Tell of a query, a procedure step or a failed retrieval at once; collect an instance."""
        match _text(record, "operation"):
            case "c-store":
                return self._stored(record)
            case "c-find":
                return [self._query(record)]
            case "c-get" | "c-move" if _outcome(record) is not Outcome.SUCCESS:
                # What was transferred is told by the sub-operations.
                study = _text(record, "study_instance_uid")
                studies = (_study(study, ()),) if study else ()
                return [
                    self._message(record, INSTANCES_TRANSFERRED, Action.EXECUTE, objects=(*_patients(record), *studies))
                ]
            case "n-create" | "n-set" as operation if _text(record, "sop_class_uid") == _MPPS:
                action = _PROCEDURE_ACTIONS[operation]
                return [self._message(record, PROCEDURE_RECORD, action, objects=_patients(record))]
        return []

    def ended(self, record: Record) -> list[StandardMessage]:
        """Tell of all that an association has transferred."""
        association = _text(record, "association")
        for begun in [key for key in self._begun if key[0] == association]:
            del self._begun[begun]
        return [self._told(key) for key in [key for key in self._open if key[0] == association]]

    def flush(self, before: str | None = None) -> list[StandardMessage]:
        """Tell of transfers that have been open since before a time; of all of them without one."""
        due = [key for key, each in self._open.items() if before is None or each.first.time < before]
        return [self._told(key) for key in due]

    def _stored(self, record: Record) -> list[StandardMessage]:
        is_good = _outcome(record) is Outcome.SUCCESS
        key = (
            _text(record, "association"),
            _text(record, "direction"),
            _text(record, "originator"),
            _text(record, "patient_id"),
            _text(record, "issuer_of_patient_id"),
            is_good,
        )
        transfer = self._open.get(key)
        if transfer is None:
            transfer = self._open[key] = _Open(record, record)
        transfer.last = record
        transfer.count += 1
        classes = transfer.instances.setdefault(_text(record, "study_instance_uid"), {})
        classes.setdefault(_text(record, "sop_class_uid"), []).append(_text(record, "sop_instance_uid"))
        if transfer.count >= MAX_INSTANCES:
            return [self._told(key)]
        if len(self._open) > MAX_OPEN:
            return [self._told(next(iter(self._open)))]
        return []

    def _told(self, key: _Key) -> StandardMessage:
        transfer = self._open.pop(key)
        studies = tuple(
            _study(
                study, tuple(SopClass(uid, len(found), tuple(filter(None, found))) for uid, found in classes.items())
            )
            for study, classes in transfer.instances.items()
        )
        action = Action.CREATE if _text(transfer.first, "direction") == "requestor" else Action.READ
        return self._message(
            transfer.last, INSTANCES_TRANSFERRED, action, objects=(*_patients(transfer.first), *studies)
        )

    def _query(self, record: Record) -> StandardMessage:
        sop_class = _text(record, "sop_class_uid")
        queried = ParticipantObject(
            object_id=sop_class,
            id_type=SOP_CLASS_UID,
            type=ObjectType.SYSTEM,
            # A.5.3.10 has the role of a report here, though there is one called "query".
            role=ObjectRole.REPORT,
            query=b64decode(_text(record, "identifier")),
            details=(
                Detail("TransferSyntax", _text(record, "transfer_syntax_uid").encode()),
                Detail("Matches", str(record.members.get("matches", 0)).encode()),
            ),
        )
        return self._message(record, QUERY, Action.EXECUTE, objects=(queried, *_patients(record)))

    def _message(
        self, record: Record, event: Code, action: Action, *, objects: tuple[ParticipantObject, ...]
    ) -> StandardMessage:
        outcome = Outcome.SUCCESS if event is BEGIN_TRANSFERRING else _outcome(record)
        return StandardMessage(
            event=event,
            action=action,
            time=record.time,
            record=record.seq,
            source=self._source,
            outcome=outcome,
            outcome_description="" if outcome is Outcome.SUCCESS else _failure(record),
            participants=_participants(record),
            objects=objects,
            association=_text(record, "association"),
        )


def _participants(record: Record) -> tuple[Participant, ...]:
    """Return source and destination of the data, and whoever else took part. At most one is the requestor."""
    operation, asked_by_device = _text(record, "operation"), _text(record, "direction") == "requestor"
    originator, moves_to = _text(record, "originator"), _text(record, "move_destination")
    device_sends = (operation not in _RETRIEVALS) is asked_by_device
    device = Participant(
        user_id=_text(record, "device"),
        ae_title=_text(record, "calling_ae_title"),
        address=_text(record, "address"),
        is_requestor=not originator and (asked_by_device or operation == "c-store"),
        role=None if moves_to else SOURCE if device_sends else DESTINATION,
    )
    archive = Participant(
        user_id=_text(record, "archive"),
        ae_title=_text(record, "called_ae_title"),
        is_requestor=False,
        role=DESTINATION if device_sends else SOURCE,
    )
    if moves_to:
        return (archive, Participant(user_id=moves_to, ae_title=moves_to, role=DESTINATION), device)
    others = (Participant(user_id=originator, is_requestor=True),) if originator else ()
    return (device, archive, *others) if device_sends else (archive, device, *others)


def _patients(record: Record) -> tuple[ParticipantObject, ...]:
    """Return the patient, where it is known; names aren't."""
    patient_id, issuer = _text(record, "patient_id"), _text(record, "issuer_of_patient_id")
    if not patient_id:
        return ()
    return (
        ParticipantObject(
            object_id=f"{patient_id}^^^{issuer}" if issuer else patient_id,
            id_type=PATIENT_NUMBER,
            type=ObjectType.PERSON,
            role=ObjectRole.PATIENT,
        ),
    )


def _study(uid: str, sop_classes: tuple[SopClass, ...]) -> ParticipantObject:
    return ParticipantObject(
        object_id=uid,
        id_type=STUDY_INSTANCE_UID,
        type=ObjectType.SYSTEM,
        role=ObjectRole.REPORT,
        sop_classes=sop_classes,
    )


def _patient(record: Record) -> str:
    return f"{_text(record, 'patient_id')}\n{_text(record, 'issuer_of_patient_id')}"


def _outcome(record: Record) -> Outcome:
    status = record.members.get("status")
    if not isinstance(status, int):
        return Outcome.SERIOUS_FAILURE
    return Outcome.SUCCESS if status == 0 or status in _WARNINGS else Outcome.MINOR_FAILURE


def _failure(record: Record) -> str:
    status = record.members.get("status")
    shown = f"status {status:04X}H" if isinstance(status, int) else "no final response"
    return f"{shown} {_text(record, 'reason')}".strip()


def _text(record: Record, name: str) -> str:
    value = record.members.get(name)
    return value if isinstance(value, str) else ""
