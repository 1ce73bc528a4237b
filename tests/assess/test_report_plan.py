"""The hardening plan: every finding is closed by exactly one step, and what a gateway needs fits together."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dicomward.assess.observation import Finding, Protocol, Reach, ServerObservation, Vulnerability
from dicomward.assess.plan import NOBODYS_AE_TITLE
from dicomward.assess.report_model import RunFacts
from dicomward.assess.report_plan import PLAN_FILES, build_plan, draft_of, host_port, plan_text, plan_to_json
from dicomward.identity.draft import DraftDevice, draft_text, parse_draft, principals_of
from tests.assess.report_runs import FACTS, GUARDED, SERVERS, counts, leaking, with_findings

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)


def test_every_finding_is_closed_by_exactly_one_step() -> None:
    plan = build_plan(FACTS, SERVERS)
    closed = [(each.address, each.port, each.id) for step in plan.steps for each in step.closes]
    found = [(each.address, each.port, finding.id) for each in SERVERS for finding in each.findings]
    assert sorted(closed) == sorted(found)


def test_order_is_web_gateways_by_what_leaks_certificates_updates_proof() -> None:
    titles = [step.title for step in build_plan(FACTS, SERVERS).steps]
    assert titles[0] == "Close web administration and DICOMweb to strangers"
    gateways = [title.removeprefix("Put a gateway in front of ") for title in titles if "gateway in front" in title]
    assert gateways[:3] == [
        "203.0.113.4 port 104",
        "203.0.113.8 port 104",
        "pacs.north.example (198.51.100.20) port 104",
    ]
    assert titles[-3:] == [
        "Renew certificates and switch obsolete TLS off",
        "Update products with known vulnerabilities",
        "Prove it",
    ]


def test_gateway_takes_the_place_of_the_archive() -> None:
    plan = build_plan(FACTS, [SERVERS[0]])
    (gateway,) = plan.gateways
    assert host_port(gateway.listen) == "198.51.100.20:104"
    assert host_port(gateway.archive) == "127.0.0.1:10104"
    assert host_port(gateway.archive_listen) == "127.0.0.1:10105"
    assert (gateway.ae_title, gateway.title_is_known, gateway.archive_name) == ("ORTHANC", True, "ORTHANC")
    step = next(step for step in plan.steps if step.gateway is not None)
    assert step.commands[0] == (
        "dicomward init gateway-pacs.north.example-104/gw --pacs ORTHANC@127.0.0.1:10104 "
        "--listen 198.51.100.20:104 --archive-listen 127.0.0.1:10105"
    )


def test_ports_stay_in_range_and_ipv6_in_brackets() -> None:
    high = leaking("2001:db8::5", "DE", None, port=60_000)
    (gateway,) = build_plan(FACTS, [high]).gateways
    assert host_port(gateway.listen) == "[2001:db8::5]:60000"
    assert host_port(gateway.archive) == "[::1]:50000"
    assert gateway.directory == "gateway-2001-db8-5-60000"
    assert draft_of(gateway).archives[0].networks == ("127.0.0.0/8", "::1/128")


def test_directories_of_two_servers_differ() -> None:
    one = leaking("192.0.2.1", "DE", None, host="pacs example")
    two = leaking("192.0.2.2", "DE", None, host="pacs/example")
    directories = [each.directory for each in build_plan(FACTS, [one, two]).gateways]
    assert directories == ["gateway-pacs-example-104", "gateway-pacs-example-104-2"]


@pytest.mark.parametrize("title", ["", NOBODYS_AE_TITLE])
def test_title_that_was_not_learned_is_said(title: str) -> None:
    plan = build_plan(FACTS, [leaking("192.0.2.1", "DE", None, called_ae_title=title)])
    (gateway,) = plan.gateways
    assert not gateway.title_is_known
    assert any("AE title was not learned" in line for line in plan.steps[0].do)
    assert any("ARCHIVE stands for" in note for note in draft_of(gateway).notes)


def test_certificates_alone_need_no_gateway() -> None:
    titles = [step.title for step in build_plan(FACTS, [GUARDED]).steps]
    assert titles == ["Renew certificates and switch obsolete TLS off", "Prove it"]
    web = replace(GUARDED, protocol=Protocol.HTTPS, port=443)
    assert [step.title for step in build_plan(FACTS, [web]).steps] == titles


def test_known_vulnerabilities_are_named() -> None:
    only = with_findings(replace(GUARDED, controls=(), vulnerabilities=(Vulnerability(id="CVE-2025-1", title="t"),)))
    (update, _) = build_plan(FACTS, [only]).steps
    assert "CVE-2025-1" in update.do[0]
    unnamed = replace(only, vulnerabilities=(), findings=(Finding(id="DWA-KNOWN-VULNERABILITY"),))
    assert "without them" in build_plan(FACTS, [unnamed]).steps[0].do[0]


def test_nothing_found_is_nothing_to_do() -> None:
    quiet = replace(GUARDED, findings=())
    shut = replace(SERVERS[0], reach=Reach.REFUSED)
    plan = build_plan(RunFacts(), [quiet, shut])
    assert plan.steps == ()
    assert "There is nothing to close" in plan_text(plan, NOW)
    assert plan_text(plan, NOW).startswith("# Hardening plan\n")


def test_draft_can_be_registered() -> None:
    (gateway,) = build_plan(FACTS, [SERVERS[0]]).gateways
    draft = parse_draft(draft_text(draft_of(gateway)))
    _, (archive,) = principals_of(draft)
    assert (archive.name, archive.ae_title, archive.endpoint) == ("ORTHANC", "ORTHANC", gateway.archive)
    device = DraftDevice(name="ct1", ae_titles=("CT1",), role="modality", networks=("10.0.0.0/24",))
    with_device = draft_of(gateway, [device])
    assert with_device.devices == (device,)
    assert not any("does not see devices" in note for note in with_device.notes)


def test_plan_as_text_names_what_each_step_closes() -> None:
    text = plan_text(build_plan(FACTS, SERVERS), NOW)
    assert text.startswith("# Hardening plan for Regional Hospitals North\n\nMade 2026-11-25 03:00 UTC")
    assert "## 1. Close web administration and DICOMweb to strangers" in text
    assert "| DWA-FIND-OPEN: Queries are answered for anyone | 203.0.113.4 port 104 |" in text
    assert "dicomward assess --compare OLD NEW" in text


def test_plan_as_json_numbers_the_steps_and_names_the_files() -> None:
    value = plan_to_json(build_plan(FACTS, SERVERS))
    assert [step["number"] for step in value["steps"]] == list(range(1, len(value["steps"]) + 1))
    assert value["steps"][1]["files"] == [f"gateway-203.0.113.4-104/{name}" for name in PLAN_FILES]
    assert value["steps"][0]["files"] == []
    assert {"server", "address", "port", "finding"} == set(value["steps"][0]["closes"][0])


def test_largest_leak_is_first_also_without_counts() -> None:
    servers: list[ServerObservation] = [
        leaking("192.0.2.1", "DE", None),
        leaking("192.0.2.2", "DE", counts(5, personal=1, patients=1)),
    ]
    assert [each.server for each in build_plan(FACTS, servers).gateways] == [
        "192.0.2.2 port 104",
        "192.0.2.1 port 104",
    ]
