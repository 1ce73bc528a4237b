"""Advisories: what is in them, what must not be, and that an independent validator takes them."""

import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dicomward.assess.observation import Confidence, ProductGuess, Vulnerability
from dicomward.assess.report_csaf import Publisher, build_advisories
from tests.assess.report_runs import GUARDED, ORTHANC, SERVERS, WEB, counts, leaking, with_findings

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
PUBLISHER = Publisher(name="Regional Hospitals North", namespace="https://hospital.example", contact="sec@example.org")
ROOT = Path(__file__).parents[2]
VALIDATOR = ROOT / ".venv" / "node" / "node_modules" / "@secvisogram" / "csaf-validator-lib"
SCRIPT = Path(__file__).with_name("csaf_validate.mjs")


def test_one_document_for_each_product() -> None:
    advisories = build_advisories(SERVERS, PUBLISHER, NOW)
    assert [each.file_name for each in advisories] == [
        "dwa-20261125-offis-dcmtk-dcmqrscp.json",
        "dwa-20261125-orthanc.json",
    ]
    orthanc = advisories[1].document
    assert orthanc["document"]["tracking"]["id"] == "DWA-20261125-orthanc"
    assert "6 installations of Orthanc answered in an authorised assessment" in orthanc["document"]["notes"][0]["text"]
    titles = [each["title"] for each in orthanc["vulnerabilities"]]
    assert titles[0] == "Anyone who reaches the port reads patients' records"
    assert "Web administration answers without a login" in titles
    assert orthanc["vulnerabilities"][-1]["cve"] == "CVE-2023-33466"


def test_nothing_of_patients_and_no_address() -> None:
    text = json.dumps([each.document for each in build_advisories(SERVERS, PUBLISHER, NOW)])
    for word in ("198.51.100", "203.0.113", "north.example", "184,220", "184220"):
        assert word not in text
    asked = json.dumps([each.document for each in build_advisories(SERVERS, PUBLISHER, NOW, addresses=True)])
    assert "198.51.100.20 port 104, 198.51.100.20 port 8042" in asked


def test_low_confidence_and_what_is_not_the_vendors_accuse_nobody() -> None:
    unsure = replace(SERVERS[0], product=replace(ORTHANC, confidence=Confidence.LOW))
    unknown = replace(SERVERS[0], product=ProductGuess(confidence=Confidence.HIGH))
    operators = replace(GUARDED, product=ORTHANC)
    assert build_advisories([unsure, unknown, operators], PUBLISHER, NOW) == ()


def test_versions_are_told_apart() -> None:
    servers = [
        replace(SERVERS[0], vulnerabilities=()),
        replace(WEB, product=replace(ORTHANC, version="")),
    ]
    (advisory,) = build_advisories(servers, replace(PUBLISHER, contact=""), NOW)
    (vendor,) = advisory.document["product_tree"]["branches"]
    versions = vendor["branches"][0]["branches"]
    assert [(each["name"], each["product"]["name"]) for each in versions] == [
        ("1.12.4", "Orthanc 1.12.4"),
        ("not known", "Orthanc (version not known)"),
    ]
    web = next(each for each in advisory.document["vulnerabilities"] if each["title"].startswith("Web"))
    assert web["product_status"] == {"known_affected": ["P2"]}
    assert "contact_details" not in advisory.document["document"]["publisher"]


def test_names_that_make_the_same_file_are_numbered() -> None:
    one = leaking("192.0.2.1", "DE", None, product=replace(ORTHANC, vendor="", product="A B"))
    two = leaking("192.0.2.2", "DE", None, product=replace(ORTHANC, vendor="", product="A/B"))
    three = leaking("192.0.2.3", "DE", None, product=replace(ORTHANC, vendor="", product="名"))
    names = {each.file_name for each in build_advisories([one, two, three], PUBLISHER, NOW)}
    assert names == {"dwa-20261125-a-b.json", "dwa-20261125-a-b-2.json", "dwa-20261125-product.json"}


def test_weakness_without_a_cve_has_another_id() -> None:
    vulnerability = Vulnerability(id="ICSMA-23-1", title="", is_verified=True)
    server = with_findings(replace(leaking("192.0.2.1", "DE", None), vulnerabilities=(vulnerability,)))
    (advisory,) = build_advisories([server], PUBLISHER, NOW)
    known = advisory.document["vulnerabilities"][-1]
    assert known["ids"] == [{"system_name": "as published", "text": "ICSMA-23-1"}]
    assert known["title"] == "ICSMA-23-1"


def test_vulnerability_whose_versions_are_not_verified_accuses_nobody() -> None:
    server = with_findings(
        replace(leaking("192.0.2.1", "DE", None), vulnerabilities=(Vulnerability(id="CVE-2026-1", title="t"),))
    )
    (advisory,) = build_advisories([server], PUBLISHER, NOW)
    assert "CVE-2026-1" not in json.dumps(advisory.document)


def validate(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["node", SCRIPT, VALIDATOR], input=json.dumps(documents), capture_output=True, text=True, check=True
    )
    result: list[dict[str, Any]] = json.loads(done.stdout)
    return result


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.skipif(not VALIDATOR.is_dir(), reason="csaf-validator-lib is not installed: tools/setup.sh peers")
def test_independent_validator_takes_them() -> None:
    servers = (
        *SERVERS,
        leaking("192.0.2.1", "DE", counts(9, personal=3, patients=5), product=replace(ORTHANC, version="")),
    )
    documents = [
        each.document
        for addresses in (False, True)
        for each in build_advisories(servers, PUBLISHER, NOW, addresses=addresses)
    ]
    # The validator does look: a document with a product that isn't in the tree is refused.
    broken = json.loads(json.dumps(documents[0]))
    broken["vulnerabilities"][0]["product_status"]["known_affected"] = ["P99"]
    *verdicts, refused = validate([*documents, broken])
    assert [each["errors"] for each in verdicts] == [[]] * len(documents)
    assert not refused["valid"]
