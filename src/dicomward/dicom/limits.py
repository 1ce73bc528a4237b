"""What a peer may make us hold or read: every number with its reason. docs/limits.md lists them."""

from dataclasses import dataclass, field, fields
from typing import Any, Final

# No setting may grow so large that it stops being a limit.
_CEILING: Final = 64 * 1024 * 1024


def _limit(default: int, reason: str, *, ceiling: int = _CEILING) -> Any:
    """Declare one limit; the docs are checked against `reason`."""
    return field(default=default, metadata={"reason": reason, "ceiling": ceiling})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one association. None can be switched off: each is at least 1 and at most its ceiling.

    Raises ValueError with the name, the value and the range.
    """

    max_association_pdu_bytes: int = _limit(
        131_072, "128 contexts with a few transfer syntaxes take 30 KiB; SAML or Kerberos identity takes up to 64 KiB"
    )
    max_presentation_contexts: int = _limit(128, "context IDs are the odd numbers of one byte", ceiling=128)
    max_transfer_syntaxes: int = _limit(64, "PS3.6 names about 60 transfer syntaxes; devices offer under 30")
    max_user_items: int = _limit(
        512, "role selection and extended negotiation for each of 128 contexts, and twice that"
    )
    max_pdu_bytes: int = _limit(131_072, "the maximum length that we announce; larger PDUs gain no speed (bench/)")
    max_pdu_tolerance_bytes: int = _limit(12, "old devices count the PDU and PDV headers apart", ceiling=1024)
    max_command_set_bytes: int = _limit(
        65_536, "a full C-STORE-RQ takes 300 bytes; attribute lists of N-GET are longest"
    )
    max_identifier_bytes: int = _limit(1_048_576, "a query that lists 10,000 UIDs takes 650 KiB")
    max_head_bytes: int = _limit(65_536, "(0008,0018) comes within the first KiB of every instance that we have seen")
    max_response_identifier_bytes: int = _limit(65_536, "a match holds query keys, not images")
    max_operations_window: int = _limit(16, "devices that ask for more than one ask for 2 to 10", ceiling=1024)
    max_held_bytes: int = _limit(1_048_576, "data that arrives while a decision is awaited; then we stop reading")

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            ceiling = item.metadata["ceiling"]
            if type(value) is not int or not 1 <= value <= ceiling:
                raise ValueError(
                    f"the limit {item.name} is {value!r}; it must be a whole number from 1 to {ceiling}: "
                    "a limit cannot be switched off"
                )
