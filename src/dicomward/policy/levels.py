"""Which query levels an identifier can have, and what a rule makes of a level that is missing or odd."""

from typing import Final

from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import SERVICE_OF_SOP_CLASS, Service

# PS3.4 §C.6 and §Y.3.2: the values of Query/Retrieve Level (0008,0052).
QUERY_LEVELS: Final = ("PATIENT", "STUDY", "SERIES", "IMAGE", "FRAME")
# Worklist and UPS identifiers have no Query/Retrieve Level; rules name them with this word.
WORKLIST: Final = "WORKLIST"
# A SOP class of PS3.6 whose identifiers have no level, such as Hanging Protocol.
NO_LEVEL: Final = ""
# The level is mandatory, or may exist, and is missing or not a known one: an archive might take it for any level.
UNCLEAR: Final = "?"

RULE_LEVELS: Final = (*QUERY_LEVELS, WORKLIST)
IDENTIFIER_OPERATIONS: Final = frozenset({Operation.C_FIND, Operation.C_GET, Operation.C_MOVE})

_QUERY_RETRIEVE_ROOT: Final = "1.2.840.10008.5.1.4.1.2."
_WITH_LEVEL: Final = (*QUERY_LEVELS, UNCLEAR)
_WITHOUT_LEVEL: Final = (NO_LEVEL,)
_OF_WORKLIST: Final = (WORKLIST,)


def possible_levels(sop_class_uid: str) -> tuple[str, ...]:
    """Return every level that an identifier of this SOP class can have; one only where it is known beforehand."""
    if sop_class_uid.startswith(_QUERY_RETRIEVE_ROOT):
        return _WITH_LEVEL
    service = SERVICE_OF_SOP_CLASS.get(sop_class_uid)
    if service is None:
        return _WITH_LEVEL
    return _OF_WORKLIST if service in (Service.WORKLIST, Service.UPS) else _WITHOUT_LEVEL


def level_of(sop_class_uid: str, query_level: str | None) -> str:
    """Return the level that rules see: one of `possible_levels`."""
    possible = possible_levels(sop_class_uid)
    if len(possible) == 1:
        return possible[0]
    # VR CS: spaces around the value are not significant, and some devices send lower case.
    level = (query_level or "").strip(" \0").upper()
    return level if level in QUERY_LEVELS else UNCLEAR
