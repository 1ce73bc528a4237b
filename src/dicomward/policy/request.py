"""What policy is asked: one request type for each decision point, with exactly the facts known there."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRequest:
    """An A-ASSOCIATE-RQ, before the archive is contacted.

    `archive` is the registered name of the target, `contexts` the pairs (presentation context ID, abstract syntax),
    `at` an aware time in the site's own time zone. `scp_role_sop_classes` holds the SOP classes for which the requestor
    proposes the SCP role (PS3.7 §D.3.3.4): their contexts may carry C-GET sub-operations. `own_ae_titles` are all AE
    titles of the principal, for the destination "self"; its calling AE title counts always.
    """

    principal: Principal
    archive: str
    contexts: tuple[tuple[int, str], ...]
    at: datetime
    scp_role_sop_classes: frozenset[str] = frozenset()
    own_ae_titles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRequest:
    """A DIMSE request, when its command set is known.

    `sop_class_uid` is the Affected or Requested SOP Class UID of the command; `context_sop_class_uid` the abstract
    syntax of its presentation context where that differs (print meta classes, UPS, MPPS), "" where it is the same.
    `move_destination` is None unless the operation is C-MOVE.
    """

    principal: Principal
    archive: str
    operation: Operation
    sop_class_uid: str
    move_destination: str | None
    at: datetime
    own_ae_titles: frozenset[str] = frozenset()
    context_sop_class_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifierRequest(OperationRequest):
    """A C-FIND, C-GET or C-MOVE, when the head of its identifier is known.

    `query_level` is the text of Query/Retrieve Level (0008,0052), None where it is absent. `keys` are the 32-bit tags
    of the top-level keys with a value that narrows: not empty, and not wildcards only.
    """

    query_level: str | None
    keys: frozenset[int]

    @classmethod
    def of(cls, request: OperationRequest, *, query_level: str | None, keys: frozenset[int]) -> Self:
        """Return the same operation with what its identifier says."""
        return cls(
            principal=request.principal,
            archive=request.archive,
            operation=request.operation,
            sop_class_uid=request.sop_class_uid,
            move_destination=request.move_destination,
            at=request.at,
            own_ae_titles=request.own_ae_titles,
            context_sop_class_uid=request.context_sop_class_uid,
            query_level=query_level,
            keys=keys,
        )
