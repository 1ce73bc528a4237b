"""What became of findings: closed needs a server that answered and refused."""

from dataclasses import replace

import pytest

from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import (
    Confidence,
    Control,
    Counts,
    Finding,
    ProductGuess,
    Protocol,
    Reach,
    ServerObservation,
    Vulnerability,
)
from dicomward.assess.report_compare import Change, Comparison, compare_runs, comparison_lines, comparison_to_json
from tests.assess.report_runs import OPEN, ORTHANC, WEB, controls, counts, leaking, with_findings

LEAK = leaking("192.0.2.1", "DE", counts(812, personal=300, patients=290))
REFUSING = with_findings(replace(LEAK, controls=controls(Verdict.PASS), counts=None))
BEHIND_TLS = with_findings(
    replace(
        LEAK,
        protocol=Protocol.DIMSE_TLS,
        reach=Reach.CERTIFICATE_WANTED,
        controls=controls(Verdict.PASS, (Control.CLIENT_CERTIFICATE,)),
        counts=None,
    )
)


def changes(comparison: Comparison) -> set[Change]:
    return {each.change for each in comparison.findings}


def only(finding: str, old: ServerObservation, new: ServerObservation | None) -> tuple[Change, str]:
    old = replace(old, findings=(Finding(id=finding, evidence="then"),))
    comparison = compare_runs([old], [] if new is None else [new])
    (compared,) = (each for each in comparison.findings if each.id == finding)
    return compared.change, compared.why


def test_closed_when_it_answered_and_refused() -> None:
    comparison = compare_runs([LEAK], [REFUSING])
    assert changes(comparison) == {Change.CLOSED}
    assert comparison.all_closed
    assert len(comparison.findings) == len(OPEN) + 1


def test_closed_when_it_asks_for_a_certificate_first() -> None:
    comparison = compare_runs([LEAK], [BEHIND_TLS])
    assert changes(comparison) == {Change.CLOSED}


@pytest.mark.parametrize(
    "reach",
    [
        Reach.REFUSED,
        Reach.SILENT,
        Reach.UNREACHABLE,
        Reach.OTHER,
        Reach.HOSTILE,
        Reach.HALTED,
        Reach.NOT_TRIED,
    ],
)
def test_what_does_not_answer_proves_nothing(reach: Reach) -> None:
    gone = replace(REFUSING, reach=reach, problem="it was late")
    comparison = compare_runs([LEAK], [gone])
    assert changes(comparison) == {Change.INCONCLUSIVE}
    assert not comparison.all_closed
    assert all(each.why.endswith("(it was late)") for each in comparison.findings)
    assert "(" not in only("DWA-FIND-OPEN", LEAK, replace(gone, problem=""))[1]


def test_server_that_was_not_looked_at_is_inconclusive() -> None:
    assert only("DWA-FIND-OPEN", LEAK, None) == (Change.INCONCLUSIVE, "the new run did not look at it")


def test_ports_that_did_not_answer_are_named() -> None:
    (compared, *_) = compare_runs(
        [LEAK], [], lambda address: "refused, silent" if address == "192.0.2.1" else ""
    ).findings
    assert compared.change is Change.INCONCLUSIVE
    assert "(the ports were: refused, silent)" in compared.why


def test_open_and_changed() -> None:
    assert changes(compare_runs([LEAK], [LEAK])) == {Change.OPEN}
    more = with_findings(replace(LEAK, counts=counts(900, personal=300, patients=290)))
    comparison = compare_runs([LEAK], [more])
    (changed,) = comparison.of(Change.CHANGED)
    assert (changed.id, changed.old_evidence, changed.new_evidence) == (
        "DWA-RECORDS-EXPOSED",
        "812 records, 812 studies, 290 patients",
        "900 records, 900 studies, 290 patients",
    )


def test_new_on_a_known_and_on_a_new_server() -> None:
    worse = replace(LEAK, findings=(*LEAK.findings, Finding(id="DWA-WORKLIST-OPEN", evidence="answered")))
    (new,) = compare_runs([LEAK], [worse]).of(Change.NEW)
    assert (new.id, new.why) == ("DWA-WORKLIST-OPEN", "it was not there before")
    comparison = compare_runs([], [LEAK])
    assert changes(comparison) == {Change.NEW}
    assert comparison.findings[0].why == "the server was not seen before"


def test_control_that_was_not_judged_is_inconclusive() -> None:
    unsure = replace(REFUSING, controls=controls(Verdict.INCONCLUSIVE, (Control.FIND,), "contexts alone do not tell"))
    assert only("DWA-FIND-OPEN", LEAK, unsure) == (Change.INCONCLUSIVE, "contexts alone do not tell")
    assert only("DWA-GET-OPEN", LEAK, unsure) == (Change.INCONCLUSIVE, "the new run did not judge it")


def test_pass_without_words_has_some_here() -> None:
    silent = replace(REFUSING, controls=tuple(replace(each, why="") for each in REFUSING.controls))
    assert only("DWA-FIND-OPEN", LEAK, silent) == (Change.CLOSED, "it answered and refused")


def test_certificate_is_not_better_because_one_is_asked_for() -> None:
    assert only("DWA-CERT-EXPIRED", LEAK, BEHIND_TLS)[0] is Change.INCONCLUSIVE


def test_records_are_safe_when_every_way_is_refused() -> None:
    two_ways = replace(LEAK, controls=controls(Verdict.FAIL, (Control.FIND, Control.WORKLIST)))
    assert only("DWA-RECORDS-EXPOSED", two_ways, REFUSING) == (
        Change.INCONCLUSIVE,
        "not counted this time, and not refused either: worklist",
    )
    both = replace(REFUSING, controls=controls(Verdict.PASS, (Control.FIND, Control.WORKLIST)))
    assert only("DWA-RECORDS-EXPOSED", two_ways, both)[0] is Change.CLOSED
    assert only("DWA-RECORDS-EXPOSED", replace(LEAK, controls=()), REFUSING)[0] is Change.CLOSED


def test_records_that_are_still_counted_are_not_closed() -> None:
    still = replace(REFUSING, counts=counts(5, personal=1, patients=1))
    change, why = only("DWA-RECORDS-EXPOSED", LEAK, still)
    assert (change, why) == (Change.INCONCLUSIVE, "not counted this time, and not refused either: counts")
    assert only("DWA-RECORDS-EXPOSED", LEAK, replace(still, counts=Counts()))[0] is Change.CLOSED


def test_records_of_the_web_are_judged_by_the_web() -> None:
    closed = replace(
        WEB, controls=controls(Verdict.PASS, (Control.DICOMWEB_TOKEN, Control.WEB_ADMINISTRATION)), findings=()
    )
    assert only("DWA-RECORDS-EXPOSED", WEB, closed)[0] is Change.CLOSED
    assert only("DWA-RECORDS-EXPOSED", WEB, replace(closed, controls=()))[0] is Change.INCONCLUSIVE


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        (replace(ORTHANC, version="1.12.9"), Change.CLOSED),
        (ORTHANC, Change.INCONCLUSIVE),
        (ProductGuess(confidence=Confidence.NONE), Change.INCONCLUSIVE),
    ],
)
def test_vulnerability_is_closed_by_another_version(product: ProductGuess, expected: Change) -> None:
    old = with_findings(replace(LEAK, vulnerabilities=(Vulnerability(id="CVE-2023-33466", title="t"),)))
    assert only("DWA-KNOWN-VULNERABILITY", old, replace(REFUSING, product=product))[0] is expected


def test_vulnerability_is_closed_to_strangers_by_a_door() -> None:
    assert only("DWA-KNOWN-VULNERABILITY", LEAK, BEHIND_TLS)[0] is Change.CLOSED


def test_finding_of_another_version_is_inconclusive() -> None:
    assert only("DWA-OF-TOMORROW", LEAK, REFUSING) == (
        Change.INCONCLUSIVE,
        "this version does not know the finding",
    )


def test_json_has_the_numbers_and_every_finding() -> None:
    comparison = compare_runs([LEAK], [REFUSING])
    value = comparison_to_json(comparison)
    assert value["all_closed"] is True
    assert value["counts"] == {"new": 0, "changed": 0, "open": 0, "INCONCLUSIVE": 0, "closed": len(OPEN) + 1}
    assert value["findings"][0]["title"] == "Anyone who reaches the port reads patients' records"
    unknown = replace(LEAK, findings=(Finding(id="DWA-OF-TOMORROW"),))
    assert comparison_to_json(compare_runs([unknown], []))["findings"][0]["title"] is None


def test_text_has_what_needs_attention_first_and_the_numbers_last() -> None:
    worse = with_findings(replace(LEAK, counts=counts(900, personal=300, patients=290)))
    worse = replace(worse, findings=(*worse.findings, Finding(id="DWA-WORKLIST-OPEN", evidence="it answered")))
    lines = comparison_lines(compare_runs([LEAK], [worse]))
    assert lines[0] == "new           192.0.2.1 port 104  DWA-WORKLIST-OPEN: The worklist is answered for anyone"
    assert lines[1].strip() == "it was not there before; it answered"
    assert lines[2].startswith("changed       192.0.2.1 port 104  DWA-RECORDS-EXPOSED")
    assert "then: 812 records" in lines[3]
    assert "now: 900 records" in lines[3]
    assert lines[-1] == f"1 new, 1 changed, {len(OPEN)} open, 0 INCONCLUSIVE, 0 closed"
    unknown = replace(LEAK, findings=(Finding(id="DWA-OF-TOMORROW"),))
    assert comparison_lines(compare_runs([], [unknown]))[0].endswith("DWA-OF-TOMORROW")
