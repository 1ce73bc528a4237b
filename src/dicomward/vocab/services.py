"""Which service a SOP class belongs to (PS3.4), which operations it has, and what the clinical floor is."""

from enum import StrEnum
from typing import Final

from dicomward.vocab._uid_table import SOP_CLASS_KEYWORDS
from dicomward.vocab.dimse import Operation
from dicomward.vocab.reason import ReasonCode

VERIFICATION: Final = "1.2.840.10008.1.1"
STORAGE_COMMITMENT_PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
MODALITY_WORKLIST_FIND: Final = "1.2.840.10008.5.1.4.31"
MPPS: Final = "1.2.840.10008.3.1.2.3.3"


class Service(StrEnum):
    """A group of SOP classes that rules can name."""

    VERIFICATION = "verification"
    STORAGE = "storage"
    QUERY = "query"
    MOVE = "move"
    GET = "get"
    WORKLIST = "worklist"
    MPPS = "mpps"
    STORAGE_COMMITMENT = "storage-commitment"
    PRINT = "print"
    UPS = "ups"
    OTHER = "other"


def _service(keyword: str, uid: str) -> Service:
    """Classify one SOP class of PS3.6 by its keyword and its place in the UID tree."""
    # Two retired storage classes have lost their names in PS3.6.
    if ("Storage" in keyword and not keyword.startswith("StorageCommitment")) or keyword == uid:
        return Service.STORAGE
    match uid:
        case "1.2.840.10008.1.1":
            return Service.VERIFICATION
        case "1.2.840.10008.5.1.4.31":
            return Service.WORKLIST
        case _ if uid.startswith("1.2.840.10008.1.20."):
            return Service.STORAGE_COMMITMENT
        case _ if uid.startswith("1.2.840.10008.3.1.2.3.") and uid[-1] in "345":
            return Service.MPPS
        case _ if uid.startswith("1.2.840.10008.5.1.1."):
            return Service.PRINT if not uid.endswith((".33", ".40")) else Service.OTHER
        case _ if uid.startswith("1.2.840.10008.5.1.4.34.6."):
            return Service.UPS
    if keyword.endswith(("Find", "Query")):
        return Service.QUERY
    if keyword.endswith("Move"):
        return Service.MOVE
    if keyword.endswith("Get"):
        return Service.GET
    return Service.OTHER


SERVICE_OF_SOP_CLASS: Final[dict[str, Service]] = {u: _service(k, u) for u, k in SOP_CLASS_KEYWORDS.items()}
SOP_CLASS_BY_KEYWORD: Final[dict[str, str]] = {k: u for u, k in SOP_CLASS_KEYWORDS.items()}

# A usual SOP class of each service, where somebody speaks of the service as a whole; for OTHER a private one.
USUAL_SOP_CLASS: Final[dict[Service, str]] = {
    Service.VERIFICATION: VERIFICATION,
    Service.STORAGE: SOP_CLASS_BY_KEYWORD["CTImageStorage"],
    Service.QUERY: SOP_CLASS_BY_KEYWORD["StudyRootQueryRetrieveInformationModelFind"],
    Service.MOVE: SOP_CLASS_BY_KEYWORD["StudyRootQueryRetrieveInformationModelMove"],
    Service.GET: SOP_CLASS_BY_KEYWORD["StudyRootQueryRetrieveInformationModelGet"],
    Service.WORKLIST: MODALITY_WORKLIST_FIND,
    Service.MPPS: MPPS,
    Service.STORAGE_COMMITMENT: STORAGE_COMMITMENT_PUSH_MODEL,
    Service.PRINT: SOP_CLASS_BY_KEYWORD["BasicFilmSession"],
    Service.UPS: SOP_CLASS_BY_KEYWORD["UnifiedProcedureStepPush"],
    Service.OTHER: "2.25.1",
}

OPERATIONS_OF_SERVICE: Final[dict[Service, frozenset[Operation]]] = {
    Service.VERIFICATION: frozenset({Operation.C_ECHO}),
    Service.STORAGE: frozenset({Operation.C_STORE}),
    Service.QUERY: frozenset({Operation.C_FIND}),
    Service.MOVE: frozenset({Operation.C_MOVE}),
    Service.GET: frozenset({Operation.C_GET}),
    Service.WORKLIST: frozenset({Operation.C_FIND}),
    Service.MPPS: frozenset({Operation.N_CREATE, Operation.N_SET, Operation.N_GET, Operation.N_EVENT_REPORT}),
    Service.STORAGE_COMMITMENT: frozenset({Operation.N_ACTION, Operation.N_EVENT_REPORT}),
    Service.PRINT: frozenset(
        {
            Operation.N_CREATE,
            Operation.N_SET,
            Operation.N_GET,
            Operation.N_ACTION,
            Operation.N_DELETE,
            Operation.N_EVENT_REPORT,
        }
    ),
    Service.UPS: frozenset(
        {
            Operation.N_CREATE,
            Operation.N_SET,
            Operation.N_GET,
            Operation.N_ACTION,
            Operation.N_EVENT_REPORT,
            Operation.C_FIND,
        }
    ),
    # A private SOP class says nothing of its operations, so none is excluded: the rules decide.
    Service.OTHER: frozenset(Operation),
}

# What PS3.6 names under OTHER, such as Instance Availability Notification, is normalised; but for some retired classes.
_NORMALIZED: Final = OPERATIONS_OF_SERVICE[Service.PRINT]
_NAMED_OTHERS: Final = {
    "1.2.840.10008.1.9": frozenset({Operation.C_STORE}),  # Basic Study Content Notification
    "1.2.840.10008.5.1.4.32": _NORMALIZED | {Operation.C_FIND},  # General Purpose Worklist Management Meta
    "1.2.840.10008.5.1.4.34.4.3": _NORMALIZED | {Operation.C_FIND},  # Unified Procedure Step Pull, the trial version
}

# The clinical floor (docs/patient-safety.md): what keeps working when something of ours has failed.
_FLOOR_OPERATIONS: Final[dict[Service, frozenset[Operation]]] = {
    Service.VERIFICATION: frozenset({Operation.C_ECHO}),
    Service.STORAGE: frozenset({Operation.C_STORE}),
    Service.OTHER: frozenset({Operation.C_STORE}),
    Service.WORKLIST: frozenset({Operation.C_FIND}),
    Service.MPPS: OPERATIONS_OF_SERVICE[Service.MPPS],
    Service.STORAGE_COMMITMENT: OPERATIONS_OF_SERVICE[Service.STORAGE_COMMITMENT],
}


def service_of(sop_class_uid: str) -> Service:
    """Return the service of a SOP class; a private or unknown one is OTHER."""
    return SERVICE_OF_SOP_CLASS.get(sop_class_uid, Service.OTHER)


def operations_of(sop_class_uid: str) -> frozenset[Operation]:
    """Return the operations that PS3.4 gives the SOP class; all of them for a private one."""
    service = service_of(sop_class_uid)
    if service is Service.OTHER and sop_class_uid in SOP_CLASS_KEYWORDS:
        return _NAMED_OTHERS.get(sop_class_uid, _NORMALIZED)
    return OPERATIONS_OF_SERVICE[service]


def is_clinical_floor(operation: Operation, sop_class_uid: str) -> bool:
    """Say if the operation on this SOP class belongs to the clinical floor."""
    return operation in _FLOOR_OPERATIONS.get(service_of(sop_class_uid), frozenset())


def is_left(floor_only: str | None, operation: Operation, sop_class_uid: str) -> bool:
    """Say if the operation is left to a caller that is narrowed for this reason (None: not narrowed).

    Who is not confirmed yet has C-ECHO only; every other reason leaves the clinical floor.
    """
    if floor_only is None:
        return True
    if floor_only == ReasonCode.NOT_CONFIRMED:
        return operation is Operation.C_ECHO
    return is_clinical_floor(operation, sop_class_uid)


def why_not_left(floor_only: str | None) -> ReasonCode:
    """Return the reason of the refusal to a caller that is narrowed for this reason."""
    return ReasonCode.NOT_CONFIRMED if floor_only == ReasonCode.NOT_CONFIRMED else ReasonCode.CLINICAL_FLOOR_ONLY


def has_clinical_floor(sop_class_uid: str) -> bool:
    """Say if a presentation context of this SOP class may carry an operation of the clinical floor."""
    return service_of(sop_class_uid) in _FLOOR_OPERATIONS
