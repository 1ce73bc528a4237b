"""The standard's audit messages as values, before any encoding: PS3.15 A.5.1 (shape) and A.5.3 (what each must hold).

Codes are those of PS3.16 (DCM), roles and types those of RFC 3881 as PS3.15 A.5.1.2 lists them.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value: its code, its code system, its meaning."""

    value: str
    meaning: str
    system: str = "DCM"


# EventID
APPLICATION_ACTIVITY: Final = Code("110100", "Application Activity")
AUDIT_LOG_USED: Final = Code("110101", "Audit Log Used")
BEGIN_TRANSFERRING: Final = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_TRANSFERRED: Final = Code("110104", "DICOM Instances Transferred")
NETWORK_ENTRY: Final = Code("110108", "Network Entry")
PROCEDURE_RECORD: Final = Code("110111", "Procedure Record")
QUERY: Final = Code("110112", "Query")
SECURITY_ALERT: Final = Code("110113", "Security Alert")
USER_AUTHENTICATION: Final = Code("110114", "User Authentication")

# EventTypeCode
APPLICATION_START: Final = Code("110120", "Application Start")
APPLICATION_STOP: Final = Code("110121", "Application Stop")
LOGIN: Final = Code("110122", "Login")
LOGOUT: Final = Code("110123", "Logout")
ATTACH: Final = Code("110124", "Attach")
DETACH: Final = Code("110125", "Detach")
NODE_AUTHENTICATION: Final = Code("110126", "Node Authentication")
EMERGENCY_OVERRIDE_STARTED: Final = Code("110127", "Emergency Override Started")
NETWORK_CONFIGURATION: Final = Code("110128", "Network Configuration")
SECURITY_CONFIGURATION: Final = Code("110129", "Security Configuration")
USE_OF_RESTRICTED_FUNCTION: Final = Code("110132", "Use of Restricted Function")
AUDIT_RECORDING_STOPPED: Final = Code("110133", "Audit Recording Stopped")
AUDIT_RECORDING_STARTED: Final = Code("110134", "Audit Recording Started")
OBJECT_SECURITY_ATTRIBUTES_CHANGED: Final = Code("110135", "Object Security Attributes Changed")
USER_SECURITY_ATTRIBUTES_CHANGED: Final = Code("110137", "User Security Attributes Changed")
EMERGENCY_OVERRIDE_STOPPED: Final = Code("110138", "Emergency Override Stopped")

# RoleIDCode of a participant
APPLICATION: Final = Code("110150", "Application")
DESTINATION: Final = Code("110152", "Destination Role ID")
SOURCE: Final = Code("110153", "Source Role ID")

# ParticipantObjectIDTypeCode
STUDY_INSTANCE_UID: Final = Code("110180", "Study Instance UID")
SOP_CLASS_UID: Final = Code("110181", "SOP Class UID")
NODE_ID: Final = Code("110182", "Node ID")
PATIENT_NUMBER: Final = Code("2", "Patient Number", "RFC-3881")
URI: Final = Code("12", "URI", "RFC-3881")


class Action(StrEnum):
    """EventActionCode."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    EXECUTE = "E"


class Outcome(IntEnum):
    """EventOutcomeIndicator."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


class ObjectType(IntEnum):
    """ParticipantObjectTypeCode."""

    PERSON = 1
    SYSTEM = 2


class ObjectRole(IntEnum):
    """ParticipantObjectTypeCodeRole."""

    PATIENT = 1
    REPORT = 3
    MASTER_FILE = 5
    SECURITY_RESOURCE = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """Who took part. `ae_title` becomes the alternative ID, `address` (an IP address) the network access point."""

    user_id: str
    ae_title: str = ""
    user_name: str = ""
    is_requestor: bool = False
    role: Code | None = None
    address: str = ""


@dataclass(frozen=True, slots=True)
class Detail:
    """A pair of a name and a value that may be anything."""

    type: str
    value: bytes


@dataclass(frozen=True, slots=True)
class SopClass:
    """Instances of one SOP class; `instances` may name fewer than `count`."""

    uid: str
    count: int
    instances: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantObject:
    """What the event was about: it has a name or, if `query` isn't None, a query."""

    object_id: str
    id_type: Code
    type: ObjectType
    role: ObjectRole
    name: str = ""
    query: bytes | None = None
    details: tuple[Detail, ...] = ()
    sop_classes: tuple[SopClass, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditSource:
    """Who reports: the gateway by its configured name, and its site."""

    source_id: str
    enterprise_site_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardMessage:
    """One message. `time` is UTC, as the log writes it; `record` the number of the newest record that it tells of."""

    event: Code
    action: Action
    time: str
    record: int
    source: AuditSource
    outcome: Outcome = Outcome.SUCCESS
    outcome_description: str = ""
    types: tuple[Code, ...] = ()
    participants: tuple[Participant, ...]
    objects: tuple[ParticipantObject, ...] = ()
    association: str = ""
