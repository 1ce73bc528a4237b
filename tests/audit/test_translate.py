"""Each record of ours becomes the messages that PS3.15 A.5.3 wants, in three encodings, and each is valid."""

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from fhir.resources.R4B.auditevent import AuditEvent as FhirAuditEvent
from lxml import etree

from dicomward.audit import event as events
from dicomward.audit.chain import Record
from dicomward.audit.encode_dicom import encode_dicom
from dicomward.audit.encode_ecs import ecs_document, encode_ecs
from dicomward.audit.encode_fhir import encode_fhir
from dicomward.audit.encode_json import event_members
from dicomward.audit.event import AuditEvent
from dicomward.audit.standard import AuditSource, StandardMessage
from dicomward.audit.syslog import MAX_MESSAGE_BYTES
from dicomward.audit.transfers import MAX_INSTANCES, MAX_OPEN
from dicomward.audit.translate import Translator
from dicomward.vocab.reason import ReasonCode
from tests.audit.schema import assert_valid

SOURCE = AuditSource("gw1", "Hospital")
FACTS: dict[str, Any] = {
    "association": "a1",
    "device": "ct1",
    "archive": "pacs",
    "calling_ae_title": "CT1",
    "called_ae_title": "PACS",
    "address": "10.1.2.3",
}
OPERATION: dict[str, Any] = {**FACTS, "direction": "requestor"}
CT = "1.2.840.10008.5.1.4.1.1.2"
MPPS = "1.2.840.10008.3.1.2.3.3"
STUDY: dict[str, Any] = {"patient_id": "4711", "issuer_of_patient_id": "SITE", "study_instance_uid": "1.2.3"}


def record(event: AuditEvent, seq: int = 1, time: str = "2026-01-31T12:00:00.000001Z") -> Record:
    return Record(seq=seq, time=time, prev="0" * 64, hash="1" * 64, members=event_members(event))


def translated(*given: AuditEvent, flush: bool = True) -> list[StandardMessage]:
    translator = Translator(SOURCE)
    told = [message for seq, each in enumerate(given, 1) for message in translator.take(record(each, seq))]
    return [*told, *translator.flush()] if flush else told


def check(message: StandardMessage) -> Any:
    """The XML of a message, valid; its FHIR resource is valid as well."""
    xml = encode_dicom(message)
    assert_valid(xml)
    FhirAuditEvent.model_validate_json(encode_fhir(message))
    return etree.fromstring(xml)


def codes(message: StandardMessage) -> tuple[str, str, str, int]:
    document = check(message)
    identification = document.find("EventIdentification")
    types = ",".join(each.get("csd-code") for each in identification.findall("EventTypeCode"))
    return (
        identification.find("EventID").get("csd-code"),
        types,
        identification.get("EventActionCode"),
        int(identification.get("EventOutcomeIndicator")),
    )


def stored(
    patient: str = "4711", instance: str = "1", status: int | None = 0, **more: Any
) -> events.OperationCompleted:
    facts = {**OPERATION, **STUDY, "patient_id": patient, **more}
    return events.OperationCompleted(
        **facts, operation="c-store", sop_class_uid=CT, sop_instance_uid=instance, status=status
    )


TABLE: list[tuple[AuditEvent, list[tuple[str, str, str, int]]]] = [
    (events.GatewayStarted(version="1"), [("110100", "110120", "E", 0)]),
    (events.GatewayStopped(version="1"), [("110100", "110121", "E", 0)]),
    (events.AssociationAllowed(**FACTS), [("110114", "110122", "E", 0)]),
    (events.AssociationEnded(**FACTS), [("110114", "110123", "E", 0)]),
    (events.ConnectionFailed(address="10.9.9.9", reason=ReasonCode.TLS_FAILED), [("110113", "110126", "E", 4)]),
    (
        events.StrangersCoalesced(count=7, first="x", last="y", reason=ReasonCode.NOT_TLS),
        [("110113", "110126", "E", 4)],
    ),
    (events.AssociationDenied(**FACTS, reason=ReasonCode.NETWORK_NOT_ALLOWED), [("110113", "110126", "E", 4)]),
    (events.AssociationDenied(**FACTS, reason=ReasonCode.NO_MATCHING_RULE), [("110113", "110132", "E", 4)]),
    (
        events.AssociationDenied(**FACTS, reason=ReasonCode.USER_IDENTITY_NOT_CONFIGURED),
        [("110114", "110122", "E", 4), ("110113", "110132", "E", 4)],
    ),
    (
        events.OperationDenied(
            **OPERATION, operation="c-find", reason=ReasonCode.DENIED_BY_RULE, rule_ids=("r1", "r2")
        ),
        [("110113", "110132", "E", 4)],
    ),
    (events.OperationAllowed(**OPERATION, **STUDY, operation="c-store"), [("110102", "", "E", 0)]),
    (events.OperationAllowed(**OPERATION, operation="c-move", move_destination="WS1"), [("110102", "", "E", 0)]),
    (events.OperationAllowed(**OPERATION, operation="c-find"), []),
    (events.OperationAllowed(**OPERATION, operation="c-echo"), []),
    (stored(), [("110104", "", "C", 0)]),
    (stored(status=0xB000), [("110104", "", "C", 0)]),
    (stored(status=0xA700), [("110104", "", "C", 4)]),
    (stored(status=None), [("110104", "", "C", 8)]),
    (stored(direction="acceptor"), [("110104", "", "R", 0)]),
    (events.OperationCompleted(**OPERATION, operation="c-move", status=0, move_destination="WS1"), []),
    (
        events.OperationCompleted(**OPERATION, **STUDY, operation="c-get", status=0xA702),
        [("110104", "", "E", 4)],
    ),
    (
        events.OperationCompleted(**OPERATION, operation="c-find", status=0, sop_class_uid="1.2", matches=3),
        [("110112", "", "E", 0)],
    ),
    (
        events.OperationCompleted(**OPERATION, **STUDY, operation="n-create", sop_class_uid=MPPS, status=0),
        [("110111", "", "C", 0)],
    ),
    (events.OperationCompleted(**OPERATION, operation="n-set", sop_class_uid=MPPS, status=0), [("110111", "", "U", 0)]),
    (events.OperationCompleted(**OPERATION, operation="n-set", sop_class_uid="1.2", status=0), []),
    (events.OperationCompleted(**OPERATION, operation="c-echo", status=0), []),
    (
        events.RegistryChanged(operator="anna", action="add-device", device="ct1"),
        [("110113", "110137", "E", 0), ("110108", "110124", "E", 0)],
    ),
    (
        events.RegistryChanged(operator="anna", action="revoke-device", device="ct1"),
        [("110113", "110137", "E", 0), ("110108", "110125", "E", 0)],
    ),
    (events.RegistryChanged(operator="anna", action="renew-device", device="ct1"), [("110113", "110137", "E", 0)]),
    (events.PolicyChanged(operator="anna", policy_revision="r2"), [("110113", "110135", "E", 0)]),
    (events.LockdownChanged(operator="anna", action="lock", site="main"), [("110113", "110135", "E", 0)]),
    (events.EnrolmentChanged(operator="anna", action="invite", device="ct1"), [("110113", "110135", "E", 0)]),
    (events.EnrolmentRefused(reason=ReasonCode.CODE_WRONG, device="ct1"), [("110113", "110126", "E", 4)]),
    (events.AuditAccessed(operator="anna", action="audit search", count=3), [("110101", "", "R", 0)]),
    (
        events.DegradedEntered(component="audit log", state="degraded", reason=ReasonCode.AUDIT_DISK_FULL),
        [("110113", "110133", "E", 8)],
    ),
    (events.DegradedEntered(component="audit log", state="no-sink"), [("110113", "110133", "E", 12)]),
    (events.DegradedLeft(component="audit log", state="ok"), [("110113", "110134", "E", 0)]),
    (events.DegradedEntered(component="correlations"), [("110113", "110129", "E", 8)]),
    (events.SecurityAlert(reason=ReasonCode.AUDIT_REWRITTEN, detail="x"), [("110113", "110129", "E", 8)]),
    (events.AuditRecordsLost(count=3), [("110113", "110133", "E", 8)]),
    (events.DeviationsCounted(deviations=(("x", 1),)), []),
]


@pytest.mark.parametrize(("given", "expected"), TABLE, ids=[f"{n}-{each[0].code}" for n, each in enumerate(TABLE)])
def test_each_event_becomes_its_messages(given: AuditEvent, expected: list[tuple[str, str, str, int]]) -> None:
    assert [codes(message) for message in translated(given)] == expected
    json.loads(encode_ecs(record(given)))


def test_every_event_class_can_be_told() -> None:
    """Also those of parts that know nothing of this table: a change, told as a security alert."""
    told = {type(given) for given, _ in TABLE}
    for event_class in set(events.EVENT_CLASSES) - told:
        required: dict[str, Any] = {
            name: "x" for name in ("component", "first", "last", "reason") if name in _required(event_class)
        }
        given = Record(
            seq=1,
            time="2026-01-31T12:00:00.000001Z",
            prev="0" * 64,
            hash="1" * 64,
            members={"code": event_class.code, "detail": "x", **required},
        )
        (message,) = Translator(SOURCE).take(given)
        assert codes(message)[0] == "110113"


def _required(event_class: type[AuditEvent]) -> set[str]:
    from dataclasses import MISSING, fields

    return {each.name for each in fields(event_class) if each.default is MISSING}


@pytest.mark.parametrize(
    ("reason", "kind"), [(ReasonCode.BYPASS_OPENED, "110127"), (ReasonCode.BYPASS_ENDED, "110138")]
)
def test_a_bypass_is_an_emergency_override(reason: ReasonCode, kind: str) -> None:
    (message,) = translated(events.SecurityAlert(reason=reason, operator="anna", site="main"))
    assert codes(message) == ("110113", kind, "E", 0)


def test_what_an_association_moved_of_one_patient_is_one_message() -> None:
    begin = events.OperationAllowed(**OPERATION, **STUDY, operation="c-store")
    messages = translated(
        begin,
        stored(instance="1"),
        begin,
        stored(instance="2"),
        stored(patient="0815", instance="3"),
        stored(instance="4", study_instance_uid="1.2.4"),
        stored(instance="5", status=0xA700),
        events.AssociationEnded(**FACTS),
        flush=False,
    )
    assert [codes(each)[0] for each in messages] == ["110102", "110104", "110104", "110104", "110114"]
    told = check(messages[1])
    objects = {each.get("ParticipantObjectID"): each for each in told.findall("ParticipantObjectIdentification")}
    assert list(objects) == ["4711^^^SITE", "1.2.3", "1.2.4"]
    sop_class = objects["1.2.3"].find("ParticipantObjectDescription/SOPClass")
    assert (sop_class.get("UID"), sop_class.get("NumberOfInstances")) == (CT, "2")
    assert [each.get("UID") for each in sop_class] == ["1", "2"]
    assert messages[1].record == 6
    assert [codes(each)[3] for each in messages[1:4]] == [0, 0, 4]


def test_the_cursor_may_not_pass_what_is_still_collected() -> None:
    translator = Translator(SOURCE)
    assert [translator.untold] == [None]
    translator.take(record(stored(), seq=7))
    translator.take(record(stored(patient="2"), seq=8))
    assert translator.untold == 7
    assert translator.flush("2026-01-31T11:00:00.000000Z") == []
    assert len(translator.flush("2026-01-31T13:00:00.000000Z")) == 2
    assert translator.untold is None


def test_many_instances_are_told_in_pieces_that_every_receiver_takes() -> None:
    uid = "1.2.840.113619.2.1.1.1762890432.1234567890.1234567890.{:010d}"
    messages = translated(*(stored(instance=uid.format(n)) for n in range(MAX_INSTANCES + 1)))
    assert len(messages) == 2
    assert len(encode_dicom(messages[0])) < MAX_MESSAGE_BYTES


def test_memory_is_bounded() -> None:
    translator = Translator(SOURCE)
    begun = 0
    for number in range(MAX_OPEN + 3):
        more: dict[str, Any] = {"association": f"a{number}"}
        given = events.OperationAllowed(**{**OPERATION, **more}, operation="c-store")
        begun += len(translator.take(record(given, 2 * number + 1)))
        translator.take(record(stored(**more), 2 * number + 2))
    assert len(translator.flush()) == MAX_OPEN
    assert begun == MAX_OPEN + 3


@pytest.mark.parametrize(
    ("given", "source", "destination", "requestor"),
    [
        (stored(), "ct1", "pacs", "ct1"),
        (stored(direction="acceptor"), "pacs", "ct1", "ct1"),
        (stored(device="pacs", archive="ws1", originator="ws2"), "pacs", "ws1", "ws2"),
        (events.OperationAllowed(**OPERATION, operation="c-get"), "pacs", "ct1", "ct1"),
        (events.OperationAllowed(**OPERATION, operation="c-move", move_destination="WS1"), "pacs", "WS1", "ct1"),
        (events.OperationCompleted(**OPERATION, operation="c-find", status=0), "ct1", "pacs", "ct1"),
    ],
)
def test_who_sends_who_gets_and_who_asked(given: AuditEvent, source: str, destination: str, requestor: str) -> None:
    document = check(translated(given)[0])

    def user(path: str) -> str:
        return str(document.xpath(f"string(ActiveParticipant[{path}]/@UserID)"))

    assert user("RoleIDCode/@csd-code='110153'") == source
    assert user("RoleIDCode/@csd-code='110152'") == destination
    assert user("@UserIsRequestor='true'") == requestor


def test_a_query_holds_its_identifier_as_it_came() -> None:
    identifier = b"\x08\0\x52\0\x06\0\0\0STUDY "
    given = events.OperationCompleted(
        **OPERATION,
        operation="c-find",
        status=0,
        sop_class_uid="1.2.840.10008.5.1.4.1.2.2.1",
        identifier=b64encode(identifier).decode(),
        transfer_syntax_uid="1.2.840.10008.1.2",
    )
    (message,) = translated(given)
    asked = check(message).find("ParticipantObjectIdentification")
    assert b64decode(asked.findtext("ParticipantObjectQuery")) == identifier
    assert asked.find("ParticipantObjectIDTypeCode").get("csd-code") == "110181"
    syntax = asked.find("ParticipantObjectDetail[@type='TransferSyntax']").get("value")
    assert b64decode(syntax) == b"1.2.840.10008.1.2"
    (entity, *_) = json.loads(encode_fhir(message))["entity"]
    assert b64decode(entity["query"]) == identifier
    assert "name" not in entity


def test_an_alert_says_what_happened_and_escapes_what_a_stranger_typed() -> None:
    given = events.AssociationDenied(
        calling_ae_title='<A&"1>', address="10.0.0.1", reason=ReasonCode.NO_CERTIFICATE, detail="]]> <x>"
    )
    document = check(translated(given)[0])
    description = document.find("ParticipantObjectIdentification/ParticipantObjectDetail[@type='Alert Description']")
    assert b64decode(description.get("value")) == b"DW-ASSOC-DENY no-certificate: ]]> <x>"
    assert document.find("ActiveParticipant[2]").get("AlternativeUserID") == 'AETITLES=<A&"1>'


def test_the_source_is_named() -> None:
    document = check(translated(events.GatewayStarted())[0])
    source = document.find("AuditSourceIdentification")
    assert (source.get("AuditSourceID"), source.get("AuditEnterpriseSiteID")) == ("gw1", "Hospital")
    plain = Translator(AuditSource("gw1")).take(record(events.GatewayStarted()))[0]
    assert check(plain).find("AuditSourceIdentification").get("AuditEnterpriseSiteID") is None


def test_control_characters_never_reach_the_xml() -> None:
    given = record(events.GatewayStarted())
    members = {"code": "DW-POLICY-CHANGE", "operator": "a\x00\x1b\ud800b"}
    odd = Record(seq=1, time=given.time, prev="", hash="", members=members)
    assert_valid(encode_dicom(Translator(SOURCE).take(odd)[0]))


def test_ecs_holds_every_member_and_maps_what_it_knows() -> None:
    given = record(
        events.OperationDenied(
            **OPERATION, operation="c-find", reason=ReasonCode.NO_MATCHING_RULE, duration_ms=2, detail="d"
        )
    )
    document: Any = ecs_document(given)
    assert document["dicomward"] == dict(given.members)
    assert document["event"]["outcome"] == "failure"
    assert document["event"]["category"] == ["network"]
    assert document["event"]["duration"] == 2_000_000
    assert document["source"]["ip"] == "10.1.2.3"
    assert document["message"] == "d"
    assert document["@timestamp"] == given.time
    alert: Any = ecs_document(record(events.SecurityAlert(detail="x")))
    assert alert["event"]["kind"] == "alert"
