"""The audit log overheard: associations and operations become conversations, for `dicomward inventory --observed`."""

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomward.audit.search import Query
from dicomward.identity.inventory import Act, Conversation, Inventory
from dicomward.io.audit.read import find_records
from dicomward.vocab.dimse import OPERATION_BY_LABEL

_MOST_OPEN: Final = 20_000
_BEGUN: Final = frozenset({"DW-ASSOC-ALLOW", "DW-ASSOC-DENY"})
_DONE: Final = frozenset({"DW-OP-ALLOW", "DW-OP-DENY"})


@dataclass(slots=True)
class _Association:
    """What the log has of one association so far."""

    client: str
    calling: str
    called: str
    is_rejected: bool
    acts: Counter[Act] = field(default_factory=Counter)


def overhear_log(directory: Path, inventory: Inventory) -> Counter[str]:
    """Add who called the gateway, let in or not; return what was counted. Archives are left out."""
    counts: Counter[str] = Counter()
    open_ones: OrderedDict[str, _Association] = OrderedDict()
    for found in find_records(directory, Query(), None):
        if isinstance(found, str):
            counts["damaged records"] += 1
            continue
        members = {name: value for name, value in found.members.items() if isinstance(value, str)}
        code, identifier = members.get("code"), members.get("association")
        if code in _BEGUN and identifier and members.get("role") != "archive":
            _begin(members, identifier, open_ones)
            counts["associations"] += 1
            if len(open_ones) > _MOST_OPEN:
                _tell(inventory, open_ones.popitem(last=False)[1])
        elif code in _DONE and identifier is not None and identifier in open_ones:
            _note(members, open_ones[identifier])
    for association in open_ones.values():
        _tell(inventory, association)
    return counts


def _begin(members: Mapping[str, str], identifier: str, open_ones: "OrderedDict[str, _Association]") -> None:
    client, calling = members.get("address"), members.get("calling_ae_title")
    if client and calling:
        denied = members["code"] == "DW-ASSOC-DENY"
        open_ones[identifier] = _Association(client, calling, members.get("called_ae_title", ""), denied)


def _note(members: Mapping[str, str], association: _Association) -> None:
    operation = OPERATION_BY_LABEL.get(members.get("operation", ""))
    if operation is not None:
        act = Act(
            operation,
            members.get("sop_class_uid", ""),
            members.get("move_destination", ""),
            members.get("direction") != "acceptor",
        )
        association.acts[act] += 1


def _tell(inventory: Inventory, association: _Association) -> None:
    inventory.add(
        Conversation(
            client=association.client,
            server=None,
            calling_ae_title=association.calling,
            called_ae_title=association.called,
            is_rejected=association.is_rejected,
            acts=association.acts,
        )
    )
