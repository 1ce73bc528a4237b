"""The fields of audit records: how much the value of each may tell, and what kind of value it is.

Append-only like the events; a field that nobody classified is secret.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Classification(StrEnum):
    """How much the value of a field may tell, and so where it may be shown.

    PUBLIC: about devices and decisions, fit for every log. SENSITIVE: leads to a person or an examination, or holds
    what a stranger typed; only in the audit log. PATIENT: names a patient; only in the log's own files and in the
    standard's messages, masked where records go to standard error. SECRET: never written; the log shows that there
    was a value.
    """

    PUBLIC = "public"
    SENSITIVE = "sensitive"
    PATIENT = "patient"
    SECRET = "secret"  # noqa: S105 (the name of a class of data)


# A query's identifier in base64; a longer one (a list of hundreds of UIDs) is left out rather than cut.
MAX_IDENTIFIER_CHARACTERS: Final = 8192


class Kind(StrEnum):
    """What the value of a field is, in Python and in JSON."""

    TEXT = "text"
    NUMBER = "number"
    TEXTS = "list of texts"
    COUNTS = "list of [text, number]"


@dataclass(frozen=True, slots=True)
class FieldRule:
    """How a field is treated: its classification, its kind, and the most characters of its text (or each text)."""

    classification: Classification
    kind: Kind
    max_characters: int = 128


_PUBLIC = FieldRule(Classification.PUBLIC, Kind.TEXT)
_PATIENT = FieldRule(Classification.PATIENT, Kind.TEXT)
_SENSITIVE = FieldRule(Classification.SENSITIVE, Kind.TEXT)
_NUMBER = FieldRule(Classification.PUBLIC, Kind.NUMBER)
UNCLASSIFIED: Final = FieldRule(Classification.SECRET, Kind.TEXT)

FIELD_RULES: Final[dict[str, FieldRule]] = {
    "association": _PUBLIC,
    "device": _PUBLIC,
    "role": _PUBLIC,
    "site": _PUBLIC,
    "assurance": _PUBLIC,
    # AE titles and addresses of a stranger are whatever the stranger sends; those of a workstation lead to its user.
    "calling_ae_title": _SENSITIVE,
    "called_ae_title": _SENSITIVE,
    "archive": _PUBLIC,
    "address": _SENSITIVE,
    "certificate_sha256": _PUBLIC,
    "reason": _PUBLIC,
    "rule_ids": FieldRule(Classification.PUBLIC, Kind.TEXTS),
    "waived": FieldRule(Classification.PUBLIC, Kind.TEXTS),
    "policy_revision": _PUBLIC,
    "registry_revision": _NUMBER,
    "detail": FieldRule(Classification.SENSITIVE, Kind.TEXT, 1024),
    "tls_version": _PUBLIC,
    "operation": _PUBLIC,
    "message_id": _NUMBER,
    "sop_class_uid": _PUBLIC,
    # An instance UID leads to one examination of one patient.
    "sop_instance_uid": _SENSITIVE,
    "move_destination": _SENSITIVE,
    "query_level": _PUBLIC,
    "direction": _PUBLIC,
    "status": _NUMBER,
    "matches": _NUMBER,
    "completed": _NUMBER,
    "failed": _NUMBER,
    "warning": _NUMBER,
    "bytes": _NUMBER,
    "duration_ms": _NUMBER,
    "patient_id": _PATIENT,
    "issuer_of_patient_id": _PATIENT,
    "study_instance_uid": _SENSITIVE,
    "originator": _PUBLIC,
    "identifier": FieldRule(Classification.PATIENT, Kind.TEXT, MAX_IDENTIFIER_CHARACTERS),
    "transfer_syntax_uid": _PUBLIC,
    "matched": FieldRule(Classification.PATIENT, Kind.TEXTS),
    "operations": _NUMBER,
    "operator": _SENSITIVE,
    "person": _SENSITIVE,
    "action": _PUBLIC,
    "count": _NUMBER,
    "measure": _PUBLIC,
    "period": _PUBLIC,
    "budget": _NUMBER,
    "first": _PUBLIC,
    "last": _PUBLIC,
    "zone": _PUBLIC,
    "version": _PUBLIC,
    "component": _PUBLIC,
    "state": _PUBLIC,
    "sink_sha256": _PUBLIC,
    "bypass": _PUBLIC,
    "state_sha256": _PUBLIC,
    "deviations": FieldRule(Classification.PUBLIC, Kind.COUNTS),
}


def field_rule(name: str) -> FieldRule:
    """Return how a field is treated; a field that nobody classified is secret."""
    return FIELD_RULES.get(name, UNCLASSIFIED)
