"""Which elements each DIMSE message has: PS3.7 §9.3 (DIMSE-C), §10.3 (DIMSE-N) and Annex C (what a status carries).

The tables are data: the decoder, the encoder, the tests and docs/ read them.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from dicomward.vocab.dimse import C_CANCEL_RQ, RESPONSE_BIT, Element, Operation


class DataSetRule(Enum):
    """If a message has a data set."""

    NEVER = auto()
    ALWAYS = auto()
    OPTIONAL = auto()
    PENDING = auto()  # with a pending status, and only then; old archives differ, so it is counted and not enforced


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of PS3.7: its required and its optional elements, apart from the three that each message has.

    Those are Command Group Length, Command Field and Command Data Set Type.
    """

    name: str
    clause: str
    required: frozenset[Element]
    optional: frozenset[Element]
    data_set: DataSetRule


_AFFECTED: Final = frozenset({Element.AFFECTED_SOP_CLASS_UID})
_AFFECTED_INSTANCE: Final = frozenset({Element.AFFECTED_SOP_CLASS_UID, Element.AFFECTED_SOP_INSTANCE_UID})
_REQUESTED_INSTANCE: Final = frozenset({Element.REQUESTED_SOP_CLASS_UID, Element.REQUESTED_SOP_INSTANCE_UID})
_ORIGINATOR: Final = frozenset({Element.MOVE_ORIGINATOR_APPLICATION_ENTITY_TITLE, Element.MOVE_ORIGINATOR_MESSAGE_ID})
_PRIORITY: Final = frozenset({Element.PRIORITY})
_COUNTS: Final = frozenset(
    {
        Element.NUMBER_OF_REMAINING_SUBOPERATIONS,
        Element.NUMBER_OF_COMPLETED_SUBOPERATIONS,
        Element.NUMBER_OF_FAILED_SUBOPERATIONS,
        Element.NUMBER_OF_WARNING_SUBOPERATIONS,
    }
)
_ATTRIBUTES: Final = frozenset({Element.ATTRIBUTE_IDENTIFIER_LIST})
_EVENT: Final = frozenset({Element.EVENT_TYPE_ID})
_ACTION: Final = frozenset({Element.ACTION_TYPE_ID})
_NONE: Final[frozenset[Element]] = frozenset()
# PS3.7 Annex C: what explains a status may come with any response.
_EXPLAINS: Final = frozenset({Element.OFFENDING_ELEMENT, Element.ERROR_COMMENT, Element.ERROR_ID})

# Operation: section; required and optional elements of the request, its data set; elements of the response beside
# the SOP class UID and what explains the status, and its data set.
_TABLE: Final = (
    (Operation.C_STORE, "§9.3.1", _AFFECTED_INSTANCE | _PRIORITY, _ORIGINATOR, DataSetRule.ALWAYS,
     _AFFECTED_INSTANCE, DataSetRule.NEVER),
    (Operation.C_FIND, "§9.3.2", _AFFECTED | _PRIORITY, _NONE, DataSetRule.ALWAYS,
     _AFFECTED, DataSetRule.PENDING),
    (Operation.C_GET, "§9.3.3", _AFFECTED | _PRIORITY, _NONE, DataSetRule.ALWAYS,
     _AFFECTED | _COUNTS, DataSetRule.OPTIONAL),
    (Operation.C_MOVE, "§9.3.4", _AFFECTED | _PRIORITY | {Element.MOVE_DESTINATION}, _NONE, DataSetRule.ALWAYS,
     _AFFECTED | _COUNTS, DataSetRule.OPTIONAL),
    (Operation.C_ECHO, "§9.3.5", _AFFECTED, _NONE, DataSetRule.NEVER,
     _AFFECTED, DataSetRule.NEVER),
    (Operation.N_EVENT_REPORT, "§10.3.1", _AFFECTED_INSTANCE | _EVENT, _NONE, DataSetRule.OPTIONAL,
     _AFFECTED_INSTANCE | _EVENT, DataSetRule.OPTIONAL),
    (Operation.N_GET, "§10.3.2", _REQUESTED_INSTANCE, _ATTRIBUTES, DataSetRule.NEVER,
     _AFFECTED_INSTANCE | _ATTRIBUTES, DataSetRule.OPTIONAL),
    (Operation.N_SET, "§10.3.3", _REQUESTED_INSTANCE, _NONE, DataSetRule.ALWAYS,
     _AFFECTED_INSTANCE | _ATTRIBUTES, DataSetRule.OPTIONAL),
    (Operation.N_ACTION, "§10.3.4", _REQUESTED_INSTANCE | _ACTION, _NONE, DataSetRule.OPTIONAL,
     _AFFECTED_INSTANCE | _ACTION, DataSetRule.OPTIONAL),
    (Operation.N_CREATE, "§10.3.5", _AFFECTED, {Element.AFFECTED_SOP_INSTANCE_UID}, DataSetRule.OPTIONAL,
     _AFFECTED_INSTANCE | _ATTRIBUTES, DataSetRule.OPTIONAL),
    (Operation.N_DELETE, "§10.3.6", _REQUESTED_INSTANCE, _NONE, DataSetRule.NEVER,
     _AFFECTED_INSTANCE, DataSetRule.NEVER),
)  # fmt: skip


def _messages() -> dict[int, Message]:
    messages = {
        C_CANCEL_RQ: Message(
            name="C-CANCEL-RQ",
            clause="PS3.7 §9.3.2.3",
            required=frozenset({Element.MESSAGE_ID_BEING_RESPONDED_TO}),
            optional=_NONE,
            data_set=DataSetRule.NEVER,
        )
    }
    for operation, section, required, optional, data_set, response, response_data_set in _TABLE:
        name = operation.label.upper()
        messages[operation.value] = Message(
            name=f"{name}-RQ",
            clause=f"PS3.7 {section}",
            required=frozenset({Element.MESSAGE_ID}) | required,
            optional=frozenset(optional),
            data_set=data_set,
        )
        messages[operation.value | RESPONSE_BIT] = Message(
            name=f"{name}-RSP",
            clause=f"PS3.7 {section}",
            required=frozenset({Element.MESSAGE_ID_BEING_RESPONDED_TO, Element.STATUS}),
            optional=response | _EXPLAINS,
            data_set=response_data_set,
        )
    return messages


MESSAGES: Final[dict[int, Message]] = _messages()
"""Message by Command Field."""

# PS3.7 §E.2: elements that older editions had. They are dropped, as unknown ones are.
RETIRED_ELEMENTS: Final = frozenset(
    {
        0x0001, 0x0010, 0x0200, 0x0300, 0x0400, 0x0850, 0x0860, 0x4000, 0x4010, 0x5010, 0x5020,
        0x5110, 0x5120, 0x5130, 0x5140, 0x5150, 0x5160, 0x5170, 0x5180, 0x5190, 0x51A0, 0x51B0,
    }
)  # fmt: skip
