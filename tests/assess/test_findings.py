"""Every FAIL is a finding, and every finding has a severity and a remedy."""

import re

from dicomward.assess.findings import CATALOGUE, findings_of
from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import (
    Control,
    ControlResult,
    Count,
    Counts,
    Finding,
    ServerObservation,
    Vulnerability,
)

VECTOR = re.compile(
    r"CVSS:4\.0/AV:[NALP]/AC:[LH]/AT:[NP]/PR:[NLH]/UI:[NPA]/VC:[HLN]/VI:[HLN]/VA:[HLN]/SC:[HLN]/SI:[HLN]/SA:[HLN]"
)


def test_every_control_has_one_finding() -> None:
    controls = [each.control for each in CATALOGUE.values() if each.control is not None]
    assert sorted(controls) == sorted(Control)


def test_every_entry_is_complete() -> None:
    for key, each in CATALOGUE.items():
        assert key == each.id
        assert re.fullmatch(r"DWA-[A-Z]+(-[A-Z]+)*", key)
        assert VECTOR.fullmatch(each.cvss), each.cvss
        assert each.title
        assert each.remedy.endswith(".")


def test_only_what_failed_is_a_finding() -> None:
    observation = ServerObservation(
        address="10.0.0.1",
        port=104,
        controls=(
            ControlResult(control=Control.ECHO, verdict=Verdict.FAIL, why="status 0"),
            ControlResult(control=Control.GET, verdict=Verdict.INCONCLUSIVE, why="can't tell"),
            ControlResult(control=Control.FIND, verdict=Verdict.FAIL, why="answered"),
            ControlResult(control=Control.MOVE, verdict=Verdict.PASS),
        ),
        vulnerabilities=(Vulnerability(id="CVE-1", title="t", is_verified=True), Vulnerability(id="CVE-2", title="t")),
        counts=Counts(records=Count(value=1200, is_lower_bound=True), studies=Count(value=3), patients=Count(value=0)),
    )
    assert findings_of(observation) == (
        Finding(id="DWA-RECORDS-EXPOSED", evidence="at least 1,200 records, 3 studies"),
        Finding(id="DWA-FIND-OPEN", evidence="answered"),
        Finding(id="DWA-ECHO-OPEN", evidence="status 0"),
        Finding(id="DWA-KNOWN-VULNERABILITY", evidence="CVE-1, CVE-2 (versions not verified)"),
    )


def test_counts_of_nothing_are_no_finding() -> None:
    assert findings_of(ServerObservation(address="10.0.0.1", port=104, counts=Counts(records=Count(value=0)))) == ()
