"""Audit messages as FHIR R4 AuditEvent resources, with the agents and entities that IHE BALP asks for.

The resource says what the DICOM message says (PS3.15 A.5, FHIR's own mapping of it). BALP's profiles of RESTful
operations aren't claimed: no such operation took place. Its conventions are kept: one `patient` entity, and a
`transaction` entity that ties together what belongs to one association.
"""

import json
from base64 import b64encode
from typing import Final

from dicomward.audit.standard import (
    AUDIT_LOG_USED,
    SOP_CLASS_UID,
    STUDY_INSTANCE_UID,
    Code,
    ObjectRole,
    Participant,
    ParticipantObject,
    StandardMessage,
)

_SYSTEMS: Final = {
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RFC-3881": "http://terminology.hl7.org/CodeSystem/audit-entity-type",
}
_SOURCE_TYPE: Final = "http://terminology.hl7.org/CodeSystem/security-source-type"
_ENTITY_TYPE: Final = "http://terminology.hl7.org/CodeSystem/audit-entity-type"
_OBJECT_ROLE: Final = "http://terminology.hl7.org/CodeSystem/object-role"
_BALP_ENTITY_TYPE: Final = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_ROLE_NAMES: Final = {
    ObjectRole.PATIENT: "Patient",
    ObjectRole.REPORT: "Report",
    ObjectRole.MASTER_FILE: "Master file",
    ObjectRole.SECURITY_RESOURCE: "Security Resource",
}
_AN_IP_ADDRESS: Final = "2"
_UIDS: Final = (STUDY_INSTANCE_UID, SOP_CLASS_UID)

Json = dict[str, object]


def encode_fhir(message: StandardMessage) -> bytes:
    """Return the resource as JSON in UTF-8."""
    return json.dumps(fhir_resource(message), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def fhir_resource(message: StandardMessage) -> Json:
    """Return the resource."""
    resource: Json = {
        "resourceType": "AuditEvent",
        "type": _coding(message.event),
        "subtype": [_coding(each) for each in message.types],
        "action": message.action.value,
        "recorded": message.time,
        "outcome": str(int(message.outcome)),
        "outcomeDesc": message.outcome_description,
        "agent": [_agent(each) for each in message.participants],
        "source": {
            "site": message.source.enterprise_site_id,
            "observer": {"display": message.source.source_id},
            "type": [{"system": _SOURCE_TYPE, "code": "6", "display": "Security Server"}],
        },
        "entity": [*map(_entity, message.objects), *_transaction(message)],
    }
    return _without_empty(resource)


def _without_empty(value: Json) -> Json:
    """Leave out what holds nothing: FHIR knows no empty texts and lists."""
    kept: Json = {}
    for name, each in value.items():
        inner = _without_empty(each) if isinstance(each, dict) else each
        if inner not in ("", [], {}):
            kept[name] = inner
    return kept


def _coding(code: Code) -> Json:
    return {"system": _SYSTEMS[code.system], "code": code.value, "display": code.meaning}


def _agent(participant: Participant) -> Json:
    return _without_empty(
        {
            "type": {"coding": [_coding(participant.role)]} if participant.role else {},
            "who": {"identifier": {"value": participant.user_id}},
            "altId": participant.ae_title,
            "name": participant.user_name,
            "requestor": participant.is_requestor,
            "network": {"address": participant.address, "type": _AN_IP_ADDRESS} if participant.address else {},
        }
    )


def _entity(each: ParticipantObject) -> Json:
    is_uid = each.id_type in _UIDS
    identifier: Json = {
        "system": "urn:ietf:rfc:3986" if is_uid else "",
        "value": f"urn:oid:{each.object_id}" if is_uid else each.object_id,
    }
    details = [{"type": detail.type, "valueBase64Binary": _base64(detail.value)} for detail in each.details]
    for sop_class in each.sop_classes:
        details.append({"type": "SOPClass", "valueString": f"{sop_class.uid} {sop_class.count}"})
        details += [{"type": "Instance", "valueString": uid} for uid in sop_class.instances]
    return _without_empty(
        {
            "what": {"identifier": identifier} if each.object_id else {},
            "type": {"system": _ENTITY_TYPE, "code": str(int(each.type)), "display": each.type.name.capitalize()},
            "role": {"system": _OBJECT_ROLE, "code": str(int(each.role)), "display": _ROLE_NAMES[each.role]},
            # Never both: a constraint of the resource.
            "name": each.name if each.query is None else "",
            "query": _base64(each.query) if each.query else "",
            "detail": details,
        }
    )


def _transaction(message: StandardMessage) -> list[Json]:
    """Return the entity that ties together what belongs to one association."""
    if not message.association or message.event is AUDIT_LOG_USED:
        return []
    return [
        {
            "what": {"identifier": {"value": message.association}},
            "type": {"system": _BALP_ENTITY_TYPE, "code": "XrequestId"},
        }
    ]


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")
