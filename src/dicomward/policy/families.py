"""SOP classes whose presentation contexts carry commands of other SOP classes.

Almost always a command names the abstract syntax of its context. The exceptions are the print meta SOP classes
(PS3.4 §H.3.2), Unified Procedure Step (PS3.4 §CC.3.1) and the two companions of MPPS (PS3.4 §F.8 and §F.9).
"""

from typing import Final

from dicomward.vocab.services import MPPS, SERVICE_OF_SOP_CLASS, Service

_PRINT: Final = "1.2.840.10008.5.1.1."
_UPS_PUSH: Final = "1.2.840.10008.5.1.4.34.6.1"

_GRAYSCALE_BOXES: Final = ("1", "2", "4", "16")
_COLOUR_BOXES: Final = ("1", "2", "4.1", "16")
_REFERENCED_BOXES: Final = ("1", "2", "4.2", "16")
_META: Final = {"9": _GRAYSCALE_BOXES, "9.1": _REFERENCED_BOXES, "18": _COLOUR_BOXES, "18.1": _REFERENCED_BOXES}

_SHARED: Final = {Service.UPS: _UPS_PUSH, Service.MPPS: MPPS}

_COMMAND_SOP_CLASSES: Final[dict[str, frozenset[str]]] = {
    **{
        f"{_PRINT}{meta}": frozenset({f"{_PRINT}{meta}", *(f"{_PRINT}{box}" for box in boxes)})
        for meta, boxes in _META.items()
    },
    **{uid: frozenset({uid, _SHARED[service]}) for uid, service in SERVICE_OF_SOP_CLASS.items() if service in _SHARED},
}


def command_sop_classes(abstract_syntax: str) -> frozenset[str]:
    """Return the SOP classes that commands in a presentation context of this abstract syntax may name."""
    return _COMMAND_SOP_CLASSES.get(abstract_syntax) or frozenset({abstract_syntax})
