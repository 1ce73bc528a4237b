"""Audit messages as XML: PS3.15 A.5.1, elements and attributes in the order of its schema."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from dicomward.audit.standard import Code, Participant, ParticipantObject, StandardMessage

_IP_ADDRESS: Final = "2"
_SECURITY_SERVER: Final = "6"


def encode_dicom(message: StandardMessage) -> bytes:
    """Return the message in UTF-8, without a byte order mark."""
    text = "".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>',
            "<AuditMessage>",
            *_event(message),
            *(part for each in message.participants for part in _participant(each)),
            *_source(message),
            *(part for each in message.objects for part in _object(each)),
            "</AuditMessage>",
        )
    )
    # XML 1.0 knows no control characters, in no form; the log has escaped them, so this is for what never comes.
    return "".join(each if each.isprintable() else "\ufffd" for each in text).encode("utf-8", "replace")


def _attributes(**values: str) -> str:
    return "".join(f" {name.replace('_', '-')}={quoteattr(value)}" for name, value in values.items())


def _code(element: str, code: Code) -> str:
    attributes = _attributes(csd_code=code.value, codeSystemName=code.system, originalText=code.meaning)
    return f"<{element}{attributes}/>"


def _event(message: StandardMessage) -> Iterator[str]:
    attributes = _attributes(
        EventActionCode=message.action, EventDateTime=message.time, EventOutcomeIndicator=str(int(message.outcome))
    )
    yield f"<EventIdentification{attributes}>"
    yield _code("EventID", message.event)
    for each in message.types:
        yield _code("EventTypeCode", each)
    if message.outcome_description:
        yield f"<EventOutcomeDescription>{escape(message.outcome_description)}</EventOutcomeDescription>"
    yield "</EventIdentification>"


def _participant(participant: Participant) -> Iterator[str]:
    values = {"UserID": participant.user_id}
    if participant.ae_title:
        values["AlternativeUserID"] = f"AETITLES={participant.ae_title}"
    if participant.user_name:
        values["UserName"] = participant.user_name
    values["UserIsRequestor"] = "true" if participant.is_requestor else "false"
    if participant.address:
        values |= {"NetworkAccessPointID": participant.address, "NetworkAccessPointTypeCode": _IP_ADDRESS}
    yield f"<ActiveParticipant{_attributes(**values)}>"
    if participant.role is not None:
        yield _code("RoleIDCode", participant.role)
    yield "</ActiveParticipant>"


def _source(message: StandardMessage) -> Iterator[str]:
    values = {}
    if message.source.enterprise_site_id:
        values["AuditEnterpriseSiteID"] = message.source.enterprise_site_id
    values["AuditSourceID"] = message.source.source_id
    yield f"<AuditSourceIdentification{_attributes(**values)}>"
    yield f"<AuditSourceTypeCode{_attributes(csd_code=_SECURITY_SERVER)}/></AuditSourceIdentification>"


def _object(each: ParticipantObject) -> Iterator[str]:
    attributes = _attributes(
        ParticipantObjectID=each.object_id,
        ParticipantObjectTypeCode=str(int(each.type)),
        ParticipantObjectTypeCodeRole=str(int(each.role)),
    )
    yield f"<ParticipantObjectIdentification{attributes}>"
    yield _code("ParticipantObjectIDTypeCode", each.id_type)
    if each.query is None:
        yield f"<ParticipantObjectName>{escape(each.name)}</ParticipantObjectName>"
    else:
        yield f"<ParticipantObjectQuery>{_base64(each.query)}</ParticipantObjectQuery>"
    for detail in each.details:
        yield f"<ParticipantObjectDetail{_attributes(type=detail.type, value=_base64(detail.value))}/>"
    if each.sop_classes:
        yield "<ParticipantObjectDescription>"
        for sop_class in each.sop_classes:
            yield f"<SOPClass{_attributes(UID=sop_class.uid, NumberOfInstances=str(sop_class.count))}>"
            yield from (f"<Instance{_attributes(UID=uid)}/>" for uid in sop_class.instances)
            yield "</SOPClass>"
        yield "</ParticipantObjectDescription>"
    yield "</ParticipantObjectIdentification>"


def _base64(value: bytes) -> str:
    return b64encode(value).decode("ascii")
