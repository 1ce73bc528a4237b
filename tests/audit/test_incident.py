"""What a device has touched, in which direction, and every kind of gap."""

from typing import Any

import pytest

from dicomward.audit import event as events
from dicomward.audit.chain import GENESIS, Head, decode_record, seal
from dicomward.audit.encode_json import event_members
from dicomward.audit.event import AuditEvent
from dicomward.audit.incident import IncidentReport, Investigation, NumberedLine
from dicomward.vocab.reason import ReasonCode

Timed = tuple[int, AuditEvent]


def at(minute: int) -> str:
    return f"2026-01-31T12:{minute:02d}:00.000000Z"


def lines_of(given: list[Timed], head: Head = GENESIS) -> list[NumberedLine]:
    lines: list[NumberedLine] = []
    for minute, event in given:
        head, line = seal(head, at(minute), event_members(event))
        lines.append(NumberedLine(head.seq, line[:-1]))
    return lines


def investigate(
    given: list[Timed],
    device: str = "ws1",
    since: int | None = None,
    until: int | None = None,
    *,
    lines: list[NumberedLine] | None = None,
    **tail: Any,
) -> IncidentReport:
    lines = lines_of(given) if lines is None else lines
    investigation = Investigation(
        device, since=None if since is None else at(since), until=None if until is None else at(until)
    )
    if lines:
        investigation.newest(decode_record(lines[-1].line))
    investigation.read(lines)
    last = lines[-1].seq if lines else 0
    return investigation.report(**{"signed": last, "last": last, "torn": (), "incomplete_bytes": 0, **tail})


def ended(operation: str, patient: str = "4711", **more: Any) -> events.OperationCompleted:
    facts: dict[str, Any] = {
        "association": "a1",
        "message_id": 1,
        "device": "ws1",
        "archive": "pacs",
        "direction": "requestor",
        "patient_id": patient or None,
        "study_instance_uid": "1.2" if patient else None,
        "operation": operation,
        "status": 0,
    }
    return events.OperationCompleted(**{**facts, **more})


def kinds(report: IncidentReport) -> list[str]:
    return [gap.kind for gap in report.gaps]


@pytest.mark.parametrize(
    ("event", "direction", "to"),
    [
        (ended("c-store", sop_instance_uid="1"), "sent", ""),
        (ended("c-store", direction="acceptor", sop_instance_uid="1"), "received", ""),
        (ended("c-find", matches=3), "queried", ""),
        (ended("c-get"), "received", ""),
        (ended("c-move", move_destination="WS2"), "moved", "WS2"),
        (ended("n-create"), "reported", ""),
        (ended("c-store", device="pacs", archive="ws1"), "received", ""),
        (ended("c-store", device="pacs", archive="ws2", originator="ws1"), "moved", "ws2"),
    ],
)
def test_each_operation_has_its_direction(event: AuditEvent, direction: str, to: str) -> None:
    report = investigate([(1, event)])
    (touched,) = report.touched
    assert (touched.patient_id, touched.study_instance_uid) == ("4711", "1.2")
    assert (touched.direction, touched.to, touched.operations) == (direction, to, 1)
    assert report.gaps == ()


@pytest.mark.parametrize(
    "event",
    [ended("c-store", device="ct1"), ended("c-find", device="ct1", archive="ws1"), ended("c-echo"), ended("n-action")],
)
def test_what_others_did_or_touches_nobody_is_left_out(event: AuditEvent) -> None:
    assert investigate([(1, event)]).touched == ()


def matched(*told: str, **more: Any) -> events.MatchesReturned:
    facts: dict[str, Any] = {"association": "a1", "message_id": 1, "device": "ws1", "archive": "pacs"}
    return events.MatchesReturned(**{**facts, "operation": "c-find", "matched": told, **more})


def test_who_was_in_the_answers_of_a_query_is_told() -> None:
    report = investigate(
        [
            (1, matched("4711\\HOSP\\1.2", "4712\\\\1.3")),
            (2, matched("4711\\HOSP\\1.2")),
            (3, matched("4713\\\\1.4", device="ws2")),
            (4, ended("c-find", matches=3)),
        ]
    )
    assert [
        (each.patient_id, each.issuer_of_patient_id, each.study_instance_uid, each.direction, each.operations)
        for each in report.touched
    ] == [
        ("4711", "HOSP", "1.2", "found", 2),
        ("4712", "", "1.3", "found", 1),
        ("4711", "", "1.2", "queried", 1),
    ]
    assert (report.touched[0].first, report.touched[0].last) == (at(1), at(2))
    assert report.gaps == ()


def test_matches_outside_the_times_and_damaged_ones_are_left_out() -> None:
    assert investigate([(1, matched("4711\\\\1.2"))], since=2, until=3).touched == ()
    assert [each.patient_id for each in investigate([(1, matched("odd"))]).touched] == ["odd"]
    assert investigate([(1, matched())]).touched == ()


def test_operations_are_summed_by_patient_study_and_direction() -> None:
    allowed = events.OperationAllowed(
        association="a1", message_id=2, device="ws1", operation="c-store", direction="requestor"
    )
    report = investigate(
        [
            (1, ended("c-store", sop_instance_uid="1", bytes=10)),
            (2, allowed),
            (3, ended("c-store", sop_instance_uid="2", bytes=20, message_id=2)),
            (4, ended("c-find", matches=3)),
            (5, events.OperationDenied(**_denied())),
        ]
    )
    sent, queried = report.touched
    assert (sent.operations, sent.instances, sent.bytes) == (2, {"1", "2"}, 30)
    assert (sent.first, sent.last) == (at(1), at(3))
    assert (queried.operations, queried.matches, queried.refused) == (1, 3, 1)
    assert report.records == 5


def _denied() -> dict[str, Any]:
    return {
        "association": "a2",
        "message_id": 1,
        "device": "ws1",
        "operation": "c-find",
        "direction": "requestor",
        "patient_id": "4711",
        "study_instance_uid": "1.2",
        "reason": ReasonCode.NO_MATCHING_RULE,
    }


def test_only_the_times_that_were_asked_for() -> None:
    given: list[Timed] = [(minute, ended("c-get", str(minute))) for minute in range(1, 6)]
    report = investigate(given, since=2, until=4)
    assert [each.patient_id for each in report.touched] == ["2", "3"]
    assert report.gaps == ()


def test_an_operation_without_an_end_is_a_gap_and_listed() -> None:
    allowed = events.OperationAllowed(
        association="a1", message_id=2, device="ws1", operation="c-get", direction="requestor", patient_id="4711"
    )
    report = investigate([(1, allowed)])
    assert [each.patient_id for each in report.touched] == ["4711"]
    assert kinds(report) == ["unfinished"]


def test_an_operation_that_does_not_say_whose_data_it_was_is_a_gap() -> None:
    assert kinds(investigate([(1, ended("c-store", ""))])) == ["patient-unknown"]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (events.AuditRecordsLost(count=3, reason=ReasonCode.AUDIT_QUEUE_FULL), "records-lost"),
        (events.AuditRecordsLost(reason=ReasonCode.AUDIT_NOT_CLOSED), "records-lost"),
        (events.SecurityAlert(reason=ReasonCode.AUDIT_TAIL_MISSING), "tampering"),
        (events.DegradedEntered(component="audit log", reason=ReasonCode.AUDIT_DISK_FULL), "degraded"),
        (events.DegradedLeft(component="audit log", first=at(1), count=9), "degraded"),
    ],
)
def test_what_the_log_says_of_itself_is_a_gap(event: AuditEvent, kind: str) -> None:
    assert kinds(investigate([(1, event)])) == [kind]


def test_a_degraded_time_has_its_beginning_and_its_end() -> None:
    report = investigate(
        [
            (1, events.DegradedEntered(component="audit log", reason=ReasonCode.AUDIT_STALLED)),
            (2, events.DegradedLeft(component="audit log", reason=ReasonCode.AUDIT_STALLED, count=4)),
        ]
    )
    (gap,) = report.gaps
    assert (gap.since, gap.until) == (at(1), at(2))
    assert "4 records of that time are in the second sink" in gap.detail


def test_what_is_no_matter_of_evidence_is_no_gap() -> None:
    given: list[Timed] = [
        (1, events.DegradedEntered(component="correlations")),
        (2, events.SecurityAlert(reason=ReasonCode.INTERNAL_ERROR)),
    ]
    assert investigate(given).gaps == ()


def test_a_degraded_time_that_was_over_before_is_no_gap() -> None:
    given: list[Timed] = [
        (1, events.DegradedEntered(component="audit log")),
        (2, events.DegradedLeft(component="audit log")),
        (5, events.GatewayStarted()),
        (9, events.GatewayStopped()),
    ]
    assert investigate(given, since=5, until=8).gaps == ()


def test_the_loss_that_is_told_next_concerns_the_time_before_it() -> None:
    given: list[Timed] = [
        (1, events.GatewayStarted()),
        (5, events.AuditRecordsLost(count=1)),
        (6, events.AuditRecordsLost(count=1)),
    ]
    assert kinds(investigate(given, since=1, until=3)) == ["records-lost"]


def test_records_that_are_gone_changed_or_out_of_place_are_gaps() -> None:
    lines = lines_of([(minute, ended("c-get")) for minute in range(1, 6)])
    gone = [*lines[:2], *lines[3:]]
    assert kinds(investigate([], lines=gone)) == ["missing-records"]
    changed = [*lines[:2], NumberedLine(3, lines[2].line.replace(b"4711", b"4712")), *lines[3:]]
    assert kinds(investigate([], lines=changed)) == ["damaged-record"]
    moved = [lines[0], NumberedLine(2, lines[2].line)]
    assert kinds(investigate([], lines=moved)) == ["missing-records"]


def test_the_log_may_not_reach_as_far_as_was_asked() -> None:
    given: list[Timed] = [(5, events.GatewayStarted()), (9, events.GatewayStopped())]
    assert kinds(investigate(given, since=1, until=30)) == ["before-the-log", "after-the-log"]
    pruned = lines_of(given, Head(7, "a" * 64))
    assert kinds(investigate([], lines=pruned)) == ["pruned"]
    assert kinds(investigate([], lines=pruned, since=6)) == []


def test_what_is_torn_or_not_signed_yet_is_a_gap() -> None:
    report = investigate([(1, ended("c-get"))], signed=0, torn=("x.torn-1",), incomplete_bytes=3)
    assert kinds(report) == ["unsigned-tail", "torn-record", "torn-record"]
    assert investigate([], signed=0).gaps == ()
