"""What a report says of a run; the numbers are added by hand."""

from dataclasses import replace

import pytest

from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, Finding, ProductGuess, Protocol, Reach, ServerObservation
from dicomward.assess.report_model import (
    Options,
    Report,
    RunFacts,
    build_report,
    is_guarded,
    is_server,
    product_in_words,
)
from dicomward.io.assess.report_render import read_world
from tests.assess.report_runs import FACTS, GUARDED, ORTHANC, SERVERS, WEB, controls, counts, leaking

WORLD = read_world()
PLAIN = Options()
SHARED = Options(shared=True, addresses=False)


def report_of(*servers: ServerObservation, options: Options = PLAIN) -> Report:
    return build_report(FACTS, servers, WORLD, options)


def test_totals_are_the_sums() -> None:
    report = report_of(*SERVERS)
    assert (report.servers_reached, report.servers_leaking, report.servers_guarded) == (9, 6, 1)
    assert report.counts["records"].text == "at least 17,126,239"
    assert report.counts["personal"].value == 51_006 + 2_500_000 + 300 + 1_000_000 + 1_000 + 1
    assert report.counts["medical"].value == 17_126_239 - report.counts["personal"].value
    assert report.not_answered == 1
    rows = {row.type: row.count for row in report.types}
    assert rows["Servers with effective authorisation"] == "1 (11.1 %)"
    assert rows["Countries that host them"] == "7"
    assert rows["Countries of patients"] == "2"


def test_countries_come_with_the_most_records_first() -> None:
    report = report_of(*SERVERS)
    assert [row.code for row in report.countries] == ["IN", "ZA", "DE", "SG", "US", "FR", "BR"]
    germany = report.countries[2]
    assert (germany.name, germany.servers, germany.leaking, germany.records.value) == ("Germany", 3, 1, 184_220)
    assert report.map_values == {
        "IN": 9_640_000,
        "ZA": 7_300_000,
        "DE": 184_220,
        "SG": 1_204,
        "US": 812,
        "FR": 3,
    }
    assert [(row.name, row.servers) for row in report.sites] == [("Harbour clinic", 3)]
    assert [(name, count.value) for _, name, count in report.patient_countries] == [("Poland", 312), ("Netherlands", 3)]


def test_map_is_of_servers_where_nothing_was_counted() -> None:
    report = report_of(leaking("192.0.2.1", "DE", None), leaking("192.0.2.2", "", None))
    assert (report.map_is_of_records, report.map_values) == (False, {"DE": 1})
    assert [row.name for row in report.countries] == ["Germany", "unknown"]
    assert {row.type: row.count for row in report.types}["Countries that host them"] == "1"


def test_leak_comes_first_and_then_the_worst() -> None:
    report = report_of(*SERVERS)
    assert report.findings[0].entry.id == "DWA-RECORDS-EXPOSED"
    scores = [row.severity.score for row in report.findings[1:]]
    assert scores == sorted(scores, reverse=True)
    assert report.findings[0].found_at[0].server == "pacs.north.example (198.51.100.20) port 104"
    assert "184,220 records" in report.findings[0].found_at[0].evidence


def test_shared_report_singles_nobody_out() -> None:
    report = report_of(*SERVERS, options=SHARED)
    france = next(row for row in report.countries if row.code == "FR")
    assert (france.records.text, france.patients.text) == ("<5", "<5")
    # Otherwise the three records could be had by subtraction.
    assert report.counts["records"].text == "about 17,126,230"
    assert [count.text for *_, count in report.patient_countries] == ["312", "<5"]
    assert {each.evidence for row in report.findings for each in row.found_at} == {"left out of a shared report"}
    assert report.servers[0].name == "server 1"
    assert "198.51" not in repr(report.findings)


def test_shared_report_without_small_counts_is_exact() -> None:
    report = report_of(leaking("192.0.2.1", "DE", counts(812, personal=300, patients=290)), options=SHARED)
    assert report.counts["records"].value == 812


def test_addresses_are_in_a_shared_report_if_asked_for() -> None:
    report = report_of(*SERVERS, options=Options(shared=True, addresses=True))
    assert report.servers[0].name.endswith("port 104")


@pytest.mark.parametrize(
    ("servers", "summary"),
    [
        ((), "No DICOM server answered. That says nothing about servers that were switched off or out of reach."),
        ((GUARDED,), "1 DICOM server can be reached. None of them was seen giving patients' records to strangers."),
        (
            (leaking("192.0.2.1", "DE", counts(812, personal=3, patients=2)),),
            "1 DICOM server can be reached. 1 of them gives 812 patients' records to anyone who asks.",
        ),
        (
            (replace(GUARDED, findings=(Finding(id="DWA-RECORDS-EXPOSED"),)), GUARDED),
            "2 DICOM servers can be reached. 1 of them gives records to anyone who asks.",
        ),
        (
            tuple(leaking(f"192.0.2.{n}", "DE", counts(10, personal=3, patients=5)) for n in (1, 2)),
            "2 DICOM servers can be reached. 2 of them give 20 patients' records to anyone who asks.",
        ),
    ],
)
def test_summary_says_it_in_two_sentences(servers: tuple[ServerObservation, ...], summary: str) -> None:
    assert report_of(*servers).summary == summary


def test_report_of_nothing_has_no_shares() -> None:
    report = build_report(RunFacts(), (), WORLD, Options())
    assert {row.type: row.count for row in report.types}["Servers with effective authorisation"] == "0"
    assert (report.findings, report.servers, report.countries) == ((), (), ())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"reach": Reach.REFUSED}, False),
        ({"reach": Reach.OTHER}, False),
        ({"reach": Reach.HOSTILE, "protocol": Protocol.UNKNOWN}, True),
        ({"protocol": Protocol.UNKNOWN}, False),
        ({"protocol": Protocol.HTTP, "findings": (), "controls": ()}, False),
        (
            {"protocol": Protocol.HTTP, "findings": (), "controls": controls(Verdict.PASS, (Control.DICOMWEB_TOKEN,))},
            True,
        ),
        ({"protocol": Protocol.HTTPS}, True),
    ],
)
def test_server_is_what_answered_in_dicom_or_an_archives_web(changes: dict[str, object], expected: bool) -> None:
    assert is_server(replace(SERVERS[0], **changes)) is expected  # type: ignore[arg-type]


def test_guarded_needs_a_door_that_refused_and_nothing_open() -> None:
    assert is_guarded(GUARDED)
    assert not is_guarded(WEB)
    assert not is_guarded(replace(GUARDED, controls=()))
    door = controls(Verdict.PASS, (Control.CALLING_AE_TITLE,))
    assert is_guarded(replace(GUARDED, controls=door))
    assert not is_guarded(replace(GUARDED, controls=(*door, *controls(Verdict.FAIL, (Control.FIND,)))))


def test_guarded_in_words() -> None:
    nothing_known = replace(GUARDED, controls=(), findings=())
    rows = report_of(GUARDED, WEB, replace(nothing_known, port=104)).servers
    assert {(row.observation.port, row.guarded) for row in rows} == {(2762, "yes"), (8042, "no"), (104, "not certain")}


def test_product_in_words() -> None:
    assert product_in_words(replace(GUARDED, product=ProductGuess())) == "not known"
    assert product_in_words(replace(GUARDED, product=ORTHANC)) == "Orthanc 1.12.4 (high confidence)"
    other = replace(ORTHANC, vendor="Maker", product="Thing")
    assert product_in_words(replace(GUARDED, product=other)) == "Maker Thing 1.12.4 (high confidence)"
