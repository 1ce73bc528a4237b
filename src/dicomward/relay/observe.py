"""Observe mode: what policy, limits and validation would refuse to an observed device passes, and is recorded.

Rules of this file: who somebody is, what narrows to the clinical floor, what protects others (the places at an archive)
and what could harm an archive (malformed PDUs and commands, an unknown operation of the archive) are never let pass.
"""

from datetime import datetime
from typing import Final

from dicomward.identity.registry import Device
from dicomward.policy.bypass import LIFTED
from dicomward.relay.messages import Lift
from dicomward.vocab.reason import ReasonCode

_PREFIX: Final = "observe:"

# Beside what a bypass lifts: the validation of data sets, and a destination that only the archive knows.
_VALIDATION: Final = frozenset(
    {
        ReasonCode.OPERATION_NOT_OF_SOP_CLASS,
        ReasonCode.SOP_CLASS_MISMATCH,
        ReasonCode.INSTANCE_UID_MISMATCH,
        ReasonCode.IDENTIFIER_UNREADABLE,
        ReasonCode.DATA_SET_UNREADABLE,
        ReasonCode.LIMIT_EXCEEDED,
        ReasonCode.MOVE_DESTINATION_UNKNOWN,
    }
)
# The places at an archive are for everybody; the floor is about who somebody is, or about a fault of ours.
_NEVER: Final = frozenset(
    {ReasonCode.ARCHIVE_ASSOCIATIONS, ReasonCode.CLINICAL_FLOOR_ONLY, ReasonCode.BUDGETS_UNAVAILABLE}
)
OBSERVED: Final = (LIFTED | _VALIDATION) - _NEVER


def observe(device: Device | None, reason: ReasonCode, now: datetime) -> Lift | None:
    """Return what lets a refusal pass because the device is observed now (aware), or None."""
    if device is None or reason not in OBSERVED or not device.is_observed(now):
        return None
    return Lift(f"{_PREFIX}{device.name}", reason)


def is_observed(lift: Lift) -> bool:
    """Say if something passed because its device is observed."""
    return lift.rule_id.startswith(_PREFIX)
