"""DIMSE command fields, elements and status codes: PS3.7 §9, §10, Annex C and E; PS3.4 for each service."""

from enum import IntEnum

NO_DATA_SET = 0x0101
RESPONSE_BIT = 0x8000
C_CANCEL_RQ = 0x0FFF


class Operation(IntEnum):
    """The DIMSE operations and notifications; the value is the command field of the request.

    C-CANCEL belongs to the operation that it cancels, so it isn't listed.
    """

    C_STORE = 0x0001
    C_GET = 0x0010
    C_FIND = 0x0020
    C_MOVE = 0x0021
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150

    @property
    def label(self) -> str:
        """Name as people write it: `c-store`, `n-event-report`."""
        return self.name.lower().replace("_", "-")


OPERATION_BY_LABEL = {operation.label: operation for operation in Operation}


class Priority(IntEnum):
    """Priority (0000,0700)."""

    MEDIUM = 0
    HIGH = 1
    LOW = 2


class Status(IntEnum):
    """The status codes that the gateway itself sends or looks at; every other code passes unchanged."""

    SUCCESS = 0x0000
    REFUSED_NOT_AUTHORISED = 0x0124
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNISED_OPERATION = 0x0211
    RESOURCE_LIMITATION = 0x0213
    NO_SUCH_SOP_CLASS = 0x0118
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    REFUSED_OUT_OF_RESOURCES = 0xA700
    UNABLE_TO_CALCULATE_MATCHES = 0xA701
    UNABLE_TO_PERFORM_SUBOPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    DATA_SET_DOES_NOT_MATCH = 0xA900
    SUBOPERATIONS_COMPLETE_WITH_FAILURES = 0xB000
    CANNOT_UNDERSTAND = 0xC000
    CANCEL = 0xFE00
    PENDING = 0xFF00
    PENDING_WITH_WARNING = 0xFF01


def is_pending(status: int) -> bool:
    """Say if more responses to the same request follow."""
    return status in (Status.PENDING, Status.PENDING_WITH_WARNING)


class Element(IntEnum):
    """Element numbers of group 0000 (PS3.7 Annex E)."""

    COMMAND_GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    MOVE_DESTINATION = 0x0600
    PRIORITY = 0x0700
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    OFFENDING_ELEMENT = 0x0901
    ERROR_COMMENT = 0x0902
    ERROR_ID = 0x0903
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ATTRIBUTE_IDENTIFIER_LIST = 0x1005
    ACTION_TYPE_ID = 0x1008
    NUMBER_OF_REMAINING_SUBOPERATIONS = 0x1020
    NUMBER_OF_COMPLETED_SUBOPERATIONS = 0x1021
    NUMBER_OF_FAILED_SUBOPERATIONS = 0x1022
    NUMBER_OF_WARNING_SUBOPERATIONS = 0x1023
    MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE = 0x1030
    MOVE_ORIGINATOR_MESSAGE_ID = 0x1031
