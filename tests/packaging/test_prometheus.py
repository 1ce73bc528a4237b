"""Alert rules and the dashboard use metrics that exist, and the rules fire when they should and not before."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from dicomward.audit.event import EVENT_CLASS_BY_CODE
from tests.docs.pages import ROOT, read, rows_of, section_of
from tests.real.processes import run

RULES: Final = ROOT / "packaging" / "prometheus" / "dicomward.rules.yml"
TESTS: Final = ROOT / "packaging" / "prometheus" / "dicomward.rules.test.yml"
DASHBOARD: Final = ROOT / "packaging" / "grafana" / "dicomward.json"
_NAME: Final = re.compile(r"\b(?:dicomward|process)_[a-z_]+\b")


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Return type and labels of each metric; `test_monitoring` compares the page with the code."""
    return {
        row[0].strip("`"): (row[1], frozenset(filter(None, row[2].split(", "))))
        for row in rows_of(section_of(read("monitoring.md"), "Metrics"))
    }


def family_of(name: str) -> str:
    """Return the family of a series: those of a histogram have a suffix."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


def expressions_of_rules() -> list[str]:
    return re.findall(r"^\s+expr: (.+)$", RULES.read_text("utf-8"), re.MULTILINE)


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def expressions_of_dashboard() -> Iterator[str]:
    for panel in panels():
        for target in panel.get("targets", ()):
            yield target["expr"]


ALL: Final = [*expressions_of_rules(), *expressions_of_dashboard()]


@pytest.mark.parametrize("expression", ALL)
def test_every_metric_exists_with_the_labels_that_are_asked_for(expression: str) -> None:
    known = documented()
    names = {family_of(name) for name in _NAME.findall(expression)}
    assert names <= set(known)
    # Prometheus itself adds these two.
    labels = {"job", "instance", "le"}.union(*(known[name][1] for name in names))
    asked = set(re.findall(r'(\w+)\s*(?:=~|!=|=)\s*"', expression))
    for group in re.findall(r"by \(([^)]*)\)", expression):
        asked |= {label.strip() for label in group.split(",")}
    assert asked <= labels


@pytest.mark.parametrize("expression", ALL)
def test_rate_is_taken_of_counters_only(expression: str) -> None:
    known = documented()
    for name in re.findall(r"(?:rate|increase)\((\w+)", expression):
        assert known[family_of(name)][0] in ("counter", "histogram")


def test_event_codes_in_rules_exist() -> None:
    assert set(re.findall(r"DW-[A-Z-]+[A-Z]", RULES.read_text("utf-8"))) <= set(EVENT_CLASS_BY_CODE)


def test_every_alert_is_documented_and_tested() -> None:
    alerts = re.findall(r"- alert: (\w+)\n.*?severity: (\w+)", RULES.read_text("utf-8"), re.DOTALL)
    rows = [(row[0].strip("`"), row[1]) for row in rows_of(section_of(read("monitoring.md"), "Alerts and dashboard"))]
    assert rows == alerts
    tests = TESTS.read_text("utf-8")
    assert [name for name, _ in alerts if name not in tests] == []


def test_prometheus_takes_the_rules_and_they_fire_as_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    checked = run([Path(promtool), "check", "rules", RULES])
    assert checked.returncode == 0, checked.stdout
    tested = run([Path(promtool), "test", "rules", TESTS])
    assert tested.returncode == 0, tested.stdout


def test_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text("utf-8"))
    assert board["uid"] == "dicomward"
    numbers = [panel["id"] for panel in panels()]
    assert len(numbers) == len(set(numbers))
    for panel in panels():
        place = panel["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= 24
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
